"""Packs of InsightFace as folders and zips: what is unpacked, what is imported, what is refused."""

import io
import struct
import zipfile

import pytest
from detector_graphs import convolving
from shell import refused, run
from test_insightface_packs import GENDER_AGE, LANDMARKS_2D, LANDMARKS_3D, SWAPPER
from test_recognising import arcface

import facenet
from facenet.errors import ModelFileError, StorageError
from facenet.models.packs import MAX_FILES, pack_folder, unpacked

PACK = {
    "1k3d68.onnx": LANDMARKS_3D,
    "2d106det.onnx": LANDMARKS_2D,
    "det_10g.onnx": convolving(9),
    "genderage.onnx": GENDER_AGE,
    "w600k_r50.onnx": arcface(dimension=512),
}


def zipped(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("inside", ["", "buffalo_l/"])
def test_a_zipped_pack_is_imported_and_used(home, tmp_path, examples, inside):
    """The form of buffalo_l.zip, its files at the top, and of antelopev2.zip, in a folder."""
    members = {f"{inside}{name}": data for name, data in PACK.items()}
    members |= {"__MACOSX/buffalo_l/._det_10g.onnx": b"remark", f"{inside}readme.txt": b"hello"}
    ran = run("models", "import", zipped(tmp_path / "buffalo_l.zip", members), "--json")
    made = [(row["name"], row["kind"], row["commercial"]) for row in ran.json]
    assert made == [
        ("buffalo_l-detector", "detector", False),
        ("buffalo_l-recogniser", "embedder", False),
    ]
    for line in (
        "1k3d68.onnx: 68 landmarks in space, not used here",
        "2d106det.onnx: 106 landmarks, not used here",
        "genderage.onnx: sex and age, not used here",
        "det_10g.onnx: detector, 3 strides, with landmarks",
        "w600k_r50.onnx: recogniser, 512 values of a 112x112 face",
        "buffalo_l-recogniser: assumed --crop similarity --standardise insightface --color rgb",
        "non-commercial weights",
    ):
        assert line in ran.err
    assert facenet.find_card("buffalo_l-recogniser").source.origin == "w600k_r50.onnx"
    assert names(home) == ["models"]  # what was unpacked is gone
    photo = examples / "photos/hopper-rendition.jpg"
    ort = ("--engine", "onnxruntime")
    own = ("--model", "buffalo_l-recogniser", "--out", tmp_path / "v.npz")
    assert run("embed", photo, *own, *ort).code == 0
    assert run("detect", photo, "--detector", "buffalo_l-detector", *ort).code == 0


def test_a_folder_around_a_pack_is_one(home, tmp_path):
    folder = tmp_path / "models" / "buffalo_x"
    folder.mkdir(parents=True)
    for name, data in PACK.items():
        (folder / name).write_bytes(data)
    (tmp_path / "models" / ".hidden").touch()
    assert pack_folder(tmp_path / "models") == folder == pack_folder(folder)
    ran = run("models", "import", tmp_path / "models", "--kind", "embedder", "--json")
    assert (ran.json["name"], ran.json["commercial"]) == ("buffalo_x-recogniser", None)
    (tmp_path / "models" / "other").touch()
    assert pack_folder(tmp_path / "models") is None
    assert "It holds none" in refused("models", "import", tmp_path / "models")


def test_one_kind_of_a_pack_and_what_is_said_of_it(home, tmp_path):
    archive = zipped(tmp_path / "mine.zip", PACK)
    told = ("--standardise", "fixed", "--mean", "0", "--scale", "1")
    assert run("models", "import", archive, *told).code == 0
    card = facenet.find_card("mine-recogniser")
    assert (card.preprocess.standardise, card.preprocess.crop) == ("fixed", "similarity")
    assert "mean 0, scale 1" in facenet.find_card("mine-detector").notes
    only = zipped(tmp_path / "half.zip", {"a.onnx": PACK["det_10g.onnx"]})
    said = refused("models", "import", only, "--kind", "embedder")
    assert said.startswith("half holds no embedder; found: a.onnx: detector, 3 strides")


def test_an_unknown_graph_in_a_pack_is_told(home, tmp_path):
    archive = zipped(tmp_path / "p.zip", {**PACK, "swap.onnx": SWAPPER, "torn.onnx": b"PK"})
    ran = run("models", "import", archive)
    assert ran.code == 0
    assert "swap.onnx: an unknown graph with the input target (1 x 3 x 128 x 128), so" in ran.err
    assert "torn.onnx: expected an ONNX file, but" in ran.err
    said = refused("models", "import", zipped(tmp_path / "q.zip", {"swap.onnx": SWAPPER}))
    assert "should hold a detector or a recogniser of InsightFace; found: swap.onnx" in said


def lying(path, size):
    """A zip whose directory says that its one file has another size."""
    data = bytearray(zipped(path, {"a.onnx": b"x" * 100}, zipfile.ZIP_STORED).read_bytes())
    place = data.index(b"PK\1\2") + 24
    assert struct.unpack_from("<I", data, place) == (100,)
    struct.pack_into("<I", data, place, size)
    path.write_bytes(data)
    return path


def torn(path):
    data = bytearray(zipped(path, {"a.onnx": PACK["det_10g.onnx"]}).read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    return path


def twice(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.onnx", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.onnx", b"2")
    return path


REFUSED = {
    "up": (lambda p: zipped(p, {"../evil.onnx": b"x"}), r"it holds '\.\./evil\.onnx'"),
    "root": (lambda p: zipped(p, {"/etc/evil.onnx": b"x"}), "it holds '/etc/evil.onnx'"),
    "deep": (lambda p: zipped(p, {"a/b/c.onnx": b"x"}), "plain names, each once; it holds 'a/b"),
    "dots": (lambda p: zipped(p, {"../a.onnx/../b.onnx": b"x"}), "it holds"),
    "twice": (twice, "each once; it holds 'a.onnx'"),
    "two": (lambda p: zipped(p, {"a/x.onnx": b"x", "b/x.onnx": b"x"}), "in several folders"),
    "none": (lambda p: zipped(p, {"graph.pb": b"x"}), "none of the published archives.* holds no"),
    "many": (
        lambda p: zipped(p, {f"{k}.onnx": b"x" for k in range(MAX_FILES + 1)}),
        "at most 64 ONNX files.* it says 65 files",
    ),
    "bomb": (lambda p: zipped(p, {"a.onnx": bytes(5_000_000)}), "100 times .* 5,000,000 bytes in"),
    "huge": (lambda p: lying(p, 2**31 + 1), "2,147,483,649 bytes in 100. It is not unpacked"),
    "liar": (lambda p: lying(p, 9_000), "p.zip is a damaged archive"),
    "torn": (torn, "p.zip is a damaged archive"),
    "page": (lambda p: p.write_bytes(b"<html>") and p, "p.zip is a damaged archive"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_zip_that_is_no_pack_leaves_nothing(tmp_path, case):
    make, message = REFUSED[case]
    archive = make(tmp_path / "p.zip")
    with pytest.raises(ModelFileError, match=message), unpacked(archive, tmp_path / "place"):
        pass
    assert names(tmp_path / "place") == []
    assert names(tmp_path) == ["p.zip", "place"]


def test_where_nothing_can_be_written_is_told(tmp_path):
    archive = zipped(tmp_path / "p.zip", PACK)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Cannot write"), unpacked(archive, tmp_path / "file"):
        pass


def test_a_file_of_a_pack_that_is_not_used_is_refused_alone(home, tmp_path):
    (tmp_path / "genderage.onnx").write_bytes(GENDER_AGE)
    said = refused("models", "import", tmp_path / "genderage.onnx", "--name", "x")
    assert said.startswith("genderage.onnx is a model for sex and age of InsightFace's packs, whi")


def test_bytes_of_a_member_are_those_of_the_file(tmp_path):
    buffer = io.BytesIO(zipped(tmp_path / "p.zip", PACK).read_bytes())
    with unpacked(tmp_path / "p.zip", tmp_path / "place") as folder:
        assert folder.name == "p"
        with zipfile.ZipFile(buffer) as archive:
            for name in PACK:
                assert (folder / name).read_bytes() == archive.read(name) == PACK[name]
