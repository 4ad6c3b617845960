"""What facenet runs in a process that measures; the other end is `link`, the loop is `worker`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.benching.floor import PROBE, probe_feed, probe_graph, probe_work
from facenet.apps.jobs.benching.material import readable
from facenet.apps.jobs.benching.watching import endless, filmed, stage, strangers
from facenet.apps.jobs.peers.worker import Job, keep_to, talk
from facenet.apps.jobs.training import training_room
from facenet.errors import FacenetError, InputError
from facenet.faces.detect import Detector
from facenet.faces.detectors import open_detector
from facenet.faces.embed import Embedder
from facenet.faces.strided import Strided, recall_against
from facenet.faces.yunet import YunetSettings
from facenet.images import load_image
from facenet.models.catalog import DEFAULT_DETECTOR
from facenet.models.engine import Engine, EngineSettings, open_engine
from facenet.models.loader import load_model
from facenet.recognizer import Recognizer
from facenet.types import ImageArray

Task = Mapping[str, Any]
Opened = tuple[Job, Mapping[str, Any]]
HELD = 256 << 20
"""Bytes of pixels that are held for measuring a stage, but for a single larger picture."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Where detectors, embedders, recognizers and engines come from, by a task."""

    detector: Callable[[Task], Detector]
    embedder: Callable[[Task], Embedder]
    recognizer: Callable[[Task], Recognizer]
    probe: Callable[[Task], Engine]


def _settings(task: Task) -> EngineSettings:
    return EngineSettings(
        engine=task["engine"],
        precision=task.get("precision", "fp32"),
        instructions=task.get("instructions", "auto"),
    )


def _detector(task: Task) -> Detector:
    quick = YunetSettings(arithmetic=task["arithmetic"]) if "arithmetic" in task else None
    return open_detector(task["detector"], _settings(task), options=quick)


def _embedder(task: Task) -> Embedder:
    model = load_model(task["model"], kind="embedder", settings=_settings(task))
    return Embedder(model.card, model.engine)


def _recognizer(task: Task) -> Recognizer:
    return Recognizer(model=task["model"], detector=task["detector"], engine=_settings(task))


def _probe(task: Task) -> Engine:
    """The graph of `floor` in the runtime that runs the detector."""
    wanted = _settings(task)
    described = load_model(DEFAULT_DETECTOR, settings=replace(wanted, precision="fp32"))
    runtime = str(described.engine.describe()["engine"])
    with tempfile.TemporaryDirectory(prefix="facenet-bench-") as folder:
        path = Path(folder) / "probe.onnx"
        path.write_bytes(probe_graph())
        return open_engine(path, replace(wanted, engine=runtime))


REAL = Parts(_detector, _embedder, _recognizer, _probe)


class Ours:
    """Facenet as a system that is measured: opens the job of a task."""

    def __init__(self, parts: Parts = REAL) -> None:
        self._parts = parts

    def open(self, task: Task) -> Opened:
        """What runs a task, and facts about it. Raises FacenetError where it cannot be run."""
        jobs: Mapping[str, Callable[[Task], Opened]] = {
            "detect": self._detect, "embed": self._embed, "pipeline": self._pipeline,
            "stage": self._stage, "strided": self._strided,
            "latency": self._latency, "arithmetic": self._arithmetic,
            "train": self._train, **self._films(),
        }  # fmt: skip
        return jobs[task["job"]](task)

    def _detect(self, task: Task) -> Opened:
        """A detector; what it loses in another arithmetic than fp32 is a fact."""
        detector, frames = self._parts.detector(task), list(np.load(task["frames"]))
        if task.get("mixed"):
            frames = [
                np.ascontiguousarray(frame[:, : frame.shape[1] - less])
                for less, frame in enumerate(frames)
            ]
        facts = {}
        if "arithmetic" in task:
            exact = self._parts.detector({k: v for k, v in task.items() if k != "arithmetic"})
            recall = recall_against(detector.detect(frames), exact.detect(frames))
            facts = {"recall": recall.share, "expected": recall.faces}

        def together(part: Any) -> Mapping[str, Any]:
            return {"items": len(frames), "faces": sum(map(len, detector.detect(frames)))}

        def one_by_one(part: Any) -> Mapping[str, Any]:
            found = [detector.detect([frame])[0] for frame in frames]
            return {"items": len(frames), "faces": sum(map(len, found))}

        return together if task["together"] else one_by_one, facts

    def _embed(self, task: Task) -> Opened:
        embedder, batch = self._parts.embedder(task), int(task["batch"])
        crops = np.load(task["crops"])

        def job(part: Any) -> Mapping[str, Any]:
            for start in range(0, len(crops), batch):
                embedder.embed_crops(crops[start : start + batch])
            return {"items": len(crops)}

        return job, embedder.engine

    def _pipeline(self, task: Task) -> Opened:
        """Files to vectors; one that cannot be used is passed over."""
        recognizer = self._parts.recognizer(task)

        def job(part: Any) -> Mapping[str, Any]:
            faces = sum(len(seen.faces) for seen in recognizer.stream(part))
            return {"items": len(part), "faces": faces}

        return job, recognizer.embedder.engine

    def _train(self, task: Task) -> Opened:
        """A step of training on random pictures; "plain": as a tutorial writes it."""
        room, network, batch = training_room("rehearsal"), task["network"], int(task["batch"])
        if task["precision"] == "plain":
            step = room.plain(network, batch)
        else:
            step = room.rehearsed(network, batch, precision=task["precision"])

        def job(part: Any) -> Mapping[str, Any]:
            step()
            return {"items": batch}

        return job, {}

    def _films(self) -> Mapping[str, Callable[[Task], Opened]]:
        jobs = {"film": filmed, "film_stage": stage, "film_long": endless}

        def opened(job: Callable[[Recognizer, Task], Opened], task: Task) -> Opened:
            return job(self._parts.recognizer(task), task)

        return {name: partial(opened, job) for name, job in jobs.items()}

    def _strided(self, task: Task) -> Opened:
        """Every n-th frame; what is lost against detection in each is a fact."""
        frames, detector = list(np.load(task["frames"])), self._parts.detector(task)
        strided = Strided(detector, stride=task["stride"])
        recall = recall_against(list(strided.frames(frames)), detector.detect(frames))

        def job(part: Any) -> Mapping[str, Any]:
            faces = sum(len(found) for found in strided.frames(frames))
            return {"items": len(frames), "faces": faces}

        return job, {"recall": recall.share, "expected": recall.faces}

    def _stage(self, task: Task) -> Opened:
        """One stage of the pipeline by itself, one photo at a time."""
        recognizer = self._parts.recognizer(task)
        photos, images = _readable(task["photos"])
        found = recognizer.detector.detect(images)
        if not any(found):
            raise InputError("Photos to measure with should show a face; none was found in them.")
        pairs = list(zip(images, found, strict=True))
        stages: Mapping[str, tuple[Callable[[], object], int]] = {
            "read": (lambda: [load_image(path) for path in photos], len(photos)),
            "detect": (lambda: [recognizer.detector.detect([i]) for i in images], len(photos)),
            "embed": (
                lambda: [recognizer.embedder.embed([i], [f]) for i, f in pairs if len(f)],
                sum(map(len, found)),
            ),
        }
        stage, count = stages[task["stage"]]

        def job(part: Any) -> Mapping[str, Any]:
            stage()
            return {"items": count}

        return job, recognizer.embedder.engine

    def _latency(self, task: Task) -> Opened:
        """From the bytes of one photo to names, among people who do not exist."""
        recognizer, data = self._parts.recognizer(task), Path(task["photo"]).read_bytes()
        people = strangers(recognizer.embedder, int(task["people"]))

        def job(part: Any) -> Mapping[str, Any]:
            return {"items": 1, "faces": len(recognizer.identify(people, data))}

        return job, recognizer.embedder.engine

    def _arithmetic(self, task: Task) -> Opened:
        """Runs of a large convolution; an item is 1e9 operations."""
        engine, feed = self._parts.probe(task), probe_feed()

        def job(part: Any) -> Mapping[str, Any]:
            for _ in range(PROBE.repeats):
                engine.run(feed)
            return {"items": PROBE.repeats * probe_work() / 1e9}

        return job, engine.describe()


def _readable(photos: Sequence[str]) -> tuple[list[str], list[ImageArray]]:
    """The photos that can be read, up to `HELD` bytes of pixels."""
    paths, images, held = list[str](), list[ImageArray](), 0
    for path, image in readable(map(Path, photos)):
        held += image.nbytes
        if images and held > HELD:
            break
        paths.append(str(path))
        images.append(image)
    return paths, images


def main(threads: str) -> None:
    """Serve over the pipes of this process, on so many processors."""
    keep_to(int(threads))
    talk(Ours().open, refusals=(FacenetError,))


if __name__ == "__main__":
    main(*sys.argv[1:])
