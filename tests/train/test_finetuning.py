"""Who is learned and who judges, and the configuration that fine-tuning begins with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import toy_card

from facenet.data.pairset import PairSet, Picture
from facenet.data.procedural import write_drawn_people
from facenet.data.trainingset import open_training_set
from facenet.errors import DataError, SettingsError
from facenet.models.card import Preprocess
from facenet.train.backbones import build_backbone
from facenet.train.backbones.smallnet import SmallNetSettings
from facenet.train.finetuning import (
    HELD_BACK,
    JUDGING,
    LEARNED,
    Shares,
    batch_for,
    divide,
    only_own,
    settled,
    usual_config,
    without_people,
)
from facenet.train.settings import config_from
from facenet.train.validation import ValidationSet, judgement
from facenet.train.weights import Loaded, embedded


def people_set(folder: Path, counts):
    """A set whose people have so many pictures; their bytes are never decoded."""
    for number, count in enumerate(counts):
        for picture in range(count):
            path = folder / f"p{number:02d}" / f"{picture}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    return open_training_set(folder, check=False)


def test_every_picture_has_one_use_and_judges_are_not_learned(tmp_path):
    whole = people_set(tmp_path, [1, 1, 2, 2, *[5] * 16])
    roles = divide(whole, Shares(0.3, 0.25), seed=3)
    words = roles.words()
    assert sorted(np.concatenate([roles.learned, roles.held_back, roles.judging])) == list(
        range(len(whole))
    )
    uses = {}
    for label, word in zip(whole.labels.tolist(), words, strict=True):
        uses.setdefault(label, []).append(word)
    judges = [label for label, told in uses.items() if JUDGING in told]
    assert len(judges) == 6, "20 people x 0.3"
    for label, told in uses.items():
        count = len(told)
        if label in judges:
            assert set(told) == {JUDGING} and count >= 2
        else:
            held = count - int(count * 0.75) if count >= 3 else 0
            assert (told.count(HELD_BACK), told.count(LEARNED)) == (held, count - held)
    again = divide(whole, Shares(0.3, 0.25), seed=3).words()
    assert again == words != divide(whole, Shares(0.3, 0.25), seed=4).words()


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([1] * 30, "30 people, 0 of them with two pictures, and a share of 0.2 holds out 0"),
        ([5] * 10, "10 people, 10 of them with two pictures, and a share of 0.2 holds out 2"),
        ([5] * 3 + [1] * 30, "33 people, 3 of them"),
    ],
)
def test_too_few_to_judge_by_is_refused_with_the_numbers(tmp_path, counts, told):
    whole = people_set(tmp_path, counts)
    with pytest.raises(DataError, match=told) as error:
        divide(whole, Shares(), seed=0)
    assert "--no-gate" in str(error.value)
    assert divide(whole, Shares(gate=False), seed=0).words() == [LEARNED] * sum(counts)


def test_somebody_has_to_be_left_to_learn(tmp_path):
    with pytest.raises(DataError, match="two who are learned"):
        divide(people_set(tmp_path / "a", [3] * 5), Shares(0.9), seed=0)
    with pytest.raises(DataError, match="two people or more to tell apart; b holds 1"):
        divide(people_set(tmp_path / "b", [9]), Shares(gate=False), seed=0)


def test_two_pictures_each_are_learned_whole(tmp_path):
    roles = divide(people_set(tmp_path, [2] * 20), Shares(), seed=0)
    assert (len(roles.learned), len(roles.held_back), len(roles.judging)) == (32, 0, 8)


@pytest.mark.parametrize("name", ["hold_out", "hold_back"])
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_shares_are_between_nothing_and_all(name, value):
    with pytest.raises(SettingsError, match=f"{name} should be above 0 and below 1"):
        Shares(**{name: value})


@pytest.mark.parametrize(
    ("pictures", "batch"), [(1, 1), (5, 5), (20, 8), (64, 8), (128, 16), (256, 32), (9999, 32)]
)
def test_an_epoch_has_eight_steps_where_it_can(pictures, batch):
    assert batch_for(pictures) == batch


@pytest.fixture
def base():
    torch.manual_seed(0)
    settings = SmallNetSettings(embedding_size=8, width=4, input_size=32)
    card = toy_card(preprocess=Preprocess(32, 32, "similarity", "fixed"))
    return Loaded("smallnet", settings, build_backbone("smallnet", settings).eval(), card)


def test_the_usual_configuration_is_one(base):
    places = {"data": {"train": "somewhere"}}
    values = usual_config(base)
    values["start"] = {**values["start"], "model": "base.safetensors"}
    config = config_from({**values, **places})
    assert [stage.part for stage in config.stages] == ["head", "layer4", "layer3"]
    assert {stage.batch_norm for stage in config.stages} == {"frozen"}
    assert config.backbone["width"] == 4
    assert config.start.distil > 0 and config.start.centres == "data"
    thawed = usual_config(base, train_batch_norm=True)
    assert [stage["batch_norm"] for stage in thawed["stages"]] == ["frozen", "trained", "trained"]


def test_what_follows_from_folder_and_base_cannot_be_changed(base):
    usual = {**usual_config(base), "data": {}}
    only_own({**usual, "data": {"threads": 1}}, usual, ["data.train", "preprocess"])
    for changed, key in (
        ({"data": {"train": "elsewhere"}}, "data.train"),
        ({"preprocess": {"width": 8}}, "preprocess"),
        ({"backbone": {"name": "vit_tiny"}}, "backbone.name"),
        ({"data": 3}, "data.train"),
    ):
        with pytest.raises(SettingsError, match=f"^{key} follows from the folder and the base"):
            only_own({**usual, **changed}, usual, ["data.train", "preprocess", "backbone.name"])


def test_settled_normalisations_answer_as_before_and_have_statistics(base, tmp_path):
    write_drawn_people(tmp_path, people=3, images=4, size=32)
    images = np.random.default_rng(0).normal(0, 0.3, (2, 3, 32, 32)).astype(np.float32)
    before = embedded(base.backbone, images)
    first = base.backbone.norm.running_var.clone()
    assert settled(base, open_training_set(tmp_path)) == 12
    assert embedded(base.backbone, images) == pytest.approx(before, abs=1e-4)
    assert not torch.allclose(base.backbone.norm.running_var, first)


def test_a_set_that_names_nobody_has_an_accuracy_and_no_rates():
    pictures = tuple(Picture(f"{n}", b"") for n in range(8))
    fold = np.repeat([0, 1], 2)
    pairs = PairSet(
        "toy", pictures, np.arange(0, 8, 2), np.arange(1, 8, 2), np.arange(4) % 2 == 0, fold
    )
    rows = np.eye(8, 2, dtype=np.float32) + np.float32(0.1)
    rows[4:] = rows[:4]
    told = judgement(ValidationSet("toy", pairs, lambda row: b""), rows, np.ones(8, bool))
    assert (told.pairs, told.fmr) == (4, None)


def test_pairs_of_learned_people_are_left_out_of_a_reference():
    pictures = tuple(Picture(f"{n}", b"", name) for n, name in enumerate("aabbccdd"))
    pairs = PairSet(
        "toy",
        pictures,
        np.array([0, 2, 4, 6, 0, 4]),
        np.array([1, 3, 5, 7, 2, 6]),
        np.array([True] * 4 + [False] * 2),
        np.array([0, 0, 1, 1, 0, 1]),
    )
    judged = ValidationSet("toy", pairs, lambda row: b"")
    assert without_people(judged, {"z", ""}) == (judged, 0)
    left, gone = without_people(judged, {"b"})
    assert gone == 2
    assert list(zip(left.pairs.a.tolist(), left.pairs.b.tolist(), strict=True)) == [
        *((0, 1), (4, 5), (6, 7), (4, 6))
    ]
    with pytest.raises(DataError, match="3 of its 6 pairs show one who is.* Choose another set"):
        without_people(judged, {"a", "b"})
