"""Data sets judged by a model: wrong labels, pictures twice, people in two sets."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from miniature import PEOPLE, scores, strict, vectors, write_people
from shell import copy, refused, run, tree


@pytest.fixture
def wrong(tmp_path):
    """Four pictures each, of which a Hopper is called Collins, and a Biden is there as Obama."""
    root = tmp_path / "wrong"
    write_people(root, 5, seed=4, blurred=99)
    (root / PEOPLE[2] / f"{PEOPLE[2]}_0002.jpg").rename(root / PEOPLE[1] / "swapped.jpg")
    copy(root / PEOPLE[3] / f"{PEOPLE[3]}_0001.jpg", root / PEOPLE[0] / "twice.jpg")
    return root


def test_wrong_labels_are_found(wrong, tmp_path):
    before = tree(wrong)
    ran = run("evaluate", "audit", wrong, "--json", "--report", tmp_path / "report")
    assert ran.code == 0
    found, rows = strict(ran.out), vectors(sorted(wrong.rglob("*.jpg")))
    assert {one["picture"]: one["looks_like"] for one in found["suspects"]} == {
        "Eileen_Collins/swapped.jpg": "Grace_Hopper",
        "Barack_Obama/twice.jpg": "Joe_Biden",
    }
    for one in found["suspects"]:
        path = wrong / one["picture"]
        sums = {
            who: sum(
                row for other, row in rows.items() if other.parent.name == who and other != path
            )
            for who in PEOPLE
        }
        like = {who: float(rows[path] @ row) / np.linalg.norm(row) for who, row in sums.items()}
        assert one["own"] == pytest.approx(like[one["person"]], abs=1e-5)
        assert one["other"] == pytest.approx(max(like.values()), abs=1e-5)
        assert max(like, key=like.get) == one["looks_like"]
    others = [pair for pair in combinations(rows, 2) if pair[0].parent != pair[1].parent]
    twice, *alike = found["one_picture_two_people"]
    assert 1 + len(alike) == sum(score >= 0.95 for score in scores(others, rows))
    names = {"Joe_Biden/Joe_Biden_0001.jpg", "Barack_Obama/twice.jpg"}
    assert {twice["a"], twice["b"]} == names
    assert twice["similarity"] == 1
    near = [pair for pair in combinations(rows, 2) if pair[0].parent == pair[1].parent]
    assert len(found["near_duplicates"]) == sum(score >= 0.95 for score in scores(near, rows))
    assert tree(wrong) == before
    (model,) = strict((tmp_path / "report/report.json").read_text("utf-8"))["models"]
    for kind, pairs, best in (("closest", others, max), ("least_similar", near, min)):
        first = model["worst"][kind][0]
        assert first["similarity"] == pytest.approx(best(scores(pairs, rows)), abs=1e-5)
        assert len(model["worst"][kind]) == min(50, len(pairs))
    shown = {(pair["a"], pair["b"]) for pair in model["worst"]["suspects"]}
    assert shown == {(one["picture"], one["like"]) for one in found["suspects"]}
    for one in found["suspects"]:
        theirs = [row for row in rows if row.parent.name == one["looks_like"]]
        mine = next(row for row in rows if str(row).endswith(one["picture"]))
        best = max(theirs, key=lambda row: float(rows[mine] @ rows[row]))
        assert str(best).endswith(one["like"])
        assert one["similarity"] == pytest.approx(float(rows[mine] @ rows[best]), abs=1e-5)
    page = (tmp_path / "report/report.html").read_text("utf-8")
    for suspect in found["suspects"]:
        assert suspect["picture"] in page
        assert suspect["picture"] in (tmp_path / "report/report.csv").read_text("utf-8")
    assert "twice.jpg" in page
    assert "data:image/jpeg;base64," in page


def test_an_audit_in_text(wrong):
    text = run("evaluate", "audit", wrong, "--duplicate-at", 0.999).out
    assert text.startswith("21 pictures of 4 people, 0 without a usable face\npictures closer")
    assert "  Eileen_Collins/swapped.jpg looks like Grace_Hopper (0." in text
    assert "pairs of two people that are nearly one picture (similarity 0.999 or more): 1" in text
    for level in ("1.5", "nan"):
        said = refused("evaluate", "audit", wrong, "--duplicate-at", level)
        assert said == f"duplicate-at should be a cosine from -1 to 1; got {level}."


def test_people_of_two_sets_are_found(wrong, tmp_path):
    other = tmp_path / "other"
    for person, name in (("Ann", PEOPLE[1]), ("Bea", PEOPLE[2])):
        copy(wrong / name / f"{name}_0003.jpg", other / person / "1.jpg")
    write_people(tmp_path / "more", 1, seed=9)
    copy(tmp_path / "more" / PEOPLE[3] / f"{PEOPLE[3]}_0001.jpg", other / "Joe" / "1.jpg")
    found = run("evaluate", "overlap", wrong, other, "--json", "--threshold", 0.5).json
    rows = vectors([*wrong.rglob("*.jpg"), *other.rglob("*.jpg")])
    best = {}
    for a in wrong.rglob("*.jpg"):
        for b in other.rglob("*.jpg"):
            key, score = (a.parent.name, b.parent.name), float(rows[a] @ rows[b])
            best[key] = max(best.get(key, -1), score)
    expected = {key: score for key, score in best.items() if score >= 0.5}
    shared = {(one["person_a"], one["person_b"]): one["similarity"] for one in found["shared"]}
    assert shared == pytest.approx(expected, abs=1e-5)
    assert {(PEOPLE[1], "Ann"), (PEOPLE[2], "Bea"), (PEOPLE[3], "Joe")} < set(shared)
    assert found["comparisons"] == 21 * 3
    assert found["expected_by_chance"] == pytest.approx(found["fmr"] * 63, rel=1e-4)
    text = run("evaluate", "overlap", wrong, other, "--fmr", "1e-5").out
    assert "in 63 comparisons of pictures; chance alone would bring about 0.00063 such" in text
    assert "\n  Eileen_Collins  Ann  1.000  " in text
