"""Many pictures at once: each as it is alone, in order, the broken ones told, memory flat."""

from __future__ import annotations

import gc
import io
import os
import platform
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import ToyDetector, ToyEngine, toy_card, toy_faces
from PIL import Image, ImageSequence

from facenet.errors import EngineError, ImageError, InputError, SettingsError
from facenet.faces.allocator import ARENAS
from facenet.faces.detect import select_faces
from facenet.faces.embed import BATCH, Embedder
from facenet.faces.flow import FlowLimits
from facenet.faces.pipeline import CLEARED, SMALLEST, Pipeline, reduction
from facenet.types import Faces


def picture(seed, faces=1, size=(70, 90)):
    """Noise of its own; the top left pixel tells the toy how many faces to find."""
    pixels = np.random.default_rng(seed).integers(1, 256, (*size, 3)).astype(np.uint8)
    pixels[0, 0] = faces
    return pixels


def find_faces(image):
    """As many faces as the top left pixel says; with 99, one outside the picture."""
    count = int(image[0, 0, 0])
    if count == 99:
        return toy_faces((500, 500, 540, 540))
    boxes = [(n % 20, 5 + n // 20, 45 + n % 7, 50) for n in range(count)]
    return toy_faces(*boxes) if boxes else Faces.empty()


def pipeline(engine=None, **options):
    embedder = Embedder(toy_card(), engine or ToyEngine())
    return Pipeline(ToyDetector(find_faces), embedder, **options)


def png(pixels):
    return cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()


def ours():
    return [t for t in threading.enumerate() if t.name.startswith("facenet-")]


# ---- what comes out


def test_every_picture_is_seen_as_it_is_alone():
    counts = np.random.default_rng(0).integers(0, 5, 150)
    counts[70] = 120
    sizes = [(60 + n % 11, 80 + n % 7) for n in range(150)]
    pictures = [
        picture(n, count, size) for n, (count, size) in enumerate(zip(counts, sizes, strict=True))
    ]
    engine = ToyEngine()
    seen = list(pipeline(engine).run(iter(pictures)))
    assert counts.sum() % BATCH
    assert engine.batches == [BATCH] * (counts.sum() // BATCH + 1)
    embedder = Embedder(toy_card(), ToyEngine())
    for pixels, size, answer in zip(pictures, sizes, seen, strict=True):
        assert answer.source is pixels
        assert (answer.problem, answer.image) == (None, None)
        assert answer.size == size[::-1]
        alone = embedder.embed([pixels], [find_faces(pixels)])[0]
        assert np.array_equal(answer.faces.boxes, alone.boxes)
        assert answer.found().contract == alone.contract
        assert answer.faces.embedding == pytest.approx(alone.embedding, abs=1e-6)


def test_without_an_embedder_faces_have_no_vectors():
    detector = ToyDetector(find_faces)
    seen = list(Pipeline(detector).run([picture(n, n % 3) for n in range(40)]))
    assert [len(answer.faces) for answer in seen] == [n % 3 for n in range(40)]
    assert all(answer.faces.embedding is None for answer in seen)
    assert detector.sizes == [(70, 90)] * 40


def test_a_picture_that_cannot_be_used_stops_nothing(tmp_path):
    good, outside = picture(1, 2), picture(2, 99)
    (tmp_path / "text.jpg").write_text("no picture")
    sources = [good, tmp_path / "none.jpg", png(good)[:-30], outside, tmp_path / "text.jpg", good]
    seen = list(pipeline().run(sources))
    assert [len(answer.faces) for answer in seen] == [2, 0, 0, 0, 0, 2]
    assert [answer.problem is None for answer in seen] == [True, False, False, False, False, True]
    for answer, said in zip(
        seen[1:5], ("none.jpg", "ends early", "The box", "text.jpg"), strict=True
    ):
        assert said in answer.problem
        assert answer.faces.embedding is None
        with pytest.raises(InputError, match=said):
            answer.found()
    assert [answer.size for answer in seen] == [(90, 70), None, None, (90, 70), None, (90, 70)]
    assert isinstance(seen[1].error, ImageError)


def test_pictures_of_every_kind_with_their_pixels(tmp_path):
    pixels = picture(5, 1)
    (tmp_path / "a.png").write_bytes(png(pixels))
    (tmp_path / "b.tif").write_bytes(cv2.imencode(".tif", pixels[..., ::-1])[1].tobytes())
    turned = Image.Exif()
    turned[274] = 6
    buffer = io.BytesIO()
    Image.fromarray(np.rot90(pixels)).save(buffer, "PNG", exif=turned)
    sources = [
        tmp_path / "a.png", str(tmp_path / "b.tif"), png(pixels), bytearray(png(pixels)),
        io.BytesIO(png(pixels)), Image.fromarray(pixels), pixels, buffer.getvalue(),
    ]  # fmt: skip
    for answer in pipeline().run(sources, pixels=True):
        assert np.array_equal(answer.image, pixels)
        assert (answer.size, len(answer.faces)) == ((90, 70), 1)
    (bgr,) = pipeline().run([pixels[..., ::-1]], color="bgr", pixels=True)
    assert np.array_equal(bgr.image, pixels)
    stacked = np.stack([pixels, pixels])
    assert [len(answer.faces) for answer in pipeline().run(stacked)] == [1, 1]


def test_sources_that_share_a_file_or_change_are_read_when_they_are_drawn(tmp_path):
    """Members of one archive, and frames of one PIL image, are the same object or file."""
    pictures = [picture(n, n % 4) for n in range(30)]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for n, pixels in enumerate(pictures):
            archive.writestr(f"{n:02}.png", png(pixels))
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        members = (archive.open(name) for name in sorted(archive.namelist()))
        seen = list(pipeline().run(members, pixels=True))
    for pixels, answer in zip(pictures, seen, strict=True):
        assert np.array_equal(answer.image, pixels)
    frames = [Image.fromarray(pixels) for pixels in pictures]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.tif") as film:
        seen = list(pipeline().run(ImageSequence.Iterator(film), pixels=True))
    for pixels, answer in zip(pictures, seen, strict=True):
        assert np.array_equal(answer.image, pixels)


@pytest.mark.parametrize("rule", ["largest", "center_weighted_size"])
def test_one_face_may_be_chosen(rule):
    pictures = [picture(n, n % 4) for n in range(20)]
    for pixels, answer in zip(pictures, pipeline(select=rule).run(pictures), strict=True):
        chosen = select_faces(find_faces(pixels), rule, (90, 70))
        assert np.array_equal(answer.faces.boxes, chosen.boxes)
        assert answer.faces.embedding.shape == (len(chosen), 8)


# ---- what is refused, and ends


def test_wrong_options_are_refused_before_the_work():
    for source in (picture(0), "a.jpg", b"", None):
        with pytest.raises(InputError, match="should get a list or iterator.*Put a single one"):
            pipeline().run(source)
    with pytest.raises(SettingsError, match='color should be "rgb" or "bgr"'):
        pipeline().run([], color="hsv")
    with pytest.raises(SettingsError, match="select should be one of"):
        pipeline(select="first")
    both = pipeline(reduced={2: ToyDetector(find_faces)})
    with pytest.raises(SettingsError, match="no whole pixels to hand back or to draw on"):
        both.run([], pixels=True)


def test_a_failing_engine_is_raised_where_its_batch_would_be():
    class Failing(ToyEngine):
        def run(self, feeds):
            if self.calls == 2:
                raise EngineError("the engine failed")
            return super().run(feeds)

    came = []
    with pytest.raises(EngineError, match="the engine failed"):
        for answer in pipeline(Failing()).run(picture(n) for n in range(200)):
            came.append(answer)
    assert len(came) == 2 * BATCH
    assert ours() == []


def test_a_stream_that_is_left_ends_its_threads():
    stream = pipeline().run(picture(n) for n in range(10_000))
    assert len(next(stream).faces) == 1
    assert len(ours()) >= 3
    stream.close()
    assert ours() == []


# ---- memory


class Forgetful:
    """A detector that writes nothing down, unlike the toy."""

    def detect(self, images):
        return [find_faces(image) for image in images]


def resident():
    """Bytes that the process holds in memory; 0 where the system does not tell."""
    place = Path("/proc/self/statm")
    return int(place.read_text().split()[1]) * 4096 if place.exists() else 0


def files(count):
    """Small pictures of three sizes in turn, so that what is on its way weighs little."""
    made = [png(picture(n, n % 3, (16 + 8 * n, 24))) for n in range(3)]
    return (made[n % 3] for n in range(count))


def grown(count):
    """How many bytes more Python and NumPy hold in the last third of so many pictures than in the
    first. What is on its way differs from moment to moment, so that little may be: a dozen
    pictures, of which the leanest moments of each third are compared."""
    limits = FlowLimits(group=2, waiting=8)
    work = Pipeline(Forgetful(), Embedder(toy_card(), ToyEngine(batch=4)), limits=limits)
    held = np.zeros(count, np.int64)
    tracemalloc.start()
    try:
        for number, answer in enumerate(work.run(files(count))):
            del answer
            held[number] = tracemalloc.get_traced_memory()[0]
            if number % 400 == 0:
                gc.collect()
    finally:
        tracemalloc.stop()
    first, _, last = np.array_split(held, 3)
    return last.min() - first.min()


def test_memory_does_not_grow_with_the_number_of_pictures():
    """A slope below half a megabyte in ten thousand pictures: the thirds that are compared lie
    1,600 apart."""
    assert grown(2400) < 80_000


THREADS_AT_MALLOC = """
import ctypes, sys, threading
from facenet.faces.pipeline import Pipeline
if sys.argv[1] == "pipeline":
    list(Pipeline(None).run([]))
if sys.argv[1] == "watch":
    import facenet
    list(facenet.watch([]))
if sys.argv[1] == "recognizer":
    from facenet.recognizer import Recognizer
    Recognizer()
together = threading.Barrier(9)
def hold():
    held = [bytearray(5000) for _ in range(100)]
    together.wait()
threads = [threading.Thread(target=hold) for _ in range(8)]
[thread.start() for thread in threads]
together.wait()
ctypes.CDLL(None).malloc_stats()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone has arenas")
def test_threads_share_few_arenas():
    def arenas(which, **more):
        command = [sys.executable, "-c", THREADS_AT_MALLOC, which]
        plain = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
        ran = subprocess.run(command, capture_output=True, check=True, env=plain | more, text=True)
        return ran.stderr.count("Arena ")

    assert arenas("none") > 4
    assert arenas("pipeline") == arenas("watch") == ARENAS
    assert arenas("recognizer") == ARENAS  # before a runtime starts its threads
    assert arenas("pipeline", MALLOC_ARENA_MAX="4") == 4


LARGE_PIECES = """
import ctypes, sys
from facenet.faces.pipeline import Pipeline
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in names]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
if sys.argv[1] == "pipeline":
    list(Pipeline(None).run([]))
first = bytearray(16 << 20)
del first
before = libc.mallinfo2().hblkhd
piece = bytearray(4 << 20)
print(libc.mallinfo2().hblkhd - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone does this")
def test_large_pieces_of_memory_are_the_system_s():
    """Also after an even larger one was given back, from which on malloc keeps them itself."""

    def mapped(which, **more):
        command = [sys.executable, "-c", LARGE_PIECES, which]
        name = "MALLOC_MMAP_THRESHOLD_"
        plain = {key: value for key, value in os.environ.items() if key != name}
        ran = subprocess.run(command, capture_output=True, check=True, env=plain | more, text=True)
        return int(ran.stdout)

    assert mapped("none") == 0
    assert mapped("pipeline") >= 4 << 20
    assert mapped("pipeline", MALLOC_MMAP_THRESHOLD_=str(8 << 20)) == 0


GAPS = """
import sys
import numpy as np
from facenet.faces.pipeline import Pipeline
from facenet.types import Faces
class Blind:
    def detect(self, images):
        return [Faces.empty() for _ in images]
def look(count):
    list(Pipeline(Blind()).run([np.zeros((8, 8, 3), np.uint8)] * count))
def held():
    return int(open("/proc/self/statm").read().split()[1])
look(20)
pieces = [(bytearray(100_000), bytearray(3000)) for _ in range(400)]
kept = [small for _, small in pieces]
del pieces
before = held()
look(int(sys.argv[1]))
print(before - held())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone does this")
def test_gaps_between_pieces_in_use_are_cleared_now_and_then():
    def pages_given_back(pictures):
        command = [sys.executable, "-c", GAPS, str(pictures)]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    gaps = 400 * 100_000 // 4096
    assert pages_given_back(CLEARED - 1) < gaps / 2 < pages_given_back(CLEARED)


def test_large_pictures_are_not_read_far_ahead():
    """At most the budget is decoded at once: eight of these pictures, of sixty. What the process
    holds (OpenCV's part too, which Python does not count) has not grown by half of them either."""
    side, peak = 1000, []
    data = png(picture(0, 1, (side, side)))
    gc.collect()
    whole = resident()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        limits = FlowLimits(memory=8 * 3 * side * side + 8 * len(data))
        for _ in pipeline(limits=limits).run([data] * 60):
            peak.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    assert 3 * side * side < peak[-1] < 2 * limits.memory
    assert resident() - whole < 30 * 3 * side * side


# ---- decoding at a part of the size


@pytest.mark.parametrize("side", [0, 112, 160])
def test_the_part_is_the_smallest_that_leaves_a_face_enough_pixels(side):
    for least in range(1, 1500):
        allowed = [part for part in (2, 4, 8) if least / part >= max(SMALLEST, side)]
        if allowed:
            assert reduction(least, side) == max(allowed)
        else:
            with pytest.raises(SettingsError, match=f"{2 * max(40, side)} or more.*it is {least}"):
                reduction(least, side)


def test_reduced_pictures_go_to_the_detector_for_them_and_faces_come_back_in_whole_pixels():
    """A box of MTCNN has pixel numbers from 1: that of pixels 11 to 20 is of 21 to 40 in twice."""
    small = ToyDetector(toy_faces((11, 5, 20, 30)))
    whole = ToyDetector(toy_faces((1, 2, 30, 40)))
    work = Pipeline(whole, Embedder(toy_card(), ToyEngine()), reduced={2: small})
    jpeg = cv2.imencode(".jpg", picture(0, 1, (101, 143)))[1].tobytes()
    first, second = work.run([jpeg, png(picture(1))])
    assert small.sizes == [(51, 72)] and whole.sizes == [(70, 90)]
    assert first.size == (143, 101)
    assert first.faces.boxes.tolist() == [[21, 9, 40, 60]]
    assert first.faces.landmarks == pytest.approx(2 * toy_faces((11, 5, 20, 30)).landmarks)
    assert second.faces.boxes.tolist() == [[1, 2, 30, 40]]
