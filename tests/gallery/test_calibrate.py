"""Thresholds and rates against counting, by the formula, and back and forth."""

import math

import numpy as np
import pytest
from fakes import toy_card, toy_fmr

from facenet.errors import ContractError, SettingsError
from facenet.gallery.calibrate import (
    DEFAULT_FMR,
    decide_threshold,
    false_match_rate,
    fmr_for_identification,
    identification_rate,
    lowest_fmr,
    probability,
    similarity_at,
)
from facenet.models.calibration import Calibration, Logistic
from facenet.models.card import FmrTable


def table(similarity, counts, *, pairs=1_000_000):
    return FmrTable("toy", 2000, 1000, pairs, tuple(similarity), tuple(counts))


def counted_table(*, seed=0, pairs=200_000):
    """A table counted from similarities, like the ones that `facenet evaluate all-pairs` makes."""
    scores = np.clip(np.random.RandomState(seed).normal(0.05, 0.12, pairs), -1, 1)
    rows = np.round(np.arange(-0.6, 0.72, 0.01), 2)
    return scores, table(rows, [int(np.sum(scores >= row)) for row in rows], pairs=pairs)


TABLES = {
    "toy": toy_fmr(),
    "counted": counted_table()[1],
    "one row": table([0.2], [500]),
    "plateau": table([-0.5, 0.0, 0.1, 0.2, 0.5], [10**6, 4000, 4000, 4000, 7]),
    "all from the start": table([-0.3, -0.2, 0.4], [10**6, 10**6, 0]),
    "ends early": table([0.0, 0.3], [10**5, 10**4]),
    "zeros": table([0.0, 0.2, 0.3, 0.4, 0.5], [10**5, 20, 0, 0, 0]),
    "from -1": table([-1.0, 1.0], [10**6, 1]),
}
ALL = pytest.mark.parametrize("name", TABLES)


def test_the_rows_of_the_table_are_its_rates():
    scores, counted = counted_table()
    for similarity, count in zip(counted.similarity, counted.false_matches, strict=True):
        got = false_match_rate(counted, similarity)
        assert got == pytest.approx(max(count, 3) / counted.pairs, rel=1e-6)
        assert count == np.sum(scores >= similarity)


def test_between_rows_the_rate_is_near_the_count():
    scores, counted = counted_table()
    for similarity in np.arange(-0.295, 0.45, 0.01):
        count = np.sum(scores >= similarity)
        noise = 4 * math.sqrt(count) + 1
        assert abs(false_match_rate(counted, similarity) * counted.pairs - count) < noise


def test_between_two_rows_the_count_falls_by_equal_factors():
    # 10^(6 - 10 s) matches at s: the logarithm is a straight line through all rows.
    for similarity in (0.0, 0.05, 0.1234, 0.37, 0.4999):
        expected = 10 ** -(10 * similarity)
        assert false_match_rate(toy_fmr(), similarity) == pytest.approx(expected, rel=1e-6)
    assert similarity_at(toy_fmr(), 10**-2.5) == pytest.approx(0.25, abs=1e-9)


def test_before_the_first_row_the_rate_rises_to_all_pairs():
    early = TABLES["ends early"]  # a tenth at 0, all at -1
    assert false_match_rate(early, -1) == 1
    assert false_match_rate(early, -0.5) == pytest.approx(10**-0.5, rel=1e-6)
    assert similarity_at(early, 10**-0.25) == pytest.approx(-0.75, abs=1e-6)


@ALL
def test_a_higher_threshold_never_matches_more(name):
    rates = [false_match_rate(TABLES[name], s) for s in np.linspace(-1, 1, 4001)]
    assert all(a >= b * (1 - 1e-12) for a, b in zip(rates, rates[1:], strict=False))
    assert rates[0] == 1 and rates[-1] >= 3 / TABLES[name].pairs


@ALL
def test_the_threshold_of_a_rate_has_at_most_that_rate(name):
    known = TABLES[name]
    lowest = lowest_fmr(known)
    exact = [count / known.pairs for count in known.false_matches]
    rates = [*np.geomspace(lowest, 0.999, 500), *exact, lowest]
    for rate in (r for r in rates if lowest <= r < 1):
        similarity = similarity_at(known, rate)
        assert -1 <= similarity <= 1
        assert false_match_rate(known, similarity) <= rate
        # And no lower similarity will do, but for the width of a hair.
        assert false_match_rate(known, similarity) > rate * (1 - 1e-6) or rate <= lowest
        below = similarity - 2e-3
        if below > -1 and "plateau" not in name:
            assert false_match_rate(known, below) > rate or rate < 1.01 * lowest


def test_the_lowest_similarity_of_a_plateau_answers_for_it():
    plateau = TABLES["plateau"]
    assert similarity_at(plateau, 4000 / 1e6) == pytest.approx(0, abs=1e-3)
    assert false_match_rate(plateau, 0.2) == pytest.approx(4000 / 1e6, rel=1e-6)


@ALL
def test_nothing_is_claimed_below_three_in_all_pairs(name):
    known = TABLES[name]
    floor = max(3, known.false_matches[-1]) / known.pairs
    assert lowest_fmr(known) == floor
    assert false_match_rate(known, 1.0) == pytest.approx(floor, rel=1e-6)
    for rate in (floor * 0.99, floor / 10, 0.0, -1.0, 1.0, 2.0, math.nan):
        with pytest.raises(SettingsError, match="fmr should be from .* to below 1"):
            similarity_at(known, rate)


def test_the_message_says_what_the_table_rests_on():
    with pytest.raises(SettingsError, match=r"from 3e-06 .*got 1e-06.*1,000,000 pairs of toy"):
        similarity_at(toy_fmr(), 1e-6)


# ---- deciding


def test_a_wanted_rate_gives_the_threshold_and_keeps_the_rate():
    card = toy_card(fmr=toy_fmr())
    got = decide_threshold(card, fmr=1e-3)
    assert got.similarity == pytest.approx(0.3, abs=1e-9) and got.fmr == 1e-3


def test_a_wanted_similarity_gives_the_rate():
    card = toy_card(fmr=toy_fmr())
    got = decide_threshold(card, threshold=0.2)
    assert got.similarity == 0.2 and got.fmr == pytest.approx(1e-2, rel=1e-6)
    assert decide_threshold(card, threshold=0).fmr == pytest.approx(1)
    assert decide_threshold(card, threshold=-1).fmr == 1


def test_without_a_wish_one_match_in_ten_thousand_is_wrong():
    got = decide_threshold(toy_card(fmr=toy_fmr()))
    assert DEFAULT_FMR == 1e-4
    assert got.similarity == pytest.approx(0.4, abs=1e-9) and got.fmr == 1e-4


def test_without_a_table_a_similarity_will_do():
    assert decide_threshold(toy_card(), threshold=0.5).fmr is None
    for wish in ({}, {"fmr": 1e-3}):
        with pytest.raises(SettingsError, match="toy has no table of false-match rates"):
            decide_threshold(toy_card(), **wish)


def test_one_wish_at_a_time():
    with pytest.raises(SettingsError, match="either fmr or threshold"):
        decide_threshold(toy_card(fmr=toy_fmr()), fmr=1e-3, threshold=0.5)


@pytest.mark.parametrize("threshold", [-1.01, 1.01, math.nan, math.inf])
def test_a_threshold_is_a_cosine(threshold):
    with pytest.raises(SettingsError, match="threshold should be a cosine from -1 to 1"):
        decide_threshold(toy_card(fmr=toy_fmr()), threshold=threshold)


# ---- a calibration of one's own


def calibration(contract):
    """Ten times the false matches of the card's table, on fewer pairs."""
    own = table([0.0, 0.1, 0.5], [10**5, 10**4, 1], pairs=10**5)
    own = FmrTable("our faces", 600, 300, own.pairs, own.similarity, own.false_matches)
    return Calibration(
        contract=contract,
        model="toy",
        dataset="our faces",
        created="2025-06-30",
        detector="mtcnn",
        images=600,
        people=300,
        fmr=own,
        fmr_low=(0.0,) * 3,
        fmr_high=(1.0,) * 3,
        logistic=Logistic(20.0, -8.0, 0.01),
        held_out={},
        digest="0" * 64,
    )


def test_a_calibration_takes_the_place_of_the_card():
    card = toy_card(fmr=toy_fmr())
    own = calibration(card.contract)
    got = decide_threshold(card, fmr=0.1, calibration=own)
    assert got.similarity == pytest.approx(0.1, abs=1e-6) and got.fmr == 0.1
    assert got.source == "100,000 pairs of our faces"
    asked = decide_threshold(card, threshold=0.1, calibration=own)
    assert asked.fmr == pytest.approx(0.1, rel=1e-6) and asked.source == got.source
    assert decide_threshold(toy_card(), calibration=own, fmr=0.1) == got, "no table on the card"
    with pytest.raises(SettingsError, match="on our faces, which has 100,000 pairs.*card"):
        decide_threshold(card, fmr=1e-6, calibration=own)


def test_a_threshold_says_what_it_rests_on():
    card = toy_card(fmr=toy_fmr())
    assert decide_threshold(card).source == "1,000,000 pairs of toy"
    assert decide_threshold(card, threshold=0.3).source == "1,000,000 pairs of toy"
    assert decide_threshold(toy_card(), threshold=0.3).source is None


def test_a_calibration_of_another_model_is_refused():
    card = toy_card(fmr=toy_fmr())
    told = "model in use, toy:.*made of our faces, is of other:1. Calibrate again"
    with pytest.raises(ContractError, match=told):
        decide_threshold(card, calibration=calibration("other:1"))
    flipped = calibration(card.contract + "+flip")
    with pytest.raises(ContractError, match="Calibrate again"):
        decide_threshold(card, calibration=flipped)
    decide_threshold(card, fmr=0.1, calibration=flipped, contract=card.contract + "+flip")


def test_the_probability_is_that_of_the_calibration():
    own = calibration("toy:1")
    assert probability(0.4, own) == pytest.approx(0.01)
    assert probability(0.4, own, 0.5) == pytest.approx(0.5)
    expected = [1 / (1 + math.exp(8 - 20 * s) * 9) for s in (0.0, 0.5)]
    assert probability(np.array([0.0, 0.5]), own, 0.1).tolist() == pytest.approx(expected)
    with pytest.raises(SettingsError, match="prior should be the share"):
        probability(0.4, own, 1.0)


# ---- searches


def test_a_search_errs_when_one_of_its_comparisons_does():
    for rate in (0.0, 1e-3, 0.2, 1.0):
        right = 1.0
        for comparisons in range(1, 200):
            right *= 1 - rate
            assert identification_rate(rate, comparisons) == pytest.approx(1 - right, abs=1e-12)
    matches = np.random.default_rng(0).random((20_000, 50)) < 0.01
    assert identification_rate(0.01, 50) == pytest.approx(np.mean(matches.any(axis=1)), abs=0.01)


def test_small_rates_keep_their_digits():
    # 1 - (1 - f)^N = N f - N (N - 1) / 2 f^2 + ...: in plain float64 this one would be 0.
    assert identification_rate(1e-18, 1000) == pytest.approx(1e-15, rel=1e-12)
    assert identification_rate(1e-9, 10**6) == pytest.approx(1e-3 - 5e-7, rel=1e-6)


def test_the_rate_of_a_comparison_is_the_inverse():
    for fpir in (0.0, 1e-12, 0.003, 0.5, 1.0):
        for comparisons in (1, 7, 10**6):
            rate = fmr_for_identification(fpir, comparisons)
            assert 0 <= rate <= 1
            assert identification_rate(rate, comparisons) == pytest.approx(fpir, rel=1e-9)
    assert fmr_for_identification(0.01, 1) == pytest.approx(0.01)


@pytest.mark.parametrize(("rate", "comparisons"), [(-0.1, 1), (1.1, 1), (math.nan, 1), (0.1, 0)])
def test_rates_and_numbers_of_searches_are_checked(rate, comparisons):
    for call, name in ((identification_rate, "fmr"), (fmr_for_identification, "fpir")):
        with pytest.raises(SettingsError, match=f"^{name} should be from 0 to 1, and comparisons"):
            call(rate, comparisons)
