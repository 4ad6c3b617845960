"""`facenet detect` and `facenet embed` with the built-in models on the examples."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from shell import blank, copy, opened, refused, run

import facenet
from facenet.models.catalog import find_card


@pytest.fixture(scope="module")
def group(examples):
    return examples / "photos/group.jpg"


def same_faces(rows, faces, *, within=0.01):
    """Rows of `detect --json` say what a `Faces` says, in its order."""
    assert len(rows) == len(faces)
    for row, face in zip(rows, faces, strict=True):
        assert np.abs(np.array(row["box"]) - face.box).max() <= within
        assert np.abs(np.array(row["landmarks"]) - face.landmarks).max() <= within
        assert row["detection_score"] == pytest.approx(face.detection_score, abs=1e-5)
    return True


def test_detect_prints_what_the_recognizer_finds(examples, group):
    ran = run("detect", group, examples / "known", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert [list(row) for row in ran.json] == [["photo", "box", "detection_score", "landmarks"]] * 7
    recognizer = facenet.Recognizer()
    photos = [group, *sorted((examples / "known").rglob("*.jpg"))]
    assert list(dict.fromkeys(row["photo"] for row in ran.json)) == [str(p) for p in photos]
    for photo in photos:
        rows = [row for row in ran.json if row["photo"] == str(photo)]
        assert same_faces(rows, recognizer.detect(photo))


def test_detect_prints_csv(group):
    table, answer = run("detect", group), run("detect", group, "--json").json
    assert table.out.splitlines()[0] == "photo,box,detection_score,landmarks"
    for row, face in zip(table.rows, answer, strict=True):
        assert [float(v) for v in row["box"].split()] == face["box"]
        points = np.array([float(v) for v in row["landmarks"].split()]).reshape(5, 2)
        assert points.tolist() == face["landmarks"]


def test_the_options_of_the_detector_reach_it(group):
    settings = facenet.MtcnnSettings(
        min_face_size=60, thresholds=(0.7, 0.8, 0.9), factor=0.6, exactness="facenet"
    )
    faces = facenet.Recognizer(detection=settings).detect(group)
    options = ["--min-face-size", 60, "--thresholds", "0.7,0.8,0.9", "--factor", 0.6]
    rows = run("detect", group, "--json", *options, "--exactness", "facenet").json
    assert same_faces(rows, faces)
    assert rows != run("detect", group, "--json").json
    assert run("detect", group, "--json", "--min-face-size", 400).json == []


def test_reduced_decoding_finds_the_same_faces_nearby(group, tmp_path):
    options = ["--min-face-size", 80, "--json"]
    whole, ran = (
        run("detect", group, *options),
        run("detect", group, "--reduced-decoding", *options),
    )
    assert (ran.code, ran.err, len(ran.json)) == (0, "", 4)
    assert ran.json != whole.json
    for row, other in zip(ran.json, whole.json, strict=True):
        side = row["box"][3] - row["box"][1]
        assert row["box"] == pytest.approx(other["box"], abs=0.15 * side)
    said = refused("detect", group, "--reduced-decoding")
    assert said.startswith("Reduced decoding needs a min_face_size of 80 or more here")
    said = refused("detect", group, "--reduced-decoding", *options, "--draw", tmp_path)
    assert "no whole pixels to hand back or to draw on" in said
    out = tmp_path / "v.npz"
    assert "224 or more here" in refused("embed", group, "--out", out, "--reduced-decoding")
    assert not out.exists()
    ran = run("embed", group, "--out", out, "--reduced-decoding", "--min-face-size", 224)
    assert (ran.code, ran.out) == (0, f"4 faces of 1 photos -> {out}\n")


def test_no_face_is_no_error(tmp_path):
    sky = blank(tmp_path / "sky.png")
    ran = run("detect", sky, "--json")
    assert (ran.code, ran.json) == (0, [])
    assert ran.sentence == f"No face was found in {sky}."
    assert run("detect", sky).out == "photo,box,detection_score,landmarks\n"


def test_an_unreadable_photo_is_told_and_the_others_are_answered(group, tmp_path):
    (tmp_path / "a.jpg").write_text("text, whatever its name says")
    copy(group, tmp_path / "b.jpg")
    ran = run("detect", tmp_path, "--json")
    assert (ran.code, len(ran.json)) == (2, 4)
    assert "a.jpg" in ran.sentence


@pytest.mark.parametrize("kind", ["grey", "grey16", "alpha", "palette", "tiff", "webp", "bmp"])
def test_pictures_of_any_kind_show_the_same_face(kind, examples, tmp_path):
    source = opened(examples / "known/Eileen Collins.jpg")
    path = tmp_path / f"picture.{ {'tiff': 'tif', 'webp': 'webp', 'bmp': 'bmp'}.get(kind, 'png') }"
    if kind == "grey16":
        deep = np.asarray(source.convert("L"), np.uint16) * 257
        Image.fromarray(deep).save(path)
    else:
        modes = {"grey": "L", "alpha": "RGBA", "palette": "P"}
        options = {"lossless": True} if kind == "webp" else {}
        source.convert(modes.get(kind, "RGB")).save(path, **options)
    expected = run("detect", examples / "known/Eileen Collins.jpg", "--json").json[0]
    (found,) = run("detect", path, "--json").json
    exact = kind in ("alpha", "tiff", "webp", "bmp")
    assert found["box"] == pytest.approx(expected["box"], abs=0.01 if exact else 12)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_boxes_lie_in_the_upright_photo(orientation, examples, tmp_path):
    """A stored rotation with its EXIF note changes neither boxes nor who it is."""
    upright = opened(examples / "photos/hopper-rendition.jpg").convert("RGB")
    turns = {3: 180, 6: 90, 8: 270}  # counter-clockwise, so that the note undoes it
    exif = Image.Exif()
    exif[274] = orientation
    plain, turned = tmp_path / "plain.png", tmp_path / "turned.png"
    upright.save(plain)
    upright.rotate(turns[orientation], expand=True).save(turned, exif=exif)
    assert np.abs(np.asarray(opened(turned)) - np.asarray(upright)).max() > 0
    first, second = (run("detect", path, "--json").json for path in (plain, turned))
    assert [row["box"] for row in first] == [row["box"] for row in second]
    same = run("verify", plain, turned, "--json").json
    assert same["similarity"] == pytest.approx(1, abs=1e-5)


def test_detect_draws_boxes_without_names(group, tmp_path):
    ran = run("detect", group, "--draw", tmp_path / "out")
    assert ran.code == 0
    before, after = (np.asarray(opened(p), np.int64) for p in (group, tmp_path / "out/group.jpg"))
    assert before.shape == after.shape
    changed = (np.abs(after - before).max(axis=2) > 60).sum()
    assert 4 * 2 * 100 < changed < before.shape[0] * before.shape[1] / 20


def test_drawing_never_replaces_a_photo(group, tmp_path):
    first = copy(group, tmp_path / "a/x.jpg")
    second = copy(group, tmp_path / "b/y.jpg")
    kept = second.read_bytes()
    for photos, folder in (([first], "a"), ([first, tmp_path / "b"], "b"), ([tmp_path], ".")):
        said = refused("detect", *photos, "--draw", tmp_path / folder)
        assert said.startswith("The annotated copy would replace the photo ")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert "would replace" in refused("detect", first, "--draw", tmp_path / "link")
    assert (first.read_bytes(), second.read_bytes()) == (kept, kept)


def test_photos_of_one_name_are_drawn_apart(group, tmp_path):
    for person in "ab":
        copy(group, tmp_path / person / "x.jpg")
    out = tmp_path / "out"
    places = [tmp_path / "a/x.jpg", tmp_path / "b", tmp_path / "a/x.jpg"]
    assert run("detect", *places, "--draw", out).code == 0
    assert {str(p.relative_to(out)) for p in out.rglob("*.jpg")} == {"a/x.jpg", "b/x.jpg"}


def test_embed_writes_the_vectors_of_all_faces(examples, group, tmp_path):
    out = tmp_path / "new folder/vectors.npz"
    ran = run("embed", group, examples / "known", "--out", out, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["faces"] == 7
    with np.load(out, allow_pickle=False) as file:
        arrays = dict(file)
    assert set(arrays) == {"embeddings", "photos", "boxes", "contract"}
    assert arrays["embeddings"].dtype == arrays["boxes"].dtype == np.float32
    assert arrays["contract"].item() == find_card("mobilefacenet").contract
    assert np.linalg.norm(arrays["embeddings"], axis=1) == pytest.approx(1, abs=1e-6)

    rows = run("detect", group, examples / "known", "--json").json
    assert arrays["photos"].tolist() == [row["photo"] for row in rows]
    assert arrays["boxes"] == pytest.approx(np.array([row["box"] for row in rows]), abs=0.01)
    for photo in dict.fromkeys(arrays["photos"].tolist()):
        vectors = arrays["embeddings"][arrays["photos"] == photo]
        assert vectors == pytest.approx(facenet.embed(photo), abs=1e-5)


def test_embed_says_what_it_did(group, tmp_path):
    ran = run("embed", group, "--out", tmp_path / "v.npz")
    assert (ran.code, ran.out) == (0, f"4 faces of 1 photos -> {tmp_path / 'v.npz'}\n")


def test_embed_without_any_face_writes_empty_arrays(tmp_path):
    sky, out = blank(tmp_path / "sky.png"), tmp_path / "v.npz"
    ran = run("embed", sky, "--out", out, "--json")
    assert (ran.code, ran.sentence) == (0, f"No face was found in {sky}.")
    assert ran.json == {
        "file": str(out),
        "photos": 1,
        "faces": 0,
        "contract": find_card("mobilefacenet").contract,
        "faceless": [str(sky)],
        "problems": [],
    }
    with np.load(out) as arrays:
        assert arrays["embeddings"].shape == (0, 192)
        assert arrays["boxes"].shape == (0, 4)
        assert arrays["photos"].shape == (0,)


def test_embed_goes_on_after_an_unreadable_photo(group, tmp_path):
    photos = tmp_path / "photos"
    copy(group, photos / "b.jpg")
    (photos / "a.jpg").write_bytes(group.read_bytes()[:-5000])
    ran = run("embed", photos, "--out", tmp_path / "v.npz", "--json")
    assert (ran.code, ran.json["faces"]) == (2, 4)
    assert ran.json["problems"] == [ran.sentence]
    assert "a.jpg" in ran.sentence


def test_embed_refuses_a_bad_place_before_it_works(group, tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.npz").mkdir()
    assert refused("embed", group, "--out", tmp_path / "v.csv").startswith("The file to write")
    for name in ("file/v.npz", "folder.npz"):
        assert refused("embed", group, "--out", tmp_path / name).startswith("Cannot write ")
    assert {path.name for path in tmp_path.rglob("*")} == {"file", "folder.npz"}


def test_a_photo_reads_the_same_from_the_file_and_from_json(group):
    """The JSON is one array, an object a line, so that it can be read by line tools too."""
    text = run("detect", group, "--json").out
    lines = text.splitlines()
    assert len(lines) == 4
    assert [json.loads(line.strip("[], ") if i else line[1:-1]) for i, line in enumerate(lines)]
