"""From crops to vectors: standardise as the card says, run in batches, scale to unit length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from facenet import vectors
from facenet.errors import EngineError, InputError, ModelFileError
from facenet.faces.align import crop_faces
from facenet.models.card import ModelCard, Preprocess
from facenet.models.engine import BATCHES, Engine
from facenet.types import Faces, FloatArray, ImageArray

BATCH = BATCHES[-1]
"""Crops per run of the engine."""
VALUES = np.arange(256, dtype=np.float32)
"""What a value of a picture may be."""
FLIPPED = "+flip"
"""End of the contract of vectors with the mirror image summed in."""


def fixed(pixels: FloatArray) -> FloatArray:
    """(x - 127.5) / 128: the 2018 facenet models, facenet-pytorch, MobileFaceNet."""
    return (pixels - np.float32(127.5)) * np.float32(1 / 128)


def per_image(pixels: FloatArray) -> FloatArray:
    """facenet's prewhiten of float32 (n, H, W, 3): one mean and deviation per picture.

    (x - mean) / max(std, 1 / sqrt(N)); the 2017 facenet models.
    """
    axes = (1, 2, 3)
    mean = pixels.mean(axis=axes, keepdims=True, dtype=np.float64)
    deviation = pixels.std(axis=axes, keepdims=True, dtype=np.float64)
    count = np.prod(pixels.shape[1:])
    return np.asarray((pixels - mean) / np.maximum(deviation, 1 / np.sqrt(count)), np.float32)


def insightface(pixels: FloatArray) -> FloatArray:
    """(x - 127.5) / 127.5: the ONNX models of InsightFace."""
    return (pixels - np.float32(127.5)) * np.float32(1 / 127.5)


def none(pixels: FloatArray) -> FloatArray:
    """float32 (n, H, W, 3) as it is: graphs that standardise inside, as MXNet's exports do."""
    return pixels


STANDARDISE: dict[str, Callable[[FloatArray], FloatArray]] = {
    "fixed": fixed,
    "per_image": per_image,
    "insightface": insightface,
    "none": none,
}
"""Name in the card -> float32 (n, H, W, 3), values 0 to 255 -> float32 of the same shape."""


def standardise(crops: ImageArray, preprocess: Preprocess) -> FloatArray:
    """Network input of crops: uint8 (n, H, W, 3) RGB -> contiguous float32 (n, 3, H, W).

    The same values as those of `STANDARDISE`, looked up: a value of a picture is one of 256.
    """
    import cv2

    count, height, width, _ = crops.shape
    inputs = np.empty((count, 3, height, width), np.float32)
    planes = np.empty((3, height, width), np.uint8)
    order = planes if preprocess.color == "rgb" else planes[::-1]
    table = None if preprocess.standardise == "per_image" else _table(preprocess.standardise)
    for crop, row in zip(crops, inputs, strict=True):
        cv2.split(np.ascontiguousarray(crop), list(order))
        own = _own_table(planes) if table is None else table
        cv2.LUT(planes.reshape(1, -1), own, row.reshape(1, -1))
    return inputs


def _table(name: str) -> FloatArray:
    """What becomes of each level: float32 (256,)."""
    return STANDARDISE[name](VALUES.reshape(1, 1, -1, 1)).ravel()


def _own_table(planes: ImageArray) -> FloatArray:
    """`per_image` of each level of one picture: uint8 (3, H, W) -> float32 (256,)."""
    counts = np.bincount(planes.ravel(), minlength=len(VALUES))
    levels = VALUES.astype(np.float64)
    mean = counts @ levels / planes.size
    deviation = np.sqrt(counts @ (levels - mean) ** 2 / planes.size)
    return np.asarray((levels - mean) / max(deviation, 1 / np.sqrt(planes.size)), np.float32)


class Embedder:
    """Turns faces into unit vectors.

    card: of an embedder. engine: its loaded graph. flip: add the embedding of the mirrored crop
    (summed, then unit length, as InsightFace does).
    """

    def __init__(self, card: ModelCard, engine: Engine, *, flip: bool = False) -> None:
        if card.preprocess is None or card.dimension is None:
            raise ModelFileError(f"{card.name} is a {card.kind}; an embedder is needed.")
        self.card, self.preprocess, self.flip = card, card.preprocess, flip
        self._engine, self._own = engine, card
        self._input = next(iter(engine.inputs))
        self._fixed_batch = engine.inputs[self._input][0]

    @property
    def contract(self) -> str:
        """Id of the vector space; vectors of another contract are never compared."""
        return self.card.contract + (FLIPPED if self.flip else "")

    def with_standardise(self, standardise: str) -> Embedder:
        """The same network, fed otherwise than its card says: an experiment on what that costs.

        standardise: a key of `STANDARDISE`. Its vectors have a contract of their own and no
        false-match rates. Raises SettingsError for another name.
        """
        card = self._own
        preprocess = replace(self.preprocess, standardise=standardise)
        if preprocess != card.preprocess:
            card = replace(card, preprocess=preprocess, fmr=None)
        other = Embedder(card, self._engine, flip=self.flip)
        other._own = self._own
        return other

    @property
    def overridden(self) -> str | None:
        """The standardisation of the model's card, where another one is in use."""
        own = self._own.preprocess
        return own.standardise if own and own != self.preprocess else None

    @property
    def title(self) -> str:
        """The model's name, with what is not as its card says."""
        name = self.card.name
        return f"{name} standardised {self.preprocess.standardise}" if self.overridden else name

    @property
    def engine(self) -> dict[str, object]:
        """What runs it: engine, version, device, precision, threads."""
        return dict(self._engine.describe())

    @property
    def precision(self) -> str:
        """Arithmetic of the engine: "fp32", "bf16" or "int8"."""
        return str(self._engine.describe()["precision"])

    @property
    def arithmetic(self) -> str:
        """The precision and, of an 8-bit file, which one: what remembered vectors depend on."""
        weights = self._engine.describe().get("weights")
        return f"{self.precision} {weights}" if weights else self.precision

    def embed(self, images: Sequence[ImageArray], faces: Sequence[Faces]) -> list[Faces]:
        """Add embeddings to the faces of photos, in batches over all of them.

        images: uint8 (H, W, 3) RGB. faces: one `Faces` per image. Returns new `Faces`.
        Raises InputError when a face cannot be cropped, EngineError for an unusable answer.
        """
        if len(images) != len(faces):
            raise InputError(
                f"embed should get one Faces per image; got {len(images)} images and "
                f"{len(faces)} Faces."
            )
        if len(images) == 0:
            return []
        crops = [
            crop_faces(image, found, self.preprocess)
            for image, found in zip(images, faces, strict=True)
        ]
        rows = self.embed_crops(np.concatenate(crops))
        ends = np.cumsum([len(found) for found in faces])[:-1]
        parts = np.split(rows, ends)
        return [
            found.with_(embedding=part, contract=self.contract)
            for found, part in zip(faces, parts, strict=True)
        ]

    def embed_crops(self, crops: ImageArray) -> FloatArray:
        """Unit vectors of crops: uint8 (n, H, W, 3) RGB -> float32 (n, d)."""
        total = self.outputs(crops)
        if self.flip:
            total = total + self.outputs(crops[:, :, ::-1])
        return vectors.unit(total)

    def outputs(self, crops: ImageArray) -> FloatArray:
        """What the network says of crops, of whatever length: uint8 (n, H, W, 3) RGB -> (n, d)."""
        none = np.zeros((0, int(self.card.dimension or 0)), np.float32)
        return np.concatenate([none, *(self._batch(crops[rows]) for rows in self.plan(len(crops)))])

    def plan(self, count: int) -> Iterator[slice]:
        """Slices that cover `count` crops, each at most one batch."""
        step = self._fixed_batch or BATCH
        return (slice(start, min(start + step, count)) for start in range(0, count, step))

    def feed(self, crops: ImageArray) -> FloatArray:
        """Network input of one batch: uint8 (n, H, W, 3) RGB -> float32 (n, 3, H, W).

        For a graph of a fixed batch as many rows as it takes, the first ones again at the end.
        """
        inputs, fixed = standardise(crops, self.preprocess), self._fixed_batch
        return np.resize(inputs, (fixed, *inputs.shape[1:])) if fixed else inputs

    def _batch(self, crops: ImageArray) -> FloatArray:
        inputs, count = self.feed(crops), len(crops)
        answer = next(iter(self._engine.run({self._input: inputs}).values()))[:count]
        if answer.shape != (count, self.card.dimension):
            raise EngineError(
                f"{self.card.name} should give {self.card.dimension} values for each of {count} "
                f"faces; it gave an array of {answer.shape}. Its card does not fit its file."
            )
        if not np.all(np.isfinite(answer)):
            raise EngineError(
                f"{self.card.name} should give finite numbers; it gave NaN or infinity. Use "
                'another engine or precision "fp32", and check the file against its digest.'
            )
        return np.asarray(answer, np.float32)
