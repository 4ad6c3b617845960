"""AgeDB: lists of pairs in text, and pairs drawn across a gap of years."""

from __future__ import annotations

import hashlib
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from facenet.data.agedb import draw_agedb, read_agedb
from facenet.data.folds import contiguous_folds
from facenet.errors import DataError, SettingsError


def pictures(folder: Path, ages: dict[str, list[int]]) -> Path:
    """Empty files ID_Name_age_gender.jpg, counted through."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = [(name, age) for name, years in ages.items() for age in years]
    for number, (name, age) in enumerate(listed):
        (folder / f"{number}_{name}_{age}_f.jpg").touch()
    return folder


def random_people(seed: int, people: int, count: int) -> dict[str, list[int]]:
    random = np.random.default_rng(seed)
    return {f"P{who}": random.integers(20, 61, count).tolist() for who in range(people)}


def person_and_age(path: Path) -> tuple[str, int]:
    _, name, age, _ = path.stem.split("_")
    return name, int(age)


def checked(pairs, gap: int) -> list[tuple[frozenset[str], bool, int]]:
    """Names of the pictures, truth and fold, after what holds of all drawn pairs was checked."""
    told, homes = [], {}
    for a, b, same, fold in zip(pairs.a, pairs.b, pairs.same, pairs.fold, strict=True):
        one, other = pairs.pictures[a], pairs.pictures[b]
        (name, age), (second, years) = person_and_age(one.source), person_and_age(other.source)
        assert (one.person, other.person) == (name, second)
        assert same == (name == second)
        assert years - age == gap
        assert {homes.setdefault(who, fold) for who in (name, second)} == {fold}
        told.append((frozenset((one.name, other.name)), bool(same), int(fold)))
    assert len({names for names, _, _ in told}) == len(told)
    for fold in range(max(pairs.fold) + 1):
        kinds = [same for _, same, where in told if where == fold]
        assert kinds == [True] * (len(kinds) // 2) + [False] * (len(kinds) // 2) != []
    return told


@pytest.mark.parametrize(("gap", "seed"), [(5, 0), (10, 1), (20, 2), (30, 3)])
def test_drawn_pairs_are_a_gap_apart(tmp_path, gap, seed):
    root = pictures(tmp_path, random_people(seed, 40, 25))
    pairs = draw_agedb(str(root), gap=gap, pairs=200, folds=5, seed=seed)
    assert len(checked(pairs, gap)) == 200
    assert np.bincount(pairs.fold).tolist() == [40] * 5
    assert (pairs.dataset, pairs.aligned, dict(pairs.digests)) == (
        f"AgeDB-{gap} (drawn)",
        False,
        {},
    )
    assert pairs.notes == (
        f"The pairs, all {gap} years apart, were drawn with seed {seed} from 1000 pictures of 40 "
        "people; they are not AgeDB's published pairs.",
    )
    again = draw_agedb(root, gap=gap, pairs=200, folds=5, seed=seed)
    other = draw_agedb(root, gap=gap, pairs=200, folds=5, seed=seed + 9)
    assert np.array_equal(pairs.a, again.a) and again.pictures == pairs.pictures
    assert not np.array_equal(pairs.a, other.a)


def test_every_pair_that_is_there_is_drawn(tmp_path):
    """Against all pairs of pictures in a loop: of each fold, as many as its scarcer kind has."""
    for seed in range(8):
        root = pictures(tmp_path / f"{seed}", random_people(seed, 6, 8))
        pairs = draw_agedb(root, gap=7, pairs=4000, folds=2, seed=seed)
        told, homes = checked(pairs, 7), {}
        for row in range(len(pairs)):
            for side in (pairs.a, pairs.b):
                homes[pairs.pictures[side[row]].person] = int(pairs.fold[row])
        possible = {(fold, same): set() for fold in range(2) for same in (True, False)}
        for one, other in combinations(sorted(root.iterdir()), 2):
            (name, age), (second, years) = person_and_age(one), person_and_age(other)
            if abs(age - years) == 7 and homes.get(name, -1) == homes.get(second, -2):
                names = frozenset((one.name, other.name))
                possible[homes[name], name == second].add(names)
        for fold in range(2):
            drawn = {
                kind: {names for names, same, where in told if (same, where) == (kind, fold)}
                for kind in (True, False)
            }
            assert drawn[True] <= possible[fold, True]
            assert drawn[False] <= possible[fold, False]
            fewest = min(len(possible[fold, True]), len(possible[fold, False]))
            assert len(drawn[True]) == fewest
        assert f"4000 pairs were wanted and {len(pairs)} drawn" in pairs.notes[-1]


def test_every_non_mated_pair_is_equally_likely(tmp_path):
    """Two folds of three people; counted over seeds, pairs of one fold come equally often."""
    root = pictures(tmp_path, {name: [20, 50, 50] for name in "ABCDEF"})
    counts: dict[frozenset[str], int] = {}
    for seed in range(600):
        for names, same, _ in checked(draw_agedb(root, pairs=4, folds=2, seed=seed), 30):
            if not same:
                counts[names] = counts.get(names, 0) + 1
    assert len(counts) == 60
    assert max(counts.values()) < 45 and min(counts.values()) > 5


def test_other_names_are_counted_and_told(tmp_path):
    root = pictures(tmp_path, {"Zoë": [20, 50], "Al_Li": [20, 50], "李": [20, 50], "B": [20, 50]})
    strange = ["x.jpg", "1_Bob_f.jpg", "2_Bob_1000_f.jpg", "Bob_1_30_f.jpg", "4_Bob_30_x.jpg",
               "5_Bob_-3_f.jpg", "6__30_f.jpg"]  # fmt: skip
    for name in [*strange, "7_C_30_f.txt", ".8_D_30_f.jpg"]:
        (root / name).touch()
    (root / "deep").mkdir()
    (root / "deep" / "9_E_33_M.JPG").touch()
    pairs = draw_agedb(root, pairs=8, folds=2)
    assert {one.person for one in pairs.pictures} == {"Zoë", "Al_Li", "李", "B"}
    assert pairs.notes[1] == (
        "7 pictures were left out, as their names are not ID_Name_age_gender: "
        f"{', '.join(sorted(strange)[:5])} and 2 more."
    )
    assert "from 9 pictures of 5 people" in pairs.notes[0]


def test_too_few_people_or_years_are_refused(tmp_path):
    lonely = pictures(tmp_path / "a", {"A": [20, 50], "B": [20], "C": [90], "D": [51]})
    told = "should hold pictures 30 years apart, .*; its 5 pictures of 4 people give 1. Choose a"
    with pytest.raises(DataError, match=told):
        draw_agedb(lonely)
    apart = pictures(tmp_path / "b", {"A": [20, 50], "B": [21, 51], "C": [22, 52], "D": [23, 53]})
    with pytest.raises(DataError, match="its 8 pictures of 4 people give 0"):
        draw_agedb(apart)
    with pytest.raises(DataError, match="5 people give 0"):
        draw_agedb(pictures(tmp_path / "c", {name: [20] for name in "ABCDE"}))
    few = pictures(tmp_path / "d", {name: [20, 50] for name in "ABCDE"})
    pairs = draw_agedb(few, pairs=40)
    assert len(checked(pairs, 30)) == 10
    assert pairs.notes[1].startswith("There are 2 folds instead of 10: each needs a person with")
    assert pairs.notes[2].endswith("the people of some folds have no more mated pairs.")


def test_what_is_not_agedb_is_refused(tmp_path):
    for place in (tmp_path / "none", "a\0b"):
        with pytest.raises(
            DataError, match="should be the folder of AgeDB's pictures; there is no"
        ):
            draw_agedb(place)
    (tmp_path / "x.jpg").touch()
    told = "should hold pictures called ID_Name_age_gender.jpg, .*; it holds 1 pictures, and none"
    with pytest.raises(DataError, match=told):
        draw_agedb(tmp_path)
    with pytest.raises(SettingsError, match="The gap of AgeDB's pairs should be 1 year or more"):
        draw_agedb(tmp_path, gap=0)
    with pytest.raises(SettingsError, match="got 5 pairs and 10 folds"):
        draw_agedb(tmp_path, pairs=5)


def text_list(tmp_path: Path, first: bool, *, blocks: int = 10) -> tuple[Path, str, list[str]]:
    """Ten blocks of a mated and a non-mated pair, the label first or last; where it lies."""
    ages = {"Ann": [20, 50], "Bob": [21, 51]}
    names = [path.name for path in sorted(pictures(tmp_path / "AgeDB", ages).iterdir())]
    rows = [(names[0], names[1], "1"), (names[0].removesuffix(".jpg"), names[3], "-1")] * blocks
    lines = [f"{label} {a} {b}" if first else f"{a}\t{b} {label}" for a, b, label in rows]
    file = tmp_path / "agedb_30_pairs.txt"
    file.write_text("\n\n".join(lines) + "\n")
    return file, file.read_text(), names


@pytest.mark.parametrize("first", [True, False])
def test_a_list_in_text_is_read(tmp_path, first):
    file, text, names = text_list(tmp_path, first)
    pairs = read_agedb(str(tmp_path), str(file))
    assert [one.name for one in pairs.pictures] == [names[0], names[1], "0_Ann_20_f", names[3]]
    assert [one.source.name for one in pairs.pictures] == [names[0], names[1], names[0], names[3]]
    assert [one.person for one in pairs.pictures] == ["Ann", "Ann", "Ann", "Bob"]
    assert (pairs.a.tolist(), pairs.b.tolist()) == ([0, 2] * 10, [1, 3] * 10)
    assert pairs.same.tolist() == [True, False] * 10
    assert np.array_equal(pairs.fold, contiguous_folds(pairs.same)[0])
    assert pairs.digests == {file.name: hashlib.sha256(text.encode()).hexdigest()}
    assert [note[:9] for note in pairs.notes] == ["2 of the "]


def test_names_of_the_protocol_images_and_of_crops(tmp_path):
    folder = tmp_path / "03_Protocol_Images"
    folder.mkdir()
    names = ["Ann_x_20_f_30.jpg", "Ann_50_51_f_30.jpg", "000001.jpg", "Aaron_Peirsol_0001.jpg"]
    for name in names[:3]:
        (folder / name).touch()
    file = tmp_path / "list.txt"
    file.write_text(f"{names[0][:-4]} {names[1][:-4]} 0\n{names[2]} {names[3]} 0\n" * 5)
    pairs = read_agedb(tmp_path, file)
    assert [one.person for one in pairs.pictures] == ["Ann", "Ann", "", ""]
    assert [one.source and one.source.name for one in pairs.pictures] == [*names[:3], None]
    told = "\n".join(pairs.notes)
    assert "In 5 of the 10 pairs the truth is another than the names" in told
    assert "2 names of pictures tell no person: 000001.jpg, Aaron_Peirsol_0001.jpg." in told


def test_a_list_in_csv_is_read(tmp_path):
    pictures(tmp_path, {"Ann": [20, 50]})
    file = tmp_path / "pairs.csv"
    file.write_text("a,b,same,fold\n0_Ann_20_f.jpg,1_Ann_50_f.jpg,1,0\n")
    pairs = read_agedb(tmp_path, file)
    assert pairs.dataset == "AgeDB"
    assert pairs.pictures[1].source == tmp_path / "1_Ann_50_f.jpg"


@pytest.mark.parametrize("line", ["a b", "a b 2", "a b c d", "1 a b", "../a b 1", "/a b 1", "1"])
def test_a_wrong_line_is_named(tmp_path, line):
    file = tmp_path / "list.txt"
    file.write_text(f"a b 1\n\n{line}\n")
    told = f"{file}, line 3: expected names of two pictures and 1, 0 or -1 last; got '{line}'"
    with pytest.raises(DataError, match=re.escape(told)):
        read_agedb(tmp_path, file)


def test_what_is_no_list_is_refused(tmp_path):
    file = tmp_path / "04_FINAL_protocol_30_years.mat"
    file.touch()
    other = tmp_path / "renamed.txt"
    other.write_bytes(b"MATLAB 5.0 MAT-file, Platform: GLNXA64\0\0")
    for matlab in (file, other):
        with pytest.raises(DataError, match="is a MATLAB file, which facenet does not read. Write"):
            read_agedb(tmp_path, matlab)
    for place in (tmp_path, tmp_path / "none.txt", "a\0b"):
        with pytest.raises(DataError, match="Cannot read the list of pairs .* two names and a"):
            read_agedb(tmp_path, place)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    with pytest.raises(DataError, match="a label per line; it is empty. Give a list of pairs"):
        read_agedb(tmp_path, empty)
    empty.write_text("here_a here_b 1\n")
    with pytest.raises(DataError, match="should hold here_a; no picture of the pairs is there"):
        read_agedb(tmp_path, empty)
