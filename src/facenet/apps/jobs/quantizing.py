"""An 8-bit file of an embedder, made, measured, and kept or refused: `facenet models quantize`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from facenet.apps.jobs.evaluation import Evaluation, evaluate_pairs
from facenet.apps.jobs.folderset import FolderSettings, folder_pairs
from facenet.apps.jobs.gather import Done
from facenet.data.csvpairs import read_csv_pairs
from facenet.data.pairs import lfw_pairs
from facenet.data.pairset import PairSet
from facenet.errors import DataError, InputError, SettingsError
from facenet.faces.align import crop_faces
from facenet.faces.detect import select_faces
from facenet.faces.embed import Embedder
from facenet.images import find_images, load_image
from facenet.models.card import Golden
from facenet.models.disk import sha256_of
from facenet.models.effect import MOST_CHANGE, Effect
from facenet.models.engine import Engine, EngineSettings, golden_input, open_engine
from facenet.models.home import cpu_name
from facenet.models.quantised import (
    LEAST_MEDIAN,
    Calibrated,
    Closeness,
    Quantised,
    save_quantised,
)
from facenet.models.quantize import Plan, Quantiser, tool
from facenet.models.store import ModelStore
from facenet.recognizer import Recognizer
from facenet.types import FloatArray, ImageArray

HELD_OUT = 100
"""Faces beside those of the calibration, on which the vectors are compared."""
LEAST_FACES = 8
MOST_FACES = 10_000
SELECT = "center_weighted_size"

Stage = Callable[[str], AbstractContextManager[Done]]
"""Shows how far a named part of the work is."""


@dataclass(frozen=True, slots=True)
class Quantising:
    """What a less exact arithmetic is measured with, and an 8-bit file made.

    images: folder of photos that show a face each. pairs: LFW's pairs file or a CSV of pairs whose
    pictures are below `images`; None: pairs are drawn from `images`, a folder per person. count:
    faces of the calibration; the vectors of these too are compared in bf16. seed: of what is drawn.
    Raises SettingsError.
    """

    images: Path
    pairs: Path | None = None
    count: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if not LEAST_FACES <= self.count <= MOST_FACES or self.seed < 0:
            raise SettingsError(
                f"A calibration should have {LEAST_FACES} to {MOST_FACES:,} faces and a seed of 0 "
                f"or more; got {self.count} and {self.seed}."
            )

    def pair_set(self) -> PairSet:
        """The pairs that decisions are compared on. Raises DataError."""
        if self.pairs is None:
            return folder_pairs(self.images, FolderSettings(), self.seed)
        if self.pairs.suffix.lower() == ".csv":
            return read_csv_pairs(self.pairs, self.images)
        return lfw_pairs(self.images, self.pairs)


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Crops: uint8 (n, H, W, 3) to calibrate with, (m, H, W, 3) held out, and what they are of."""

    calibration: ImageArray
    held_out: ImageArray
    origin: Calibrated


def quantise_model(recognizer: Recognizer, how: Quantising, stage: Stage) -> Quantised:
    """Make an 8-bit file of a recognizer's embedder, and keep it if it is as good as fp32.

    recognizer: in fp32. Plans are tried until one passes; the record is kept in either case, and
    takes the place of an earlier one. Raises DataError for too few faces or pairs, EngineError when
    the graph cannot be made 8-bit.
    """
    card, store = recognizer.embedder.card, ModelStore()
    (path,) = store.files(card).values()
    pairs = how.pair_set()
    with stage("faces") as done:
        faces = gather_faces(recognizer, pairs, how, done)
    measure = Measure(recognizer, pairs, faces.held_out, stage)
    with Quantiser(path) as quantiser:
        for plan in quantiser.plans():
            with stage(f"8 bits, {plan.kept} in float") as done:
                data = quantiser.quantise(
                    plan, _batches(faces.calibration, recognizer.embedder, done)
                )
            if measure.passes(plan, data):
                break
        output = quantiser.output
    kept = data if measure.passed else b""
    record = Quantised(
        model=card.name,
        offered=measure.passed,
        reason=measure.reason(),
        sha256=hashlib.sha256(kept).hexdigest() if kept else "",
        bytes=len(kept),
        source=store.digests(card),
        calibration=faces.origin,
        tries=tuple(measure.tries),
        effect=measure.effect,
        tool=tool(),
        engine=measure.engine,
        processor=cpu_name(),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        golden=measure.golden(kept, output) if kept else None,
    )
    save_quantised(card, record, kept, store)
    return record


class Measure:
    """How close 8-bit graphs are to fp32, one after the other: in vectors, then in decisions.

    held_out: uint8 (n, H, W, 3), crops that no range was taken from. tries: what was found.
    effect: of the last graph whose vectors were close enough. passed: whether the last one is as
    good as fp32.
    """

    def __init__(
        self, recognizer: Recognizer, pairs: PairSet, held_out: ImageArray, stage: Stage
    ) -> None:
        self._exact, self._pairs, self._crops, self._stage = recognizer, pairs, held_out, stage
        running = recognizer.embedder.engine
        self._settings = EngineSettings(str(running["engine"]), str(running["device"]), "int8")
        self._expected = recognizer.embedder.embed_crops(held_out)
        self.engine = f"{running['engine']} {running['version']} on {running['device']}"
        self.tries: list[Closeness] = []
        self.effect: Effect | None = None
        self.passed = False

    def passes(self, plan: Plan, data: bytes) -> bool:
        """Look at one graph, as ONNX bytes."""
        embedder = Embedder(self._exact.embedder.card, self._open(data))
        cosines = np.sum(embedder.embed_crops(self._crops) * self._expected, axis=1)
        found = Closeness(
            plan.kept,
            len(plan.nodes),
            float(cosines.min()),
            float(np.median(cosines)),
            len(cosines),
        )
        self.tries.append(found)
        self.effect = None
        if found.median >= LEAST_MEDIAN:
            self.effect = self._decisions(embedder)
        self.passed = self.effect is not None and self.effect.little
        return self.passed

    def golden(self, data: bytes, output: str) -> Golden:
        """The answer of a graph to the known input."""
        engine, preprocess = self._open(data), self._exact.embedder.preprocess
        ((entry, (fixed, *_)),) = engine.inputs.items()
        shape = (fixed or 1, 3, preprocess.height, preprocess.width)
        values = engine.run({entry: golden_input(shape)})[output]
        return Golden(shape, {output: tuple(map(float, values.ravel()))})

    def reason(self) -> str:
        """Why the last graph may be used, or why it may not: a sentence."""
        last = self.tries[-1]
        if self.effect is None:
            best = max(each.median for each in self.tries)
            return (
                f"Its vectors have a median cosine of {best:.4f} to those of fp32 at best; at "
                f"least {LEAST_MEDIAN} is needed."
            )
        told = self.effect.words()
        if not self.passed:
            return f"{told[0].upper()}{told[1:]}; at most {MOST_CHANGE} is allowed."
        return (
            f"Its vectors have a median cosine of {last.median:.4f} to those of fp32 (lowest "
            f"{last.lowest:.4f}, {last.crops} faces), and {told}."
        )

    def _open(self, data: bytes) -> Engine:
        return open_engine(data, self._settings)

    def _decisions(self, embedder: Embedder) -> Effect:
        return decisions(self._exact, embedder, self._pairs, self._stage)


def decisions(exact: Recognizer, embedder: Embedder, pairs: PairSet, stage: Stage) -> Effect:
    """Accuracy in fp32 and of another embedder, on the same pictures and the same faces in them.

    exact: in fp32. embedder: the same network in a less exact arithmetic.
    """
    other = copy(exact)
    other.__dict__.update(embedder=embedder)
    with stage("pictures of the pairs") as done:
        evaluated = evaluate_pairs(pairs, [exact, other], Evaluation(replicates=1), done=done)
    fp32, reduced = (float(model["accuracy"]) for model in evaluated.models)
    return Effect(pairs.dataset, len(pairs), fp32, reduced)


def gather_faces(recognizer: Recognizer, pairs: PairSet, how: Quantising, done: Done) -> Faces:
    """Crops of faces from pictures drawn at random, first from those that are in no pair.

    A picture that cannot be read or has no face is passed over. Raises DataError when too few are
    found.
    """
    compared = {str(Path(p.source).resolve()) for p in pairs.pictures if isinstance(p.source, Path)}
    files = [path.resolve() for path in find_images([how.images])]
    order = np.random.default_rng(how.seed).permutation(len(files))
    drawn = sorted((files[row] for row in order), key=lambda path: str(path) in compared)
    wanted = how.count + HELD_OUT
    crops: list[ImageArray] = []
    used: list[Path] = []
    for path in drawn:
        if len(crops) == wanted:
            break
        crop = _crop(recognizer, path)
        if crop is not None:
            crops.append(crop)
            used.append(path)
            done(len(crops), wanted)
    if len(crops) < LEAST_FACES:
        raise DataError(
            f"{str(how.images)[:300]} should show {LEAST_FACES} faces or more, to take the ranges "
            f"of the layers from; {len(crops)} were found. Give a folder with more photos."
        )
    count = min(how.count, len(crops) * 3 // 4)
    digest = hashlib.sha256("".join(map(sha256_of, used[:count])).encode()).hexdigest()
    both = sum(str(path) in compared for path in used[:count])
    origin = Calibrated(count, digest, how.seed, both)
    return Faces(np.stack(crops[:count]), np.stack(crops[count:]), origin)


def _crop(recognizer: Recognizer, path: Path) -> ImageArray | None:
    """The crop of a picture's one face, (H, W, 3); None without any."""
    try:
        image = load_image(path)
        found = recognizer.detector.detect([image])[0]
        face = select_faces(found, SELECT, (image.shape[1], image.shape[0]))
        crops = crop_faces(image, face, recognizer.embedder.preprocess)
    except InputError:
        return None
    return crops[0] if len(crops) else None


def _batches(crops: ImageArray, embedder: Embedder, done: Done) -> Iterator[FloatArray]:
    """Network inputs of crops, uint8 (n, H, W, 3): float32 (m, 3, H, W) each."""
    for rows in embedder.plan(len(crops)):
        yield embedder.feed(crops[rows])
        done(rows.stop, len(crops))


def quantised_text(record: Quantised) -> str:
    """What came of it, for a person."""
    state = f"int8 is kept, {record.bytes / 1e6:.1f} MB" if record.offered else "int8 is refused"
    lines = [f"{record.model}: {state}. {record.reason}"]
    for each in record.tries:
        lines.append(
            f"{each.kept} in float: cosine to fp32 median {each.median:.4f}, lowest "
            f"{each.lowest:.4f}"
        )
    return "\n".join(lines)
