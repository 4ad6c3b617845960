"""Whether the compiled code may be used here: it is tried once on a machine, and remembered.

A crash in it would end the process it runs in. So a child process runs it first (`trial.py`), the
work on pixels and the quick look apart, and what became of it is kept in FACENET_HOME/checks under
processor and library. Where it may not be used, NumPy and the runtimes do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from facenet.errors import SettingsError
from facenet.faces.kernels import LIBRARY, Kernels, source_digest
from facenet.models import child
from facenet.models.disk import sha256_of
from facenet.models.home import cpu_name, environment
from facenet.models.selfcheck import Verdict, asked, kept, key_of

PARTS = PIXELS, GLANCE = "pixels", "glance"
"""What is tried apart: the work on pixels and boxes, and the quick look."""
CHILD = child.module("facenet.faces.trial")
"""The command of the child, without its arguments."""
UNBUILT = "no C compiler that works was there when facenet was installed"
OUTDATED = "the library was built from other sources; install facenet again"


@dataclass(frozen=True, slots=True)
class Compiled:
    """The compiled functions. reason: why there are none, "" where they may be used."""

    kernels: Kernels | None = None
    reason: str = ""


Find = Callable[[], Compiled]
"""Gives the compiled functions when they are needed; `compiled` is the one that is used."""
Try = Callable[[str], Verdict]
"""What became of a part when it was tried; `tried` is the one that is used."""


@cache
def compiled() -> Compiled:
    """The compiled functions of this installation."""
    return found(LIBRARY)


def found(library: Path, attempt: Try | None = None) -> Compiled:
    """The functions of a library, or why they are not to be used. attempt: in place of `tried`."""
    if not library.exists():
        return Compiled(reason=UNBUILT)
    try:
        kernels = Kernels(library)
    except OSError as error:
        return Compiled(reason=f"the library cannot be loaded: {error}")
    except AttributeError:
        return Compiled(reason=OUTDATED)
    if kernels.source != source_digest():
        return Compiled(reason=OUTDATED)
    verdict = attempt(PIXELS) if attempt else tried(PIXELS, library)
    if not verdict.ok:
        return Compiled(reason=f"when it was tried, the library {verdict.reason}")
    return Compiled(kernels)


def tried(part: str, library: Path = LIBRARY, *, command: Sequence[str] = CHILD) -> Verdict:
    """What became of a part of a library when a child process ran it on this machine.

    part: one of `PARTS`. command: the child, without its arguments.
    """

    def ask() -> Verdict:
        return asked(command, [part, str(library)])

    terms = ["compiled", part, cpu_name(), sha256_of(library)]
    try:
        place = environment().home / "checks" / f"{key_of(terms)}.json"
    except SettingsError:  # this user has no home: it is tried anew in every process
        return ask()
    return kept(place, ask)
