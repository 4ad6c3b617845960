"""The rate that was asked for holds for a whole visit, however often somebody is looked at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes import toy_card, toy_fmr
from scenes import CARD

from facenet import vectors
from facenet.errors import SettingsError
from facenet.gallery.calibrate import Threshold, false_match_rate, lowest_fmr, similarity_at
from facenet.gallery.compare import People
from facenet.gallery.levels import Rates
from facenet.models.card import FmrTable
from facenet.video.identity import KnownPeople
from facenet.video.levels import AGREE, BOTH, POOLED, agreement, levels_of, same_person
from facenet.video.naming import Naming
from facenet.video.presence import Visit
from facenet.video.settings import WatchSettings
from facenet.video.template import Look

WIDE = replace(
    toy_fmr(),
    pairs=10**9,
    similarity=tuple(round(0.1 * step, 1) for step in range(10)),
    false_matches=tuple(10 ** (9 - step) for step in range(10)),
)


def share_of(number):
    """15 % for each of six looks, then 10 % times 1/2, 1/6, 1/12, ..."""
    return 0.15 if number <= 6 else 0.1 / ((number - 6) * (number - 5))


def levels(fmr=1e-4, comparisons=1, *, table=WIDE, **more):
    rates = Rates(toy_card(fmr=table), "toy")
    asked = rates.search(comparisons, fmr=fmr)
    return replace(levels_of(rates, asked, given=False, comparisons=comparisons), **more)


def test_the_shares_of_all_looks_are_what_was_asked() -> None:
    asked = levels(1e-3)
    for count in (1, 2, 5, 20):
        total = 1.0
        for number in range(1, count + 1):
            total *= 1 - 1e-3 * share_of(number)
        fmr, fpir = asked.spent(count)
        assert fmr == pytest.approx(1 - total, rel=1e-6)
        assert fmr < 1e-3
        assert fpir == pytest.approx(fmr, rel=1e-9)
    assert asked.spent(0) == (None, None)


def test_thresholds_are_those_of_the_shares_with_the_price_of_pooling() -> None:
    asked = levels(1e-3)
    for number in range(1, 9):
        share = 1e-3 * share_of(number)
        factor = 1 if number == 1 else POOLED
        level = asked.look(number)
        assert level.fmr == pytest.approx(share)
        assert level.similarity == pytest.approx(similarity_at(WIDE, share / factor))
        pooled = replace(asked, pooled=True).look(number)
        factor = POOLED if number == 1 else BOTH
        assert pooled.similarity == pytest.approx(similarity_at(WIDE, share / factor))


def test_fpir_counts_the_people_that_are_compared_with() -> None:
    fmr, fpir = levels(1e-4, 50).spent(3)
    assert fpir == pytest.approx(1 - (1 - fmr) ** 50, rel=1e-6)
    assert replace(levels(1e-4, 50), comparisons=0).spent(3)[1] is None


def test_looks_end_when_the_table_reaches_no_rate_that_is_left() -> None:
    small = levels(1e-4, table=toy_fmr())  # nothing is known below 3e-6
    least, spent, given = lowest_fmr(toy_fmr()), 0.0, []
    for number in range(1, 12):
        level = small.look(number)
        if level is None:
            continue
        assert level.fmr >= least * (1 if number == 1 else POOLED)
        given.append(number)
        spent += level.fmr
    assert spent <= 1e-4 * (1 + 1e-6)
    assert given == [1, 2, 3, 4, 5, 6, 7]
    assert small.look(400) is None


def test_a_similarity_that_is_given_holds_for_each_look() -> None:
    rates = Rates(toy_card(fmr=WIDE), "toy")
    asked = levels_of(rates, rates.search(5, threshold=0.5), given=True, comparisons=5)
    single = false_match_rate(WIDE, 0.5)
    assert {asked.look(n).similarity for n in (1, 2, 40)} == {0.5}
    left = (1 - single) * (1 - POOLED * single) ** 2
    assert asked.spent(3)[0] == pytest.approx(1 - left, rel=1e-6)
    assert asked.spent(3)[1] == pytest.approx(1 - left**5, rel=1e-6)


def test_without_rates_only_a_similarity_can_be_asked() -> None:
    rates = Rates(toy_card(), "toy")
    with pytest.raises(SettingsError, match="has no table"):
        rates.search(1)
    asked = levels_of(rates, rates.search(1, threshold=0.4), given=True, comparisons=1)
    assert asked.look(3) == Threshold(0.4, None, None)
    assert asked.spent(3) == (None, None)
    assert same_person(rates, 1e-4, None) is None
    assert same_person(rates, 1e-4, 0.4) == 0.4
    assert agreement(rates) == AGREE


def test_the_cards_rates_count_where_an_own_calibration_does_not_reach() -> None:
    own = replace(toy_fmr(), pairs=10**5, false_matches=(10**5, 10**4, 1000, 100, 10, 1, 0))
    rates = Rates(toy_card(fmr=WIDE), "toy")
    both = replace(levels(1e-3), tables=(own, WIDE))
    for number in range(1, 9):
        level = both.look(number)
        share = 1e-3 * share_of(number) / (1 if number == 1 else POOLED)
        reached = share >= lowest_fmr(own)
        floor = similarity_at(own, share if reached else lowest_fmr(own))
        deep = -1.0 if reached else similarity_at(WIDE, share)
        assert level.similarity == pytest.approx(max(floor, deep))
    assert same_person(rates, 1e-4, None) == pytest.approx(similarity_at(WIDE, 1e-4 / BOTH))


def test_strangers_are_named_as_rarely_as_was_asked() -> None:
    """Random vectors, rates counted on them; every look at a stranger is a new draw."""
    rng = np.random.default_rng(5)
    width, people, looks, tracks, fpir = 8, 20, 4, 800, 0.3
    one, two = (vectors.unit(rng.normal(size=(1500, width))) for _ in range(2))
    scores = (one @ two.T).ravel()
    grid = tuple(round(step, 3) for step in np.arange(-1, 0.99, 0.01))
    counts = np.searchsorted(np.sort(scores), np.array(grid, np.float32))
    table = FmrTable("draws", 4000, 4000, scores.size, grid, tuple((scores.size - counts).tolist()))
    card = replace(CARD, fmr=table, dimension=width)
    known = People(
        tuple(f"person {n}" for n in range(people)),
        vectors.unit(rng.normal(size=(people, width))),
        card.contract,
    )
    settings = WatchSettings(fpir=fpir)
    naming = Naming(KnownPeople(known, Rates(card, card.contract), settings))
    named, shares = 0, []
    for _ in range(tracks):
        visit, ever = Visit((0.0, 0, np.zeros(4, np.float32)), settings, -1.0), False
        for _ in range(looks):
            visit.template._kept, visit.template._pooled = [], None
            visit.template.keep([Look(vectors.unit(rng.normal(size=width)), 1.0)])
            naming.look(visit, [])
            ever = ever or visit.identity.person is not None
        named += ever
        shares.append(visit.identity.fpir)
    asked = 1 - (1 - fpir) ** (1 / people)
    missed = [1 - asked * share_of(n) / (1 if n == 1 else POOLED) for n in range(1, looks + 1)]
    expected = 1 - np.prod(missed) ** people
    spread = np.sqrt(expected * (1 - expected) / tracks)
    assert abs(named / tracks - expected) < 4 * spread
    assert named / tracks < shares[0] < fpir
    assert len(set(shares)) == 1
