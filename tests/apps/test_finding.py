"""One person in many recordings: what is kept between runs, of which question, in whose file."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace

import numpy as np
import pytest
from clips import LOSSLESS, noise, write_clip
from fakes import ToyDetector, ToyEngine, toy_card, toy_faces, toy_fmr

from facenet.apps.jobs.filming.finding import Search, find_person, find_recordings
from facenet.errors import DataError, StorageError
from facenet.faces.embed import Embedder
from facenet.gallery.compare import People
from facenet.images import SourceSettings
from facenet.models.calibration import (
    Calibration,
    Logistic,
    calibration_path,
    save_calibration,
)
from facenet.recognizer import Recognizer
from facenet.video.settings import WatchSettings

CARD = toy_card(fmr=toy_fmr())
ANYBODY = WatchSettings(stride=1, threshold=-0.99, min_quality=0.0)
"""Every face is taken for the person."""
NO_VISIT = (
    '{"format": "facenet-found-1", "recording": "a", "question": "b", "frames": 1, "found": []}\n'
)


def recognizer(calibration=None):
    embedder = Embedder(CARD, ToyEngine())
    return Recognizer.from_parts(ToyDetector(toy_faces()), embedder, calibration)


def measured(contract, levels):
    """A calibration with a table of false matches of its own."""
    rates = tuple(count / levels.pairs for count in levels.false_matches)
    return Calibration(
        contract=contract, model="toy", dataset="mine", created="2026-01-01", detector="toy",
        images=100, people=50, fmr=levels, fmr_low=rates, fmr_high=rates,
        logistic=Logistic(10.0, -3.0, 0.5), held_out={}, digest="0" * 64,
    )  # fmt: skip


def search(settings=ANYBODY, source=None, by=None, **changes):
    by = by or recognizer()
    contract = by.embedder.contract
    row = np.eye(1, by.embedder.card.dimension, dtype=np.float32)
    person = People(("Ann",), changes.get("row", row), contract)
    return Search(person, by, settings, source or SourceSettings())


@pytest.fixture
def clip(tmp_path):
    """Eight frames of 64 x 64, all alike, with a face for the detector."""
    return write_clip(tmp_path / "clip.mkv", noise(1, (64, 64)) * 8, **LOSSLESS)


# ---- the question


def test_the_question_tells_all_apart_that_changes_an_answer(tmp_path) -> None:
    other_options = recognizer()
    other_options.detection = "toy with other options"
    table = toy_fmr()
    stricter = replace(table, false_matches=(*table.false_matches[:-1], 0))
    contract = recognizer().embedder.contract
    asked = [
        search(),
        search(replace(ANYBODY, threshold=-0.98)),
        search(replace(ANYBODY, stride=2)),
        search(source=SourceSettings(start=1.0)),
        search(source=SourceSettings(stop=1.0)),
        search(by=other_options),
        search(by=recognizer(measured(contract, stricter))),
        search(by=recognizer(measured(contract, replace(table, false_matches=(9,) * 7)))),
        search(row=np.eye(1, 8, 1, dtype=np.float32)),
    ]
    assert len({one.question for one in asked}) == len(asked)
    assert search().question == search().question


def test_rates_that_were_measured_in_between_are_another_question(home) -> None:
    def default():
        return search(by=Recognizer())

    before, contract = default().question, Recognizer().embedder.contract
    assert default().question == before
    save_calibration(calibration_path(contract), measured(contract, toy_fmr()))
    assert default().question != before
    assert search(by=Recognizer(calibration="card")).question == before


# ---- what is kept


def test_a_recording_is_searched_once_until_its_time_or_size_changes(clip, tmp_path) -> None:
    out = tmp_path / "found.jsonl"
    first = find_person([clip], search(), out=out)
    assert [row["person"] for row in first.rows] == ["Ann"]
    assert (first.searched, first.known) == (1, 0)
    again = find_person([clip], search(), out=out)
    assert (again.rows, again.known) == (first.rows, 1)
    facts = clip.stat()
    with clip.open("ab") as file:
        file.write(b"\0" * 10)
    os.utime(clip, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert find_person([clip], search(), out=out).known == 0  # by its size alone
    os.utime(clip, ns=(1, 1))
    assert find_person([clip], search(), out=out).known == 0


def test_a_recording_is_named_as_it_is_called_now(clip, tmp_path, monkeypatch) -> None:
    out = tmp_path / "found.jsonl"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    named = find_person([type(clip)("clip.mkv")], search(), out=out)
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = find_person([type(clip)("../clip.mkv")], search(), out=out)
    assert [row["video"] for row in named.rows] == ["clip.mkv"]
    assert [row["video"] for row in again.rows] == ["../clip.mkv"]
    assert again.known == 1


def test_recordings_come_as_people_count(tmp_path) -> None:
    names = ["a2/clip1.mp4", "a2/clip2.mp4", "a2/clip10.mp4", "a10/clip1.mp4"]
    for name in reversed(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in find_recordings([tmp_path])] == names


# ---- whose file it is


@pytest.mark.parametrize(
    "data",
    [
        b"a poem\nwithout a last line end",
        b"no line end at all",
        b"\x00\x00\x00\x20ftypisom\n" + bytes(range(256)),
        b'{"type": "arrived", "time_s": 1.0}\n{"ty',
        b'{"recording": "of a song"}\n{"recor',
        b"\n",
    ],
)
def test_a_file_of_somebody_else_is_left_as_it_is(data, clip, tmp_path) -> None:
    out = tmp_path / "theirs"
    out.write_bytes(data)
    with pytest.raises(StorageError, match=r"theirs should be a file of `facenet video find"):
        find_person([clip], search(), out=out)
    assert out.read_bytes() == data


def test_a_recording_is_no_place_for_what_was_found(clip) -> None:
    before = clip.read_bytes()
    with pytest.raises(StorageError, match=r"clip\.mkv should be a file of `facenet video find"):
        find_person([clip], search(), out=clip)
    assert clip.read_bytes() == before


def test_a_torn_line_of_our_own_is_taken_away_also_the_first(clip, tmp_path) -> None:
    out = tmp_path / "found.jsonl"
    for torn in ('{"form', NO_VISIT[:-9], NO_VISIT + NO_VISIT[:20]):
        out.write_text(torn)
        find_person([clip], search(), out=out)
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert len(lines) == 1 + torn.count("\n")
        assert lines[-1]["recording"].startswith(str(clip))


@pytest.mark.parametrize(
    "change",
    [
        {"found": 7}, {"found": None}, {"found": [{"a": 1}]}, {"found": [3]}, {"found": {"a": 1}},
        {"frames": ...}, {"question": ...}, {"found": ...},
    ],
)  # fmt: skip
def test_lines_of_another_shape_are_one_sentence(change, clip, tmp_path) -> None:
    entry = {name: v for name, v in {**json.loads(NO_VISIT), **change}.items() if v is not ...}
    out = tmp_path / "found.jsonl"
    out.write_text(json.dumps(entry) + "\n")
    with pytest.raises(DataError, match="it has a line that is not"):
        find_person([clip], search(), out=out)


@pytest.mark.parametrize("line", [b"[1]", b"7", b'"recording"', b"[" * 100_000, b"", b"\xff", b"x"])
def test_lines_that_are_no_entry_are_one_sentence(line, clip, tmp_path) -> None:
    out = tmp_path / "found.jsonl"
    out.write_bytes(NO_VISIT.encode() + line + b"\n")
    with pytest.raises(DataError, match="it has a line that is not"):
        find_person([clip], search(), out=out)


def test_it_is_for_its_owner_but_a_file_that_is_there_keeps_its_mode(clip, tmp_path) -> None:
    mine, shared = tmp_path / "mine", tmp_path / "shared"
    shared.write_text(NO_VISIT)
    shared.chmod(0o640)
    for out in (mine, shared):
        find_person([clip], search(), out=out)
    assert stat.S_IMODE(mine.stat().st_mode) == 0o600
    assert stat.S_IMODE(shared.stat().st_mode) == 0o640
