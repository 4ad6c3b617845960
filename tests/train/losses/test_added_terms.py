"""Center loss and the penalty on the length, against loops with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facenet.errors import SettingsError
from facenet.train.losses import build_loss
from facenet.train.losses.center import CenterLoss, CenterSettings
from facenet.train.losses.prelogits_norm import PrelogitsNormSettings, prelogits_norm
from facenet.train.losses.terms import LossWithTerms, TermSettings


def material(seed=0, rows=12, classes=4, size=5):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, size)).astype(np.float32)
    return x, generator.integers(-1, classes, rows)


def by_loops(rule, x, labels, centres, alfa):
    """The unweighted loss, and the centres afterwards."""
    known = [i for i, label in enumerate(labels) if label >= 0]
    squared = [sum((x[i] - centres[labels[i]]) ** 2) for i in known]
    loss = np.mean(squared) / x.shape[1] if rule == "facenet" else np.mean(squared) / 2
    after = centres.copy()
    for c in range(len(centres)):
        own = [i for i in known if labels[i] == c]
        change = sum((centres[c] - x[i] for i in own), np.zeros(x.shape[1]))
        if rule == "paper":
            change = change / (1 + len(own))
        after[c] = centres[c] - (1 - alfa) * change
    return loss, after


@pytest.mark.parametrize(
    ("rule", "factor", "alfa"), [("facenet", 0.01, 0.95), ("paper", 0.003, 0.5)]
)
@pytest.mark.parametrize("given", [True, False])
def test_center_loss_is_that_of_loops(rule, factor, alfa, given):
    """Given settings, or those that belong to the rule by itself; duplicates count each."""
    settings = CenterSettings(rule, factor, alfa) if given else CenterSettings(rule)
    loss = CenterLoss(settings, 4, 5)
    centres = np.zeros((4, 5))
    for step in range(3):
        x, labels = material(step)
        wanted, after = by_loops(rule, x, labels, centres, alfa)
        value = loss(torch.from_numpy(x), torch.from_numpy(labels))
        assert value.item() == pytest.approx(factor * wanted, rel=1e-5)
        assert np.allclose(loss.centres.numpy(), after, atol=1e-6)
        centres = after
    loss.eval()(torch.from_numpy(x), torch.from_numpy(labels))
    assert np.allclose(loss.centres.numpy(), centres, atol=1e-6)


@pytest.mark.parametrize("rule", ["facenet", "paper"])
def test_centres_come_to_lie_where_the_classes_are(rule):
    generator = torch.Generator().manual_seed(0)
    known = torch.randn(6, 8, generator=generator) * 3
    loss = CenterLoss(CenterSettings(rule, alfa=0.95), 6, 8)
    for _ in range(600):
        labels = torch.randint(6, (24,), generator=generator)
        loss(known[labels] + 0.1 * torch.randn(24, 8, generator=generator), labels)
    assert (loss.centres - known).abs().max() < 0.15
    assert [*loss.parameters()] == []
    assert [*loss.state_dict()] == ["centres"]


@pytest.mark.parametrize("rule", ["facenet", "paper"])
def test_embeddings_are_drawn_to_centres_that_feel_no_gradient(rule):
    loss = CenterLoss(CenterSettings(rule, factor=2.0), 4, 5)
    x, labels = (torch.from_numpy(part) for part in material())
    loss.centres.normal_()
    before = loss.centres.clone()
    x.requires_grad_()
    loss(x, labels).backward()
    known = labels >= 0
    away = torch.where(known[:, None], x.detach() - before[labels.clamp_min(0)], 0)
    wanted = 2 * away / known.sum() * (2 / 5 if rule == "facenet" else 1)
    assert torch.allclose(x.grad, wanted, atol=1e-6)
    assert not loss.centres.requires_grad
    x.grad = None
    nobody = loss(x, torch.full((12,), -1))
    nobody.backward()
    assert nobody.item() == 0 and torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_the_penalty_on_the_length(p):
    x, _ = material()
    wanted = np.mean([sum((abs(v) + 1e-4) ** p for v in row) ** (1 / p) for row in x])
    given = prelogits_norm(torch.from_numpy(x), PrelogitsNormSettings(factor=0.25, p=p))
    assert given.item() == pytest.approx(0.25 * wanted, rel=1e-5)
    zero = torch.zeros(2, 5, requires_grad=True)
    prelogits_norm(zero, PrelogitsNormSettings(p=p)).backward()
    assert zero.grad.isfinite().all()


def test_terms_are_added_and_logged():
    x, labels = (torch.from_numpy(part) for part in material())
    torch.manual_seed(0)
    main = build_loss("cosface", None, 4, 5)
    terms = TermSettings(CenterSettings(), PrelogitsNormSettings())
    both = LossWithTerms(main, terms, 4, 5)
    scalars = both.eval()(x, labels)
    assert scalars["main_loss"].item() == main(x, labels)["loss"].item()
    assert scalars["center"].item() == CenterLoss(CenterSettings(), 4, 5)(x, labels).item()
    wanted = prelogits_norm(x, PrelogitsNormSettings()).item()
    assert scalars["prelogits_norm"].item() == wanted
    parts = sum(scalars[key].item() for key in ("main_loss", "center", "prelogits_norm"))
    assert scalars["loss"].item() == pytest.approx(parts, rel=1e-6)
    assert {"positive_cosine", "norm", "violating"} < set(scalars)
    assert [key for key, value in scalars.items() if value.requires_grad] == ["loss"]
    assert both.expected_first_loss() == main.expected_first_loss()
    assert {"center.centres", "loss.weight", "loss.steps"} == set(both.state_dict())


def test_without_terms_a_loss_is_itself():
    x, labels = (torch.from_numpy(part) for part in material())
    main = build_loss("softmax", None, 4, 5)
    scalars = LossWithTerms(main, TermSettings(), 4, 5)(x, labels)
    assert scalars["loss"].item() == scalars["main_loss"].item() == main(x, labels)["loss"].item()
    assert not {"center", "prelogits_norm"} & set(scalars)


def test_a_triplet_loss_takes_terms_as_well():
    x, labels = (torch.from_numpy(part) for part in material())
    both = LossWithTerms(build_loss("triplet", None, 4, 5), TermSettings(CenterSettings()), 4, 5)
    assert both(x, labels)["center"].item() > 0
    assert both.center.centres.abs().sum() > 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CenterSettings("mean"), "center.rule should be one of facenet, paper; got 'mean'"),
        (lambda: CenterSettings(factor=-1), "center.factor should be a number, 0 or more; got -1"),
        (lambda: CenterSettings(alfa=1.5), "center.alfa should be a number, from 0 to 1; got 1.5"),
        (
            lambda: PrelogitsNormSettings(-0.1),
            "prelogits_norm.factor should be a number, 0 or more",
        ),
        (
            lambda: PrelogitsNormSettings(p=0),
            "prelogits_norm.p should be a number, 1 or more; got 0",
        ),
    ],
)
def test_terms_with_wrong_numbers_are_refused(make, words):
    with pytest.raises(SettingsError, match=words):
        make()
