"""`facenet detect` with videos among its places, with the built-in detector on made clips."""

from __future__ import annotations

import inspect
import io
import os
import re
import signal
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from clips import noise, write_clip, write_sound
from fakes import ToyDetector, toy_faces
from PIL import Image
from processes import children
from shell import blank, copy, opened, process, refused, run

import facenet
from facenet.apps.cli.outlet import print_as_found, print_json, print_rows
from facenet.apps.cli.videos import Watch
from facenet.apps.jobs.photos import Photo
from facenet.apps.jobs.videofaces import Remarks, Watching, watched_rows
from facenet.errors import InputError, SettingsError
from facenet.faces.strided import Strided

COLUMNS = "photo,frame,time_s,box,detection_score,landmarks"


@pytest.fixture(scope="module")
def clip(examples, tmp_path_factory):
    """Nine frames in which the group of the examples passes by, 12 pixels a frame."""
    group = np.asarray(opened(examples / "photos/group.jpg").convert("RGB").resize((640, 224)))
    frames = [np.ascontiguousarray(group[:, 12 * n : 12 * n + 300]) for n in range(9)]
    return write_clip(tmp_path_factory.mktemp("clip") / "group.mp4", frames)


def rows_of(pairs, path):
    """What detect --json should print for frames and their faces."""
    return [
        {"photo": str(path), "frame": frame.number, "time_s": frame.time_s, **face.to_dict()}
        for frame, faces in pairs
        for face in faces
    ]


def test_a_video_is_detected_frame_by_frame(clip):
    ran = run("detect", clip, "--json")
    assert (ran.code, ran.err) == (0, "")
    detector = facenet.Recognizer().detector
    plain = [(frame, detector.detect([frame.image])[0]) for frame in facenet.read_video(clip)]
    assert ran.json == rows_of(plain, clip)
    assert {row["frame"] for row in ran.json} == set(range(9))
    assert [row["time_s"] for row in ran.json if row["frame"] == 8][0] == 0.32


def test_stride_between_and_the_rest_reach_the_reader_and_the_detector(clip):
    options = {"stride": 4, "between": "reuse", "resize": 0.5, "start": 0.08, "stop": 0.3}
    flags = [text for name, value in options.items() for text in (f"--{name}", value)]
    small = facenet.MtcnnSettings(min_face_size=15)
    ran = run("detect", clip, "--json", "--min-face-size", 15, *flags)
    assert ran.json == rows_of(facenet.detect_video(clip, detection=small, **options), clip)
    assert [*dict.fromkeys(row["frame"] for row in ran.json)] == [2, 3, 4, 5, 6, 7]
    reused = [[r["box"] for r in ran.json if r["frame"] == n] for n in (2, 5, 6)]
    assert reused[0] == reused[1] != reused[2]


def test_between_detected_frames_faces_move_on_an_even_line(clip):
    rows = run("detect", clip, "--json", "--stride", 2).json
    boxes = {n: np.sort([r["box"] for r in rows if r["frame"] == n], axis=0) for n in (2, 3, 4)}
    assert len(boxes[2]) == len(boxes[4]) >= 1
    assert boxes[3] == pytest.approx((boxes[2] + boxes[4]) / 2, abs=0.02)


def test_photos_and_videos_go_together_in_their_order(clip, examples, tmp_path):
    photo = examples / "known/Grace Hopper.jpg"
    sky = blank(tmp_path / "sky.png")
    dark = write_clip(tmp_path / "dark.avi", [np.zeros((64, 64, 3), np.uint8)] * 3, codec="mpeg4")
    ran = run("detect", photo, clip, sky, dark, "--stop", 0.05)
    assert ran.code == 0
    assert ran.out.splitlines()[0] == COLUMNS
    assert [*dict.fromkeys((r["photo"], r["frame"], r["time_s"]) for r in ran.rows)] == [
        (str(photo), "", ""),
        (str(clip), "0", "0.0"),
        (str(clip), "1", "0.04"),
    ]
    (single,) = run("detect", photo).rows
    assert {**ran.rows[0], "frame": None, "time_s": None} == {
        **single,
        "frame": None,
        "time_s": None,
    }
    assert ran.err == "".join(f"facenet: No face was found in {path}.\n" for path in (sky, dark))


def test_a_video_cut_short_gives_its_frames_and_a_sentence(clip, tmp_path):
    whole = tmp_path / "whole.mkv"
    write_clip(whole, [frame.image for frame in facenet.read_video(clip)] * 6)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    ran = run("detect", cut, "--json", "--stride", 8)
    assert ran.code == 2
    numbers = [*dict.fromkeys(row["frame"] for row in ran.json)]
    assert numbers == list(range(len(numbers)))
    assert 9 < len(numbers) < 54
    said = f"{cut} is damaged or cut short: {len(numbers)} frames could be read, "
    assert ran.sentence.startswith(said)
    (tmp_path / "text.mp4").write_text("no video")
    ran = run("detect", tmp_path / "text.mp4", cut, "--json", "--stride", 8)
    assert (ran.code, ran.err.count("\n")) == (2, 2)
    assert run("detect", tmp_path / "text.mp4").out == f"{COLUMNS}\n"
    assert run("detect", tmp_path / "text.mp4", "--json").json == []


def killing(number):
    """A detector that ends the processes started since then, at its so-many-th frame."""
    seen, before = [], children()

    def look(image):
        seen.append(image)
        if len(seen) == number:
            for child in children() - before:
                os.kill(child, signal.SIGKILL)
        return toy_faces()

    return ToyDetector(look)


KILLED = "was ended from outside (SIGKILL), perhaps for want of memory, after "


def test_a_decoder_that_is_killed_is_a_sentence_after_the_frames_that_came(
    tmp_path, toy_recognizer
):
    """And the next video is read as ever."""
    before = children()
    long, short = (
        Photo(write_clip(tmp_path / name, noise(count)), Path(name))
        for name, count in (("long.mp4", 60), ("short.mp4", 3))
    )
    remarks, stage = Remarks(), partial(toy_recognizer.stream, embed=False)
    watching = Watching(Strided(killing(4), stride=1))
    rows = list(
        watched_rows([long, short], stage, watching, remarks=remarks, done=lambda done, total: None)
    )
    numbers = [row["frame"] for row in rows if row["photo"] == str(long.path)]
    assert numbers == list(range(len(numbers)))
    assert 4 <= len(numbers) < 12
    assert [row["frame"] for row in rows[len(numbers) :]] == [0, 1, 2]
    (problem,) = remarks.problems
    assert problem.startswith(f"{long.path} could not be read to its end: the process that ")
    assert f"{KILLED}{len(numbers)} frames, at " in problem
    assert children() == before


def test_detect_video_gives_the_frames_that_came_before_its_decoder_was_killed(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", noise(60))
    frames, before = [], children()
    with pytest.raises(InputError, match=re.escape(KILLED)):
        for frame, faces in facenet.detect_video(clip, stride=2, detector=killing(3)):
            frames.append((frame.number, len(faces)))
    assert frames == [(number, 1) for number in range(len(frames))]
    assert 5 <= len(frames) < 14
    watched = facenet.detect_video(clip, detector=killing(0))
    next(watched)
    assert len(children() - before) == 1
    watched.close()
    assert children() == before


def test_a_file_without_pictures_or_without_a_frame_is_a_sentence(tmp_path):
    sound = write_sound(tmp_path / "sound.mp4")
    empty = write_clip(tmp_path / "empty.mp4", noise(5), movflags="faststart")
    data = empty.read_bytes()
    start = data.index(b"mdat") + 4
    empty.write_bytes(data[:start] + bytes(len(data) - start))
    assert refused("detect", sound, "--json", out="[]\n") == (
        f"{sound} has no video that can be decoded, only sound or other streams. Choose another "
        "file."
    )
    said = refused("detect", empty, "--json", out="[]\n")
    assert said.startswith(f"{empty} has a video stream without a frame that can be decoded")


def test_annotated_frames_are_written_and_replace_nothing(clip, tmp_path):
    out = tmp_path / "out"
    folder = out / f"{clip.name}.frames"
    assert run("detect", clip, "--draw", out, "--stride", 4, "--stop", 0.1).code == 0
    assert sorted(path.name for path in folder.iterdir()) == [f"00000{n}.jpg" for n in range(3)]
    for frame in facenet.read_video(clip, stop=0.1):
        drawn = np.asarray(opened(folder / f"00000{frame.number}.jpg"), np.int64)
        away = np.abs(drawn - frame.image).max(axis=2) > 60
        assert 100 < away.sum() < away.size / 8
    kept = copy(clip, folder / clip.name)
    inner = folder / f"{clip.name}.frames"
    inner.symlink_to(folder)
    said = refused("detect", kept, "--draw", folder)
    assert said == f"An annotated frame would replace {kept}. Draw into another folder."


def test_options_of_videos_are_refused_without_a_video(examples, clip):
    photo = examples / "known/Grace Hopper.jpg"
    assert refused("detect", photo, "--stride", 4, "--stop", 2) == (
        "--stride and --stop are for videos, and none was named. Leave it out, or name a video "
        "file."
    )
    assert refused("detect", photo, "--resize", 0.5).startswith("--resize is for videos")
    assert refused("detect", clip, "--stride", 0).startswith("stride should be a whole number")
    assert refused("detect", clip, "--between", "guess").startswith("between should be one of ")
    late = run("detect", clip, "--start", 3)
    assert (late.code, late.rows) == (2, [])
    assert late.sentence.endswith("ends at 0.36 s; start should be before that; got 3.")


def test_a_folder_is_searched_for_pictures_only(clip, tmp_path, examples):
    copy(clip, tmp_path / "clip.mp4")
    copy(examples / "known/Grace Hopper.jpg", tmp_path / "a.jpg")
    assert {row["photo"] for row in run("detect", tmp_path).rows} == {str(tmp_path / "a.jpg")}


def test_without_pyav_only_videos_are_refused(clip, examples, home, tmp_path):
    away = tmp_path / "av.py"  # found by the process that decodes, too
    away.write_text("raise ImportError('No module named av')")
    before = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    ran = process("detect", str(clip), before=before)
    assert (ran.code, ran.out) == (2, "")
    assert 'pip install "facenet[video]"' in ran.sentence
    assert process("detect", str(examples / "known/Grace Hopper.jpg"), before=before).code == 0


def test_the_work_tells_how_far_it_is(tmp_path, toy_recognizer):
    video = write_clip(tmp_path / "a.mp4", noise(6))
    photo = tmp_path / "b.png"
    Image.fromarray(noise(1)[0]).save(photo)
    places = [Photo(path, Path(path.name)) for path in (video, photo, video)]
    told, remarks = [], Remarks()
    rows = watched_rows(
        places,
        partial(toy_recognizer.stream, embed=False),
        Watching(Strided(toy_recognizer.detector, stride=2)),
        remarks=remarks,
        done=lambda done, total: told.append((done, total)),
    )
    assert [row.get("frame") for row in rows] == [0, 1, 2, 3, 4, 5, None, 0, 1, 2, 3, 4, 5]
    assert told == [(n, 8) for n in range(1, 8)] + [(n, 13) for n in range(8, 14)]
    assert (remarks.faceless, remarks.problems) == ([], [])


def test_rows_are_printed_as_they_come_and_look_as_all_others(monkeypatch):
    rows = [{"photo": "a", "frame": n, "box": [1.5, 2.25], "left": None} for n in range(3)]
    for as_json in (True, False):
        for some in (rows, rows[:1], []):
            texts = []
            for printer in (print_as_found, print_json if as_json else print_rows):
                with monkeypatch.context() as patch:
                    out = io.StringIO()
                    patch.setattr(sys, "stdout", out)
                    if printer is print_as_found:
                        printer(iter(some), ("photo", "frame", "box", "left"), as_json)
                    elif as_json:
                        printer(some)
                    else:
                        printer(some, ("photo", "frame", "box", "left"))
                texts.append(out.getvalue())
            assert texts[0] == texts[1]


def test_flags_default_to_the_defaults_of_the_library():
    taken = inspect.signature(facenet.detect_video).parameters
    flags = {entry.name: entry.default for entry in fields(Watch)}
    assert flags == {name: taken[name].default for name in flags}


def test_a_video_in_python(clip):
    seen = list(facenet.detect_video(clip, detector=ToyDetector(toy_faces()), stride=3))
    assert [frame.number for frame, _ in seen] == list(range(9))
    assert all(len(faces) == 1 for _, faces in seen)
    with pytest.raises(SettingsError, match="takes no options; got engine. Leave them out"):
        facenet.detect_video(clip, detector=ToyDetector(toy_faces()), engine="auto")
    named = facenet.detect_video(clip, engine=facenet.EngineSettings("onnxruntime"), stop=0.01)
    assert [len(faces) for _, faces in named] == [len(next(facenet.detect_video(clip))[1])]
    with pytest.raises(TypeError, match="modell"):
        facenet.detect_video(clip, modell="mtcnn")
    with pytest.raises(InputError, match="fetches nothing"):
        next(facenet.detect_video("https://example.org/a.mp4"))
