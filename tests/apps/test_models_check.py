"""`facenet models check` and `show`: parity of the engines, and cards in words."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
from fakes import toy_card, toy_fmr
from shell import refused, run
from toy_models import golden, linear

import facenet
from facenet.apps.jobs.cardtext import card_text, preprocess_words
from facenet.apps.jobs.modelroom import COLUMNS, RUNS, check_models
from facenet.faces.embed import STANDARDISE
from facenet.models import openvino
from facenet.models.card import CROPS, STANDARDISATIONS, Licence, Preprocess
from facenet.models.catalog import published
from facenet.models.engine import EngineSettings, golden_input, open_engine
from facenet.models.selfcheck import Verdict, ask_child

TOLD = ("--name", "own", "--crop", "margin_output", "--standardise", "fixed", "--size", 16)
KEYS = {"name", "engine", "precision", "largest_difference", "cosine", "ok", "reason"}


@pytest.fixture
def own(home, tmp_path):
    """A small embedder that was imported; gives its folder."""
    (tmp_path / "own.onnx").write_bytes(linear().SerializeToString())
    assert run("models", "import", tmp_path / "own.onnx", *TOLD).code == 0
    return home / "models/own"


def words(text):
    return " ".join(text.split())


def said_of(preprocess):
    return " ".join(preprocess_words(preprocess).values())


class Asked:
    """Stands in for the child: answers by engine and precision, and counts."""

    def __init__(self, **verdicts):
        self.verdicts, self.runs = verdicts, []

    def __call__(self, name, settings, home):
        assert settings.device == "cpu"
        self.runs.append((name, settings.engine, settings.precision))
        return self.verdicts.get(f"{settings.engine}_{settings.precision}", Verdict(True, "fine"))


# Parity


def test_every_engine_and_precision_is_measured(home):
    """The printed differences are those of the engines' answers, compared here in another way."""
    ran = run("models", "check", "mobilefacenet", "--json")
    rows = {(row["engine"], row["precision"]): row for row in ran.json}
    assert set(rows) == set(RUNS)
    assert all(set(row) > KEYS and row["name"] == "mobilefacenet" for row in ran.json)
    card = facenet.find_card("mobilefacenet")
    (path,) = facenet.ModelStore().files(card).values()
    (answer,) = card.golden.values()
    right = np.array(answer.outputs["embedding"])
    for (engine, precision), row in rows.items():
        if precision == "int8":
            assert row["ok"] is None
            assert "mobilefacenet has no 8-bit file on this machine" in row["reason"]
            continue
        if row["ok"] is None:
            assert row["reason"] == openvino.NO_BF16
            continue
        runtime = open_engine(path, EngineSettings(engine, "cpu", precision))
        got = runtime.run({"image": golden_input(answer.shape)})["embedding"][0].astype(float)
        difference = float(np.abs(got - right).max())
        assert row["largest_difference"] == pytest.approx(difference, rel=0.2, abs=2e-6)
        cosine = got @ right / np.linalg.norm(got) / np.linalg.norm(right)
        assert row["cosine"] == pytest.approx(cosine, abs=1e-6)
        assert row["cosine_distance"] == pytest.approx(1 - cosine, rel=0.2, abs=1e-9)
        assert row["ok"] is bool(cosine >= 0.999)
    assert ran.code == (2 if any(row["ok"] is False for row in ran.json) else 0)
    table = run("models", "check", "mobilefacenet").rows
    assert [(row["engine"], row["precision"]) for row in table] == list(rows)
    assert all(float(row["cosine_distance"]) < 1e-3 for row in table if row["ok"] == "True")


def test_a_detector_has_differences_and_no_cosine(home):
    ran = run("models", "check", "mtcnn", "--json")
    assert ran.code == 0
    assert [(row["engine"], row["precision"], row["ok"]) for row in ran.json] == [
        ("onnxruntime", "fp32", True),
        ("openvino", "fp32", True),
    ]
    assert all(0 <= row["largest_difference"] < 1e-4 for row in ran.json)
    assert all(row["cosine"] is row["cosine_distance"] is None for row in ran.json)


def test_without_names_it_is_every_model_that_is_here(own):
    ask = Asked()
    rows = check_models([], ask=ask)
    assert {row["name"] for row in rows} == {"mtcnn", "mobilefacenet", "own"}
    assert len(ask.runs) == len(set(ask.runs)) == 2 + 3 + 3
    assert len(rows) == 2 + 5 + 5  # those of int8 are told without being asked
    assert all(set(row) == {*COLUMNS, "cosine"} for row in rows)


def test_an_imported_model_is_held_to_what_it_said_at_import(own):
    ran = run("models", "check", "own", "--json")
    assert [row["ok"] for row in ran.json][:2] == [True, True]
    assert "agrees with onnxruntime's answer at import to " in ran.json[0]["reason"]


def test_a_card_without_an_answer_is_told_so_and_its_engines_compared(own):
    card = json.loads((own / "card.json").read_text())
    (own / "card.json").write_text(json.dumps({**card, "golden": {}}))
    rows = run("models", "check", "own", "--json").json
    assert rows[0]["reason"] == "runs; compared with nothing: there is no golden answer"
    assert rows[0]["largest_difference"] is None
    assert "agrees with onnxruntime's answer of now" in rows[1]["reason"]
    assert 0 <= rows[1]["largest_difference"] < 1e-4


def test_an_engine_that_is_wrong_fails_and_the_others_are_still_said(own):
    """Values within the cosine's bar, but not the length's: fp32 has to be exact."""
    card = json.loads((own / "card.json").read_text())
    values = card["golden"]["own"]["outputs"]["embedding"]
    assert values == pytest.approx(golden().outputs["embedding"], abs=1e-5)
    values[0] += 1.0
    (own / "card.json").write_text(json.dumps(card))
    ran = run("models", "check", "own", "mtcnn", "--json")
    assert ran.code == 2
    first = ran.json[0]
    assert (first["engine"], first["ok"]) == ("onnxruntime", False)
    assert first["largest_difference"] == pytest.approx(1.0, abs=1e-4)
    assert "with a relative error of" in first["reason"]
    assert [row["ok"] for row in ran.json if row["name"] == "mtcnn"] == [True, True]
    assert run("models", "check", "own").code == 2


def test_a_crash_of_an_engine_is_an_answer(home):
    """A child that dies as a runtime does on a processor it does not know."""
    code = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"

    def ask(name, settings, home):
        if settings.engine == "onnxruntime":
            return Verdict(True, "fine")
        return ask_child(name, settings, home, command=(sys.executable, "-c", code))

    rows = check_models(["mobilefacenet"], ask=ask)
    assert [row["ok"] for row in rows] == [True, False, False, None, None]
    assert rows[1]["reason"] == "crashed with SIGILL"


def test_what_this_machine_cannot_run_is_named_and_no_failure(home):
    rows = check_models(["mobilefacenet"], ask=Asked(), installed=lambda: False)
    assert [row["ok"] for row in rows] == [True, None, None, None, None]
    assert ["not installed here" in row["reason"] for row in rows[1:]] == [True, True, False, True]
    ask = Asked(openvino_bf16=Verdict(False, openvino.NO_BF16))
    rows = check_models(["mobilefacenet"], ask=ask)
    assert [row["ok"] for row in rows] == [True, True, None, None, None]
    assert "no bfloat16 arithmetic" in rows[2]["reason"]


def test_files_that_are_not_whole_are_one_row(own):
    (file,) = own.glob("*.onnx")
    file.write_bytes(file.read_bytes()[:-1])
    rows = run("models", "check", "own", "facenet-casia-webface", "--json").json
    assert [(row["name"], row["engine"], row["ok"]) for row in rows] == [
        ("own", None, False),
        ("facenet-casia-webface", None, False),
    ]
    assert "should have the SHA-256" in rows[0]["reason"]
    assert "facenet models pull" in rows[1]["reason"]
    assert "Did you mean mtcnn?" in refused("models", "check", "mtcn")


# Cards in words


def test_preprocessing_in_words_says_the_formula_and_the_crop():
    texts = {
        said_of(Preprocess(96, 112, crop, how, margin=20, color=color))
        for crop in CROPS
        for how in STANDARDISATIONS
        for color in ("rgb", "bgr")
    }
    assert len(texts) == len(CROPS) * len(STANDARDISATIONS) * 2
    assert all("96x112" in text for text in texts)
    said = said_of(Preprocess(160, 160, "margin_original", "fixed", margin=32))
    assert "16 pixels of the photo wider on each side" in said
    assert "red, green, blue" in said
    assert "blue, green, red" in said_of(Preprocess(160, 160, "similarity", "none", color="bgr"))


@pytest.mark.parametrize("name", ["fixed", "insightface"])
def test_the_formula_in_words_is_the_one_that_is_computed(name):
    said = said_of(Preprocess(16, 16, "similarity", name))
    low, scale = map(float, re.search(r"\(x - ([\d.]+)\) / ([\d.]+)\.", said).groups())
    x = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1)
    np.testing.assert_allclose(STANDARDISE[name](x), (x - low) / scale, atol=1e-6)


@pytest.mark.parametrize(
    ("commercial", "said"),
    [
        (True, "allows commercial use"),
        (False, "use non-commercial only"),
        (None, "whether commercial use is allowed is not stated"),
    ],
)
def test_what_the_weights_may_be_used_for_is_said(home, commercial, said):
    card = toy_card(licence=Licence("MIT", "a licence", commercial, "A remark."))
    text = words(card_text(card, home))
    assert said in text
    assert "code MIT; weights a licence. A remark." in text


def test_a_card_without_a_table_says_what_to_do(home):
    assert "FMR table none: measure your own with `facenet calibrate`" in words(
        card_text(toy_card(), home)
    )
    assert "FMR 0.001 at similarity 0.300" in words(card_text(toy_card(fmr=toy_fmr()), home))
    assert "FMR table" not in card_text(published()["mtcnn"], home)


def test_every_figure_of_a_published_card_names_crop_and_standardisation(home):
    for card in published().values():
        text = card_text(card, home)
        assert max(map(len, text.splitlines()[1:])) <= 100
        for figure in card.figures:
            preprocess = card.preprocess
            if preprocess is not None:  # of an embedder
                assert f"crop {preprocess.crop}" in figure.protocol
                assert f"standardise {preprocess.standardise}" in figure.protocol
            assert f"{figure.value:g} - {figure.origin}; {figure.protocol}" in words(text)


def test_the_models_that_can_be_obtained_have_a_table_and_a_measured_figure():
    for name in ("mobilefacenet", "facenet-casia-webface", "facenet-msceleb-20170512"):
        card = published()[name]
        assert card.fmr is not None and card.fmr.pairs > 80_000_000
        assert [f for f in card.figures if f.origin.startswith("measured")]
