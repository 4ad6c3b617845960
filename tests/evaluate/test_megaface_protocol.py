"""The MegaFace challenge on made-up features, re-derived pair by pair, and noise removal."""

from __future__ import annotations

import json

import numpy as np
import pytest

from facenet import vectors
from facenet.data.megaface import (
    feature_path,
    noisy,
    person_of,
    read_features,
    read_image_list,
    read_noise_list,
    write_feature,
)
from facenet.errors import DataError, InputError, SettingsError
from facenet.evaluate import curves
from facenet.evaluate.intervals import share_interval, subject_weights
from facenet.evaluate.megaface import (
    CELLS,
    MegafaceSettings,
    insightface_far_distractors,
    insightface_noise_removal,
    megaface_report,
)

SIZES = (1, 4, 20, 100)


def made_up(seed=0, probes=34, people=7, distractors=150, dimension=6):
    generator = np.random.default_rng(seed)
    who = np.append(generator.integers(0, people, probes - 1), people)  # one picture alone
    centres = generator.normal(size=(people + 1, dimension))
    rows = centres[who] + 0.9 * generator.normal(size=(probes, dimension))
    rows *= generator.uniform(0.5, 9, (probes, 1))
    far = generator.normal(size=(distractors, dimension)) * 3
    names = [f"person {n}" for n in who]
    return rows.astype(np.float32), names, far.astype(np.float32)


def by_hand(rows, names, far, size, seed):
    """Hits per person: for each ordered pair (i, j) whether j beats the subset of distractors."""
    place = np.random.default_rng(seed).permutation(len(far))
    unit, others = vectors.unit(rows), vectors.unit(far[place < size])
    hits, pairs = {}, {}
    for i, name in enumerate(names):
        for j, other in enumerate(names):
            if i != j and name == other:
                rival = max(float(unit[i] @ row) for row in others)
                pairs[name] = pairs.get(name, 0) + 1
                hits[name] = hits.get(name, 0) + (float(unit[i] @ unit[j]) > rival + 1e-6)
    return hits, pairs


@pytest.mark.parametrize("seed", range(3))
def test_rank_one_is_that_of_all_ordered_pairs(seed):
    rows, names, far = made_up(seed)
    settings = MegafaceSettings(SIZES, (0.01,), replicates=200, seed=seed)
    report = megaface_report(rows, names, far, settings)
    assert json.loads(json.dumps(report)) == report
    assert [point["distractors"] for point in report["rank_1"]] == [*SIZES, 150]
    rates = []
    for point in report["rank_1"]:
        hits, pairs = by_hand(rows, names, far, point["distractors"], seed)
        assert point["hits"] == sum(hits.values())
        assert report["ordered_pairs"] == sum(pairs.values())
        rates.append(point["hits"] / sum(pairs.values()))
        assert point["rate"] == pytest.approx(rates[-1])
        weights = subject_weights(len(set(names)), 200, seed)
        people = sorted(set(names))
        drawn = [
            sum(w * hits.get(p, 0) for w, p in zip(weight, people, strict=True))
            / sum(w * pairs.get(p, 0) for w, p in zip(weight, people, strict=True))
            for weight in weights
        ]
        expected = share_interval(np.array(drawn), point["rate"], len(people))
        assert point["ci"] == pytest.approx(list(expected))
    assert rates == sorted(rates, reverse=True)  # nested subsets: never easier with more
    assert rates[0] > rates[-1]
    assert (report["probes"], report["people"], report["distractors"]) == (34, 8, 150)


@pytest.mark.parametrize("rates", [(0.1, 0.01, 1e-3, 1e-4), (1e-3,), (0.5,)])
def test_verification_is_that_of_all_probes_with_all_distractors(rates):
    rows, names, far = made_up(4)
    report = megaface_report(rows, names, far, MegafaceSettings(SIZES, rates, replicates=50))
    unit = vectors.unit(rows)
    pairs = [(i, j) for i in range(34) for j in range(i) if names[i] == names[j]]
    mated = np.array([float(unit[i] @ unit[j]) for i, j in pairs])
    others = (unit @ vectors.unit(far).T).ravel().astype(np.float64)
    found = report["verification"]
    assert (found["mated"], found["non_mated"]) == (len(mated), 34 * 150)
    for rate in rates:
        name = curves.rate_name(rate)
        if rate == 1e-4:
            assert found["refused"] == {
                name: "FAR 1e-4 needs 30,000 non-mated pairs (3 / rate); there are 5,100."
            }
            continue
        point, expected = found["tar_at_far"][name], curves.tar_at_far(mated, others, rate)
        assert point["tar"] == expected.tar
        assert point["false_matches"] == expected.false_matches
        assert point["far"] == expected.far <= rate
        assert point["threshold"] == pytest.approx(expected.threshold, abs=1e-6)
        assert point["ci"][0] <= point["tar"] <= point["ci"][1]


def test_blocks_of_any_size_give_the_same_as_one_array():
    rows, names, far = made_up(5)
    settings = MegafaceSettings(SIZES, (0.1, 1e-3), replicates=20)
    whole = megaface_report(rows, names, far, settings)
    for cuts in ([40, 41, 120], [0, 150, 150], list(range(1, 150))):
        blocks = iter(np.split(far, cuts))
        assert megaface_report(rows, names, blocks, settings, count=150) == whole


def test_more_similarities_than_are_held_at_once():
    """The pool of the highest is trimmed many times; sizes are of the drawn order."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(800, 4)).astype(np.float32)
    names = [str(n // 4) for n in range(800)]
    far = generator.normal(size=(30_000, 4)).astype(np.float32)
    assert len(rows) * len(far) > 2 * CELLS
    settings = MegafaceSettings((100,), (0.01, 1e-5), replicates=5, seed=3)
    report = megaface_report(rows, names, far, settings)
    scores = (vectors.unit(rows) @ vectors.unit(far).T).ravel()
    for name, point in report["verification"]["tar_at_far"].items():
        allowed = int(float(name) * len(scores) + 1e-9)
        refused = np.partition(scores, len(scores) - 1 - allowed)[-1 - allowed]
        near = int(np.sum(np.abs(scores - refused) < 1e-6))  # blocks may round another way
        assert abs(point["false_matches"] - int(np.sum(scores > refused))) <= near
        assert refused - 1e-6 <= point["threshold"] <= refused + 1e-3
    hits, pairs = report["rank_1"][-1]["hits"], 200 * 12
    unit = vectors.unit(rows).reshape(200, 4, 4)
    own = np.einsum("pid,pjd->pij", unit, unit)
    own[:, range(4), range(4)] = -2
    best = scores.reshape(800, -1).max(axis=1).reshape(200, 4, 1)
    assert abs(hits - int(np.sum(own > best))) <= 2
    assert report["ordered_pairs"] == pairs


def test_a_distractor_like_the_mate_is_no_hit():
    """Ties count against the system, however float32 rounds them."""
    rows, names, far = made_up(6, distractors=60)
    far[:34] = rows * 2.5  # every probe, and so every mate, is a distractor too
    report = megaface_report(rows, names, far, MegafaceSettings((), (0.1,), replicates=5))
    assert [(p["distractors"], p["hits"]) for p in report["rank_1"]] == [(60, 0)]


def test_pictures_without_a_face_are_misses():
    rows, names, far = made_up(7)
    far = -np.abs(far)
    rows = np.abs(rows)  # every mate is above every distractor
    full = megaface_report(rows, names, far, MegafaceSettings((), (0.1,), replicates=5))
    assert full["rank_1"][0]["rate"] == full["verification"]["tar_at_far"]["1e-1"]["tar"] == 1
    rows[0], far[:20] = 0, 0
    lost = megaface_report(rows, names, far, MegafaceSettings((3,), (0.1,), replicates=5))
    friends = names.count(names[0]) - 1
    assert friends > 0
    assert (lost["probes_lost"], lost["distractors_lost"]) == (1, 20)
    for point in lost["rank_1"]:
        assert point["hits"] == full["rank_1"][0]["hits"] - 2 * friends
    tar = lost["verification"]["tar_at_far"]["1e-1"]["tar"]
    assert tar == 1 - friends / lost["verification"]["mated"]
    far[:] = 0
    none = megaface_report(rows, names, far, MegafaceSettings((3,), (0.1,), replicates=5))
    assert none["verification"]["tar_at_far"]["1e-1"]["false_matches"] == 0
    assert none["rank_1"][0]["hits"] == lost["rank_1"][0]["hits"]


def test_what_cannot_be_reported():
    rows, names, far = made_up(8)
    cases = [
        (InputError, "give it as count", (rows, names, iter([far])), {}),
        (DataError, "should be 151 distractors; 150 came", (rows, names, [far]), {"count": 151}),
        (DataError, "should be 149 distractors; more came", (rows, names, [far]), {"count": 149}),
        (InputError, "got 33 for 34 probes", (rows, names[1:], far), {}),
        (InputError, r"of 6 length, .* of shape \(150, 5\)", (rows, names, far[:, :5]), {}),
        (InputError, r"The probes should be .* of shape \(6,\)", (rows[0], names, far), {}),
        (DataError, "no probe has another", (rows, [str(n) for n in range(34)], far), {}),
    ]
    for kind, told, arguments, keywords in cases:
        with pytest.raises(kind, match=told):
            megaface_report(*arguments, **keywords)
    for value in (np.nan, np.inf, 1e20):
        broken = far.copy()
        broken[77, 1] = value
        with pytest.raises(InputError, match="below 1e15; those of distractor 77 are not"):
            megaface_report(rows, names, np.split(broken, [50]), count=150)
        with pytest.raises(InputError, match="those of probe 77 are not"):
            megaface_report(broken, ["a"] * 150, far)


@pytest.mark.parametrize("settings", [{"sizes": (0,)}, {"rates": (0.0,)}, {"rates": (1.0,)}])
def test_settings_that_do_not_exist(settings):
    with pytest.raises(SettingsError, match="1 or more and rates between 0 and 1; got"):
        MegafaceSettings(**settings)


def test_rates_that_would_keep_too_many_similarities_are_refused():
    rows, names, _ = made_up(8)
    told = r"A FAR of 9e-1 over 3,400,000,000 pairs would keep 3,060,000,001 similarities, more"
    with pytest.raises(SettingsError, match=told):
        megaface_report(rows, names, [], MegafaceSettings(rates=(0.9,)), count=100_000_000)


def test_from_lists_and_feature_files_to_a_report(tmp_path):
    """The layout of gen_megaface, with the noisy pictures of both lists left out."""
    rows, names, far = made_up(10)
    images = [f"{name}/{name}_{n}.png" for n, name in enumerate(names)]
    others = [f"{n % 3}/{n % 7}/{n}.jpg" for n in range(150)]
    for kind, paths, table in (("facescrub", images, rows), ("megaface", others, far)):
        (tmp_path / f"{kind}_lst").write_text("\n".join(paths))
        for path, vector in zip(paths, table, strict=True):
            write_feature(feature_path(tmp_path, kind, path, "r100"), vector)
    (tmp_path / "facescrub_noises.txt").write_text(f"# 1\n{images[4].split('/')[1]}\n")
    (tmp_path / "megaface_noises.txt").write_text("\n".join(others[10:20]))
    kept, features = {}, {}
    for kind in ("facescrub", "megaface"):
        paths = read_image_list(tmp_path / f"{kind}_lst", kind)
        noises = read_noise_list(tmp_path / f"{kind}_noises.txt", kind)
        drop = noisy(paths, noises, kind)
        kept[kind] = [path for path, bad in zip(paths, drop, strict=True) if not bad]
        files = [feature_path(tmp_path, kind, path, "r100") for path in kept[kind]]
        features[kind] = read_features(files, block=32)
    assert (len(kept["facescrub"]), len(kept["megaface"])) == (33, 140)
    probes = np.concatenate(list(features["facescrub"]))
    people = [person_of(image) for image in kept["facescrub"]]
    settings = MegafaceSettings(SIZES, (0.01,), replicates=20)
    report = megaface_report(probes, people, features["megaface"], settings, count=140)
    rest = [n for n in range(34) if n != 4]
    expected = megaface_report(
        rows[rest], [names[n] for n in rest], np.delete(far, range(10, 20), 0), settings
    )
    assert report == expected


def remove_noises(features, people, bad, seed):
    """The steps of insightface's remove_noises.py for FaceScrub, one feature at a time."""
    dimension, draws = features.shape[1], np.random.default_rng(seed)
    centres, written = {}, [None] * len(features)
    for n, (vector, name) in enumerate(zip(features, people, strict=True)):
        feature = np.full((dimension + 1,), 0.0, dtype=np.float32)
        feature[0:dimension] = vector
        if not bad[n]:
            written[n] = feature
            if name not in centres:
                centres[name] = np.zeros((dimension + 1,), dtype=np.float32)
            centres[name] += feature
    for n in np.flatnonzero(bad):
        g = np.zeros((dimension + 1,), dtype=np.float32)
        g[0:dimension] = draws.uniform(-0.001, 0.001, (dimension,))
        f = centres[people[n]] + g
        f /= np.linalg.norm(f)
        written[n] = f
    return np.stack(written)


def test_noise_removal_is_that_of_insightface_and_gives_free_hits():
    rows, names, far = made_up(9, dimension=40)
    rows = vectors.unit(rows)
    bad = np.zeros(34, np.bool_)
    bad[[0, 3, 8, 20]] = True
    rows[bad] = vectors.unit(np.random.default_rng(1).normal(size=(4, 40)))
    found = insightface_noise_removal(rows, names, bad, seed=5)
    assert found.dtype == np.float32
    assert np.array_equal(found, remove_noises(rows, names, bad, 5))
    assert np.array_equal(found[~bad, :-1], rows[~bad])
    assert not found[:, -1].any()
    shifted = insightface_far_distractors(far, np.arange(150) < 30)
    assert shifted.dtype == np.float32
    assert np.array_equal(shifted[:, :-1], far)
    assert shifted[:, -1].tolist() == [100.0] * 30 + [0.0] * 120
    settings = MegafaceSettings((), (0.1,), replicates=5)
    kept = [n for n in range(34) if not bad[n]]
    left_out = megaface_report(rows[kept], [names[n] for n in kept], far[30:], settings)
    replaced = megaface_report(found, names, shifted, settings)
    more = replaced["ordered_pairs"] - left_out["ordered_pairs"]
    free = replaced["rank_1"][0]["hits"] - left_out["rank_1"][0]["hits"]
    assert 0 < left_out["rank_1"][0]["rate"] < free / more == 1


def test_a_person_with_nothing_but_noise_is_refused():
    rows, names, _ = made_up(9)
    bad = np.array([name == "person 2" for name in names])
    with pytest.raises(DataError, match="person 2 should have a clean picture to stand in"):
        insightface_noise_removal(rows, names, bad, seed=0)
