"""An album as a page: index.html with everybody's faces, the biggest cluster first, and album.json.

The pictures of the faces lie beside it, in faces/; photos are linked where they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

from facenet.apps.jobs.albumstate import Shelf
from facenet.apps.jobs.photos import Done
from facenet.errors import ImageError, InputError, MissingExtraError
from facenet.faces.align import margin_box, margin_crop
from facenet.files import written
from facenet.gallery.records import EnrolledFace
from facenet.images import load_image
from facenet.sightings import file_at
from facenet.types import ImageArray

PAGE, RECORD, FACES = "index.html", "album.json", "faces"
SIDE = 120
"""Pixels a side of the picture of a face."""
ROOM = 0.3
"""What is shown around a face, as a share of its sides."""
SHOWN = 60
"""Faces of a person that the page shows before one asks for all."""


def require_page_extra() -> None:
    """Raises MissingExtraError, before the work, where jinja2 is missing."""
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "The page of an album needs jinja2, which is not installed. Install it with "
            '`pip install "facenet[gallery]"`, or choose the layout folders.'
        ) from error


def write_page(
    out: Path,
    shelved: Sequence[Shelf],
    faceless: Sequence[Path],
    facts: Mapping[str, Any],
    done: Done,
) -> None:
    """Write album.json, faces/ and index.html. facts: model, method, threshold and so on.

    Raises MissingExtraError, StorageError.
    """
    require_page_extra()
    pictures = _pictures(out, shelved, done)
    people = [_person(out, shelf, number, pictures) for number, shelf in enumerate(shelved)]
    without = [str(path) for path in faceless]
    record = {**facts, "people": people, "without_a_face": without}
    text = json.dumps(record, ensure_ascii=False, indent=1) + "\n"
    for name, content in ((RECORD, text), (PAGE, _html(out, record, faceless))):
        with written(out / name) as file:
            file.write(content.encode("utf-8", "backslashreplace"))


def _person(out: Path, shelf: Shelf, number: int, pictures: Mapping[int, str]) -> dict[str, Any]:
    return {
        "cluster": number,
        "id": shelf.person.id,
        "name": shelf.person.name,
        "automatic": shelf.person.automatic,
        "count": len(shelf.faces),
        "faces": [
            {
                "id": face.id,
                "photo": face.source,
                "box": [round(side, 2) for side in face.box or ()],
                "detection_score": face.measures.get("detection_score"),
                "picture": pictures.get(face.id),
                "link": _link(out, file_at(face.source)),
            }
            for face in shelf.faces
        ],
    }


def _link(out: Path, photo: Path) -> str:
    """A photo as the page finds it: a path from the page, with the signs that links cannot have as
    the bytes that the file system has for them."""
    from urllib.parse import quote

    relative = os.path.relpath(photo, out.resolve()).replace(os.sep, "/")
    return quote(os.fsencode(relative))


def _pictures(out: Path, shelved: Sequence[Shelf], done: Done) -> dict[int, str]:
    """Number of a face -> its picture below OUT; those of faces that are gone are removed."""
    photos: dict[str, list[EnrolledFace]] = {}
    for shelf in shelved:
        for face in shelf.faces:
            photos.setdefault(face.source, []).append(face)
    known = {face.id for faces in photos.values() for face in faces}
    for path in (out / FACES).glob("*.jpg"):
        if path.stem.isdecimal() and int(path.stem) not in known:
            with suppress(OSError):
                path.unlink()
    found: dict[int, str] = {}
    for number, (source, faces) in enumerate(photos.items(), 1):
        names = {face.id: f"{FACES}/{face.id}.jpg" for face in faces}
        missing = [face for face in faces if not (out / names[face.id]).exists()]
        made = _cut(source, missing) if missing else {}
        for key, data in made.items():
            with written(out / names[key]) as file:
                file.write(data)
        gone = {face.id for face in missing} - made.keys()
        found |= {key: name for key, name in names.items() if key not in gone}
        done(number, len(photos))
    return found


def _cut(source: str, faces: Sequence[EnrolledFace]) -> dict[int, bytes]:
    """JPEGs of faces of one photo; none when it is not there any more."""
    try:
        image = load_image(file_at(source))
    except ImageError:  # the page shows its name
        return {}
    made = {}
    for face in faces:
        with suppress(InputError):  # a box outside of a photo that was changed
            made[face.id] = _encoded(image, face)
    return made


def _encoded(image: ImageArray, face: EnrolledFace) -> bytes:
    import cv2
    import numpy as np

    x1, y1, x2, y2 = face.box or (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
    middle, half = ((x1 + x2) / 2, (y1 + y2) / 2), (0.5 + ROOM) * max(x2 - x1, y2 - y1)
    square = (middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half)
    box = np.array(square, np.float32)
    left, top, right, bottom = margin_box(box, (image.shape[1], image.shape[0]), margin=0)
    share = SIDE / max(right - left, bottom - top)
    size = (max(1, round((right - left) * share)), max(1, round((bottom - top) * share)))
    crop = margin_crop(image, (left, top, right, bottom), size)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(crop[:, :, ::-1]))
    return bytes(data.tobytes())


def _html(out: Path, record: Mapping[str, Any], faceless: Sequence[Path]) -> str:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = resources.files("facenet.apps.jobs").joinpath("album.html.j2").read_text("utf-8")
    several = [p for p in record["people"] if len(p["faces"]) > 1 or not p["automatic"]]
    once = [p for p in record["people"] if len(p["faces"]) == 1 and p["automatic"]]
    without = [(str(path), _link(out, path.absolute())) for path in faceless]
    return environment.from_string(text).render(
        record=record, several=several, once=once, without=without, shown=SHOWN, side=SIDE
    )
