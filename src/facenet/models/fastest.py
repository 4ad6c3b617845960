"""Which arithmetic is the fastest for a model on this machine: measured once, and remembered.

A child process runs those that compute right in turn, so that what else the machine does slows all
of them alike; the times are kept in FACENET_HOME/checks under processor, runtimes and files.
Run as `python -m facenet.models.fastest MODEL HOME SETTINGS`, the settings in JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from facenet.errors import EngineError, StorageError
from facenet.models import child
from facenet.models.card import ModelCard
from facenet.models.catalog import find_card
from facenet.models.engine import BATCHES, Engine, EngineSettings, golden_input, open_engine
from facenet.models.home import cpu_name
from facenet.models.quantised import as_quantised, require_quantised
from facenet.models.selfcheck import held, key_of, runtime_version
from facenet.models.store import ModelStore, write_text

ROUNDS = 9
"""Runs of each that are timed; the median counts."""
GAIN = 1.05
"""A less exact arithmetic has to be faster by this factor than a more exact one to be taken."""
CHILD = child.module("facenet.models.fastest")

Milliseconds = Mapping[str, tuple[float, float]]
"""Precision -> median of one face at a time, and of a batch of 16."""


@dataclass(frozen=True, slots=True)
class Times:
    """What was measured, or why nothing was. lasting: whether it is remembered."""

    milliseconds: Milliseconds
    problem: str = ""
    lasting: bool = True


Clock = Callable[[str, Path, Sequence[EngineSettings]], Times]
"""Times a model (name, home, settings of each precision); `time_in_child` is the one used."""


def remembered_times(
    card: ModelCard,
    home: Path,
    candidates: Sequence[EngineSettings],
    *,
    clock: Clock | None = None,
) -> Times:
    """The times of precisions for a model on this machine; the first time they are measured."""
    path = home / "checks" / f"{_key(card, home, candidates)}.json"
    times = _recall(path, candidates)
    if times is None:
        times = (clock or time_in_child)(card.name, home, candidates)
        if times.lasting:
            _remember(path, times)
    return times


def fastest(milliseconds: Milliseconds) -> str:
    """The precision with the shortest time of a batch; the exact ones come first in the mapping."""
    chosen, *others = milliseconds
    for precision in others:
        if milliseconds[precision][1] * GAIN < milliseconds[chosen][1]:
            chosen = precision
    return chosen


def in_words(milliseconds: Milliseconds) -> str:
    """How fast each precision is beside the first, the most exact one."""
    (first, (single, batch)), *others = milliseconds.items()
    return ", ".join(
        f"{name} is {batch / many:.2f} times as fast as {first} in batches of {BATCHES[-1]} and "
        f"{single / one:.2f} times one by one"
        for name, (one, many) in others
    )


def time_in_child(
    name: str,
    home: Path,
    candidates: Sequence[EngineSettings],
    *,
    command: Sequence[str] = CHILD,
    patience: float = child.PATIENCE,
) -> Times:
    """Measure in a child process, so that a crash is an answer and not an end."""
    asked = json.dumps([asdict(settings) for settings in candidates])
    told = child.ask(command, [name, str(home), asked], patience)
    for line in reversed(told.lines):
        if times := _parse(line, candidates):
            return times
    told = told if told.problem else child.no_answer()
    return Times({}, told.problem, told.lasting)


def measure(
    engines: Mapping[str, Engine],
    shape: tuple[int, ...],
    *,
    rounds: int = ROUNDS,
    now: Callable[[], float] = perf_counter,
) -> dict[str, tuple[float, float]]:
    """Median milliseconds of each engine, for one picture and for a batch of 16, taken in turn.

    shape: of a picture, (3, H, W).
    """
    taken: dict[tuple[str, int], list[float]] = {
        (name, count): [] for name in engines for count in BATCHES
    }
    for turn in range(rounds + 1):
        for (name, count), times in taken.items():
            ((entry, (fixed, *_)),) = engines[name].inputs.items()
            feed = {entry: golden_input((fixed or count, *shape))}
            start = now()
            for _ in range(-(-count // (fixed or count))):
                engines[name].run(feed)
            times += [now() - start] * (turn > 0)  # the first run makes what the others use
    one, many = BATCHES
    return {
        name: (1000 * median(taken[name, one]), 1000 * median(taken[name, many]))
        for name in engines
    }


def main(arguments: Sequence[str]) -> int:
    """The child: print the times as one line of JSON."""
    name, home, asked = arguments
    card, store = find_card(name, home=Path(home)), ModelStore(Path(home))
    try:
        engines = {}
        for settings in (EngineSettings(**each) for each in json.loads(asked)):
            paths = store.files(card)
            if settings.precision == "int8":
                paths = as_quantised(card, store)[1]
            (path,) = paths.values()
            engines[settings.precision] = open_engine(path, settings, batches=BATCHES)
        assert card.preprocess is not None  # of every embedder
        milliseconds = measure(engines, (3, card.preprocess.height, card.preprocess.width))
    except EngineError as failure:
        print(json.dumps({"problem": str(failure)}))
        return 0
    print(json.dumps({"milliseconds": milliseconds}))
    return 0


def _key(card: ModelCard, home: Path, candidates: Sequence[EngineSettings]) -> str:
    store = ModelStore(home)
    digests = store.digests(card)
    if any(settings.precision == "int8" for settings in candidates):
        digests |= {"int8": require_quantised(card, store).sha256}
    return key_of(
        [
            "times",
            cpu_name(),
            [[each.engine, runtime_version(each.engine), each.precision] for each in candidates],
            candidates[0].threads,
            card.name,
            digests,
            *held(candidates[0]),
        ]
    )


def _parse(text: str, candidates: Sequence[EngineSettings]) -> Times | None:
    """Times of exactly these candidates, or why there are none; None for other text."""
    try:
        data = json.loads(text)
    except ValueError:
        return None
    if not isinstance(data, dict):
        return None
    if isinstance(data.get("problem"), str):
        return Times({}, data["problem"])
    found = data.get("milliseconds")
    names = [settings.precision for settings in candidates]
    if not isinstance(found, dict) or sorted(found) != sorted(names):
        return None
    if not all(_is_pair(pair) for pair in found.values()):
        return None
    return Times({name: (float(found[name][0]), float(found[name][1])) for name in names})


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == len(BATCHES)
        and all(type(each) in (int, float) and isfinite(each) and each > 0 for each in value)
    )


def _recall(path: Path, candidates: Sequence[EngineSettings]) -> Times | None:
    try:
        return _parse(path.read_text("utf-8"), candidates)
    except (OSError, ValueError):
        return None


def _remember(path: Path, times: Times) -> None:
    milliseconds = times.milliseconds
    if milliseconds:
        choice = fastest(milliseconds)
        exact = next(iter(milliseconds.values()))[1]
        ratios = {name: exact / batch for name, (_, batch) in milliseconds.items()}
        data: dict[str, Any] = {"choice": choice, "ratios": ratios, "milliseconds": milliseconds}
    else:
        data = {"problem": times.problem}
    try:
        write_text(path, json.dumps(data))
    except StorageError:
        return  # a read-only home: measured anew next time


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
