"""How far answers are apart: the numbers in loops, and what a card without an answer is told."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fakes import toy_card
from toy_models import DIMENSION, golden, linear, linear_card, model

from facenet.errors import EngineError
from facenet.models.card import Golden
from facenet.models.catalog import published
from facenet.models.engine import EngineSettings
from facenet.models.parity import (
    AT_IMPORT,
    AT_PRESENT,
    GOLDEN,
    NOTHING,
    REFERENCE,
    agreement,
    compare_answers,
)
from facenet.models.selfcheck import LEAST_COSINE, check_answer, judge
from facenet.models.store import ModelStore

DATA = linear().SerializeToString()
VINO = EngineSettings(engine="openvino", device="cpu")
BF16 = EngineSettings(engine="openvino", device="cpu", precision="bf16")


@pytest.fixture
def paths(tmp_path):
    path = tmp_path / "toy.onnx"
    path.write_bytes(DATA)
    return {"toy": path}


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def test_the_numbers_are_those_of_loops():
    random = np.random.default_rng(0)
    right = {name: random.standard_normal((3, 4)).astype(np.float32) for name in ("a", "b")}
    got = {
        name: (v + random.normal(0, 0.1, v.shape)).astype(np.float32) for name, v in right.items()
    }
    found = compare_answers({**got, "unasked": got["a"]}, right, against="it")
    pairs = [
        (float(x), float(y))
        for name in right
        for x, y in zip(got[name].ravel(), right[name].ravel(), strict=True)
    ]
    assert found.largest == pytest.approx(max(abs(x - y) for x, y in pairs))
    lengths = [
        math.sqrt(sum(v)) for v in zip(*(((x - y) ** 2, y**2) for x, y in pairs), strict=True)
    ]
    assert found.relative == pytest.approx(lengths[0] / lengths[1], rel=1e-6)
    assert (found.cosine, found.against) == (None, "it")
    one = {"a": right["a"]}
    rows = compare_answers(got, one, against="it", rows=3)
    least = min(cosine(map_row(x), map_row(y)) for x, y in zip(got["a"], right["a"], strict=True))
    assert rows.cosine == pytest.approx(least, abs=1e-12)


def map_row(row):
    return [float(value) for value in row]


def test_equal_vectors_have_the_cosine_one_and_scaled_ones_too():
    row = {"a": np.arange(1, 9, dtype=np.float32)[None]}
    same = compare_answers(row, row, against="", rows=1)
    assert (same.relative, same.largest, same.cosine) == (0, 0, pytest.approx(1, abs=1e-15))
    scaled = compare_answers({"a": 3 * row["a"]}, row, against="", rows=1)
    assert (scaled.largest, scaled.cosine) == (16, pytest.approx(1, abs=1e-15))


@pytest.mark.parametrize("got", [np.ones((1, 7)), np.full((1, 8), np.nan), np.full((1, 8), np.inf)])
def test_what_cannot_be_compared_is_infinitely_far(got):
    right = {"a": np.ones((1, 8), np.float32)}
    found = compare_answers({"a": got.astype(np.float32)}, right, against="", rows=1)
    assert (found.relative, found.largest, found.cosine) == (math.inf, math.inf, None)
    verdict = judge(toy_card(), found, VINO)
    assert (verdict.ok, verdict.difference, verdict.cosine) == (False, None, None)


@pytest.mark.parametrize("settings", [REFERENCE, VINO], ids=lambda s: s.engine)
def test_a_known_answer_is_what_counts(paths, settings):
    card = linear_card(DATA)
    found = agreement(card, paths, settings)
    assert found.against == AT_IMPORT
    assert 0 <= found.largest < 1e-5
    assert found.cosine == pytest.approx(1, abs=1e-10)
    shipped = replace(card, source=replace(card.source, type="builtin"))
    assert agreement(shipped, paths, settings).against == GOLDEN
    off = [value + 0.25 * (row == 3) for row, value in enumerate(golden().outputs["embedding"])]
    wrong = replace(card, golden={"toy": Golden(golden().shape, {"embedding": tuple(off)})})
    assert agreement(wrong, paths, settings).largest == pytest.approx(0.25, abs=1e-5)


def test_without_a_known_answer_the_engines_are_compared(paths):
    card = replace(linear_card(DATA), golden={})
    alone = agreement(card, paths, REFERENCE)
    assert (alone.relative, alone.largest, alone.cosine, alone.against) == (0, None, None, NOTHING)
    assert judge(card, alone, REFERENCE).reason == "runs; compared with " + NOTHING
    both = agreement(card, paths, VINO)
    assert both.against == AT_PRESENT
    assert 0 <= both.largest < 1e-5
    assert both.cosine == pytest.approx(1, abs=1e-10)
    assert "no golden answer" in judge(card, both, VINO).reason


def test_a_detector_without_a_known_answer_gets_a_picture_of_a_size_it_takes():
    card = replace(published()["mtcnn"], golden={})
    found = agreement(card, ModelStore().files(card), VINO)
    assert (found.against, found.cosine) == (AT_PRESENT, None)
    assert 0 < found.largest < 1e-4


def test_one_file_without_an_answer_is_said_of_the_whole():
    card = published()["mtcnn"]
    some = replace(card, golden={k: v for k, v in card.golden.items() if k != "rnet"})
    assert agreement(some, ModelStore().files(card), REFERENCE).against == NOTHING
    assert agreement(card, ModelStore().files(card), REFERENCE).against == GOLDEN


def test_an_answer_that_is_not_finite_is_wrong_without_a_known_one_too(tmp_path):
    from onnx import helper
    from toy_models import declare

    graph = model(
        [helper.make_node("Div", ["image", "zero"], ["embedding"])],
        [declare("image", 1, 3, 16, 16)],
        [declare("embedding", 1, 3, 16, 16)],
        {"zero": np.zeros(1, np.float32)},
    )
    (tmp_path / "toy.onnx").write_bytes(graph.SerializeToString())
    card = replace(linear_card(DATA), golden={})
    with pytest.raises(EngineError, match="relative error of inf"):
        check_answer(card, {"toy": tmp_path / "toy.onnx"})


def test_bf16_has_a_bar_of_its_own(paths):
    """A vector at the right angle passes, one beyond it does not, whatever its length."""
    right = np.zeros(DIMENSION)
    right[0] = 1.0
    for share, ok in ((LEAST_COSINE["bf16"] + 1e-5, True), (LEAST_COSINE["bf16"] - 1e-5, False)):
        got = np.zeros(DIMENSION)
        got[:2] = share, math.sqrt(1 - share**2)
        answers = ({"e": vector[None].astype(np.float32)} for vector in (got, right))
        found = compare_answers(*answers, against=GOLDEN, rows=1)
        assert found.relative < 5e-2
        verdict = judge(toy_card(), found, BF16)
        assert verdict.ok is ok
        assert verdict.cosine == pytest.approx(share, abs=1e-6)
        assert not judge(toy_card(), found, VINO).ok
    assert "at least 0.999 is right" in verdict.reason
