"""A pack of ONNX files as InsightFace ships it: a folder, or a zip of one.

A zip is unpacked with bounds: only files with plain names that end in .onnx, at the top or in one
folder, not more of them nor larger than a pack can be. No name of the zip becomes a path.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from facenet.errors import ModelFileError
from facenet.models import disk
from facenet.models.sources import DAMAGED_ARCHIVE

MEMBER = re.compile(
    r"(?:(?P<folder>[A-Za-z0-9][A-Za-z0-9._ -]{0,99})/)?(?P<file>[A-Za-z0-9][A-Za-z0-9._-]{0,99})",
)
"""Names of members that are taken."""
ONNX = ".onnx"
REMARKS = "__MACOSX/"
"""Where macOS keeps remarks about the files of a zip."""
MAX_FILES = 64
MAX_BYTES = 2 << 30
"""Most bytes of all files of a pack together."""
MAX_RATIO = 100
"""Most bytes that a packed byte may become; weights hardly shrink at all."""


def is_zip(path: Path) -> bool:
    """Whether this is a zip, and no .pt of torch, which is one too."""
    return (
        os.path.isfile(path)
        and path.suffix.lower() not in (".pt", ".pth")
        and (path.suffix.lower() == ".zip" or zipfile.is_zipfile(path))
    )


def pack_folder(path: Path) -> Path | None:
    """The folder with ONNX files: this one, or the only one in it where there is nothing else."""
    if not os.path.isdir(path):
        return None
    if any(path.glob(f"*{ONNX}")):
        return path
    inside = [entry for entry in path.iterdir() if not entry.name.startswith((".", "__"))]
    return inside[0] if len(inside) == 1 and any(inside[0].glob(f"*{ONNX}")) else None


@contextmanager
def unpacked(archive: Path, place: Path) -> Iterator[Path]:
    """A folder with the ONNX files of a zip, gone at the end; its name is that of the pack.

    place: folder in which it is made. Raises ModelFileError for a zip that is no pack, or is
    damaged, StorageError when it cannot be written.
    """
    disk.make_folder(place)
    with disk.storage_errors(place):
        room = Path(tempfile.mkdtemp(prefix="unpacking-", dir=place))
    try:
        yield _unpack(archive, room)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _unpack(archive: Path, room: Path) -> Path:
    name = archive.name[:100]
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = _members(zipped.infolist(), name)
            folders = {folder for folder, _ in members}
            folder = room / (folders.pop() or archive.stem)
            disk.make_folder(folder)
            for (_, file), info in members.items():
                with zipped.open(info) as stream, disk.writing(folder / file) as write:
                    _copy(stream, write, info)
    except DAMAGED_ARCHIVE as error:
        raise ModelFileError(f"{name} is a damaged archive: {error}. Get it again.") from error
    return folder


def _copy(stream: IO[bytes], write: Callable[[bytes], None], info: zipfile.ZipInfo) -> None:
    size = 0
    while chunk := stream.read(disk.CHUNK):
        size += len(chunk)
        write(chunk)
    if size != info.file_size:  # `zipfile` does not mind, nor compare the checksum then
        raise zipfile.BadZipFile(f"{info.filename[:80]!r} is shorter than it says")


def _members(infos: Sequence[zipfile.ZipInfo], name: str) -> dict[tuple[str, str], zipfile.ZipInfo]:
    """The ONNX files by (folder or "", file name). Raises ModelFileError when it is no pack."""
    found: dict[tuple[str, str], zipfile.ZipInfo] = {}
    for info in infos:
        if not info.filename.lower().endswith(ONNX) or info.filename.startswith(REMARKS):
            continue
        match = MEMBER.fullmatch(info.filename)
        key = (match["folder"] or "", match["file"]) if match else None
        if key is None or key in found:
            raise ModelFileError(
                f"{name} should hold ONNX files with plain names, each once; it holds "
                f"{info.filename[:80]!r}. Unpack it yourself, and give the folder."
            )
        found[key] = info
    if not found or len({folder for folder, _ in found}) > 1:
        raise ModelFileError(
            f"{name} is none of the published archives, so it should hold the ONNX files of one "
            f"pack; {'they lie in several folders' if found else 'it holds none'}. Unpack it, and "
            "give a folder or a file of it."
        )
    _check_sizes(list(found.values()), name)
    return found


def _check_sizes(infos: Sequence[zipfile.ZipInfo], name: str) -> None:
    size = sum(info.file_size for info in infos)
    packed = sum(info.compress_size for info in infos)
    if len(infos) > MAX_FILES or size > MAX_BYTES or size > MAX_RATIO * packed + disk.CHUNK:
        raise ModelFileError(
            f"{name} should hold a pack of at most {MAX_FILES} ONNX files, {MAX_BYTES:,} bytes and "
            f"{MAX_RATIO} times what is packed; it says {len(infos)} files with {size:,} bytes in "
            f"{packed:,}. It is not unpacked."
        )
