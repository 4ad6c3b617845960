"""What an address of a camera or a stream may be, and what FFmpeg may open for it.

An address is only ever what the user wrote as one. For each kind FFmpeg gets the list of the
protocols that it needs and no other, so that nothing that a server sends can make it open a file
or another kind of connection.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from facenet.errors import InputError

WEB = "http,https,httpproxy,tls,tcp"
PROTOCOLS: Mapping[str, str] = {
    "rtsp": "rtsp,tcp",
    "rtsps": "rtsps,tls,tcp",
    "http": WEB,
    "https": "https,httpproxy,tls,tcp",
    "rtmp": "rtmp,tcp",
    "udp": "udp",
    "tcp": "tcp",
    "srt": "srt",
}
"""What may be opened for an address of each kind, in FFmpeg's names."""
STREAM_FORMATS = (
    "rtsp,mpegts,flv,live_flv,matroska,webm,mov,mjpeg,mpjpeg,h264,hevc,ogg,avi,mpeg,nut,asf"
)
"""FFmpeg's names of the formats of streams that are read: no playlist, nothing that names
further files."""
LONGEST = 2000
"""Characters of an address at most."""
_CAMERA = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
"""What reads cameras on each system, in FFmpeg's names."""


@dataclass(frozen=True, slots=True)
class Address:
    """A camera or a stream, as FFmpeg is asked for it.

    name: for messages, without what may be secret. kind: "camera" or "stream". url: what is
    opened. format: FFmpeg's name of the reader, "" where the data tells. options: of the reader.
    """

    name: str
    kind: str
    url: str
    format: str
    options: Mapping[str, str]


def find_address(
    place: str, *, rate: float | None = None, size: tuple[int, int] | None = None
) -> Address | None:
    """The camera or the stream that a place names, or None when it is a path.

    place: a number ("0" is the first camera), a device like "/dev/video2", "camera:NAME" for a
    name that macOS or Windows gives, or an address. rate, size: asked of a camera.
    Raises InputError for an address that is not of a kind of `PROTOCOLS`.
    """
    if re.fullmatch(r"\d{1,3}", place) or place.startswith(("/dev/video", "camera:")):
        return _camera(place, rate, size)
    scheme, mark, _ = place.partition("://")
    if not mark or "/" in scheme:
        return None
    scheme = scheme.lower()
    if scheme not in PROTOCOLS:
        raise InputError(
            f"An address should begin with one of {', '.join(f'{name}://' for name in PROTOCOLS)}; "
            f"got {scheme[:20]}://. A file is named by its path."
        )
    return Address(public_name(place), "stream", _checked(place), _reader(scheme), _options(scheme))


def public_name(url: str) -> str:
    """An address without the user, the password, the query and the fragment, for messages."""
    try:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return f"{url.partition('://')[0][:20]}://..."
    name = f"{parts.scheme}://{host}{port}{parts.path}"
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    return name if len(name) <= 200 else f"{name[:140]}...{name[-40:]}"


def _checked(url: str) -> str:
    if len(url) > LONGEST or not url.isprintable() or " " in url:
        raise InputError(
            f"The address {public_name(url)} should have at most {LONGEST:,} characters and no "
            "space or control character in it. Write such a character as %20."
        )
    try:
        host, _ = urlsplit(url).hostname, urlsplit(url).port
    except ValueError:
        host = None
    if not host:
        raise InputError(
            f"The address {public_name(url)} should name a host and, if any, a port number, as in "
            "rtsp://camera.local:554/stream."
        )
    return url


def _reader(scheme: str) -> str:
    return "rtsp" if scheme in ("rtsp", "rtsps") else ""


def _options(scheme: str) -> dict[str, str]:
    """Options of FFmpeg for an address of a kind."""
    options = {"protocol_whitelist": PROTOCOLS[scheme], "format_whitelist": STREAM_FORMATS}
    if scheme in ("rtsp", "rtsps"):
        options |= {"rtsp_transport": "tcp", "allowed_media_types": "video"}
    if scheme in ("http", "https"):
        import ssl

        # Of a recording a lost connection is taken up where it was
        options |= {"reconnect": "1", "reconnect_delay_max": "8", "tls_verify": "1"}
        authorities = ssl.get_default_verify_paths().cafile
        if authorities:
            options["ca_file"] = authorities
    return options


def _camera(place: str, rate: float | None, size: tuple[int, int] | None) -> Address:
    reader = _CAMERA.get(sys.platform)
    if reader is None:
        raise InputError(f"Cameras cannot be read on {sys.platform}: name a file or an address.")
    options = {"protocol_whitelist": "none"}
    if rate is not None:
        options["framerate"] = f"{rate:g}"
    if size is not None:
        options["video_size"] = f"{size[0]}x{size[1]}"
    url = _device(place) if reader == "v4l2" else _named(place, reader)
    return Address(f"camera {url[:200]}", "camera", url, reader, options)


def _device(place: str) -> str:
    """The device of a camera on Linux: 0 is the first that there is."""
    if place.startswith("camera:"):
        place = place.removeprefix("camera:")
    there = sorted(Path("/dev").glob("video*"), key=lambda path: (len(path.name), path.name))
    device = Path(f"/dev/video{int(place)}" if place.isdigit() else place)
    if place.isdigit() and int(place) == 0 and there:
        device = there[0]
    if not re.fullmatch(r"/dev/video\d{1,3}", str(device)) or not device.exists():
        found = ", ".join(map(str, there[:8])) or "none at all"
        raise InputError(
            f"There is no camera {str(device)[:200]}; found {found}. Connect it, or name another."
        )
    return str(device)


def _named(place: str, reader: str) -> str:
    """The name of a camera as macOS (avfoundation) and Windows (dshow) want it."""
    name = place.removeprefix("camera:")
    if reader == "avfoundation":
        return f"{name}:none"
    if name.isdigit():
        raise InputError(
            "On Windows a camera should be named, as in camera:Integrated Camera; got the number "
            f"{name}. The device manager shows the names."
        )
    return f"video={name}"
