"""What a user can hand in by mistake: one sentence and exit code 2, never a traceback."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from shell import blank, copy, opened, refused, run

from facenet.models.catalog import find_card


@pytest.fixture(scope="module")
def hopper(examples):
    return examples / "photos/hopper-rendition.jpg"


@pytest.fixture
def bad_photos(hopper, tmp_path):
    """Photos that cannot be read, by what is wrong with them."""
    data = hopper.read_bytes()
    contents = {
        "empty.jpg": b"",
        "text.jpg": b"Dear diary, no picture today.",
        "truncated.jpg": data[: len(data) // 2],
        "header only.jpg": data[:30],
        "archive.png": b"PK\x03\x04" + bytes(60),
    }
    paths = [tmp_path / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    return [*paths, tmp_path / "missing.jpg"]


def test_unreadable_photos(bad_photos, hopper, tmp_path):
    for path in bad_photos:
        for command in (("verify", hopper, path), ("compare", hopper, path)):
            assert path.name in refused(*command)
    assert refused("detect", tmp_path / "missing.jpg").startswith("No such file or folder: ")
    for path in bad_photos[:-1]:
        ran = run("detect", path)
        assert ran.code == 2
        assert path.name in ran.sentence


def test_tiny_pictures_have_no_face(tmp_path):
    for side in (1, 2, 12, 19):
        path = blank(tmp_path / f"{side}.png", (side, side))
        assert run("detect", path, "--json").json == []
    ran = run("embed", tmp_path, "--out", tmp_path / "v.npz", "--json")
    assert (ran.code, ran.json["photos"], ran.json["faces"]) == (0, 4, 0)


def test_a_face_as_large_as_the_picture_and_one_at_the_border(hopper, tmp_path):
    """Nothing is refused for reaching over the edge, with every crop there is."""
    box = run("detect", hopper, "--json").json[0]["box"]
    picture = opened(hopper)
    picture.crop([round(side) for side in box]).save(tmp_path / "all face.png")
    middle = (box[0] + box[2]) / 2
    picture.crop((0, 0, round(middle + 30), picture.height)).save(tmp_path / "right edge.png")
    whole = np.asarray(picture)[::-1].copy()
    Image.fromarray(whole).save(tmp_path / "upside down.png")
    assert run("embed", tmp_path, "--out", tmp_path / "v.npz").code == 0


def test_places_without_photos(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert refused("detect", tmp_path).startswith(f"No photo was found in {tmp_path}: expected")
    assert "No photo was found" in refused("identify", tmp_path, tmp_path)
    assert "notes.txt" in run("detect", tmp_path / "notes.txt").sentence
    assert "File name too long" in refused("detect", "x" * 5000)


def test_output_into_a_file(hopper, tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    for command in (
        ("detect", hopper, "--draw", file),
        ("embed", hopper, "--out", file / "v.npz"),
        ("align", hopper.parent, file),
        ("align", hopper.parent, file / "below"),
    ):
        assert refused(*command).startswith(f"Cannot write {file}")
    assert file.read_text() == "in the way"


def test_models_that_are_not_there(hopper, home):
    verify = ("verify", hopper, hopper, "--model")
    assert "Did you mean mobilefacenet" in refused(*verify, "mobilfacenet")
    assert "See `facenet models list`" in refused(*verify, "xyzzy")
    assert "`facenet models pull facenet-casia-webface`" in refused(*verify, "casia-webface")
    assert "mtcnn is a detector; an embedder is needed" in refused(*verify, "mtcnn")
    assert "a detector is needed" in refused("detect", hopper, "--detector", "mobilefacenet")
    assert "Did you mean mtcnn?" in refused("detect", hopper, "--detector", "mtccn")


def test_engines_that_are_not_there(hopper):
    for options, said in (
        (("--engine", "tensorrt"), "engine should be one of auto, onnxruntime, openvino"),
        (("--device", "tpu"), "device should be one of cpu, cuda"),
        (("--device", "cuda"), "The device cuda was asked for"),
        (("--device", "cuda", "--engine", "openvino"), "Choose another engine or device"),
        (("--device", "npu"), "The device npu was asked for"),
    ):
        assert said in refused("detect", hopper, *options)
    verify = ("verify", hopper, hopper)
    assert "precision should be one of fp32, bf16" in refused(*verify, "--precision", "int4")
    assert "ONNX Runtime has no bf16 arithmetic" in refused(
        *verify, "--precision", "bf16", "--engine", "onnxruntime"
    )


def test_the_device_of_the_environment_is_taken_and_named(hopper, monkeypatch):
    monkeypatch.setenv("FACENET_DEVICE", "cuda")
    assert "The device cuda was asked for" in refused("detect", hopper)
    assert run("detect", hopper, "--device", "cpu").code == 0


def test_thresholds_that_cannot_be(hopper):
    verify = ("verify", hopper, hopper)
    pairs = find_card("mobilefacenet").fmr.pairs
    assert refused(*verify, "--fmr", 1e-4, "--threshold", 0.5).startswith("Give either fmr or")
    for rate in (2 / pairs, 0, -1, 1, 2, "nan"):
        said = refused(*verify, "--fmr", rate)
        assert said.startswith("fmr should be from ")
        assert f"{pairs:,} pairs" in said
    for similarity in (1.01, -2, "nan", "inf"):
        assert "threshold should be a cosine" in refused(*verify, "--threshold", similarity)


def test_detector_options_that_cannot_be(hopper):
    for options, said in (
        (("--min-face-size", 0), "min_face_size"),
        (("--thresholds", "0.6,0.7"), "thresholds should be three numbers"),
        (("--thresholds", "a,b,c"), "thresholds should be three numbers"),
        (("--thresholds", "0.6,0.7,1.7"), "thresholds"),
        (("--thresholds", "nan,0.7,0.7"), "thresholds"),
        (("--factor", 1), "factor"),
        (("--factor", "nan"), "factor"),
        (("--exactness", "matlab"), "exactness should be one of"),
    ):
        assert said in refused("detect", hopper, *options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--size", "big"), "size should be a number or WIDTHxHEIGHT"),
        (("--size", "1x2x3"), "size should be a number or WIDTHxHEIGHT"),
        (("--size", "²"), "size should be a number or WIDTHxHEIGHT"),
        (("--size", "9" * 40), "size should be a number or WIDTHxHEIGHT"),
        (("--size", "4"), "8 to 4096 pixels a side"),
        (("--size", "32"), "margin should be 0 to 31; got 44"),
        (("--crop", "tight"), "crop should be one of"),
        (("--select", "best"), "select should be one of all, "),
        (("--format", "gif"), "format should be one of png, jpg, webp"),
    ],
)
def test_crops_that_cannot_be(options, said, hopper, tmp_path):
    assert said in refused("align", hopper.parent, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "identify"),
        (("models",), "import"),
        (("evaluate",), "lfw"),
        (("bench", "paint"), "No such command 'paint'"),
        (("paint",), "No such command 'paint'"),
        (("detect",), "Missing argument"),
        (("verify", "a.jpg"), "Missing argument"),
        (("detect", "a.jpg", "--nosuch"), "No such option: --nosuch"),
        (("detect", "a.jpg", "--min-face-size", "small"), "--min-face-size"),
        (("align", "a", "b", "--workers", "-1"), "greater than or equal to 0"),
        (("bench", "startup", "a", "b", "--rounds", "0"), "greater than or equal to 1"),
        (("embed", "a.jpg"), "--out"),
        (("evaluate", "lfw", "--images", "a"), "--pairs"),
    ],
)
def test_usage_errors_are_code_2_and_say_what_is_wrong(arguments, said):
    ran = run(*arguments)
    assert ran.code == 2
    assert said in ran.out + ran.err
    assert "Traceback" not in ran.err


def test_a_full_folder_of_strangers_formats(hopper, tmp_path):
    """Files that are no pictures are passed over in folders, whatever they hold."""
    for name in ("a.txt", "b.pdf", ".hidden.jpg", "c.jpg.part", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"\x00\xff" * 40)
    (tmp_path / "folder.jpg").mkdir()
    copy(hopper, tmp_path / "folder.jpg/inside.jpeg")
    ran = run("detect", tmp_path, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert [row["photo"] for row in ran.json] == [str(tmp_path / "folder.jpg/inside.jpeg")]
