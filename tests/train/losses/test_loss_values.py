"""The class losses against frozen values and against their formulas, written with arccos."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from facenet.train.losses import LOSSES, build_loss
from facenet.train.losses.arcface import ArcFaceSettings, arcface_logits
from facenet.train.losses.combined import CombinedSettings, combined_logits
from facenet.train.losses.cosface import cosface_logits
from facenet.train.losses.curricularface import curricularface_logits
from facenet.train.losses.magface import MagFaceSettings, magface_logits, magface_margin
from facenet.train.losses.numerics import row_losses
from facenet.train.losses.sphereface import sphereface_logits
from facenet.train.losses.sphereface_r import SphereFaceRSettings, sphereface_r_logits

ROW = (0.5, 0.3, -0.2)


def row_of(name, length=1.0, state=None, **settings):
    """The right logit and the loss of one face whose cosines with three classes are ROW."""
    loss = build_loss(name, LOSSES[name].settings(**settings), 3, 2).eval()
    weight = [(c, math.sqrt(1 - c * c)) for c in ROW]
    with torch.no_grad():
        loss.weight.copy_(torch.tensor(weight).reshape(loss.weight.shape))
    for buffer, value in (state or {}).items():
        getattr(loss, buffer).fill_(value)
    seen = {}
    inner = loss.logits
    loss.logits = lambda *given: seen.setdefault("z", inner(*given))
    scalars = loss(torch.tensor([[length, 0.0]]), torch.tensor([0]))
    assert scalars["positive_cosine"].item() == pytest.approx(0.5, abs=1e-6)
    assert scalars["norm"].item() == pytest.approx(length)
    assert scalars["violating"].item() == float(seen["z"].argmax() != 0)
    return seen["z"][0, 0].item(), scalars["loss"].item()


GOLDEN = {
    "normface": (("normface", {"scale": 64.0}), 32, 3e-6),
    "cosface": (("cosface", {"margin": 0.4}), 6.4, 12.800003),
    "arcface": (("arcface", {}), 1.51018, 17.689819),
    "arcface detached": (("arcface", {"gradient": "detached"}), 1.51018, 17.689819),
    "combined": (("combined", {}), 1.39138, 17.808625),
    "sphereface_r": (("sphereface_r", {"scale": 64.0, "margin": 1.7}), -13.30635, 32.506348),
    "sphereface": (
        ("sphereface", {"length": 64.0, "state": {"steps": 10**9}}),
        10.66667,
        8.533530,
    ),
    "adaface poor": (
        ("adaface", {"length": 1.0, "state": {"mean": 20, "deviation": 1}}),
        7.89020,
        11.309816,
    ),
    "adaface usual": (
        ("adaface", {"length": 20.0, "state": {"mean": 20, "deviation": 1}}),
        6.4,
        12.800003,
    ),
    "adaface good": (
        ("adaface", {"length": 50.0, "state": {"mean": 20, "deviation": 1}}),
        -0.14229,
        19.342293,
    ),
    "magface": (("magface", {"length": 40.0}), -2.00935, 21.209348 + 35 * 0.0283058),
    "curricularface": (("curricularface", {"state": {"t": 0.1}}), 1.51018, 6.171908),
    "subcenter_arcface": (("subcenter_arcface", {"centres": 1}), 1.51018, 17.689819),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_values_are_those_of_the_reference(case):
    """training-evaluation notes 1.11, made in double precision."""
    (name, options), target, loss = GOLDEN[case]
    z, value = row_of(name, **options)
    assert z == pytest.approx(target, abs=2e-5)
    assert value == pytest.approx(loss, abs=1e-5 if loss > 1 else 5e-7)


def test_beyond_the_turning_point_arcface_falls_on_or_turns_upward():
    cosine = torch.tensor([[math.cos(math.radians(160)), 0.0]], dtype=torch.float64)
    label = torch.tensor([0])
    given = {
        name: arcface_logits(cosine, label, ArcFaceSettings(monotony=name), 0.5)[0, 0].item()
        for name in ("hard", "none", "clamp", "easy")
    }
    assert given["hard"] == pytest.approx(-75.4819, abs=1e-4)
    assert given["none"] == pytest.approx(-63.2724, abs=1e-4)
    assert given["clamp"] == -64
    assert given["easy"] == pytest.approx(64 * cosine[0, 0].item())


def psi(theta, m):
    k = math.floor(m * theta / math.pi)
    return (-1) ** k * math.cos(m * theta) - 2 * k


def magface_target(theta, a):
    m = 0.45 + 0.35 * (min(max(a, 10), 110) - 10) / 100
    return 64 * (math.cos(theta + m) if theta < math.pi / 2 else math.cos(theta))


def hard_target(theta, m=0.5):
    return math.cos(theta + m) if theta + m < math.pi else math.cos(theta) - m * math.sin(m)


def mag(c, y, a):
    settings = MagFaceSettings()
    return magface_logits(c, y, magface_margin(a, settings), settings)


FORMULAS = {
    "cosface": (
        lambda c, y, a: cosface_logits(c, y, scale=64, margin=0.35),
        lambda t, a: 64 * (math.cos(t) - 0.35),
        lambda t, own: 64 * math.cos(t),
    ),
    "arcface": (
        lambda c, y, a: arcface_logits(c, y, ArcFaceSettings(), 0.5),
        lambda t, a: 64 * hard_target(t),
        lambda t, own: 64 * math.cos(t),
    ),
    "combined": (
        lambda c, y, a: combined_logits(c, y, CombinedSettings(m1=1.4)),
        lambda t, a: 64 * (psi(1.4 * t + 0.3, 1) - 0.2),
        lambda t, own: 64 * math.cos(t),
    ),
    "sphereface": (
        lambda c, y, a: sphereface_logits(c, y, a, margin=4, annealing=7.0),
        lambda t, a: a * (7 * math.cos(t) + psi(t, 4)) / 8,
        None,
    ),
    "sphereface_r v0": (
        lambda c, y, a: sphereface_r_logits(c, y, SphereFaceRSettings(version="v0"), 2.3),
        lambda t, a: 30 * psi(t, 2.3),
        lambda t, own: 30 * math.cos(t),
    ),
    "sphereface_r v1": (
        lambda c, y, a: sphereface_r_logits(c, y, SphereFaceRSettings(), 2.3),
        lambda t, a: 30 * math.cos(min(2.3 * t, math.pi)),
        lambda t, own: 30 * math.cos(t),
    ),
    "sphereface_r v2": (
        lambda c, y, a: sphereface_r_logits(c, y, SphereFaceRSettings(version="v2"), 2.3),
        lambda t, a: 30 * math.cos(t),
        lambda t, own: 30 * math.cos(t / 2.3),
    ),
    "magface": (
        mag,
        magface_target,
        lambda t, own: 64 * math.cos(t),
    ),
    "curricularface": (
        lambda c, y, a: curricularface_logits(c, y, 0.3, scale=64, margin=0.5),
        lambda t, a: 64 * hard_target(t),
        lambda t, own: (
            64
            * math.cos(t)
            * (0.3 + math.cos(t) if own is not None and math.cos(t) > math.cos(own + 0.5) else 1)
        ),
    ),
}


@pytest.mark.parametrize("case", FORMULAS)
def test_logits_are_those_of_the_formula_one_by_one(case):
    """Angles over the whole circle, rows with and without a label, in loops with float64."""
    logits, target, other = FORMULAS[case]
    generator = np.random.default_rng(3)
    theta = generator.uniform(0.01, math.pi - 0.01, (40, 5))
    labels = generator.integers(-1, 5, 40)
    lengths = generator.uniform(1, 130, 40)
    given = logits(*(torch.from_numpy(part) for part in (np.cos(theta), labels, lengths)))
    for i, (row, label) in enumerate(zip(theta, labels, strict=True)):
        for j, t in enumerate(row):
            own = None if label < 0 else row[label]
            if j == label:
                wanted = target(t, lengths[i])
            else:
                wanted = lengths[i] * math.cos(t) if other is None else other(t, own)
            assert given[i, j].item() == pytest.approx(wanted, abs=1e-9)


def test_softmax_is_linear_over_raw_embeddings():
    torch.manual_seed(0)
    loss = build_loss("softmax", None, 5, 4)
    with torch.no_grad():
        loss.bias.normal_()
        loss.weight.normal_()
    x, y = torch.randn(7, 4) * 3, torch.tensor([0, 1, 2, 3, 4, 0, 1])
    scalars = loss(x, y)
    logits = x @ loss.weight.T + loss.bias
    assert scalars["loss"].item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits, y).item(), rel=1e-6
    )
    cosine = torch.nn.functional.cosine_similarity(x, loss.weight[y])
    assert scalars["positive_cosine"].item() == pytest.approx(cosine.mean().item(), abs=1e-6)
    assert scalars["violating"].item() == pytest.approx(
        (logits.argmax(dim=1) != y).float().mean().item()
    )
    bare = build_loss("softmax", LOSSES["softmax"].settings(bias=False), 5, 4)
    assert [name for name, _ in bare.named_parameters()] == ["weight"]


def test_the_nearest_of_a_class_s_centres_counts():
    torch.manual_seed(1)
    loss = build_loss("subcenter_arcface", None, 4, 6)
    x = torch.randn(5, 6)
    unit = torch.nn.functional.normalize
    every = torch.einsum("nd,ckd->nck", unit(x), unit(loss.weight.detach(), dim=2))
    assert torch.allclose(loss.cosines(x), every.amax(dim=2), atol=1e-6)


def test_a_row_of_nobody_is_a_row_of_a_class_that_is_not_there():
    """Label -1: the right answer has the logit 0; the rest of the row are wrong answers."""
    logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 9
    labels = torch.full((6,), -1)
    wider = torch.cat([torch.zeros(6, 1, dtype=torch.float64), logits], dim=1)
    wanted = torch.nn.functional.cross_entropy(wider, torch.zeros(6).long(), reduction="none")
    assert torch.allclose(row_losses(logits, labels), wanted, atol=1e-12)
    everyone = torch.tensor([3, 2, 1, 0, 1, 2])
    wanted = torch.nn.functional.cross_entropy(logits, everyone, reduction="none")
    assert torch.allclose(row_losses(logits, everyone), wanted, atol=1e-12)


def test_losses_do_not_stop_at_69():
    """A clamped probability would: -log(1e-30) = 69.08, the same for every wrong label."""
    logits = torch.tensor([[0.0, 500.0], [0.0, 900.0]])
    assert row_losses(logits, torch.tensor([0, 0])).tolist() == [500.0, 900.0]
