"""How far the answers of a runtime are from the right ones, in the numbers that one reads.

A card holds the answer to a known input (`golden_input`) for each file: of a published model made
on the reference machine, of an imported one by ONNX Runtime when it was imported, of an 8-bit file
by the runtime that it was measured with. Where a card has none, the runtimes are compared with one
another: with what ONNX Runtime says now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facenet.errors import EngineError
from facenet.models.card import Golden, ModelCard
from facenet.models.engine import Engine, EngineSettings, golden_input, open_engine, relative_error

GOLDEN = "the golden answer"
AT_IMPORT = "onnxruntime's answer at import"
WHEN_MADE = "its own answer when it was made 8-bit"
AT_PRESENT = "onnxruntime's answer of now (there is no golden answer)"
NOTHING = "nothing: there is no golden answer"

REFERENCE = EngineSettings(engine="onnxruntime", device="cpu")
"""Whose answers count where a card has none."""
FREE_SIDE = 128
"""Side of the known input where neither the graph nor the card says one."""

Outputs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two answers to one input.

    relative: length of the difference over the length of the right answer. largest: absolute
    difference of two values, None where there was nothing to compare with. Both are infinite for
    answers of two shapes and for values that are not finite. cosine: of an embedder's two vectors,
    the lowest of the input's rows. against: whose answer counted as right.
    """

    relative: float
    largest: float | None
    cosine: float | None
    against: str


def agreement(card: ModelCard, paths: Mapping[str, Path], settings: EngineSettings) -> Agreement:
    """Run the known input through every file of a model; the worst that was found.

    paths: file name without ending -> path. Raises EngineError when a file does not load or run,
    or lacks an output that its card names.
    """
    found = [_of_file(card, stem, path, settings) for stem, path in paths.items()]
    largest = [each.largest for each in found if each.largest is not None]
    cosines = [each.cosine for each in found if each.cosine is not None]
    weakest = max(
        (each.against for each in found),
        key=(GOLDEN, AT_IMPORT, WHEN_MADE, AT_PRESENT, NOTHING).index,
    )
    return Agreement(
        max(each.relative for each in found),
        max(largest, default=None),
        min(cosines, default=None),
        weakest,
    )


def compare_answers(
    got: Outputs, expected: Outputs, *, against: str, rows: int | None = None
) -> Agreement:
    """The differences of two answers, arrays by output name; those of `expected` count.

    rows: number of vectors that an embedder's only output holds, None for other models.
    """
    ours, right = (
        np.concatenate([np.ravel(part[name]).astype(np.float64) for name in expected])
        for part in (got, expected)
    )
    whole = ours.shape == right.shape and bool(np.all(np.isfinite(ours)))
    return Agreement(
        relative_error(ours.astype(np.float32), right.astype(np.float32)),
        float(np.max(np.abs(ours - right), initial=0)) if whole else float("inf"),
        _lowest_cosine(ours.reshape(rows, -1), right.reshape(rows, -1)) if rows and whole else None,
        against,
    )


def _lowest_cosine(ours: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(right, axis=1)
    return float(np.min(np.sum(ours * right, axis=1) / np.maximum(lengths, 1e-300)))


def _of_file(card: ModelCard, stem: str, path: Path, settings: EngineSettings) -> Agreement:
    engine, golden = open_engine(path, settings), card.golden.get(stem)
    shape = golden.shape if golden else _shape(engine, card)
    answer = _answer(engine, shape)
    rows = shape[0] if card.kind == "embedder" else None
    if golden:
        against = AT_IMPORT if card.source.type == "file" else GOLDEN
        against = WHEN_MADE if settings.precision == "int8" else against
        return compare_answers(
            _named(answer, golden, path), _arrays(golden), against=against, rows=rows
        )
    if settings.engine == REFERENCE.engine:
        finite = all(np.all(np.isfinite(values)) for values in answer.values())
        return Agreement(0.0 if finite else float("inf"), None, None, NOTHING)
    expected = _answer(open_engine(path, REFERENCE), shape)
    return compare_answers(answer, expected, against=AT_PRESENT, rows=rows)


def _answer(engine: Engine, shape: tuple[int, ...]) -> Outputs:
    return engine.run({next(iter(engine.inputs)): golden_input(shape)})


def _arrays(golden: Golden) -> Outputs:
    return {name: np.asarray(values, np.float32) for name, values in golden.outputs.items()}


def _named(answer: Outputs, golden: Golden, path: Path) -> Outputs:
    """An answer that has every output of the golden one."""
    missing = sorted(set(golden.outputs) - set(answer))
    if missing:
        raise EngineError(
            f"{path.name} should have the outputs {', '.join(golden.outputs)}; "
            f"{', '.join(missing)} is not among them. The file does not fit its card."
        )
    return answer


def _shape(engine: Engine, card: ModelCard) -> tuple[int, ...]:
    """Sides of the known input of a file whose card has no golden answer: one picture."""
    preprocess = card.preprocess
    height, width = (preprocess.height, preprocess.width) if preprocess else (FREE_SIDE, FREE_SIDE)
    sides = next(iter(engine.inputs.values()))
    usual = (1, 3, height, width)
    return tuple(
        side or (usual[axis] if axis < len(usual) else 1) for axis, side in enumerate(sides)
    )
