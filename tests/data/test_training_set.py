"""Training sets: what is taken, what is skipped and why, digests, parts, and what changed."""

from __future__ import annotations

import hashlib
import json

import cv2
import numpy as np
import pytest
from test_recordio import insightface, write_records

from facenet.data.folders import class_pictures
from facenet.data.trainingset import manifest_difference, open_training_set
from facenet.errors import DataError, SettingsError


def encoded(seed: int, ending: str = ".png") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 8, 3), np.uint8)
    return cv2.imencode(ending, pixels)[1].tobytes()


def grow(root, **people: int):
    """So many pictures of each person, all different, in class folders."""
    for name, count in people.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            content = encoded(number + 100 * len(name))
            (root / name / f"{number}.png").write_bytes(content)
    return root


def test_a_folder_is_read_in_the_order_of_the_other_readers(tmp_path):
    grow(tmp_path / "set", b=2, a=1)
    (tmp_path / "set/b/deep").mkdir()
    (tmp_path / "set/b/deep/0.jpg").write_bytes(encoded(5, ".jpg"))
    (tmp_path / "set/b/0-x.png").write_bytes(encoded(6))
    found = open_training_set(tmp_path / "set")
    pictures = class_pictures(tmp_path / "set")
    assert list(found.names) == [picture.name for picture in pictures]
    assert [found.people[label] for label in found.labels] == [p.person for p in pictures]
    assert [found.read(row) for row in range(len(found))] == [
        p.source.read_bytes() for p in pictures
    ]
    assert found.sizes.tolist() == [p.source.stat().st_size for p in pictures]
    assert (found.name, found.people, found.skipped) == ("set", ("a", "b"), ())
    assert found.names[1:3][0] == found.names[1]


def test_everything_that_is_left_out_is_told(tmp_path):
    grow(tmp_path, good=2, one=1, empty=0)
    whole = encoded(1, ".jpg")
    for name, content in {
        "good/.DS_Store": b"x",
        "good/notes.txt": b"x",
        "good/nothing.jpg": b"",
        "good/cut.jpg": whole[:-20],
        "good/text.png": b"<html>",
        "good/.git/a.png": whole,
        ".hidden": b"",
        "loose.png": whole,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "good/link.png").symlink_to("nowhere")
    (tmp_path / "good/other").symlink_to(tmp_path / "one")
    found = open_training_set(tmp_path, min_images=2)
    assert found.people == ("good",)
    assert list(found.names) == ["good/0.png", "good/1.png"]
    reasons = {skip.name: skip.reason for skip in found.skipped}
    assert len(reasons) == len(found.skipped)
    cut, text = reasons.pop("good/cut.jpg"), reasons.pop("good/text.png")
    assert "should run to its end marker" in cut
    assert "HTML" in text
    kinds = "(.jpg, .jpeg, .png, .webp, .bmp, .tif, .tiff)"
    assert reasons == {
        ".hidden": "it is hidden",
        "good/.DS_Store": "it is hidden",
        "good/.git": "it is hidden",
        "good/notes.txt": f"its name is none of a picture {kinds}",
        "good/nothing.jpg": "it is empty",
        "good/link.png": "it is no file, or a link to none",
        "good/other": "it is a link to another folder",
        "loose.png": "it lies in no person's folder",
        "empty": "no usable picture, where 2 or more are needed",
        "one": "1 usable picture, where 2 or more are needed",
    }


def test_without_the_check_no_picture_is_opened(tmp_path):
    grow(tmp_path, ann=1)
    (tmp_path / "ann/cut.jpg").write_bytes(encoded(1, ".jpg")[:-20])
    assert list(open_training_set(tmp_path, check=False).names) == ["ann/0.png", "ann/cut.jpg"]
    assert list(open_training_set(tmp_path).names) == ["ann/0.png"]


def test_a_picture_that_is_gone_is_named(tmp_path):
    found = open_training_set(grow(tmp_path, ann=2))
    (tmp_path / "ann/1.png").unlink()
    with pytest.raises(DataError, match="ann/1.png should be there .*No such file.*Put it back"):
        found.read(1)
    (tmp_path / "ann/0.png").write_bytes(b"")
    with pytest.raises(DataError, match="ann/0.png should be as it was .*it is empty"):
        found.read(0)


def test_the_digest_is_that_of_names_labels_and_sizes(tmp_path):
    found = open_training_set(grow(tmp_path, ann=2, bo=1))
    lines = [
        f"{name}\t{label}\t{len(found.read(row))}\n"
        for row, (name, label) in enumerate(zip(found.names, [0, 0, 1], strict=True))
    ]
    assert found.digest == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert open_training_set(tmp_path, check=False).digest == found.digest
    assert found.subset([1, 0, 2]).digest != found.digest
    assert found.subset([0, 1, 2]).digest == found.digest


def test_a_part_has_labels_from_0_again(tmp_path):
    found = open_training_set(grow(tmp_path, ann=2, bo=1, cy=3))
    part = found.subset([5, 0, 4])
    assert part.people == ("ann", "cy")
    assert part.labels.tolist() == [1, 0, 1]
    assert list(part.names) == ["cy/2.png", "ann/0.png", "cy/1.png"]
    assert [part.read(row) for row in range(3)] == [found.read(row) for row in (5, 0, 4)]
    again = part.subset([2])
    assert (again.people, again.names[0], again.labels.tolist()) == (("cy",), "cy/1.png", [0])
    assert list(found.of_people([2, 0]).names) == [f"ann/{i}.png" for i in range(2)] + [
        f"cy/{i}.png" for i in range(3)
    ]
    for rows, message in (([], "would hold none"), ([6], "it names 6"), ([-1, 2], "it names -1")):
        with pytest.raises(DataError, match=message):
            found.subset(rows)


def test_what_changed_is_said(tmp_path):
    place = grow(tmp_path, ann=2, bo=2, cy=2, di=2)
    before = json.loads(json.dumps(open_training_set(place).manifest()))
    assert manifest_difference(before, open_training_set(place).manifest()) is None
    (place / "ann/2.png").write_bytes(encoded(9))
    (place / "bo/0.png").write_bytes(encoded(0, ".jpg"))
    grow(place, eve=1)
    for path in (place / "di").iterdir():
        path.unlink()
    said = manifest_difference(before, open_training_set(place).manifest())
    assert said == (
        f"The training set {place.name} changed: 8 pictures instead of 8; people gone: 1 (di); "
        "people added: 1 (eve); people with other pictures: 2 (ann: 3 instead of 2, bo: as many, "
        "but others)."
    )
    whole = open_training_set(place)
    turned = whole.subset(range(len(whole) - 1, -1, -1)).manifest()
    assert "in another order" in (manifest_difference(whole.manifest(), turned) or "")
    for damaged in ({}, {"people": 3}, {**before, "people": {"ann": 3}}, [1]):
        with pytest.raises(DataError, match="The manifest .* this one does not"):
            manifest_difference(damaged, before)


def test_names_that_are_no_text_have_a_digest(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / b"\xff.png".decode("utf-8", "surrogateescape")).write_bytes(encoded(1))
    found = open_training_set(tmp_path)
    assert len(found.digest) == 64
    assert json.loads(json.dumps(found.manifest()))["people"]["a"][0] == 1


@pytest.mark.parametrize("inside", [True, False])
def test_a_record_file_is_a_training_set(tmp_path, inside):
    pictures = [[encoded(0), b"", encoded(1)], [encoded(2)], [b"GIF89a"], [encoded(3), encoded(4)]]
    file = write_records(tmp_path / "train.rec", insightface(pictures))
    (tmp_path / "property").write_text("4,112,112")
    found = open_training_set(tmp_path if inside else file, min_images=2)
    assert found.name == tmp_path.name
    assert found.people == ("0", "3")
    assert list(found.names) == ["1", "3", "6", "7"]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert [found.read(row) for row in range(4)] == [encoded(seed) for seed in (0, 1, 3, 4)]
    assert found.sizes.tolist() == [len(encoded(seed)) for seed in (0, 1, 3, 4)]
    by_name = {skip.name: skip.reason for skip in found.skipped}
    assert "say GIF" in by_name.pop("5")
    assert by_name == {
        "2": "its record holds no picture",
        "person 1": "1 usable picture, where 2 or more are needed",
        "person 2": "no usable picture, where 2 or more are needed",
    }
    assert open_training_set(file, check=False).labels.tolist() == [0, 0, 1, 2, 3, 3]


def test_labels_that_contradict_the_rest_of_a_record_set_are_refused(tmp_path):
    records = insightface([[encoded(0), encoded(1)], [encoded(2)]])
    records[1] = (2, [1.0, 1.0], encoded(1))
    file = write_records(tmp_path / "train.rec", records)
    with pytest.raises(
        DataError, match="keys 1 to 2 are one person; .* labels 0, 1. .*check=False"
    ):
        open_training_set(file)
    assert open_training_set(file, check=False).labels.tolist() == [0, 1, 1]
    (tmp_path / "property").write_text("1,112,112")
    with pytest.raises(DataError, match="says 1 people.* key 2 has the label 1. Correct the file"):
        open_training_set(file, check=False)


def test_places_that_are_no_training_set_are_refused(tmp_path):
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "none").mkdir()
    for place, message in (
        ("file.txt", "it is another file"),
        ("absent", "there is nothing"),
        ("none", "it holds nobody. 0 things were passed over. Put"),
        ("x" * 5000, "Cannot read the training set .*too long"),
    ):
        with pytest.raises(DataError, match=message):
            open_training_set(tmp_path / place)
    grow(tmp_path / "few", ann=1)
    with pytest.raises(
        DataError, match="1 things were passed over: ann: 1 usable picture, where 2"
    ):
        open_training_set(tmp_path / "few", min_images=2)
    with pytest.raises(DataError, match="it holds nobody"):
        open_training_set(write_records(tmp_path / "a.rec", [(1, 0.0, b"no")]))
    with pytest.raises(SettingsError, match="min_images should be 1 or more; got 0"):
        open_training_set(tmp_path, min_images=0)
