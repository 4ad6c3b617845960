"""Does a runtime compute right on this machine? Asked once, in a child process, and remembered.

A runtime can crash the process on a processor it was not tested on, or quietly compute with less
precision. The child runs every file of a model on `golden_input` and compares with the answer on
the card; its verdict is kept in FACENET_HOME/checks.
Run as `python -m facenet.models.selfcheck MODEL ENGINE DEVICE PRECISION HOME`.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from facenet.errors import EngineError, FacenetError, StorageError
from facenet.models.card import ModelCard
from facenet.models.engine import EngineSettings, golden_input, open_engine, relative_error
from facenet.models.home import cpu_name

TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}
"""Largest relative error to the golden answer, by precision."""

PATIENCE = 300
"""Seconds after which a child counts as hung."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a runtime may be used for a model, and why."""

    ok: bool
    reason: str


def check_answer(
    card: ModelCard, paths: Mapping[str, Path], settings: EngineSettings | None = None
) -> float:
    """Run the golden input through every file of a model that has a golden answer.

    Returns the largest relative error. Raises EngineError when it is over `TOLERANCE`.
    """
    settings = settings or EngineSettings(engine="onnxruntime", device="cpu")
    worst = 0.0
    for stem, path in paths.items():
        engine = open_engine(path, settings)
        golden = card.golden.get(stem)
        if golden is None:
            continue
        answer = engine.run({next(iter(engine.inputs)): golden_input(golden.shape)})
        got = np.concatenate([np.ravel(answer[name]) for name in golden.outputs])
        expected = np.concatenate([np.asarray(v, np.float32) for v in golden.outputs.values()])
        worst = max(worst, relative_error(got, expected))
    if worst > TOLERANCE[settings.precision]:
        raise EngineError(
            f"{settings.engine} answers {card.name} with a relative error of {worst:.2g}; at most "
            f"{TOLERANCE[settings.precision]:g} is right. Use another engine on this machine."
        )
    return worst


def remembered(card: ModelCard, settings: EngineSettings, home: Path) -> Verdict:
    """The verdict on a runtime for a model on this machine; the first time it is found out."""
    path = home / "checks" / f"{_key(card, settings)}.json"
    try:
        return Verdict(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        verdict = ask_child(card.name, settings, home)
    _remember(path, verdict)
    return verdict


def ask_child(name: str, settings: EngineSettings, home: Path) -> Verdict:
    """Run the check in a child process, so that a crash is an answer and not an end."""
    arguments = [name, settings.engine, str(settings.device), settings.precision, str(home)]
    command = [sys.executable, "-m", "facenet.models.selfcheck", *arguments]
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return Verdict(False, f"gave no answer within {PATIENCE} seconds")
    if child.returncode < 0:
        return Verdict(False, f"crashed with signal {-child.returncode}")
    lines = child.stdout.strip().splitlines()
    if child.returncode or not lines:
        tail = child.stderr.strip().splitlines()
        return Verdict(False, tail[-1] if tail else f"ended with {child.returncode}")
    return Verdict(**json.loads(lines[-1]))


def main(arguments: list[str]) -> int:
    """The child: print a verdict as one line of JSON."""
    from facenet.models.catalog import find_card
    from facenet.models.store import ModelStore

    name, engine, device, precision, home = arguments
    settings = EngineSettings(engine=engine, device=device, precision=precision)
    card = find_card(name, home=Path(home))
    try:
        error = check_answer(card, ModelStore(Path(home)).files(card), settings)
        verdict = Verdict(True, f"agrees with the golden answer to {error:.1e}")
    except FacenetError as failure:
        verdict = Verdict(False, str(failure))
    print(json.dumps(asdict(verdict)))
    return 0


def _key(card: ModelCard, settings: EngineSettings) -> str:
    try:
        runtime = version(settings.engine)
    except PackageNotFoundError:
        runtime = "none"
    terms = [
        cpu_name(),
        settings.engine,
        runtime,
        settings.device,
        settings.precision,
        card.name,
        card.source.sha256,
        [file.sha256 for file in card.files],
    ]
    return hashlib.sha256(json.dumps(terms).encode()).hexdigest()[:24]


def _remember(path: Path, verdict: Verdict) -> None:
    from facenet.models.store import write_text

    try:
        write_text(path, json.dumps(asdict(verdict)))
    except StorageError:
        return  # a read-only home: the check is done anew next time


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
