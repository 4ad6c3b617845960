"""Which checkpoint a path means: the prefix of its files, or the folder of a facenet model.

facenet keeps a model in a folder of its own: `model-NAME.meta`, `model-NAME.ckpt-STEP.index` and
`.data-00000-of-00001`, and the text file `checkpoint` that names the newest. Source:
`get_model_filenames` of davidsandberg/facenet (2018); TensorFlow's `checkpoint_state.proto`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO, Final

from facenet.errors import ModelFileError, StorageError
from facenet.models.convert.sstable import MAGIC

STATE: Final = "checkpoint"
"""Name of the text file that says which checkpoint is the newest."""
MAX_STATE_BYTES: Final = 1 << 20
"""Largest such file that is read."""
MAX_FILES: Final = 100_000
"""Most files of a folder that is looked through."""
_INDEX: Final = ".index"
_MEMBER: Final = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
_STEP: Final = re.compile(r"model-.*\.ckpt-(\d{1,18})$")
_NEWEST: Final = re.compile(r'^\s*model_checkpoint_path\s*:\s*"((?:[^"\\\n]|\\.)*)"', re.MULTILINE)


def is_checkpoint(path: Path) -> bool:
    """Whether the path is a prefix, a file or the folder of TensorFlow checkpoints.

    Looks at names only, but for a file of the first format, which is known by its end.
    """
    if os.path.isdir(path):
        return bool(_checkpoints(path)) or os.path.isfile(path / STATE)
    if os.path.isfile(path):
        return bool(_MEMBER.search(path.name)) or _is_first_format(path)
    return os.path.isdir(path.parent) and bool(_beginning_with(path))


def find_checkpoint(path: Path) -> Path:
    """The prefix of the checkpoint that `path` means: `PREFIX.index` is there.

    path: a prefix, any of its files, a beginning that only one checkpoint has, or a folder. In a
    folder the `checkpoint` file decides, else the highest step of `model-*.ckpt-STEP`, as facenet
    does it; else there must be one checkpoint only.
    Raises ModelFileError where there is none or more than one, or where it is of the first format
    (one file, before 2017); StorageError for a folder that cannot be read.
    """
    if os.path.isdir(path):
        return _in_folder(path)
    if os.path.isfile(path) and not _MEMBER.search(path.name) and _is_first_format(path):
        raise _first_format(path)
    prefix = path.with_name(_MEMBER.sub("", path.name)) if path.name else path
    if os.path.isfile(_index_of(prefix)):
        return prefix
    found = _beginning_with(prefix) if os.path.isdir(prefix.parent) else []
    if len(found) != 1:
        raise ModelFileError(
            f"expected {_short(path)} to be the prefix of one TensorFlow checkpoint "
            f"(PREFIX.index and PREFIX.data-*), but {_count(found)}; give the whole prefix, "
            "or the folder"
        )
    return found[0]


def _in_folder(folder: Path) -> Path:
    found = _checkpoints(folder)
    metas = _named(folder, ".meta")
    if len(metas) > 1:
        raise ModelFileError(
            f"expected the folder {_short(folder)} to hold one model, but it has {len(metas)} "
            f".meta files ({_listed(metas)}); give the prefix of the checkpoint itself"
        )
    newest = _newest(folder)
    if newest is not None:
        return newest
    steps = [(int(match[1]), prefix) for prefix in found if (match := _STEP.match(prefix.name))]
    highest = max((step for step, _ in steps), default=None)
    choice = [prefix for step, prefix in steps if step == highest] if steps else found
    if len(choice) != 1:
        raise ModelFileError(
            f"expected the folder {_short(folder)} to hold a TensorFlow checkpoint "
            f"(model-NAME.ckpt-STEP.index), but {_count(choice)}; give the prefix of the "
            "checkpoint itself"
        )
    return choice[0]


def _newest(folder: Path) -> Path | None:
    """The checkpoint that the file `checkpoint` names, in this folder wherever it was written."""
    try:
        with (folder / STATE).open("rb") as file:
            text = file.read(MAX_STATE_BYTES).decode("utf-8", "replace")
    except (FileNotFoundError, IsADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(folder / STATE, error) from error
    match = _NEWEST.search(text)
    name = re.split(r"[/\\]", match[1])[-1] if match else ""
    if not name:
        return None
    prefix = folder / name
    if not os.path.isfile(_index_of(prefix)):
        if os.path.isfile(prefix) and _is_first_format(prefix):
            raise _first_format(prefix)
        raise ModelFileError(
            f"expected {_short(prefix)}, which the file 'checkpoint' of {_short(folder)} names, "
            "but there is no .index file of it; copy it there, or give the prefix of another one"
        )
    return prefix


def _checkpoints(folder: Path) -> list[Path]:
    """The prefixes of a folder, sorted."""
    return [path.with_name(path.name.removesuffix(_INDEX)) for path in _named(folder, _INDEX)]


def _beginning_with(prefix: Path) -> list[Path]:
    return [p for p in _checkpoints(prefix.parent) if p.name.startswith(prefix.name)]


def _named(folder: Path, ending: str) -> list[Path]:
    """The files of a folder whose names end so, sorted."""
    found = []
    try:
        for number, path in enumerate(folder.iterdir(), start=1):
            if number > MAX_FILES:
                raise ModelFileError(
                    f"expected a folder of a model, but {_short(folder)} has more than "
                    f"{MAX_FILES} files; give the prefix of the checkpoint itself"
                )
            if path.name.endswith(ending) and os.path.isfile(path):
                found.append(path)
    except OSError as error:
        raise _unreadable(folder, error) from error
    return sorted(found)


def _index_of(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + _INDEX) if prefix.name else prefix / _INDEX


def _is_first_format(path: Path) -> bool:
    """Whether one file is a whole table, as checkpoints were before 2017."""
    try:
        with path.open("rb") as file:
            return _end(file) == MAGIC
    except OSError as error:
        raise _unreadable(path, error) from error


def _end(file: IO[bytes]) -> bytes:
    size = file.seek(0, 2)
    file.seek(max(0, size - len(MAGIC)))
    return file.read(len(MAGIC))


def _first_format(path: Path) -> ModelFileError:
    return ModelFileError(
        f"expected a checkpoint of .index and .data-* files, but {_short(path)} is of TensorFlow's "
        "first format, one file; restore it once in TensorFlow and save it with "
        "tf.compat.v1.train.Saver(write_version=2), or freeze it to a .pb file"
    )


def _count(found: list[Path]) -> str:
    return f"{len(found)} are there ({_listed(found)})" if found else "there is none"


def _listed(paths: list[Path]) -> str:
    names = ", ".join(_short(path) for path in paths[:3])
    return names + (", ..." if len(paths) > 3 else "")


def _short(path: Path) -> str:
    return repr(path.name[-80:])


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"Cannot read {path}: {error.strerror or error}.")
