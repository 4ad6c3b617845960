"""Which rates decide: one's own, the card's, or none that reach."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import toy_card, toy_fmr
from peopled import axis, faces_of, peopled

from facenet.errors import SettingsError
from facenet.gallery.enrolment import Enrollee, enrol
from facenet.gallery.index import Index
from facenet.gallery.judgement import Enrolment, EnrolmentRules, Sighting
from facenet.gallery.levels import Rates, level_reached


def small(pairs=1000):
    """A table of few pairs, at half the similarities of `toy_fmr`: it ends at 3 of its pairs."""
    counts = tuple(int(pairs * 10 ** -(2 * step / 10)) for step in range(7))
    return replace(toy_fmr(), pairs=pairs, false_matches=counts, dataset="mine")


def test_the_first_table_that_reaches_decides():
    own, card = small(), toy_fmr()
    assert level_reached((own, card), 0.1) == pytest.approx(0.05 * 10, abs=0.01)
    assert level_reached((own, card), 1e-5) == pytest.approx(0.5, abs=1e-3)
    assert level_reached((None, card), 0.1) == pytest.approx(0.1, abs=1e-3)
    assert level_reached((own, card), 1e-9) is level_reached((own, None), 1e-5) is None
    assert level_reached((), 0.1) is None


def test_a_small_calibration_does_not_make_conflicts_of_new_people():
    """At 5,000 faces and 1 % the wanted rate is 2e-6; clipped to 0.063 most people are refused."""
    rules = EnrolmentRules(conflict_fpir=0.02, unlike_fmr=1e-4)
    alone = Enrolment(rules, (), small())
    assert alone.conflict_level(5000) is None and alone.unlike_level() is None
    assert alone.unjudged(5000) == ("conflict", "unlike")
    both = Enrolment(rules, (), small(), toy_fmr())
    assert both.conflict_level(5000) == pytest.approx(0.54, abs=0.01)
    assert both.unlike_level() == pytest.approx(0.4, abs=1e-3)
    assert both.unjudged(5000) == () and both.unjudged(10**6) == ("conflict",)
    off = Enrolment(EnrolmentRules(conflict_fpir=None, unlike_fmr=None), (), None)
    assert off.unjudged(10) == () and alone.unjudged(0) == ("unlike",)


def test_answers_of_an_enrolment_say_what_was_not_judged():
    store, _ = peopled({"Anna": [axis(0)]})
    how = Enrolment(EnrolmentRules(), (), small(100))
    (answer,) = enrol(
        store, Index(store, "toy:1"), Enrollee("B"), [Sighting(faces_of([axis(0)]), photo="b")], how
    )
    assert not answer.refused
    assert answer.to_dict()["unjudged"] == ["conflict", "unlike"]


@pytest.mark.parametrize("name", ["fmr", "fpir", "threshold"])
@pytest.mark.parametrize("wrong", ["x", [1], True])
def test_a_rate_is_a_number(name, wrong):
    rates = Rates(toy_card(fmr=toy_fmr()), toy_card().contract)
    with pytest.raises(SettingsError, match=f"{name} should be a number"):
        rates.search(3, **{name: wrong})
    if name != "fpir":
        with pytest.raises(SettingsError, match=f"{name} should be a number"):
            rates.person(3, **{name: wrong})


def test_a_rate_of_a_search_beyond_the_table_is_said_as_such():
    rates = Rates(toy_card(fmr=toy_fmr()), toy_card().contract)
    with pytest.raises(SettingsError, match=r"fpir should be 0.003 or more in a search of 1,000 v"):
        rates.search(1000, fpir=1e-4)
    assert rates.search(1000, fpir=0.01).fmr == pytest.approx(1e-5, rel=0.01)
