"""How well our MTCNN agrees with the two systems it reproduces: a table of measured figures.

    python scripts/agreement.py --data FOLDER            # both modes, both engines, all pictures
    python scripts/agreement.py --mode facenet --engine onnxruntime --stride 5

FOLDER (or FACENET_TEST_DATA) is the test data that `scripts/golden/README.md` describes; what the
other systems found in it lies in `tests/golden`. Faces are paired one to one, best overlap first.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facenet.faces.boxes import overlap
from facenet.faces.detect import Detector
from facenet.faces.detectors import open_detector
from facenet.faces.exactness import EXACTNESS
from facenet.faces.glance import MARGIN, glances_of
from facenet.faces.mtcnn import Mtcnn, MtcnnSettings
from facenet.models.engine import ENGINES, Engine, EngineSettings
from facenet.models.loader import load_model
from facenet.types import Faces, FloatArray, ImageArray

Arrays = Mapping[str, NDArray[Any]]
Scores = Callable[[FloatArray], FloatArray]

GOLDEN = Path(__file__).resolve().parents[1] / "tests/golden"
FILES = {"facenet-pytorch": "facenet_pytorch_mtcnn.npz", "facenet": "facenet_f18_mtcnn.npz"}
SETS = ("clip", "lfw", "multiface")
SAME_FACE = 0.5
"""Intersection over union from which two boxes show the same face."""
CLOSE = 0.95
EQUAL = 1e-3
"""Pixels between two edges that count as equal."""


@dataclass
class Agreement:
    """Two systems on the same pictures: faces of each, and of the pairs the box overlap, the
    largest shift of an edge and the five landmark distances, both in pixels. disputed: numbers
    of the pictures with a pair below `CLOSE` or a face that only one system finds.
    other_pixels: pictures that another decoder read differently."""

    pictures: int = 0
    theirs: int = 0
    ours: int = 0
    overlaps: list[float] = field(default_factory=list)
    shifts: list[float] = field(default_factory=list)
    distances: list[NDArray[np.float64]] = field(default_factory=list)
    disputed: list[int] = field(default_factory=list)
    other_pixels: int = 0

    def add(self, number: int, found: Faces, boxes: FloatArray, landmarks: FloatArray) -> None:
        """Picture `number`: what we found, and their boxes (n, 4+) and landmarks (n, 5, 2)."""
        pairs = paired(overlap(found.boxes, boxes[:, :4]))
        assert found.landmarks is not None
        for mine, other, share in pairs:
            self.overlaps.append(share)
            self.shifts.append(float(np.abs(found.boxes[mine] - boxes[other, :4]).max()))
            gap = found.landmarks[mine].astype(np.float64) - landmarks[other]
            self.distances.append(np.hypot(gap[:, 0], gap[:, 1]))
        lone = len(pairs) < max(len(found), len(boxes))
        if lone or min((share for _, _, share in pairs), default=1.0) < CLOSE:
            self.disputed.append(number)
        self.pictures += 1
        self.theirs += len(boxes)
        self.ours += len(found)

    @property
    def found(self) -> float:
        """Share of the faces of one system that the other finds too, the smaller of both ways."""
        return len(self.overlaps) / max(self.theirs, self.ours, 1)

    @property
    def close(self) -> float:
        """Share of the pairs that overlap by `CLOSE` or more."""
        return float(np.mean(np.array(self.overlaps) >= CLOSE))

    @property
    def equal(self) -> float:
        """Share of the pairs whose edges are `EQUAL` or less apart."""
        return float(np.mean(np.array(self.shifts) <= EQUAL))

    @property
    def median_distance(self) -> float:
        """Median distance of the landmarks, in pixels."""
        return float(np.median(self.distances))

    @property
    def largest_distance(self) -> float:
        """Largest distance of two landmarks, in pixels."""
        return float(np.max(self.distances))


def paired(table: FloatArray) -> list[tuple[int, int, float]]:
    """One-to-one pairs (row, column, overlap), the best first, down to `SAME_FACE`."""
    table, pairs = table.copy(), []
    while table.size and table.max() >= SAME_FACE:
        row, column = np.unravel_index(int(table.argmax()), table.shape)
        pairs.append((int(row), int(column), float(table[row, column])))
        table[row, :] = table[:, column] = -1
    return pairs


def read_rgb(path: Path) -> ImageArray:
    """A picture file as the golden scripts read it."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise SystemExit(f"{path} should be a picture; it cannot be read. See --data.")
    return np.ascontiguousarray(picture[:, :, ::-1], np.uint8)


def frames(path: Path) -> Iterator[ImageArray]:
    """The frames of a clip as RGB."""
    clip = cv2.VideoCapture(str(path))
    while True:
        found, frame = clip.read()
        if not found:
            return
        yield np.ascontiguousarray(frame[:, :, ::-1], np.uint8)


def pictures(golden: Arrays, data: Path, name: str) -> Iterator[ImageArray]:
    """The pictures of a set, in the order of its golden arrays."""
    if name == "clip":
        yield from frames(data / "video/faces-1080p.mp4")
    elif name == "lfw":
        yield from (read_rgb(data / "lfw/images" / str(path)) for path in golden["lfw_names"])
    else:
        yield read_rgb(data / "images/multiface.jpg")


def load_golden(mode: str) -> Arrays:
    """The golden arrays of the system that a mode reproduces."""
    with np.load(GOLDEN / FILES[mode], allow_pickle=False) as file:
        return dict(file)


def measure(
    detector: Detector, golden: Arrays, data: Path, name: str, *, stride: int = 1
) -> Agreement:
    """Detect every `stride`-th picture of a set and compare."""
    counts = golden[f"{name}_counts"]
    ends = np.cumsum(counts)
    total = Agreement()
    for number, image in zip(range(len(counts)), pictures(golden, data, name), strict=False):
        if number % stride:
            continue
        rows = slice(ends[number] - counts[number], ends[number])
        total.other_pixels += zlib.crc32(image.tobytes()) != golden[f"{name}_crc"][number]
        boxes, landmarks = golden[f"{name}_boxes"][rows], golden[f"{name}_landmarks"][rows]
        total.add(number, detector.detect([image])[0], boxes, landmarks)
    if total.pictures != len(range(0, len(counts), stride)):
        raise SystemExit(f"{data} should hold {len(counts)} pictures of {name}; it has fewer.")
    return total


def line(title: str, result: Agreement, seconds: float) -> str:
    """One row of the table."""
    cells = [
        f"{title:<40}",
        f"{result.pictures:>8}",
        f"{result.theirs:>6}",
        f"{result.ours:>6}",
        f"{100 * result.found:>8.2f}",
        f"{100 * result.close:>9.2f}",
        f"{100 * result.equal:>9.2f}",
        f"{min(result.overlaps):>9.4f}",
        f"{result.median_distance:>9.1e}",
        f"{result.largest_distance:>8.2f}",
        f"{seconds:>6.1f}",
    ]
    note = f"  {result.other_pixels} decoded differently" if result.other_pixels else ""
    return " ".join(cells) + note


HEADER = (
    f"{'mode, engine, pictures':<40} pictures theirs   ours  found % IoU>.95 % .001 px %  IoU min  "
    "lm median  lm max      s"
)


@dataclass
class Beside:
    """An engine that lets a quick look see the same, and notes how much lower that scores what
    passes."""

    exact: Engine
    quick: Scores
    threshold: float
    lower: list[NDArray[Any]] = field(default_factory=list)

    @property
    def inputs(self) -> Mapping[str, Any]:
        return self.exact.inputs

    def describe(self) -> dict[str, Any]:
        return self.exact.describe()

    def run(self, feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        answer = self.exact.run(feeds)
        passed = answer["score"] >= self.threshold
        self.lower.append((answer["score"] - self.quick(feeds["image"]))[passed])
        return answer


def quick_looks(exact: Mapping[str, Engine]) -> tuple[str, dict[str, Scores]]:
    """What looks quickly here in the place of P-net and R-net: its name, and its scores."""
    glances = glances_of(exact)
    if glances.pnet is not None and glances.rnet is not None:
        odds = {"pnet": glances.pnet.odds, "rnet": glances.rnet.odds}
        return "AMX", {net: partial(scored, each) for net, each in odds.items()}
    print(f"AMX is off: {glances.reason}")
    settings = EngineSettings(engine="openvino", precision="bf16")
    quick = load_model("mtcnn", settings=settings).engines
    return "OpenVINO in bf16", {
        net: lambda image, net=net: quick[net].run({"image": image})["score"] for net in MARGIN
    }


def scored(odds: Scores, image: FloatArray) -> FloatArray:
    """The scores that a glance gives levels or crops, (n, 3, h, w): 1 / (1 + exp(-odds))."""
    return np.asarray(1 / (1 + np.exp(-odds(image))), np.float32)


def margins(data: Path, stride: int) -> None:
    """Print how much lower the quick look scores what fp32 lets pass, beside the margin for it."""
    exact = load_model("mtcnn", settings=EngineSettings(engine="openvino")).engines
    name_of_look, quick = quick_looks(exact)
    limits = dict(zip(("pnet", "rnet"), MtcnnSettings().thresholds, strict=False))
    both = {net: Beside(exact[net], quick[net], limits[net]) for net in limits}
    detector = Mtcnn({**exact, **both})
    golden = load_golden("facenet-pytorch")
    for name in SETS:
        for image in islice(pictures(golden, data, name), 0, None, stride):
            detector.detect([image])
    for net, margin in MARGIN.items():
        lower = np.concatenate([part.ravel() for part in both[net].lower])
        print(
            f"{net}: of {lower.size:,} scores that pass, {name_of_look} is lower by at most "
            f"{lower.max():.4f}, 99.99 % by {np.quantile(lower, 0.9999):.4f}; margin {margin}"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--data", default=os.environ.get("FACENET_TEST_DATA"), help="test data")
    parser.add_argument("--mode", action="append", choices=list(EXACTNESS), help="default: both")
    parser.add_argument(
        "--engine", action="append", choices=ENGINES, help="default: onnxruntime and openvino"
    )
    parser.add_argument("--set", action="append", choices=SETS, help="default: all")
    parser.add_argument("--stride", type=int, default=1, help="take every n-th picture")
    args = parser.parse_args()
    if not args.data:
        parser.error("give --data, or set FACENET_TEST_DATA to the test data folder")
    if args.stride < 1:
        parser.error(f"--stride should be 1 or more; got {args.stride}")
    print(HEADER)
    for mode in args.mode or EXACTNESS:
        golden = load_golden(mode)
        for engine in args.engine or ("onnxruntime", "openvino"):
            options = MtcnnSettings(exactness=mode)
            detector = open_detector("mtcnn", EngineSettings(engine=engine), options=options)
            for name in args.set or SETS:
                start = time.perf_counter()
                result = measure(detector, golden, Path(args.data), name, stride=args.stride)
                print(line(f"{mode}, {engine}, {name}", result, time.perf_counter() - start))
                sys.stdout.flush()
    margins(Path(args.data), args.stride)


if __name__ == "__main__":
    main()
