"""The compiled code, run once, so that its user need not be the first: see `compiled.py`.

Run as `python -m facenet.faces.trial PART LIBRARY`. The pixels have to be those of NumPy, to the
bit. The quick look has to end and to give numbers; whether they are right depends on the networks,
and `glance.py` compares them with these each time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.faces.bilinear import resize_bilinear
from facenet.faces.boxes import non_maximum_suppression
from facenet.faces.compiled import GLANCE, PIXELS, Compiled, Find
from facenet.faces.glance import PNET, RNET, CropGlance, Glance
from facenet.faces.kernels import Kernels
from facenet.faces.networks import squares
from facenet.faces.resample import AreaSampler
from facenet.models.engine import golden_input
from facenet.models.selfcheck import Verdict
from facenet.types import FloatArray, ImageArray

PICTURE = (613, 131, 3)
"""A picture that is tried: so high that a cell of its smallest level adds up more than 257 rows."""
LEVELS = ((2, 3, 12, 12), (1, 3, 47, 62), (1, 3, 60, 75))
"""Levels that are tried: one cell, and such as end in the middle of a tile."""


def try_pixels(kernels: Kernels) -> str:
    """What is wrong with the work on pixels and boxes, "" for nothing."""
    picture = np.asarray(127.5 + 127 * golden_input(PICTURE), np.uint8)
    both = [lambda: Compiled(kernels), Compiled]
    for ours, plain in zip(*(_worked(picture, find) for find in both), strict=True):
        if not np.array_equal(ours, plain):
            return "computes other pixels than NumPy"
    return ""


def _worked(picture: ImageArray, find: Find) -> Iterator[NDArray[Any]]:
    """What the library is used for, done to a picture."""
    sampler = AreaSampler(picture, find)
    yield sampler.level(301, 77)
    yield sampler.level(2, 3)
    yield sampler.crops(np.array([[1, 1, 40, 50], [90, 500, 200, 700]]), 24)
    yield resize_bilinear(picture, 40, 200, find=find)
    level = golden_input((2, 3, 41, 30))
    corners = np.array([[0, 1, 1], [0, 20, 30], [19, 7, 0]])
    yield squares(level, (corners[0], corners[1], corners[2]), find)
    for real in (np.float32, np.float64):
        first = 20 + 20 * golden_input((300, 2)).astype(real)
        boxes = np.concatenate([first, first + 25], axis=1)
        yield non_maximum_suppression(boxes, boxes[:, 0], 0.5, find=find)


def try_glance(kernels: Kernels) -> str:
    """What is wrong with the quick look, "" for nothing."""
    if not kernels.can_glance():
        return "is not allowed the processor's AMX"
    first, second = ({name: golden_input(shape) for name, shape in n.items()} for n in (PNET, RNET))
    pnet, rnet = Glance(first, kernels), CropGlance(second, kernels)
    said: list[FloatArray] = [pnet.odds(golden_input(shape)) for shape in LEVELS]
    sizes = np.resize(np.array([[12, 11], [12, 12]], np.uint8), (2, 19))
    said += pnet.judge(golden_input((19, 3, 12, 12)), sizes).values()
    said.append(rnet.odds(golden_input((19, 3, 24, 24))))
    return "" if all(np.all(np.isfinite(each)) for each in said) else "gives no numbers"


TRIALS: dict[str, Callable[[Kernels], str]] = {PIXELS: try_pixels, GLANCE: try_glance}


def main(arguments: Sequence[str]) -> int:
    """The child: print a verdict as one line of JSON."""
    part, library = arguments
    wrong = TRIALS[part](Kernels(Path(library)))
    print(json.dumps(asdict(Verdict(not wrong, wrong or "works"))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
