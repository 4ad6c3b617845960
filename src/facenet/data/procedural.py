"""People who do not exist: drawn faces, the same for the same seed, to try training with.

Each person is a set of numbers (shape of the face, eyes, brows, nose, mouth, hair, colours, a soft
texture); each picture of a person moves, turns, lights, blurs and coarsens what these numbers draw.
They are made for tests and examples: a network that knows them apart knows no real face.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facenet.errors import SettingsError
from facenet.files import written
from facenet.types import ImageArray

Floats = NDArray[np.float64]

PARTS = 20
"""Numbers that make a person, each 0 to 1."""
_SCALE = 4
"""Drawn so many times larger, then reduced: soft edges."""


@dataclass(frozen=True, slots=True, eq=False)
class DrawnPerson:
    """A person. parts: float64 (20,), 0 to 1. texture: float64 (6, 6, 3), about 0."""

    parts: Floats
    texture: Floats


def drawn_person(number: int, seed: int = 0) -> DrawnPerson:
    """Person `number` of a seed, always the same."""
    random = np.random.default_rng((seed, number))
    return DrawnPerson(random.random(PARTS), random.normal(0, 1, (6, 6, 3)))


def draw_picture(person: DrawnPerson, *, size: int, random: np.random.Generator) -> ImageArray:
    """One picture of a person: uint8 (size, size, 3) RGB, different each time."""
    large = size * _SCALE
    pose = _pose(large, random)
    turned = cv2.warpAffine(
        _face(person, large), pose, (large, large), borderMode=cv2.BORDER_REPLICATE
    )
    small = np.asarray(cv2.resize(turned, (size, size), interpolation=cv2.INTER_AREA), np.float64)
    small = small * _light(size, random)
    if (blur := random.uniform(0, 1.2)) > 0.3:
        small = np.asarray(cv2.GaussianBlur(small, (0, 0), blur * size / 56), np.float64)
    small = small + random.normal(0, random.uniform(0, 8), small.shape)
    return np.asarray(np.clip(np.rint(small), 0, 255), np.uint8)


def write_drawn_people(
    folder: Path, *, people: int, images: int, size: int = 56, seed: int = 0
) -> None:
    """Write folder/person-0000/0000.png and so on: people x images pictures of size x size.

    Raises SettingsError for numbers below 1 (size: 16), StorageError when the disk is full.
    """
    for name, value, low in (("people", people, 1), ("images", images, 1), ("size", size, 16)):
        if value < low:
            raise SettingsError(f"{name} should be {low} or more; got {value}.")
    for number in range(people):
        person = drawn_person(number, seed)
        random = np.random.default_rng((seed, number, 1))
        for picture in range(images):
            pixels = draw_picture(person, size=size, random=random)
            data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()
            with written(folder / f"person-{number:04d}" / f"{picture:04d}.png") as file:
                file.write(data)


def _face(person: DrawnPerson, side: int) -> ImageArray:
    """The person straight on, in even light: uint8 (side, side, 3)."""
    part = person.parts
    skin = np.array([150 + 90 * part[0], 105 + 90 * part[1], 80 + 90 * part[2]])
    hair = np.array([20 + 170 * part[3], 15 + 130 * part[4], 10 + 90 * part[5]])
    canvas = np.full((side, side, 3), hair * 0.5 + 60, np.uint8)
    middle, unit = side / 2, side / 100
    wide, high = (27 + 12 * part[6]) * unit, (34 + 10 * part[7]) * unit
    _ellipse(canvas, (middle, middle - 4 * unit), (wide + 6 * unit, high + 6 * unit), hair)
    _ellipse(canvas, (middle, middle + 3 * unit), (wide, high), skin)
    apart, level = (11 + 7 * part[8]) * unit, middle - (4 + 8 * part[9]) * unit
    for way in (-1, 1):
        eye = (middle + way * apart, level)
        _ellipse(canvas, eye, ((3 + 4 * part[10]) * unit, (1.5 + 3 * part[11]) * unit), 245)
        iris = np.array([40 + 90 * part[12], 60 + 90 * part[13], 60 + 150 * part[14]])
        _ellipse(canvas, eye, (2.2 * unit, 2.2 * unit), iris)
        brow = (eye[0], level - (5 + 4 * part[15]) * unit)
        _ellipse(canvas, brow, (6 * unit, (0.6 + 2 * part[16]) * unit), hair * 0.7)
    nose = (middle, middle + 8 * unit)
    _ellipse(canvas, nose, ((2 + 4 * part[17]) * unit, 6 * unit), skin * 0.8)
    mouth = (middle, middle + (19 + 6 * part[18]) * unit)
    lips = skin * np.array([0.85, 0.5, 0.5])
    _ellipse(canvas, mouth, ((6 + 9 * part[19]) * unit, 2.5 * unit), lips)
    soft = cv2.resize(person.texture, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(canvas + 14 * np.asarray(soft, np.float64), 0, 255), np.uint8)


def _ellipse(
    canvas: ImageArray,
    centre: tuple[float, float],
    axes: tuple[float, float],
    colour: Floats | float,
) -> None:
    middle = (round(centre[0]), round(centre[1]))
    half = (max(1, round(axes[0])), max(1, round(axes[1])))
    filled = tuple(float(value) for value in np.broadcast_to(np.asarray(colour, np.float64), 3))
    cv2.ellipse(canvas, middle, half, 0, 0, 360, filled, -1, cv2.LINE_AA)


def _pose(side: int, random: np.random.Generator) -> Floats:
    """A small turn, scale and shift about the middle: float64 (2, 3)."""
    turn, scale = random.normal(0, 4), random.uniform(0.93, 1.07)
    matrix = np.array(cv2.getRotationMatrix2D((side / 2, side / 2), turn, scale), np.float64)
    matrix[:, 2] += random.normal(0, 0.02 * side, 2)
    return matrix


def _light(size: int, random: np.random.Generator) -> Floats:
    """Factors (size, size, 1): bright or dark, and from one side."""
    across, down = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    slope = random.normal(0, 0.18, 2)
    level = random.uniform(0.75, 1.2)
    return np.asarray((level * (1 + slope[0] * across + slope[1] * down))[:, :, None], np.float64)
