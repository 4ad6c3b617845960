"""`facenet video`, `facenet video find` and `facenet camera`, as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from clips import write_clip
from shell import opened, refused, run

import facenet


@pytest.fixture(scope="module")
def pan(examples, tmp_path_factory):
    """Thirty frames in which Grace Hopper passes by, alone."""
    group = np.asarray(opened(examples / "photos/group.jpg").convert("RGB").resize((640, 224)))
    frames = [np.ascontiguousarray(group[:, 280 + 2 * n : 480 + 2 * n]) for n in range(30)]
    return write_clip(tmp_path_factory.mktemp("pan") / "größe pan.mp4", frames)


def test_a_summary_says_who_was_there_and_when(pan, examples, tmp_path):
    film, events = tmp_path / "film.mp4", tmp_path / "events.csv"
    ran = run(
        "video", pan, "--known", examples / "known", "--draw", film, "--events", events, "--json"
    )
    assert ran.code == 0, ran.err
    said = ran.json
    assert (said["frames"], said["duration_s"], said["tracks"]) == (30, 1.2, len(said["visits"]))
    assert said["fps"] > 0
    assert "Grace Hopper" in [visit["person"] for visit in said["visits"]]
    assert len(list(facenet.read_video(film))) == 30
    head, *rows = events.read_text().splitlines()
    assert head.startswith("type,time_s,track,person,similarity")
    assert any(row.startswith("arrived,") and "Grace Hopper" in row for row in rows)
    assert said["written"][str(events)]["events"] == len(rows)


def test_rows_of_visits_and_the_options_first(pan, examples):
    ran = run("video", "--stride", 2, "--stop", 0.8, "--known", examples / "known", pan)
    assert ran.code == 0
    assert ran.rows[0]["first_s"] == "0.0"
    assert "20 frames of 0.8 s" in ran.err


def test_nobody_named_is_1_and_strangers_have_numbers(pan, examples, tmp_path):
    shutil.copy(examples / "known" / "Eileen Collins.jpg", tmp_path)
    ran = run("video", "watch", pan, "--known", tmp_path, "--stop", 1.0, "--json", "--gone", 1)
    assert ran.code == 1
    assert {visit["person"] for visit in ran.json["visits"]} == {None}


def test_a_gallery_names_people_too(pan, examples, tmp_path):
    gallery = tmp_path / "people.db"
    assert run("gallery", "create", gallery).code == 0
    photo = examples / "known" / "Grace Hopper.jpg"
    assert run("enroll", gallery, "Grace Hopper", photo).code == 0
    ran = run("video", pan, "--gallery", gallery, "--events", "-")
    assert ran.code == 0, ran.err
    events = [json.loads(line) for line in ran.out.splitlines()]
    arrived = next(event for event in events if event["person"])
    assert (arrived["type"], arrived["person"]) == ("arrived", "Grace Hopper")
    assert arrived["similarity"] >= arrived["threshold"]
    assert 0 < arrived["fpir"] < 0.01


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("video", "none.mp4"), "none.mp4"),
        (("video", "rtsp://"), "rtsp"),
        (("video", "{pan}", "--stride", 0), "stride"),
        (("video", "{pan}", "--seconds", 0), "seconds should be a number above 0; got 0.0."),
        (("camera", "{pan}", "--seconds", "nan"), "seconds should be a number above 0; got nan."),
        (("video", "{pan}", "--blur", "some"), "all, unknown"),
        (("video", "{pan}", "--blur", "all"), "--draw"),
        (("video", "{pan}", "--draw", "film.xyz"), ".mp4"),
        (("video", "{pan}", "--events", "events.txt"), ".jsonl"),
        (("video", "{pan}", "--tracks", "tracks.csv"), ".json"),
        (("video", "{pan}", "--known", "a", "--gallery", "b"), "not both"),
        (("video", "{pan}", "--webhook", "ftp://x"), "http"),
        (("video", "{pan}", "--known", "a", "--fmr", 0.1, "--threshold", 0.5), "Give one"),
        (("video", "{pan}", "--fmr", 0.1), "--fmr is for naming people: say whom with --known or "),
        (("video", "{pan}", "--fpir", 0.1), "--fpir is for naming people"),
        (("video", "{pan}", "--hide", "nonsense"), "--blur"),
        (("video", "{pan}", "--hide", "x", "--blur", "all", "--draw", "f.mp4"), "got 'x'"),
        (("video", "{pan}", "--plain"), "--plain is for the film: say where it goes with --draw."),
        (("video", "{pan}", "--trail", 1), "--trail is for the film"),
        (("video", "{pan}", "--silent"), "--silent is for the film"),
        (("video", "{pan}", "--max-stride", 20), "--max-stride is for --budget"),
        (("video", "{pan}", "--rate", 5), "rate is for pictures of a folder and for cameras"),
        (("video", "{pan}", "--size", "64x64"), "size is for cameras"),
        (("video", "{folder}", "--size", "64x64"), "size is for cameras"),
        (("video", "{pan}", "--json", "--events", "-"), "--json and --events - both write to"),
        (("video", "{pan}", "--timeline", "page.mp4"), "should end with .html or .htm; got page"),
        (("video", "{pan}", "--portraits", "f", "--events", "f/index.csv"), "two outputs"),
        (("video", "find", "none.jpg", "{pan}"), "none.jpg"),
        (("video", "find", "{pan}", "{folder}"), "No video"),
        (("camera", "63", "--timeout", 1), "There is no camera /dev/video63; found "),
        (("camera", "/dev/video93"), "There is no camera /dev/video93; found "),
        (("camera", "camera:front"), "There is no camera front; found "),
        (("camera", "/dev/null"), "/dev/null is no file"),
        (("camera", "{folder}"), "should hold or name pictures"),
        (("camera", "ftp://host/x"), "begin with one of rtsp://, rtsps://, http://"),
        (("camera", "file:///etc/passwd"), "got file://. A file is named by its path."),
        (("camera", ""), "got an empty name"),
        (("video", ""), "got an empty name"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments, said, pan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    given = [str(a).format(pan=pan, folder=tmp_path / "empty") for a in arguments]
    assert said in refused(*given)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--draw", "copy.mp4"),
        ("--events", "copy.jsonl"),
        ("--tracks", "copy.json"),
        ("--subtitles", "copy.vtt"),
        ("--timeline", "copy.html"),
    ],
)
def test_no_output_ever_replaces_the_source(option, name, pan, tmp_path):
    copy, link = tmp_path / name, tmp_path / f"link{name}"
    copy.write_bytes(pan.read_bytes())
    link.symlink_to(copy)
    for place in (copy, link):
        said = refused("video", copy, option, place)
        assert said == (
            f"{place} is the source, and what is written there would replace it. Choose another "
            "name."
        )
    assert copy.read_bytes() == pan.read_bytes()
    assert sorted(tmp_path.iterdir()) == [copy, link]


def test_a_damaged_video_is_watched_as_far_as_it_goes(pan, tmp_path):
    cut = tmp_path / "cut.mkv"
    frames = [frame.image for frame in facenet.read_video(pan)]
    data = write_clip(tmp_path / "whole.mkv", frames).read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3])
    ran = run("video", cut, "--draw", tmp_path / "film.mp4", "--json")
    assert ran.code == 2
    assert 0 < ran.json["frames"] < 30
    assert "cut short" in ran.json["problems"][0]
    assert len(list(facenet.read_video(tmp_path / "film.mp4"))) == ran.json["frames"]


def test_a_folder_of_pictures_is_a_video(examples, tmp_path):
    for number in range(4):
        opened(examples / "known" / "Grace Hopper.jpg").resize((200, 250)).save(
            tmp_path / f"{number}.png"
        )
    ran = run("video", tmp_path, "--rate", 2, "--stride", 1, "--json")
    assert (ran.json["frames"], ran.json["duration_s"], ran.json["tracks"]) == (4, 2.0, 1)


def test_find_goes_on_where_it_was_and_searches_what_changed(pan, examples, tmp_path):
    folder = tmp_path / "recordings"
    (folder / "deep").mkdir(parents=True)
    first, second = folder / "a.mp4", folder / "deep" / "b.mp4"
    first.write_bytes(pan.read_bytes())
    second.write_bytes(pan.read_bytes())
    asked = ("video", "find", examples / "known" / "Grace Hopper.jpg", folder, "--stop", 0.3)
    out = tmp_path / "found.jsonl"
    ran = run(*asked, "--out", out, "--json")
    assert ran.code == 0
    assert {row["video"] for row in ran.json} == {str(first), str(second)}
    assert all(row["similarity"] >= row["threshold"] for row in ran.json)
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(lines[0] + lines[1][:40])  # as after a kill
    again = run(*asked, "--out", out, "--json")
    assert again.json == ran.json
    assert "2 of 2 recordings searched, 1 of them by an earlier run" in again.err
    os.utime(first, ns=(1, 1))
    third = run(*asked, "--out", out)
    assert "1 of them by an earlier run" in third.err


def test_find_tells_of_what_cannot_be_read_and_goes_on(pan, examples, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    ran = run(
        "video", "find", examples / "known" / "Grace Hopper.jpg", tmp_path / "broken.mp4", pan,
        "--stop", 0.3, "--json", "--out", tmp_path / "found.jsonl",
    )  # fmt: skip
    assert ran.code == 2
    assert "broken.mp4" in ran.err
    assert {row["video"] for row in ran.json} == {str(pan)}
    assert len((tmp_path / "found.jsonl").read_text().splitlines()) == 1
    assert "begins otherwise" in run(
        "video", "find", examples / "known" / "Grace Hopper.jpg", pan,
        "--out", write(tmp_path / "other.jsonl", '{"a": 1}\n'),
    ).err  # fmt: skip


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_files(sent, pan, tmp_path):
    """A long video, stopped in the middle by the signal of Ctrl-C or of `docker stop`."""
    frames = [frame.image for frame in facenet.read_video(pan)]
    long = write_clip(tmp_path / "long.mp4", frames * 40)
    film, events = tmp_path / "film.mp4", tmp_path / "events.jsonl"
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from facenet.apps.cli import main; main()"
    )
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            program,
            "video",
            long,
            "--draw",
            film,
            "--events",
            events,
            "--json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (events.exists() and events.stat().st_size) and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(sent)
    out, err = child.communicate()
    assert child.returncode == 130, err
    said = json.loads(out)
    assert said["interrupted"]
    assert 0 < said["frames"] < 1200
    assert len(list(facenet.read_video(film))) == said["frames"]
    told = [json.loads(line) for line in events.read_text().splitlines()]
    assert told[-1]["type"] == "left"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "events.jsonl", "film.mp4", "long.mp4",
    ]  # fmt: skip


def test_a_reader_who_leaves_is_told_and_the_tracks_are_written(pan, tmp_path):
    """`facenet video IN --events - | head -1`, as a process."""
    tracks = tmp_path / "t.json"
    command = [sys.executable, "-m", "facenet", "video", pan, "--events", "-", "--tracks", tracks]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    child.stdout.close()
    said = child.stderr.read()
    child.stderr.close()
    child.wait()
    assert "Cannot write events to stdout: Broken pipe." in said
    assert "Traceback" not in said and "Exception ignored" not in said
    assert json.loads(tracks.read_text())["frames"] == 30
