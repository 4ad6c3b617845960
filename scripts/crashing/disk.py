"""A disk that remembers what was synced: the record of shim.c read, and what a power cut leaves.

After a cut a file has every write from before its last sync; of the later ones each is there, is
not, or is torn at the bounds of 512-byte sectors, whatever came before or after it. Names are made
and removed in their order, up to any point after the last sync of their folder (as a journalling
file system does; nothing is assumed of a sync of the file itself).
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from facenet.errors import StorageError

HEAD = struct.Struct("<BQqII")
SECTOR = 512
SHIM = Path(__file__).with_name("shim.c")


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the record. kind: see shim.c. data: bytes written, or the first name."""

    kind: str
    inode: int
    offset: int
    data: bytes
    second: str


@dataclass(slots=True)
class File:
    """Bytes that are safe, and what came since: (offset, data), or (size, None) to cut it off."""

    safe: bytearray = field(default_factory=bytearray)
    since: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        """Everything is safe now."""
        for offset, data in self.since:
            apply(self.safe, offset, data)
        self.since.clear()

    def after_cut(self, random: np.random.Generator, kept: float, torn: float) -> bytearray:
        """What is left. kept: the share of whole changes, torn: of torn writes."""
        image = bytearray(self.safe)
        for offset, data in self.since:
            chance = random.random()
            if chance < kept:
                apply(image, offset, data)
            elif data is not None and chance < kept + torn:
                for start in range(0, len(data), SECTOR):
                    if random.random() < 0.5:
                        apply(image, offset + start, data[start : start + SECTOR])
        return image


class Disk:
    """The files of one folder."""

    def __init__(self) -> None:
        self.files: dict[int, File] = {}
        self.names: dict[str, int] = {}
        self.since: list[Event] = []
        self.now: dict[str, int] = {}

    def take(self, event: Event) -> None:
        """The next thing that happened."""
        if event.kind in "wt":
            data = event.data if event.kind == "w" else None
            self.files.setdefault(event.inode, File()).since.append((event.offset, data))
        elif event.kind == "s":
            self.files.setdefault(event.inode, File()).sync()
        elif event.kind == "d":
            self.names, self.since = dict(self.now), []
        else:
            if event.kind == "c":
                self.files[event.inode] = File()
            self.since.append(event)
            rename(self.now, event)

    def cut(self, folder: Path, random: np.random.Generator) -> None:
        """Write what is left after a cut now into an empty folder."""
        names = dict(self.names)
        for event in self.since[: int(random.integers(len(self.since) + 1))]:
            rename(names, event)
        kept = float(random.choice([0.0, 0.5, 0.9, 1.0]))
        torn = (1 - kept) / 2
        for name, inode in names.items():
            if not name.endswith("-shm"):  # shared memory, which SQLite makes anew
                image = self.files[inode].after_cut(random, kept, torn)
                (folder / name).write_bytes(image)


def apply(image: bytearray, offset: int, data: bytes | None) -> None:
    """Write data, or cut the file off or extend it with zeros."""
    end = offset if data is None else offset + len(data)
    if end > len(image):
        image.extend(bytes(end - len(image)))
    if data is None:
        del image[offset:]
    else:
        image[offset:end] = data


def rename(names: dict[str, int], event: Event) -> None:
    """Make, link, move or remove a name."""
    name = event.data.decode()
    if event.kind == "c":
        names[name] = event.inode
    elif name in names:
        inode = names[name] if event.kind == "l" else names.pop(name)
        if event.kind in "lr":
            names[event.second] = inode


def events(record: Path) -> Iterator[Event]:
    """The record of a program, in order."""
    with record.open("rb") as file:
        while head := file.read(HEAD.size):
            kind, inode, offset, first, second = HEAD.unpack(head)
            data = file.read(first)
            yield Event(chr(kind), inode, offset, data, file.read(second).decode())


def build_shim(folder: Path) -> Path:
    """Compile shim.c. Raises StorageError without a C compiler."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None or sysconfig.get_platform().split("-")[0] != "linux":
        raise StorageError(
            "Cuts and failing disks need Linux and a C compiler; there is no cc, gcc or clang. "
            "Install one (apt-get install gcc libc6-dev)."
        )
    library = folder / "shim.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SHIM)]
    subprocess.run([*command, "-ldl", "-pthread"], check=True)
    return library


def environment(library: Path, folder: Path, record: Path | None = None) -> dict[str, str]:
    """Variables for a program whose files below a folder go over the shim."""
    extra = {"LD_PRELOAD": str(library), "DISK_FOLDER": str(folder), "DISK_NOSYNC": "1"}
    if record:
        extra["DISK_LOG"] = str(record)
    return {**os.environ, **extra}
