"""Measuring speed: the work behind `facenet bench`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from facenet.apps.jobs.photos import find_photos
from facenet.errors import InputError, SettingsError
from facenet.images import load_image
from facenet.recognizer import Recognizer


def measure_startup(a: Path, b: Path, *, rounds: int) -> list[dict[str, Any]]:
    """Median seconds of new processes: a bare Python, the import, the help, one verification.

    a, b: photos with one face each. The import is told without Python's own start.
    Raises InputError when they cannot be verified.
    """
    _require_rounds(rounds)
    verify = ["-m", "facenet", "verify", str(a), str(b)]
    bare = _seconds(["-c", "pass"], rounds)
    return [
        {"what": "python", "seconds": bare},
        {"what": "import facenet", "seconds": _seconds(["-c", "import facenet"], rounds) - bare},
        {"what": "facenet --help", "seconds": _seconds(["-m", "facenet", "--help"], rounds)},
        {"what": "facenet verify", "seconds": _seconds(verify, rounds)},
    ]


def measure_pipeline(
    places: Sequence[Path], recognizer: Recognizer, *, rounds: int
) -> list[dict[str, Any]]:
    """Median milliseconds per photo of each stage, over all photos, one photo at a time.

    Raises InputError when there is no face in them.
    """
    _require_rounds(rounds)
    paths = [photo.path for photo in find_photos(places)]
    images = [load_image(path) for path in paths]
    found = recognizer.detector.detect(images)
    if not any(found):
        raise InputError("Photos to measure with should show a face; none was found in them.")
    stages: dict[str, tuple[Callable[[], object], int]] = {
        "read": (lambda: [load_image(path) for path in paths], len(paths)),
        "detect": (lambda: [recognizer.detector.detect([i]) for i in images], len(paths)),
        "embed": (lambda: recognizer.embedder.embed(images, found), sum(map(len, found))),
    }
    rows = []
    for what, (stage, count) in stages.items():
        stage()
        seconds = median(_clock(stage) for _ in range(rounds))
        each = seconds / count
        unit = "face" if what == "embed" else "photo"
        rows.append(
            {"what": f"{what} a {unit}", "milliseconds": 1000 * each, "per_second": 1 / each}
        )
    return rows


def _clock(stage: Callable[[], object]) -> float:
    start = perf_counter()
    stage()
    return perf_counter() - start


def _require_rounds(rounds: int) -> None:
    if rounds < 1:
        raise SettingsError(f"rounds should be 1 or more; got {rounds}.")


def _seconds(arguments: list[str], rounds: int) -> float:
    def run() -> None:
        child = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, check=False
        )
        if child.returncode not in (0, 1):  # 1: another person, which takes as long
            raise InputError(f"The command to measure failed: {child.stderr.strip()}")

    run()
    return median(_clock(run) for _ in range(rounds))
