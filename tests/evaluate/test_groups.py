"""Groups counted pair by pair in loops, summaries by their formulas, and what is refused."""

import json
import math
from itertools import combinations

import numpy as np
import pytest

from facenet.errors import DataError, InputError, SettingsError
from facenet.evaluate.groupcounts import MAX_CELLS, count_all_pairs, count_pairs
from facenet.evaluate.groups import DOUBT, gini, group_report
from facenet.evaluate.intervals import PairScores, subject_weights, wilson
from facenet.evaluate.sweep import labelled, sweep

CELLS = ("", "old", "young")


def some_people(seed=0, count=60, number=11, dimension=4):
    """Unit-less vectors with people, cells (of pictures, some unknown) and some missing faces."""
    generator = np.random.default_rng(seed)
    person = generator.integers(0, number, count)
    centre = generator.normal(size=(number, dimension))
    rows = centre[person] + 0.7 * generator.normal(size=(count, dimension))
    cells = [CELLS[code] for code in generator.integers(0, 3, count)]
    faces = labelled(rows, person, generator.random(count) > 0.1)
    return faces, cells


def similarity_of(faces, i, j):
    """As the sweep rounds it, minus infinity without a face."""
    if not (faces.found[i] and faces.found[j]):
        return -np.inf
    exact = float(faces.rows[i].astype(np.float64) @ faces.rows[j].astype(np.float64))
    return float(np.float32(np.clip(exact, -1, 1)))


def counted_by_loops(faces, cells, threshold):
    """{(cell, cell): [non-mated, accepted]}, and {cell: [mated, refused]}."""
    across, mated = {}, {}
    for i, j in combinations(range(len(faces)), 2):
        if not (cells[i] and cells[j]):
            continue
        match = similarity_of(faces, i, j) >= threshold
        if faces.person[i] != faces.person[j]:
            entry = across.setdefault(tuple(sorted((cells[i], cells[j]))), [0, 0])
            entry[1] += match
        elif cells[i] == cells[j]:
            entry = mated.setdefault(cells[i], [0, 0])
            entry[1] += not match
        else:
            continue
        entry[0] += 1
    return across, mated


def listed_pairs(faces):
    """Every pair of the pictures as a list of scored pairs."""
    pairs = np.array(list(combinations(range(len(faces)), 2)))
    a, b = pairs.T
    person = np.unique(faces.person, return_inverse=True)[1]
    scores = np.array([similarity_of(faces, i, j) for i, j in pairs])
    return PairScores(scores, person[a] == person[b], person[a], person[b]), a, b


def both_ways(faces, cells, threshold):
    scores, a, b = listed_pairs(faces)
    sides = ([cells[i] for i in a], [cells[j] for j in b])
    swept = count_all_pairs(faces, sweep(faces), cells, threshold=threshold)
    return swept, count_pairs(scores, *sides, threshold=threshold)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [-0.2, 0.5, 0.9])
def test_the_counts_are_those_of_loops_over_all_pairs(seed, threshold):
    faces, cells = some_people(seed)
    across, mated = counted_by_loops(faces, cells, threshold)
    for got in both_ways(faces, cells, threshold):
        assert got.cells == ("old", "young")
        for x, one in enumerate(got.cells):
            assert [got.mated[:, x].sum(), got.refused[:, x].sum()] == mated[one]
            for y, two in enumerate(got.cells):
                counts = [got.cross_pairs[x, y], got.cross_accepted[x, y]]
                assert counts == across[tuple(sorted((one, two)))]


def test_failures_and_what_is_left_out_are_counted():
    faces, cells = some_people(2)
    swept, listed = both_ways(faces, cells, 0.5)
    for row, name in enumerate(swept.cells):
        of_cell = [i for i in range(len(faces)) if cells[i] == name]
        assert swept.attempts[row] == len(of_cell)
        assert swept.failures[row] == sum(not faces.found[i] for i in of_cell)
        pairs = list(combinations(of_cell, 2))
        assert listed.attempts[row] == len(pairs)
        assert listed.failures[row] == sum(similarity_of(faces, *p) == -np.inf for p in pairs)
        assert swept.present[row] == len({faces.person[i] for i in of_cell})
    assert swept.failures.sum() > 0
    unknown = cells.count("")
    assert swept.left_out == unknown > 0 and (swept.unit, listed.unit) == ("pictures", "pairs")
    known = len(faces) - unknown
    assert listed.left_out == math.comb(len(faces), 2) - math.comb(known, 2)


@pytest.mark.parametrize("which", [0, 1], ids=["all pairs", "a list"])
def test_a_draw_of_people_repeats_their_pairs(which):
    faces, cells = some_people(1)
    got = both_ways(faces, cells, 0.5)[which]
    fmr, fnmr = got.rates(7, seed=4)
    scores, a, b = listed_pairs(faces)
    for row, weight in enumerate(subject_weights(scores.subjects, 7, 4)):
        for column, name in enumerate(got.cells):
            sums = np.zeros(4)
            for k in range(len(a)):
                if cells[a[k]] != name or cells[b[k]] != name:
                    continue
                match = scores.similarity[k] >= 0.5
                u, v = scores.subject_a[k], scores.subject_b[k]
                if u == v:
                    sums[:2] += weight[u] * np.array([1, not match])
                else:
                    sums[2:] += weight[u] * weight[v] * np.array([1, match])
            assert fnmr[row, column] == pytest.approx(sums[1] / sums[0], rel=1e-12)
            assert fmr[row, column] == pytest.approx(sums[3] / sums[2], rel=1e-12)


def test_a_low_threshold_that_the_sweep_did_not_keep_is_refused():
    faces, cells = some_people()
    swept = sweep(faces, pool_size=20)
    count_all_pairs(faces, swept, cells, threshold=float(swept.pool[-1]))
    with pytest.raises(DataError, match=r"kept the pairs above .*larger pool"):
        count_all_pairs(faces, swept, cells, threshold=swept.floor)


def test_cells_that_do_not_fit_are_refused():
    faces, cells = some_people()
    with pytest.raises(InputError, match="one cell per picture of the sweep, which has 60"):
        count_all_pairs(faces, sweep(faces), cells[1:], threshold=0.5)
    scores, a, _ = listed_pairs(faces)
    with pytest.raises(InputError, match="two cells for each of the 1,770 pairs; got 1 and 1"):
        count_pairs(scores, ["x"], ["x"], threshold=0.5)
    with pytest.raises(DataError, match="none has any. Check the file"):
        count_pairs(scores, [""] * len(a), [""] * len(a), threshold=0.5)
    many = [str(row) for row in range(len(a))]
    with pytest.raises(DataError, match=f"at most {MAX_CELLS} groups; they make 1,770"):
        count_pairs(scores, many, many, threshold=0.5)


# ---- tables and summaries


def scored_groups(**groups):
    """Pairs of made-up groups: name=(non-mated, accepted, mated, refused); a person per ten."""
    columns, cells, start = [[], [], [], []], [], 0
    for name, (others, accepted, mated, refused) in groups.items():
        scores = [0.9] * accepted + [0.1] * (others - accepted)
        scores += [0.1] * refused + [0.9] * (mated - refused)
        same = [False] * others + [True] * mated
        first = [start + 2 * (k // 10) for k in range(len(same))]
        for column, values in zip(columns, (scores, same, first), strict=False):
            column.extend(values)
        columns[3].extend(u if pair else u + 1 for u, pair in zip(first, same, strict=True))
        start = max(columns[3]) + 1
        cells += [name] * len(same)
    arrays = [np.array(column) for column in columns]
    return count_pairs(PairScores(*arrays), cells, cells, threshold=0.5)


FOUR = {
    "a": (4000, 40, 500, 5),
    "b": (4000, 80, 400, 10),
    "c": (4000, 0, 300, 0),
    "d": (9, 9, 3, 1),
}


def report(far=1e-2, **groups):
    return group_report(scored_groups(**(groups or FOUR)), far=far, replicates=200, seed=1)


def test_each_group_has_its_rates_with_counts_and_intervals():
    groups = {group.name: group for group in report().groups}
    for name, (others, accepted, mated, refused) in FOUR.items():
        got = groups[name]
        assert (got.fmr.errors, got.fmr.pairs) == (accepted, others)
        assert (got.fnmr.errors, got.fnmr.pairs) == (refused, mated)
        for rate in (got.fmr, got.fnmr):
            assert rate.value == rate.errors / rate.pairs
            assert rate.wilson == wilson(rate.errors, rate.pairs)
            assert rate.interval[0] <= rate.value <= rate.interval[1]
    # Ten pairs of a person stand or fall together here: wider than for independent pairs.
    width = {
        name: np.ptp(groups[name].fmr.interval) / np.ptp(groups[name].fmr.wilson) for name in "ab"
    }
    assert min(width.values()) > 2
    assert groups["c"].fmr.interval == wilson(0, groups["c"].people)


def test_a_group_too_small_for_a_claim_says_what_it_needs():
    got = report()
    small = got.groups[3]
    assert (small.fmr.needs, small.fmr.enough) == (300, False)
    # 16 of 1203 mated pairs are refused: 3 / that.
    assert (small.fnmr.needs, small.fnmr.enough) == (math.ceil(3 * 1203 / 16), False)
    assert all(group.fmr.enough and group.fnmr.enough for group in got.groups[:3])
    assert (
        "Too small for a claim about FMR at 1e-2, which needs 300 non-mated pairs: d." in got.notes
    )
    assert "Too small for a claim about FNMR, which needs 226 mated pairs: d." in got.notes
    assert got.summaries["garbe"].groups == 3


def test_the_summaries_are_their_formulas():
    got = {name: summary.value for name, summary in report().summaries.items()}
    fmr, fnmr = (0.01, 0.02, 0.0), (0.01, 0.025, 0.0)
    half = (0.5 / 4000, 0.5 / 300)
    assert got["fmr_max_min"] == pytest.approx(0.02 / half[0])
    assert got["fnmr_max_min"] == pytest.approx(0.025 / half[1])
    assert got["fmr_max_mean"] == pytest.approx(0.02 / (0.01 * 0.02 * half[0]) ** (1 / 3))
    assert got["fnmr_max_mean"] == pytest.approx(0.025 / (0.01 * 0.025 * half[1]) ** (1 / 3))
    assert got["garbe_fmr"] == pytest.approx(gini_by_loops(fmr))
    assert got["garbe"] == pytest.approx((gini_by_loops(fmr) + gini_by_loops(fnmr)) / 2)
    assert got["fdr"] == pytest.approx(1 - (0.02 + 0.025) / 2)
    assert got["ir"] == pytest.approx(math.sqrt(0.02 / half[0] * 0.025 / half[1]))


def test_alpha_weighs_fmr_against_fnmr():
    one, other = (
        group_report(scored_groups(**FOUR), far=1e-2, replicates=20, alpha=alpha).summaries
        for alpha in (1.0, 0.0)
    )
    assert one["garbe"].value == pytest.approx(one["garbe_fmr"].value)
    assert other["garbe"].value == pytest.approx(one["garbe_fnmr"].value)
    assert (one["fdr"].value, other["fdr"].value) == pytest.approx((0.98, 0.975))
    assert one["ir"].value == pytest.approx(one["fmr_max_min"].value)


def gini_by_loops(rates):
    count, mean = len(rates), sum(rates) / len(rates)
    apart = sum(abs(x - y) for x in rates for y in rates)
    return count / (count - 1) * apart / (2 * count**2 * mean)


def test_gini_is_the_double_loop():
    generator = np.random.default_rng(0)
    for count in range(2, 9):
        rates = generator.random((3, count))
        assert gini(rates).tolist() == pytest.approx([gini_by_loops(row) for row in rates])
    assert gini([0.2, 0.2, 0.2]) == pytest.approx(0) and gini([0.0, 0.0]) == 0
    assert gini([0.0, 0.0, 0.7]) == pytest.approx(1)
    assert math.isnan(gini([0.1]))


def test_equal_groups_have_small_summaries_and_one_group_none():
    equal = report(a=(2000, 20, 200, 4), b=(2000, 20, 200, 4))
    assert equal.summaries["garbe"].value == 0 and equal.summaries["ir"].value == 1
    assert equal.summaries["garbe"].interval[1] > 0.05  # chance sets groups apart
    alone = report(a=(2000, 20, 200, 4), b=(20, 20, 20, 4))
    assert {one.value for one in alone.summaries.values()} == {None}


def test_a_group_without_pairs_has_no_rate():
    got = report(a=(2000, 20, 200, 4), b=(2000, 20, 0, 0), c=(0, 0, 200, 4))
    assert got.groups[1].fnmr.value is None and not got.groups[1].fnmr.enough
    assert got.groups[2].fmr.value is None
    assert got.cross[2][2] is None and got.cross[0][1] is None and got.cross[0][0] == 0.01
    assert got.summaries["fmr_max_min"].groups == 2 and got.summaries["garbe"].groups == 1


def test_the_report_says_its_doubts_and_survives_json():
    got = report()
    assert DOUBT in got.notes
    assert "Without an error of FMR, and half an error in the ratios: c." in got.notes
    data = json.loads(json.dumps(got.to_dict(), allow_nan=False))
    assert data["groups"][1]["fmr"]["errors"] == 80 and data["unit"] == "pairs"
    assert data["summaries"]["garbe"]["value"] == got.summaries["garbe"].value
    again = report()
    assert again == got, "the same seed gives the same report"


@pytest.mark.parametrize(("far", "alpha"), [(0, 0.5), (1.1, 0.5), (math.nan, 0.5), (0.1, -0.1)])
def test_rates_and_weights_outside_their_range_are_refused(far, alpha):
    with pytest.raises(SettingsError, match="far should be above 0 and at most 1, alpha"):
        group_report(scored_groups(**FOUR), far=far, alpha=alpha)
