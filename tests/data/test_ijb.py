"""The lists of IJB-B and IJB-C in miniature: read back, and refused line by line."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facenet.data.ijb import (
    GALLERIES,
    MAX_FACES_BYTES,
    crop_path,
    ijb_files,
    read_ijb,
    read_ijb_faces,
    read_ijb_searches,
    read_template_pairs,
)
from facenet.errors import DataError, SettingsError

MEDIA = ["1.jpg 7 90", "2.jpg 7 90", "3.jpg 2 91", "sub/4.jpg 11 92", "5.jpg 30 93"]
POINTS = [
    "1.jpg 46.060 62.026 87.785 60.323 68.851 77.656 52.162 99.875 86.450 98.648 0.999",
    "2.jpg 1 2 3 4 5 6 7 8 9 10 0.1",
    "3.jpg -1.5 2e1 3 4 5 6 7 8 9 10 0",
    "sub/4.jpg 1 2 3 4 5 6 7 8 9 10 1",
    "5.jpg 1 2 3 4 5 6 7 8 9 10 .5",
]
PAIRS = ["7 11 1", "7 30 0", "2 30 1", "2 11 0"]
HEAD = "TEMPLATE_ID,SUBJECT_ID,FILENAME,FACE_X"
FIRST = [HEAD, "7,100,img/1.png,3", "7,100,frames/2.png,4"]
SECOND = [HEAD, "2,200,img/3.png,5"]
PROBES = [HEAD, "30,200,img/5.png,6", "11,100,img/4.png,7", "11,100,img/4b.png,8"]
TEMPLATES = np.array([2, 7, 11, 30])


def lay_out(folder, dataset="ijbc", *, newline="\n", **changed):
    """Write all lists; changed: lines of media, points, pairs, first, second or probes."""
    names = ("media", "points", "pairs", "first", "second", "probes")
    lines = dict(zip(names, (MEDIA, POINTS, PAIRS, FIRST, SECOND, PROBES), strict=True)) | changed
    files = ijb_files(folder, dataset)
    for (name, rows), file in zip(lines.items(), files.values(), strict=True):
        assert name in names
        if rows is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(rows if isinstance(rows, bytes) else (newline.join(rows)).encode())
    return files


def refused(told, call, *arguments):
    with pytest.raises(DataError, match=re.escape(told)) as raised:
        call(*arguments)
    text = str(raised.value)
    assert len(text) < 1000
    assert text.endswith(".")


@pytest.mark.parametrize("dataset", list(GALLERIES))
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\n\n"])
def test_what_was_written_is_read(tmp_path, dataset, newline):
    files = lay_out(tmp_path, dataset, newline=newline)
    data = read_ijb(tmp_path, dataset)
    faces = data.faces
    assert (data.dataset, len(faces), len(data.pairs)) == (dataset, 5, 4)
    assert faces.names == ("1.jpg", "2.jpg", "3.jpg", "sub/4.jpg", "5.jpg")
    assert faces.template.tolist() == [7, 7, 2, 11, 30]
    assert faces.media.tolist() == [90, 90, 91, 92, 93]
    assert faces.landmarks.dtype == faces.detection_score.dtype == np.float32
    assert faces.landmarks[2].tolist() == [[-1.5, 20], [3, 4], [5, 6], [7, 8], [9, 10]]
    assert faces.detection_score.tolist() == np.float32([0.999, 0.1, 0, 1, 0.5]).tolist()
    assert list(zip(data.pairs.a, data.pairs.b, data.pairs.same, strict=True)) == [
        (7, 11, True), (7, 30, False), (2, 30, True), (2, 11, False),
    ]  # fmt: skip
    assert list(data.searches.galleries) == list(GALLERIES[dataset])
    one, two = data.searches.galleries.values()
    assert (one.template.tolist(), one.subject.tolist()) == ([7], [100])
    assert (two.template.tolist(), two.subject.tolist()) == ([2], [200])
    assert data.searches.probes.template.tolist() == [11, 30]
    assert data.searches.probes.subject.tolist() == [100, 200]
    assert data.digests == {
        name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()
    }


def test_without_the_1_n_lists_there_are_no_searches(tmp_path):
    lay_out(tmp_path, first=None, second=None, probes=None)
    data = read_ijb(str(tmp_path), "ijbc")
    assert data.searches is None
    assert len(data.digests) == 3


def test_missing_files_are_listed(tmp_path):
    files = lay_out(tmp_path, pairs=None, second=None)
    missing = [str(files["ijbc_template_pair_label.txt"]), str(files["ijbc_1N_gallery_G2.csv"])]
    refused(f"expected {', '.join(missing)}, which are not there", read_ijb, tmp_path, "ijbc")
    first = tmp_path / "meta" / "ijbb_face_tid_mid.txt"
    refused(f"expected {first}, ", read_ijb, tmp_path, "ijbb")
    told = f"Expected the list of templates and media at {first}; there is none. Put the file there"
    refused(told, read_ijb_faces, tmp_path, "ijbb")
    refused("Expected a list of the 1:N protocol", read_ijb_searches, tmp_path, "ijbb", TEMPLATES)
    refused("Expected the list of pairs", read_template_pairs, tmp_path, "ijbb", TEMPLATES)
    first.mkdir(parents=True)
    refused("there is something that is no file", read_ijb_faces, tmp_path, "ijbb")


def test_another_data_set_does_not_exist(tmp_path):
    with pytest.raises(SettingsError, match="one of ijbb, ijbc; got 'ijba'"):
        read_ijb(tmp_path, "ijba")


WRONG_MEDIA = [
    "3.jpg 2", "3.jpg 2 91 5", "3.jpg two 91", "3.jpg 2 91.0", "3.jpg -2 91", "3.jpg 2 1_0",
    "3.jpg ² 91", "3.jpg 2 " + "9" * 19, "x" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("line", WRONG_MEDIA)
def test_a_wrong_line_of_faces_is_named(tmp_path, line):
    file = lay_out(tmp_path, media=[*MEDIA[:2], "", line, *MEDIA[3:]])["ijbc_face_tid_mid.txt"]
    told = f"{file}, line 4: expected a name, a template and a media number; got {line[:80]!r}"
    refused(told, read_ijb_faces, tmp_path, "ijbc")


WRONG_POINTS = [
    "1 2 3 4 5 6 7 8 9 10", "1 2 3 4 5 6 7 8 9 10 11 1", "1 2 3 nan 5 6 7 8 9 10 1", "",
    "1 2 3 inf 5 6 7 8 9 10 1", "1 2 3 4 5 6 7 8 9 10 nan", "1 2 3 4 5 6 7 8 9 1e7 1",
    "1 2 3 4 5 6 7 8 9 10 -0.1", "1 2 3 4 5 6 7 8 9 10 1.1", "1 2 3 4 5 6 7 8 9 1_0 1",
    "1 2 3 4 5 6 7 8 9 ٣ 1", "a b c d e f g h i j k",
]  # fmt: skip


@pytest.mark.parametrize("line", [f"3.jpg {numbers}".strip() for numbers in WRONG_POINTS])
def test_a_wrong_line_of_landmarks_is_named(tmp_path, line):
    files = lay_out(tmp_path, points=[*POINTS[:2], line, *POINTS[3:]])
    told = (
        f"{files['ijbc_name_5pts_score.txt']}, line 3: expected a name, ten coordinates in pixels "
        f"and a detector score of 0 to 1, all finite; got {line[:80]!r}. Correct the line"
    )
    refused(told, read_ijb_faces, tmp_path, "ijbc")


def test_lists_of_different_faces_are_refused(tmp_path):
    files = lay_out(tmp_path, points=[POINTS[0], POINTS[2], POINTS[1], *POINTS[3:]])
    told = f"{files['ijbc_name_5pts_score.txt']}, line 2: expected the face '2.jpg' of ijbc_face_"
    refused(told, read_ijb_faces, tmp_path, "ijbc")
    for short, rows in (("media", MEDIA), ("points", POINTS)):
        lay_out(tmp_path, **{short: rows[:3]})
        name = {"media": "face_tid_mid", "points": "name_5pts_score"}[short]
        told = f"ijbc_{name}.txt should have a face for each line of "
        refused(told, read_ijb_faces, tmp_path, "ijbc")
        refused("it ends after 3. Fetch both", read_ijb_faces, tmp_path, "ijbc")
    lay_out(tmp_path, media=[], points=[])
    refused("should list faces; it is empty", read_ijb_faces, tmp_path, "ijbc")


HOSTILE = ["../../etc/passwd", "/etc/passwd", "a/../b", "a//b", "./a", "a/", "..", "a\\b", "C:a"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, name):
    lay_out(tmp_path, media=[*MEDIA[:4], f"{name} 30 93"])
    told = f"line 5: expected a picture named by a path below loose_crop; got {name!r}. Correct"
    refused(told, read_ijb_faces, tmp_path, "ijbc")
    refused(f"got {name!r}. Correct the list", crop_path, tmp_path, name)


def test_where_a_crop_lies(tmp_path):
    assert crop_path(tmp_path, "sub/4.jpg") == tmp_path / "loose_crop" / "sub" / "4.jpg"
    for name in ("", "a\0b", "a\nb", "x" * 2000):
        refused("plain path below loose_crop", crop_path, tmp_path, name)


@pytest.mark.parametrize(
    ("line", "told"),
    [("7 30", "two template numbers and 1 (the same person) or 0; got '7 30'"),
     ("7 30 0 0", "two template numbers and 1"), ("7 30 2", "two template numbers and 1"),
     ("7 x 0", "two template numbers and 1 (the same person) or 0; got '7 x 0'"),
     ("7 30 0.0", "two template numbers"), ("-7 30 0", "two template numbers"),
     ("7 " + "9" * 19 + " 0", "two template numbers"), ("7 \0 30 0", "two template numbers"),
     ("7 31 0", "two of the 4 templates with faces; got '7 31 0'"),
     ("1 7 1", "two of the 4 templates with faces; got '1 7 1'"),
     ("7 99999999999999999 0", "two of the 4 templates with faces")],
)  # fmt: skip
def test_a_wrong_pair_is_named(tmp_path, line, told):
    file = lay_out(tmp_path, pairs=[*PAIRS[:2], "", "  ", line, *PAIRS[2:]])
    expected = f"{file['ijbc_template_pair_label.txt']}, line 5: expected {told}"
    refused(expected, read_template_pairs, tmp_path, "ijbc", TEMPLATES)


def test_the_first_of_several_wrong_pairs_is_named(tmp_path):
    lay_out(tmp_path, pairs=[*PAIRS, "1 2 3 4", "7 x 1", "9" * 30])
    refused(", line 5: expected two", read_template_pairs, tmp_path, "ijbc", TEMPLATES)
    lay_out(tmp_path, pairs=[*PAIRS, "7 x 1", "1 2 3 4"])
    refused(", line 5: expected two", read_template_pairs, tmp_path, "ijbc", TEMPLATES)
    lay_out(tmp_path, pairs=["", ""])
    refused("should list pairs; it is empty", read_template_pairs, tmp_path, "ijbc", TEMPLATES)


def test_a_list_of_pairs_longer_than_a_chunk(tmp_path):
    """Lines of different lengths, so that the ends of the chunks fall anywhere in them."""
    generator = np.random.default_rng(3)
    known = np.unique(10 ** generator.integers(0, 10, 500) + generator.integers(0, 9, 500))
    table = known[generator.integers(0, len(known), (800_000, 2))]
    same = generator.integers(0, 2, len(table))
    columns = (table[:, 0].tolist(), table[:, 1].tolist(), same.tolist())
    lines = [f"{a} {b} {c}" for a, b, c in zip(*columns, strict=True)]
    file = lay_out(tmp_path, pairs=lines)["ijbc_template_pair_label.txt"]
    assert file.stat().st_size > 2 * 4 * 1024 * 1024
    pairs = read_template_pairs(tmp_path, "ijbc", known)
    assert np.array_equal(np.stack([pairs.a, pairs.b], 1), table)
    assert np.array_equal(pairs.same, same == 1)
    lines[700_000] = "7 7 x"
    lay_out(tmp_path, pairs=lines)
    refused(", line 700001: expected two", read_template_pairs, tmp_path, "ijbc", known)
    lay_out(tmp_path, pairs=b"1 2 0\n" + b"1" * (5 * 1024 * 1024))
    refused(", line 2: expected at most 8192 b", read_template_pairs, tmp_path, "ijbc", known)


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"first": ["T_ID,SUBJECT_ID", "7,100"]}, "G1.csv, line 1: expected a header with"),
     ({"first": [HEAD, "7"]}, "2: expected whole numbers as TEMPLATE_ID and SUBJECT_ID; got '7'"),
     ({"first": [HEAD, "7,1x"]}, "line 2: expected whole numbers as TEMPLATE_ID"),
     ({"first": [HEAD, ""]}, "G1.csv should list templates; it has none"),
     ({"first": []}, "G1.csv should list templates; it has none"),
     ({"first": [*FIRST, "7,101,x,1"]}, "line 4: expected template 7 to show person 100, as "),
     ({"probes": [*PROBES, "31,5,x,1"]}, "line 5: expected a template with faces; got '31,5,x,1'"),
     ({"second": [HEAD, "2,100,x,1"]}, "should have no person in common; they share 1, such "),
     ({"second": [HEAD, '2,"200,x']}, "line 2: expected fields with commas between them")],
)  # fmt: skip
def test_wrong_1_n_lists_are_refused(tmp_path, changed, told):
    lay_out(tmp_path, **changed)
    refused(told, read_ijb_searches, tmp_path, "ijbc", TEMPLATES)


def test_columns_of_1_n_lists_may_come_in_any_order(tmp_path):
    rows = ["\ufeffFILENAME, subject_id ,Template_ID", '"a, b.png", 100 ,"7"']
    lay_out(tmp_path, first=rows)
    first = read_ijb_searches(tmp_path, "ijbc", TEMPLATES).galleries["G1"]
    assert (first.template.tolist(), first.subject.tolist()) == ([7], [100])


def test_hostile_files_are_refused(tmp_path):
    file = lay_out(tmp_path, media=b"1.jpg 7 90\n\xff\xfe 1 2\n")["ijbc_face_tid_mid.txt"]
    refused(f"{file}, line 2: expected UTF-8 text", read_ijb_faces, tmp_path, "ijbc")
    lay_out(tmp_path, media=b"1.jpg 7 90\n" + b"y" * 10_000)
    refused(", line 2: expected at most 8192 bytes", read_ijb_faces, tmp_path, "ijbc")
    with file.open("wb") as stream:
        stream.truncate(MAX_FACES_BYTES + 1)
    refused("at most 268,435,456 bytes; it has 268,435,457", read_ijb_faces, tmp_path, "ijbc")
    refused("ijbc_face_tid_mid.txt; there is none", read_ijb_faces, "a\0b", "ijbc")
    refused("Cannot read the list of templates", read_ijb_faces, "x" * 5000, "ijbc")


@given(st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_lists_are_read_or_refused_in_a_sentence(tmp_path_factory, data):
    """Cut, overwrite or insert bytes in one file: the answer is a set that fits, or a DataError."""
    folder = tmp_path_factory.mktemp("ijb")
    file = data.draw(st.sampled_from(list(lay_out(folder).values())))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        to = data.draw(st.sampled_from([at, at + 1, at + 5, len(content)]))
        content[at:to] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"\n", b" ", b"9", b""])
        )
    file.write_bytes(content)
    try:
        found = read_ijb(folder, "ijbc")
    except DataError as error:
        assert len(str(error)) < 1000
    else:
        count = len(found.faces)
        assert found.faces.landmarks.shape == (count, 5, 2)
        assert np.isfinite(found.faces.landmarks).all()
        named = {*found.pairs.a.tolist(), *found.pairs.b.tolist()}
        assert named <= set(found.faces.template.tolist())
        assert len(found.pairs.a) == len(found.pairs.b) == len(found.pairs.same) >= 1
