"""Record files of InsightFace: what a writer like MXNet's wrote is read, and damage is told."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenet.data.recordio import Property, open_records, read_index, read_property
from facenet.errors import DataError

MARK = struct.pack("<I", 0xCED7230A)


def header(label, key: int) -> bytes:
    """MXNet's IRHeader: a number as label, or a list of further labels."""
    if isinstance(label, list):
        return struct.pack(f"<IfQQ{len(label)}f", len(label), 0.0, key, 0, *label)
    return struct.pack("<IfQQ", 0, label, key, 0)


def framed(payload: bytes) -> bytes:
    """A record as dmlc's RecordIOWriter frames it: cut where the mark stands at a word."""
    cuts = [at for at in range(0, len(payload) - 3, 4) if payload[at : at + 4] == MARK]
    starts, ends = [0, *(cut + 4 for cut in cuts)], [*cuts, len(payload)]
    out = b""
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        flag = 0 if not cuts else 1 if number == 0 else 3 if number == len(cuts) else 2
        part = payload[start:end]
        out += MARK + struct.pack("<I", flag << 29 | len(part)) + part + bytes(-len(part) % 4)
    return out


def write_records(path, records, *, index=True):
    """records: (key, label, picture), in the order of the file. Returns the path of the .rec."""
    out, lines = b"", []
    for key, label, picture in records:
        lines.append(f"{key}\t{len(out)}\n")
        out += framed(header(label, key) + picture)
    path.write_bytes(out)
    if index:
        path.with_suffix(".idx").write_text("".join(lines))
    return path


def insightface(pictures: list[list[bytes]]):
    """Records of `pictures` of each person in the order of face2rec2: pictures, 0, people."""
    records, ranges, key = [], [], 1
    for label, theirs in enumerate(pictures):
        ranges.append([float(key), float(key + len(theirs))])
        for picture in theirs:
            records.append((key, [float(label), 1.0], picture))
            key += 1
    records.append((0, [float(key), float(key + len(ranges))], b""))
    return records + [(key + i, pair, b"") for i, pair in enumerate(ranges)]


def read_all(records):
    return [records.read(row) for row in range(len(records.keys))]


PICTURES = st.lists(
    st.lists(
        st.lists(st.sampled_from([MARK, b"abcd", b"x", b"\0\0\0\0"]), max_size=6).map(b"".join),
        min_size=1,
        max_size=3,
    ),
    min_size=1,
    max_size=4,
)


@given(PICTURES, st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_was_written_is_read_with_and_without_an_index(tmp_path_factory, pictures, index):
    """Also pictures that contain the mark, which are cut into parts."""
    path = tmp_path_factory.mktemp("rec") / "train.rec"
    records = open_records(write_records(path, insightface(pictures), index=index))
    flat = [picture for theirs in pictures for picture in theirs]
    assert read_all(records) == flat
    assert records.keys.tolist() == list(range(1, len(flat) + 1))
    labels = [label for label, theirs in enumerate(pictures) for _ in theirs]
    assert records.labels.tolist() == labels
    assert records.sizes.tolist() == [len(picture) for picture in flat]
    ends = np.cumsum([1, *map(len, pictures)]).tolist()
    assert records.identities.tolist() == [list(pair) for pair in zip(ends, ends[1:], strict=False)]


def test_a_set_without_record_0_is_all_pictures(tmp_path):
    path = write_records(tmp_path / "a.rec", [(0, 7.0, b"one"), (1, 3.0, b""), (5, [2.0], b"two")])
    records = open_records(path)
    assert records.keys.tolist() == [0, 1, 5]
    assert records.labels.tolist() == [7, 3, 2]
    assert records.sizes.tolist() == [3, 0, 3]
    assert records.identities.shape == (0, 2)


def test_a_mark_in_the_header_itself_is_read(tmp_path):
    """The id may be the very mark; then the first part is shorter than a header."""
    key = 0xCED7230A
    path = write_records(tmp_path / "a.rec", [(1, 2.0, b"one"), (key, 4.0, b"picture")])
    records = open_records(path)
    assert records.labels.tolist() == [2, 4]
    assert read_all(records) == [b"one", b"picture"]


def test_keys_beyond_what_float32_can_name_are_told_by_their_pictures(tmp_path):
    """Record 0 of very large sets is rounded: what holds a picture is one."""
    big = float(2**24 + 2)
    made = [
        (1, [0.0, 1.0], b"a"),
        (0, [big, big], b""),
        (9, [1.0, 2.0], b""),
        (2, [1.0, 1.0], b"b"),
    ]
    records = open_records(write_records(tmp_path / "a.rec", made))
    assert records.keys.tolist() == [1, 2]
    assert read_all(records) == [b"a", b"b"]


def test_ids_that_repeat_are_no_keys(tmp_path):
    path = write_records(tmp_path / "a.rec", [(4, 0.0, b"a"), (4, 1.0, b"b")], index=False)
    assert open_records(path).keys.tolist() == [0, 1]


WHOLE = [(1, [0.0, 1.0], b"abcdefgh"), (0, [2.0, 3.0], b""), (2, [1.0, 2.0], b"")]


@pytest.mark.parametrize("index", [True, False])
def test_every_truncation_is_one_sentence(tmp_path, index):
    """Cut anywhere: refused, or (between two records, without an index) fewer records."""
    path = write_records(tmp_path / "a.rec", WHOLE, index=index)
    data = path.read_bytes()
    for length in range(0, len(data), 4):
        path.write_bytes(data[:length])
        if not index and length == len(framed(header([0.0, 1.0], 1) + b"abcdefgh")):
            assert open_records(path).keys.tolist() == [1]
            continue
        with pytest.raises(DataError, match="ends early|should hold a record|Record 0 of"):
            open_records(path)


@given(st.integers(0, 10**6), st.integers(0, 255), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_changed_byte_is_read_or_told(tmp_path_factory, at, value, index):
    path = write_records(tmp_path_factory.mktemp("rec") / "a.rec", WHOLE, index=index)
    data = bytearray(path.read_bytes())
    data[at % len(data)] = value
    path.write_bytes(data)
    try:
        read_all(open_records(path))
    except DataError as error:
        assert "again" in str(error) or "anew" in str(error)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([(1, -1.0, b"a")], "whole numbers from 0 to 16,777,215; the record of key 1 has -1"),
        ([(1, 0.5, b"a")], "record of key 1 has 0.5"),
        ([(1, float("nan"), b"a")], "record of key 1 has nan"),
        ([(1, 2.0**24, b"a")], "record of key 1 has 1.67772e.07"),
        ([(0, [float("nan"), 1.0], b"")], "Record 0 of .* gives nan and 1"),
        ([(0, [3.0, 3.0], b""), (1, 0.0, b"a")], "announces 2 pictures and 0 people; 1 and 0"),
        ([(0, [1.0, 2.0], b""), (1, [1.0, 9.0], b"")], "should be ranges of the keys 1 to 1;"),
    ],
)
def test_numbers_that_cannot_be_are_told(tmp_path, records, message):
    with pytest.raises(DataError, match=message):
        open_records(write_records(tmp_path / "a.rec", records))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("1\t0\n1\t0\n", "key 1 comes twice"),
        ("1 0\n", "holds b'1 0"),
        ("1\t-4\n", "holds b'1.*-4"),
        ("1\t" + "9" * 19, "holds"),
        ("x" * 3_000_000, "holds b'xxx"),
    ],
)
def test_an_index_that_is_none_is_told(tmp_path, text, message):
    path = tmp_path / "a.idx"
    path.write_text(text)
    with pytest.raises(DataError, match=f"{path} .*{message}.*(walked|again)"):
        read_index(path)


def test_an_index_is_sorted_whatever_its_line_ends(tmp_path):
    path = tmp_path / "a.idx"
    path.write_bytes(b"3\t40\r\n1\t80\r\n2\t0")
    assert [column.tolist() for column in read_index(path)] == [[1, 2, 3], [80, 0, 40]]
    many = np.arange(100_000)
    path.write_text("".join(f"{key}\t{4 * key}\n" for key in many))
    keys, offsets = read_index(path)
    assert np.array_equal(keys, many)
    assert np.array_equal(offsets, 4 * many)


@pytest.mark.parametrize("offset", [2, 10**6])
def test_an_index_of_another_file_is_told(tmp_path, offset):
    path = write_records(tmp_path / "a.rec", WHOLE)
    path.with_suffix(".idx").write_text(f"1\t{offset}\n")
    with pytest.raises(DataError, match=f"its index has key 1 at byte {offset:,}"):
        open_records(path)


def test_a_file_that_became_shorter_meanwhile_is_told(tmp_path):
    records = open_records(write_records(tmp_path / "a.rec", WHOLE))
    with records.path.open("r+b") as file:
        file.truncate(20)
    with pytest.raises(DataError, match="became shorter since it was opened"):
        records.read(0)


def test_no_file_is_told(tmp_path):
    with pytest.raises(DataError, match="a record file .* there is none"):
        open_records(tmp_path / "train.rec")


def test_property(tmp_path):
    path = tmp_path / "property"
    path.write_text("85164,112,112\n")
    assert read_property(path) == Property(85164, 112, 112)
    for text, message in (
        ("", "it is empty"),
        ("a,1,2", "three numbers"),
        ("1,2", "three numbers"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_property(path)
