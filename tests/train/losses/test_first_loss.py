"""The expected loss of a first batch against the first losses of many random ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from facenet.train.losses import LOSSES, build_loss
from facenet.train.losses.firstloss import random_cosines
from facenet.train.losses.numerics import row_losses

EXPECTED = ["normface", "cosface", "arcface", "combined", "sphereface_r", "adaface"]
EXPECTED += ["curricularface", "subcenter_arcface"]


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize(("classes", "size"), [(10, 64), (2000, 128)])
def test_it_is_the_mean_and_the_spread_of_random_first_losses(name, classes, size):
    """Batches of 40 against new centres each: the mean, and the spread from row to row."""
    settings = LOSSES[name].settings(scale=64.0)
    expected = build_loss(name, settings, classes, size).first_loss()
    torch.manual_seed(0)
    rows = []
    for _ in range(100 if classes < 100 else 8):
        loss = build_loss(name, settings, classes, size)
        x = torch.nn.functional.normalize(torch.randn(40, size)) * 20
        labels = torch.randint(classes, (40,))
        with torch.no_grad():
            logits = loss.logits(loss.cosines(x), labels, x.norm(dim=1))
            rows += row_losses(logits, labels).tolist()
            first = loss.train()(x, labels)["loss"].item()
        assert first == pytest.approx(np.mean(rows[-40:]), abs=0.1)
    assert np.mean(rows) == pytest.approx(expected.mean, abs=3 * expected.spread / len(rows) ** 0.5)
    assert np.std(rows) == pytest.approx(expected.spread, rel=0.15)


def test_with_one_class_only_nothing_can_be_wrong():
    assert build_loss("arcface", None, 1, 16).expected_first_loss() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("name", "extra"), [("normface", 0), ("cosface", 0.4), ("arcface", math.sin(0.5))]
)
def test_for_many_classes_it_is_the_formula_of_the_notes(name, extra):
    """log C + s m' + s^2 / 2 d, 1.11: 15.4, 41.0 and 46.0 for MS1MV2's people."""
    loss = build_loss(name, LOSSES[name].settings(scale=64.0), 2, 512)
    loss.classes = 85742  # so many centres need not be there
    formula = math.log(85742) + 64 * extra + 64**2 / 1024
    assert formula == pytest.approx({"normface": 15.4, "cosface": 41, "arcface": 46}[name], abs=0.1)
    assert loss.expected_first_loss() == pytest.approx(formula, abs=0.1)
    assert loss.first_loss_spread() == pytest.approx(64 / math.sqrt(512), rel=0.15)


def test_it_follows_the_ramp():
    settings = LOSSES["cosface"].settings(ramp_steps=10)
    loss = build_loss("cosface", settings, 1000, 64)
    begin = loss.expected_first_loss()
    loss.steps += 5
    middle = loss.expected_first_loss()
    loss.steps += 90
    assert middle - begin == pytest.approx(64 * 0.2, abs=1.0)
    assert loss.expected_first_loss() - middle == pytest.approx(64 * 0.2, abs=0.1)


def test_softmax_begins_at_the_logarithm_of_its_classes():
    torch.manual_seed(0)
    loss = build_loss("softmax", None, 300, 128)
    value = loss(torch.randn(64, 128), torch.randint(300, (64,)))["loss"].item()
    assert loss.expected_first_loss() == pytest.approx(math.log(300))
    assert value == pytest.approx(math.log(300), abs=0.1)


@pytest.mark.parametrize("name", ["sphereface", "magface", "triplet", "angular_triplet"])
def test_where_lengths_or_mining_decide_nothing_is_expected(name):
    assert build_loss(name, None, 10, 8).expected_first_loss() is None


@pytest.mark.parametrize("size", [2, 3, 64])
@pytest.mark.parametrize("centres", [1, 3])
def test_cosines_of_random_directions(size, centres):
    """Quantiles of drawn ones; in two dimensions the density is infinite at the ends."""
    generator = np.random.default_rng(1)
    drawn = generator.normal(size=(20000, centres, size))
    cosine = (drawn[..., 0] / np.linalg.norm(drawn, axis=2)).max(axis=1)
    place, weight = random_cosines(size, centres)
    assert weight.sum() == pytest.approx(1)
    below = np.interp([-0.6, -0.1, 0.05, 0.2, 0.8], place, np.cumsum(weight), left=0, right=1)
    counted = [(cosine <= c).mean() for c in (-0.6, -0.1, 0.05, 0.2, 0.8)]
    assert below == pytest.approx(counted, abs=0.02)
