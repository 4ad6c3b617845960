"""The vectors of all faces of many photos in one NumPy file: the work behind `facenet embed`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.photos import find_photos, look
from facenet.errors import SettingsError, StorageError
from facenet.recognizer import Recognizer


@dataclass(frozen=True, slots=True)
class EmbeddingSummary:
    """How many photos and faces went into which file, and what could not be read."""

    file: str
    photos: int
    faces: int
    contract: str
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def write_embeddings(
    places: Iterable[str | os.PathLike[str]],
    out: Path,
    recognizer: Recognizer,
    done: Callable[[int, int], None],
) -> EmbeddingSummary:
    """Embed all faces of photos and write `embeddings` (n, d), `photos` (n), `boxes` (n, 4) and
    `contract` to `out`, a `.npz` file, whole or not at all.

    Raises SettingsError for another ending, StorageError when it cannot be written.
    """
    if out.suffix != ".npz":
        raise SettingsError(f"The file to write should end in .npz; got {out}.")
    photos, problems = find_photos(places), []
    dimension = int(recognizer.embedder.card.dimension or 0)
    names: list[str] = []
    vectors, boxes = [np.zeros((0, dimension), np.float32)], [np.zeros((0, 4), np.float32)]
    for answer in look(photos, recognizer.faces, done):
        if answer.problem:
            problems.append(answer.problem)
        elif answer.faces.embedding is not None:
            names += [str(answer.photo.path)] * len(answer.faces)
            vectors.append(answer.faces.embedding)
            boxes.append(answer.faces.boxes)
    contract = recognizer.embedder.contract
    arrays = {
        "embeddings": np.concatenate(vectors),
        "photos": np.array(names, dtype=np.str_),
        "boxes": np.concatenate(boxes),
        "contract": np.array(contract),
    }
    write_npz(out, arrays)
    return EmbeddingSummary(str(out), len(photos), len(names), contract, tuple(problems))


def write_npz(path: Path, arrays: dict[str, Any]) -> None:
    """Write a NumPy archive whole or not at all. Raises StorageError."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(f"Cannot write {path}: {error.strerror or error}.") from error
