"""Reference sets of the gate: FILE.bin, or FOLDER:PAIRS with a pairs file as LFW's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from facenet.apps.jobs.align import align_folder, plan
from facenet.apps.jobs.align_one import AlignSettings
from facenet.errors import SettingsError
from facenet.train.finetuning import without_people
from facenet.train.settings import ValidationSettings
from facenet.train.validation import ValidationSet, open_validation

Done = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a set lies: a .bin, or a folder of people and a pairs file."""

    bin: Path | None = None
    images: Path | None = None
    pairs: Path | None = None

    def absolute(self) -> str:
        """The set as it is named from any folder."""
        named = [place for place in (self.bin, self.images, self.pairs) if place is not None]
        return ":".join(str(place.absolute()) for place in named)


def parse_reference(text: str) -> Reference:
    """A reference set as it is named. Raises SettingsError for what is not there."""
    file = Path(text)
    if file.suffix.lower() == ".bin":
        if file.is_file():
            return Reference(bin=file)
    else:
        images, colon, pairs = text.rpartition(":")
        if colon and Path(images).is_dir() and Path(pairs).is_file():
            return Reference(images=Path(images), pairs=Path(pairs))
    raise SettingsError(
        "A reference should be FILE.bin, or FOLDER:PAIRS with a folder per person and a pairs file "
        f"as LFW's; got {text[:300]!r}, and there is no such file or folder. Check the paths."
    )


def open_reference(
    text: str,
    place: Path,
    known: Iterable[str],
    settings: AlignSettings | None,
    *,
    workers: int,
    done: Done,
) -> tuple[ValidationSet, list[str]]:
    """A set without the people who are learned, and what is to be said of that.

    place: folder for crops. known: names of the people who are learned. settings: of the crops,
    None where the pictures are crops already. Only the pictures of the pairs that are left are
    aligned.
    """
    found = parse_reference(text)
    if found.images is None:
        return open_validation(ValidationSettings(bin=str(found.bin)), 0), []
    opened = open_validation(
        ValidationSettings(images=str(found.images), pairs=str(found.pairs)), 0
    )
    left, gone = without_people(opened, known)
    if settings is not None:
        left = _aligned(left, found.images, place, settings, workers=workers, done=done)
    told = f"{gone} pairs of {opened.name} show somebody who is learned; they are left out."
    return left, [told] if gone else []


def _aligned(
    raw: ValidationSet,
    images: Path,
    place: Path,
    settings: AlignSettings,
    *,
    workers: int,
    done: Done,
) -> ValidationSet:
    """The set with the crops of its pictures, made in `place` where they are not."""
    used = np.unique(np.concatenate([raw.pairs.a, raw.pairs.b])).tolist()
    sources = {row: raw.pairs.pictures[row].source for row in used}
    align_folder(
        images,
        place,
        settings,
        workers=workers,
        only={source for source in sources.values() if isinstance(source, Path)},
        done=lambda some, all_: done(some, all_, f"aligning {images.name}"),
    )
    crops = {task.source: task.target for task in plan(images, place, settings)[0]}

    def read(row: int) -> bytes | None:
        source = sources.get(row)
        crop = crops.get(source) if isinstance(source, Path) else None
        return crop.read_bytes() if crop is not None and crop.is_file() else None

    return replace(raw, read=read)


def numbered(sets: Iterable[ValidationSet]) -> list[ValidationSet]:
    """The sets, those of the same name numbered."""
    seen: dict[str, int] = {}
    named = []
    for one in sets:
        count = seen[one.name] = seen.get(one.name, 0) + 1
        named.append(one if count == 1 else replace(one, name=f"{one.name} {count}"))
    return named
