"""`facenet evaluate tracking VIDEO --truth GT`: a made-up video, whose truth is what was drawn."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import LOSSLESS, write_clip
from fakes import ToyDetector, ToyEngine, toy_card, toy_faces, toy_fmr
from miniature import EXAMPLES, strict
from shell import refused, run

from facenet.apps.jobs.filming.trackfile import BoxLog, write_tracks
from facenet.apps.jobs.following import STRIDES
from facenet.apps.jobs.truthscoring import evaluate_video, video_text
from facenet.apps.jobs.visitscoring import VISIT_STRIDES
from facenet.data.motchallenge import read_motchallenge
from facenet.errors import DataError, InputError
from facenet.faces.embed import Embedder
from facenet.faces.track import TrackSettings
from facenet.images import load_image
from facenet.recognizer import Recognizer
from facenet.types import Faces

SHADES = {1: (230, 0, 0), 2: (0, 230, 0), 3: (0, 0, 230)}
STREET = Path(__file__).parents[1] / "golden/faces-1080p.gt.txt"
FRAMES, LEFT, BACK = 240, 50, 190


def place(person, number):
    """Left, top, width, height; everybody walks a pixel in three frames."""
    return 20 + number // 3, 10 + 45 * (person - 1), 28, 34


def there(number):
    """Red leaves and comes back after 5.6 s, Green stays, Blue is hardly to be seen."""
    away = LEFT <= number < BACK
    return [person for person in SHADES if not (person == 1 and away)]


def colours(image):
    """A face in every spot of a colour."""
    boxes = []
    for shade in SHADES.values():
        x, y, wide, high = cv2.boundingRect((image == shade).all(axis=2).astype(np.uint8))
        if wide:
            boxes.append((x, y, x + wide, y + high))
    return toy_faces(*boxes) if boxes else Faces.empty()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """The video, and a line of truth for each spot; Blue's do not count."""
    folder = tmp_path_factory.mktemp("scene")
    pictures, lines = [], []
    for number in range(FRAMES):
        picture = np.full((150, 160, 3), 90, np.uint8)
        for person in there(number):
            x, y, wide, high = place(person, number)
            picture[y : y + high, x : x + wide] = SHADES[person]
            flags = "0,1,0.3" if person == 3 else "1,1,1"
            lines.append(f"{number + 1},{person},{x},{y},{wide},{high},{flags}\n")
        pictures.append(picture)
    (folder / "gt.txt").write_text("".join(lines))
    return write_clip(folder / "scene.mkv", pictures, **LOSSLESS), folder / "gt.txt"


def recognizer():
    embedder = Embedder(toy_card(name="toy", fmr=toy_fmr()), ToyEngine())
    return Recognizer.from_parts(ToyDetector(colours), embedder)


@pytest.fixture(scope="module")
def found(scene):
    seen = []
    scored = evaluate_video(*scene, recognizer(), done=lambda *step: seen.append(step))
    assert seen == [(number + 1, FRAMES) for number in range(FRAMES)]
    return scored


def test_tracks_are_scored_at_every_stride_with_and_without_embeddings(found):
    assert (found["dataset"], found["model"], found["people"]) == ("scene.mkv", "toy", 3)
    rows = found["rows"]
    assert [(row["embeddings"], row["stride"]) for row in rows] == [
        (with_, stride) for with_ in (False, True) for stride in STRIDES
    ]
    faces = FRAMES + FRAMES - (BACK - LEFT)
    for row in rows:
        assert (row["frames"], row["faces"], row["visits"], row["clips"]) == (FRAMES, faces, 2, 1)
        wrong = row["misses"] + row["false_positives"] + row["switches"]
        assert row["mota"] == pytest.approx(1 - wrong / faces)
        assert row["switches"] == 1  # Red, who was away for longer than a track may be lost
    for row in (rows[0], rows[len(STRIDES)]):
        # A track counts from its second frame on: Red twice, Green once. Blue is not counted.
        assert (row["misses"], row["false_positives"], row["overlap"]) == (3, 0, 1)
        assert row["idf1"] == pytest.approx(2 * (FRAMES - 1 + LEFT - 1) / (faces + faces - 3))


def test_each_visit_has_one_arrival(found):
    visits = found["visits"]
    assert visits["gone_s"] == 5.0
    assert [(row["known"], row["stride"]) for row in visits["rows"]] == [
        (False, stride) for stride in VISIT_STRIDES
    ]
    for row in visits["rows"]:
        assert (row["visits"], row["once"], row["missed"], row["excess"]) == (3, 3, 0, 0)
        assert (row["right"], row["named"], row["switches"]) == (None, None, 1)
        assert row["mota"] > 0.9 and row["idf1"] > 0.8
    told = [(row["person"], row["from_s"], row["to_s"]) for row in visits["each"]]
    assert sorted(told) == [
        (1, 0.0, pytest.approx((LEFT - 1) / 25)),
        (1, pytest.approx(BACK / 25), pytest.approx((FRAMES - 1) / 25)),
        (2, 0.0, pytest.approx((FRAMES - 1) / 25)),
    ]
    ones = {str(stride): 1 for stride in VISIT_STRIDES}
    assert [row["arrivals"] for row in visits["each"]] == [ones] * 3


def test_the_text_has_a_table_of_each_kind(found):
    tracks, watched, each = (part.splitlines() for part in video_text(found).split("\n\n"))
    assert [line.split()[:2] for line in tracks[1:]] == [
        [str(stride), told] for told in ("no", "yes") for stride in STRIDES
    ]
    assert watched[0] == "Watched as `facenet video` does; somebody is gone after 5 s."
    assert watched[1].split()[:4] == ["stride", "visits", "arrived", "once"]
    assert [line.split()[1] for line in watched[2:]] == ["3"] * len(VISIT_STRIDES)
    assert each[1].split()[-6:] == [word for n in VISIT_STRIDES for word in ("stride", str(n))]
    assert sorted(line.split()[0] for line in each[2:]) == ["1", "1", "2"]


def test_without_appearance_there_is_one_row_for_each_stride(scene):
    plain = TrackSettings(appearance=0)
    found = evaluate_video(*scene, recognizer(), settings=plain, done=lambda *_: None)
    assert [row["embeddings"] for row in found["rows"]] == [False] * len(STRIDES)


def test_the_tracks_of_a_run_are_a_truth_that_can_be_corrected(tmp_path):
    faces = toy_faces((10, 20, 40.25, 60), (1, 2, 21, 32)).with_(track_id=np.array([4, 9]))
    with BoxLog(tmp_path) as boxes:
        boxes.add(2, 0.08, faces)
        write_tracks(tmp_path / "tracks.txt", [], {}, boxes)
    *_, frame = read_motchallenge(tmp_path / "tracks.txt").of_video(3)
    assert frame.people.tolist() == [4, 9] and frame.counted.all()
    np.testing.assert_allclose(frame.boxes, faces.boxes, atol=0.005)


def test_truth_and_video_must_belong_together(scene, tmp_path):
    video, truth = scene
    longer = tmp_path / "longer.txt"
    longer.write_text(f"{truth.read_text()}{FRAMES + 1},1,1,1,9,9,1,1,1\n")
    with pytest.raises(DataError, match=f"a video of {FRAMES} frames; it names frame 241"):
        evaluate_video(video, longer, recognizer(), done=lambda *_: None)
    with pytest.raises(InputError, match="none.mp4"):
        evaluate_video(tmp_path / "none.mp4", truth, recognizer(), done=lambda *_: None)


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """Ten frames of the group photo, and the faces of the photo in each of them."""
    folder = tmp_path_factory.mktemp("group")
    photo = load_image(EXAMPLES / "photos/group.jpg")
    boxes = Recognizer().detect(EXAMPLES / "photos/group.jpg").boxes.round().astype(int).tolist()
    lines = [
        f"{number},{person},{x1},{y1},{x2 - x1},{y2 - y1},1,1,1\n"
        for number in range(1, 11)
        for person, (x1, y1, x2, y2) in enumerate(boxes, 1)
    ]
    (folder / "gt.txt").write_text("".join(lines))
    return write_clip(folder / "group.mp4", [photo] * 10), folder / "gt.txt"


def test_the_command_prints_what_it_found(group):
    video, truth = group
    ran = run("evaluate", "tracking", video, "--truth", truth, "--json")
    assert ran.code == 0, ran.err
    found = strict(ran.out)
    assert (found["dataset"], found["model"]) == ("group.mp4", "mobilefacenet")
    assert {row["switches"] for row in found["rows"]} == {0}
    assert found["rows"][0]["misses"] == found["people"] == 4  # the first frame confirms nobody
    assert [row["stride"] for row in found["visits"]["rows"]] == list(VISIT_STRIDES)
    assert found["visits"]["each"] == []  # nobody is there for longer than a moment


def test_the_command_refuses_what_does_not_fit(group, tmp_path):
    video, truth = group
    said = refused("evaluate", "tracking", video)
    assert "group.mp4 is a video" in said and "--truth GT.txt" in said
    options = ("--clips", "3", "--min-images", "2")
    said = refused("evaluate", "tracking", video, "--truth", truth, *options)
    assert said.startswith("--clips and --min-images would change nothing")
    said = refused("evaluate", "tracking", video, "--truth", tmp_path / "gt.txt")
    assert "a file of true boxes" in said
    (tmp_path / "gt.txt").write_text("0,1,1,1,9,9,1,1,1\n")
    said = refused("evaluate", "tracking", video, "--truth", tmp_path / "gt.txt")
    assert "line 1: expected frame and id as whole numbers from 1 up" in said
    assert "is no file" in refused("evaluate", "tracking", tmp_path, "--truth", truth)


def test_the_people_of_a_street_are_followed(data):
    video = data / "video/faces-1080p.mp4"
    found = evaluate_video(video, STREET, Recognizer(), done=lambda *_: None)
    rows = {(row["embeddings"], row["stride"]): row for row in found["rows"]}
    assert found["people"] == 11 and rows[True, 1]["faces"] == 674
    assert rows[True, 1]["mota"] > 0.8 and rows[True, 1]["idf1"] > 0.85
    assert rows[True, 2]["mota"] > 0.75 and rows[True, 2]["idf1"] > 0.8
    assert all(row["switches"] <= 3 for row in rows.values())
    watched = {row["stride"]: row for row in found["visits"]["rows"]}
    assert watched[3]["mota"] > 0.8 and watched[3]["idf1"] > 0.85 and watched[3]["switches"] <= 2
    assert watched[3]["visits"] == 9 and watched[3]["missed"] <= 2 and watched[3]["excess"] <= 2
