"""Triplet losses against loops over all triplets."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch

from facenet.train.losses import LOSSES, build_loss
from facenet.train.losses.selection import candidates, drawn, random_violating
from facenet.train.losses.triplet import TripletSettings

LABELS = [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, -1, -1]


def batch(seed=0, size=4):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, size, generator=generator)
    rows = centres[[max(0, label) for label in LABELS]]
    return 3 * (rows + torch.randn(len(LABELS), size, generator=generator)), torch.tensor(LABELS)


def distance_table(kind, x):
    unit = torch.nn.functional.normalize(x.double())
    if kind == "triplet":
        return [[((a - b) ** 2).sum().item() for b in unit] for a in unit]
    return [[math.acos(max(-1, min(1, (a @ b).item()))) for b in unit] for a in unit]


def pairs():
    """Ordered mated pairs, and the rows that are not of the anchor's person."""
    for a, p in itertools.product(range(len(LABELS)), repeat=2):
        if a != p and LABELS[a] == LABELS[p] >= 0:
            yield a, p, [n for n, label in enumerate(LABELS) if label != LABELS[a]]


def chosen_by_loops(selection, d, margin):
    if selection == "all":
        return [
            (a, p, n) for a, p, others in pairs() for n in others if d[a][p] - d[a][n] + margin > 0
        ]
    if selection == "hard":
        best = {}
        for a, p, others in pairs():
            far = max(best.get(a, (a, p))[1], p, key=lambda row, a=a: d[a][row])
            best[a] = (a, far, min(others, key=lambda n, a=a: d[a][n]))
        return [*best.values()]
    triplets = []
    for a, p, others in pairs():
        beyond = [n for n in others if d[a][n] > d[a][p]]
        nearest = min(beyond, key=lambda n, a=a: d[a][n]) if beyond else None
        triplets.append(
            (a, p, max(others, key=lambda n, a=a: d[a][n]) if nearest is None else nearest)
        )
    return triplets


@pytest.mark.parametrize("kind", ["triplet", "angular_triplet"])
@pytest.mark.parametrize("selection", ["all", "hard", "semi_hard"])
@pytest.mark.parametrize("soft", [False, True])
def test_loss_and_gradient_are_those_of_loops(kind, selection, soft):
    if soft and selection == "all":
        return
    margin = {} if soft else {"margin": 0.3}
    settings = LOSSES[kind].settings(selection=selection, soft=soft, **margin)
    for seed in range(3):
        x, labels = batch(seed)
        x.requires_grad_()
        scalars = build_loss(kind, settings, 4, 4)(x, labels)
        (slope,) = torch.autograd.grad(scalars["loss"], x)
        d = distance_table(kind, x.detach())
        triplets = chosen_by_loops(selection, d, 0.3)
        assert scalars["triplets"].item() == len(triplets)
        value, wanted = by_autograd(kind, x, triplets, soft)
        assert scalars["loss"].item() == pytest.approx(value.item(), rel=1e-4)
        assert torch.allclose(slope, wanted.float(), atol=2e-4 * wanted.abs().max().item())


def by_autograd(kind, x, triplets, soft):
    """Mean and gradient of listed triplets, each from its three vectors, in float64."""
    x = x.detach().double().requires_grad_()
    unit = torch.nn.functional.normalize(x)

    def apart(a, b):
        if kind == "triplet":
            squared = ((unit[a] - unit[b]) ** 2).sum()
            return squared.sqrt() if soft else squared
        return torch.arccos(unit[a] @ unit[b])

    terms = []
    for a, p, n in triplets:
        gap = apart(a, p) - apart(a, n)
        terms.append(torch.log(1 + gap.exp()) if soft else torch.relu(gap + 0.3))
    value = torch.stack(terms).mean()
    return value, torch.autograd.grad(value, x)[0]


@pytest.mark.parametrize("kind", ["triplet", "angular_triplet"])
def test_the_figures_of_the_log_are_those_of_loops(kind):
    x, labels = batch()
    scalars = build_loss(kind, LOSSES[kind].settings(margin=0.3), 4, 4)(x, labels)
    d = distance_table(kind, x)
    possible = [(a, p, n) for a, p, others in pairs() for n in others]
    violating = chosen_by_loops("all", d, 0.3)
    cosine = torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=2)
    mated = [cosine[a, p].item() for a, p, _ in pairs()]
    assert scalars["violating"].item() == pytest.approx(len(violating) / len(possible))
    assert scalars["positive_cosine"].item() == pytest.approx(sum(mated) / len(mated), abs=1e-6)
    assert scalars["norm"].item() == pytest.approx(x.norm(dim=1).mean().item(), rel=1e-6)


def test_facenet_draws_one_of_the_violating_negatives_for_each_later_positive():
    """Over many draws every one comes up, each about as often."""
    x, labels = batch()
    d = distance_table("triplet", x)
    offered = candidates(torch.tensor(d), labels)
    seen = Counter()
    draws = 600
    for step in range(draws):
        triplets = random_violating(offered, 0.2, lambda step=step: drawn(len(x), 7, step))
        rows = torch.stack([triplets.anchor, triplets.positive, triplets.negative], dim=1)
        chosen = [tuple(row) for row in rows.tolist()]
        assert len({(a, p) for a, p, _ in chosen}) == len(chosen)
        seen.update(chosen)
    wanted = {
        (a, p): [n for n in others if d[a][n] - d[a][p] < 0.2] for a, p, others in pairs() if p > a
    }
    assert set(seen) == {(a, p, n) for (a, p), rows in wanted.items() for n in rows}
    for (a, p, _), count in seen.items():
        share = 1 / len(wanted[a, p])
        assert abs(count / draws - share) < 5 * math.sqrt(share * (1 - share) / draws) + 1e-9


def test_what_is_drawn_is_a_function_of_seed_and_step():
    x, labels = batch()
    first = build_loss("triplet", TripletSettings(seed=3), 4, 4)
    values = [first(x, labels)["loss"].item() for _ in range(4)]
    assert len(set(values)) > 1
    again = build_loss("triplet", TripletSettings(seed=3), 4, 4)
    again.steps.fill_(2)
    torch.manual_seed(99)
    assert [again(x, labels)["loss"].item() for _ in range(2)] == values[2:]
    other = build_loss("triplet", TripletSettings(seed=4), 4, 4)
    assert [other(x, labels)["loss"].item() for _ in range(4)] != values


@pytest.mark.parametrize("kind", ["triplet", "angular_triplet"])
@pytest.mark.parametrize("selection", ["all", "hard", "semi_hard", "random_violating"])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [-1, -1, -1, -1], [0]])
def test_a_batch_without_a_triplet_costs_nothing(kind, selection, labels):
    x = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = build_loss(kind, LOSSES[kind].settings(selection=selection), 4, 4)
    scalars = loss(x, torch.tensor(labels))
    scalars["loss"].backward()
    assert (scalars["loss"].item(), scalars["triplets"].item()) == (0, 0)
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_when_all_faces_look_alike_the_loss_is_the_margin():
    """The collapse that users of facenet met: every triplet violates, none can be told apart."""
    x = torch.ones(6, 4) * torch.arange(1, 7.0)[:, None]
    scalars = build_loss("triplet", None, 3, 4)(x, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert scalars["loss"].item() == pytest.approx(0.2, abs=1e-6)
    assert (scalars["violating"].item(), scalars["triplets"].item()) == (1, 3)


def test_the_mean_of_all_triplets_without_a_list_of_them():
    """13 million triplets of 600 faces, anchor by anchor, against sums of sorted distances."""
    x = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(600) // 40
    scalars = build_loss("triplet", TripletSettings(selection="all"), 15, 8)(x, labels)
    unit = torch.nn.functional.normalize(x.double())
    total = count = 0.0
    for a in range(600):
        far = (unit[a] - unit).square().sum(dim=1)
        same = labels == labels[a]
        terms = far[same & (torch.arange(600) != a)][:, None] - far[~same][None] + 0.2
        total, count = total + terms.clamp_min(0).sum().item(), count + (terms > 0).sum().item()
    assert scalars["loss"].item() == pytest.approx(total / count, rel=1e-5)
    assert scalars["triplets"].item() == pytest.approx(count, rel=1e-5)
