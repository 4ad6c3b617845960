"""What a gallery should hold, by what the program that wrote it said before and after each change.

A change that was acknowledged has to be there; one that was begun and not acknowledged may be
there whole or not at all; nothing else may. As several changes can be open at once (a program that
was killed, and the next one too), every state that is still possible is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from facenet.gallery.records import (
    Apart,
    Crop,
    EnrolledFace,
    Entry,
    Person,
    Ruling,
    Setting,
    Space,
)
from facenet.gallery.store import View

KINDS = (Person, EnrolledFace, Crop, Ruling, Apart, Space, Entry, Setting)
State = dict[str, str]
"""Name of a row, of a vector or `revision` -> digest of what it holds."""


@dataclass(frozen=True, slots=True)
class Change:
    """A draft: rows that it puts, as name -> digest, and names of rows that it removes."""

    put: Mapping[str, str]
    gone: tuple[str, ...] = ()

    def after(self, state: State) -> State:
        """The state that it makes of another."""
        kept = {name: value for name, value in state.items() if name not in self.gone}
        return {**kept, **self.put}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gallery lacks of what was acknowledged, and what it has that never was begun."""

    lost: tuple[str, ...]
    phantom: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.lost) + len(self.phantom)


@dataclass(slots=True)
class Ledger:
    """The states that are possible. open: changes begun and not acknowledged, by number. last:
    the highest number a face ever had."""

    states: list[State]
    open: dict[int, Change] = field(default_factory=dict)
    last: int = 0
    reused: list[str] = field(default_factory=list)

    def read(self, lines: Iterable[bytes]) -> int:
        """Take in what a program said, its last words perhaps cut off; how many were acks."""
        acks = 0
        for line in lines:
            if not line.endswith(b"\n"):
                continue
            told = json.loads(line)
            if "begin" in told:
                self._begin(told["begin"], Change(told["put"], tuple(told["gone"])))
                for face in told["new"]:
                    if face <= self.last:
                        self.reused.append(f"number {face} given out twice")
            elif "ack" in told:
                acks += 1
                self._acknowledge(told["ack"])
        return acks

    def judge(self, actual: State) -> Verdict:
        """Compare with what is there, with the possible state that is nearest to it."""
        possible = list(self.states)
        for change in self.open.values():
            possible += [change.after(state) for state in possible]
        verdicts = (compare(state, actual) for state in possible)
        best = min(verdicts, key=len)
        return Verdict(best.lost, (*best.phantom, *self.reused))

    def settle(self, actual: State) -> None:
        """From now on this is what is there."""
        self.states, self.open, self.reused = [actual], {}, []

    def interrupted(self) -> None:
        """The program is gone: what it left open is now settled, but nobody has looked."""
        for change in self.open.values():
            self.states += [change.after(state) for state in self.states]
        self.open = {}

    def _begin(self, number: int, change: Change) -> None:
        self.open[number] = change

    def _acknowledge(self, number: int) -> None:
        change = self.open.pop(number)
        self.states = [change.after(state) for state in self.states]
        faces = [int(name[5:]) for name in change.put if name.startswith("face:")]
        self.last = max([self.last, *faces])


def compare(expected: State, actual: State) -> Verdict:
    """What is not as expected; a row with another content is both lost and a phantom."""
    lost = tuple(name for name, value in expected.items() if actual.get(name) != value)
    phantom = tuple(name for name, value in actual.items() if expected.get(name) != value)
    return Verdict(lost, phantom)


def contents(view: View) -> State:
    """Everything a gallery holds."""
    state = {"revision": str(view.revision)}
    for kind in KINDS:
        for row in view.find(kind):
            state[f"{kind.kind}:{row.key}"] = digest(row)
    for space in view.find(Space):
        block = view.vectors(space.contract)
        for face, row in zip(block.ids.tolist(), block.rows, strict=True):
            state[f"vector:{space.contract}:{face}"] = vector_digest(row)
    return state


def digest(row: Any) -> str:
    """What tells a row from one with another content."""
    values = [getattr(row, name) for name in row.__slots__]
    text = json.dumps(values, sort_keys=True, default=lambda value: value.hex())
    return blake2b(text.encode(), digest_size=8).hexdigest()


def vector_digest(row: Any) -> str:
    """What tells a vector, float32 (d,), from another."""
    return blake2b(row.tobytes(), digest_size=8).hexdigest()
