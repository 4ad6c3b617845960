"""The report on IJB, re-derived pair by pair and search by search on made-up lists."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from facenet.data.ijb import (
    IjbFaces,
    IjbSearches,
    IjbSet,
    TemplatePairs,
    TemplateSubjects,
    ijb_files,
    read_ijb,
)
from facenet.errors import DataError, InputError
from facenet.evaluate.curves import rate_name
from facenet.evaluate.ijbreport import (
    Scored,
    ijb_report,
    search_gallery,
    tar_replicates,
    template_people,
)
from facenet.evaluate.intervals import PairScores, replicate, share_interval, subject_weights
from facenet.evaluate.templates import Pooling, Templates, pool_templates

PEOPLE, PROBES = 24, 3


def made_set(seed=0, *, noise=1.4, searches=True):
    """One gallery template and three probes per person, two to four faces each."""
    generator = np.random.default_rng(seed)
    subject = np.repeat(np.arange(PEOPLE), 1 + PROBES)
    numbers = 5 + 2 * generator.permutation(len(subject))
    template = np.repeat(numbers, generator.integers(2, 5, len(numbers)))
    owner = {int(n): int(s) for n, s in zip(numbers, subject, strict=True)}
    centres = generator.normal(size=(PEOPLE, 6))
    who = np.array([owner[int(t)] for t in template])
    features = centres[who] + noise * generator.normal(size=(len(who), 6))
    faces = IjbFaces(
        tuple(f"{n}.jpg" for n in range(len(template))),
        template,
        generator.integers(0, 3, len(template)),
        np.zeros((len(template), 5, 2), np.float32),
        generator.choice([0.1, 0.5, 0.9], len(template)).astype(np.float32),
    )
    gallery = numbers[:: 1 + PROBES]
    probes = np.setdiff1d(numbers, gallery)
    a, b = (part.ravel() for part in np.meshgrid(gallery, probes, indexing="ij"))
    same = np.array([owner[int(i)] == owner[int(j)] for i, j in zip(a, b, strict=True)])

    def shown(some):
        some = np.sort(some)
        return TemplateSubjects(some, np.array([owner[int(n)] + 100 for n in some]))

    lists = None
    if searches:
        galleries = {"G1": shown(gallery[:14]), "G2": shown(gallery[14:])}
        lists = IjbSearches(MappingProxyType(galleries), shown(probes))
    pairs = TemplatePairs(a, b, same)
    return IjbSet("ijbc", faces, pairs, lists, {"list": "0" * 64}), features.astype(np.float32)


def write_lists(folder, data):
    """The lists of a set in the layout of insightface's meta archive."""
    faces, pairs = data.faces, data.pairs
    rows = range(len(faces))
    score = [f"{value:.1f}" for value in faces.detection_score]
    lists = [
        [f"{faces.names[n]} {faces.template[n]} {faces.media[n]}" for n in rows],
        [f"{faces.names[n]} {' '.join(['0'] * 10)} {score[n]}" for n in rows],
        [f"{a} {b} {int(s)}" for a, b, s in zip(pairs.a, pairs.b, pairs.same, strict=True)],
    ]
    for part in (*data.searches.galleries.values(), data.searches.probes):
        columns = zip(part.template, part.subject, strict=True)
        lists.append(["TEMPLATE_ID,SUBJECT_ID,FILENAME", *(f"{t},{s},x" for t, s in columns)])
    for lines, path in zip(lists, ijb_files(folder, data.dataset).values(), strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")


def test_a_set_that_was_written_and_read_gives_the_same_report(tmp_path):
    data, features = made_set(10)
    write_lists(tmp_path, data)
    read = read_ijb(tmp_path, "ijbc")
    one = ijb_report(data, features, Pooling(), replicates=20)
    two = ijb_report(read, features, Pooling(), replicates=20)
    assert two["digests"].keys() == ijb_files(tmp_path, "ijbc").keys()
    assert one | {"digests": None} == two | {"digests": None}


def vectors_of(data, features):
    pooled = pool_templates(features, data.faces, Pooling())
    return dict(zip(pooled.numbers.tolist(), pooled.vectors, strict=True))


def pair_by_pair(data, features):
    vectors = vectors_of(data, features)
    columns = (data.pairs.a.tolist(), data.pairs.b.tolist(), data.pairs.same.tolist())
    mated, others = [], []
    for i, j, same in zip(*columns, strict=True):
        lost = not vectors[i].any() or not vectors[j].any()
        (mated if same else others).append(-np.inf if lost else float(vectors[i] @ vectors[j]))
    return np.array(mated), np.array(others)


@pytest.mark.parametrize("searches", [True, False])
def test_verification_is_that_of_all_pairs(searches):
    data, features = made_set(searches=searches)
    report = ijb_report(data, features, Pooling(), replicates=200, seed=4)
    assert json.loads(json.dumps(report)) == report
    mated, others = pair_by_pair(data, features)
    found = report["verification"]
    assert (found["pairs"], found["mated"], found["non_mated"]) == (
        PEOPLE * PEOPLE * PROBES, PEOPLE * PROBES, PEOPLE * (PEOPLE - 1) * PROBES,
    )  # fmt: skip
    above = [(m > o) + 0.5 * (m == o) for m in mated for o in others]
    assert found["auc"] == pytest.approx(np.mean(above), abs=1e-6)
    assert list(found["tar_at_far"]) == ["1e-1", "1e-2"]
    for name, point in found["tar_at_far"].items():
        best = max((np.mean(mated >= t), -t) for t in [*others, *mated] if
                   np.mean(others >= t) <= float(name))  # fmt: skip
        assert point["tar"] == best[0]
        assert point["far"] == np.mean(others >= point["threshold"] - 1e-7) <= float(name)
        assert point["false_matches"] == round(point["far"] * len(others))
        assert point["ci"][0] <= point["tar"] <= point["ci"][1]
    assert list(found["refused"]) == ["1e-3", "1e-4", "1e-5", "1e-6"]
    assert found["refused"]["1e-3"] == (
        "FAR 1e-3 needs 3,000 non-mated pairs (3 / rate); there are 1,656."
    )
    assert report["people_from"] == ("the 1:N lists" if searches else "the mated pairs")
    assert (report["people"], report["templates"]) == (PEOPLE, PEOPLE * (1 + PROBES))
    assert ("identification" in report) == searches
    assert (report["flags"], report["aggregation"]) == ("N1D1F1", "media")
    assert report["without_face"] == int(np.sum(data.faces.detection_score < 0.2)) > 0
    assert found["contradictions"] == report["templates_lost"] == found["not_found"] == 0


def scored_pairs(data, features):
    pooled = pool_templates(features, data.faces, Pooling())
    people, _ = template_people(pooled, data)
    row = {int(number): n for n, number in enumerate(pooled.numbers)}
    a = np.array([people[row[int(n)]] for n in data.pairs.a])
    b = np.array([people[row[int(n)]] for n in data.pairs.b])
    vectors = vectors_of(data, features)
    pairs = zip(data.pairs.a.tolist(), data.pairs.b.tolist(), strict=True)
    similarity = np.array([float(vectors[i] @ vectors[j]) for i, j in pairs])
    return similarity, data.pairs.same, a, b


@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_are_those_of_the_bootstrap_over_all_pairs(seed):
    """Draw by draw equal to `intervals.replicate`, which sorts every pair in every draw."""
    data, features = made_set(seed)
    similarity, same, a, b = scored_pairs(data, features)
    similarity = np.round(similarity, 1 + seed)  # many ties
    similarity[::17] = -np.inf
    rates = (0.3, 0.1, 0.02)
    expected = replicate(PairScores(similarity, same, a, b), rates=rates, replicates=80, seed=7)
    weights = subject_weights(PEOPLE, 80, 7)
    scored = Scored(similarity, same, a.astype(np.int32), b.astype(np.int32))
    found = tar_replicates(scored, rates, weights)
    for rate in rates:
        assert found[rate] == pytest.approx(expected[f"tar@{rate_name(rate)}"], nan_ok=True)
    report = ijb_report(data, features, Pooling(), replicates=80, seed=7)
    point = report["verification"]["tar_at_far"]["1e-1"]
    exact = scored_pairs(data, features)[0]
    drawn = replicate(PairScores(exact, same, a, b), rates=(0.1,), replicates=80, seed=7)
    assert point["ci"] == pytest.approx(share_interval(drawn["tar@1e-1"], point["tar"], PEOPLE))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_intervals_of_auc_and_eer_are_nearly_those_of_every_weighted_pair(seed):
    """Widths within 15 %, at 24 people: more people are nearer, since each is in more pairs."""
    data, features = made_set(seed, noise=0.7)
    similarity, same, a, b = scored_pairs(data, features)
    exact = replicate(PairScores(similarity, same, a, b), replicates=1000, seed=7)
    found = ijb_report(data, features, Pooling(), replicates=1000, seed=7)["verification"]
    for name in ("auc", "eer"):
        low, high = share_interval(exact[name], found[name], PEOPLE)
        near = found[f"{name}_ci"]
        assert near[0] < found[name] < near[1]
        assert near[1] - near[0] == pytest.approx(high - low, rel=0.15)


def test_a_bootstrap_that_looks_only_at_the_highest_scores_is_the_same():
    """Half a million pairs of 60 people: the pool ends at the floor, the answer does not move."""
    generator = np.random.default_rng(2)
    count, people = 500_000, 60
    a, b = generator.integers(0, people, (2, count)).astype(np.int32)
    same = a == b
    level = generator.normal(size=people)
    similarity = np.round(generator.normal(size=count) + level[a] / 4 + 2.5 * same, 2)
    rates = (0.05, 1e-3)
    scores = PairScores(similarity, same, a.astype(np.int64), b.astype(np.int64))
    expected = replicate(scores, rates=rates, replicates=6, seed=1)
    weights = subject_weights(people, 6, 1)
    found = tar_replicates(Scored(similarity, same, a, b), rates, weights)
    for rate in rates:
        assert found[rate] == pytest.approx(expected[f"tar@{rate_name(rate)}"])
    none = tar_replicates(Scored(similarity, same, a, b), (0.05,), weights * 0)
    assert np.isnan(none[0.05]).all()


def test_each_gallery_is_searched_on_its_own():
    """Ranks, TPIR and FPIR by loops over probes and gallery."""
    data, features = made_set(3)
    report = ijb_report(data, features, Pooling(), replicates=100)["identification"]
    vectors, probes = vectors_of(data, features), data.searches.probes
    shares = {}
    for name, gallery in data.searches.galleries.items():
        ranks, first, others = [], [], []
        for number, subject in zip(probes.template.tolist(), probes.subject, strict=True):
            scores = [float(vectors[number] @ vectors[n]) for n in gallery.template.tolist()]
            own = [s for s, who in zip(scores, gallery.subject, strict=True) if who == subject]
            rest = [s for s, who in zip(scores, gallery.subject, strict=True) if who != subject]
            if own:
                ranks.append(1 + sum(s >= own[0] for s in rest))
                first.append(own[0] if ranks[-1] == 1 else -np.inf)
            else:
                others.append(max(rest))
        found = report["galleries"][name]
        assert (found["searches_mated"], found["searches_non_mated"]) == (len(ranks), len(others))
        assert (found["gallery"], found["people_mated"]) == (len(gallery), len(gallery))
        for rank in (1, 5, 10):
            assert found["cmc"][str(rank)]["share"] == np.mean(np.array(ranks) <= rank)
        point = found["tpir_at_fpir"]["1e-1"]
        best = max(np.mean(np.array(first) >= t) for t in [*first, *others] if
                   np.mean(np.array(others) >= t) <= 0.1)  # fmt: skip
        assert point["tpir"] == best
        assert point["fpir"] == point["false_positives"] / len(others) <= 0.1
        assert found["refused"]["1e-2"] == (
            f"FPIR 1e-2 needs 300 non-mated searches (3 / rate); there are {len(others)}."
        )
        shares[name] = (found["cmc"]["1"]["share"], point["tpir"])
    mean = report["mean"]
    assert mean["cmc"]["1"]["share"] == pytest.approx(np.mean([s[0] for s in shares.values()]))
    assert mean["tpir_at_fpir"]["1e-1"]["tpir"] == pytest.approx(
        np.mean([s[1] for s in shares.values()])
    )
    for point in (*mean["cmc"].values(), *mean["tpir_at_fpir"].values()):
        value = point.get("share", point.get("tpir"))
        assert point["ci"][0] <= value <= point["ci"][1]
    assert "1e-2" not in mean["tpir_at_fpir"]
    assert len(set(shares.values())) == 2


def test_the_interval_of_a_rank_draws_the_people_who_are_searched():
    data, features = made_set(3)
    report = ijb_report(data, features, Pooling(), replicates=300, seed=2)["identification"]
    pooled = pool_templates(features, data.faces, Pooling())
    people, _ = template_people(pooled, data)
    weights = subject_weights(PEOPLE, 300, 2)
    drawn = []
    for name, gallery in data.searches.galleries.items():
        found = search_gallery(pooled, gallery, data.searches.probes)
        shares = []
        for weight in weights:
            hits = total = 0
            for row, (number, rank) in enumerate(
                zip(data.searches.probes.template, found.rank, strict=True)
            ):
                if found.mated[row]:
                    times = weight[people[pooled.rows(np.array([number]))[0]]]
                    total, hits = total + times, hits + times * (rank == 1)
            shares.append(hits / total)
        drawn.append(shares)
        low, high = np.percentile(shares, [2.5, 97.5])
        assert report["galleries"][name]["cmc"]["1"]["ci"] == pytest.approx([low, high])
    expected = np.percentile(np.mean(drawn, axis=0), [2.5, 97.5])
    assert report["mean"]["cmc"]["1"]["ci"] == pytest.approx(list(expected))


def test_templates_without_a_vector_match_nobody_and_are_never_found():
    data, features = made_set(5, noise=0.1)
    gone = (data.searches.galleries["G1"].template[0], data.searches.probes.template[0])
    features[np.isin(data.faces.template, gone)] = 0
    report = ijb_report(data, features, Pooling(), replicates=20)
    assert report["templates_lost"] == 2
    found = report["verification"]
    assert found["not_found"] == PEOPLE * PROBES + PEOPLE - 1
    mated, others = pair_by_pair(data, features)
    assert found["not_found_mated"] == int(np.sum(mated == -np.inf))
    assert found["tar_at_far"]["1e-1"]["tar"] == np.mean(mated > -np.inf) < 1
    for gallery in report["identification"]["galleries"].values():
        misses = gallery["searches_mated"] - gallery["cmc"]["10"]["hits"]
        assert misses in (0, 1, PROBES, PROBES + 1)
    total = sum(g["cmc"]["10"]["hits"] for g in report["identification"]["galleries"].values())
    assert total == int(np.sum(mated > -np.inf))


def test_people_are_linked_over_pairs_when_the_lists_do_not_name_all():
    data, _ = made_set(6)
    templates = Templates(np.unique(data.faces.template), np.ones((96, 2), np.float32))
    known, source = template_people(templates, data)
    linked, other_source = template_people(templates, replace(data, searches=None))
    assert (source, other_source) == ("the 1:N lists", "the mated pairs")
    assert np.array_equal(known[:, None] == known, linked[:, None] == linked)
    assert sorted(set(known.tolist())) == sorted(set(linked.tolist())) == list(range(PEOPLE))
    short = IjbSearches(dict(list(data.searches.galleries.items())[:1]), data.searches.probes)
    assert template_people(templates, replace(data, searches=short))[1] == "the mated pairs"


def test_labels_that_contradict_the_lists_are_counted():
    data, features = made_set(7)
    same = data.pairs.same.copy()
    same[np.flatnonzero(~same)[:5]] = True
    wrong = replace(data, pairs=TemplatePairs(data.pairs.a, data.pairs.b, same))
    report = ijb_report(wrong, features, Pooling(), replicates=10)
    assert report["verification"]["contradictions"] == 5


def test_what_cannot_be_reported():
    data, features = made_set(8)
    pairs = data.pairs
    some = replace(data, pairs=TemplatePairs(*(c[pairs.same] for c in (pairs.a, pairs.b,
                                                                      pairs.same))))  # fmt: skip
    with pytest.raises(
        DataError, match="pairs of one person and pairs of two people; got 72 and 0"
    ):
        ijb_report(some, features, Pooling(), replicates=5)
    with pytest.raises(InputError, match="needs a quality for each face"):
        ijb_report(data, features, Pooling("quality"), replicates=5)
    probes = data.searches.probes
    for subject, word in ((np.full(len(probes), 999), "none"), (np.full(len(probes), 100), "all")):
        wrong = IjbSearches(data.searches.galleries, TemplateSubjects(probes.template, subject))
        with pytest.raises(DataError, match=f"in the gallery and some not; {word} are"):
            ijb_report(replace(data, searches=wrong), features, Pooling(), replicates=5)


def test_without_replicates_the_intervals_are_wilsons():
    data, features = made_set(9)
    report = ijb_report(data, features, Pooling(), replicates=0)
    point = report["verification"]["tar_at_far"]["1e-1"]
    assert point["ci"] == pytest.approx(share_interval(np.zeros(0), point["tar"], PEOPLE))
    assert report["identification"]["mean"]["cmc"]["1"]["ci"] is not None
