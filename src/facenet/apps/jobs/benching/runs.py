"""Measuring in turn: ours, each peer, ours again, so that a noisy machine slows all of them alike.

What is measured is a plan; a group of plans shares one process of each system, so that its peak
memory is that of the group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from facenet.apps.jobs.benching.link import OURS, Answer, Opening, System
from facenet.apps.jobs.benching.rows import Row, quantity, timed
from facenet.errors import InputError

LONG_PARTS = 20
"""Parts of a long run, after each of which memory is looked at."""
LEAST_FOR_SLOPE = 2000
"""Items from which on a slope of memory is more than noise."""
SETTLED = 1 / 3
"""Share of a long run that does not count for the slope."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One measurement. name, unit: of its rows; a unit that ends with /s is a rate, "ms" a time.

    task: what facenet prepares, see `ours`. peers: the same for each peer, see `worker`. parts:
    what each run gets, the first of them also the warm-up. faces: how many there should be.
    called: what a note calls it that several plans may share, by default its name.
    """

    name: str
    unit: str
    task: Mapping[str, Any]
    peers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parts: Sequence[Any] = (None,) * 5
    faces: int | None = None
    called: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a plan: the answers of facenet's runs and of each peer's, and facts."""

    plan: Plan
    ours: Sequence[Answer]
    peers: Mapping[str, Sequence[Answer]]
    facts: Mapping[str, Any]

    def rows(self) -> list[Row]:
        """A row for each peer, or one without."""
        name, unit = self.plan.name, self.plan.unit
        rows = [timed(name, unit, self.ours, peer, them) for peer, them in self.peers.items()]
        return rows or [timed(name, unit, self.ours)]

    def seconds_an_item(self) -> float:
        """The median over the runs."""
        return float(timed(self.plan.name, "s", self.ours)["median"])


class Ledger:
    """What is told besides rows: sentences, each once, and the versions of peers.

    done: is told the name of every finished plan. asked: peers that some plan had a task for.
    """

    def __init__(self, done: Callable[[str], None] = lambda name: None) -> None:
        self.done = done
        self.asked: set[str] = set()
        self.versions: dict[str, dict[str, str]] = {}
        self._notes: dict[str, None] = {}

    def note(self, text: str) -> None:
        """Keep a sentence."""
        self._notes[text] = None

    @property
    def notes(self) -> list[str]:
        """The sentences, in the order in which they came first."""
        return list(self._notes)


class Runs:
    """Runs plans. opening: opens the systems. threads: how many each may keep busy."""

    def __init__(self, opening: Opening, threads: int, ledger: Ledger) -> None:
        self._opening, self._threads, self._ledger = opening, threads, ledger

    def measure(self, plans: Sequence[Plan]) -> Iterator[Outcome]:
        """The outcomes of a group, in order; of plans that facenet cannot run there is a note."""
        with ExitStack() as stack:
            systems: dict[str, System] = {}
            for plan in plans:
                self._ledger.asked.update(plan.peers)
                for name in (OURS, *plan.peers):
                    if name not in systems:
                        systems[name] = self._opening(name, self._threads)
                        stack.callback(systems[name].close)
                outcome = self._one(plan, systems)
                self._ledger.done(plan.name)
                if outcome is not None:
                    yield outcome

    def _one(self, plan: Plan, systems: Mapping[str, System]) -> Outcome | None:
        facts = self._ready(OURS, plan, plan.task, systems)
        if facts is None:
            return None
        peers = [p for p in plan.peers if self._ready(p, plan, plan.peers[p], systems) is not None]
        answers: dict[str, list[Answer]] = {name: [] for name in (OURS, *peers)}
        for part in plan.parts:
            for name in list(answers):
                answer = systems[name].ask({"run": part})
                if "missing" in answer:
                    self._tell(name, plan, answer)
                    del answers[name]
                else:
                    answers[name].append(answer)
            if OURS not in answers:
                return None
        ours = answers.pop(OURS)
        self._check_faces(plan, ours)
        return Outcome(plan, ours, answers, facts)

    def _ready(
        self, name: str, plan: Plan, task: Mapping[str, Any], systems: Mapping[str, System]
    ) -> Mapping[str, Any] | None:
        """Prepare a system and run it once unmeasured: its facts, or None where it cannot."""
        answer = systems[name].ask({"prepare": task})
        if "missing" not in answer:
            facts: Mapping[str, Any] = answer.get("ready", {})
            answer = systems[name].ask({"run": plan.parts[0]})
            if "missing" not in answer:
                for sentence in facts.get("notes", ()):
                    self._ledger.note(str(sentence)[:300])
                if name != OURS:
                    self._ledger.versions[name] = _plain(facts)
                return facts
        self._tell(name, plan, answer)
        return None

    def _tell(self, name: str, plan: Plan, answer: Answer) -> None:
        why = str(answer["missing"])[:400]
        self._ledger.note(
            f"{plan.called or plan.name} was not measured: {why}" if name == OURS else why
        )

    def _check_faces(self, plan: Plan, ours: Sequence[Answer]) -> None:
        found = ours[-1].get("faces")
        if plan.faces is not None and found != plan.faces:
            self._ledger.note(
                f"{plan.name} was measured with {found} faces, as many as were found."
            )


def _plain(facts: Mapping[str, Any]) -> dict[str, str]:
    """The versions among the facts of a peer."""
    found = facts.get("versions")
    versions = (
        {str(k)[:40]: str(v)[:40] for k, v in found.items()} if isinstance(found, dict) else {}
    )
    return {**versions, "python": str(facts["python"])[:40]} if "python" in facts else versions


def memory_rows(name: str, outcomes: Sequence[Outcome]) -> list[Row]:
    """Rows of the most memory that the processes of a group held; none where it is not told."""
    most: dict[str, float] = {}
    for outcome in outcomes:
        for system, answers in ((OURS, outcome.ours), *outcome.peers.items()):
            for answer in answers:
                if isinstance(answer.get("peak"), float):
                    most[system] = max(most.get(system, 0.0), answer["peak"])
    ours = most.pop(OURS, None)
    if ours is None:
        return []
    rows = [quantity(f"{name}/memory", "MB", ours, peer, value) for peer, value in most.items()]
    return rows or [quantity(f"{name}/memory", "MB", ours)]


def growth_rows(
    name: str, items: str, outcome: Outcome, note: Callable[[str], None]
) -> Iterator[Row]:
    """Rows of a run as long as `LONG_PARTS`: its growth over the last two thirds, MB per 10,000
    items, and what is held at its end."""
    held = [answer.get("held") for answer in outcome.ours]
    done = np.cumsum([answer["items"] for answer in outcome.ours])
    if done[-1] < LEAST_FOR_SLOPE or None in held:
        note(f"{name}/memory_slope needs {LEAST_FOR_SLOPE:,} {items} or more.")
        return
    kept = done > done[-1] * SETTLED
    slope = np.polyfit(done[kept], np.array(held, np.float64)[kept], 1)[0]
    yield quantity(f"{name}/memory_slope", f"MB/10,000 {items}", float(1e4 * slope))
    yield quantity(f"{name}/memory_held", "MB", float(held[-1] or 0))


def require_rows(rows: Sequence[Row], notes: Sequence[str]) -> None:
    """Raise InputError with the first note when nothing was measured."""
    if not rows:
        raise InputError(notes[0] if notes else "Nothing was measured.")
