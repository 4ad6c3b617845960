"""`facenet bench search`: figures that mean what they say; never how long something takes."""

from __future__ import annotations

import numpy as np
import pytest
from shell import refused, run

from facenet.apps.jobs import bruteforce, generated
from facenet.apps.jobs.benching.rows import COLUMNS
from facenet.apps.jobs.searchbench import SearchBench, draw_queries
from facenet.errors import InputError, SettingsError
from facenet.gallery.records import Person, VectorBlock
from facenet.vectors import unit


def test_it_prints_results_and_the_machine():
    options = ("--rows", 3000, "--dimension", 64, "--queries", 8, "--rounds", 2, "--check", 90)
    ran = run("bench", "search", *options, "--json")
    assert ran.code == 0, ran.err
    rows = {row["name"].removeprefix("search/3000x64/"): row for row in ran.json["results"]}
    assert list(rows) == [
        "1query", "8queries", "throughput_of_batch", "memory", "memory_of_arrays",
        "open_from_snapshot", "build_from_store", "recall", "recall_with_ties",
    ]  # fmt: skip
    assert all(tuple(row) == COLUMNS for row in rows.values())
    assert rows["recall"]["median"] == 1.0
    assert rows["recall_with_ties"]["median"] >= 5
    assert (rows["1query"]["runs"], rows["8queries"]["runs"]) == (8, 2)
    assert 0 < rows["1query"]["median"] <= rows["1query"]["p95"]
    assert ran.json["machine"]["threads"] >= 1
    missing = "faiss-cpu is not installed" in ran.err
    assert (rows["1query"]["peer"] is None) == missing
    if not missing:
        ratio = rows["1query"]["peer_median"] / rows["1query"]["median"]
        assert rows["1query"]["ratio"] == pytest.approx(ratio, rel=1e-4)


def test_a_table_without_a_peer_and_without_a_check():
    ran = run(
        "bench", "search", "--rows", 200, "--dimension", 16, "--check", 0, "--against", "none"
    )
    assert ran.code == 0
    assert "faiss" not in ran.err
    head, *lines = ran.out.splitlines()
    assert head.split() == list(COLUMNS)
    assert {tuple(line.split()[-3:]) for line in lines} == {("-", "-", "-")}
    assert not [line for line in lines if "recall" in line]


def test_bad_settings_are_refused():
    assert "faiss, none, each once; got hnsw" in refused("bench", "search", "--against", "hnsw")
    with pytest.raises(SettingsError, match="against should be faiss or none; got hnsw"):
        SearchBench(against="hnsw")
    for name in ("rows", "dimension", "queries", "rounds"):
        with pytest.raises(SettingsError, match=f"{name} should be [0-9]+ or more; got 0"):
            SearchBench(**{name: 0})


@pytest.fixture
def store(tmp_path):
    seen = []
    made = generated.fill(
        tmp_path / "G.db", 450, 32, 7, lambda done, all_: seen.append((done, all_))
    )
    assert seen == [(450, 450)]
    yield made
    made.close()


def test_the_generated_gallery_is_as_it_says(store):
    (block,) = generated.blocks(store)
    assert np.array_equal(block.ids, np.arange(1, 451))
    with store.read() as view:
        assert view.count(Person) == 113
    scores = block.rows.astype(np.float64) @ block.rows.T
    own = np.array([scores[i, i + 1] for i in range(0, 400, 4)])
    assert 0.4 < np.median(own) < 0.6
    for copy in generated.copied(450, 4) - 1:
        twin = copy - generated.COPIES // 2
        assert block.people[copy] != block.people[twin]
        assert scores[copy, twin] > 1 - 1e-6
    equal = [np.array_equal(block.rows[i], block.rows[i - 50]) for i in (99, 199, 299, 399)]
    assert equal == [True, False, True, False]


def test_the_brute_force_is_that_of_loops(store):
    queries = draw_queries(store, SearchBench(rows=450, dimension=32, seed=7), 25)
    blocks = list(generated.blocks(store))
    answers = bruteforce.search(blocks, queries, 5)
    rows, people = blocks[0].rows.astype(np.float64), blocks[0].people
    for query, answer in zip(queries, answers, strict=True):
        best: dict[str, tuple[float, int]] = {}
        for face, (row, person) in enumerate(zip(rows, people, strict=True), 1):
            value = float(np.float32(np.sum(query.astype(np.float64) * row)))
            if person not in best or value > best[person][0]:
                best[person] = (value, face)
        order = sorted(best.items(), key=lambda item: (-item[1][0], item[0]))[:5]
        assert answer == [(person, face, value) for person, (value, face) in order]


def test_the_brute_force_does_not_guess_among_too_many_equal_rows():
    rows = unit(np.ones((200, 4), np.float32))
    block = VectorBlock(np.arange(1, 201), tuple(f"{n:03d}" for n in range(200)), rows)
    with pytest.raises(InputError, match="too many that are nearly equal"):
        bruteforce.search([block], rows[:1], 5)
