"""Gradients of the losses: finite differences where they are exact, s where they are detached."""

from __future__ import annotations

import math

import pytest
import torch

from facenet.train.losses import LOSSES, build_loss
from facenet.train.losses.adaface import adaface_logits, quality
from facenet.train.losses.arcface import MONOTONIES, ArcFaceSettings, arcface_logits
from facenet.train.losses.combined import CombinedSettings, combined_logits
from facenet.train.losses.cosface import cosface_logits
from facenet.train.losses.curricularface import curricularface_logits
from facenet.train.losses.magface import (
    MagFaceSettings,
    magface_logits,
    magface_margin,
    magface_regulariser,
)
from facenet.train.losses.numerics import row_losses
from facenet.train.losses.sphereface import sphereface_logits
from facenet.train.losses.sphereface_r import SphereFaceRSettings, sphereface_r_logits

PER_CLASS = [name for name, kind in LOSSES.items() if kind.per_class]
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, -1, 2])


def material(seed=0):
    """Cosines (8, 4) over all angles, none near a switch, and lengths (8,), float64."""
    generator = torch.Generator().manual_seed(seed)
    theta = 0.2 + 2.7 * torch.rand(8, 4, generator=generator, dtype=torch.float64)
    norms = 12 + 90 * torch.rand(8, generator=generator, dtype=torch.float64)
    return theta.cos().requires_grad_(), norms.requires_grad_()


def mag(c, a):
    settings = MagFaceSettings()
    logits = magface_logits(c, LABELS, magface_margin(a, settings), settings)
    return row_losses(logits, LABELS) + 35 * magface_regulariser(a, settings)


EXACT = {
    "cosface": lambda c, a: cosface_logits(c, LABELS, scale=8, margin=0.4),
    **{
        f"arcface {name}": lambda c, a, name=name: arcface_logits(
            c, LABELS, ArcFaceSettings(scale=8, monotony=name), 0.5
        )
        for name in MONOTONIES
    },
    "combined": lambda c, a: combined_logits(c, LABELS, CombinedSettings(scale=8, m1=1.3)),
    "sphereface": lambda c, a: sphereface_logits(c, LABELS, a / 9, margin=4, annealing=2.0),
    **{
        f"sphereface_r {name}": lambda c, a, name=name: sphereface_r_logits(
            c, LABELS, SphereFaceRSettings(scale=8, version=name, gradient="exact"), 1.7
        )
        for name in ("v0", "v1", "v2")
    },
    "adaface": lambda c, a: adaface_logits(
        c, LABELS, torch.linspace(-1, 1, 8, dtype=c.dtype), scale=8, margin=0.4
    ),
    "curricularface": lambda c, a: curricularface_logits(c, LABELS, 0.3, scale=8, margin=0.5),
}


@pytest.mark.parametrize("case", EXACT)
def test_exact_gradients_are_those_of_finite_differences(case):
    cosines, norms = material()
    lossy = lambda c, a: row_losses(EXACT[case](c, a), LABELS)  # noqa: E731
    assert torch.autograd.gradcheck(lossy, (cosines, norms), eps=1e-7, atol=1e-5)


def test_the_margin_of_magface_is_differentiated_in_the_length():
    cosines, norms = material(4)
    assert torch.autograd.gradcheck(mag, (cosines, norms), eps=1e-7, atol=1e-5)
    logits = magface_logits(
        cosines, LABELS, magface_margin(norms, MagFaceSettings()), MagFaceSettings()
    )
    (slope,) = torch.autograd.grad(row_losses(logits, LABELS).sum(), norms)
    with_margin = (LABELS >= 0) & (cosines[torch.arange(8), LABELS.clamp_min(0)] > 0)
    assert with_margin.any() and (slope[with_margin] > 0).all()


DETACHED = {
    "arcface": lambda c: arcface_logits(c, LABELS, ArcFaceSettings(gradient="detached"), 0.5),
    "insightface": lambda c: arcface_logits(
        c, LABELS, ArcFaceSettings(monotony="none", gradient="detached"), 0.5
    ),
    "combined": lambda c: combined_logits(c, LABELS, CombinedSettings(gradient="detached")),
    **{
        name: lambda c, name=name: sphereface_r_logits(
            c, LABELS, SphereFaceRSettings(scale=64, version=name), 1.7
        )
        for name in ("v0", "v1", "v2")
    },
}


@pytest.mark.parametrize("case", DETACHED)
def test_detached_gradients_are_the_scale_everywhere(case):
    cosines, _ = material()
    (slope,) = torch.autograd.grad(DETACHED[case](cosines).sum(), cosines)
    assert torch.equal(slope, torch.full_like(slope, 64))


def test_slope_of_arcface_at_60_degrees():
    cosine = torch.tensor([[0.5, 0.3, -0.2]], dtype=torch.float64, requires_grad=True)
    logits = arcface_logits(cosine, torch.tensor([0]), ArcFaceSettings(), 0.5)
    (slope,) = torch.autograd.grad(logits[0, 0], cosine)
    assert slope[0, 0].item() == pytest.approx(73.880258, abs=1e-6)


def test_the_quality_of_adaface_carries_no_gradient():
    norms = torch.tensor([5.0, 20.0, 60.0, 500.0], requires_grad=True)
    k = quality(norms, torch.tensor(20.0), torch.tensor(10.0), 0.333)
    assert not k.requires_grad
    wanted = [max(-1, min(1, 0.333 * (a - 20) / 10.001)) for a in (5, 20, 60, 100)]
    assert k.tolist() == pytest.approx(wanted)


def centred(name, seed=0, classes=6, size=8, **settings):
    """A loss with the embeddings and labels of a batch, near enough to their centres."""
    torch.manual_seed(seed)
    loss = build_loss(name, LOSSES[name].settings(**settings), classes, size).eval()
    labels = torch.tensor([0, 1, 2, 3, 4, 5, -1, 0])
    own = loss.weight.detach().reshape(classes, -1, size)[:, 0]
    x = torch.nn.functional.normalize(own)[labels.clamp_min(0)] + 0.4 * torch.randn(8, size)
    return loss, (x * 30).requires_grad_(), labels


@pytest.mark.parametrize("name", PER_CLASS)
def test_gradients_of_whole_losses_lead_downhill_as_far_as_they_say(name):
    """Central differences in float32 along the gradient, of embeddings and of centres."""
    options = {} if name in ("softmax", "sphereface") else {"scale": 16.0}
    if name == "sphereface_r":
        options["gradient"] = "exact"
    loss, x, labels = centred(name, seed=1, **options)
    for variable, step in ((x, 0.05), (loss.weight, 1e-4)):
        (slope,) = torch.autograd.grad(loss(x, labels)["loss"], variable)
        direction = slope / slope.norm()
        with torch.no_grad():
            begin = variable.clone()
            values = []
            for sign in (1, -1):
                variable.copy_(begin + sign * step * direction)
                values.append(loss(x, labels)["loss"].double())
            variable.copy_(begin)
        difference = (values[0] - values[1]).item() / (2 * step)
        assert difference == pytest.approx(slope.norm().item(), rel=0.02)


INVARIANT = [n for n in PER_CLASS if n not in ("softmax", "sphereface", "magface", "adaface")]


@pytest.mark.parametrize("name", INVARIANT)
def test_the_length_of_an_embedding_does_not_matter(name):
    loss, x, labels = centred(name)
    value = loss(x, labels)["loss"]
    assert loss(x * 7, labels)["loss"].item() == pytest.approx(value.item(), rel=1e-5)
    (slope,) = torch.autograd.grad(value, x)
    along = (slope * x).sum(dim=1).abs()
    assert (along <= 1e-5 * slope.norm(dim=1) * x.norm(dim=1) + 1e-9).all()


@pytest.mark.parametrize("name", PER_CLASS)
def test_the_order_of_classes_does_not_matter(name):
    loss, x, labels = centred(name)
    if name == "softmax":
        with torch.no_grad():
            loss.bias.normal_()
    before = loss(x, labels)
    slopes = torch.autograd.grad(before["loss"], [x, loss.weight])
    order = torch.randperm(6)
    place = order.argsort()
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.copy_(parameter[order].clone())
    after = loss(x, torch.where(labels >= 0, place[labels.clamp_min(0)], -1))
    moved = torch.autograd.grad(after["loss"], [x, loss.weight])
    for key, value in before.items():
        assert after[key].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-6)
    tolerance = 1e-5 * slopes[0].abs().max().item()
    assert torch.allclose(moved[0], slopes[0], atol=tolerance)
    tolerance = 1e-5 * slopes[1].abs().max().item()
    assert torch.allclose(moved[1], slopes[1][order], atol=tolerance)


def test_what_a_row_takes_from_one_class_it_gives_to_the_others():
    """Slopes of cross-entropy sum to 0 over the logits of a row; of nobody, to less than 1."""
    cosines, norms = material()
    logits = EXACT["arcface hard"](cosines, norms).detach().requires_grad_()
    (slope,) = torch.autograd.grad(row_losses(logits, LABELS).sum(), logits)
    known = LABELS >= 0
    assert slope.sum(dim=1)[known].abs().max() < 1e-12
    share = logits.exp() / (1 + logits.exp().sum(dim=1, keepdim=True))
    assert torch.allclose(slope[~known], share[~known])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", ["zero", "alike", "centres"])
def test_nothing_is_infinite_at_the_ends(name, kind):
    """Embeddings of zero, all the same, and exactly at or opposite to their centres."""
    loss = build_loss(name, None, 4, 8).train()
    labels = torch.tensor([0, 1, 2, 3, 0, 1, -1, 2])
    x = torch.zeros(8, 8) if kind == "zero" else torch.ones(8, 8)
    if kind == "centres":
        weight = loss.weight if LOSSES[name].per_class else torch.eye(4, 8)
        x = weight.detach().reshape(4, -1, 8)[:, 0][labels.clamp_min(0)] * 1000
        x[4:] *= -1
    x.requires_grad_()
    scalars = loss(x, labels)
    scalars["loss"].backward()
    assert all(math.isfinite(value.item()) for value in scalars.values())
    assert all(p.grad.isfinite().all() for p in [x, *loss.parameters()])


FALLING = {
    **{
        f"arcface {name}": lambda c, y, name=name: arcface_logits(
            c, y, ArcFaceSettings(monotony=name), 0.5
        )
        for name in ("hard", "clamp")
    },
    **{
        f"combined {name}": lambda c, y, name=name: combined_logits(
            c, y, CombinedSettings(m1=1.5, monotony=name)
        )
        for name in ("extended", "clamp")
    },
    **{
        f"sphereface_r {name}": lambda c, y, name=name: sphereface_r_logits(
            c, y, SphereFaceRSettings(version=name), 1.7
        )
        for name in ("v0", "v1", "v2")
    },
    "sphereface": lambda c, y: sphereface_logits(
        c, y, torch.ones_like(c[:, 0]), margin=4, annealing=0.0
    ),
    "cosface": lambda c, y: cosface_logits(c, y, scale=64, margin=0.4),
    "adaface": lambda c, y: adaface_logits(c, y, c[:, 1] - 1, scale=64, margin=0.4),
}


@pytest.mark.parametrize("case", FALLING)
def test_a_larger_angle_never_has_a_higher_logit(case):
    theta = torch.linspace(0, math.pi, 4001, dtype=torch.float64)
    pair = torch.stack([theta.cos(), torch.zeros_like(theta)], dim=1)
    target = FALLING[case](pair, torch.zeros(4001, dtype=torch.int64))[:, 0]
    assert target.diff().max() <= 1e-9
    assert target[0] > target[-1]


def test_the_easy_margin_falls_on_either_side_of_90_degrees():
    """There it ends, so that the logit steps up by sin(m): that is what "easy" is."""
    theta = torch.linspace(0, math.pi, 4000, dtype=torch.float64)
    pair = torch.stack([theta.cos(), torch.zeros_like(theta)], dim=1)
    zeros = torch.zeros(4000, dtype=torch.int64)
    target = arcface_logits(pair, zeros, ArcFaceSettings(monotony="easy"), 0.5)[:, 0]
    steps = target.diff()
    assert (steps > 0).nonzero().flatten().tolist() == [1999]
    assert steps[1999].item() == pytest.approx(64 * math.sin(0.5), abs=0.1)


def test_without_a_guard_it_may():
    theta = torch.linspace(0, math.pi, 4001, dtype=torch.float64)
    pair = torch.stack([theta.cos(), torch.zeros_like(theta)], dim=1)
    zeros = torch.zeros(4001, dtype=torch.int64)
    for logits in (
        arcface_logits(pair, zeros, ArcFaceSettings(monotony="none"), 0.5),
        combined_logits(pair, zeros, CombinedSettings(monotony="none")),
    ):
        assert logits[:, 0].diff().max() > 1e-3
