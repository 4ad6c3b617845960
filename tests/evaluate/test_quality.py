"""The error-versus-discard curve against loops over orders, rank correlation by its formula."""

import json
import math
import re
from itertools import permutations

import numpy as np
import pytest

from facenet.errors import DataError
from facenet.evaluate.curves import tar_at_far
from facenet.evaluate.quality import FRACTIONS, error_discard_curve, pair_quality, spearman


def some_pairs(seed=0, mated=240, others=4000, noise=0.15):
    """Pairs whose errors come from low quality: the lower one takes from the similarity."""
    generator = np.random.default_rng(seed)
    quality = generator.random((2, mated + others))
    same = np.arange(mated + others) < mated
    similarity = np.where(same, 0.2 + 0.6 * quality.min(axis=0), 0.1)
    similarity += noise * generator.normal(size=len(same))
    similarity[[3, 7, mated + 5]] = -np.inf
    return similarity, same, quality[0], quality[1]


def curve_by_loops(similarity, same, quality, far, fractions):
    """FNMR after discarding, for qualities that are all different."""
    threshold = tar_at_far(similarity[same], similarity[~same], far).threshold
    pairs = sorted(zip(quality[same], similarity[same], strict=True))
    found = []
    for share in fractions:
        left = pairs[math.floor(share * len(pairs) + 1e-9) :]
        found.append(sum(score < threshold for _, score in left) / len(left))
    return found


@pytest.mark.parametrize("far", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("seed", range(2))
def test_the_curve_is_that_of_loops(far, seed):
    similarity, same, one, two = some_pairs(seed)
    got = error_discard_curve(similarity, same, one, two, far=far)
    expected = curve_by_loops(similarity, same, np.minimum(one, two), far, FRACTIONS)
    assert got.fnmr == pytest.approx(expected, rel=1e-12)
    assert got.fraction == FRACTIONS == tuple(np.round(np.arange(0, 0.96, 0.05), 2))
    point = tar_at_far(similarity[same], similarity[~same], far)
    assert (got.threshold, got.realised_far, got.false_matches) == (
        point.threshold,
        point.far,
        point.false_matches,
    )
    assert got.random == got.fnmr[0] == got.oracle[0] == got.errors / got.pairs
    assert got.random == pytest.approx(1 - point.tar)


def test_areas_are_those_of_the_steps():
    similarity, same, one, two = some_pairs()
    got = error_discard_curve(similarity, same, one, two, far=1e-2)
    fine = (np.arange(24_000) + 0.5) / 24_000
    curve = curve_by_loops(similarity, same, np.minimum(one, two), 1e-2, fine)
    for name, limit in (("0.2", 0.2), ("0.3", 0.3)):
        assert got.pauc[name] == pytest.approx(np.mean(curve * (fine < limit)), rel=1e-9)
        oracle = [
            max(0, got.errors - math.floor(x * 240)) / (240 - math.floor(x * 240)) for x in fine
        ]
        assert got.pauc_oracle[name] == pytest.approx(np.mean(oracle * (fine < limit)), rel=1e-9)
        assert got.pauc_random[name] == pytest.approx(limit * got.errors / 240)
        assert got.pauc_oracle[name] < got.pauc[name] < got.pauc_random[name]
    assert got.spearman > 0.5


def test_quality_that_knows_the_errors_is_the_oracle_and_the_reverse_is_worse_than_chance():
    similarity, same, *_ = some_pairs()
    oracle = error_discard_curve(similarity, same, similarity, similarity, far=1e-2)
    assert oracle.fnmr == oracle.oracle and oracle.pauc == oracle.pauc_oracle
    assert oracle.spearman == pytest.approx(1)
    reverse = error_discard_curve(similarity, same, -similarity, -similarity, far=1e-2)
    assert reverse.pauc["0.3"] > reverse.pauc_random["0.3"]
    assert reverse.spearman == pytest.approx(-1)


def test_the_threshold_is_not_chosen_anew_on_what_is_left():
    """Discarding every impostor but one would change a threshold; here nothing does."""
    similarity, same, one, two = some_pairs()
    other = np.where(same, one, 0.0)
    assert (
        error_discard_curve(similarity, same, other, two, far=1e-2).fnmr
        == error_discard_curve(similarity, same, one, two, far=1e-2).fnmr
    )


def test_ties_count_as_the_mean_over_their_orders():
    similarity = np.array([0.9, 0.1, 0.1, 0.9, 0.9, -np.inf] + [0.5] * 60)
    same = np.arange(66) < 6
    quality = np.array([1.0, 1, 1, 1, 2, 2] + [0.0] * 60)
    got = error_discard_curve(similarity, same, quality, quality, far=0.5)
    wrong = [False, True, True, False, False, True]
    orders = [[*first, *last] for first in permutations(range(4)) for last in permutations((4, 5))]
    for share, fnmr in zip(got.fraction, got.fnmr, strict=True):
        cut = math.floor(share * 6 + 1e-9)
        left = [np.mean([wrong[row] for row in order[cut:]]) for order in orders]
        assert fnmr == pytest.approx(np.mean(left), rel=1e-12)
    constant = error_discard_curve(similarity, same, np.ones(66), np.ones(66), far=0.5)
    assert constant.fnmr == pytest.approx([0.5] * len(FRACTIONS)) and constant.spearman is None


def test_quality_that_is_not_known_is_the_lowest():
    assert pair_quality([1.0, np.nan, 3.0], [2.0, 5.0, np.inf]).tolist() == [1, -np.inf, 3]
    similarity, same, one, two = some_pairs()
    bad = similarity < tar_at_far(similarity[same], similarity[~same], 1e-2).threshold
    known = np.where(bad, np.nan, one)
    got = error_discard_curve(similarity, same, known, two, far=1e-2)
    assert got.fnmr == pytest.approx(got.oracle)


def test_rank_correlation_is_its_formula():
    generator = np.random.default_rng(5)
    a, b = generator.permutation(30).astype(float), generator.permutation(30).astype(float)
    assert spearman(a, b) == pytest.approx(1 - 6 * np.sum((a - b) ** 2) / (30 * (30**2 - 1)))
    # Ties at their mean rank: 0, 1.5, 1.5, 3 against 0, 1, 2, 3.
    expected = np.corrcoef([0, 1.5, 1.5, 3], [0, 1, 2, 3])[0, 1]
    assert spearman([-np.inf, 2, 2, 9], [1, 2, 3, np.inf]) == pytest.approx(expected)
    assert spearman([1, 1], [1, 2]) is None


def test_a_curve_survives_json():
    got = error_discard_curve(*some_pairs(), far=1e-2)
    data = json.loads(json.dumps(got.to_dict(), allow_nan=False))
    assert data["fnmr"] == list(got.fnmr) and data["pauc"] == dict(got.pauc)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"quality_b": np.ones(3)}, "the quality of both pictures; got columns of the shapes"),
        ({"same": np.ones(3, bool)}, "a similarity, a truth and two qualities"),
        ({"similarity": np.full(4240, np.nan)}, "4,240 of 4,240 are NaN"),
        ({"same": np.zeros(4240, bool)}, "needs pairs of one person; got none"),
        ({"far": 1e-4}, "FAR 1e-4 needs 30,000 non-mated pairs (3 / rate); there are 4,000."),
        ({"far": 0.0}, "far should be a rate above 0, at most 1; got 0."),
        ({"far": math.nan}, "far should be a rate"),
    ],
)
def test_what_makes_no_curve_is_refused(change, told):
    names = ("similarity", "same", "quality_a", "quality_b")
    given = dict(zip(names, some_pairs(), strict=True)) | {"far": 1e-2} | change
    with pytest.raises(DataError, match=re.escape(told)):
        error_discard_curve(**given)
