"""The pairs file of LFW: read, compared with what was written, and refused line by line."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenet.data.pairs import (
    MAX_BYTES,
    Pair,
    file_digest,
    lfw_pairs,
    lfw_path,
    listed,
    people_notes,
    read_lfw_pairs,
    short,
)
from facenet.data.pairset import Picture
from facenet.errors import DataError

NAMES = st.text("abcXYZéß_.-' ", min_size=1, max_size=8).map(str.strip).filter(bool)
NUMBERS = st.integers(0, 99_999)


def written(tmp_path, text: str | bytes):
    path = tmp_path / "pairs.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@st.composite
def folds(draw: st.DrawFn) -> tuple[int, int, list[Pair]]:
    """Number of folds, of pairs per kind, and the pairs in the order of LFW."""
    count, size = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    pairs = []
    for fold in range(count):
        for i in range(2 * size):
            a, b = draw(NAMES), draw(NAMES)
            numbers = draw(NUMBERS), draw(NUMBERS)
            same = i < size
            pairs.append(Pair((a, numbers[0]), (a if same else b, numbers[1]), same, fold))
    return count, size, pairs


@given(folds(), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "\ufeff"]))
@settings(max_examples=60, deadline=None)
def test_what_was_written_is_read(tmp_path_factory, written_folds, newline, mark):
    count, size, pairs = written_folds
    lines = [f"{count}\t{size}"]
    for pair in pairs:
        second = [] if pair.same else [pair.b[0]]
        lines.append("\t".join([pair.a[0], str(pair.a[1]), *second, str(pair.b[1])]))
    path = tmp_path_factory.mktemp("pairs") / "p.txt"
    path.write_bytes((mark + newline.join(lines)).encode())
    assert read_lfw_pairs(path) == pairs
    assert read_lfw_pairs(str(path)) == pairs


def test_lfw_of_two_folds_by_hand(tmp_path):
    text = "2 1\nAnn_Lee 1 4\nAnn_Lee 2 Bob 11\n\nBob 01 2\nCy 1 Ann_Lee 3\n\n"
    assert read_lfw_pairs(written(tmp_path, text)) == [
        Pair(("Ann_Lee", 1), ("Ann_Lee", 4), True, 0),
        Pair(("Ann_Lee", 2), ("Bob", 11), False, 0),
        Pair(("Bob", 1), ("Bob", 2), True, 1),
        Pair(("Cy", 1), ("Ann_Lee", 3), False, 1),
    ]


def test_a_header_of_one_number_is_one_fold(tmp_path):
    text = "2\nA 1 2\nB 1 2\nA 1 B 1\nA 2 B 2\n"
    pairs = read_lfw_pairs(written(tmp_path, text))
    assert [(pair.same, pair.fold) for pair in pairs] == [(True, 0)] * 2 + [(False, 0)] * 2


@pytest.mark.parametrize(
    "first", ["", "a b", "0 5", "5 0", "-1 3", "1 2 3", "²\t1", "1_0 1", "9" * 5000]
)
def test_another_first_line_is_refused(tmp_path, first):
    path = written(tmp_path, first + "\nA 1 2\n")
    told = (
        f"{path} should begin with the number of folds and of pairs, such as 10 and 300; its first "
        f"line is {first[:80]!r}. Give a pairs file such as LFW's pairs.txt."
    )
    with pytest.raises(DataError, match=re.escape(told)):
        read_lfw_pairs(path)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="should begin with the number of folds.*line is ''"):
        read_lfw_pairs(written(tmp_path, ""))


@pytest.mark.parametrize("rows", [0, 1, 3, 5])
def test_too_few_or_too_many_lines_are_refused(tmp_path, rows):
    path = written(tmp_path, "2\t1\n" + "A\t1\t2\n" * rows)
    told = rf"announces 2 folds of 1 \+ 1 pairs = 4 lines; it has {rows}. Copy or download it again"
    with pytest.raises(DataError, match=told):
        read_lfw_pairs(path)


@pytest.mark.parametrize(
    "row",
    ["A 1", "A 1 2 3 4", "A one 2", "A 1 B", "A 1 B two", "A -1 2", "A 1.0 2", "A\t1\t", "\t1\t2",
     "A\t1\t \t2", "A 1_0 2", "A ² 2", "A 1 " + "9" * 5000],
)  # fmt: skip
def test_a_wrong_line_is_named_by_its_number_in_the_file(tmp_path, row):
    path = written(tmp_path, f"1\t1\n\n\nA\t1\t2\n\n{row}\n")
    told = (
        f"{path}, line 6: expected a name and two numbers, or two names with a number each; "
        f"got {row[:80]!r}. Correct the line."
    )
    with pytest.raises(DataError, match=re.escape(told)):
        read_lfw_pairs(path)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    told = "Cannot read the pairs file .*{}.*Give a text file such as LFW's pairs.txt"
    for place, reason in (
        (tmp_path / "none.txt", "No such file"),
        (tmp_path, "Is a directory"),
        (written(tmp_path, b"\xff\xfe1\x002\x00"), "codec can't decode"),
        ("a\0b", "null byte"),
    ):
        with pytest.raises(DataError, match=told.format(reason)):
            read_lfw_pairs(place)


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "huge.txt"
    with open(path, "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DataError, match="at most 67,108,864 bytes; it is larger. Check that"):
        read_lfw_pairs(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".jpeg"])
def test_where_a_picture_lies(tmp_path, suffix):
    folder = tmp_path / "Ann_Lee"
    folder.mkdir()
    path = folder / f"Ann_Lee_0007{suffix}"
    assert lfw_path(tmp_path, ("Ann_Lee", 7)) is None
    path.touch()
    assert lfw_path(tmp_path, ("Ann_Lee", 7)) == path
    assert lfw_path(str(tmp_path), ("Ann_Lee", 7)) == path
    assert lfw_path(tmp_path, ("Ann_Lee", 70)) is None


def test_jpg_comes_before_png_and_long_numbers_are_not_cut(tmp_path):
    folder = tmp_path / "A.B"
    folder.mkdir()
    for name in ("A.B_0001.png", "A.B_0001.jpg", "A.B_12345.png"):
        (folder / name).touch()
    assert lfw_path(tmp_path, ("A.B", 1)).name == "A.B_0001.jpg"
    assert lfw_path(tmp_path, ("A.B", 12345)).name == "A.B_12345.png"


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_a_name_that_no_file_can_have_is_missing(tmp_path, name):
    assert lfw_path(tmp_path, (name, 1)) is None


def lfw(tmp_path, text: str, *names: str):
    """A pairs file, and pictures in the folders of LFW."""
    for name in names:
        path = tmp_path / "lfw" / name[:-5] / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "lfw", written(tmp_path, text)


def test_lfw_pairs_are_its_pictures_and_the_truth(tmp_path):
    text = "2\t1\nZoë_X\t1\t2\nZoë_X\t1\tBob\t3\nCy\t1\t12\nCy\t1\tDee\t1\n"
    names = ["Zoë_X_0001", "Zoë_X_0002", "Bob_0003", "Cy_0001", "Cy_0012", "Dee_0001"]
    images, file = lfw(tmp_path, text, *names)
    pairs = lfw_pairs(str(images), str(file))
    assert [one.name for one in pairs.pictures] == names
    assert (pairs.a.tolist(), pairs.b.tolist()) == ([0, 0, 3, 3], [1, 2, 4, 5])
    assert [one.person for one in pairs.pictures] == ["Zoë_X", "Zoë_X", "Bob", "Cy", "Cy", "Dee"]
    assert [one.source for one in pairs.pictures] == [
        images / name[:-5] / f"{name}.jpg" for name in names
    ]
    assert (pairs.same.tolist(), pairs.fold.tolist()) == ([True, False] * 2, [0, 0, 1, 1])
    assert pairs.digests == {"pairs.txt": hashlib.sha256(text.encode()).hexdigest()}
    assert (pairs.dataset, pairs.aligned, pairs.notes) == ("LFW", False, ())


def test_missing_pictures_have_no_source_and_missing_people_a_note(tmp_path):
    lines = ["A\t1\t2", *(f"A\t1\tNone{i}\t1" for i in range(7))]
    for pair in range(7):
        lines += [f"A\t1\t{pair + 3}"] * (pair < 6)
    images, file = lfw(tmp_path, "\n".join(["7", *lines]), "A_0001")
    pairs = lfw_pairs(images, file)
    present = {one.name: one.source is not None for one in pairs.pictures}
    assert {name for name, there in present.items() if there} == {"A_0001"}
    assert len(present) == 15
    assert pairs.notes == (
        f"7 of the 8 people have no folder in {short(images)}: None0, None1, None2, None3, None4 "
        "and 2 more.",
    )


def test_lfw_without_any_picture_is_refused(tmp_path):
    file = written(tmp_path, "1\nA\t1\t2\nA\t1\tB\t1\n")
    for place in (tmp_path, tmp_path / "none", "a\0b"):
        with pytest.raises(DataError, match="should hold Name/Name_0001.jpg; no picture of the"):
            lfw_pairs(place, file)


def test_what_is_told_of_people():
    """By loops: truth against names, and people in several folds."""
    random = np.random.default_rng(5)
    for _ in range(50):
        people, n = random.integers(2, 6), int(random.integers(1, 12))
        pictures = [Picture(f"{i}", None, "abcdef"[i % people] if i % 7 else "") for i in range(20)]
        a, b = random.integers(20, size=(2, n))
        same, fold = random.random(n) < 0.5, random.integers(3, size=n)
        wrong, folds = 0, {}
        for i, j, truth, number in zip(a, b, same, fold, strict=True):
            sides = [pictures[row].person for row in (i, j)]
            wrong += all(sides) and (sides[0] == sides[1]) != truth
            for person in filter(None, sides):
                folds.setdefault(person, set()).add(number)
        shared = sum(len(numbers) > 1 for numbers in folds.values())
        told = people_notes(pictures, a, b, same=same, fold=fold)
        assert [note for note in told if f"In {wrong} of the {n} pairs the truth" in note] == (
            told[:1] if wrong else []
        )
        assert [n for n in told if f"{shared} of the {len(folds)} people are in more" in n] == (
            told[-1:] if shared else []
        )
        assert len(told) == bool(wrong) + bool(shared)


def test_names_are_short_and_printable():
    assert short("Zoë") == "Zoë"
    assert short("\udcff.jpg") == "\\udcff.jpg"
    assert short("x" * 500) == "x" * 80 + "..."
    assert listed(list("abcde")) == "a, b, c, d, e"
    assert listed(list("abcdef")) == "a, b, c, d, e and 1 more"


def test_a_digest_of_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(DataError, match="Cannot read .*Is a directory. Check who may read it"):
        file_digest(tmp_path)
