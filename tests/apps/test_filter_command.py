"""`facenet evaluate filter`: the pictures far from the mean of their person, as a list."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from miniature import PEOPLE, strict, vectors, write_people
from shell import refused, run, tree


@pytest.fixture
def people(tmp_path):
    """Four pictures each, of which a Hopper is called Collins, and one shows nobody."""
    root = tmp_path / "people"
    write_people(root, 5, seed=4, blurred=99)
    (root / PEOPLE[2] / f"{PEOPLE[2]}_0002.jpg").rename(root / PEOPLE[1] / "swapped.jpg")
    return root


def test_the_picture_with_the_wrong_name_goes(people, tmp_path):
    before, out = tree(people), tmp_path / "kept.csv"
    ran = run("evaluate", "filter", people, "--out", out, "--percentile", "92", "--json")
    assert ran.code == 0, ran.err
    found, rows = strict(ran.out), vectors(sorted(people.rglob("*.jpg")))
    names = {path.relative_to(people).as_posix(): path for path in rows}
    mean = {
        who: np.mean([row for path, row in rows.items() if path.parent.name == who], axis=0)
        for who in PEOPLE
    }
    away = {
        name: float(np.linalg.norm(rows[path] - mean[path.parent.name]))
        for name, path in names.items()
    }
    assert max(away, key=away.get) == "Eileen_Collins/swapped.jpg"
    limit = sorted(away.values())[int(np.ceil(0.92 * len(away))) - 1]
    with out.open(newline="") as file:
        listed = {row["picture"]: row["keep"] == "1" for row in csv.DictReader(file)}
    assert {name for name in away if listed[name]} == {n for n in away if away[n] <= limit + 1e-6}
    assert found["kept"] == sum(listed.values()) and found["pictures"] == len(listed)
    assert "Eileen_Collins/swapped.jpg" in [one["picture"] for one in found["left_out"]]
    assert tree(people) == before


def test_a_percentile_that_cannot_be_is_refused(people, tmp_path):
    out = tmp_path / "kept.csv"
    said = refused("evaluate", "filter", people, "--out", out, "--percentile", "0")
    assert "a percentile above 0 and at most 100" in said


def test_the_text_names_the_worst(people, tmp_path):
    out = tmp_path / "kept.csv"
    ran = run("evaluate", "filter", people, "--out", out, "--percentile", "92", "--histogram")
    assert ran.code == 0 and "pictures are kept" in ran.out and "swapped.jpg" in ran.out
