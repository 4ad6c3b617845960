"""The faces of a video, frame by frame: the reader, a detector and a stride put together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from facenet.errors import SettingsError
from facenet.faces.detect import Detector
from facenet.faces.detectors import DetectorSettings, open_detector
from facenet.faces.strided import BETWEEN, Strided
from facenet.images import Frame, SourceSettings, open_source
from facenet.images.localfile import require_local
from facenet.models.catalog import DEFAULT_DETECTOR
from facenet.models.engine import EngineSettings
from facenet.types import Faces


def detect_video(
    path: str | os.PathLike[str],
    *,
    stride: int = 1,
    between: str = BETWEEN[0],
    resize: float = 1.0,
    start: float = 0.0,
    stop: float | None = None,
    detector: str | Detector = DEFAULT_DETECTOR,
    **options: Any,
) -> Iterator[tuple[Frame, Faces]]:
    """Every frame of a video file with its faces, in order.

    path: a file, or a folder or pattern of pictures; no address and no camera. stride, between,
    resize: see `Strided`; stride 1 detects in every frame. start, stop: seconds, see `open_source`,
    which decodes in a child process. detector: a name, or anything with `detect`. options, with a
    name: engine, device and detection as `Recognizer` has them.
    Raises SettingsError for options that do not exist, before anything is read; InputError for
    what cannot be read, and after the last frame of a file that is damaged or crashed its decoder.
    """
    if isinstance(detector, str):
        detector = _named(detector, **options)
    elif options:
        raise SettingsError(
            f"A detector that is ready takes no options; got {', '.join(options)[:80]}. Leave "
            "them out, or name a detector."
        )
    strided = Strided(detector, stride=stride, between=between, resize=resize)
    return strided.watch(_frames(path, SourceSettings(start=start, stop=stop)))


def _frames(path: str | os.PathLike[str], settings: SourceSettings) -> Iterator[Frame]:
    require_local(path)
    with open_source(Path(path), settings) as source:
        yield from source


def _named(
    name: str,
    *,
    engine: str | EngineSettings = "auto",
    device: str | None = None,
    detection: DetectorSettings | None = None,
) -> Detector:
    running = engine if isinstance(engine, EngineSettings) else EngineSettings(engine, device)
    running = replace(running, device=device or running.device, precision="fp32")
    return open_detector(name, running, options=detection)
