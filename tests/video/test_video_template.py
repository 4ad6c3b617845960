"""One vector for a track: quality, pooling, and faces of somebody else."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import looks

from facenet import vectors
from facenet.video.template import DOUBTS, KEPT, SURE, Look, Template, face_quality

GOOD = {"face_size": 60.0, "sharpness": 230.0, "yaw": 0.0, "pitch": 0.0, "detection_score": 1.0}


def look(name, seed, quality=0.8):
    return Look(looks(name, seed), quality)


def filled(*given, agree=0.2):
    template = Template(agree)
    for one in given:
        assert template.add(one) is None
    return template


def test_quality_is_the_product_of_its_parts() -> None:
    assert face_quality(GOOD) == pytest.approx(230 / 253)
    measures = {"face_size": 22, "sharpness": 23, "yaw": -0.4, "pitch": 0.25}
    expected = 0.5 * 0.5 * 0.6 * 0.9
    assert face_quality({**measures, "detection_score": 0.9}) == pytest.approx(expected)
    assert face_quality({"detection_score": 0.7}) == pytest.approx(0.7)
    assert face_quality({"inside": 0.75, "detection_score": 0.7}) == pytest.approx(0.5 * 0.7)


@pytest.mark.parametrize(
    "worse",
    [{"face_size": 16.0}, {"sharpness": 5.0}, {"yaw": 0.9}, {"pitch": -0.8},
     {"detection_score": 0.4}, {"inside": 0.6}],
)  # fmt: skip
def test_each_measure_lowers_the_quality_and_none_to_nothing(worse) -> None:
    assert 0 < face_quality({**GOOD, **worse}) < face_quality(GOOD)
    nothing = {"face_size": 1.0, "sharpness": 0.0, "yaw": 1.0, "detection_score": 0.0}
    assert face_quality(nothing) == pytest.approx(1e-8)


def test_the_template_is_the_weighted_mean() -> None:
    given = [look("Ada", seed, 0.1 + 0.1 * seed) for seed in range(6)]
    total = sum(one.quality * one.vector.astype(np.float64) for one in given)
    template = filled(*given)
    np.testing.assert_allclose(template.vector, total / np.linalg.norm(total), atol=1e-6)
    assert template.faces == 6
    assert template.quality == pytest.approx(0.6)
    assert Template(0.2).vector is None
    assert Template(0.2).agrees(given[0].vector)


@pytest.mark.parametrize("place", [0, 1, 4])
def test_a_wrong_face_changes_nothing(place) -> None:
    """Whenever it comes, and though it is the best of all."""
    right = [look("Ada", seed, 0.3) for seed in range(5)]
    mixed = [*right[:place], look("Bob", 9, 1.0), *right[place:]]
    np.testing.assert_allclose(filled(*mixed).vector, filled(*right).vector, atol=1e-6)


def test_the_best_faces_are_kept() -> None:
    qualities = np.random.default_rng(1).permutation(np.linspace(0.05, 1, 3 * KEPT))
    given = [look("Ada", seed, float(quality)) for seed, quality in enumerate(qualities)]
    best = sorted(given, key=lambda one: -one.quality)[:KEPT]
    np.testing.assert_allclose(filled(*given).vector, filled(*best).vector, atol=1e-6)
    assert filled(*given).faces == 3 * KEPT


def test_faces_of_somebody_else_in_a_row_are_handed_back() -> None:
    template = filled(*(look("Ada", seed) for seed in range(4)))
    before = template.vector
    others = [look("Bob", seed) for seed in range(DOUBTS)]
    assert [template.add(one) for one in others[:-1]] == [None] * (DOUBTS - 1)
    assert template.doubting
    assert template.add(others[-1]) == others
    np.testing.assert_array_equal(template.vector, before)
    assert not template.doubting


def test_a_face_that_agrees_ends_the_doubts() -> None:
    template = filled(*(look("Ada", seed) for seed in range(4)))
    for seed in range(6):
        name = "Ada" if seed % DOUBTS == DOUBTS - 1 else "Bob"
        assert template.add(look(name, 20 + seed)) is None


def test_poor_faces_and_faces_of_many_people_speak_for_nobody() -> None:
    template = filled(*(look("Ada", seed) for seed in range(4)))
    for seed in range(8):
        assert template.add(look("Bob", seed, SURE / 2)) is None
        assert template.add(look(f"somebody {seed}", seed)) is None
    assert float(vectors.similarity(template.vector, looks("Ada"))) > 0.9


def test_two_templates_of_a_person_become_one() -> None:
    one, two = ([look("Ada", seed) for seed in rows] for rows in (range(4), range(4, 7)))
    joined = filled(*one)
    joined.absorb(filled(*two))
    np.testing.assert_allclose(joined.vector, filled(*one, *two).vector, atol=1e-6)
    assert joined.faces == 7


def test_poor_faces_in_between_do_not_hide_that_it_is_somebody_else() -> None:
    """They agree with nobody: not with those before, and they do not speak for the newcomer."""
    template = filled(*(look("Ada", seed) for seed in range(8)))
    given = [look("Bob", seed, SURE if seed % 2 else SURE / 2) for seed in range(2 * DOUBTS)]
    found = [template.add(one) for one in given]
    assert found[:-1] == [None] * (len(given) - 1)
    assert [one.quality for one in found[-1]] == [SURE] * DOUBTS
    assert template.vector @ looks("Ada") > 0.9


def test_after_an_absence_only_a_face_like_the_template_counts() -> None:
    template = filled(*(look("Ada", seed) for seed in range(8)))
    for seed in range(3):
        assert template.add(look("Bob", seed, SURE / 2), back=True) is None
        assert (template.faces, template.liked) == (8, False)
    template.add(look("Ada", 9, SURE / 2), back=True)
    assert (template.faces, template.liked) == (9, True)


def test_one_good_face_or_two_that_count_are_fit() -> None:
    assert not Template(0.2).fit
    assert not filled(look("Ada", 0, SURE / 2)).fit
    assert filled(look("Ada", 0, SURE)).fit
    assert filled(look("Ada", 0, 0.05), look("Ada", 1, 0.05)).fit
