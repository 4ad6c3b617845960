"""Search by cells: as good as it says, never a deleted face, and exact where all is looked at."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from shell import refused, run
from test_index import CONTRACT, brute_force, enrolled
from test_scan import filled

from facenet.apps.jobs.searchbench import SearchBench
from facenet.errors import SettingsError
from facenet.galleries import Gallery
from facenet.gallery import nearest
from facenet.gallery.codes import ZERO
from facenet.gallery.index import Index
from facenet.gallery.nearest import Approximation, Recall
from facenet.gallery.records import EnrolledFace, Person
from facenet.gallery.snapshot import snapshot_path
from facenet.gallery.sqlite import SqliteStore
from facenet.products import NumpyProducts
from facenet.vectors import unit

FORCED = Approximation(least=1)


def crowd(n, d=32, seed=0, groups=60):
    """Rows of people who look like one another in groups, two faces a person, and their names."""
    rng = np.random.default_rng(seed)
    kinds = rng.standard_normal((groups, d))
    people = kinds[rng.integers(0, groups, n // 2)] + 0.7 * rng.standard_normal((n // 2, d))
    rows = np.repeat(people, 2, axis=0) + 0.5 * rng.standard_normal((n, d))
    return unit(rows), [f"p{number:05d}" for number in np.repeat(np.arange(n // 2), 2)]


def near(rows, count, seed=1):
    rng = np.random.default_rng(seed)
    picked = rows[rng.choice(len(rows), count, replace=False)]
    return unit(picked + unit(rng.standard_normal(picked.shape)))


def one_by_one(index, queries, k=5):
    """Answers of queries that are asked alone, so that none is searched with others exactly."""
    return [index.search(row[None], k)[0] for row in queries]


def shares(found, wanted):
    """Of the first answers, and of all: what was found."""
    first = np.mean([a[:1] == b[:1] for a, b in zip(found, wanted, strict=True)])
    both = sum(len(set(a) & set(b)) for a, b in zip(found, wanted, strict=True))
    return first, both / sum(map(len, wanted))


def test_it_finds_what_it_says_in_a_part_of_the_cells():
    rows, names = crowd(12_000)
    store = enrolled(rows, names)
    index = Index(store, CONTRACT, approximate=FORCED, threads=2)
    assert index.recall is None
    queries = near(rows, 300)
    exact = Index(store, CONTRACT)
    found, wanted = one_by_one(index, queries), exact.search(queries, 5)
    assert wanted[:9] == brute_force(store, queries[:9], 5)
    recall = index.recall
    assert (recall.cells, recall.queries) == (109, 2000)
    assert recall.at_1 >= 0.999
    assert 0.9 < recall.at_5 < 1
    assert recall.probed < 55
    first, five = shares(found, wanted)
    assert first >= 0.99
    assert five == pytest.approx(recall.at_5, abs=0.02)
    for mine, right in zip(found, wanted, strict=True):
        assert len(mine) == 5
        assert [hit.similarity for hit in mine] == sorted(
            (hit.similarity for hit in mine), reverse=True
        )
        assert all(a.similarity <= b.similarity for a, b in zip(mine, right, strict=True))
    assert index.bytes_held == exact.bytes_held + 109 * (32 + 4 + 8) + 8
    assert index.search(queries, 5) == wanted  # together they cost more than all cells


def test_a_face_that_is_found_has_its_exact_similarity():
    rows, names = crowd(5000, seed=2)
    store = enrolled(rows, names)
    index = Index(store, CONTRACT, approximate=Approximation(least=1, recall=0.5))
    queries = near(rows, 40)
    for query, hits in zip(queries, one_by_one(index, queries, 3), strict=True):
        for hit in hits:
            value = np.sum(query.astype(np.float64) * rows[hit.face - 1].astype(np.float64))
            assert hit.similarity == float(np.float32(value))
            assert names[hit.face - 1] == hit.person
    assert 0.5 <= index.recall.at_1 < 0.9
    low = index.recall.probed
    strict = Index(store, CONTRACT, approximate=FORCED)
    strict.refresh()
    assert strict.recall.probed > low  # more cells, until the recall is there


def test_the_recall_is_that_of_loops_over_cells():
    rows, _ = crowd(600, d=16, seed=3)
    table = filled(rows, np.arange(600, dtype=np.int32), chunk=128)
    seen = {}

    def ask(queries):
        seen["queries"] = queries
        scores = queries.astype(np.float64) @ rows.T.astype(np.float64)
        return np.argsort(-scores, axis=1)[:, :5] + 1

    how = Approximation(least=1, cells=20, asked=200, recall=0.9)
    cells = nearest.divide(table, ask, how, products=NumpyProducts(), threads=1)
    centres = cells.codes.T / np.linalg.norm(cells.codes.T.astype(float), axis=1, keepdims=True)
    assert sorted(table.keys.tolist()) == list(range(1, 601))
    home = {}
    for number, (start, end) in enumerate(pairwise(cells.starts.tolist())):
        for key in table.keys[start:end].tolist():
            code = np.rint(rows[key - 1] * table.scale)
            scores = centres @ np.clip(code, -127, 127)
            assert scores[number] >= scores.max() - 1e-3
            assert table.codes(table.find(np.array([key])))[0].tolist() == (code + ZERO).tolist()
            home[key] = number
    asked, right = seen["queries"], ask(seen["queries"])
    hits = np.zeros((len(asked), 5), bool)
    for row, query in enumerate(asked):
        order = np.argsort(-(centres @ query), kind="stable")[: cells.recall.probed].tolist()
        hits[row] = [home[int(key)] in order for key in right[row]]
    assert cells.recall.at_1 == pytest.approx(hits[:, 0].mean(), abs=0.011)
    assert cells.recall.at_5 == pytest.approx(hits.mean(), abs=0.011)
    assert cells.recall.at_1 >= 0.9
    assert 0.6 < np.median(np.sum(rows[right[:, 0] - 1] * asked, axis=1)) < 0.8


def test_all_cells_are_exact_search():
    rows, names = crowd(5000, seed=4)
    store = enrolled(rows, names)
    every = Approximation(least=1, cells=1)
    index = Index(store, CONTRACT, approximate=every)
    queries = near(rows, 25)
    assert one_by_one(index, queries) == brute_force(store, queries, 5)
    assert index.recall == Recall(1.0, 1.0, 1, 1, 2000)
    few = Index(store, CONTRACT, approximate=FORCED)
    assert few.search(queries[:1], 2500) == brute_force(store, queries[:1], 2500)
    wanted = brute_force(store, queries[:9], 5, pooled=True)
    assert [few.search(row[None], template=True)[0] for row in queries[:9]] == wanted
    some = sorted(set(names))[:300]
    wanted = brute_force(store, queries[:9], 5, some)
    assert [few.search(row[None], among=some)[0] for row in queries[:9]] == wanted


def test_what_changed_is_seen_at_once_and_cells_are_made_anew_after_a_tenth():
    rows, names = crowd(6000, seed=5)
    store = enrolled(rows[:5000], names[:5000])
    index = Index(store, CONTRACT, approximate=FORCED)
    index.refresh()
    before = index.recall
    with store.write() as draft:
        for face in range(1, 401):
            draft.delete(EnrolledFace, face)
        draft.put_vectors(CONTRACT, {face: rows[5000 + face] for face in range(401, 441)})
        for face in range(5001, 5301):
            draft.put(Person(f"new{face}", "New", 1.0))
            draft.put(EnrolledFace(face, f"new{face}", 1.0))
        draft.put_vectors(CONTRACT, {face: -rows[face - 5001] for face in range(5001, 5301)})
    for face in (5001, 5150, 5300):
        (hit,) = index.search(-rows[[face - 5001]], 1)[0]
        assert (hit.person, hit.face) == (f"new{face}", face)
    for face in (401, 440):
        (hit,) = index.search(rows[[5000 + face]], 1)[0]
        assert hit.face == face
    assert index.recall is before  # 440 of 5000 went, 340 came
    for hits in one_by_one(index, rows[:100]):
        assert all(hit.face > 400 for hit in hits)
    with store.write() as draft:
        for face in range(441, 502):
            draft.delete(EnrolledFace, face)
    index.refresh()
    assert index.recall is not before
    queries = near(rows, 200)
    first, _ = shares(one_by_one(index, queries), Index(store, CONTRACT).search(queries, 5))
    assert first >= 0.985
    assert len(index) == 5000 - 400 - 61 + 300


def test_the_same_faces_give_the_same_cells_however_they_came():
    rows, names = crowd(5000, seed=6)
    order = np.random.default_rng(0).permutation(5000)
    one = filled(rows, np.arange(5000, dtype=np.int32), chunk=700)
    other = nearest.Table(32, chunk=1000)
    other.put(order + 1, order.astype(np.int32), rows[order])
    other.drop(np.array([7, 8]))
    other.put(np.array([8, 7]), np.array([7, 6], np.int32), rows[[7, 6]])
    asked = []

    def ask(queries):
        asked.append(queries)
        return np.repeat([[1, 2, 3, 4, 0]], len(queries), axis=0)

    a = nearest.divide(one, ask, FORCED, products=None, threads=2)
    b = nearest.divide(other, ask, FORCED, products=NumpyProducts(), threads=1)
    assert np.array_equal(asked[0], asked[1])
    assert np.array_equal(a.codes, b.codes)
    assert np.array_equal(a.starts, b.starts)
    assert np.array_equal(one.keys, other.keys)
    assert np.array_equal(one.owners, one.keys - 1)
    assert a.recall == b.recall


def test_an_arranged_table_keeps_its_order_and_no_bytes_of_what_went():
    rows, _ = crowd(1000, seed=7)
    table = filled(rows, np.arange(1000, dtype=np.int32), chunk=100)
    table.drop(np.arange(1, 301))
    slots = np.flatnonzero(table.keys)[::-1]
    table.arrange(slots)
    assert table.keys.tolist() == list(range(1000, 300, -1))
    assert (len(table.chunks), table.fixed) == (7, 700)
    table.drop(np.array([1000, 999]))
    table.put(np.array([998, 2000, 5]), np.array([1, 2, 3]), rows[:3])
    assert table.keys[:4].tolist() == [0, 0, 0, 997]
    assert table.keys[700:].tolist() == [998, 2000, 5]
    assert set(table.codes(np.arange(3)).ravel().tolist()) == {ZERO}
    table.drop(np.array([2000]))
    table.put(np.array([2001]), np.array([4]), rows[3:4])
    assert table.keys[700:].tolist() == [998, 2001, 5]
    wanted = filled(rows[[3]], np.array([4]), chunk=100).codes(np.array([0]))
    assert np.array_equal(table.codes(np.array([701])), wanted)


def test_cells_are_not_kept_in_the_snapshot(tmp_path):
    rows, names = crowd(5000, seed=8)
    store = enrolled(rows, names, SqliteStore(tmp_path / "G.db", create=True))
    place = snapshot_path(tmp_path / "G.db", CONTRACT)
    index = Index(store, CONTRACT, snapshot=place, approximate=FORCED)
    queries = near(rows, 20)
    answers = one_by_one(index, queries)
    assert index.save()
    plain = Index(store, CONTRACT, snapshot=place)
    assert plain.search(queries) == brute_force(store, queries, 5)
    assert plain.recall is None
    again = Index(store, CONTRACT, snapshot=place, approximate=FORCED)
    assert one_by_one(again, queries) == answers
    assert again.recall == index.recall
    store.close()


def test_it_is_refused_for_few_faces_and_shrinks_to_exact_search(tmp_path):
    rows, names = crowd(600, seed=9)
    store = enrolled(rows, names)
    message = "should have 2000000 faces or more; there are 600. Search without it: exact"
    index = Index(store, CONTRACT, approximate=True)
    for _ in range(2):
        with pytest.raises(SettingsError, match=message):
            index.search(rows[:1])
    index = Index(store, CONTRACT, approximate=Approximation(least=590))
    index.refresh()
    assert index.recall.cells == 24
    with store.write() as draft:
        for person in sorted(set(names))[:100]:
            draft.delete(Person, person)
    assert one_by_one(index, rows[:30]) == brute_force(store, rows[:30], 5)
    assert index.recall is None
    with pytest.raises(SettingsError, match="1 faces or more; there are 0"):
        Index(enrolled(rows[:0], []), CONTRACT, approximate=Approximation(least=1)).refresh()
    Gallery.create(tmp_path / "G.db").close()
    with pytest.raises(SettingsError, match="2000000 faces or more; there are 0"):
        Gallery.open(tmp_path / "G.db", approximate=True)


def test_bad_settings_are_refused():
    for bad in (0, -1, 1.1):
        with pytest.raises(SettingsError, match="recall should be above 0 and at most 1; got"):
            Approximation(recall=bad)
    for name in ("cells", "asked"):
        with pytest.raises(SettingsError, match=f"{name} should be 1 or more; got 0"):
            Approximation(**{name: 0})
    with pytest.raises(SettingsError, match="2000000 faces or more; there are 1999999"):
        SearchBench(rows=1_999_999, approximate=True)
    SearchBench(rows=2_000_000, approximate=True)
    assert "there are 3000." in refused("bench", "search", "--rows", 3000, "--approximate")


def test_the_bench_prints_its_recall():
    ran = run(
        "bench", "search", "--rows", 3000, "--dimension", 32, "--queries", 8, "--rounds", 2,
        "--check", 90, "--against", "none", "--approximate", "--force", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    start = "search/3000x32/approximate/"
    rows = {row["name"].removeprefix(start): row for row in ran.json["results"]}
    assert rows["1query"]["peer"] == "exact"
    assert 0.999 <= rows["recall@1"]["median"] <= 1
    assert 0.5 < rows["recall@5"]["median"] <= 1
    assert rows["recall@1"]["unit"] == "share of 2000 changed faces"
    assert 0.8 < rows["recall@1_of_check"]["median"] <= 1
    assert 0.5 < rows["recall@5_of_check"]["median"] <= 1
    assert 1 <= rows["cells_looked_at"]["median"] <= 54
