"""Hardware that decodes videos, where FFmpeg offers it and the machine has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from facenet.errors import SettingsError


def accelerated(opened: Callable[[Any], Any], hardware: str) -> tuple[Any, str]:
    """A video opened with a hardware decoder, and "", or without one and a sentence why.

    opened: opens the video, with a `HWAccel` or with None. hardware: "auto" tries every kind that
    FFmpeg has for the codec; the name of a kind only that one.
    Raises SettingsError for a named kind that cannot be used; what `opened` raises without one.
    """
    plain = opened(None)
    named = hardware != "auto"
    offered = _offered(plain)
    wanted = [kind for kind in offered if not named or kind == hardware]
    reasons: list[str] = []
    for kind in wanted:
        container, reason = _tried(opened, kind, fall_back=not named)
        if container is not None:
            plain.close()
            return container, ""
        reasons.append(f"{kind} ({reason})")
    if named:
        plain.close()
        found = ", ".join(offered) or "none"
        why = reasons[0] if reasons else f"FFmpeg has for this video: {found}"
        raise SettingsError(
            f'The hardware "{hardware}" cannot decode here: {why}. Choose another, "auto" or "off".'
        )
    why = f"{', '.join(reasons)} cannot be opened" if reasons else "FFmpeg has none for its codec"
    return plain, f"The video is decoded without hardware: {why}."


def _offered(container: Any) -> list[str]:
    """The kinds of devices that FFmpeg has for the codec of the video, by its names."""
    from av.codec.hwaccel import hwdevices_available

    kinds = set(hwdevices_available())
    videos = [stream for stream in container.streams.video if stream.codec_context is not None]
    if not videos:
        return []
    configs = videos[0].codec_context.codec.hardware_configs or ()
    names = [config.device_type.name for config in configs if config.is_supported]
    return [name for name in dict.fromkeys(names) if name in kinds]


def _tried(opened: Callable[[Any], Any], kind: str, *, fall_back: bool) -> tuple[Any | None, str]:
    """The video with a device of a kind, or None and why not."""
    from av import FFmpegError
    from av.codec.hwaccel import HWAccel

    try:
        return opened(HWAccel(kind, allow_software_fallback=fall_back)), ""
    except (FFmpegError, OSError, ValueError, RuntimeError) as error:
        return None, str(getattr(error, "strerror", None) or error)[:100]
