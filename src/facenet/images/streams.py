"""Cameras and streams, opened through PyAV (FFmpeg), which may open what the address needs only.

Used in the child process that decodes; see `facenet.images.decoder`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from facenet.errors import InputError
from facenet.images.addresses import Address
from facenet.images.footage import Footage, Opening, footage_in, open_container, pyav
from facenet.images.limits import ImageLimits

ADVICE: Mapping[str, str] = {
    "camera": "Check that it is a camera, that you may read it (on Linux as one of the group "
    "video) and that no other program uses it.",
    "stream": "Check that it is there, that it gives video and no playlist, and the user and "
    "password in the address.",
}
"""What to do about a source of each kind that cannot be opened."""


@contextmanager
def open_stream(
    address: Address, limits: ImageLimits, threads: int, hardware: str = "off"
) -> Iterator[Footage]:
    """The video of a camera or an address, closed at the end. Raises InputError."""
    av = pyav()
    opening = Opening(limits, threads, hardware, address.format or None, address.options)
    try:
        container, notice = open_container(address.url, opening)
    except av.error.ProtocolNotFoundError as error:
        kind = address.url.partition("://")[0]
        raise InputError(
            f"{address.name} cannot be opened: the FFmpeg of this PyAV has no {kind}. Install a "
            "PyAV that was built with it, or let the camera send another kind of stream."
        ) from error
    except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "it gives no video that can be read"
        raise InputError(
            f"{address.name} cannot be opened: {str(reason)[:200]}. {ADVICE[address.kind]}"
        ) from error
    with container:
        yield footage_in(container, address.name, limits, threads, notice)


def is_recording(footage: Footage, address: Address) -> bool:
    """Whether a stream has an end that its server tells: a file behind an http address."""
    return address.url.startswith("http") and footage.facts().duration_s is not None
