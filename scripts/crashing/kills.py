"""SIGKILL at random moments (reliability.md A1).

A child that is forked with everything loaded changes a gallery and says so through a pipe; after
an exponential delay it is killed. Its parent opens the gallery and compares; one time in eight it
does not look, so that the next child has to open what was left, and may be killed doing it. One
time in four the kill is aimed at what follows the commit of a deletion; see `aimed`.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crashing.aimed import Range, strike_out
from crashing.erasures import Claims
from crashing.ledger import Ledger, State
from crashing.operations import BESIDE, Program, Voice, make_templates, present, sweep
from facenet.errors import DamagedGalleryError, FacenetError
from facenet.gallery.backup import verify
from facenet.gallery.sqlite import SqliteStore
from facenet.gallery.store import Store

DELAY = 0.06
"""Mean seconds from the start of a program to its end."""
AIMED = 4
"""One kill in so many is aimed."""
UNSEEN = 8
"""One kill in so many is not looked at before the next."""
VERIFIED = 100
"""One kill in so many is followed by a full verification."""


COUNTED = ("kills", "acks", "erased", "residue", "lost", "phantom", "repairs")


@dataclass(slots=True)
class Tally:
    """What came of it. erased: deletions after which the files were looked through; residue: those
    that had left bytes, each a phantom too. during: operation -> kills in it. told: the first
    things that were wrong."""

    kills: int = 0
    acks: int = 0
    erased: int = 0
    residue: int = 0
    lost: int = 0
    phantom: int = 0
    repairs: int = 0
    during: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in what came of others."""
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.during.update(other.during)
        self.told += other.told

    def looked_after(self, made: int, left: list[str]) -> list[str]:
        """Count deletions, and those that left bytes; what was said of these."""
        self.erased += made
        self.residue += len(left)
        self.phantom += len(left)
        return left

    @property
    def good(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.lost or self.phantom or self.repairs)

    def line(self, what: str) -> str:
        """The one line at the end."""
        numbers = f"{self.lost} lost, {self.phantom} phantom, {self.repairs} repairs"
        return f"{self.kills} {what}: {numbers}"


@dataclass(frozen=True, slots=True)
class Setup:
    """Which program is killed. broken: what makes its store a bad one, for a negative control.
    early: it acknowledges before the commit. forgetful: erasures that are owed are struck out.
    strict: revisions are compared too."""

    broken: Callable[[Store], Store] | None = None
    early: bool = False
    forgetful: bool = False
    strict: bool = True


def run(kills: int, seed: int, setup: Setup) -> Tally:
    """Kill so many programs one after the other, on one gallery."""
    with tempfile.TemporaryDirectory(prefix="facenet-crash-") as folder:
        arena = Arena(Path(folder) / "gallery.db", seed, setup)
        for number in range(kills):
            arena.kill(number)
        arena.look(full=True)
        return arena.tally


class Arena:
    """A gallery, what it should hold, and what was found."""

    def __init__(self, path: Path, seed: int, setup: Setup) -> None:
        self.path, self.setup, self.tally = path, setup, Tally()
        self.random = np.random.default_rng(seed)
        make_templates(path, seed)
        self.claims = Claims()
        self.range: Range | None = None
        self.ledger = self.fresh()

    def fresh(self) -> Ledger:
        """A new gallery and its ledger."""
        for old in self.path.parent.glob(f"{self.path.name}*"):
            old.unlink()
        SqliteStore(self.path, create=True).close()
        self.claims.open.clear()
        return Ledger([self.seen()])

    def kill(self, number: int) -> None:
        """Start a program, kill it, and mostly look what it left."""
        if number % AIMED == 0:
            self.aimed()
            return
        delay = float(self.random.exponential(DELAY))
        lines = killed(self.path, self.setup, int(self.random.integers(1 << 62)), delay)
        self.tally.kills += 1
        told = [json.loads(line) for line in lines if line.endswith(b"\n")]
        doing = [one["doing"] for one in told if "doing" in one]
        self.tally.during[doing[-1] if doing else "open"] += 1
        for one in told:
            if "error" in one:
                self.wrong(f"a program failed: {one['error']}")
                self.tally.repairs += 1
        self.tally.acks += self.ledger.read(lines)
        self.claims.read(lines)
        if self.random.integers(UNSEEN) == 0:
            self.ledger.interrupted()
        else:
            self.look(full=number % VERIFIED == VERIFIED - 1)

    def aimed(self) -> None:
        """Kill a program after the commit of a deletion, and look for what it left."""
        self.tally.kills += 1
        self.tally.during["erasure"] += 1
        try:
            if self.range is None:
                self.range = Range(self.path.with_name("range.db"), self.random)
            made, left = self.range.hit(forgetful=self.setup.forgetful)
        except FacenetError as error:
            self.tally.repairs += 1
            self.wrong(f"repair: {error}")
            return
        for word in self.tally.looked_after(made, left):
            self.wrong(word)

    def look(self, *, full: bool) -> None:
        """Open the gallery and compare it with the ledger."""
        try:
            if self.setup.forgetful:
                strike_out(self.path)
            actual = self.seen()
            if full:
                require_sound(self.path)
        except FacenetError as error:
            self.tally.repairs += 1
            self.wrong(f"repair: {error}")
            self.ledger = self.fresh()
            return
        verdict = self.ledger.judge(actual)
        self.tally.lost += len(verdict.lost)
        self.tally.phantom += len(verdict.phantom)
        if len(verdict):
            self.wrong(f"lost {verdict.lost[:5]}, phantom {verdict.phantom[:5]}")
        for word in self.tally.looked_after(*self.claims.left(self.path, actual)):
            self.wrong(word)
        self.claims.open.clear()
        sweep(self.path)
        own = {k: value for k, value in actual.items() if k.partition(":")[0] not in BESIDE}
        self.ledger.settle(own)

    def seen(self) -> State:
        """What is there; without the revision where that says nothing."""
        state = present(self.path)
        if not self.setup.strict:
            del state["revision"]
        return state

    def wrong(self, what: str) -> None:
        """Keep the first ten things that were wrong."""
        if len(self.tally.told) < 10:
            self.tally.told.append(f"kill {self.tally.kills}: {what}")


def require_sound(path: Path) -> None:
    """Raise DamagedGalleryError for a gallery that `verify` finds fault with."""
    problems = verify(path).problems
    if problems:
        raise DamagedGalleryError(" ".join(problems))


def killed(path: Path, setup: Setup, seed: int, delay: float) -> list[bytes]:
    """The lines of a program that was killed after a delay in seconds."""
    source, sink = os.pipe()
    child = os.fork()
    if not child:
        os.close(source)
        _play(path, setup, seed, sink)
    os.close(sink)
    said = _drain(source, time.monotonic() + delay)
    os.kill(child, signal.SIGKILL)
    said += _drain(source, None)
    os.close(source)
    os.waitpid(child, 0)
    return said.splitlines(keepends=True)


def _play(path: Path, setup: Setup, seed: int, sink: int) -> None:
    """The life of the child; it does not come back."""

    def say(what: Mapping[str, Any]) -> None:
        if not setup.strict and "put" in what:
            what["put"].pop("revision", None)  # type: ignore[union-attr]
        text = json.dumps(what).encode() + b"\n"
        while text:
            text = text[os.write(sink, text) :]

    gc.disable()  # it would copy all of the parent's memory
    try:
        inner: Store = SqliteStore(path)
        if setup.broken:
            inner = setup.broken(inner)
        program = Program(path, inner, Voice(say, early=setup.early), seed)
        while True:
            program.step()
    finally:  # whatever it was: the parent has to hear of it, and its own code must not run here
        say({"error": traceback.format_exc()[-600:]})
        os._exit(0)


def _drain(source: int, until: float | None) -> bytes:
    """Everything that comes from a pipe up to a moment, or to its end."""
    parts = []
    while True:
        wait = None if until is None else until - time.monotonic()
        if wait is not None and wait <= 0:
            break
        if not select.select([source], [], [], wait)[0]:
            break
        part = os.read(source, 1 << 20)
        if not part:
            if until is not None:
                time.sleep(max(until - time.monotonic(), 0))
            break
        parts.append(part)
    return b"".join(parts)


def shared(kills: int, seed: int, setup: Setup, jobs: int) -> Tally:
    """`run` in several processes at once, each with a gallery and a seed of its own."""
    parts = [kills // jobs + (job < kills % jobs) for job in range(jobs)]
    seeds = [int(one) for one in np.random.SeedSequence(seed).generate_state(jobs)]
    work = []
    for part, own in zip(parts, seeds, strict=True):
        source, sink = os.pipe()
        child = os.fork()
        if not child:
            _work(part, own, setup, sink)
        os.close(sink)
        work.append((child, source))
    total = Tally()
    for child, source in work:
        said = _drain(source, None)
        os.close(source)
        os.waitpid(child, 0)
        if not said:
            raise RuntimeError("a process of the harness ended without a result; see above")
        answer = json.loads(said)
        answer["during"] = Counter(answer["during"])
        total.add(Tally(**answer))
    return total


def _work(kills: int, seed: int, setup: Setup, sink: int) -> None:
    """A part of the kills in a process of its own."""
    try:
        tally = run(kills, seed, setup)
        answer = {name: getattr(tally, name) for name in (*COUNTED, "told")}
        answer["during"] = dict(tally.during)
        with open(sink, "w") as file:
            json.dump(answer, file)
    finally:
        if sys.exc_info()[0]:
            traceback.print_exc(file=sys.stderr)
        os._exit(0)


@contextmanager
def piecemeal_write(store: Store) -> Any:
    """A draft that is not one change: every call of it is committed on its own."""
    yield _Piecemeal(store)


class PiecemealStore:
    """A broken store: its drafts are kept piece by piece."""

    def __init__(self, store: Store) -> None:
        self._store, self.place = store, store.place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self) -> Any:
        return piecemeal_write(self._store)


class _Piecemeal:
    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        changes = name in ("put", "delete", "put_vectors", "next_id")

        def call(*given: Any, **named: Any) -> Any:
            with self._store.write() if changes else self._store.read() as view:
                return getattr(view, name)(*given, **named)

        return call

    @property
    def revision(self) -> int:
        with self._store.read() as view:
            return view.revision
