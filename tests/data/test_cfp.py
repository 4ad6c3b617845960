"""CFP in its own folders: a miniature, and what is told of a damaged one."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from facenet.data.cfp import PAIRS, SPLITS, read_cfp
from facenet.errors import DataError, SettingsError

PEOPLE, FRONTAL, PROFILE = 8, 3, 2


def miniature(root: Path, splits: int = 2) -> Path:
    """8 people of 3 frontal and 2 profile pictures, 4 in a split; the lists count from 1."""
    paths = {"F": [], "P": []}
    for person in range(1, PEOPLE + 1):
        for side, pose, count in (("F", "frontal", FRONTAL), ("P", "profile", PROFILE)):
            for number in range(1, count + 1):
                paths[side].append(f"../Data/Images/{person:03d}/{pose}/{number:02d}.jpg")
    for name in paths["F"] + paths["P"]:
        path = root / "Protocol" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (root / name[3:]).touch()
    for side, names in paths.items():
        lines = [f"{number} {name}" for number, name in enumerate(names, 1)]
        (root / "Protocol" / f"Pair_list_{side}.txt").write_text("\n".join(lines) + "\n")
    random = np.random.default_rng(0)
    for split in range(splits):
        for protocol, count in (("FF", FRONTAL), ("FP", PROFILE)):
            folder = root / "Protocol" / "Split" / protocol / f"{split + 1:02d}"
            folder.mkdir(parents=True)
            same, diff = [], []
            for person in range(4 * (split % 2), 4 * (split % 2) + 4):
                other = (person + 1) % 4 + 4 * (split % 2)
                i = FRONTAL * person + int(random.integers(1, FRONTAL))
                same.append(f"{i},{i + 1 if protocol == 'FF' else count * person + 1}")
                diff.append(f"{i},{count * other + 2}")
            (folder / "same.txt").write_text("\n".join(same))
            (folder / "diff.txt").write_text("\n".join(diff) + "\n")
    return root


@pytest.fixture
def root(tmp_path):
    return miniature(tmp_path / "cfp-dataset")


def by_hand(root: Path, protocol: str) -> list[tuple[str, str, bool, int]]:
    """The pairs as path, path, truth and fold, from line numbers instead of indices."""
    lists = [
        (root / "Protocol" / f"Pair_list_{side}.txt").read_text().split("\n") for side in protocol
    ]
    pairs = []
    for fold, split in enumerate(sorted((root / "Protocol" / "Split" / protocol).iterdir())):
        for kind in ("same", "diff"):
            for line in (split / f"{kind}.txt").read_text().split():
                sides = zip(lists, line.split(","), strict=True)
                a, b = (rows[int(index) - 1].split("Images/")[1] for rows, index in sides)
                pairs.append((a, b, kind == "same", fold))
    return pairs


@pytest.mark.parametrize("protocol", ["FF", "FP"])
def test_the_pairs_are_those_of_the_lists(root, protocol):
    pairs = read_cfp(str(root), protocol)
    names = [one.name for one in pairs.pictures]
    columns = (pairs.a, pairs.b, pairs.same.tolist(), pairs.fold.tolist())
    told = [(names[a], names[b], same, fold) for a, b, same, fold in zip(*columns, strict=True)]
    assert told == by_hand(root, protocol)
    assert len(told) == 16
    poses = {(a.split("/")[1], b.split("/")[1]) for a, b, _, _ in told}
    assert poses == {("frontal", "profile" if protocol == "FP" else "frontal")}
    for one in pairs.pictures:
        assert one.source == root / "Data" / "Images" / one.name
        assert one.person == one.name[:3]
    assert (pairs.dataset, pairs.aligned) == (f"CFP-{protocol}", False)
    files = [root / "Protocol" / f"Pair_list_{side}.txt" for side in dict.fromkeys(protocol)]
    files += (root / "Protocol" / "Split" / protocol).glob("*/*.txt")
    assert pairs.digests == {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }
    assert pairs.notes == ("These are 16 pairs in 2 splits; CFP has 10 splits of 350 + 350.",)


def test_people_in_several_splits_are_told(tmp_path):
    pairs = read_cfp(miniature(tmp_path, splits=3))
    assert pairs.notes[1].startswith("4 of the 8 people are in more than one fold")
    assert pairs.fold.tolist() == [0] * 8 + [1] * 8 + [2] * 8


def test_the_published_size_needs_no_note(root):
    for split in range(1, SPLITS + 1):
        folder = root / "Protocol" / "Split" / "FP" / f"{split:02d}"
        folder.mkdir(exist_ok=True)
        (folder / "same.txt").write_text("1,1\n" * PAIRS)
        (folder / "diff.txt").write_text("1,3\n" * PAIRS)
    pairs = read_cfp(root)
    assert len(pairs) == 7000
    assert [note[:6] for note in pairs.notes] == ["2 of t"]


def test_splits_come_in_the_order_of_their_numbers(root):
    folder = root / "Protocol" / "Split" / "FF"
    first, second = (read_cfp(root, "FF").pictures[at].person for at in (0, -1))
    (folder / "01").rename(folder / "010")
    (folder / "02").rename(folder / "9")
    (folder / "notes").mkdir()
    (folder / "3").touch()
    pairs = read_cfp(root, "FF")
    assert pairs.fold.tolist() == [0] * 8 + [1] * 8
    assert (int(pairs.pictures[0].person) > 4, int(pairs.pictures[-1].person) > 4) == (True, False)
    assert (int(first) > 4, int(second) > 4) == (False, True)


def test_a_missing_picture_has_no_source(root):
    gone = root / "Data" / "Images" / by_hand(root, "FP")[0][0]
    gone.unlink()
    pairs = read_cfp(root)
    assert [one.name for one in pairs.pictures if one.source is None] == [by_hand(root, "FP")[0][0]]
    (root / "Data").rename(root / "Elsewhere")
    with pytest.raises(DataError, match="should hold 001/frontal/01.jpg and so on; no picture"):
        read_cfp(root)


def test_truth_against_the_folders_is_told(root):
    (root / "Protocol/Split/FP/02/same.txt").write_text("13,15\n13,9\n")
    told = "In 1 of the 14 pairs the truth is another than the names of the people say"
    assert told in read_cfp(root).notes[1]


@pytest.mark.parametrize("line", ["0,1", "25,1", "1,17", "1", "1,2,3", "a,b", "-1,2", "1 2", "1,²"])
def test_a_wrong_pair_is_named_by_file_and_line(root, line):
    file = root / "Protocol/Split/FP/02/diff.txt"
    file.write_text(f"13,9\n\n{line}\n")
    wanted = (
        "indices of the picture lists, 1 to 24 and 1 to 16"
        if re.fullmatch(r"\d+,\d+", line) and "²" not in line
        else "two indices such as '12,7'"
    )
    with pytest.raises(DataError, match=re.escape(f"{file}, line 3: expected {wanted}; got")):
        read_cfp(root)


@pytest.mark.parametrize(
    "line",
    ["x ../Data/Images/001/frontal/01.jpg", "99", "99 01.jpg", "99 Images/../frontal/01.jpg",
     "99 001//01.jpg", "99 001/frontal/a\0b"],
)  # fmt: skip
def test_a_wrong_picture_is_named_by_file_and_line(root, line):
    file = root / "Protocol" / "Pair_list_P.txt"
    file.write_text(file.read_text() + line + "\n")
    told = f"{file}, line 17: expected such as '1 ../Data/Images/001/frontal/01.jpg'; got"
    with pytest.raises(DataError, match=re.escape(told)):
        read_cfp(root)
    assert len(read_cfp(root, "FF")) == 16


def test_other_spellings_of_a_path_and_a_double_index(root):
    file = root / "Protocol" / "Pair_list_P.txt"
    file.write_text(file.read_text().replace("../", "C:\\cfp\\").replace("/", "\\"))
    assert all(one.source for one in read_cfp(root).pictures)
    file.write_text(file.read_text() + "16 001/profile/01.jpg\n")
    with pytest.raises(DataError, match="line 17: expected an index that no line above has"):
        read_cfp(root)


def test_what_is_not_cfp_is_refused(root, tmp_path):
    with pytest.raises(SettingsError, match="The protocol of CFP should be FF or FP; got 'PP'"):
        read_cfp(root, "PP")
    for place in (tmp_path, tmp_path / "none", "a\0b"):
        with pytest.raises(DataError, match="should hold the folders Data and Protocol of CFP"):
            read_cfp(place)
    for file in (root / "Protocol/Split/FP").glob("*/*.txt"):
        file.write_text("\n")
    with pytest.raises(DataError, match="below .* should hold pairs; all are empty"):
        read_cfp(root)
    (root / "Protocol/Split/FP/01/same.txt").unlink()
    with pytest.raises(DataError, match="Expected pairs of CFP at .*same.txt; there is none"):
        read_cfp(root)
    (root / "Protocol/Split/FP").rename(root / "Protocol/Split/XX")
    with pytest.raises(DataError, match="should hold the folders 01 to 10 with same.txt"):
        read_cfp(root)
