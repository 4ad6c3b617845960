"""`facenet export`: from a run's folder to a model that other commands use."""

import json
from dataclasses import asdict

import pytest
import torch
from fakes import toy_fmr
from shell import environment, process, refused, run

from facenet.apps.jobs.exporting import export_run
from facenet.errors import ModelFileError
from facenet.models.catalog import find_card
from facenet.train.backbones import build_backbone
from facenet.train.backbones.smallnet import SmallNetSettings
from facenet.train.checkpoint import save_checkpoint
from facenet.train.weights import load_network

FACTS = {
    "backbone": "smallnet",
    "backbone_settings": {"embedding_size": 8, "width": 4, "input_size": 32},
    "embedding_size": 8,
    "preprocess": {"width": 32, "height": 32, "crop": "margin_output", "standardise": "fixed"},
    "licence": {"code": "MIT", "weights": "unknown", "commercial": None, "note": ""},
    "training_data": "toy: 8 pictures of 2 people",
}
JUDGED = {
    "step": 3,
    "figures": [{"name": "toy accuracy", "value": 0.75, "origin": "step 3", "protocol": "8 pairs"}],
    "fmr": asdict(toy_fmr()),
}


def network(seed):
    torch.manual_seed(seed)
    return build_backbone("smallnet", SmallNetSettings(8, 4, 32))


@pytest.fixture
def folder(tmp_path):
    """A run as `facenet train` leaves it: weights `last` and `best`, what was judged."""
    place = tmp_path / "toy-run"
    place.mkdir()
    (place / "run.json").write_text(json.dumps(FACTS))
    (place / "validation.json").write_text(json.dumps(JUDGED))
    for seed, which in enumerate(("last", "best")):
        save_checkpoint(place / which, {"model": network(seed).state_dict()}, {"step": seed})
    return place


def test_a_run_becomes_a_model_that_every_command_takes(folder, home, examples):
    ran = run("export", folder, "--name", "tiny", "--json")
    assert ran.code == 0 and "Exported from toy-run/best" in ran.err
    card = find_card("tiny")
    assert ran.json["contract"] == card.contract and ran.json["dimension"] == 8
    assert ran.json["false_match_rates"] is True and ran.json["megabytes"] > 0
    assert (card.fmr, card.figures[0].value) == (toy_fmr(), 0.75)
    assert card.training_data == FACTS["training_data"] and card.licence.weights == "unknown"
    state = load_network("tiny").backbone.state_dict()
    assert all(torch.equal(state[n], t) for n, t in network(1).state_dict().items())
    photos = examples / "known" / "Grace Hopper.jpg", examples / "photos" / "hopper-rendition.jpg"
    verified = run("verify", *photos, "--model", "tiny", "--fmr", "1e-3", "--json")
    assert verified.code in (0, 1) and verified.json["threshold"] == pytest.approx(0.3)
    assert "tiny: SmallNet, 8 values" in run("models", "show", "tiny").out
    assert "already. Choose another name" in refused("export", folder, "--name", "tiny")
    # The last weights: nothing was judged of them.
    done = run("export", folder, "--name", "tiny", "--which", "last", "--overwrite")
    assert done.code == 0 and done.out.startswith("tiny: exported, 8 values, contract tiny:")
    card = find_card("tiny")
    assert (card.fmr, card.figures) == (None, ()) and "decide with a threshold" in card.notes
    sentence = refused("verify", *photos, "--model", "tiny")
    assert "tiny has no table of false-match rates" in sentence


def test_what_is_no_run_is_told(folder, home, tmp_path):
    for arguments, words in (
        ((tmp_path, "--name", "x"), "should be the folder of a run of facenet train"),
        ((tmp_path / "none", "--name", "x"), "should be the folder of a run of facenet train"),
        ((folder, "--name", "x", "--which", "first"), "best or last; got 'first'"),
        ((folder, "--name", "a b"), "The name of a model should be"),
        ((folder, "--name", "mobilefacenet"), "a name of the published model mobilefacenet"),
    ):
        assert words in refused("export", *arguments)
    assert not (home / "models").exists() or not list((home / "models").glob("*/card.json"))


def test_weights_and_records_that_do_not_belong_to_the_run_are_told(folder, home):
    other = build_backbone("smallnet", SmallNetSettings(9, 4, 32))
    save_checkpoint(folder / "best", {"model": other.state_dict()}, {"step": 1})
    words = "toy-run/best should hold the weights of SmallNet; linear.weight is 9 x 32, not 8 x 32"
    assert words in refused("export", folder, "--name", "x")
    save_checkpoint(folder / "best", {"model": network(1).state_dict()}, {"step": 1})
    (folder / "validation.json").write_text(json.dumps({"fmr": {"dataset": "toy"}}))
    with pytest.raises(ModelFileError, match="validation.json"):
        export_run(folder, "x")


def test_a_run_that_was_not_judged_has_no_rates(folder, home):
    (folder / "validation.json").unlink()
    card = export_run(folder, "unjudged")
    assert card.fmr is None and card.source.origin == "toy-run/best"


def test_without_torch_the_extra_is_named(folder, tmp_path):
    before = "sys.modules['torch'] = None"
    options = {"env": environment(FACENET_HOME=tmp_path), "before": before}
    ran = process("export", str(folder), "--name", "x", **options)
    assert (ran.code, ran.out) == (2, "")
    assert "pip install 'facenet[train]'" in ran.sentence
