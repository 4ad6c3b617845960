"""`facenet bench video`: its clips, its rows, what facenet and the peer do; never how long."""

from __future__ import annotations

import itertools
import sys

import cv2
import numpy as np
import pytest
from clips import noise, write_clip
from fakes import ToyDetector, ToyEngine, toy_card, toy_faces, toy_fmr
from shell import blank, refused

from facenet.apps.jobs.benching.filming import clips_of, long_run
from facenet.apps.jobs.benching.link import Link, peer_command
from facenet.apps.jobs.benching.ours import Ours, Parts
from facenet.apps.jobs.benching.rows import COLUMNS
from facenet.apps.jobs.benching.runs import Ledger
from facenet.apps.jobs.benching.session import Session
from facenet.apps.jobs.benching.settings import BenchSettings
from facenet.apps.jobs.benching.watching import again
from facenet.apps.jobs.benching.whole import measure
from facenet.apps.jobs.peers.worker import memory
from facenet.errors import InputError, SettingsError, StorageError
from facenet.faces.embed import Embedder
from facenet.images import read_video
from facenet.models.store import ModelStore
from facenet.recognizer import Recognizer
from facenet.types import Faces

SIZES = ((1920, 1080), (1280, 720), (960, 540))


@pytest.fixture
def clip(tmp_path):
    """Five frames, 64 x 36."""
    return write_clip(tmp_path / "Door.mp4", noise(5, (64, 36)))


@pytest.fixture
def ours():
    """Facenet of toys: a face in every picture, a random projection for a network."""
    toy, detector = Embedder(toy_card(fmr=toy_fmr()), ToyEngine()), ToyDetector(toy_faces())
    return Ours(
        Parts(
            detector=lambda task: detector,
            embedder=lambda task: toy,
            recognizer=lambda task: Recognizer.from_parts(detector, toy),
            probe=lambda task: ToyEngine(),
        )
    )


class Fake:
    """A system that takes as long as it is told; its memory grows by 0.03 MB a frame, after a
    rise at the beginning."""

    def __init__(self, name, seconds, seen):
        self.name, self.seconds, self.seen, self.done = name, seconds, seen, 0

    def ask(self, request):
        if "prepare" in request:
            self.seen.append((self.name, request["prepare"]))
            self.done = 0
            stride = request["prepare"].get("stride", 3)
            return {"ready": {"stride": stride, "detector": "mtcnn", "model": "toy"}}
        items = request["run"] or 4
        self.done += items
        held = 80 + 0.03 * self.done - 40 * (self.done < 500)
        return {"seconds": self.seconds * items, "items": items, "peak": 100.0, "held": held}

    def close(self):
        return


def fakes(seen, **seconds):
    return lambda name, threads: Fake(name, seconds[name.replace("-", "_")], seen)


def session(folder, opening=None, **settings):
    return Session(BenchSettings(quick=True, **settings), opening, folder, Ledger(), ModelStore())


# ---- what is filmed


def test_a_video_is_written_in_three_sizes(tmp_path, clip):
    told = session(tmp_path, video=clip)
    clips = clips_of(told, 3)
    assert tuple(clips) == SIZES
    for size, place in clips.items():
        frames = list(read_video(place))
        assert [frame.time_s for frame in frames] == pytest.approx([0, 0.04, 0.08])
        assert {frame.image.shape for frame in frames} == {(size[1], size[0], 3)}
    shown = np.stack([frame.image for frame in read_video(clip, stop=0.1)]).astype(int)
    for number, frame in enumerate(read_video(clips[960, 540])):
        small = cv2.resize(frame.image, (64, 36), interpolation=cv2.INTER_AREA)
        off = np.abs(shown - small).mean(axis=(1, 2, 3))
        assert off.argmin() == number
        assert off[number] < 25  # noise; the frames are 80 apart
    assert told.ledger.notes == ["Video jobs had 3 frames at 25 a second: the start of Door.mp4."]


def test_pictures_become_a_video_where_there_is_none(tmp_path):
    for number, value in enumerate((40, 200)):
        blank(tmp_path / "few" / f"{number}.png", (80, 45), (value,) * 3)
    told = session(tmp_path, images=tmp_path / "few")
    frames = list(read_video(clips_of(told, 4)[960, 540]))
    assert [round(frame.image.mean(), -1) for frame in frames] == [40, 40, 200, 200]
    assert told.ledger.notes[0].endswith(f"2 pictures of {tmp_path / 'few'}.")


def test_a_clip_goes_on_and_on(clip):
    frames = list(itertools.islice(again(str(clip)), 12))
    assert [frame.number for frame in frames] == list(range(12))
    assert [frame.time_s for frame in frames] == pytest.approx([0.04 * n for n in range(12)])
    assert np.array_equal(frames[1].image, frames[6].image)
    assert not np.array_equal(frames[1].image, frames[7].image)


# ---- the rows


def test_rows_of_three_sizes_beside_the_peer(clip):
    seen = []
    settings = BenchSettings(quick=True, video=clip, against=("facenet-pytorch",))
    opening = fakes(seen, facenet=0.01, facenet_pytorch=0.07)
    found = measure(["video"], settings, opening=opening)
    assert all(tuple(row) == COLUMNS for row in found["results"])
    rows = {row["name"]: row for row in found["results"]}
    for width, height in SIZES:
        name = f"video/{width}x{height}"
        for row in (rows[name], rows[f"{name}/stride1"]):
            assert (row["unit"], row["runs"], row["peer"]) == ("frames/s", 5, "facenet-pytorch")
            assert (row["median"], row["ratio"]) == (pytest.approx(100), pytest.approx(7))
        for stage in ("decode", "detect", "follow", "draw", "encode"):
            assert (rows[f"{name}/{stage}"]["unit"], rows[f"{name}/{stage}"]["peer"]) == (
                "frames/s", None,
            )  # fmt: skip
        assert rows[f"{name}/memory"]["peer"] == "facenet-pytorch"
    assert rows["video/960x540/long"]["runs"] == 20
    assert rows["video/memory_slope"]["unit"] == "MB/10,000 frames"
    assert rows["video/memory_slope"]["median"] == pytest.approx(300)  # after the rise
    assert rows["video/memory_held"]["median"] == pytest.approx(80 + 0.03 * 2100)  # one to warm up
    with_mtcnn = "was measured with mtcnn in every"
    assert f"video/960x540 {with_mtcnn} third frame and toy, --precision auto." in found["notes"]
    assert (
        f"video/960x540/stride1 {with_mtcnn} single frame and toy, --precision auto."
        in found["notes"]
    )
    films = {task["film"] for _, task in seen}
    assert not films & {task["video"] for _, task in seen}
    assert not any(place.startswith(str(clip.parent)) for place in films)


@pytest.mark.parametrize("frames", [0, 1000])
def test_the_long_run_is_as_long_as_asked(tmp_path, frames):
    told = session(tmp_path, fakes([], facenet=0.01), frames=frames)
    rows = list(long_run(told, (960, 540), tmp_path / "clip.mp4"))
    assert [row["name"] for row in rows] == ["video/960x540/long"] * (frames > 0)
    said = ["video/memory_slope needs 2,000 frames or more."]
    assert told.ledger.notes == said * (frames > 0)


def test_what_cannot_be_filmed_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="frames should be a number of frames, 0 to"):
        BenchSettings(frames=-1)
    assert "frames should be a number" in refused("bench", "video", "--frames", "-5")
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    assert "text.mp4" in refused("bench", "video", "--video", text)


# ---- what facenet does, and the peer


def test_facenet_makes_a_film(ours, clip, tmp_path):
    task = {"video": str(clip), "film": str(tmp_path / "out.mp4"), "people": 9}
    task |= {"detector": "toy detector", "model": "toy"}
    job, facts = ours.open({**task, "job": "film"})
    assert facts == {"stride": 3, "detector": "toy detector", "model": "toy"}
    assert job(None) == {"items": 5, "faces": 5}
    shown, drawn = list(read_video(clip)), list(read_video(task["film"]))
    assert [frame.time_s for frame in drawn] == [frame.time_s for frame in shown]
    job, facts = ours.open({**task, "job": "film", "stride": 1})
    assert (facts["stride"], job(None)["items"]) == (1, 5)

    job, _ = ours.open({**task, "job": "film_long"})
    assert [job(count)["items"] for count in (4, 7)] == [4, 7]
    assert 0 < job(6)["held"] <= memory()["peak"]
    for stage in ("decode", "detect", "follow", "draw", "encode"):
        job, _ = ours.open({**task, "job": "film_stage", "stage": stage})
        assert [job(None), job(None)] == [{"items": 5}] * 2


def test_a_film_that_cannot_be_made_is_told(ours, clip, tmp_path):
    task = {"job": "film", "video": str(clip), "people": 9, "detector": "toy", "model": "toy"}
    (tmp_path / "file").touch()
    job, _ = ours.open({**task, "film": str(tmp_path / "file" / "out.mp4")})
    with pytest.raises(StorageError, match="Cannot write .*out.mp4"):
        job(None)


def test_a_stage_of_a_video_needs_a_face(clip):
    toy = Embedder(toy_card(fmr=toy_fmr()), ToyEngine())
    blind = Recognizer.from_parts(ToyDetector(Faces.empty()), toy)
    ours = Ours(Parts(lambda t: None, lambda t: toy, lambda t: blind, lambda t: None))
    task = {"job": "film_stage", "stage": "follow", "video": str(clip), "people": 9}
    with pytest.raises(InputError, match="should show a face; none was found in it"):
        ours.open(task)


TORCH = """
def set_num_threads(count): pass
"""
FACENET_PYTORCH = """
import numpy as np
class MTCNN:
    def __init__(self, *, image_size, margin, keep_all): self.seen = 0
    def detect(self, picture):
        self.seen += 1
        assert picture.mode == "RGB"
        boxes = np.array([[8.0, 8.0, 40.0, 30.0], [50.0, 4.0, 60.0, 20.0]])
        return (None if self.seen == 1 else boxes), None
class InceptionResnetV1:
    def __init__(self, *, pretrained): pass
    def eval(self): return self
"""


@pytest.fixture
def peer(tmp_path, monkeypatch):
    """facenet-pytorch, whose packages are stand-ins, in this Python."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "torch.py").write_text(TORCH)
    (tmp_path / "site" / "facenet_pytorch.py").write_text(FACENET_PYTORCH)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    name = "facenet-pytorch"
    link = Link(name, peer_command(name, sys.executable), threads=1)
    yield link
    link.close()


def test_facenet_pytorchs_loop(peer, tmp_path):
    grey = write_clip(tmp_path / "grey.mp4", [np.full((36, 64, 3), 128, np.uint8)] * 3)
    task = {"job": "film", "video": str(grey), "film": str(tmp_path / "peer.mp4")}
    (note,) = peer.ask({"prepare": task})["ready"]["notes"]
    assert "follows nobody, embeds nothing and names nobody" in note
    answer = peer.ask({"run": None})
    assert (answer["items"], answer["faces"]) == (3, 4)
    film = list(read_video(task["film"]))
    assert [frame.image.shape for frame in film] == [(360, 640, 3)] * 3
    assert [frame.time_s for frame in film] == pytest.approx([0, 0.04, 0.08])
    first, second = film[0].image.astype(int), film[1].image.astype(int)
    assert np.abs(first - 128).max() < 12  # nobody was found
    red, rest = second[100, 100], second[190, 240]  # an edge of a box, and its inside
    assert red[0] > 200
    assert red[1:].max() < 60
    assert np.abs(rest - 128).max() < 12


def test_a_peer_that_cannot_read_the_video_says_so(peer, tmp_path):
    task = {"job": "film", "video": str(tmp_path / "no.mp4"), "film": str(tmp_path / "peer.mp4")}
    peer.ask({"prepare": task})
    assert "reads or writes no MP4" in peer.ask({"run": None})["missing"]
