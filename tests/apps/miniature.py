"""Data sets in miniature, made of the example photos, and their numbers counted in loops."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
from fakes import ToyDetector, ToyEngine, toy_card, toy_faces
from PIL import Image, ImageEnhance

from facenet.faces.embed import Embedder
from facenet.recognizer import Recognizer
from facenet.types import Faces

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FACES = {
    "Barack_Obama": (
        ("known/Barack Obama/official-portrait-2012.jpg", (245, 72, 458, 372)),
        ("photos/obama-speech-2009.jpg", (161, 100, 435, 521)),
        ("photos/group.jpg", (415, 103, 545, 274)),
    ),
    "Eileen_Collins": (("known/Eileen Collins.jpg", (180, 60, 269, 173)),),
    "Grace_Hopper": (("known/Grace Hopper.jpg", (174, 120, 356, 340)),),
    "Joe_Biden": (("photos/group.jpg", (1047, 101, 1171, 268)),),
}
"""Four people: a photo, and where the face is in it."""
PEOPLE = tuple(FACES)


def write_people(root, count=8, *, size=(96, 112), seed=0, blurred=3):
    """root/Name/Name_0001.jpg and so on: faces turned, shifted, darkened; each `blurred`-th one
    is so coarse that it looks like nobody. Returns the paths."""
    random, paths = np.random.default_rng(seed), []
    for name, sources in FACES.items():
        for number in range(1, count + 1):
            picture = _variant(*sources[number % len(sources)], size, random)
            if number % blurred == 0:
                picture = picture.resize((20, 23)).resize(size, Image.Resampling.BICUBIC)
            path = root / name / f"{name}_{number:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, quality=90)
            paths.append(path)
    return paths


def _variant(file, box, size, random):
    x1, y1, x2, y2 = box
    room = (y2 - y1) / 4
    x, y = random.uniform(-0.3, 0.3, 2) * room
    with Image.open(EXAMPLES / file) as image:
        middle = ((x1 + x2) / 2, (y1 + y2) / 2)
        turned = image.rotate(random.uniform(-12, 12), Image.Resampling.BILINEAR, center=middle)
    place = (x1 - room + x, y1 - room + y, x2 + room + x, y2 + room + y)
    cut = turned.crop(tuple(map(int, place))).resize(size)
    return ImageEnhance.Brightness(cut).enhance(random.uniform(0.6, 1.3))


@cache
def front_door(flip=False):
    """The built-in models, asked one picture at a time."""
    return Recognizer(flip=flip, calibration="card")


def vectors(paths, flip=False):
    """The vector of each picture in float64, None without a face."""
    found = {}
    for path in paths:
        rows = front_door(flip).embed(path)
        found[path] = rows[0].astype(np.float64) if len(rows) else None
    return found


def scores(pairs, rows):
    """Cosine of each pair of paths, minus infinity without both faces."""
    return [
        -np.inf if rows[a] is None or rows[b] is None else float(rows[a] @ rows[b])
        for a, b in pairs
    ]


def area_in_loops(mated, others):
    """The area under the ROC: how often a mated pair is ahead, a tie being half."""
    ahead = sum((m > o) + (m == o) / 2 for m in mated for o in others)
    return ahead / len(mated) / len(others)


def tar_in_loops(mated, others, far):
    """TAR at the lowest score with no more false matches than allowed, and how many there are."""
    for level in sorted({*mated, *others} - {-np.inf}):
        false = sum(score >= level for score in others)
        if false <= far * len(others) + 1e-9:
            return sum(score >= level for score in mated) / len(mated), false
    return 0.0, 0


def strict(text):
    """JSON without NaN or infinity, which other readers do not take."""

    def refuse(name):
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


def toy_face(image):
    """One face, but none in a black picture and one that lies outside in a white one."""
    if image.max() == 0:
        return Faces.empty()
    return toy_faces((500, 500, 540, 540)) if image.min() == 255 else toy_faces()


def toy(name="toy", *, engine=None, seed=0, **card):
    """A recognizer of toys; its seed makes it another model."""
    embedder = Embedder(toy_card(name=name, **card), engine or ToyEngine(seed=seed))
    return Recognizer.from_parts(ToyDetector(toy_face), embedder)
