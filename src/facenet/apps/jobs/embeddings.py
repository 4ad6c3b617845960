"""The vectors of all faces of many photos in one NumPy file: the work behind `facenet embed`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.photos import Done, find_photos, look
from facenet.errors import SettingsError
from facenet.files import written
from facenet.recognizer import Recognizer


@dataclass(frozen=True, slots=True)
class EmbeddingSummary:
    """How many photos and faces went into which file. faceless: photos without a face.
    problems: why the others could not be used, a sentence each."""

    file: str
    photos: int
    faces: int
    contract: str
    faceless: tuple[str, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def write_embeddings(
    places: Iterable[str | os.PathLike[str]],
    out: Path,
    recognizer: Recognizer,
    *,
    reduced: bool = False,
    done: Done,
) -> EmbeddingSummary:
    """Embed all faces of photos and write `embeddings` (n, d), `photos` (n), `boxes` (n, 4) and
    `contract` to `out`, a `.npz` file, whole or not at all.

    reduced: decode JPEGs at a part of their size, see `Recognizer.stream`.
    Raises SettingsError for another ending; StorageError when it cannot be written, which is
    found out before the work begins.
    """
    if out.suffix != ".npz":
        raise SettingsError(f"The file to write should end in .npz; got {out}.")
    photos, embedder = find_photos(places), recognizer.embedder
    names: list[str] = []
    faceless: list[str] = []
    problems: list[str] = []
    vectors = [np.zeros((0, int(embedder.card.dimension or 0)), np.float32)]
    boxes = [np.zeros((0, 4), np.float32)]
    with written(out) as file:
        for answer in look(photos, partial(recognizer.stream, reduced=reduced), done):
            if answer.problem:
                problems.append(answer.problem)
            elif len(answer.faces) == 0 or answer.faces.embedding is None:
                faceless.append(str(answer.photo.path))
            else:
                names += [str(answer.photo.path)] * len(answer.faces)
                vectors.append(answer.faces.embedding)
                boxes.append(answer.faces.boxes)
        np.savez(
            file,
            embeddings=np.concatenate(vectors),
            photos=np.array(names, dtype=np.str_),
            boxes=np.concatenate(boxes),
            contract=np.array(embedder.contract),
        )
    return EmbeddingSummary(
        file=str(out),
        photos=len(photos),
        faces=len(names),
        contract=embedder.contract,
        faceless=tuple(faceless),
        problems=tuple(problems),
    )
