"""What changes while training: buffers that move by their rule, are saved, and only then."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from facenet.train.losses import LOSSES, build_loss
from facenet.train.losses.sphereface import SphereFace, SphereFaceSettings
from facenet.train.losses.subcenter_arcface import drop_list

RAMPED = ["cosface", "arcface", "combined", "sphereface_r", "adaface", "magface"]
RAMPED += ["curricularface", "subcenter_arcface"]
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1, -1])


def batches(count, rows=8, size=6):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(rows, size, generator=generator) * 15 for _ in range(count)]


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_goes_on_where_it_was_saved(name):
    """Five calls at once, and two, a state dict, three: the same numbers, to the bit."""
    options = {"ramp_steps": 4} if name in RAMPED else {}
    torch.manual_seed(0)
    whole = build_loss(name, LOSSES[name].settings(**options), 5, 6)
    torch.manual_seed(0)
    first = build_loss(name, LOSSES[name].settings(**options), 5, 6)
    second = build_loss(name, LOSSES[name].settings(**options), 5, 6)
    wanted = [whole(x, LABELS) for x in batches(5)]
    given = [first(x, LABELS) for x in batches(5)[:2]]
    second.load_state_dict(first.state_dict())
    given += [second(x, LABELS) for x in batches(5)[2:]]
    assert [{k: v.item() for k, v in one.items()} for one in given] == [
        {k: v.item() for k, v in one.items()} for one in wanted
    ]
    if name not in ("softmax", "normface", "cosface"):
        assert all(not value.requires_grad for key, value in given[0].items() if key != "loss")


@pytest.mark.parametrize("name", LOSSES)
def test_judging_changes_nothing(name):
    loss = build_loss(name, None, 5, 6).eval()
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    for x in batches(2):
        loss(x, LABELS)
    assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())


def without_margin(name):
    return {
        "combined": {"m2": 0.0, "m3": 0.0},
        "sphereface_r": {"margin": 1.0},
        "magface": {"margin_low": 0.0, "margin_high": 0.0},
    }.get(name, {"margin": 0.0})


@pytest.mark.parametrize("name", RAMPED)
def test_the_margin_grows_from_nothing_to_its_size(name):
    torch.manual_seed(0)
    ramped = build_loss(name, LOSSES[name].settings(ramp_steps=3), 5, 6)
    torch.manual_seed(0)
    full = build_loss(name, LOSSES[name].settings(), 5, 6)
    torch.manual_seed(0)
    plain = build_loss(name, LOSSES[name].settings(**without_margin(name)), 5, 6)
    values = {
        key: [loss(x, LABELS)["loss"].item() for x in batches(4)]
        for key, loss in {"ramped": ramped, "full": full, "plain": plain}.items()
    }
    assert values["ramped"][0] == pytest.approx(values["plain"][0], rel=1e-5)
    assert values["ramped"][3] == pytest.approx(values["full"][3], rel=1e-6)
    assert abs(values["full"][0] - values["plain"][0]) > 0.01
    assert ramped.steps.item() == 4
    ramped.steps.fill_(2)
    assert float(ramped.ramp()) == pytest.approx(2 / 3)


def test_adaface_follows_the_lengths_of_the_batches():
    loss = build_loss("adaface", None, 5, 6)
    mean, deviation = 20.0, 100.0
    for x in batches(3):
        a = np.clip(np.linalg.norm(x.double().numpy(), axis=1), 1e-3, 100)
        mean, deviation = 0.01 * a.mean() + 0.99 * mean, 0.01 * a.std(ddof=1) + 0.99 * deviation
        scalars = loss(x, LABELS)
        assert scalars["norm_mean"].item() == pytest.approx(mean, rel=1e-6)
        assert scalars["norm_deviation"].item() == pytest.approx(deviation, rel=1e-6)
    loss(batches(1)[0][:1], LABELS[:1])
    assert loss.deviation.item() == pytest.approx(0.99 * deviation, rel=1e-6)


def test_curricularface_follows_the_cosines_of_rows_that_have_a_label():
    loss = build_loss("curricularface", None, 5, 6)
    t = 0.0
    for x in batches(3):
        own = loss.weight.detach()[LABELS.clamp_min(0)]
        cosine = torch.nn.functional.cosine_similarity(x, own)[:7]
        t = 0.01 * cosine.mean().item() + 0.99 * t
        assert loss(x, LABELS)["t"].item() == pytest.approx(t, abs=1e-7)
    loss(batches(1)[0], torch.full((8,), -1))
    assert loss.t.item() == pytest.approx(t, abs=1e-7)


@pytest.mark.parametrize(
    ("settings", "classes", "step", "wanted"),
    [
        (SphereFaceSettings(), 10, 0, 1000.0),
        (SphereFaceSettings(), 10, 100, 1000 / 13),
        (SphereFaceSettings(), 10, 10**6, 5.0),
        (SphereFaceSettings(), 30_000, 5000, 1000.0),
        (SphereFaceSettings(), 30_000, 5100, 1000 / 7),
        (SphereFaceSettings(power=2.0, gamma=1.0, hold_steps=2, start=80.0), 10, 3, 20.0),
    ],
)
def test_sphereface_is_annealed_as_insightface_did(settings, classes, step, wanted):
    loss = SphereFace(settings, classes, 2)
    loss.steps.fill_(step)
    scalars = loss(torch.ones(1, 2), torch.tensor([0]))
    assert scalars["lambda"].item() == pytest.approx(wanted)
    assert loss.steps.item() == step + 1


class NoWaiting(TorchDispatchMode):
    """Refuses what would make a GPU wait: values taken to the host, sizes that depend on data."""

    def __torch_dispatch__(self, func, kinds, args=(), kwargs=None):
        name = str(func)
        assert "_local_scalar_dense" not in name and "nonzero" not in name, name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [name for name, kind in LOSSES.items() if kind.per_class])
def test_no_class_loss_waits_for_the_device(name):
    options = {"ramp_steps": 4} if name in RAMPED else {}
    loss = build_loss(name, LOSSES[name].settings(**options), 5, 6)
    x = batches(1)[0].requires_grad_()
    with NoWaiting():
        loss(x, LABELS)["loss"].backward()
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoWaiting():
        x.sum().item()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_computed_in_float32_whatever_autocast_says(name):
    torch.manual_seed(0)
    loss = build_loss(name, None, 5, 6).eval()
    x = batches(1)[0]
    wanted = loss(x, LABELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = loss(x, LABELS)
        rounded = loss(x.bfloat16(), LABELS)
    assert {k: v.item() for k, v in given.items()} == {k: v.item() for k, v in wanted.items()}
    assert all(value.dtype == torch.float32 for value in rounded.values())


@pytest.mark.parametrize("name", [name for name, kind in LOSSES.items() if kind.per_class])
def test_a_loss_may_begin_at_the_centres_of_the_data(name):
    torch.manual_seed(0)
    loss = build_loss(name, None, 5, 6)
    length = loss.weight.norm(dim=-1).mean().item()
    centres = torch.randn(5, 6) * torch.tensor([1, 2, 3, 4, 5.0])[:, None]
    loss.set_centres(centres)
    first = loss.weight.detach().reshape(5, -1, 6)[:, 0]
    assert torch.allclose(first / length, torch.nn.functional.normalize(centres), atol=1e-5)
    assert loss.weight.requires_grad
    scalars = loss(centres, torch.arange(5))
    assert scalars["positive_cosine"].item() == pytest.approx(1, abs=1e-5)


def test_sub_centres_begin_beside_each_other():
    torch.manual_seed(0)
    loss = build_loss("subcenter_arcface", None, 4, 64)
    loss.set_centres(torch.randn(4, 64))
    unit = torch.nn.functional.normalize(loss.weight.detach(), dim=2)
    angle = torch.rad2deg(torch.arccos((unit[:, :1] * unit[:, 1:]).sum(dim=2)))
    assert angle.min() > 3 and angle.max() < 8


def test_pictures_far_from_the_dominant_centre_of_their_class_are_dropped():
    """Against loops: the centre with most pictures, the angle to it, more than 75 degrees."""
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(4, 3, 5))
    labels = generator.integers(-1, 4, 60)
    x = weight[labels, generator.choice(3, 60, p=[0.6, 0.3, 0.1])] + generator.normal(size=(60, 5))
    given = drop_list(*(torch.from_numpy(part) for part in (x, labels, weight)))
    cosine = np.array(
        [
            [u @ w / np.linalg.norm(u) / np.linalg.norm(w) for w in weight[y]]
            for u, y in zip(x, labels, strict=True)
        ]
    )
    for c in range(4):
        votes = np.bincount(cosine[labels == c].argmax(axis=1), minlength=3)
        assert given.dominant[c] == votes.argmax()
    for row, label in enumerate(labels):
        if label < 0:
            assert math.isnan(given.angle[row]) and not given.drop[row]
            continue
        angle = math.degrees(math.acos(cosine[row, given.dominant[label]]))
        assert given.angle[row].item() == pytest.approx(angle, abs=0.1)
        assert bool(given.drop[row]) == (angle > 75)
    assert 5 < int(given.drop.sum()) < 50
    nobody = drop_list(
        torch.from_numpy(x), torch.from_numpy(labels), torch.from_numpy(weight), degrees=180
    )
    assert not nobody.drop.any()
