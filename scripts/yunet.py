"""YuNet against OpenCV's own run of the same file, and against MTCNN: tables of measured figures.

    python scripts/yunet.py --data FOLDER             # agreement: clip, LFW and a group photo
    python scripts/yunet.py --data FOLDER --time      # speed, the three taking turns
    python scripts/yunet.py --file yunet_n_dynamic.onnx --engine onnxruntime

FOLDER (or FACENET_TEST_DATA) is the test data that `scripts/golden/README.md` describes, with the
published files in `models/`. OpenCV is `cv2.FaceDetectorYN` with the same options; its faces of
less than 20 pixels are left out, as ours are. MTCNN's faces lie in `tests/golden`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from agreement import SETS, frames, load_golden, paired, pictures

from facenet.faces.boxes import overlap
from facenet.faces.yunet import LEAST, Yunet, YunetSettings
from facenet.models.engine import Engine, EngineSettings, open_engine
from facenet.types import Faces, FloatArray, ImageArray

FILES = ("face_detection_yunet_2026may.onnx", "yunet_n_dynamic.onnx")
SIZES = ((1920, 1080), (1280, 720), (960, 540), (640, 480))
SAME_AS_MTCNN = 0.4
"""Intersection over union from which a box is that of MTCNN's face: YuNet's are narrower."""
RUNS = 40
TOP = 5000
"""Candidates that OpenCV compares, its default."""


@dataclass
class Table:
    """A set of pictures: faces of OpenCV, of ours and of MTCNN, and how they agree."""

    name: str
    theirs: int = 0
    ours: int = 0
    pairs: list[tuple[float, float, float]] = field(default_factory=list)
    mtcnn: int = 0
    found: int = 0
    more: int = 0

    def add(self, faces: Faces, rows: FloatArray, mtcnn: FloatArray) -> None:
        """A picture: our faces, OpenCV's rows (n, 15), MTCNN's boxes (n, 4)."""
        assert faces.landmarks is not None
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        points = rows[:, 4:14].reshape(-1, 5, 2)
        self.theirs, self.ours = self.theirs + len(rows), self.ours + len(faces)
        for mine, other, share in paired(overlap(faces.boxes, boxes)):
            score = abs(float(faces.detection_score[mine] - rows[other, 14]))
            gap = float(np.abs(faces.landmarks[mine] - points[other]).max())
            self.pairs.append((share, score, gap))
        shares = overlap(mtcnn, faces.boxes) >= SAME_AS_MTCNN
        self.mtcnn += len(mtcnn)
        self.found += int(shares.any(axis=1).sum())
        self.more += int((~shares.any(axis=0)).sum())

    def line(self) -> str:
        """Markdown."""
        share, score, gap = np.array(self.pairs).T
        return (
            f"| {self.name} | {self.theirs} / {self.ours} | {len(share)} | {share.min():.4f} | "
            f"{score.max():.1e} | {gap.max():.3f} | {self.found} / {self.mtcnn} "
            f"({self.found / self.mtcnn:.1%}) | {self.more} |"
        )


def opencv(file: Path, size: tuple[int, int]) -> Any:
    """OpenCV's detector with our options."""
    settings = YunetSettings()
    return cv2.FaceDetectorYN.create(
        str(file), "", size, settings.score_threshold, settings.nms_threshold, TOP
    )


def rows_of(detector: Any, image: ImageArray) -> FloatArray:
    """What OpenCV finds: float32 (n, 15)."""
    rows = detector.detect(np.ascontiguousarray(image[..., ::-1]))[1]
    rows = np.zeros((0, 15), np.float32) if rows is None else np.asarray(rows, np.float32)
    return np.asarray(rows[rows[:, 2:4].max(axis=1, initial=0) >= LEAST], np.float32)


def agreement(file: Path, engine: Engine, data: Path) -> Iterator[Table]:
    """A table for each set of pictures."""
    golden = load_golden("facenet-pytorch")
    detector, theirs = Yunet(engine), opencv(file, (320, 320))
    for name in SETS:
        table, ends = Table(name), np.cumsum(golden[f"{name}_counts"])
        for number, image in enumerate(pictures(golden, data, name)):
            theirs.setInputSize((image.shape[1], image.shape[0]))
            start = ends[number] - golden[f"{name}_counts"][number]
            boxes = golden[f"{name}_boxes"][start : ends[number], :4].astype(np.float32)
            table.add(detector.detect([image])[0], rows_of(theirs, image), boxes)
        yield table


def timed(jobs: Sequence[Callable[[], Any]]) -> FloatArray:
    """Milliseconds of each job, which take turns: (RUNS, jobs)."""
    taken = np.zeros((RUNS + 5, len(jobs)), np.float32)
    for run in range(len(taken)):
        for number, job in enumerate(jobs):
            start = time.perf_counter()
            job()
            taken[run, number] = 1e3 * (time.perf_counter() - start)
    return taken[5:]


def speed(file: Path, engine: Engine, data: Path) -> Iterator[str]:
    """A line for each size: frames a second of the network alone, of ours and of OpenCV."""
    (name,) = engine.inputs
    frame = next(iter(frames(data / "video/faces-1080p.mp4")))
    detector = Yunet(engine)
    for width, height in SIZES:
        image = np.asarray(cv2.resize(frame, (width, height)), np.uint8)
        bgr = np.ascontiguousarray(image[..., ::-1])
        blob = np.zeros((1, 3, -(-height // 32) * 32, -(-width // 32) * 32), np.float32)
        blob[..., :height, :width] = cv2.dnn.blobFromImage(bgr)
        theirs = opencv(file, (width, height))
        jobs: list[Callable[[], Any]] = [
            partial(engine.run, {name: blob}),
            partial(detector.detect, [image]),
            partial(theirs.detect, bgr),
        ]
        taken = timed(jobs)
        middle, best = np.median(taken, axis=0), taken.min(axis=0)
        rates = [f"{1e3 / m:.1f} ({1e3 / b:.1f})" for m, b in zip(middle, best, strict=True)]
        ratios = [f"{middle[0] / middle[1]:.2f}", f"{middle[2] / middle[1]:.1f}"]
        yield f"| {width}x{height} | {' | '.join(rates + ratios)} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("FACENET_TEST_DATA"))
    parser.add_argument("--file", choices=FILES, action="append")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--time", action="store_true")
    options = parser.parse_args()
    if options.data is None:
        raise SystemExit("--data (or FACENET_TEST_DATA) should name the folder of test data.")
    for name in options.file or FILES:
        file = Path(options.data) / "models" / name
        settings = EngineSettings(engine=options.engine, device="cpu", precision=options.precision)
        engine = open_engine(file, settings)
        print(f"\n{name}, {options.engine}, {options.precision}, {settings.threads} threads")
        if options.time:
            print("| size | network alone, fps (best) | facenet | OpenCV | share | times OpenCV |")
            print("|---|---|---|---|---|---|")
            for line in speed(file, engine, Path(options.data)):
                print(line, flush=True)
        else:
            print("| set | OpenCV / ours | pairs | IoU | score | points | of MTCNN's | more |")
            print("|---|---|---|---|---|---|---|---|")
            for table in agreement(file, engine, Path(options.data)):
                print(table.line(), flush=True)


if __name__ == "__main__":
    main()
