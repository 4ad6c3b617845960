"""Calibration against gradients, a grid and brute force; held-out rates against counting pairs."""

import math
import re

import numpy as np
import pytest

from facenet.errors import DataError, SettingsError
from facenet.evaluate.calibration import (
    RIDGE,
    bayes_threshold,
    calibration_loss,
    cllr,
    fit_logistic,
    isotonic,
    min_cllr,
    reliability,
)
from facenet.models.calibration import Logistic


def gaussian(seed=0, mated=3000, others=20_000, apart=0.3, deviation=0.1):
    """Scores whose true LLR is a line: slope apart / deviation**2, 0 midway."""
    generator = np.random.default_rng(seed)
    return (
        generator.normal(0.1 + apart, deviation, mated),
        generator.normal(0.1, deviation, others),
    )


def objective(slope, offset, mated, others, prior):
    """The formula as it is printed, without tricks: scores here are far from overflow."""
    odds = math.log(prior / (1 - prior))
    loss = prior * np.mean(np.log(1 + np.exp(-(slope * mated + offset) - odds)))
    return loss + (1 - prior) * np.mean(np.log(1 + np.exp(slope * others + offset + odds)))


# ---- the fit


@pytest.mark.parametrize("prior", [0.5, 0.1, 0.01, 1e-4])
def test_the_fit_is_where_the_gradient_vanishes(prior):
    mated, others = gaussian(3, 300, 900)
    got = fit_logistic(mated, others, prior)
    at, step = (got.slope, got.offset), 1e-5
    for direction in ((step, 0), (0, step)):
        up, down = (
            objective(
                at[0] + sign * direction[0], at[1] + sign * direction[1], mated, others, prior
            )
            for sign in (1, -1)
        )
        bend = (up - 2 * objective(*at, mated, others, prior) + down) / step**2
        assert abs(up - down) / (2 * step) < 1e-2 * abs(bend) + 1e-8
    # The gradient by its own formula, which has no rounding of differences.
    odds = math.log(prior / (1 - prior))
    one = 1 / (1 + np.exp(got.slope * mated + got.offset + odds))
    two = 1 / (1 + np.exp(-got.slope * others - got.offset - odds))
    assert (1 - prior) * two.mean() == pytest.approx(prior * one.mean(), rel=1e-6)
    pull = (1 - prior) * np.mean(two * others) - prior * np.mean(one * mated)
    assert abs(pull) < 1e-6


def test_no_point_of_a_grid_is_better():
    mated, others = gaussian(1, 60, 200)
    got = fit_logistic(mated, others, 0.3)
    best = objective(got.slope, got.offset, mated, others, 0.3)
    for slope in np.linspace(got.slope - 20, got.slope + 20, 81):
        for offset in np.linspace(got.offset - 8, got.offset + 8, 81):
            assert objective(slope, offset, mated, others, 0.3) >= best - 1e-12


def test_normal_scores_of_one_deviation_give_the_line_that_is_known():
    got = fit_logistic(*gaussian(0, 40_000, 200_000))
    assert got.slope == pytest.approx(30, rel=0.02)
    assert got.llr(0.25) == pytest.approx(0, abs=0.1)
    assert (got.prior, got.excluded) == (0.01, 0)


def test_a_histogram_gives_the_fit_of_its_scores():
    mated, others = gaussian(2)
    levels, counts = np.unique(np.round(others, 2), return_counts=True)
    one = fit_logistic(mated, np.round(others, 2))
    two = fit_logistic(mated, np.append(levels, [5.0, -np.inf]), counts=np.append(counts, [0, 7]))
    assert (two.slope, two.offset) == pytest.approx((one.slope, one.offset), rel=1e-9)
    assert (one.excluded, two.excluded) == (0, 7)


@pytest.mark.parametrize("gap", [1e-6, 1e-3, 0.1, 1.0])
def test_scores_that_a_threshold_parts_get_a_large_finite_slope(gap):
    """The ridge decides: its pull RIDGE * slope * variance is that of the scores at the optimum."""
    mated, others = np.array([0.1, 0.15]) + gap, np.array([0.0, 0.05, 0.1])
    got = fit_logistic(mated, others)
    assert 10 < got.slope < 1e5 and math.isfinite(got.offset)
    assert np.all(got.llr(mated) > got.llr(others).max())
    mean = 0.01 * mated.mean() + 0.99 * others.mean()
    variance = 0.01 * np.mean((mated - mean) ** 2) + 0.99 * np.mean((others - mean) ** 2)
    one = 1 - got.probability(mated)
    two = got.probability(others)
    pull = 0.01 * np.mean(one * (mated - mean)) - 0.99 * np.mean(two * (others - mean))
    assert pull == pytest.approx(RIDGE * got.slope * variance, rel=1e-3)


def test_scores_that_tell_nothing_give_no_evidence():
    got = fit_logistic(np.full(3, 0.4), np.full(9, 0.4))
    assert (got.slope, got.offset) == pytest.approx((0, 0), abs=1e-9)
    swapped = gaussian(4)[::-1]
    assert fit_logistic(*swapped).slope < 0


def test_pairs_without_a_score_are_left_out_and_counted():
    mated, others = gaussian(5)
    more = (np.append(mated, [-np.inf] * 3), np.append(others, [-np.inf] * 2))
    one, two = fit_logistic(mated, others), fit_logistic(*more)
    assert (two.slope, two.offset, two.excluded) == (one.slope, one.offset, 5)
    assert two.llr([-np.inf, 0.3]).tolist() == [-np.inf, one.llr(0.3)]
    assert two.probability(-np.inf) == 0
    judged = calibration_loss(*more, two)
    assert (judged.mated, judged.non_mated, judged.excluded) == (3000, 20_000, 5)
    assert judged.cllr == cllr(one.llr(mated), one.llr(others))
    assert judged.loss == judged.cllr - judged.min_cllr == judged.to_dict()["loss"]


@pytest.mark.parametrize(
    ("mated", "others", "told"),
    [
        ([], [0.1], "scores of mated and of non-mated pairs; got 0 and 1"),
        ([0.5, 0.6], [-np.inf], "got 2 and 0"),
        ([0.5, np.nan], [0.1], "Similarities of mated pairs .* 1 of 2 are not"),
        ([0.5], [np.inf, 0.1], "Similarities of non-mated pairs .* 1 of 2 are not"),
    ],
)
def test_scores_that_cannot_be_fitted_are_refused(mated, others, told):
    with pytest.raises(DataError, match=told):
        fit_logistic(np.array(mated), np.array(others))


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, math.nan])
def test_a_prior_is_between_zero_and_one(prior):
    known = Logistic(10, -3, 0.5)
    for call in (
        lambda: fit_logistic(np.array([0.5]), np.array([0.1]), prior),
        lambda: known.probability(0.3, prior),
        lambda: bayes_threshold(prior),
        lambda: reliability(np.ones(1), np.ones(1), prior=prior),
        lambda: Logistic(10, -3, prior),
    ):
        with pytest.raises(SettingsError, match="prior should be the share of mated pairs"):
            call()


# ---- costs


def test_cllr_by_its_formula_and_at_known_values():
    one, two = np.array([3.0, -1.0, 0.5]), np.array([-4.0, 2.0])
    bits = sum(math.log2(1 + math.exp(-x)) for x in one) / 3
    bits += sum(math.log2(1 + math.exp(x)) for x in two) / 2
    assert cllr(one, two) == pytest.approx(bits / 2, rel=1e-12)
    assert cllr(np.zeros(5), np.zeros(2)) == pytest.approx(1)
    assert cllr(np.full(5, np.inf), np.full(2, -np.inf)) == 0
    assert cllr(np.array([-np.inf, 3]), np.zeros(2)) == math.inf
    assert cllr(np.array([-800.0]), np.array([-800.0])) == pytest.approx(400 / math.log(2))


def test_true_llrs_of_normal_scores_are_calibrated_and_wrong_ones_are_not():
    mated, others = gaussian(6, 20_000, 40_000)
    true = Logistic(30, -7.5, 0.5)
    best = calibration_loss(mated, others, true)
    assert best.cllr == pytest.approx(expected_cllr(3), abs=0.01)
    assert 0 <= best.loss < 0.005
    for wrong in (Logistic(60, -15, 0.5), Logistic(30, -5, 0.5), Logistic(5, -1.25, 0.5)):
        got = calibration_loss(mated, others, wrong)
        assert got.min_cllr == pytest.approx(best.min_cllr, abs=1e-12)
        assert got.loss > 0.05


def expected_cllr(separation):
    """Of perfectly calibrated normal LLRs: mean separation**2 / 2, variance separation**2."""
    x = np.linspace(-12, 12, 200_001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    llr = separation * x + separation**2 / 2
    return float(np.sum(density * np.log2(1 + np.exp(-llr))) * (x[1] - x[0]))


def best_monotone_cllr(mated, others):
    """Minimum over rising steps, by brute force isotonic regression of the labels."""
    levels = np.unique(np.concatenate([mated, others]))
    hits = np.array([np.sum(mated == level) for level in levels])
    misses = np.array([np.sum(others == level) for level in levels])
    share = isotonic_by_definition(hits / (hits + misses), hits + misses)
    total = 0.0
    for p, hit, miss in zip(share, hits, misses, strict=True):
        odds = p / (1 - p) * len(others) / len(mated) if p < 1 else math.inf
        total += hit * math.log2(1 + 1 / odds) / len(mated) if hit else 0
        total += miss * math.log2(1 + odds) / len(others) if miss else 0
    return total / 2


def isotonic_by_definition(values, weights):
    """max over starts of min over ends of the weighted mean between them."""
    count = len(values)

    def mean(a, b):
        return np.average(values[a : b + 1], weights=weights[a : b + 1])

    return [
        max(min(mean(a, b) for b in range(i, count)) for a in range(i + 1)) for i in range(count)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_pooling_is_isotonic_regression(seed):
    generator = np.random.default_rng(seed)
    for count in (1, 2, 3, 5, 9, 14):
        values = generator.integers(0, 5, count) / 4
        weights = generator.integers(1, 4, count).astype(float)
        got = isotonic(values, weights)
        assert got.tolist() == pytest.approx(isotonic_by_definition(values, weights), abs=1e-12)
        assert np.all(np.diff(got) >= 0) and weights @ got == pytest.approx(weights @ values)
    assert isotonic(np.zeros(0), np.zeros(0)).shape == (0,)


def test_pooling_a_million_values_that_fall_is_one_block():
    got = isotonic(np.arange(1e6)[::-1], np.ones(1_000_000))
    assert np.ptp(got) == 0 and got[0] == pytest.approx(499_999.5)


@pytest.mark.parametrize("seed", range(4))
def test_the_minimum_is_that_of_brute_force_and_knows_only_the_order(seed):
    generator = np.random.default_rng(seed)
    mated = np.round(generator.normal(0.4, 0.3, 15), 1)
    others = np.round(generator.normal(0, 0.3, 25), 1)
    got = min_cllr(mated, others)
    assert got == pytest.approx(best_monotone_cllr(mated, others), rel=1e-9)
    assert min_cllr(np.exp(5 * mated) - 9, np.exp(5 * others) - 9) == got
    assert got <= cllr(mated, others)
    assert min_cllr(np.append(mated, -np.inf), others) > got


def test_the_minimum_of_parted_and_of_useless_scores():
    assert min_cllr(np.array([0.5, 0.6]), np.array([0.1, -np.inf])) == 0
    assert min_cllr(np.array([0.1, 0.2]), np.array([0.5])) == pytest.approx(1)


def test_llrs_that_cannot_be_judged_are_refused():
    for one, two, told in (([], [1], "got 0 and 1"), ([np.nan], [1], "1 are NaN")):
        for measure in (cllr, min_cllr, reliability):
            with pytest.raises(DataError, match=told):
                measure(np.array(one, float), np.array(two, float))


# ---- plots and decisions


def test_reliability_by_loops():
    generator = np.random.default_rng(8)
    one, two = generator.normal(2, 2, 400), generator.normal(-2, 2, 1000)
    got = reliability(one, two, prior=0.3, bins=7)
    odds = math.log(0.3 / 0.7)
    rows = [(1 / (1 + math.exp(-x - odds)), 1, 0.3 / 400) for x in one]
    rows += [(1 / (1 + math.exp(-x - odds)), 0, 0.7 / 1000) for x in two]
    for row, low in enumerate(got["low"]):
        inside = [entry for entry in rows if low <= entry[0] < got["high"][row]]
        mass = sum(weight for *_, weight in inside)
        mated = sum(weight for _, hit, weight in inside if hit)
        assert got["observed"][row] == pytest.approx(mated / mass)
        assert got["predicted"][row] == pytest.approx(sum(p * w for p, _, w in inside) / mass)
        assert got["mated"][row] == sum(hit for _, hit, _ in inside)
    assert sum(got["mated"]) == 400 and sum(got["non_mated"]) == 1000


def test_a_calibrated_system_is_on_the_diagonal():
    mated, others = gaussian(9, 200_000, 200_000, apart=0.15)
    line = Logistic(15, -15 * 0.175, 0.5)
    got = reliability(line.llr(mated), line.llr(others), prior=0.2)
    assert got["observed"] == pytest.approx(got["predicted"], abs=0.02) and len(got["low"]) == 10
    ends = reliability(np.array([np.inf]), np.array([-np.inf]))
    assert (ends["low"], ends["observed"]) == ([0.0, 0.9], [0.0, 1.0])
    with pytest.raises(SettingsError, match="bins should be 1 or more; got 0"):
        reliability(mated, others, bins=0)


@pytest.mark.parametrize(("prior", "ratio"), [(0.5, 1.0), (0.01, 1.0), (0.01, 10.0), (0.9, 0.1)])
def test_the_bayes_threshold_costs_least(prior, ratio):
    mated, others = gaussian(10, 100_000, 100_000)
    line = Logistic(30, -7.5, 0.5)

    def cost(level):
        missed = np.mean(line.llr(mated) < level)
        return prior * missed + (1 - prior) * ratio * np.mean(line.llr(others) >= level)

    at = bayes_threshold(prior, ratio)
    assert at == pytest.approx(math.log((1 - prior) * ratio / prior))
    assert all(cost(at) < cost(at + away) for away in (-3, -1.5, 1.5, 3))


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.inf, math.nan])
def test_a_ratio_of_costs_is_above_zero(ratio):
    with pytest.raises(SettingsError, match=re.escape("cost_ratio should be the cost of a false")):
        bayes_threshold(0.5, ratio)
