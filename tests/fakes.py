"""Stand-ins without weights for tests of any room: `from fakes import ToyEngine, toy_card`.

All are deterministic. They enter through constructors and arguments; nothing is patched.
"""

from dataclasses import replace

import numpy as np

from facenet.models.card import FmrTable, Licence, ModelCard, ModelFile, Preprocess, Source
from facenet.types import Faces


class ToyEngine:
    """An `Engine`: float32 (n, *shape) -> {"embedding": float32 (n, dimension)}.

    Each row is projected with one fixed random matrix (of `seed`), so equal crops get equal
    vectors and different crops different ones. batch: a fixed batch size, or None for any.
    calls: how often it ran. batches: the number of rows of each run.
    """

    def __init__(self, dimension=8, *, shape=(3, 16, 16), batch=None, seed=0):
        generator = np.random.RandomState(seed)
        self.projection = generator.standard_normal((int(np.prod(shape)), dimension))
        self.shape, self.batch = tuple(shape), batch
        self.batches = []

    @property
    def calls(self):
        return len(self.batches)

    @property
    def inputs(self):
        return {"image": (self.batch, *self.shape)}

    def run(self, feeds):
        (image,) = feeds.values()
        assert list(feeds) == ["image"]
        assert image.dtype == np.float32
        assert image.shape[1:] == self.shape
        assert self.batch in (None, len(image))
        self.batches.append(len(image))
        rows = image.reshape(len(image), len(self.projection)).astype(np.float64)
        return {"embedding": (rows @ self.projection).astype(np.float32)}

    def describe(self):
        return {
            "engine": "toy",
            "version": "0",
            "device": "cpu",
            "precision": "fp32",
            "threads": 1,
        }


class ToyDetector:
    """A `Detector` that finds what it was told.

    faces: one `Faces` for every picture, a list of `Faces` handed out in turn (and from the
    beginning again), or a function of the picture. sizes: (height, width) of the pictures seen.
    """

    def __init__(self, faces):
        self.faces = faces
        self.sizes = []

    def detect(self, images):
        return [self._find(image) for image in images]

    def _find(self, image):
        self.sizes.append(image.shape[:2])
        if isinstance(self.faces, Faces):
            return self.faces
        if callable(self.faces):
            return self.faces(image)
        return self.faces[(len(self.sizes) - 1) % len(self.faces)]


def toy_faces(*boxes, score=0.99):
    """`Faces` with five plausible landmarks in each box; by default one box of 40 x 48 pixels."""
    rows = np.array(boxes or [(12, 10, 52, 58)], np.float32)
    spots = np.array([(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)], np.float32)
    corners, sides = rows[:, None, :2], rows[:, None, 2:] - rows[:, None, :2]
    return Faces(rows, corners + spots * sides, np.full(len(rows), score, np.float32))


def toy_fmr():
    """A table of a million pairs: 10 ** -(10 similarity) of them score at least `similarity`."""
    similarity = tuple(round(0.1 * step, 1) for step in range(7))
    return FmrTable(
        dataset="toy",
        images=2000,
        people=1000,
        pairs=10**6,
        similarity=similarity,
        false_matches=tuple(10 ** (6 - step) for step in range(7)),
    )


def toy_card(**changes):
    """The card of an embedder that fits `ToyEngine()`: 16 x 16 crops, 8 values; any field changes.

    preprocess: also a dict of single changes, as `toy_card(preprocess={"crop": "similarity"})`.
    """
    preprocess = Preprocess(16, 16, crop="margin_output", standardise="fixed")
    if isinstance(changes.get("preprocess"), dict):
        changes["preprocess"] = replace(preprocess, **changes["preprocess"])
    card = ModelCard(
        name="toy",
        kind="embedder",
        title="a random projection",
        source=Source(type="file", sha256="0" * 64, bytes=0, origin="tests/fakes.py"),
        files=(ModelFile("toy.onnx", "0" * 64, 0),),
        licence=Licence(code="MIT", weights="none", commercial=True),
        training_data="none",
        preprocess=preprocess,
        dimension=8,
    )
    return replace(card, **changes)
