"""Lists of attributes: read back what was written, joined to a data set, refused line by line."""

import csv
import hashlib
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenet.data.attributes import MAX_BYTES, MAX_COLUMNS, MAX_VALUE, read_attributes
from facenet.errors import DataError, SettingsError

TEXT = st.text("abéß,\"' -/", min_size=1, max_size=8).map(str.strip).filter(bool)


def written(tmp_path, text):
    path = tmp_path / "people.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


PEOPLE = "person,sex,age\nAda,female,20-39\nBob,male,\nCy,male,40+\nEve,female,20-39\n"


@given(
    st.dictionaries(TEXT, st.tuples(TEXT, TEXT | st.just("")), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
)
@settings(max_examples=60, deadline=None)
def test_what_was_written_is_read(tmp_path_factory, rows, newline, mark):
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator=newline)
    writer.writerows(
        [("Person", "Sex", "age group"), *((name, *row) for name, row in rows.items())]
    )
    path = written(tmp_path_factory.mktemp("attributes"), mark + stream.getvalue())
    got = read_attributes(str(path))
    assert (got.by, got.names, got.values) == ("person", ("Sex", "age group"), rows)
    assert (got.file, got.digest) == (
        "people.csv",
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def test_a_cell_joins_the_attributes_of_a_person(tmp_path):
    got = read_attributes(written(tmp_path, PEOPLE))
    cells = got.cells(["Eve", "Ada", "Bob", "Zoe", "Ada"])
    assert cells.labels == ("female / 20-39", "female / 20-39", "", "", "female / 20-39")
    assert (cells.unknown, cells.unused) == (("Bob", "Zoe"), ("Cy",))
    assert cells.notes == (
        "2 of the data set have no attribute and are left out of the groups: Bob, Zoe.",
        "1 of the list of attributes are not in the data set: Cy.",
    )
    turned = got.cells(["Ada", "Bob", "Cy", "Eve"], ["age", "sex"])
    assert turned.labels == ("20-39 / female", "", "40+ / male", "20-39 / female")
    one = got.cells(["Bob", "Ada", "Cy", "Eve"], ["sex"])
    assert one.labels == ("male", "female", "male", "female") and one.notes == ()


def test_pictures_may_have_attributes_of_their_own(tmp_path):
    got = read_attributes(written(tmp_path, "picture,glasses\na/1.jpg,yes\na/2.jpg,no\n"))
    assert got.by == "picture" and got.cells(["a/2.jpg", "a/1.jpg"]).labels == ("no", "yes")


def test_an_attribute_that_is_not_there_is_refused(tmp_path):
    got = read_attributes(written(tmp_path, PEOPLE))
    told = "people.csv has the attributes sex, age; it has no colour. Choose among these."
    with pytest.raises(SettingsError, match=re.escape(told)):
        got.cells(["Ada"], ["sex", "colour"])


def test_a_list_that_knows_nobody_is_refused(tmp_path):
    got = read_attributes(written(tmp_path, PEOPLE))
    told = "each person of the data set, such as Bob, ada; it names none of them, but Ada, Cy, Eve."
    with pytest.raises(DataError, match=re.escape(told)):
        got.cells(["ada", "Bob"])


@pytest.mark.parametrize(
    "header",
    ["name,sex", "person", "person,", "person,sex,sex", "person;sex", "sex,person", "person,person",
     "person," + ",".join(f"x{n}" for n in range(MAX_COLUMNS)), "person," + "x" * (MAX_VALUE + 1)],
)  # fmt: skip
def test_another_header_is_refused(tmp_path, header):
    path = written(tmp_path, f"\n{header}\nAda,x\n")
    with pytest.raises(
        DataError, match=f"^{re.escape(str(path))}, line 2: expected .*; got "
    ) as told:
        read_attributes(path)
    assert len(str(told.value)) < len(str(path)) + 300


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Ada,female", "each person once; got 'Ada again'"),
        ("Bob", "a name and 1 values; got 'Bob'"),
        ("Bob,male,old", "a name and 1 values"),
        (",male", "a name and 1 values"),
        ("Bob,a\x07b", "values of at most 100 characters"),
        (f"Bob,{'x' * 101}", "values of at most 100 characters"),
        ('Bob,"male', "cells between commas (unexpected end of data)"),
        ('Bob,"ma"le', "cells between commas ("),
        ("Bob," + "x" * 9000, "at most 8192 bytes"),
        (b"Bob,\xff", "UTF-8 text"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path, line, expected):
    line = line if isinstance(line, bytes) else line.encode()
    path = written(tmp_path, b"person,sex\nAda,female\n\n" + line + b"\n")
    with pytest.raises(DataError, match=re.escape(f"{path}, line 4: expected {expected}")) as told:
        read_attributes(path)
    assert len(str(told.value)) < len(str(path)) + 300


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_refused(tmp_path, text):
    with pytest.raises(DataError, match="line 1: expected person or picture, then the names"):
        read_attributes(written(tmp_path, text))


def test_a_header_alone_is_refused(tmp_path):
    with pytest.raises(DataError, match="a line for each picture below its header; it has none"):
        read_attributes(written(tmp_path, "picture,pose\n"))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    for place, reason in ((tmp_path / "none.csv", "there is none"), (tmp_path, "is no file")):
        with pytest.raises(DataError, match=f"Expected a list of attributes at .*{reason}"):
            read_attributes(place)
    huge = tmp_path / "huge.csv"
    with huge.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DataError, match="at most 268,435,456 bytes"):
        read_attributes(huge)
