"""The figures behind the rules of enrolment: those of enrolling one by one, and of loops."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from fakes import toy_fmr
from peopled import SPACE, faces_of

from facenet.apps.jobs.rulescore import People, compare, rules_text
from facenet.errors import DataError
from facenet.gallery.enrolment import Enrollee, enrol
from facenet.gallery.index import Index
from facenet.gallery.judgement import BLURRED, Enrolment, EnrolmentRules, Sighting, rules_for
from facenet.gallery.memory import MemoryStore
from facenet.vectors import unit

RULES = EnrolmentRules(conflict_fpir=0.001, unlike_fmr=0.0003)
HOW = Enrolment(RULES, (), toy_fmr())


def drawn(seed):
    """Faces of people who look alike, and of some who do not look like themselves; names."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((14, SPACE.dimension))
    centres[1::4] = centres[::4][: len(centres[1::4])] + 0.3 * rng.standard_normal((4, 8))[:4]
    rows, names = [], []
    for number, centre in enumerate(centres):
        for _ in range(int(rng.integers(1, 6))):
            rows.append(centre + rng.choice([0.3, 1.2]) * rng.standard_normal(SPACE.dimension))
            names.append(f"p{number:02d}")
    return unit(np.array(rows)).astype(np.float32), names


def measured(rows, names, refused=None, how=HOW):
    return compare(
        People.of(rows, names), refused or [set() for _ in names], how, lambda done, total: None
    )


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_what_is_refused_in_order_is_what_enrolment_refuses(seed):
    rows, names = drawn(seed)
    blurred = np.random.default_rng(seed).random(len(names)) < 0.1
    store = MemoryStore()
    with store.write() as draft:
        draft.put(SPACE)
    index, counted, stopped = Index(store, SPACE.contract), collections.Counter(), 0
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        sharp = {"sharpness": 1.0 if blurred[number] else 99.0}
        seen = Sighting(faces_of([row]), [sharp], photo=f"{number:064}")
        (answer,) = enrol(store, index, Enrollee(name), [seen], HOW)
        counted.update({reason.code for reason in answer.reasons})
        stopped += answer.refused
    refused = [{BLURRED} if one else set() for one in blurred]
    found = measured(rows, names, refused)["in_order"]
    assert found["reasons"] == dict(counted)
    assert (found["stopped"], found["of"]) == (stopped, len(names))
    assert len(counted) == 3


def test_the_shares_of_each_rule_are_those_of_loops_over_every_pair():
    rows, names = drawn(7)
    found = measured(rows, names)
    conflict, unlike = HOW.conflict_level(len(names)), HOW.unlike_level()
    assert found["conflict"]["similarity"] == conflict
    assert found["unlike"]["similarity"] == unlike
    people = sorted(set(names))
    second, new, wrong, right, known = 0, 0, 0, 0, 0
    for i, row in enumerate(rows):
        best = dict.fromkeys(people, -2.0)
        for j, other in enumerate(rows):
            if i != j:
                best[names[j]] = max(best[names[j]], float(row @ other))
        mine = best[names[i]]
        others = [value for who, value in best.items() if who != names[i]]
        new += max(others) >= conflict
        wrong += sum(value < unlike for value in others)
        if mine > -2:
            known += 1
            second += max(best.values()) >= conflict
            right += mine < unlike
    assert found["conflict"]["second_names"] == {
        "stopped": second, "of": known, "share": second / known
    }  # fmt: skip
    assert found["conflict"]["new_people"]["stopped"] == new
    assert found["unlike"]["wrong_person"]["share"] == wrong / (len(rows) * (len(people) - 1))
    assert found["unlike"]["right_person"]["stopped"] == right
    assert min(second, new, wrong, right) > 0


def test_rules_that_no_rates_reach_have_no_figures_and_nobody_has_a_second_photo():
    rows, names = unit(np.eye(3, 8)).astype(np.float32), ["a", "b", "c"]
    blind = measured(rows, names, how=Enrolment(RULES))
    assert (blind["conflict"], blind["unlike"]) == (None, None)
    alone = measured(rows, names)
    assert alone["unlike"]["right_person"] == {"stopped": 0, "of": 0, "share": None}
    about = {"faces": 3, "people": 3, "model": "toy"}
    text = rules_text({**about, **blind})
    assert text.count("left out, the rates that are known do not reach so far") == 2
    assert "none of 0 faces given to the right one" in rules_text({**about, **alone})


def test_one_person_is_too_few():
    with pytest.raises(DataError, match="two people or more; there are 1 here"):
        People.of(np.ones((2, 8), np.float32), ["a", "a"])


def test_the_bound_on_scores_is_that_of_one_detector():
    assert rules_for("mtcnn:1").min_detection_score == 0.986
    assert rules_for("yunet:1").min_detection_score is None
    assert rules_for(None) == EnrolmentRules()
