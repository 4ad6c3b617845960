"""The protocols against a second derivation of facenet's and InsightFace's `evaluate`, in loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from facenet.data.pairset import PairSet, Picture
from facenet.errors import DataError, SettingsError
from facenet.evaluate.folds import cross_validate, exact_threshold, far_threshold
from facenet.evaluate.verification import VerificationSettings, Views, verify_pairs

PEOPLE, EACH, SIZE = 12, 4, 6


def world(seed, folds=4, pairs=80, broken=False):
    """Noisy vectors of people, their mirror images, and pairs in contiguous folds."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(PEOPLE, SIZE))
    people = np.repeat(np.arange(PEOPLE), EACH)
    plain = centres[people] + generator.normal(0, 0.8, (len(people), SIZE)) + 0.7
    mirrored = plain + generator.normal(0, 0.4, plain.shape)
    found = np.ones(len(people), bool)
    if broken:
        found[generator.choice(len(people), 5, replace=False)] = False
        plain[~found] = mirrored[~found] = np.nan
    a, b = generator.integers(0, len(people), (2, pairs))
    b[::2] = people[a[::2]] * EACH + generator.integers(0, EACH, len(b[::2]))
    pictures = tuple(Picture(str(row), None, str(person)) for row, person in enumerate(people))
    fold = np.arange(pairs) * folds // pairs
    pairset = PairSet("toy", pictures, a, b, people[a] == people[b], fold)
    views = Views(plain.astype(np.float32), mirrored.astype(np.float32), found)
    return pairset, views


def unit(row):
    return row / math.sqrt(sum(value * value for value in row))


def picture_vector(views, row, settings):
    """What stands for a picture, in float64; None without a face."""
    if not views.found[row]:
        return None
    plain, mirrored = (v[row].astype(np.float64) for v in (views.plain, views.mirrored))
    if settings.protocol == "insightface" or (settings.protocol == "cosine" and settings.flip):
        return unit(plain + mirrored)
    if settings.flip:
        return np.concatenate([unit(plain), unit(mirrored)])
    return unit(plain)


def distance(one, two, settings):
    if settings.distance == "angle":
        cosine = float(one @ two) / math.sqrt(float(one @ one) * float(two @ two))
        return math.acos(max(-1.0, min(1.0, cosine))) / math.pi
    return sum(float(value) ** 2 for value in one - two)


def published(pairs, views, settings):
    """facenet.evaluate(): per fold (threshold, accuracy, VAL, FAR), in loops over the grid."""
    rows = [picture_vector(views, row, settings) for row in range(len(pairs.pictures))]
    results = []
    for fold in sorted(set(pairs.fold.tolist())):
        training = [n for n in range(len(pairs)) if pairs.fold[n] != fold]
        mean = 0.0
        if settings.subtract_mean:
            sides = [(rows[pairs.a[n]], rows[pairs.b[n]]) for n in training]
            both = [side for side in sides if side[0] is not None and side[1] is not None]
            mean = np.mean([row for side in both for row in side], axis=0)
        dist = []
        for n in range(len(pairs)):
            one, two = rows[pairs.a[n]], rows[pairs.b[n]]
            missing = one is None or two is None
            dist.append(math.inf if missing else distance(one - mean, two - mean, settings))
        right = [
            sum((dist[n] < step / 100) == pairs.same[n] for n in training) for step in range(400)
        ]
        threshold = right.index(max(right)) / 100
        test = [n for n in range(len(pairs)) if pairs.fold[n] == fold]
        accuracy = np.mean([(dist[n] < threshold) == pairs.same[n] for n in test])
        others = [dist[n] for n in training if not pairs.same[n]]
        fars = [np.mean([d < step / 1000 for d in others]) for step in range(4000)]
        reached = [step for step, far in enumerate(fars) if far <= 1e-3]
        val_threshold = reached[-1] / 1000 if fars[-1] >= 1e-3 else 0.0
        val = np.mean([dist[n] < val_threshold for n in test if pairs.same[n]])
        far = np.mean([dist[n] < val_threshold for n in test if not pairs.same[n]])
        results.append((threshold, accuracy, val, far))
    return np.array(results)


SETTINGS = [
    VerificationSettings(),
    VerificationSettings(flip=True),
    VerificationSettings(subtract_mean=True),
    VerificationSettings(flip=True, subtract_mean=True),
    VerificationSettings(distance="angle"),
    VerificationSettings(distance="angle", subtract_mean=True),
    VerificationSettings("insightface"),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("broken", [False, True])
def test_folds_thresholds_and_accuracies_are_the_published_ones(settings, broken):
    pairs, views = world(3, broken=broken)
    decided = verify_pairs(pairs, views, settings).decisions
    expected = published(pairs, views, settings)
    assert 0.55 < expected[:, 1].mean() < 1  # neither blind nor perfect
    assert decided.threshold == pytest.approx(expected[:, 0])
    assert decided.accuracy == pytest.approx(expected[:, 1])
    assert decided.val == pytest.approx(expected[:, 2])
    assert decided.far == pytest.approx(expected[:, 3])


@pytest.mark.parametrize("settings", SETTINGS[:4] + SETTINGS[6:], ids=str)
def test_similarity_is_the_cosine_that_belongs_to_the_distance(settings):
    pairs, views = world(5)
    result = verify_pairs(pairs, views, settings)
    if not settings.subtract_mean:
        for n in range(len(pairs)):
            one, two = (picture_vector(views, row, settings) for row in (pairs.a[n], pairs.b[n]))
            cosine = one @ two / math.sqrt((one @ one) * (two @ two))
            assert result.similarity[n] == pytest.approx(cosine, abs=1e-6)
    order = np.argsort(result.similarity)
    assert np.all(np.diff(result.decisions.distance[order]) <= 1e-12)


@pytest.mark.parametrize("settings", [SETTINGS[0], VerificationSettings("cosine")], ids=str)
def test_a_pair_without_a_face_never_matches(settings):
    pairs, views = world(3, broken=True)
    result = verify_pairs(pairs, views, settings)
    lost = ~(views.found[pairs.a] & views.found[pairs.b])
    assert lost.any()
    assert np.all(result.similarity[lost] == -np.inf)
    assert np.array_equal(result.decisions.correct[lost], ~pairs.same[lost])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_cosine_takes_a_threshold_that_no_other_beats(seed, flip):
    pairs, views = world(seed, broken=seed == 3)
    settings = VerificationSettings("cosine", flip=flip)
    result = verify_pairs(pairs, views, settings)
    score = np.full(len(pairs), -np.inf)
    for n in range(len(pairs)):
        one, two = (picture_vector(views, row, settings) for row in (pairs.a[n], pairs.b[n]))
        if one is not None and two is not None:
            score[n] = one @ two
    for fold in range(4):
        training, test = pairs.fold != fold, pairs.fold == fold
        right = {
            level: np.sum((score[training] >= level) == pairs.same[training])
            for level in [*np.linspace(-1, 1, 2001), *score[training & np.isfinite(score)], 1.1]
        }
        own = result.thresholds[fold]
        mine = np.sum((score[training] >= own) == pairs.same[training])
        assert mine == max(right.values())
        assert result.decisions.accuracy[fold] == pytest.approx(
            np.mean((score[test] >= own) == pairs.same[test])
        )


def test_exact_threshold_is_the_middle_of_the_widest_best_interval():
    distance = np.array([0.125, 0.25, 0.5, 0.625, 0.875, np.inf])
    same = np.array([True, True, False, True, False, True])
    # best, with one wrong each: from 0.25 to 0.5, and from 0.625 to 0.875; of equals the first
    assert exact_threshold(distance, same) == 0.375
    distance[3] = 0.5625
    assert exact_threshold(distance, same) == 0.71875
    assert exact_threshold(np.array([np.inf]), np.array([True])) == 0


def test_the_first_of_the_best_thresholds_of_the_grid_wins():
    """Same pairs at 0.206, different ones at 1.0: every threshold from 0.21 to 1.0 is best."""
    distance = np.array([0.206, 1.0] * 2)
    decided = cross_validate(
        lambda training: distance, np.array([True, False] * 2), np.array([0, 0, 1, 1])
    )
    assert decided.accuracy.tolist() == [1, 1]
    assert decided.threshold == pytest.approx([0.21, 0.21])


def test_a_pair_matches_below_the_threshold_and_not_at_it():
    """0.5 lies exactly on the grid: only from 0.51 on is it a match."""
    decided = cross_validate(
        lambda training: np.full(2, 0.5), np.array([True, True]), np.array([0, 1])
    )
    assert decided.threshold == pytest.approx([0.51, 0.51])


def test_far_that_is_never_reached_has_the_threshold_of_facenet():
    assert far_threshold(np.array([0.5, 9.0]), np.array([True, False])) == 0
    assert far_threshold(np.array([0.5]), np.array([True])) == 0


def test_one_fold_cannot_be_cross_validated():
    pairs, views = world(1, folds=1)
    with pytest.raises(DataError, match="two folds or more; got 1"):
        verify_pairs(pairs, views, VerificationSettings())


def test_protocols_refuse_what_they_do_not_have():
    for wrong in ({"protocol": "lfw"}, {"distance": "cosine"}):
        with pytest.raises(SettingsError, match="should be one of"):
            VerificationSettings(**wrong)
    with pytest.raises(SettingsError, match="belongs to the protocol facenet"):
        VerificationSettings("cosine", distance="angle")
    with pytest.raises(SettingsError, match="does not subtract a mean"):
        VerificationSettings("insightface", subtract_mean=True)
    pairs, views = world(1)
    bare = Views(views.plain, None, views.found)
    with pytest.raises(DataError, match="mirror images"):
        verify_pairs(pairs, bare, VerificationSettings("insightface"))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_vectors_that_are_none_are_refused_with_their_picture(value):
    plain = np.ones((3, 2), np.float32)
    plain[1] = value
    with pytest.raises(DataError, match="1 are not, the first of them that of picture 1"):
        Views(plain, None, np.ones(3, bool))
    Views(plain, None, np.array([True, False, True]))


def test_sentences_name_what_was_done():
    assert VerificationSettings().sentence(10) == (
        "facenet: 10 contiguous folds, squared Euclidean distance, threshold (steps of 0.01) from "
        "the other folds, no flip"
    )
    assert "flips concatenated, mean" in VerificationSettings(
        flip=True, subtract_mean=True
    ).sentence(10)
    assert "flips summed" in VerificationSettings("insightface").sentence(10)
    assert "angle / pi" in VerificationSettings(distance="angle").sentence(10)
    assert "all scores" in VerificationSettings("cosine").sentence(10)


@pytest.mark.parametrize("settings", [SETTINGS[0], VerificationSettings("cosine")], ids=str)
def test_many_pairs_are_compared_as_few_are(settings):
    pairs, views = world(6, pairs=40_000)
    result = verify_pairs(pairs, views, settings)
    rows = views.plain / np.linalg.norm(views.plain, axis=1, keepdims=True)
    products = np.einsum("nd,nd->n", rows[pairs.a], rows[pairs.b])
    assert result.similarity == pytest.approx(products, abs=1e-5)
