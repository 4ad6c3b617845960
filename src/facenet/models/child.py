"""Asking a child process, so that a crash of a runtime is an answer and not an end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

PATIENCE = 300.0
"""Seconds after which a child counts as hung."""

OUTSIDE = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
"""Signals that are sent from outside (no memory, an impatient user) and prove nothing."""


def module(name: str) -> tuple[str, ...]:
    """The command of a child; -P: its modules never come from the work folder."""
    return (sys.executable, "-P", "-m", name)


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a child.

    lines: what it printed, when it ended well. problem: why there is no answer, "" when it ended
    well. lasting: whether it would end so the next time too.
    """

    lines: tuple[str, ...] = ()
    problem: str = ""
    lasting: bool = True


def ask(command: Sequence[str], arguments: Sequence[str], patience: float = PATIENCE) -> Told:
    """Run a child to its end. patience: seconds it has."""
    if getattr(sys, "frozen", False):  # there, sys.executable is the application itself
        return Told(problem="cannot be checked inside a frozen application", lasting=False)
    places = os.pathsep.join(place for place in sys.path if place)
    try:
        child = subprocess.run(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=patience,
            env={**os.environ, "PYTHONPATH": places},
        )
    except subprocess.TimeoutExpired:
        return Told(problem=f"gave no answer within {patience:g} seconds", lasting=False)
    except OSError as error:
        return Told(problem=f"cannot be checked: {error}", lasting=False)
    if child.returncode < 0:
        name = _signal_name(-child.returncode)
        return Told(problem=f"crashed with {name}", lasting=name not in OUTSIDE)
    if child.returncode:
        return no_answer(child.stderr, child.returncode)
    return Told(tuple(child.stdout.splitlines()))


def no_answer(said: str = "", code: int = 0) -> Told:
    """A child that ended without an answer; said: on stderr."""
    tail = said.strip().splitlines() or [f"the check ended with {code}"]
    return Told(problem=tail[-1], lasting=False)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
