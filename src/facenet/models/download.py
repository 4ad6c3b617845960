"""Downloading a plain URL, resumable (RFC 9110, range requests).

The bytes are gathered in a `.part` file. A second try, or a second run, asks for the rest of it.
"""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from facenet.errors import DownloadError
from facenet.models import disk

Progress = Callable[[str, int, int], None]
"""Called with what is going on, bytes done and bytes in all (0 when that is not known)."""

RETRIES = 4
"""Tries in a row that may fail without a new byte."""

TIMEOUT = 60.0
"""Seconds of silence after which a connection counts as lost."""

_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
"""Refusals (4xx) that are worth a second try."""


def quiet(label: str, done: int, total: int) -> None:
    """The progress callback that shows nothing."""


@dataclass(frozen=True, slots=True)
class _Order:
    """What is downloaded: from where, into which file, how many bytes it has (None: not known).

    limit: most bytes that are taken where the size is not known; None: any.
    """

    url: str
    part: Path
    size: int | None
    limit: int | None
    progress: Progress

    @property
    def have(self) -> int:
        try:
            return self.part.stat().st_size
        except OSError:
            return 0


def fetch_url(
    url: str,
    target: Path,
    progress: Progress = quiet,
    *,
    size: int | None = None,
    limit: int | None = None,
    pause: float = 1.0,
) -> None:
    """Download an http or https URL to `target`; an interrupted download goes on where it stopped.

    size: bytes of the file when they are known; a longer one is refused. limit: most bytes of it
    when they are not. pause: seconds before the second try, doubled each time; `RETRIES` tries in
    a row may bring nothing new.
    Raises DownloadError, StorageError.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise DownloadError(f"A model should be at an http or https URL; got {url}.")
    order = _Order(url, target.with_name(f"{target.name}.part"), size, limit, progress)
    disk.make_folder(target.parent)
    best, failures = order.have, 0
    while True:
        try:
            _download(order)
            break
        except (OSError, http.client.HTTPException) as error:
            failures = failures + 1 if order.have <= best else 0
            best = max(best, order.have)
            if failures == RETRIES:
                raise DownloadError(
                    f"{url} did not deliver after {RETRIES} tries: {error}. What came is kept; "
                    "run the same command again to go on, or give the file with `--file`."
                ) from error
        time.sleep(pause * 2**failures)
    with disk.storage_errors(target):
        order.part.replace(target)


def _download(order: _Order) -> None:
    """One connection: the whole file, or the rest of it."""
    have = order.have
    headers = {"User-Agent": "facenet"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(order.url, headers=headers), timeout=TIMEOUT
        )
    except urllib.error.HTTPError as error:
        with error:
            if not (have and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
                _refused(order.url, error)
            if _range(error)[1] == have:
                return  # nothing is missing
        with disk.storage_errors(order.part):
            order.part.unlink()
        _download(order)
        return
    with response:
        _receive(order, response, have if response.status == HTTPStatus.PARTIAL_CONTENT else 0)


def _refused(url: str, error: urllib.error.HTTPError) -> None:
    """Raises DownloadError when a second try would be refused too, else the error again."""
    if error.code in _PASSING or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise error
    raise DownloadError(
        f"{url} answered {error.code} {error.reason}. Check the address, or get the file elsewhere "
        "and give it with `--file`."
    ) from error


def _receive(order: _Order, response: Any, have: int) -> None:
    """Write what comes behind the first `have` bytes of the part file."""
    if have and _range(response)[0] != have:
        disk.remove(order.part)
        raise ConnectionError("the server sent another range than it was asked for")
    length = response.headers.get("Content-Length")
    total = have + int(length) if length and length.isdigit() else None
    label = order.url.rsplit("/", 1)[-1]
    _check_size(order, total or 0)
    with disk.storage_errors(order.part):
        out = order.part.open("ab" if have else "wb")
    with out:
        while chunk := response.read(disk.CHUNK):
            have += len(chunk)
            _check_size(order, have)
            with disk.storage_errors(order.part):
                out.write(chunk)
                out.flush()
            order.progress(label, have, total or order.size or 0)
    wanted = total or order.size
    if wanted and have < wanted:
        raise ConnectionError(f"{have:,} of {wanted:,} bytes came")


def _check_size(order: _Order, size: int) -> None:
    most = order.limit if order.size is None else order.size
    if most is not None and size > most:
        disk.remove(order.part)
        wanted = f"at most {most:,}" if order.size is None else f"{most:,}"
        raise DownloadError(
            f"{order.url} should have {wanted} bytes; it has {size:,} or more. It is another "
            "file than the one on the card, and was removed."
        )


def _range(response: Any) -> tuple[int | None, int | None]:
    """First byte and whole length of `Content-Range: bytes FIRST-LAST/LENGTH`."""
    found = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip()
    )
    first, whole = found.groups() if found else (None, None)
    return (
        int(first) if first else None,
        int(whole) if whole and whole != "*" else None,
    )
