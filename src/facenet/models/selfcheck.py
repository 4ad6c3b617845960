"""Does a runtime compute right on this machine? Asked once, in a child process, and remembered.

A runtime can crash the process on a processor it was not tested on, or quietly compute with less
precision. The child runs every file of a model on `golden_input` and compares with the answer on
the card, an 8-bit file with the answer on its own record; the verdict is kept in
FACENET_HOME/checks.
Run as `python -m facenet.models.selfcheck MODEL ENGINE DEVICE PRECISION INSTRUCTIONS HOME`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import Any

from facenet.errors import EngineError, StorageError
from facenet.models import child
from facenet.models.card import ModelCard
from facenet.models.catalog import find_card
from facenet.models.engine import EngineSettings
from facenet.models.home import cpu_name
from facenet.models.openvino import LIMIT
from facenet.models.parity import REFERENCE, Agreement, agreement
from facenet.models.quantised import as_quantised, require_quantised
from facenet.models.store import ModelStore, write_text

TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2, "int8": 0.15}
"""Largest relative error to the golden answer, by precision."""

LEAST_COSINE = {"fp32": -1.0, "bf16": 0.999, "int8": 0.99}
"""Least cosine of an embedder's vector and the golden one, by precision."""

CHILD = child.module("facenet.models.selfcheck")
"""The command of the child, without its arguments."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a runtime may be used for a model, and why.

    lasting: whether the answer would be the same the next time, so that it is remembered.
    difference: the largest to the right answer, absolute. cosine: of an embedder's vector and the
    right one. Both are None where they are not known, and where the verdict was remembered.
    """

    ok: bool
    reason: str
    lasting: bool = True
    difference: float | None = None
    cosine: float | None = None


Ask = Callable[[str, EngineSettings, Path], Verdict]
"""Finds out about a model (name, settings, home); `ask_child` is the one that is used."""


def check_answer(
    card: ModelCard, paths: Mapping[str, Path], settings: EngineSettings | None = None
) -> float:
    """Run the golden input through every file of a model.

    Returns the largest relative error. Raises EngineError when it is over `TOLERANCE`, or a cosine
    below `LEAST_COSINE`.
    """
    settings = settings or REFERENCE
    found = agreement(card, paths, settings)
    verdict = judge(card, found, settings)
    if not verdict.ok:
        raise EngineError(verdict.reason)
    return found.relative


def judge(card: ModelCard, found: Agreement, settings: EngineSettings) -> Verdict:
    """Whether a runtime computes right, from how far its answers are from the right ones."""
    wrong = _wrong(card, found, settings)
    reason = wrong or f"agrees with {found.against} to {found.relative:.1e}"
    if found.largest is None and not wrong:
        reason = f"runs; compared with {found.against}"
    known = found.largest is not None and isfinite(found.largest)
    difference = found.largest if known else None
    return Verdict(not wrong, reason, difference=difference, cosine=found.cosine)


def _wrong(card: ModelCard, found: Agreement, settings: EngineSettings) -> str:
    """What is wrong with the answers, "" for nothing."""
    most, least = TOLERANCE[settings.precision], LEAST_COSINE[settings.precision]
    if not found.relative <= most:
        return (
            f"{settings.engine} answers {card.name} with a relative error of {found.relative:.2g}; "
            f"at most {most:g} is right. Use another engine on this machine."
        )
    if found.cosine is not None and not found.cosine >= least:
        return (
            f"{settings.engine} answers {card.name} with a vector of the cosine {found.cosine:.6f} "
            f"to the right one; at least {least:g} is right. Use another engine or precision."
        )
    return ""


def remembered(
    card: ModelCard, settings: EngineSettings, home: Path, *, ask: Ask | None = None
) -> Verdict:
    """The verdict on a runtime for a model on this machine; the first time it is found out.

    ask: who finds out, by default `ask_child`. A verdict that need not last is not kept.
    """
    path = home / "checks" / f"{_key(card, settings, home)}.json"
    return kept(path, lambda: (ask or ask_child)(card.name, settings, home))


def kept(path: Path, find: Callable[[], Verdict]) -> Verdict:
    """The verdict in a file; the first time it is found out, and written there if it lasts."""
    verdict = _recall(path)
    if verdict is None:
        verdict = find()
        if verdict.lasting:
            _remember(path, verdict)
    return verdict


def ask_child(
    name: str,
    settings: EngineSettings,
    home: Path,
    *,
    command: Sequence[str] = CHILD,
    patience: float = child.PATIENCE,
) -> Verdict:
    """Run the check in a child process, so that a crash is an answer and not an end.

    command: the child, without its arguments. patience: seconds it has.
    """
    terms = (settings.engine, str(settings.device), settings.precision, settings.instructions)
    return asked(command, [name, *terms, str(home)], patience)


def asked(
    command: Sequence[str], arguments: Sequence[str], patience: float = child.PATIENCE
) -> Verdict:
    """The verdict that a child process prints; a crash of it is one too."""
    told = child.ask(command, arguments, patience)
    for line in reversed(told.lines):
        if verdict := _parse(line):
            return verdict
    told = told if told.problem else child.no_answer()
    return Verdict(False, told.problem, told.lasting)


def main(arguments: Sequence[str]) -> int:
    """The child: print a verdict as one line of JSON."""
    name, engine, device, precision, instructions, home = arguments
    settings = EngineSettings(engine, device, precision, instructions=instructions)
    card, store = find_card(name, home=Path(home)), ModelStore(Path(home))
    paths = store.files(card)
    try:
        if precision == "int8":
            card, paths = as_quantised(card, store)
        verdict = judge(card, agreement(card, paths, settings), settings)
    except EngineError as failure:
        verdict = Verdict(False, str(failure))
    print(json.dumps(asdict(verdict)))
    return 0


def _key(card: ModelCard, settings: EngineSettings, home: Path) -> str:
    """Changes with all that the verdict rests on: processor, runtime, precision, files, answer."""
    store = ModelStore(home)
    digests = store.digests(card)
    if settings.precision == "int8":
        digests |= {"int8": require_quantised(card, store).sha256}
    terms = [
        cpu_name(),
        settings.engine,
        runtime_version(settings.engine),
        settings.device,
        settings.precision,
        card.name,
        digests,
        {stem: asdict(golden) for stem, golden in card.golden.items()},
        *held(settings),
    ]
    return key_of(terms)


def key_of(terms: Sequence[Any]) -> str:
    """A name for what was found out under these terms."""
    return hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()[:24]


def runtime_version(engine: str) -> str:
    """Version of a runtime's package, "none" where it is not installed."""
    try:
        return version(engine)
    except PackageNotFoundError:
        return "none"


def held(settings: EngineSettings) -> list[str]:
    """To which instructions OpenVINO is held, by the settings or by whoever set the variable."""
    if settings.instructions != "auto":
        return [settings.instructions]
    return [limit] if (limit := os.environ.get(LIMIT)) else []


def _parse(text: str) -> Verdict | None:
    try:
        data = json.loads(text)
    except ValueError:
        return None
    if not isinstance(data, dict) or not isinstance(data.get("ok"), bool):
        return None
    difference, cosine = (_number(data.get(name)) for name in ("difference", "cosine"))
    reason = str(data.get("reason", ""))
    return Verdict(data["ok"], reason, difference=difference, cosine=cosine)


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and isfinite(value) else None


def _recall(path: Path) -> Verdict | None:
    try:
        return _parse(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _remember(path: Path, verdict: Verdict) -> None:
    try:
        write_text(path, json.dumps({"ok": verdict.ok, "reason": verdict.reason}))
    except StorageError:
        return  # a read-only home: the check is done anew next time


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
