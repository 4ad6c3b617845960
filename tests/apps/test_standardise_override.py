"""`--standardise`: a model fed otherwise than its card says, and answers that say so."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import ToyEngine, toy_card, toy_fmr
from miniature import toy, write_people
from shell import refused, run

import facenet
from facenet.errors import SettingsError
from facenet.faces.embed import STANDARDISE, Embedder
from facenet.models.card import STANDARDISATIONS

TABLE = Path(__file__).resolve().parents[2] / "scripts/standardisations.py"
WRONG = sorted({*STANDARDISATIONS} - {"fixed"})


def crops(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", WRONG)
def test_the_network_is_fed_otherwise_and_has_a_space_of_its_own(name):
    engine, card = ToyEngine(), toy_card(fmr=toy_fmr())
    own = Embedder(card, engine)
    other = own.with_standardise(name)
    values = STANDARDISE[name](crops().astype(np.float32)).transpose(0, 3, 1, 2).reshape(5, -1)
    expected = values.astype(np.float64) @ engine.projection
    np.testing.assert_allclose(other.outputs(crops()), expected, rtol=1e-4, atol=1e-2)
    told = replace(card, preprocess=replace(card.preprocess, standardise=name))
    assert other.contract == told.contract != own.contract
    assert (other.overridden, other.title) == ("fixed", f"toy standardised {name}")
    assert (own.overridden, own.title) == (None, "toy")
    assert other.card.fmr is None and other.card.figures == card.figures
    back = other.with_standardise("fixed")
    assert (back.card, back.overridden, back.title) == (card, None, "toy")
    with pytest.raises(SettingsError, match="standardise should be one of fixed, per_image"):
        own.with_standardise("prewhiten")


def test_a_recognizer_leaves_its_model_as_it_is_and_its_calibration_behind(home):
    own = toy(fmr=toy_fmr())
    other = own.with_standardise("none")
    assert own.embedder.overridden is None
    assert other.detector is own.detector
    assert other.calibration is None
    with pytest.raises(SettingsError, match="no table of false-match rates"):
        other.threshold()
    assert own.with_standardise("fixed").threshold().similarity == own.threshold().similarity


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """All four standardisations of the built-in model on the same pairs, as printed."""
    root = tmp_path_factory.mktemp("standardise")
    write_people(root / "people", 8)
    ran = run(
        *("evaluate", "folder", root / "people", "--replicates", 100, "--json"),
        *("--standardise", "none,fixed,per-image,insightface,none"),
    )
    assert ran.code == 0
    return ran.json


def test_each_standardisation_is_a_model_of_its_own_on_the_same_pairs(answers):
    models = {model["model"]: model for model in answers["models"]}
    own = models.pop("mobilefacenet")
    assert list(models) == [
        f"mobilefacenet standardised {name}" for name in ("none", "per_image", "insightface")
    ]
    assert own["overridden"] is None
    assert not any("An experiment" in note for note in own["notes"])
    assert own["contract"] == facenet.find_card("mobilefacenet").contract
    contracts = {own["contract"]}
    for model in models.values():
        name = model["preprocess"]["standardise"]
        assert model["overridden"] == {"standardise": "fixed"}
        assert model["notes"][0] == (
            f"An experiment: standardise {name} was asked for, and the card of mobilefacenet says "
            "fixed."
        )
        assert model["protocol"].endswith(f"standardise {name}")
        assert model["digests"] == own["digests"]
        contracts.add(model["contract"])
    assert len(contracts) == 4
    assert models["mobilefacenet standardised none"]["auc"] < own["auc"] - 0.05


def test_what_is_not_overridden_is_what_it_was(tmp_path):
    write_people(tmp_path / "people", 4)
    folder = ("evaluate", "folder", tmp_path / "people", "--replicates", 100, "--json")
    plain, same = run(*folder).json, run(*folder, "--standardise", "fixed").json
    for answer in (plain, same):
        del answer["seconds"], answer["remembered"]
    assert plain == same
    assert run(*folder, "--standardise", "fixed").json["remembered"] == 16
    said = refused(*folder[:-1], "--standardise", "fixed,")
    assert said.startswith("standardise should be one of fixed, per_image, insightface, none")


def test_the_table_is_made_of_the_answers(answers, tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps(answers))
    for model in answers["models"]:
        model["tar_at_far"]["1e-3"] = {"tar": 0.5}
        model["published"] = 0.99
    (tmp_path / "a.json").write_text(json.dumps(answers))
    main = runpy.run_path(str(TABLE))["main"]
    assert main([str(tmp_path / "a.json")]) == 0
    head, line, *rows = capsys.readouterr().out.splitlines()
    assert head.count("|") == line.count("|") == 8
    assert [row.split(" | ")[2] for row in rows] == [
        "fixed (card)",
        "none",
        "per_image",
        "insightface",
    ]
    models = {model["preprocess"]["standardise"]: model for model in answers["models"]}
    right = models["fixed"]["accuracy"]
    for row in rows[1:]:
        cells = row.split(" | ")
        lost, low, high = (float(part.strip("[], ")) for part in cells[4].split())
        assert lost == pytest.approx(right - models[cells[2]]["accuracy"], abs=1e-4)
        assert low <= lost <= high
        assert cells[6].strip(" |") == ""
    assert rows[0].split(" | ")[6].strip(" |") == "0.99"
