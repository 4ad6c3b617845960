"""What a recognizer sees for a gallery: sightings of photos, and whether its vectors fit."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from facenet.errors import ContractError, FacenetError, ImageError, InputError, SettingsError
from facenet.faces.detect import RULES
from facenet.faces.embed import FLIPPED
from facenet.faces.looking import kept_crops, measure_faces
from facenet.gallery.judgement import Sighting
from facenet.gallery.records import Space
from facenet.images import is_many, load_with_digest
from facenet.models.catalog import DEFAULT_EMBEDDER, find_card
from facenet.models.engine import PRECISIONS
from facenet.recognizer import GROUP, Recognizer
from facenet.types import Faces, ImageArray

FILE = "file://"
"""Begins the place of a photo whose path is no Unicode text."""


def look(recognizer: Recognizer, photos: Any, *, crops: bool = False) -> Iterator[Sighting]:
    """What is seen in each photo, in their order; `GROUP` of them are in memory at a time.

    photos: one, or a list or iterator. crops: with an encoded picture of each face. A photo that
    cannot be read gives a sighting with its `problem`.
    """
    coming = iter(photos if is_many(photos) else [photos])
    while group := list(islice(coming, GROUP)):
        yield from _see(recognizer, group, crops)


def whereabouts(photo: Any) -> str:
    """Where a photo lies, as an absolute path; "" for what is no path.

    A path that is no Unicode text becomes a file:// address, which `file_at` turns back.
    """
    if not isinstance(photo, str | os.PathLike):
        return ""
    raw = os.fsencode(os.path.abspath(photo))
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return FILE + quote(raw)


def file_at(source: str) -> Path:
    """The file that `whereabouts` wrote down."""
    if source.startswith(FILE):
        return Path(os.fsdecode(unquote_to_bytes(source.removeprefix(FILE))))
    return Path(source)


def space_of(recognizer: Recognizer) -> Space:
    """The space of a recognizer's vectors, as a gallery keeps it."""
    embedder = recognizer.embedder
    width = int(embedder.card.dimension or 0)
    name, precision = embedder.card.name, embedder.precision
    return Space(embedder.contract, name, width, "active", time.time(), precision)


def space_named(model: str | None, precision: str, flip: bool) -> Space:
    """The space of a model by name; the model itself is not loaded.

    Raises UnknownModelError, SettingsError for a precision that there is not and a name that is no
    text.
    """
    if model is not None and not isinstance(model, str):
        raise SettingsError(
            f"model should be the name of an embedder; got {type(model).__name__}. `facenet models "
            "list` names them."
        )
    card = find_card(model or DEFAULT_EMBEDDER, kind="embedder")
    if precision not in PRECISIONS:
        raise SettingsError(
            f"precision should be one of {', '.join(PRECISIONS)}; got {precision!r:.40}."
        )
    contract = card.contract + (FLIPPED if flip else "")
    return Space(contract, card.name, int(card.dimension or 0), "active", time.time(), precision)


def require_fit(space: Space, recognizer: Recognizer) -> None:
    """Raise ContractError unless a recognizer's vectors are those of a space."""
    mine = space_of(recognizer)
    if (mine.contract, mine.precision) != (space.contract, space.precision):
        flip = " --flip" if space.contract.endswith(FLIPPED) else ""
        raise ContractError(
            f"The gallery should be used with the model it was made with, {_shown(space)}; the "
            f"recognizer is of {_shown(mine)}. Leave the model out, or give --model "
            f"{space.model} --precision {space.precision}{flip}."
        )


def require_select(select: object) -> None:
    """Raise SettingsError for what cannot be the name of a rule; `select_faces` knows the names."""
    if select is not None and not isinstance(select, str):
        raise SettingsError(
            f"select should be one of {', '.join(RULES)}; got {type(select).__name__}."
        )


def _shown(space: Space) -> str:
    return f"{space.contract:.200} in {space.precision}"


def _see(recognizer: Recognizer, group: Sequence[Any], crops: bool) -> list[Sighting]:
    """Sightings of a few photos, put through the networks together."""
    seen: dict[int, Sighting] = {}
    images: dict[int, ImageArray] = {}
    for row, photo in enumerate(group):
        try:
            images[row], digest = load_with_digest(photo)
            seen[row] = Sighting(Faces.empty(), photo=digest, source=whereabouts(photo))
        except ImageError as error:
            seen[row] = Sighting(Faces.empty(), source=whereabouts(photo), problem=str(error))
    for row, faces in _embedded(recognizer, images).items():
        known = seen[row]
        if isinstance(faces, FacenetError):
            seen[row] = Sighting(faces=Faces.empty(), source=known.source, problem=str(faces))
            continue
        measures = measure_faces(images[row], faces)
        pictures = kept_crops(images[row], faces) if crops else []
        seen[row] = Sighting(faces, measures, known.photo, known.source, pictures)
    return [seen[row] for row in range(len(group))]


def _embedded(
    recognizer: Recognizer, images: dict[int, ImageArray]
) -> dict[int, Faces | InputError]:
    """Embedded faces of each photo; where one has a face that cannot be cropped, the reason."""
    pixels = list(images.values())
    found = recognizer.detector.detect(pixels) if pixels else []
    try:
        return dict(zip(images, _together(recognizer, pixels, found), strict=True))
    except InputError:
        answers: dict[int, Faces | InputError] = {}
        for row, image, faces in zip(images, pixels, found, strict=True):
            try:
                answers[row] = _together(recognizer, [image], [faces])[0]
            except InputError as error:
                answers[row] = error
        return answers


def _together(
    recognizer: Recognizer, images: Sequence[ImageArray], faces: Sequence[Faces]
) -> list[Faces]:
    return recognizer.embedder.embed(images, faces) if images else []
