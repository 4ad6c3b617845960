"""What `facenet bench` is asked for."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from facenet.apps.jobs.benching.link import OURS, OURS_COMMAND, PLAIN, Link, System, peer_command
from facenet.apps.jobs.peers.worker import SYSTEMS
from facenet.errors import SettingsError
from facenet.models.engine import ENGINES, INSTRUCTIONS

HERE = ("opencv",)
"""Peers that run in facenet's own Python."""
OTHERS = ("faiss", "none")
"""What a search is measured against, in facenet's own Python; none is nothing at all."""
RUNS, QUICK_RUNS = 9, 5
LONG, QUICK_LONG = 20_000, 2_000
"""Frames of the long video, and when in a hurry; photos of the long pipeline, none in a hurry."""
LONGEST = 10_000_000
"""Frames or photos of a long run at most."""


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """What is measured, with what, and beside whom.

    quick: five runs on few inputs. video, images: inputs of your own. against: peers, see
    `worker.SYSTEMS`. peer_python: their Pythons, one for all or, in order, one for each that is
    not of `HERE` or `OTHERS`; none is facenet's own. engine, instructions: what runs facenet's
    networks, see `EngineSettings`.
    frames: of the long video in which memory is watched, 0: none; None: 20,000, 2,000 when quick.
    photos: the same of the pipeline; None: 20,000, none when quick.
    Raises SettingsError.
    """

    quick: bool = False
    video: Path | None = None
    images: Path | None = None
    against: tuple[str, ...] = ()
    peer_python: tuple[str, ...] = ()
    engine: str = "auto"
    instructions: str = "auto"
    frames: int | None = None
    photos: int | None = None

    def __post_init__(self) -> None:
        known = set(self.against) <= {*SYSTEMS, *OTHERS}
        if not known or len(set(self.against)) < len(self.against):
            raise SettingsError(
                f"against should be some of {', '.join((*SYSTEMS, *OTHERS))}, each once; got "
                f"{','.join(self.against)[:80]}."
            )
        if len(self.peer_python) not in (0, 1, len(self._elsewhere)):
            raise SettingsError(
                f"peer_python should be one Python, or one for each of the peers that run "
                f"elsewhere ({', '.join(self._elsewhere) or 'none'}); got {len(self.peer_python)}."
            )
        for python in self.peer_python:
            if shutil.which(python) is None:
                raise SettingsError(
                    f"peer_python should be the Python that a peer is installed in, such as "
                    f"venv/bin/python; {python[:200]} cannot be run."
                )
        for name, known_ones in (("engine", ENGINES), ("instructions", INSTRUCTIONS)):
            if getattr(self, name) not in known_ones:
                raise SettingsError(
                    f"{name} should be one of {', '.join(known_ones)}; got "
                    f"{getattr(self, name):.40}."
                )
        for name in ("frames", "photos"):
            count = getattr(self, name)
            if count is not None and not 0 <= count <= LONGEST:
                raise SettingsError(
                    f"{name} should be a number of {name}, 0 to {LONGEST:,}; got {count}."
                )

    @property
    def long_video(self) -> int:
        """Frames of the long video."""
        if self.frames is not None:
            return self.frames
        return QUICK_LONG if self.quick else LONG

    @property
    def long_pipeline(self) -> int:
        """Photos of the long run of the pipeline."""
        if self.photos is not None:
            return self.photos
        return 0 if self.quick else LONG

    @property
    def runs(self) -> int:
        """Measured runs of each plan."""
        return QUICK_RUNS if self.quick else RUNS

    @property
    def _elsewhere(self) -> list[str]:
        """The peers that do not run in facenet's own Python."""
        return [name for name in self.against if name not in (*HERE, *OTHERS)]

    def python_of(self, peer: str) -> str:
        """The interpreter that a peer runs in."""
        if peer not in self._elsewhere or not self.peer_python:
            return sys.executable
        place = self._elsewhere.index(peer) if len(self.peer_python) > 1 else 0
        return self.peer_python[place]

    def open(self, name: str, threads: int) -> System:
        """A process that measures facenet or a peer."""
        if name in (OURS, PLAIN):
            return Link(name, OURS_COMMAND, threads=threads)
        return Link(name, peer_command(name, self.python_of(name)), threads=threads)
