"""Losses by name, their settings from plain data, and labels that do not fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from facenet.errors import DataError, SettingsError
from facenet.train.choosing import settings_from
from facenet.train.losses import LOSSES, build_loss
from facenet.train.losses.arcface import ArcFaceSettings
from facenet.train.losses.labels import check_labels
from facenet.train.losses.loss import ClassLoss
from facenet.train.losses.subcenter_arcface import drop_list
from facenet.train.losses.terms import TermSettings


def test_there_is_a_loss_of_each_name():
    assert [*LOSSES] == [
        "softmax",
        "normface",
        "sphereface",
        "sphereface_r",
        "cosface",
        "arcface",
        "combined",
        "adaface",
        "magface",
        "curricularface",
        "subcenter_arcface",
        "triplet",
        "angular_triplet",
    ]


@pytest.mark.parametrize("name", LOSSES)
def test_each_is_built_with_its_own_settings_or_without(name):
    kind = LOSSES[name]
    settings = settings_from(kind.settings, {}, "loss")
    loss = build_loss(name, settings, 7, 6)
    assert settings == kind.settings()
    assert isinstance(loss, ClassLoss) is kind.per_class
    if kind.per_class:
        centres = 3 if name == "subcenter_arcface" else 1
        assert loss.weight.reshape(7, -1, 6).shape == (7, centres, 6)
        assert (loss.weight.dtype, loss.classes, loss.embedding_size) == (torch.float32, 7, 6)
    assert kind.source


WRONG = [
    ("arcface", {"margin": 28.6}, "arcface.margin in radians should be a number, from 0 to 1.57"),
    ("arcface", {"scale": 0.0}, "arcface.scale should be a number, from 0.001 to 10000; got 0.0"),
    ("arcface", {"scale": math.nan}, "arcface.scale should be .* got nan"),
    ("arcface", {"monotony": "soft"}, "arcface.monotony should be one of hard, easy, none, clamp"),
    ("arcface", {"gradient": "right"}, "arcface.gradient should be one of exact, detached"),
    ("arcface", {"ramp_steps": -1}, "arcface.ramp_steps should be a number, 0 or more; got -1"),
    ("cosface", {"margin": 3}, "cosface.margin should be a number, from 0 to 2; got 3"),
    ("normface", {"scale": -1}, "normface.scale should be"),
    ("combined", {"m1": 0.9}, "combined.m1 should be a number, from 1 to 4; got 0.9"),
    ("combined", {"m2": 2.0}, "combined.m2 in radians should be"),
    ("combined", {"m3": -0.1}, "combined.m3 should be"),
    ("combined", {"monotony": "hard"}, "combined.monotony should be one of extended, clamp, none"),
    ("combined", {"gradient": ""}, "combined.gradient should be"),
    ("sphereface", {"margin": 0}, "sphereface.margin should be a number, from 1 to 8; got 0"),
    ("sphereface", {"gamma": -1.0}, "sphereface.gamma should be"),
    ("sphereface", {"minimum": math.inf}, "sphereface.minimum should be .* got inf"),
    ("sphereface", {"hold_steps": -5}, "sphereface.hold_steps should be"),
    ("sphereface_r", {"version": "v3"}, "sphereface_r.version should be one of v0, v1, v2"),
    ("sphereface_r", {"margin": 0.5}, "sphereface_r.margin should be"),
    ("sphereface_r", {"gradient": "x"}, "sphereface_r.gradient should be"),
    ("adaface", {"margin": 2}, "adaface.margin should be"),
    ("adaface", {"alpha": 1.1}, "adaface.alpha should be"),
    ("adaface", {"spread": -1}, "adaface.spread should be"),
    ("magface", {"norm_high": 10.0}, "magface.norm_high should be above norm_low, 10; got 10"),
    ("magface", {"margin_high": 0.4}, "magface.margin_high in radians should be .* from 0.45"),
    ("magface", {"regulariser": -1}, "magface.regulariser should be"),
    ("magface", {"monotony": "x"}, "magface.monotony should be"),
    ("curricularface", {"alpha": 2}, "curricularface.alpha should be"),
    ("curricularface", {"margin": 2}, "curricularface.margin in radians should be"),
    ("subcenter_arcface", {"centres": 0}, "subcenter_arcface.centres should be a number, from 1"),
    ("subcenter_arcface", {"margin": 2}, "subcenter_arcface.margin in radians should be"),
    ("subcenter_arcface", {"monotony": "x"}, "subcenter_arcface.monotony should be"),
    ("subcenter_arcface", {"gradient": "x"}, "subcenter_arcface.gradient should be"),
    ("triplet", {"margin": 5}, "triplet.margin should be a number, from 0 to 4; got 5"),
    ("triplet", {"selection": "any"}, "triplet.selection should be one of all, hard, semi_hard"),
    ("triplet", {"selection": "all", "soft": True}, "triplet.soft should be false with"),
    ("triplet", {"selection": "hard", "seed": 2}, "triplet.seed is for the selection random"),
    ("triplet", {"selection": "hard", "margin": 0.3}, "triplet.margin is for .* got 0.3 with the"),
    ("triplet", {"seed": -1}, "triplet.seed should be a number, 0 or more; got -1"),
    ("angular_triplet", {"margin": 4}, "angular_triplet.margin should be"),
]


@pytest.mark.parametrize(("name", "values", "words"), WRONG)
def test_settings_that_make_no_sense_are_refused(name, values, words):
    with pytest.raises(SettingsError, match=words):
        LOSSES[name].settings(**values)


def test_unknown_losses_and_foreign_settings_are_refused():
    with pytest.raises(SettingsError, match=r"loss\.name .* 'arcfase'.* Did you mean arcface\?"):
        build_loss("arcfase", None, 5, 6)
    with pytest.raises(SettingsError, match="the type CosFaceSettings; got ArcFaceSettings"):
        build_loss("cosface", ArcFaceSettings(), 5, 6)
    for classes, size in ((0, 6), (5, 1)):
        with pytest.raises(SettingsError, match=f"1 class or more .* got {classes} and {size}"):
            build_loss("cosface", None, classes, size)
    with pytest.raises(SettingsError, match="degrees should be a number, from 0 to 180; got 181"):
        drop_list(torch.ones(1, 2), torch.tensor([0]), torch.ones(1, 1, 2), degrees=181)


def test_terms_come_from_plain_data():
    terms = settings_from(
        TermSettings, {"center": {"rule": "paper"}, "prelogits_norm": {"factor": 1}}, "terms"
    )
    assert (terms.center.rule, terms.prelogits_norm.factor) == ("paper", 1.0)
    assert settings_from(TermSettings, {"center": None}, "terms") == TermSettings()


def test_labels_that_fit_pass():
    check_labels(np.array([0, 1, 2, 1]), 3)
    check_labels(np.array([2, 1, 0], np.uint8), 3)
    check_labels(np.array([0, -1, 1]), 2, strangers=True)


@pytest.mark.parametrize(
    ("labels", "classes", "strangers", "kind", "words"),
    [
        ([0, 1, 2, 5], 3, False, DataError, "from 0 to 2; row 3 has 5, and 1 of 4 rows"),
        ([0, -1, 1, -1], 2, False, DataError, "from 0 to 1; row 1 has -1, and 2 of 4 rows"),
        ([0, -2, 1], 2, True, DataError, "from -1 to 1; row 1 has -2"),
        ([0.0, 1.0], 2, False, SettingsError, r"whole numbers.*; got float64 of shape \(2,\)"),
        ([[0], [1]], 2, False, SettingsError, r"got int64 of shape \(2, 1\)"),
        ([True, False], 2, False, SettingsError, "got bool"),
        ([0, 3], 5, False, DataError, "Each of the 5 classes .*; 3 have none: 1, 2, 4. Leave"),
        ([0], 40, False, DataError, "39 have none: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and more. Leave"),
        ([], 2, False, SettingsError, "got float64"),
    ],
)
def test_labels_that_do_not_are_named_with_their_row(labels, classes, strangers, kind, words):
    with pytest.raises(kind, match=words):
        check_labels(np.array(labels), classes, strangers=strangers)


def test_a_label_out_of_range_that_comes_through_is_an_error_too():
    """Never a constant loss of 69.08."""
    for name in ("softmax", "arcface", "sphereface"):
        with pytest.raises(IndexError):
            build_loss(name, None, 3, 4)(torch.ones(1, 4), torch.tensor([3]))
