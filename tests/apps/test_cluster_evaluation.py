"""`facenet evaluate clusters` and `facenet bench cluster` on small sets."""

import numpy as np
import pytest
from miniature import write_people
from shell import refused, run

from facenet.apps.jobs.clusterbench import ClusterBench, generated_faces, measure_clustering
from facenet.errors import SettingsError
from facenet.gallery.cluster.methods import FACENET, METHODS


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    root = tmp_path_factory.mktemp("people")
    write_people(root, 6)
    return root


def test_every_method_is_scored_and_the_best_is_marked(people):
    ran = run("evaluate", "clusters", people, "--json")
    assert ran.code == 0
    found = ran.json
    assert (found["people"], found["pictures"]) == (4, 24)
    assert found["faces"] == 24 - found["failures"]
    rows = found["results"]
    assert {row["method"] for row in rows} == {*METHODS, *FACENET}
    assert [row["fmr"] for row in rows if row["method"] == "average"] == [
        1e-4,
        3e-5,
        1e-5,
        3e-6,
        1e-6,
    ]
    own = {row["method"]: row["threshold"] for row in rows if row["method"] in FACENET}
    assert own == {"facenet-dbscan": 0.5, "facenet-whispers": 0.55}
    for row in rows:
        for kind in ("bcubed", "pairwise"):
            score = row[kind]
            total = score["precision"] + score["recall"]
            wanted = 2 * score["precision"] * score["recall"] / total if total else 0
            assert score["f"] == pytest.approx(wanted, abs=1e-5)
    assert sum(row["default"] for row in rows) == 1
    assert {row["method"] for row in found["held_out"]} == {*METHODS} - {"hdbscan"}
    assert found["in_two_parts"]["agreement"]["bcubed"]["f"] > 0.5


def test_the_text_has_a_line_for_each_setting(people):
    text = run("evaluate", "clusters", people, "--methods", "template,facenet-dbscan").out
    lines = text.splitlines()
    assert sum(line.startswith("template ") for line in lines) == 5
    assert sum(line.startswith("facenet-dbscan ") for line in lines) == 1
    assert sum("*" in line for line in lines) >= 1
    assert "default" in text
    assert "one of template" in refused("evaluate", "clusters", people, "--methods", "kmeans")


def test_generated_people_are_found_and_what_it_took_is_printed():
    ran = run("bench", "cluster", "--rows", "1500", "--dimension", "64", "--json")
    found = ran.json
    assert (found["rows"], found["dimension"], found["capped"]) == (1500, 64, found["capped"])
    assert found["bcubed"]["f"] > 0.95
    assert found["processor_seconds"] > 0
    assert found["peak_mb"] >= found["peak_mb_before"] > 10
    text = run("bench", "cluster", "--rows", "300", "--dimension", "64", "--method", "dbscan").out
    assert text.startswith("300 x 64 faces of ")
    again = measure_clustering(ClusterBench(1500, 64))
    assert again["bcubed"]["f"] == pytest.approx(found["bcubed"]["f"])


def test_generated_faces_are_of_a_seed_and_as_alike_as_they_should_be():
    vectors, person = generated_faces(2000, 128, 1)
    again, _ = generated_faces(2000, 128, 1)
    assert np.array_equal(vectors, again)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    scores = vectors @ vectors.T
    mated = scores[(person[:, None] == person) & ~np.eye(2000, dtype=bool)]
    assert 0.5 < np.percentile(mated, 1) < np.percentile(mated, 99) < 0.9
    assert np.percentile(scores[person[:, None] != person], 99.9) < 0.4


def test_what_cannot_be_measured():
    for values in ({"rows": 0}, {"dimension": 1}, {"seed": -1}):
        with pytest.raises(SettingsError, match="rows should be 1 to 10,000,000"):
            ClusterBench(**values)
    with pytest.raises(SettingsError, match="method should be one of template, average"):
        ClusterBench(method="hdbscan")
