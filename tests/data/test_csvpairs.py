"""Lists of pairs in CSV: read as written, and refused by line."""

from __future__ import annotations

import csv
import hashlib
import re
from array import array

import numpy as np
import pytest

from facenet.data import csvpairs
from facenet.data.csvpairs import read_csv_pairs
from facenet.data.folds import contiguous_folds
from facenet.errors import DataError


def written(tmp_path, text: str | bytes, *pictures: str):
    for name in pictures:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_list_is_read_as_it_stands(tmp_path):
    text = (
        "\ufeffSame, fold,b,A ,person_a,person_b,quality\r\n"
        '1,0, p/2.jpg, "p/1, old.jpg",Ann,,0.3\r\n'
        "\r\n"
        "No,3,zoë.png,p/2.jpg,Ann,Zoë,\r\n"
        "TRUE,3,./p//2.jpg,gone.jpg,,Ann,\r\n"
    )
    path = written(tmp_path, text, "p/1, old.jpg", "p/2.jpg", "zoë.png")
    pairs = read_csv_pairs(path)
    assert [(one.name, one.source, one.person) for one in pairs.pictures] == [
        ("p/1, old.jpg", tmp_path / "p/1, old.jpg", "Ann"),
        ("p/2.jpg", tmp_path / "p/2.jpg", "Ann"),
        ("zoë.png", tmp_path / "zoë.png", "Zoë"),
        ("gone.jpg", None, ""),
    ]
    assert (pairs.a.tolist(), pairs.b.tolist()) == ([0, 1, 3], [1, 2, 1])
    assert (pairs.same.tolist(), pairs.fold.tolist()) == ([True, False, True], [0, 3, 3])
    assert pairs.digests == {"list.csv": hashlib.sha256(text.encode()).hexdigest()}
    assert (pairs.dataset, pairs.aligned) == ("list", False)
    assert pairs.notes == (
        "The folds are unbalanced: 2 folds of 1 to 2 pairs, 1 of them mated; 1 of them lack mated "
        "or non-mated pairs.",
        "Columns that were not read: quality.",
        "1 of the 2 people are in more than one fold, so that the folds are not independent and "
        "their spread is too small.",
    )


def test_what_was_written_is_read(tmp_path):
    """A random list against the csv module and dictionaries."""
    random = np.random.default_rng(2)
    rows = []
    for _ in range(300):
        i, j = random.choice(40, 2, replace=False)
        rows.append((f"d{i % 5}/{i}.jpg", f"d{j % 5}/{j}.jpg", i % 5 == j % 5))
    path = written(tmp_path, "", *{name for row in rows for name in row[:2]})
    words = {True: ["1", "true", "YES"], False: ["0", "False", "no"]}
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["a", "b", "same"])
        table.writerows([a, b, words[same][len(a) % 3]] for a, b, same in rows)
    pairs = read_csv_pairs(path)
    names = [one.name for one in pairs.pictures]
    assert len(set(names)) == len(names)
    assert [
        (names[a], names[b], same) for a, b, same in zip(pairs.a, pairs.b, pairs.same, strict=True)
    ] == rows
    fold, told = contiguous_folds(pairs.same)
    assert np.array_equal(pairs.fold, fold)
    repeated = 300 - len({frozenset(row[:2]) for row in rows})
    assert repeated > 0
    assert pairs.notes == (*told, f"{repeated} of the 300 pairs repeat an earlier one.")


def test_paths_start_from_the_root_that_is_given(tmp_path):
    path = written(tmp_path, "", "deep/1.jpg", "deep/2.jpg")
    path.write_text(f"a,b,same,fold\n1.jpg,2.jpg,1,0\n../deep/1.jpg,{tmp_path}/deep/2.jpg,1,1\n")
    pairs = read_csv_pairs(str(path), str(tmp_path / "deep"))
    assert [one.name for one in pairs.pictures] == ["1.jpg", "2.jpg", "../deep/1.jpg"]
    assert pairs.b.tolist() == [1, 1]
    assert all(one.source for one in pairs.pictures)
    told = f"should give paths of pictures relative to {tmp_path / 'list.csv'}; none of its 3 is"
    with pytest.raises(DataError, match=re.escape(told)):
        path.write_text("a,b,same\n1.jpg,2.jpg,1\n3.jpg,2.jpg,0\n")
        read_csv_pairs(path, path)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1.jpg,2.jpg", "expected 5 cells; got '1.jpg,2.jpg'"),
        ("1.jpg,2.jpg,1,A,A,A", "expected 5 cells; got '1.jpg,2.jpg,1,A,A,A'"),
        ("1.jpg,2.jpg,2,,", "expected same to be 1, true, yes, 0, false or no; got '2'"),
        (",2.jpg,1,,", "expected the paths of two pictures; got 'an empty cell'"),
        ("1.jpg,./1.jpg,1,,", "expected two pictures; got '1.jpg twice'"),
        ("1.jpg,3.jpg,0,Bob,", "expected 1.jpg to show Ann, as a line above says; got 'Bob'"),
        ("1.jpg,2.jpg,0,Ann,Ann", "expected same to be 1, as the pictures show Ann and Ann; got"),
        ("1.jpg,4.jpg,1,,Bob", "expected same to be 0, as the pictures show Ann and Bob; got '1'"),
        ("x" * 9000, "expected at most 8192 characters; got"),
        ('1.jpg,"2.jpg"x,1,,', "expected cells between commas; ',' expected after"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, told):
    text = f"a,b,same,person_a,person_b\n1.jpg,2.jpg,1,Ann,\n\n{line}\n"
    path = written(tmp_path, text, "1.jpg", "2.jpg")
    with pytest.raises(DataError, match=re.escape(f"{path}, line 4: {told}")):
        read_csv_pairs(path)


@pytest.mark.parametrize("fold", ["", "-1", "1.0", "one", "9" * 30])
def test_a_fold_is_a_whole_number(tmp_path, fold):
    path = written(tmp_path, f"a,b,same,fold\n1.jpg,2.jpg,1,{fold}\n", "1.jpg")
    with pytest.raises(DataError, match="line 2: expected fold to be 0, 1, 2 or so; got"):
        read_csv_pairs(path)


def test_people_named_in_other_lines_count_for_the_truth(tmp_path):
    text = "a,b,same,fold,person_a,person_b\n1,2,1,0,,\n1,3,0,1,Ann,\n2,3,0,1,Bob,\n"
    path = written(tmp_path, text, "1", "2", "3")
    with pytest.raises(DataError, match="line 2: expected same to be 0, .* Ann and Bob; got '1'"):
        read_csv_pairs(path)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("", "perhaps fold, and person_a with person_b; it begins with ''"),
        ("a;b;same", "it begins with 'a;b;same'. Add that line"),
        ("a,b,same,person_a", "it begins with 'a,b,same,person_a'"),
        ("a,b,same,b", "should name each column once; b is there twice"),
        ("a,b,same", "should hold a pair per line below its header; it holds none"),
    ],
)
def test_a_wrong_header_or_an_empty_list_is_refused(tmp_path, header, told):
    with pytest.raises(DataError, match=re.escape(told)):
        read_csv_pairs(written(tmp_path, header))


def test_what_is_no_list_is_refused(tmp_path):
    with pytest.raises(DataError, match="Expected a list of pairs at .*none.csv; there is none"):
        read_csv_pairs(tmp_path / "none.csv")
    with pytest.raises(DataError, match="Cannot read the list of pairs .*codec can't decode"):
        read_csv_pairs(written(tmp_path, b"a,b,same\n\xff,b,1\n"))
    with pytest.raises(DataError, match="list.csv, line .: expected cells between commas; "):
        read_csv_pairs(written(tmp_path, 'a,b,same\n"1.jpg,2.jpg,1\n'))
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.truncate(csvpairs.MAX_BYTES + 1)
    with pytest.raises(DataError, match="of at most 1,073,741,824 bytes"):
        read_csv_pairs(path)


def test_pictures_that_no_file_can_be_are_missing(tmp_path):
    text = f"a,b,same,fold\n1.jpg,{'y' * 5000},1,0\n1.jpg,a\0b,0,1\n"
    pairs = read_csv_pairs(written(tmp_path, text, "1.jpg"))
    assert [one.source is None for one in pairs.pictures] == [False, True, True]


def test_the_limits_hold(tmp_path):
    """At the limit already, one more is refused: tables that are full without a huge file."""
    full = csvpairs._Table(tmp_path, tmp_path, names=[""] * csvpairs.MAX_PICTURES)
    with pytest.raises(DataError, match="should name at most 2,000,000 pictures; it names more"):
        csvpairs._add(full, 2, {"a": "1.jpg", "b": "2.jpg", "same": "1"})
    full = csvpairs._Table(tmp_path, tmp_path, same=array("b", bytes(csvpairs.MAX_ROWS)))
    with pytest.raises(DataError, match="should hold at most 20,000,000 pairs; it holds more"):
        csvpairs._add(full, 2, {"a": "1.jpg", "b": "2.jpg", "same": "1"})
