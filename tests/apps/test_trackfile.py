"""Tracks as a file: JSON, and the text form of MOTChallenge."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from visitors import little_disk, portrait, track

from facenet.apps.jobs.filming.trackfile import BOX_COLUMNS, BoxLog, track_kind, write_tracks
from facenet.errors import SettingsError, StorageError
from facenet.types import Faces


def faces(*rows):
    """Faces from rows of x1, y1, x2, y2, score, track."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Faces(table[:, :4], None, table[:, 4], track_id=table[:, 5].astype(np.int64))


FRAMES = [
    (0, 0.0, faces((1, 2, 11, 22, 0.9, 1), (50, 60, 70, 90, 0.5, 0)), True),
    (1, 0.04, faces(), True),
    (2, 0.1234567, faces((1.256, 2, 11, 22, 0.9, 1), (-3, 4, 6, 8.5, 0.75, 12)), False),
]


def kept(folder):
    log = BoxLog(folder)
    for number, time_s, found, detected in FRAMES:
        log.add(number, time_s, found, detected=detected)
    return log


def test_json_says_who_was_there_when_and_how_sure(tmp_path):
    path = tmp_path / "new" / "tracks.json"
    vector = np.ones(4, np.float32) / 2
    best = (portrait(1.2, 0.9), portrait(3.0, 0.4))
    tracks = [
        track(2, stranger="unknown 1", portraits=()),
        replace(track(1, 'Zoë "Z" <b>', (1.0, 2.5), (3.0, 3.25), portraits=best), template=vector),
    ]
    write_tracks(path, tracks, {"source": "a.mp4", "frames": 100, "fps": float("nan")})
    text = path.read_text("utf-8")
    found = json.loads(text, parse_constant=pytest.fail)
    assert {k: found[k] for k in ("source", "frames", "fps")} == {
        "source": "a.mp4", "frames": 100, "fps": None,
    }  # fmt: skip
    zoe, stranger = found["tracks"]
    expected = {
        "track": 1, "person": 'Zoë "Z" <b>', "person_id": 'id of Zoë "Z" <b>', "stranger": None,
        "similarity": 0.62, "threshold": 0.42, "fmr": 1e-5, "fpir": 1e-3, "looks": 3, "faces": 7,
        "first_s": 1.0, "last_s": 3.25, "spans": [[1.0, 2.5], [3.0, 3.25]], "detections": 44,
    }  # fmt: skip
    assert {name: zoe[name] for name in expected} == expected
    assert zoe["portrait"]["time_s"] == 1.2
    assert zoe["portrait"]["box"] == [10, 20, 60.5, 80]
    assert (stranger["person"], stranger["stranger"]) == (None, "unknown 1")
    assert stranger["portrait"] is None
    assert "template" not in text  # a template is biometric
    assert "boxes" not in found


def test_boxes_of_every_frame_are_one_compact_row_each(tmp_path):
    with kept(tmp_path) as log:
        assert log.rows == 3
        assert list(tmp_path.iterdir()) == []  # the temporary file has no name
        write_tracks(tmp_path / "t.json", [track()], {}, log)
        write_tracks(tmp_path / "u.json", [], {}, log)  # a second time is as good
    found = json.loads((tmp_path / "t.json").read_text())
    assert found["box_columns"] == list(BOX_COLUMNS)
    assert found["boxes"] == [
        [0, 0.0, 1, 1, 2, 11, 22, 0.9, 1],
        [2, 0.123457, 1, 1.26, 2, 11, 22, 0.9, 0],
        [2, 0.123457, 12, -3, 4, 6, 8.5, 0.75, 0],
    ]
    other = json.loads((tmp_path / "u.json").read_text())
    assert (other["tracks"], other["boxes"]) == ([], found["boxes"])


def test_the_text_form_is_that_of_motchallenge(tmp_path):
    with kept(tmp_path) as log:
        write_tracks(tmp_path / "t.TXT", [track()], {"source": "a"}, log)
    assert (tmp_path / "t.TXT").read_text() == (
        "1,1,1.00,2.00,10.00,20.00,0.9000,-1,-1,-1\n"
        "3,1,1.26,2.00,9.74,20.00,0.9000,-1,-1,-1\n"
        "3,12,-3.00,4.00,9.00,4.50,0.7500,-1,-1,-1\n"
    )


def test_nothing_was_seen(tmp_path):
    with BoxLog(tmp_path) as log:
        write_tracks(tmp_path / "t.txt", [], {}, log)
        write_tracks(tmp_path / "t.json", [], {}, log)
    assert (tmp_path / "t.txt").read_bytes() == b""
    found = json.loads((tmp_path / "t.json").read_text())
    assert (found["tracks"], found["boxes"]) == ([], [])


def test_the_text_form_needs_boxes_and_other_endings_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="none were kept"):
        write_tracks(tmp_path / "t.txt", [], {})
    for name in ("t.csv", "t", "x" * 500):
        with pytest.raises(SettingsError, match=r"should end with \.json, or with \.txt") as caught:
            track_kind(tmp_path / name)
        assert len(str(caught.value)) < 600
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "t.json"
    path.write_text("mine")
    sentence = pytest.raises(StorageError, match=r"Cannot write .*t\.json")
    with kept(tmp_path) as log, little_disk(300), sentence:
        write_tracks(path, [track(n) for n in range(20)], {}, log)
    assert [one.name for one in tmp_path.iterdir()] == ["t.json"]
    assert path.read_text() == "mine"


def test_boxes_need_room_too(tmp_path):
    log = BoxLog(tmp_path)
    with little_disk(100), pytest.raises(StorageError, match="Cannot keep the boxes of tracks in"):
        for _ in range(2000):
            log.add(*FRAMES[0][:3])
        list(log.lines())
    log.close()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot keep the boxes"):
        BoxLog(tmp_path / "file")
