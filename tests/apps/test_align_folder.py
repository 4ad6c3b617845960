"""Aligning a data set with toy and built-in detectors: names, boxes, crops, resuming."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import ToyDetector, toy_faces
from filelock import FileLock
from PIL import Image
from shell import blank, copy, opened, refused, run, tree

import facenet
from facenet.apps.jobs.align import align_folder, plan
from facenet.apps.jobs.align_one import AlignSettings, Outcome, Task, Worker, numbered
from facenet.apps.jobs.align_pool import outcomes_of
from facenet.apps.jobs.align_target import BOXES, LOCK, BoxList, claimed, list_boxes
from facenet.errors import DataError, SettingsError, StorageError
from facenet.types import Faces

LANDMARKS_112 = [
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
]


@pytest.fixture
def noise(tmp_path):
    """Write a noise picture: every crop of it is told from every other."""

    def write(name: str, size=(120, 100), seed=0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(cv2.resize(pixels[::6, ::6], size)).save(path)
        return path

    return write


@pytest.fixture
def people(examples, tmp_path):
    """A data set: two people, a faceless and an unreadable picture, and files of other kinds."""
    root = tmp_path / "people"
    copy(examples / "photos/hopper-rendition.jpg", root / "Grace Hopper/1.jpg")
    copy(examples / "known/Eileen Collins.jpg", root / "Eileen Collins/2.jpg")
    copy(examples / "photos/group.jpg", root / "group.jpg")
    blank(root / "Grace Hopper/sky.png")
    (root / "Eileen Collins/broken.jpg").write_text("no picture")
    (root / "Eileen Collins/notes.txt").write_text("one file to ignore")
    (root / ".cache").mkdir()
    copy(examples / "photos/hopper-rendition.jpg", root / ".cache/thumb.jpg")
    return root


def open_toy(root, *boxes, **settings):
    """A worker whose detector finds the same boxes in every picture."""
    root.mkdir(parents=True, exist_ok=True)
    return Worker(ToyDetector(toy_faces(*boxes)), AlignSettings(**settings), root)


def margin_original(box, size, margin):
    """facenet: half the margin on each side in pixels of the photo, cut at its edges."""
    x1, y1, x2, y2 = box
    half = margin / 2
    right, bottom = min(x2 + half, size[0]), min(y2 + half, size[1])
    return int(max(x1 - half, 0)), int(max(y1 - half, 0)), int(right), int(bottom)


def margin_output(box, size, margin, crop):
    """facenet-pytorch's get_size: the margin in pixels of the crop."""
    x1, y1, x2, y2 = box
    wide = margin * (x2 - x1) / (crop - margin)
    high = margin * (y2 - y1) / (crop - margin)
    return (
        int(max(x1 - wide / 2, 0)),
        int(max(y1 - high / 2, 0)),
        int(min(x2 + wide / 2, size[0])),
        int(min(y2 + high / 2, size[1])),
    )


def listed(root: Path) -> dict[str, str]:
    """The list of boxes: file -> the rest of its line."""
    lines = (root / BOXES).read_text().splitlines()
    return {name + ".png": box.strip() for name, _, box in (s.partition(".png") for s in lines)}


# ---- one data set through the command


def test_the_command_mirrors_the_folders_and_tells_what_it_left_out(people, tmp_path):
    out = tmp_path / "out"
    ran = run("align", people, out, "--workers", 1, "--json")
    assert ran.code == 2  # one picture could not be read
    assert ran.json["without_face"] == [str(people / "Grace Hopper/sky.png")]
    assert "broken.jpg" in ran.json["unreadable"][0]
    said = ran.err.splitlines()
    assert said[0] == f"facenet: No face was found in {people / 'Grace Hopper/sky.png'}."
    assert said[1] == f"facenet: {ran.json['unreadable'][0]}"
    counts = {key: ran.json[key] for key in ("pictures", "aligned", "faces", "skipped", "ignored")}
    assert counts == {"pictures": 5, "aligned": 3, "faces": 3, "skipped": 0, "ignored": 2}
    crops = {"Grace Hopper/1.png", "Eileen Collins/2.png", "group.png"}
    assert set(tree(out)) == crops | {BOXES, "align.json"}
    for crop in crops:
        assert opened(out / crop).size == (182, 182)
    assert list(listed(out)) == sorted(crops | {"Grace Hopper/sky.png"})
    assert listed(out)["Grace Hopper/sky.png"] == ""


def test_boxes_and_crops_follow_the_formula(people, tmp_path):
    """The boxes from what `detect` finds, the crop by Pillow, as facenet-pytorch cuts files."""
    out = tmp_path / "out"
    run("align", people, out, "--workers", 1, "--size", 160, "--margin", 32)
    for name in ("Grace Hopper/1", "Eileen Collins/2"):
        photo = people / f"{name}.jpg"
        picture = opened(photo).convert("RGB")
        faces = facenet.detect(photo)
        box = margin_original(faces.boxes[0].tolist(), picture.size, 32)
        assert listed(out)[f"{name}.png"] == " ".join(map(str, box))
        expected = picture.crop(box).resize((160, 160), Image.Resampling.BILINEAR)
        crop = np.asarray(opened(out / f"{name}.png"), np.int64)
        difference = np.abs(crop - np.asarray(expected))
        assert difference.max() <= 6  # JPEG is decoded by two libraries
        assert difference.mean() < 0.5


def test_one_and_two_processes_write_the_same_bytes(people, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    options = ("--select", "all", "--json")
    one = run("align", people, first, "--workers", 1, *options)
    two = run("align", people, second, "--workers", 2, *options)
    assert one.json == two.json
    assert one.err == two.err
    assert tree(first) == tree(second)
    assert {name for name in tree(first) if name.startswith("group")} == {
        f"group_{number}.png" for number in range(4)
    }


def test_all_faces_are_numbered_from_the_largest(people, tmp_path):
    out = tmp_path / "out"
    run("align", people, out, "--workers", 1, "--select", "all", "--margin", 0)
    faces = facenet.detect(people / "group.jpg")
    size = opened(people / "group.jpg").size
    for number, box in enumerate(faces.boxes.tolist()):
        expected = " ".join(map(str, margin_original(box, size, 0)))
        assert listed(out)[f"group_{number}.png"] == expected
    assert list(np.argsort(-faces.areas)) == [0, 1, 2, 3]


def test_a_second_run_skips_what_is_done_and_does_what_is_missing(people, tmp_path):
    out = tmp_path / "out"
    align = ("align", people, out, "--workers", 1, "--json")
    run(*align)
    before = tree(out)
    again = run(*align)
    assert (again.json["skipped"], again.json["aligned"]) == (4, 0)
    assert again.json["without_face"] == []
    assert tree(out) == before
    (out / "group.png").unlink()
    (out / "Grace Hopper/1.png").write_bytes(b"kept as it is")
    third = run(*align)
    assert (third.json["skipped"], third.json["aligned"]) == (3, 1)
    assert tree(out) == before | {"Grace Hopper/1.png": b"kept as it is"}


def test_a_missing_face_of_several_is_made_again(people, tmp_path):
    out = tmp_path / "out"
    align = ("align", people, out, "--workers", 1, "--select", "all", "--json")
    run(*align)
    before = tree(out)
    assert run(*align).json["skipped"] == 4
    (out / "group_2.png").unlink()
    assert run(*align).json["faces"] == 4
    assert tree(out) == before


def test_other_settings_do_not_mix_with_what_is_there(people, tmp_path):
    out = tmp_path / "out"
    align = ("align", people, out, "--workers", 1)
    run(*align)
    before = tree(out)
    said = refused(*align, "--size", "96x112", "--factor", "0.5")
    assert said.startswith(f"{out} was made with another detection, height, width.")
    assert tree(out) == before
    assert run(*align, "--engine", "onnxruntime").code == 2  # where it runs may change
    assert tree(out) == before


def test_the_five_point_crop_for_96x112(people, tmp_path):
    out = tmp_path / "out"
    ran = run("align", people, out, "--workers", 1, "--size", "96x112", "--crop", "similarity")
    assert ran.out.startswith("5 pictures: 3 aligned (3 crops), 0 done before, 1 without a face")
    photo = people / "Eileen Collins/2.jpg"
    crop = opened(out / "Eileen Collins/2.png")
    assert crop.size == (96, 112)
    faces = facenet.detect(photo)
    assert listed(out)["Eileen Collins/2.png"] == " ".join(str(int(v)) for v in faces.boxes[0])

    target = np.array(LANDMARKS_112) - [8, 0]
    turn = [[(x, -y, 1, 0), (y, x, 0, 1)] for x, y in faces.landmarks[0].astype(float)]
    (a, b, x, y), *_ = np.linalg.lstsq(np.concatenate(turn), target.ravel(), rcond=None)
    matrix = np.array([[a, -b, x], [b, a, y]])
    expected = cv2.warpAffine(facenet.load_image(photo), matrix, (96, 112))
    assert np.abs(np.asarray(crop, np.int64) - expected).max() <= 1


def test_the_five_point_crop_is_112_by_itself_and_has_no_margin(people, tmp_path):
    align = ("align", people, tmp_path / "out", "--workers", 1, "--crop", "similarity")
    assert refused(*align, "--margin", 44).startswith("A similarity crop has no margin; got margin")
    assert "3 aligned (3 crops)" in run(*align).out
    assert opened(tmp_path / "out/Eileen Collins/2.png").size == (112, 112)


@pytest.mark.parametrize("form", ["jpg", "webp"])
def test_other_formats(people, tmp_path, form):
    out = tmp_path / "out"
    run("align", people / "Grace Hopper", out, "--workers", 1, "--format", form)
    crop = opened(out / f"1.{form}")
    assert crop.format == {"jpg": "JPEG", "webp": "WEBP"}[form]


def test_folders_that_cannot_be(people, tmp_path):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    assert "no picture was found" in refused("align", tmp_path / "empty", out)
    assert "No such file or folder" in refused("align", tmp_path / "nosuch", out)
    assert "it is a file" in refused("align", people / "group.jpg", out)
    for inside in (people, people / "crops", people / "Grace Hopper/deep/er"):
        assert "should go outside of" in refused("align", people, inside)
    (tmp_path / "link").symlink_to(people)
    assert "should go outside of" in refused("align", people, tmp_path / "link/crops")
    assert "Did you mean mtcnn?" in refused("align", people, out, "--detector", "mtcn")
    assert not out.exists()
    out.mkdir()
    (out / "align.json").write_text("[1")
    assert "align.json should hold the settings" in refused("align", people, out)
    (out / "align.json").write_text("[1]")
    assert "was made with another" in refused("align", people, out)


def test_two_runs_at_once_are_refused(people, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / LOCK):
        assert refused("align", people, out).startswith(f"Another run is writing into {out}.")
    assert run("align", people, out, "--workers", 1).code == 2


# ---- the plan


def test_names_in_the_plan(noise, tmp_path):
    names = ["a/x.jpg", "a/y.jpg", "a/y.png", "b/x.jpg", "c.d/e.f.jpg", "q/z.jpg", "q/z.png"]
    names += ["q/z.jpg.bmp", "top.jpeg"]
    for name in names:
        noise(f"in/{name}")
    for other in ("a/readme.txt", ".hidden.jpg", ".git/x.jpg", "a/list.JPG.part"):
        (tmp_path / "in" / other).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / other).write_text("x")
    tasks, ignored = plan(tmp_path / "in", tmp_path / "out", AlignSettings())
    assert ignored == 4
    made = {
        str(task.source.relative_to(tmp_path / "in")): str(
            task.target.relative_to(tmp_path / "out")
        )
        for task in tasks
    }
    assert made == {
        "a/x.jpg": "a/x.png",
        "a/y.jpg": "a/y.jpg.png",
        "a/y.png": "a/y.png.png",
        "b/x.jpg": "b/x.png",
        "c.d/e.f.jpg": "c.d/e.f.png",
        "q/z.jpg": "q/z.jpg.png",
        "q/z.png": "q/z.png.png",
        "q/z.jpg.bmp": "q/z.jpg.bmp.png",
        "top.jpeg": "top.png",
    }
    assert [task.source for task in tasks] == sorted(task.source for task in tasks)


def test_numbers_go_before_the_ending():
    names = numbered(Path("a.b/c.d.png"))
    assert [str(next(names)) for _ in range(3)] == [f"a.b/c.d_{n}.png" for n in range(3)]


def test_settings_are_checked_when_they_are_made():
    with pytest.raises(SettingsError, match="format"):
        AlignSettings(format="bmp")
    with pytest.raises(SettingsError, match="select"):
        AlignSettings(select="first")
    with pytest.raises(SettingsError, match="margin"):
        AlignSettings(margin=182)
    assert AlignSettings(crop="similarity", margin=999).preprocess().margin == 0
    lasting = AlignSettings(engine="openvino", device="cpu").lasting()
    assert lasting == AlignSettings().lasting()
    assert not {"engine", "device"} & set(lasting)


def test_workers_are_not_negative(noise, tmp_path):
    noise("in/a.png")
    with pytest.raises(SettingsError, match="workers should be 0 or more; got -1"):
        align_folder(
            tmp_path / "in", tmp_path / "out", AlignSettings(), workers=-1, done=lambda d, t: None
        )


# ---- one picture


@pytest.mark.parametrize("box", [(30, 20, 80, 85), (-5.5, -7, 40, 50), (90.4, 60.6, 140, 120)])
def test_margins_in_pixels_of_the_photo(noise, tmp_path, box):
    photo = noise("in/a.png")
    worker = open_toy(tmp_path / "out", box, width=64, height=64, margin=20)
    outcome = worker.align(Task(photo, tmp_path / "out/a.png"))
    expected = margin_original(box, (120, 100), 20)
    assert outcome.crops == ((tmp_path / "out/a.png", expected),)
    pillow = opened(photo).crop(expected).resize((64, 64), Image.Resampling.BILINEAR)
    crop = np.asarray(opened(tmp_path / "out/a.png"), np.int64)
    assert np.abs(crop - np.asarray(pillow)).max() <= 1


@pytest.mark.parametrize("box", [(30, 20, 80, 85), (-5.5, -7, 40, 50), (90.4, 60.6, 118, 99)])
def test_margins_in_pixels_of_the_crop(noise, tmp_path, box):
    photo = noise("in/a.png")
    worker = open_toy(tmp_path / "out", box, width=64, height=64, margin=16, crop="margin_output")
    (crop,) = worker.align(Task(photo, tmp_path / "out/a.png")).crops
    assert crop[1] == margin_output(box, (120, 100), 16, 64)


def test_the_rule_chooses_the_face(noise, tmp_path):
    photo = noise("in/a.png", (120, 100))
    central, large = (50, 40, 70, 60), (0, 0, 44, 44)
    for rule, box in (("largest", large), ("center_weighted_size", central)):
        worker = open_toy(tmp_path / rule, large, central, select=rule, margin=0)
        ((_, made),) = worker.align(Task(photo, tmp_path / rule / "a.png")).crops
        assert made == box


def test_a_crop_that_exists_is_always_listed(noise, tmp_path):
    """The list is written first: where the crop cannot be, the line is there all the same."""
    photo, out = noise("in/a.png"), tmp_path / "out"
    worker = open_toy(out)
    (out / "person").write_text("a file where the folder should go")
    with pytest.raises(StorageError, match="Cannot write"):
        worker.align(Task(photo, out / "person/a.png"))
    assert (out / BOXES).read_text() == "person/a.png 0 0 74 80\n"
    assert BoxList.mended(out).lists(out / "person/a.png")


def test_a_face_beside_the_photo_is_a_picture_of_no_use(noise, tmp_path):
    worker = open_toy(tmp_path / "out", (500, 500, 540, 540))
    outcome = worker.align(Task(noise("in/a.png"), tmp_path / "out/a.png"))
    assert isinstance(outcome, Outcome)
    assert "should lie in the photo" in outcome.unreadable
    assert outcome.crops == ()
    assert not (tmp_path / "out" / BOXES).exists()


def test_a_picture_without_a_face_is_listed_by_its_name_alone(noise, tmp_path):
    for select, name in (("largest", "one"), ("all", "every")):
        worker = open_toy(tmp_path / name, select=select)
        worker = replace(worker, detector=ToyDetector(Faces.empty()))
        outcome = worker.align(Task(noise("in/a.png"), tmp_path / name / "a.png"))
        assert (outcome.crops, outcome.unreadable) == ((), None)
        assert (tmp_path / name / BOXES).read_text() == "a.png\n"
        assert BoxList.mended(tmp_path / name).faceless(tmp_path / name / "a.png")


def test_one_process_is_enough_for_one_picture(noise, tmp_path):
    """The toy detector cannot be handed to another process: it stays here."""
    worker = open_toy(tmp_path / "out")
    tasks = [Task(noise("in/a.png"), tmp_path / "out/a.png")]
    assert len(list(outcomes_of(tasks, worker, 8))) == 1
    assert list(outcomes_of([], worker, 8)) == []


# ---- the folder of the crops


def test_the_list_is_mended(tmp_path):
    """Half a line at the end goes; of two lines for a crop the last counts; sorted."""
    names = ["b c.png", "a.png", "faceless.png", "1 2 3 4.png", "ö.png"]
    text = "b c.png 1 2 3 4\na.png 5 6 7 8\nfaceless.png\n1 2 3 4.png\nö.png 0 0 1 1\n"
    (tmp_path / BOXES).write_text(text + "a.png 9 9 9 9\na.png 10 10")
    read = BoxList.mended(tmp_path)
    assert [read.lists(tmp_path / name) for name in names] == [True, True, False, False, True]
    assert [read.faceless(tmp_path / name) for name in names] == [False, False, True, True, False]
    assert not read.lists(tmp_path / "other.png") and not read.faceless(tmp_path / "other.png")
    mended = "1 2 3 4.png\na.png 9 9 9 9\nb c.png 1 2 3 4\nfaceless.png\nö.png 0 0 1 1\n"
    assert (tmp_path / BOXES).read_text() == mended
    list_boxes(tmp_path, tmp_path / "new.png", [(tmp_path / "new.png", (1, 2, 3, 4))])
    assert BoxList.mended(tmp_path).lists(tmp_path / "new.png")


def test_names_with_line_breaks_keep_their_line(tmp_path):
    odd = tmp_path / "two\nlines\x85\u2028.png"
    list_boxes(tmp_path, odd, [(odd, (1, 2, 3, 4))])
    list_boxes(tmp_path, tmp_path / "b.png", [])
    read = BoxList.mended(tmp_path)
    assert read.lists(odd) and read.faceless(tmp_path / "b.png")
    assert len(read.lines) == 2


def test_a_claim_cleans_up_after_a_killed_run(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("sub/a.png.1234.part", "b.part", "sub/c.png"):
        (tmp_path / name).write_text("x")
    with claimed(tmp_path, {"size": (1, 2)}):
        assert {p.name for p in tmp_path.rglob("*.p*")} == {"b.part", "c.png"}
    assert json.loads((tmp_path / "align.json").read_text()) == {"size": [1, 2]}
    with claimed(tmp_path, {"size": (1, 2)}):
        pass
    with (
        pytest.raises(SettingsError, match="another size, speed"),
        claimed(tmp_path, {"size": 3, "speed": 1}),
    ):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="Cannot write"), claimed(tmp_path / "file/out", {}):
        pass


def test_plan_needs_pictures(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="no picture was found"):
        plan(tmp_path / "in", tmp_path / "out", AlignSettings())
