"""Lists and feature files of MegaFace in miniature, as insightface's tools write them."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facenet.data.megaface import (
    MAX_LENGTH,
    feature_path,
    noisy,
    person_of,
    read_feature,
    read_features,
    read_image_list,
    read_noise_list,
    write_feature,
)
from facenet.errors import DataError, InputError, SettingsError, StorageError

PROBES = ["Ann Lee/Ann Lee_1.png", "Ann Lee/Ann Lee_2.png", "Bob/Bob_12.png", "x/Bob/Bob_3.jpg"]
DISTRACTORS = ["0/0/a.jpg", "0/1/b c.jpg", "root/910/7@N01/d.jpg", "0/1/a.jpg"]


def listed(tmp_path, *lines, newline="\n"):
    path = tmp_path / "lst"
    path.write_bytes(newline.join(lines).encode())
    return path


def refused(told, call, *arguments, kind=DataError, **keywords):
    with pytest.raises(kind, match=re.escape(told)) as raised:
        call(*arguments, **keywords)
    assert len(str(raised.value)) < 1000
    assert str(raised.value).endswith(".")


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\n\n"])
def test_lists_are_read(tmp_path, newline):
    path = listed(tmp_path, *PROBES, newline=newline)
    assert read_image_list(path, "facescrub") == tuple(PROBES)
    path = listed(tmp_path, *DISTRACTORS, newline=newline)
    assert read_image_list(str(path), "megaface") == tuple(DISTRACTORS)
    assert [person_of(image) for image in PROBES] == ["Ann Lee", "Ann Lee", "Bob", "Bob"]


HOSTILE = ["../../etc/passwd", "/a/b/c", "a/../b/c", "a//b/c", "a/b/..", "a\\b/c/d", "C:/a/b",
           "a/b/\0c", "a/b/" + "c" * 2000]  # fmt: skip


@pytest.mark.parametrize("line", [*HOSTILE, "alone.png"])
def test_a_path_that_leaves_its_folder_is_refused(tmp_path, line):
    path = listed(tmp_path, *PROBES[:2], "", line)
    told = f"{path}, line 4: expected a relative path of 2 parts or more; got {line[:80]!r}"
    refused(told, read_image_list, path, "facescrub")
    told = "of a facescrub picture named by 2 parts and of an algorithm with a plain name; got "
    refused(told + repr(line[:80]), feature_path, tmp_path, "facescrub", line, "r100")


def test_megaface_pictures_have_three_parts(tmp_path):
    path = listed(tmp_path, "0/0/a.jpg", "0/a.jpg")
    refused("line 2: expected a relative path of 3 parts", read_image_list, path, "megaface")
    refused("named by 3 parts", feature_path, tmp_path, "megaface", "0/a.jpg", "r100")


def test_lists_that_are_none(tmp_path):
    refused("should list facescrub pictures; it is empty", read_image_list, listed(tmp_path),
            "facescrub")  # fmt: skip
    refused("Expected the list of megaface pictures at", read_image_list, tmp_path, "megaface")
    gone = tmp_path / "none"
    refused(f"the megaface noises at {gone}; there is none", read_noise_list, gone, "megaface")
    for call in (read_image_list, read_noise_list):
        told = "A MegaFace set is one of facescrub, megaface; got 'lfw'."
        refused(told, call, listed(tmp_path, "a"), "lfw", kind=SettingsError)


def test_noise_lists(tmp_path):
    """Comments, and the second of two fields, as remove_noises.py reads them."""
    path = listed(tmp_path, "# 605", "Bob_12.png", "Ann Lee_1.png", "gone.png")
    names = read_noise_list(path, "facescrub")
    assert names == {"Bob_12.png", "Ann Lee_1.png", "gone.png"}
    assert noisy(PROBES, names, "facescrub").tolist() == [True, False, True, False]
    path = listed(tmp_path, "# x", "17\t910/7@N01/d.jpg", "0/1/a.jpg")
    names = read_noise_list(path, "megaface")
    assert names == {"910/7@N01/d.jpg", "0/1/a.jpg"}
    assert noisy(DISTRACTORS, names, "megaface").tolist() == [False, False, True, True]
    assert read_noise_list(listed(tmp_path), "megaface") == frozenset()


@pytest.mark.parametrize(
    ("kind", "line"),
    [("facescrub", "Bob/Bob_1.png"), ("facescrub", ".."), ("megaface", "a.jpg"),
     ("megaface", "1\t../../passwd"), ("megaface", "../0/a.jpg"), ("megaface", "1/2/3/a.jpg")],
)  # fmt: skip
def test_a_noise_of_another_form_is_refused(tmp_path, kind, line):
    path = listed(tmp_path, "# comment", line)
    refused(f"{path}, line 2: expected a ", read_noise_list, path, kind)


def test_where_features_lie(tmp_path):
    """As both versions of gen_megaface write them."""
    scrub, far = tmp_path / "facescrub" / "Bob", tmp_path / "megaface" / "910" / "7@N01"
    assert feature_path(tmp_path, "facescrub", PROBES[3], "r100") == (
        scrub / "Bob_3.jpg_r100_112x112.bin"
    )
    assert feature_path(str(tmp_path), "megaface", DISTRACTORS[2], "m", size=None) == (
        far / "d.jpg_m.bin"
    )
    for algorithm in ("a/b", "../m", "a\0", "m" * 2000):
        refused("an algorithm with a plain name", feature_path, tmp_path, "facescrub", PROBES[0],
                algorithm)  # fmt: skip


def test_a_feature_is_the_bytes_that_insightface_writes(tmp_path):
    """The reference packs with struct, value by value."""
    vector = np.random.default_rng(0).normal(size=513).astype(np.float32)
    path = tmp_path / "megaface" / "0" / "1" / "b c.jpg_m.bin"
    write_feature(path, vector)
    packed = struct.pack("4i", len(vector), 1, 4, 5) + struct.pack("513f", *vector)
    assert path.read_bytes() == packed
    read = read_feature(str(path))
    assert read.dtype == np.float32
    assert np.array_equal(read, vector)
    assert list(path.parent.iterdir()) == [path]
    refused("Cannot write", write_feature, tmp_path, vector, kind=StorageError)


@pytest.mark.parametrize(
    "vector", [np.zeros(0), np.zeros((2, 2)), np.zeros(MAX_LENGTH + 1), [1, np.nan], [1e300], 1.0]
)
def test_what_is_no_feature_is_not_written(tmp_path, vector):
    told = "should be 1 to 65,536 finite numbers in a row"
    refused(told, write_feature, tmp_path / "f.bin", np.asarray(vector), kind=InputError)
    assert not (tmp_path / "f.bin").exists()


HEADS = [(0, 1, 4, 5), (-1, 1, 4, 5), (2**31 - 1, 1, 4, 5), (MAX_LENGTH + 1, 1, 4, 5),
         (2, 2, 4, 5), (2, 1, 8, 5), (2, 1, 4, 6)]  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_another_header_is_refused_before_anything_is_made(tmp_path, head):
    path = tmp_path / "f.bin"
    path.write_bytes(struct.pack("4i", *head) + b"\0" * 8)
    told = f"numbers length, 1, 4, 5, the length at most 65,536; it begins with {head}. Write it"
    refused(told, read_feature, path)


def test_files_that_are_no_features(tmp_path):
    path = tmp_path / "f.bin"
    for data, told in (
        (b"", "it begins with 0 bytes"),
        (b"\x02\0\0", "it begins with 3 bytes"),
        (struct.pack("4i2f", 3, 1, 4, 5, 1, 2), "announces 3 values of 4 bytes; it has 8 bytes"),
        (struct.pack("4i2f", 1, 1, 4, 5, 1, 2), "announces 1 values of 4 bytes; it has 8 bytes"),
        (struct.pack("4i2f", 2, 1, 4, 5, 1, np.nan), "should hold finite values"),
    ):
        path.write_bytes(data)
        refused(told, read_feature, path)
    with path.open("wb") as file:
        file.write(struct.pack("4i", MAX_LENGTH, 1, 4, 5))
        file.truncate(2**33)
    refused("it has 262,145 bytes of them or more", read_feature, path)
    refused("Expected a feature file at", read_feature, tmp_path)
    refused("there is none. Write it first", read_feature, tmp_path / "none.bin")
    refused("Cannot read the feature file", read_feature, tmp_path / ("x" * 5000))


def test_many_features_come_in_blocks(tmp_path):
    table = np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)
    paths = [tmp_path / f"{n}.bin" for n in range(8)]
    for path, row in zip(paths, [*table, np.ones(5)], strict=True):
        write_feature(path, row)
    blocks = list(read_features(paths[:7], block=3))
    assert [len(block) for block in blocks] == [3, 3, 1]
    assert np.array_equal(np.concatenate(blocks), table)
    assert list(read_features([])) == []
    told = f"{paths[7]} should have 4 values like the files before it; it has 5. Give features"
    refused(told, lambda: list(read_features(paths)))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_files_are_read_or_refused_in_a_sentence(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("mf")
    path = folder / "file"
    kind = data.draw(st.sampled_from(["facescrub", "megaface", "feature"]))
    if kind == "feature":
        write_feature(path, np.arange(1, 9))
    else:
        path = listed(folder, *(PROBES if kind == "facescrub" else DISTRACTORS))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        to = data.draw(st.sampled_from([at, at + 1, at + 5, len(content)]))
        content[at:to] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"\n", b"/", b"..", b""])
        )
    path.write_bytes(content)
    try:
        if kind == "feature":
            assert np.isfinite(read_feature(path)).all()
            return
        for image in read_image_list(path, kind):
            place = feature_path(folder, kind, image, "m").resolve()
            assert place.is_relative_to(folder / kind)
        read_noise_list(path, kind)
    except DataError as error:
        assert len(str(error)) < 1000
