"""What is gathered from pictures: alone or in groups, fresh or remembered, good or bad."""

from __future__ import annotations

import io
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from fakes import ToyDetector, ToyEngine, toy_card, toy_faces
from PIL import Image
from shell import blank

from facenet.apps.jobs.gather import Gatherer, Gathering
from facenet.apps.jobs.vectorcache import cache_folder
from facenet.data.pairset import Picture
from facenet.errors import SettingsError
from facenet.faces.embed import Embedder
from facenet.images import load_image
from facenet.recognizer import GROUP, Recognizer

CENTRE = (20, 11, 60, 59)


def find_face(image):
    """Two faces, the smaller in the middle; none in a black picture, one outside a white."""
    if image.max() == 0:
        return toy_faces()[[]]
    if image.min() == 255:
        return toy_faces((500, 500, 540, 540))
    return toy_faces((0, 0, 45, 45), CENTRE)


def toy(engine=None, detection="toy detector"):
    recognizer = Recognizer.from_parts(
        ToyDetector(find_face), Embedder(toy_card(), engine or ToyEngine())
    )
    recognizer.detection = detection
    return recognizer


def gather(pictures, recognizer=None, seen=None, **how):
    def done(count, total):
        if seen is not None:
            seen.append((count, total))

    return Gatherer(recognizer or toy(), Gathering(**how)).gather(pictures, done)


@pytest.fixture
def pictures(tmp_path, home):
    """Noise in more than two groups; one black, one white, one damaged, one missing."""
    generator = np.random.default_rng(3)
    listed = []
    for number in range(2 * GROUP + 5):
        path = tmp_path / "pictures" / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = generator.integers(0, 255, (70, 80, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        listed.append(Picture(path.name, path, f"person {number // 2}"))
    blank(listed[3].source, (80, 70), (0, 0, 0))
    blank(listed[17].source, (80, 70), (255, 255, 255))
    listed[20].source.write_bytes(b"damaged")
    listed[25] = Picture("025.png", None)
    return listed


BAD = [3, 17, 20, 25]


def test_every_picture_is_seen_as_it_is_alone(pictures):
    gathered = gather(pictures)
    for row, picture in enumerate(pictures):
        assert gathered.views.found[row] == (row not in BAD)
        if row in BAD:
            assert np.isnan(gathered.heads[row]).all()
            continue
        alone = gather([picture], remember=False)
        assert alone.views.plain[0] == pytest.approx(gathered.views.plain[row], abs=1e-6)
        assert np.array_equal(alone.heads[0], gathered.heads[row])
        assert gathered.boxes[row].tolist() == list(CENTRE)
        points = toy_faces(CENTRE).landmarks[0]
        assert gathered.landmarks[row] == pytest.approx(points)


def test_outputs_are_those_of_the_network_before_any_scaling(pictures):
    recognizer = toy()
    gathered = gather(pictures[:2], recognizer)
    face = toy_faces(CENTRE)
    image = load_image(pictures[0].source)
    embedded = recognizer.embedder.embed([image], [face])[0].embedding[0]
    plain = gathered.views.plain[0]
    assert np.linalg.norm(plain) > 1.5
    assert plain / np.linalg.norm(plain) == pytest.approx(embedded, abs=1e-6)


def test_mirrored_views_are_the_views_of_mirrored_crops(pictures):
    gathered = gather(pictures[:2], mirrors=True)
    flipped = Recognizer.from_parts(
        ToyDetector(find_face), Embedder(toy_card(), ToyEngine(), flip=True)
    )
    image = load_image(pictures[0].source)
    both = flipped.embedder.embed([image], [toy_faces(CENTRE)])[0].embedding[0]
    assert gathered.vectors()[0] == pytest.approx(both, abs=1e-6)
    assert not np.allclose(gathered.views.mirrored[0], gathered.views.plain[0])


def test_reasons_name_their_pictures(pictures):
    problems = gather(pictures).problems
    assert list(problems) == BAD
    assert problems[3] == "No face was found in 003.png."
    assert problems[17].startswith("017.png: The box")
    assert "020.png" in problems[20]
    assert problems[25] == "No such picture: 025.png."


def test_the_second_run_asks_no_network(pictures):
    first = gather(pictures)
    engine = ToyEngine()
    second = gather(pictures, toy(engine))
    assert engine.calls == 0
    assert second.remembered == len(pictures) - 3  # the white one is looked at again, too
    assert np.array_equal(first.views.plain, second.views.plain, equal_nan=True)
    assert np.array_equal(first.heads, second.heads, equal_nan=True)
    assert first.problems == second.problems


def test_another_model_finds_the_faces_of_the_first(pictures):
    """Detection is remembered on its own; the white picture is asked for again and again."""
    gather(pictures)
    other = Recognizer.from_parts(
        ToyDetector(find_face), Embedder(toy_card(name="other"), ToyEngine(seed=3))
    )
    other.detection = "toy detector"
    second = gather(pictures, other)
    assert other.detector.sizes == []
    assert other.embedder._engine.calls > 0
    fresh = gather(pictures, other, remember=False)
    assert np.array_equal(second.views.plain, fresh.views.plain, equal_nan=True)
    assert np.array_equal(second.heads, fresh.heads, equal_nan=True)
    assert second.problems == fresh.problems


def test_what_is_remembered_goes_by_content_and_not_by_name(pictures, tmp_path):
    gather(pictures)
    engine = ToyEngine()
    moved = tmp_path / "moved.png"
    moved.write_bytes(pictures[0].source.read_bytes())
    pictures[1].source.write_bytes(pictures[2].source.read_bytes())
    renamed = [Picture("m", moved), Picture("1", pictures[1].source)]
    again = gather(renamed, toy(engine))
    assert engine.calls == 0
    assert np.array_equal(again.views.plain[1], gather(pictures[2:3]).views.plain[0])


@pytest.mark.parametrize(
    ("recognizer", "how"),
    [
        (toy(detection="another detector"), {}),
        (toy(), {"select": "largest"}),
        (toy(), {"mirrors": True}),
        (toy(), {"remember": False}),
        (toy(), {"aligned": True}),
        (toy(detection=""), {}),
    ],
)
def test_other_ways_of_looking_are_not_mixed_up(pictures, recognizer, how):
    gather(pictures)
    before = recognizer.embedder._engine.calls
    gather(pictures, recognizer, **how)
    assert recognizer.embedder._engine.calls > before


def test_remembered_rows_of_another_length_are_looked_at_again(pictures):
    first = gather(pictures)
    for path in cache_folder().glob("*.sqlite"):
        with sqlite3.connect(path) as file:
            file.execute(
                "UPDATE seen SET row = CAST(row || x'00000000' AS BLOB) WHERE length(row) > 0"
            )
    second = gather(pictures)
    assert second.remembered == 1  # the black one
    assert np.array_equal(first.views.plain, second.views.plain, equal_nan=True)
    assert np.array_equal(first.heads, second.heads, equal_nan=True)


def test_an_interrupted_run_goes_on_where_it_was(pictures):
    def stop(count, total):
        if count >= GROUP:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Gatherer(toy(), Gathering()).gather(pictures, stop)
    assert gather(pictures).remembered == GROUP


def test_crops_of_others_are_used_as_they_are(home):
    generator = np.random.default_rng(1)
    files = []
    for side in (16, 40):
        buffer = io.BytesIO()
        pixels = generator.integers(0, 255, (side, side, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        files.append(buffer.getvalue())
    pictures = [Picture("a", files[0]), Picture("b", files[1]), Picture("c", b"damaged")]
    recognizer = toy()
    gathered = gather(pictures, recognizer, aligned=True)
    assert recognizer.detector.sizes == []
    crop = np.array(Image.open(io.BytesIO(files[0])))[None]
    assert np.array_equal(gathered.views.plain[0], recognizer.embedder.outputs(crop)[0])
    small = np.array(Image.open(io.BytesIO(files[1])).resize((16, 16), Image.Resampling.BILINEAR))
    resized = recognizer.embedder.outputs(small[None])[0]  # Pillow's to within a grey level
    assert gathered.views.plain[1] == pytest.approx(resized, abs=0.05)
    assert gathered.boxes[1].tolist() == [0, 0, 40, 40]
    assert np.isnan(gathered.landmarks[0]).all()
    assert gathered.problems[2].startswith("c: ")


def test_points_of_the_data_set_are_taken_as_they_are(pictures):
    """No face is looked for; the same picture with other points is another face."""
    card = toy_card(preprocess={"crop": "similarity"})
    recognizer = Recognizer.from_parts(ToyDetector(find_face), Embedder(card, ToyEngine()))
    recognizer.detection = "toy detector"
    points = toy_faces(CENTRE).landmarks[0]
    given = [
        replace(pictures[0], landmarks=tuple(map(float, (points + shift).ravel())))
        for shift in (0, 5)
    ]
    gathered = gather(given, recognizer)
    assert recognizer.detector.sizes == []
    assert gathered.landmarks[0] == pytest.approx(points)
    assert not np.allclose(gathered.views.plain[0], gathered.views.plain[1])
    image = load_image(pictures[0].source)
    face = recognizer.embedder.embed([image], [toy_faces(CENTRE)])[0].embedding[0]
    assert gathered.vectors()[0] == pytest.approx(face, abs=1e-6)
    assert gather(given, recognizer).remembered == 2


def test_progress_and_seconds(pictures):
    seen = []
    gathered = gather(pictures, seen=seen)
    assert seen[-1] == (len(pictures), len(pictures))
    assert [count for count, _ in seen] == sorted(count for count, _ in seen)
    assert set(gathered.seconds) == {"read", "detect", "embed"}
    assert all(seconds > 0 for seconds in gathered.seconds.values())


def test_no_pictures_are_no_work(home):
    gathered = gather([])
    assert gathered.views.plain.shape == (0, 8)
    assert gathered.problems == {}


@pytest.mark.parametrize("rule", ["all", "first"])
def test_a_rule_that_chooses_one_face_is_needed(rule):
    with pytest.raises(SettingsError, match="select should be one of probability, largest"):
        Gathering(select=rule)
