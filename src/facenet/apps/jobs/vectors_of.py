"""One vector per picture file, for evaluation: the face nearest the centre, embedded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facenet.errors import ImageError, InputError, SettingsError
from facenet.faces.detect import RULES, select_faces
from facenet.images import load_image
from facenet.recognizer import GROUP, Recognizer
from facenet.types import Faces, FloatArray, ImageArray

Done = Callable[[int, int], None]
"""Called with pictures done and pictures in all."""


@dataclass(frozen=True, slots=True)
class Collected:
    """vectors: float32 (d,) per picture that has one. failed: picture -> reason for the others."""

    vectors: dict[Path, FloatArray]
    failed: dict[Path, str]


def collect_vectors(
    paths: Sequence[Path], recognizer: Recognizer, *, select: str, done: Done
) -> Collected:
    """Detect, select and embed one face of every picture.

    select: how to choose among several faces, a key of `faces.detect.RULES`. Pictures that cannot
    be read or used and pictures without a face are in `failed`. Raises SettingsError for `select`.
    """
    if select not in RULES:
        raise SettingsError(f"select should be one of {', '.join(RULES)}; got {select!r}.")
    collected = Collected({}, {})
    count = 0
    for group in _groups(paths):
        images = {path: image for path, image in group if isinstance(image, np.ndarray)}
        collected.failed.update((path, image) for path, image in group if isinstance(image, str))
        found = recognizer.detector.detect(list(images.values()))
        chosen = [
            select_faces(faces, select, (image.shape[1], image.shape[0]))
            for faces, image in zip(found, images.values(), strict=True)
        ]
        _embed(images, chosen, recognizer, collected)
        count += len(group)
        done(count, len(paths))
    return collected


def _embed(
    images: dict[Path, ImageArray],
    chosen: Sequence[Faces],
    recognizer: Recognizer,
    collected: Collected,
) -> None:
    """Embed a group of pictures at once; one by one when a face of them cannot be cut out."""
    try:
        embedded = recognizer.embedder.embed(list(images.values()), chosen)
    except InputError as error:
        if len(images) == 1:
            collected.failed.update((path, f"{path}: {error}") for path in images)
        else:
            for (path, image), faces in zip(images.items(), chosen, strict=True):
                _embed({path: image}, [faces], recognizer, collected)
        return
    for path, faces in zip(images, embedded, strict=True):
        if len(faces) and faces.embedding is not None:
            collected.vectors[path] = faces.embedding[0]
        else:
            collected.failed[path] = f"No face was found in {path}."


def _groups(paths: Sequence[Path]) -> Iterator[list[tuple[Path, ImageArray | str]]]:
    """Pictures in groups, read ahead by a thread; a reason in place of one that cannot be read."""
    groups = (paths[start : start + GROUP] for start in range(0, len(paths), GROUP))
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(_read_group, next(groups, []))
        for group in groups:
            ready, coming = coming, pool.submit(_read_group, group)
            yield ready.result()
        yield coming.result()


def _read_group(paths: Sequence[Path]) -> list[tuple[Path, ImageArray | str]]:
    return [(path, _read(path)) for path in paths]


def _read(path: Path) -> ImageArray | str:
    try:
        return load_image(path)
    except ImageError as error:
        return str(error)
