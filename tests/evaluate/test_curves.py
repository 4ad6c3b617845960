"""Error rates against their definitions, counted in loops."""

from __future__ import annotations

import numpy as np
import pytest

from facenet.errors import DataError
from facenet.evaluate import curves


def draw(seed, mated=60, others=80):
    """Scores with many ties and some pairs without a face."""
    generator = np.random.default_rng(seed)
    one = np.round(generator.normal(0.6, 0.25, mated), 1 if seed % 2 else 3)
    two = np.round(generator.normal(0.2, 0.25, others), 1 if seed % 2 else 3)
    for scores in (one, two):
        scores[generator.random(len(scores)) < (0.1 if seed % 3 else 0)] = -np.inf
    return one, two


def fmr(others, threshold):
    return sum(score >= threshold for score in others) / len(others)


def fnmr(mated, threshold):
    return sum(score < threshold for score in mated) / len(mated)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("far", [1.0, 0.3, 0.1, 0.0126, 0.01])
def test_tar_is_the_largest_one_with_far_at_most_the_rate(seed, far):
    mated, others = draw(seed)
    point = curves.tar_at_far(mated, others, far)
    levels = {*mated[np.isfinite(mated)], *others[np.isfinite(others)], np.inf}
    allowed = [level for level in levels if fmr(others, level) <= far]
    best = max(1 - fnmr(mated, level) for level in allowed)
    assert point.tar == pytest.approx(best)
    assert point.far == fmr(others, point.threshold) <= far
    assert point.false_matches == round(point.far * len(others))
    if np.isfinite(point.threshold):
        assert 1 - fnmr(mated, point.threshold) == pytest.approx(best)


def test_far_is_never_the_nearest_point_above_the_rate():
    """One of eight is nearest to 0.1, but it is more than 0.1."""
    others = np.array([0.9, *np.zeros(7)])
    point = curves.tar_at_far(np.array([0.8, 0.95]), others, 0.1)
    assert (point.far, point.false_matches, point.tar) == (0, 0, 0.5)
    assert point.threshold == 0.95


@pytest.mark.parametrize("seed", range(6))
def test_area_is_the_share_of_ordered_couples(seed):
    mated, others = draw(seed, 25, 30)
    couples = [(one > two) + 0.5 * (one == two) for one in mated for two in others]
    assert curves.area_under_roc(mated, others) == pytest.approx(np.mean(couples))


@pytest.mark.parametrize("seed", range(8))
def test_equal_error_rate_lies_where_the_errors_cross(seed):
    mated, others = draw(seed)
    rate = curves.equal_error_rate(mated, others)
    levels = [*sorted({*mated, *others}), np.inf]
    errors = [(fmr(others, level), fnmr(mated, level)) for level in levels]
    after = next(row for row, (a, b) in enumerate(errors) if b >= a)
    (a0, b0), (a1, b1) = errors[after - 1], errors[after]
    share = np.linspace(0, 1, 200_001)
    gap = np.abs((a0 + share * (a1 - a0)) - (b0 + share * (b1 - b0)))
    at = share[np.argmin(gap)]
    assert rate == pytest.approx(a0 + at * (a1 - a0), abs=1e-5)


def test_perfect_and_blind_scores():
    high, low = np.array([0.8, 0.9]), np.array([0.1, 0.2, 0.3])
    assert curves.equal_error_rate(high, low) == 0
    assert curves.area_under_roc(high, low) == 1
    assert curves.equal_error_rate(low, low) == pytest.approx(0.5)
    assert curves.area_under_roc(np.zeros(3), np.zeros(4)) == 0.5


def test_points_of_the_curve_are_points_of_the_curve():
    mated, others = draw(2)
    points = curves.roc_points(mated, others, points=20)
    for threshold, far, tar in zip(*(points[n] for n in ("threshold", "fmr", "tmr")), strict=True):
        assert far == pytest.approx(fmr(others, threshold))
        assert tar == pytest.approx(1 - fnmr(mated, threshold))
    assert points["fmr"] == sorted(points["fmr"])


def test_histogram_counts_every_scored_pair_once():
    mated, others = draw(1)
    counted = curves.histogram(np.append(mated, 1.0000001), others)
    assert sum(counted["mated"]) == np.isfinite(mated).sum() + 1
    assert sum(counted["non_mated"]) == np.isfinite(others).sum()
    assert len(counted["edges"]) == 101


def test_d_prime_by_its_formula():
    one, two = np.array([0.5, 0.7, -np.inf]), np.array([0.0, 0.4])
    assert curves.d_prime(one, two) == pytest.approx(0.4 / np.sqrt((0.01 + 0.04) / 2))
    assert curves.d_prime(one[:1], two) is None
    assert curves.d_prime(np.ones(3), np.ones(3)) is None


def test_names_and_needs_of_rates():
    assert [curves.rate_name(rate) for rate in curves.RATES] == [f"1e-{k}" for k in range(1, 7)]
    assert curves.rate_name(0.003) == "3e-3"
    assert [curves.pairs_needed(rate) for rate in (1e-1, 1e-3, 1e-6)] == [30, 3000, 3_000_000]
    assert curves.refusal(1e-6, 3000) == (
        "FAR 1e-6 needs 3,000,000 non-mated pairs (3 / rate); there are 3,000."
    )


@pytest.mark.parametrize("function", [curves.area_under_roc, curves.equal_error_rate])
def test_one_kind_of_pair_has_no_rates(function):
    with pytest.raises(DataError, match="got 0 and 2"):
        function(np.zeros(0), np.zeros(2))
