"""Events sent to a web address, in order, each at least once, and never in the way of the work.

Signatures and headers follow Standard Webhooks 1.0 (standardwebhooks.com): webhook-id,
webhook-timestamp, and webhook-signature, "v1," and the base64 HMAC-SHA256 of "id.timestamp.body".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import json
import os
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from facenet import __version__
from facenet.apps.jobs.filming.cells import plain
from facenet.apps.jobs.filming.closing import Closing
from facenet.apps.jobs.filming.outbox import Outbox, Parcel
from facenet.errors import SettingsError

SECRET = "FACENET_WEBHOOK_SECRET"
"""The environment variable with the secret of signatures."""
ENDING = ".outbox"
SAFE = "%/:=&?~+!$,;'@()*[]"
"""Signs of a path and a query that are sent as they are."""

Pause = Callable[[float, threading.Event], object]


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Where events are sent, and how patiently.

    url: an http or https address; a user and a password in it are sent as HTTP basic
    authentication. secret: of the signatures, whsec_ and base64, or any other text; None: not
    signed. timeout_s: seconds of silence after which a try has failed. pause_s: before the second
    try, doubled each time, at most longest_s. patience_s: how long the end of the work may wait
    for what has not been delivered yet.
    Raises SettingsError. Neither the address nor the secret is in any message.
    """

    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    timeout_s: float = 10.0
    pause_s: float = 1.0
    longest_s: float = 60.0
    patience_s: float = 5.0

    def __post_init__(self) -> None:
        _address(self.url)
        _key(self.secret)
        for name in ("timeout_s", "pause_s", "longest_s", "patience_s"):
            value = getattr(self, name)
            if not (isfinite(value) and 0 < value <= 3600):
                raise SettingsError(
                    f"{name} of a webhook should be seconds, above 0 and at most 3600; "
                    f"got {value:g}."
                )

    @property
    def place(self) -> str:
        """The address for messages: scheme, host and port, without anything that may be secret."""
        parts = _address(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def webhook_secret(environment: Mapping[str, str] = os.environ) -> str | None:
    """The secret of signatures from FACENET_WEBHOOK_SECRET, None where it is not set."""
    return environment.get(SECRET) or None


def outbox_beside(events: Path, url: str) -> Path:
    """Where events wait for a webhook: beside the file of events, in a file for that address alone.

    Its name has a digest of the address, which may hold secrets.
    """
    receiver = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return events.with_name(f"{events.name}.{receiver}{ENDING}")


class Webhook(Closing):
    """Sends events from a thread of its own; to be used in a `with` block.

    outbox: the file in which they wait, see `outbox_beside`; those of an earlier run leave first.
    An event that is not taken (no connection, no answer, an answer other than 2xx; redirects are
    not followed) is tried again until it is, and the others wait behind it. Leaving the block
    waits for at most `patience_s`, and the rest for the next run.

    pause: waits for so many seconds, or until an event is set. clock: seconds since 1970. Raises
    StorageError when the outbox cannot be opened, and nothing after that.
    """

    def __init__(
        self,
        settings: WebhookSettings,
        outbox: Path,
        *,
        pause: Pause = lambda seconds, end: end.wait(seconds),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.delivered = 0
        self.problem: str | None = None
        self._outbox = Outbox(outbox)
        self._run = uuid.uuid4().hex
        self._count = 0
        self._news, self._ending, self._stopped = (threading.Event() for _ in range(3))
        self._pause = pause
        self._post = _Post(settings, clock)
        self._thread = threading.Thread(target=self._send, name="facenet-webhook", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Events that have not been delivered."""
        return self._outbox.waiting

    def add(self, row: Mapping[str, Any]) -> None:
        """Send an event, as `event_row` gives it. Never waits, never raises."""
        self._count += 1
        self._outbox.put(Parcel(f"{self._run}-{self._count}", plain(row)))
        self._news.set()

    def close(self) -> None:
        """Wait for what can still be delivered, then keep the rest; a second time does nothing."""
        self._ending.set()
        self._news.set()
        try:
            self._thread.join(self.settings.patience_s)
        finally:
            self._stopped.set()
            self._post.abort()
            self._thread.join(1.0)  # a look-up of a name cannot be ended; its thread is a daemon
            self._outbox.close()

    def sentence(self) -> str:
        """What was delivered, what waits and where, why, and what was lost."""
        place, waiting, lost = self.settings.place, self.waiting, self._outbox.lost
        text = f"{_events(self.delivered)} delivered to {place}"
        if waiting:
            verb = "waits" if waiting == 1 else "wait"
            text += f"; {waiting} {verb} in {str(self._outbox.path)[:300]} for the next run"
        if lost:
            text += f"; {lost} {'was' if lost == 1 else 'were'} lost since the disk is full"
        if self.problem and (waiting or lost):
            text += f" ({self.problem})"
        return f"{text}."

    def to_dict(self) -> dict[str, Any]:
        """Counts for a summary."""
        waiting = self.waiting
        return {
            "delivered": self.delivered,
            "waiting": waiting,
            "lost": self._outbox.lost,
            "outbox": str(self._outbox.path) if waiting else None,
        }

    def _send(self) -> None:
        """The thread: one parcel after the other, each until it is delivered."""
        failures = 0
        while not self._stopped.is_set():
            self._news.clear()
            try:
                parcel = self._outbox.first()
            except OSError as error:
                self.problem = f"its file cannot be read: {error.strerror}"
                return
            if parcel is None:
                if self._ending.is_set():
                    return
                self._news.wait()
                continue
            last = self._ending.is_set()
            problem, asked = self._post.send(parcel)
            if problem and self._stopped.is_set():  # we ended that try ourselves
                problem = self.problem or "no answer before the end"
            self.problem = problem
            if problem is None:
                self._outbox.done(parcel)
                self.delivered, failures = self.delivered + 1, 0
            else:
                backoff = self.settings.pause_s * 2 ** min(failures, 16)
                seconds = min(max(backoff, asked), self.settings.longest_s)
                self._pause(seconds, self._stopped if last else self._ending)
                failures += 1


class _Post:
    """Sends one parcel at a time."""

    def __init__(self, settings: WebhookSettings, clock: Callable[[], float]) -> None:
        parts = _address(settings.url)
        self._timeout, self._clock = settings.timeout_s, clock
        self._key = _key(settings.secret)
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        query = f"?{parts.query}" if parts.query else ""
        self._path = quote((parts.path or "/") + query, safe=SAFE)
        self._login = _login(parts)
        self._open: http.client.HTTPConnection | None = None
        self._over = False

    def send(self, parcel: Parcel) -> tuple[str | None, float]:
        """What went wrong in a few words, None when it was delivered; and how many seconds the
        receiver asks to be left alone."""
        body = json.dumps({"id": parcel.key, **parcel.event}).encode()
        self._open = connection = self._connection()
        try:
            connection.connect()
            if self._over:
                raise ConnectionAbortedError("it is too late")
            connection.request("POST", self._path, body, self._headers(parcel.key, body))
            answer = connection.getresponse()
            return _verdict(answer.status), _asked(answer.getheader("Retry-After"))
        except (OSError, http.client.HTTPException) as error:
            return _words(error, self._timeout), 0.0
        finally:
            self._open = None
            connection.close()

    def abort(self) -> None:
        """End the try that is going on, and have no other."""
        self._over = True
        connection = self._open
        sock = connection.sock if connection else None
        if sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _connection(self) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout, context=context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def _headers(self, key: str, body: bytes) -> dict[str, str]:
        stamp = str(int(self._clock()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"facenet/{__version__}",
            "Connection": "close",
            "webhook-id": key,
            "webhook-timestamp": stamp,
        }
        if self._login:
            headers["Authorization"] = self._login
        if self._key is not None:
            signed = hmac.new(self._key, f"{key}.{stamp}.".encode() + body, hashlib.sha256)
            headers["webhook-signature"] = "v1," + base64.b64encode(signed.digest()).decode()
        return headers


def _address(url: str) -> SplitResult:
    """The parts of an address. Raises SettingsError, without naming it: it may hold a secret."""
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError as error:
        raise SettingsError(
            "The address of a webhook should be like https://host/path; it cannot be read."
        ) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise SettingsError(
            "The address of a webhook should begin with http:// or https:// and a host; "
            "it begins otherwise."
        )
    if len(url) > 2048 or not url.isprintable() or " " in url:
        raise SettingsError(
            "The address of a webhook should have at most 2,048 signs, without spaces."
        )
    return parts


def _key(secret: str | None) -> bytes | None:
    """The bytes of a secret. Raises SettingsError."""
    if secret is None or not secret.startswith("whsec_"):
        return secret.encode("utf-8", "surrogateescape") if secret else None
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SettingsError(
            "The secret of a webhook that begins with whsec_ should go on in base64; copy it again."
        ) from error


def _login(parts: SplitResult) -> str | None:
    if parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _verdict(status: int) -> str | None:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    redirect = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
    return f"it answered {status}" + (", and redirects are not followed" if redirect else "")


def _asked(header: str | None) -> float:
    """Seconds of a Retry-After header; dates are passed over."""
    text = (header or "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0


def _words(error: Exception, timeout: float) -> str:
    """An error in a few words, none of which comes from the other side."""
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g} s"
    if isinstance(error, socket.gaierror):
        return "the host is not known"
    if isinstance(error, ssl.SSLError):
        return "its certificate or TLS was not accepted"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "it closed the connection or gave no HTTP answer"


def _events(count: int) -> str:
    return "1 event was" if count == 1 else f"{count} events were"
