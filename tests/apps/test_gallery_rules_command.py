"""`facenet evaluate gallery-rules` on a data set in miniature."""

from __future__ import annotations

from miniature import strict, write_people
from shell import run, tree


def test_the_rules_are_measured_and_nothing_is_changed(tmp_path):
    write_people(tmp_path / "set", 4, size=(192, 224), blurred=4)
    before = tree(tmp_path / "set")
    ran = run("evaluate", "gallery-rules", tmp_path / "set", "--json")
    assert ran.code == 0
    found = strict(ran.out)
    assert (found["people"], found["failures"] + found["faces"]) == (4, 16)
    assert found["rules"]["min_sharpness"] == 23
    assert found["in_order"]["reasons"]["blurred"] >= 2
    assert found["conflict"]["second_names"]["of"] == found["faces"]
    assert found["unlike"]["wrong_person"]["of"] == 3 * found["faces"]
    assert found["unlike"]["wrong_person"]["share"] > 0.8
    assert tree(tmp_path / "set") == before
    text = run("evaluate", "gallery-rules", tmp_path / "set").out
    assert "faces of 4 people, mobilefacenet\nall rules, enrolled in order: " in text
    assert "of faces under a second name" in text
