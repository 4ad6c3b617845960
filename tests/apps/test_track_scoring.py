"""`facenet evaluate tracking`: people of one colour each, followed by a detector of colours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from fakes import ToyDetector, ToyEngine, toy_card, toy_faces, toy_fmr
from miniature import EXAMPLES, strict
from PIL import Image
from shell import refused, run

from facenet.apps.jobs.following import STRIDES
from facenet.apps.jobs.trackscoring import Scoring, evaluate_tracking, tracking_text
from facenet.apps.jobs.visitscoring import VISIT_STRIDES
from facenet.data.cutouts import HALF
from facenet.errors import DataError, SettingsError
from facenet.faces.embed import Embedder
from facenet.faces.track import TrackSettings
from facenet.recognizer import Recognizer
from facenet.types import Faces

SHADES = {"Red": (230, 0, 0), "Green": (0, 230, 0), "Blue": (0, 0, 230)}
WIDE, HIGH = 80, 90


def colours(image):
    """A face in the middle of a portrait, or one for each spot of a colour in a frame."""
    if image.shape[:2] == (HIGH, WIDE):
        return toy_faces((20, 20, 60, 68)) if image.max() > 200 else Faces.empty()
    boxes = []
    for shade in SHADES.values():
        low, high = np.clip([np.array(shade) - 60, np.array(shade) + 60], 0, 255)
        found, _, spots, _ = cv2.connectedComponentsWithStats(cv2.inRange(image, low, high))
        if found > 1:
            x, y, wide, high, area = spots[1:][np.argmax(spots[1:, 4])].tolist()
            if area > 200:
                middle = np.array([x + wide / 2, y + high / 2])
                half = np.array([wide / HALF[0], high / HALF[1]]) / 4
                boxes.append((*(middle - half), *(middle + half)))
    return toy_faces(*boxes) if boxes else Faces.empty()


def recognizer(**card):
    embedder = Embedder(toy_card(name="toy", **card), ToyEngine())
    return Recognizer.from_parts(ToyDetector(colours), embedder)


@pytest.fixture
def people(tmp_path):
    """A picture or a folder per person; one picture shows nobody, one is none."""
    root = tmp_path / "people"
    (root / "Blue").mkdir(parents=True)
    for name, shade in SHADES.items():
        path = root / "Blue" / "1.png" if name == "Blue" else root / f"{name}.png"
        Image.new("RGB", (WIDE, HIGH), shade).save(path)
    Image.new("RGB", (WIDE, HIGH)).save(root / "Nobody.png")
    (root / "Broken.jpg").write_bytes(b"not a picture")
    return root


SHORT = Scoring(clips=3, together=3, seconds=1.6, seed=2)


def test_a_row_for_each_stride_with_and_without_embeddings(people):
    seen = []
    found = evaluate_tracking(
        people, recognizer(), SHORT, done=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    rows = found["rows"]
    assert [(row["embeddings"], row["stride"]) for row in rows] == [
        (with_, stride) for with_ in (False, True) for stride in STRIDES
    ]
    assert found["people"] == 3 and found["kinds"] == ["walk", "cross", "meet"]
    assert len(found["problems"]) == 3 and "No face was found in" in str(found["problems"])
    for row in rows:
        assert (row["clips"], row["people"], row["frames"]) == (3, 9, 3 * 40)
        wrong = row["misses"] + row["false_positives"] + row["switches"]
        assert row["mota"] == pytest.approx(1 - wrong / row["faces"])
        assert 0 <= row["idf1"] <= 1 and row["frames_per_second"] > 0
        assert row["misses"] + row["boxes"] == row["faces"] + row["false_positives"]
    best = {row["stride"]: row for row in rows if row["embeddings"]}
    assert best[1]["mota"] > 0.8 and best[1]["idf1"] > 0.85
    assert best[1]["misses"] < best[8]["misses"]
    assert len({row["faces"] for row in rows}) == 1


def test_the_same_seed_gives_the_same_figures(people):
    def figures(seed):
        how = Scoring(clips=1, together=3, seconds=0.8, seed=seed)
        found = evaluate_tracking(people, recognizer(), how, done=lambda *_: None)
        return [{k: v for k, v in row.items() if k != "frames_per_second"} for row in found["rows"]]

    assert figures(1) == figures(1) != figures(2)


def test_without_appearance_there_is_one_row_for_each_stride(people):
    how = Scoring(clips=1, together=2, seconds=0.5)
    plain = TrackSettings(appearance=0)
    found = evaluate_tracking(people, recognizer(), how, settings=plain, done=lambda *_: None)
    assert [row["embeddings"] for row in found["rows"]] == [False] * len(STRIDES)
    lines, visits = (part.splitlines() for part in tracking_text(found).split("\n\n"))
    assert len(lines) == 1 + len(STRIDES) and "MOTA" in lines[0] and "IDF1" in lines[0]
    assert [line.split()[:4] for line in lines[1:]] == [[str(s), "no", "1", "2"] for s in STRIDES]
    assert [line.split()[:2] for line in visits[2:]] == [["no", str(s)] for s in VISIT_STRIDES]
    assert visits[0].startswith("Visits; somebody is gone after ") and "Known" not in visits[0]
    assert found["visits"]["known"] == 0 and found["visits"]["strangers"] == 3
    assert "Names are not judged." in found["problems"][-1]


def test_half_of_the_people_are_known_by_another_picture_where_there_is_one(people):
    for name in ("2.png", "3.png"):
        Image.new("RGB", (WIDE, HIGH), SHADES["Blue"]).save(people / "Blue" / name)
    how = Scoring(clips=1, together=3, seconds=2.4, seed=2)  # each is there for 1.5 s or more
    found = evaluate_tracking(people, recognizer(fmr=toy_fmr()), how, done=lambda *_: None)
    visits = found["visits"]
    assert (visits["known"], visits["unseen"], visits["strangers"]) == (1, 1, 2)
    assert len(visits["gone_s"]) == 1
    keys = [(row["known"], row["stride"]) for row in visits["rows"]]
    assert keys == [(known, stride) for known in (False, True) for stride in VISIT_STRIDES]
    for row in visits["rows"]:
        assert row["visits"] == 3 >= row["once"] + row["missed"]
        assert row["arrived"] - row["excess"] == 3 - row["missed"] >= 1
        named = [row[name] for name in ("right", "wrong", "unknown", "strangers")]
        assert sum(named) == 3 - row["missed"] if row["known"] else named == [None] * 4


def test_people_with_few_pictures_are_left_out(people):
    Image.new("RGB", (WIDE, HIGH), SHADES["Blue"]).save(people / "Blue" / "2.png")
    with pytest.raises(DataError, match="two people or more with a face in each"):
        how = Scoring(clips=1, min_images=2)
        evaluate_tracking(people, recognizer(), how, done=lambda *_: None)


def test_one_person_is_too_few(tmp_path):
    Image.new("RGB", (WIDE, HIGH), SHADES["Red"]).save(tmp_path / "Red.png")
    with pytest.raises(DataError, match="two people or more with a face in each"):
        evaluate_tracking(tmp_path, recognizer(), SHORT, done=lambda *_: None)
    with pytest.raises(SettingsError, match="together should be 2 to 10000; got 1"):
        Scoring(together=1)


def test_the_command_prints_what_it_found():
    known = EXAMPLES / "known"
    options = ("--clips", "1", "--seconds", "0.5", "--people", "3", "--together", "2")
    ran = run("evaluate", "tracking", known, *options, "--json")
    assert ran.code == 0, ran.err
    found = strict(ran.out)
    assert found["dataset"] == "known" and found["model"] == "mobilefacenet"
    assert len(found["rows"]) == 2 * len(STRIDES) and found["rows"][0]["frames"] == 12
    rows = found["visits"]["rows"]
    assert [row["known"] for row in rows] == [False] * 3 + [True] * 3


def test_the_command_refuses_what_it_cannot_do(tmp_path):
    assert "no such folder" in refused("evaluate", "tracking", tmp_path / "none")
    said = refused("evaluate", "tracking", EXAMPLES / "known", "--clips", "0")
    assert "clips should be 1 to 10000; got 0" in said
