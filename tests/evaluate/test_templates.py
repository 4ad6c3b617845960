"""Pooling of faces into templates, re-derived face by face, and the similarity of pairs."""

from __future__ import annotations

import numpy as np
import pytest

from facenet.data.ijb import IjbFaces
from facenet.errors import InputError, SettingsError
from facenet.evaluate.templates import (
    AGGREGATIONS,
    CHUNK,
    Pooling,
    Templates,
    combine,
    pair_similarity,
    pool_templates,
)


def made_faces(count, templates, media, seed=0, dimension=5):
    """Faces in any order, and unnormalised features of which a template's are alike."""
    generator = np.random.default_rng(seed)
    template = generator.integers(0, templates, count) * 3 + 7
    faces = IjbFaces(
        tuple(f"{n}.jpg" for n in range(count)),
        template,
        generator.integers(0, media, count),
        np.zeros((count, 5, 2), np.float32),
        generator.uniform(0.05, 1, count).astype(np.float32),
    )
    centres = generator.normal(size=(templates * 3 + 8, dimension))
    features = centres[template] + generator.normal(size=(count, dimension))
    features *= generator.uniform(1, 30, (count, 1))
    return faces, features.astype(np.float32), generator.normal(size=count)


def length_one(vector):
    return vector / np.linalg.norm(vector)


def by_hand(faces, features, how, quality):
    """Template number -> vector, straight from the definitions, in float64."""
    result = {}
    for number in sorted(set(faces.template.tolist())):
        rows = [n for n, other in enumerate(faces.template) if other == number]
        weight = {n: float(faces.detection_score[n]) if how.detector else 1.0 for n in rows}
        full = {n: features[n].astype(np.float64) for n in rows}
        direction = {n: length_one(full[n]) for n in rows}
        used = {n: (full[n] if how.keep_norm else direction[n]) * weight[n] for n in rows}
        if how.aggregation == "media":
            media = sorted({int(faces.media[n]) for n in rows})
            total = sum(np.mean([used[n] for n in rows if faces.media[n] == m], 0) for m in media)
        elif how.aggregation == "norm_weighted":
            total = sum(used.values())
        else:
            total = directed(rows, direction, weight, how, quality, faces)
        result[number] = length_one(total)
    return result


def directed(rows, direction, weight, how, quality, faces):
    """The aggregations that look at directions alone."""
    if how.aggregation == "mean":
        return sum(direction[n] * weight[n] for n in rows)
    if how.aggregation == "quality":
        shares = np.exp(np.array([quality[n] for n in rows]) / how.tau)
        return sum(
            direction[n] * weight[n] * share
            for n, share in zip(rows, shares / shares.sum(), strict=True)
        )
    ordered = sorted(rows, key=lambda n: (faces.media[n], n))
    central = {
        i: np.mean([weight[j] * (direction[i] @ direction[j]) for j in rows]) for i in ordered
    }
    ranked = sorted(ordered, key=lambda n: -round(central[n], 7))
    if how.aggregation == "medoid":
        return direction[ranked[0]]
    kept = ranked[: len(rows) - int(how.trim * len(rows) + 1e-9)]
    return sum(direction[n] * weight[n] for n in kept)


WAYS = [(name, n, d) for name in AGGREGATIONS for n in (False, True) for d in (False, True)]


@pytest.mark.parametrize(("name", "keep_norm", "detector"), WAYS)
def test_every_aggregation_is_its_definition(name, keep_norm, detector):
    faces, features, quality = made_faces(160, 23, 6)
    how = Pooling(name, keep_norm=keep_norm, detector=detector, tau=0.7, trim=0.3)
    pooled = pool_templates(features, faces, how, quality=quality)
    expected = by_hand(faces, features, how, quality)
    assert pooled.numbers.tolist() == list(expected)
    assert pooled.vectors == pytest.approx(np.stack(list(expected.values())), abs=2e-6)
    assert not pooled.lost.any()


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_templates_over_many_chunks_and_one_larger_than_a_chunk(name):
    faces, features, quality = made_faces(2 * CHUNK + 77, 400, 5, dimension=3)
    faces.template[500 : CHUNK + 900] = 1
    how = Pooling(name)
    whole = pool_templates(features, faces, how, quality=quality)
    assert whole.numbers.tolist() == np.unique(faces.template).tolist()
    for number in (1, *whole.numbers[[2, 200, -1]].tolist()):
        rows = np.flatnonzero(faces.template == number)
        alone = IjbFaces(
            tuple(faces.names[n] for n in rows),
            faces.template[rows],
            faces.media[rows],
            faces.landmarks[rows],
            faces.detection_score[rows],
        )
        one = pool_templates(features[rows], alone, how, quality=quality[rows])
        place = whole.numbers.tolist().index(number)
        assert whole.vectors[place] == pytest.approx(one.vectors[0], abs=1e-5)


def test_media_pooling_is_that_of_insightface():
    """image2template_feature of ijb_11.py, in its own steps: N1, D1, media mean, sum, L2."""
    faces, features, _ = made_faces(90, 11, 4, seed=3)
    weighted = features * faces.detection_score[:, np.newaxis]
    unique = np.unique(faces.template)
    expected = np.zeros((len(unique), features.shape[1]))
    for count, number in enumerate(unique):
        (index,) = np.where(faces.template == number)
        media_features = []
        for medium in np.unique(faces.media[index]):
            (inside,) = np.where(faces.media[index] == medium)
            media_features += [np.mean(weighted[index][inside], 0, keepdims=True)]
        expected[count] = np.sum(np.array(media_features), 0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    pooled = pool_templates(features, faces, Pooling())
    assert pooled.vectors == pytest.approx(expected, abs=1e-6)


def test_order_of_the_faces_does_not_matter():
    faces, features, quality = made_faces(300, 20, 9, seed=5)
    order = np.random.default_rng(0).permutation(300)
    shuffled = IjbFaces(
        tuple(faces.names[n] for n in order),
        faces.template[order],
        faces.media[order],
        faces.landmarks[order],
        faces.detection_score[order],
    )
    for name in AGGREGATIONS:
        one = pool_templates(features, faces, Pooling(name), quality=quality)
        two = pool_templates(features[order], shuffled, Pooling(name), quality=quality[order])
        assert one.vectors == pytest.approx(two.vectors, abs=1e-5)


def test_without_trimming_it_is_the_mean_and_with_much_it_is_near_the_medoid():
    faces, features, _ = made_faces(200, 15, 9, seed=6)
    mean = pool_templates(features, faces, Pooling("mean"))
    none = pool_templates(features, faces, Pooling("trimmed_mean", trim=0))
    assert none.vectors == pytest.approx(mean.vectors, abs=1e-6)
    medoid = pool_templates(features, faces, Pooling("medoid", detector=False))
    most = pool_templates(features, faces, Pooling("trimmed_mean", detector=False, trim=0.999))
    assert most.vectors == pytest.approx(medoid.vectors, abs=1e-6)


def test_the_medoid_of_two_faces_is_the_first():
    """Both are as central; rounding must not decide."""
    faces, features, _ = made_faces(400, 1, 400, seed=7)
    faces.template[:] = np.repeat(np.arange(200), 2)
    faces.media[:] = np.arange(400)
    pooled = pool_templates(features, faces, Pooling("medoid", detector=False))
    for number in range(200):
        assert pooled.vectors[number] == pytest.approx(length_one(features[2 * number]), abs=1e-6)


def test_flags_and_combination():
    assert Pooling().flags == "N1D1F1"
    assert Pooling(keep_norm=False, detector=False, flip=False).flags == "N0D0F0"
    plain, flipped = np.float32([[1, 2], [3, 4]]), np.float32([[10, 20], [30, 40]])
    assert combine(plain, flipped, Pooling()).tolist() == [[11, 22], [33, 44]]
    assert combine(plain, None, Pooling(flip=False)).tolist() == plain.tolist()
    for other, came in ((None, "none"), (flipped[:1], r"those of shape \(1, 2\)")):
        with pytest.raises(InputError, match=f"the same of the mirrored pictures; got {came}"):
            combine(plain, other, Pooling())


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"aggregation": "median"}, "one of media, mean, norm_weighted, .*; got 'median'"),
     ({"tau": 0}, "got 0 and 0.2"), ({"tau": np.nan}, "got nan"), ({"tau": np.inf}, "got inf"),
     ({"trim": 1}, "from 0 to below 1; got 1.0 and 1"), ({"trim": -0.1}, "got 1.0 and -0.1")],
)  # fmt: skip
def test_settings_that_do_not_exist(settings, told):
    with pytest.raises(SettingsError, match=told):
        Pooling(**settings)


def test_features_that_do_not_fit():
    faces, features, quality = made_faces(30, 4, 4)
    for wrong in (features[:29], features[0], features.astype(np.float64)):
        with pytest.raises(InputError, match="a float32 feature for each of the 30 faces; got"):
            pool_templates(wrong, faces, Pooling())
    for value in (np.nan, np.inf, 1e30):
        broken = features.copy()
        broken[17, 2] = value
        with pytest.raises(InputError, match="finite and below 1e15; those of face 17 are not"):
            pool_templates(broken, faces, Pooling())
    with pytest.raises(InputError, match="needs a quality for each face; got none"):
        pool_templates(features, faces, Pooling("quality"))
    for wrong_quality in (quality[:5], np.where(quality > 0, quality, np.nan)):
        with pytest.raises(InputError, match="Qualities should be 30 finite numbers; got shape"):
            pool_templates(features, faces, Pooling("quality"), quality=wrong_quality)


def test_pairs_are_cosines_and_lost_templates_match_nobody():
    faces, features, _ = made_faces(4000, 900, 9, seed=8)
    lost = sorted(set(faces.template.tolist()))[3]
    features[faces.template == lost] = 0
    pooled = pool_templates(features, faces, Pooling())
    assert pooled.numbers[pooled.lost].tolist() == [lost]
    generator = np.random.default_rng(1)
    a, b = (generator.choice(pooled.numbers, 2 * CHUNK + 5) for _ in range(2))
    similarity = pair_similarity(pooled, a, b)
    row = {int(number): n for n, number in enumerate(pooled.numbers)}
    for n in generator.integers(0, len(a), 300):
        one, two = pooled.vectors[row[int(a[n])]], pooled.vectors[row[int(b[n])]]
        expected = -np.inf if lost in (a[n], b[n]) else one @ two
        assert similarity[n] == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(similarity == -np.inf, (a == lost) | (b == lost))
    assert (similarity == -np.inf).any()
    assert similarity.max() <= 1


@pytest.mark.parametrize("number", [6, 8, 10**17])
def test_an_unknown_template_is_refused(number):
    templates = Templates(np.array([7, 9]), np.eye(2, dtype=np.float32))
    with pytest.raises(InputError, match=f"the 2 that were pooled; number {number} is not"):
        pair_similarity(templates, np.array([7, number]), np.array([9, 9]))
