"""Seconds from a cold start: the work behind `facenet bench startup`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from facenet.errors import InputError, SettingsError


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
