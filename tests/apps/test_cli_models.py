"""`facenet models` and `facenet doctor`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from shell import refused, run

import facenet
from facenet.models.catalog import package_folder, published

SIDE, DIMENSION = 16, 6


@pytest.fixture
def own_model(tmp_path):
    """An ONNX embedder of one's own: a fixed random projection of the crop."""
    weights = np.random.default_rng(0).standard_normal((3 * SIDE * SIDE, DIMENSION))
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["face"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weights"], ["vector"]),
        ],
        "own",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", DIMENSION])],
        [numpy_helper.from_array(weights.astype(np.float32), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "own embedder.onnx"
    onnx.save(model, path)
    return path, weights


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_list_holds_every_card(home):
    rows = run("models", "list", "--json").json
    assert {row["name"] for row in rows} == set(published())
    here = {row["name"]: row["installed"] for row in rows}
    assert here["mtcnn"] and here["mobilefacenet"] and not here["facenet-casia-webface"]
    for row in rows:
        assert {"kind", "megabytes", "dimension", "licence", "commercial", "title"} < set(row)
    table = run("models", "list")
    assert [row["name"] for row in table.rows] == [row["name"] for row in rows]
    assert [row["installed"] for row in table.rows] == [str(row["installed"]) for row in rows]


def test_a_card_as_text_and_as_data(home):
    text = run("models", "show", "casia-webface").out
    assert text.startswith("facenet-casia-webface: ")
    for part in ("160x160 RGB", "margin 32", "0.9905", "MIT", "CASIA-WebFace", "FMR 0.0001"):
        assert part in " ".join(text.split())
    shown = run("models", "show", "20180408-102900", "--json").json
    contract = shown.pop("contract")
    assert contract == facenet.find_card("facenet-casia-webface").contract
    assert shown["name"] == "facenet-casia-webface"
    assert shown["source"]["sha256"].startswith("704afe26")
    assert "Did you mean mtcnn?" in refused("models", "show", "mtcn")


def test_the_rates_on_a_card_are_those_that_its_table_gives(home):
    """The number of pairs at or above the shown threshold, from the table's own rows."""
    table = facenet.find_card("mobilefacenet").fmr
    lines = run("models", "show", "mobilefacenet").out.splitlines()
    shown = [line.split() for line in lines if " at similarity " in line]
    assert len(shown) >= 3
    for _, rate, *_, value in shown:
        row = int(np.searchsorted(table.similarity, float(value) + 1e-3, side="right"))
        above, below = (
            table.false_matches[row - 1],
            table.false_matches[min(row, len(table.false_matches) - 1)],
        )
        assert below <= float(rate) * table.pairs * 1.02
        assert above >= float(rate) * table.pairs * 0.98


def test_check_says_that_what_ships_is_whole(home):
    ran = run("models", "check", "--json")
    assert ran.code == 0
    assert {row["name"] for row in ran.json} == {"mtcnn", "mobilefacenet"}
    assert all("agrees with the golden answer to" in row["reason"] for row in ran.json if row["ok"])
    missing = run("models", "check", "mtcnn", "facenet-casia-webface", "--json")
    assert missing.code == 2
    assert [row["ok"] for row in missing.json] == [True, True, False]
    assert "facenet models pull" in missing.json[2]["reason"]


def test_an_own_embedder_is_imported_checked_and_used(home, own_model, examples, tmp_path):
    path, weights = own_model
    photo = examples / "photos/hopper-rendition.jpg"
    told = ("--crop", "margin_output", "--standardise", "fixed", "--size", SIDE, "--margin", 2)
    made = run("models", "import", path, "--name", "own", *told, "--json").json
    assert (made["name"], made["dimension"]) == ("own", DIMENSION)
    assert "own" in {row["name"] for row in run("models", "list", "--json").json}
    assert run("models", "check", "own").code == 0

    run("embed", photo, "--model", "own", "--out", tmp_path / "v.npz")
    arrays = np.load(tmp_path / "v.npz")
    assert arrays["contract"].item() == made["contract"]
    image, faces = facenet.load_image(photo), facenet.detect(photo)
    crops = facenet.crop_faces(image, faces, facenet.find_card("own").preprocess)
    values = (crops.astype(np.float64) - 127.5) / 128
    expected = values.transpose(0, 3, 1, 2).reshape(1, -1) @ weights
    expected /= np.linalg.norm(expected)
    assert arrays["embeddings"] == pytest.approx(expected, abs=1e-5)

    said = refused("verify", photo, photo, "--model", "own")
    assert "no table of false-match rates" in said
    answer = run("verify", photo, photo, "--model", "own", "--threshold", 0.9, "--json")
    assert (answer.code, answer.json["fmr"]) == (0, None)
    assert run("verify", photo, photo, "--model", "own", "--threshold", 0.9).out.endswith(
        "(false-match rate unknown)\n"
    )


def test_a_damaged_file_is_found_out_and_not_used(home, own_model, examples):
    path, _ = own_model
    told = ("--crop", "margin_output", "--standardise", "fixed", "--size", SIDE)
    run("models", "import", path, "--name", "own", *told)
    (file,) = (home / "models/own").glob("*.onnx")
    good, data = sha256(file), bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    ran = run("models", "check", "own", "mtcnn", "--json")
    assert ran.code == 2
    assert [row["ok"] for row in ran.json] == [False, True, True]
    assert good in ran.json[0]["reason"]
    photo = examples / "photos/hopper-rendition.jpg"
    assert good in refused("verify", photo, photo, "--model", "own", "--threshold", 0.5)
    doctor = run("doctor", "--json")
    assert doctor.code == 2
    assert good in doctor.json["problems"][0]
    assert f"problem: {doctor.json['problems'][0]}" in run("doctor").out


def test_imports_that_are_refused(home, own_model, tmp_path):
    path, _ = own_model
    told = ("--crop", "margin_output", "--standardise", "fixed", "--size", SIDE)
    said = refused("models", "import", path)
    choices = "--crop similarity|margin_original|margin_output, --standardise fixed|per_image|"
    assert f"Say it with --name NAME, {choices}insightface|none. Where it is so, add" in said
    assert "--crop" in refused("models", "import", path, "--name", "own", "--standardise", "fixed")
    assert "no such file" in refused("models", "import", tmp_path / "nosuch.onnx")
    assert "size should be" in refused("models", "import", path, "--size", "x")
    assert "crop should be one of" in refused(
        "models", "import", path, "--name", "own", "--crop", "c", "--standardise", "fixed"
    )
    text = tmp_path / "text.onnx"
    text.write_text("not a graph")
    assert "text.onnx" in refused("models", "import", text, "--name", "own", *told)
    assert "../own" in refused("models", "import", path, "--name", "../own", *told)
    assert run("models", "import", path, "--name", "own", *told).code == 0
    assert "--overwrite" in refused("models", "import", path, "--name", "own", *told)
    ran = run("models", "import", path, "--name", "own", *told, "--overwrite")
    assert ran.out.startswith(f"own: imported, {DIMENSION} values, contract own:")


def test_a_published_file_is_recognised_and_installed(home, casia_graph, examples):
    ran = run("models", "import", casia_graph)
    assert ran.code == 0
    assert ran.out.startswith("facenet-casia-webface: imported, 512 values, contract facenet-")
    known = ("models", "pull", "facenet-casia-webface")
    assert run(*known).out.startswith("facenet-casia-webface: already in ")
    assert run(*known, "--json").json["fetched"] is False
    assert run("models", "check", "facenet-casia-webface").code == 0
    photos = (examples / "photos/group.jpg", examples / "known/Grace Hopper.jpg")
    model = ("--model", "casia-webface", "--engine", "onnxruntime")
    ran = run("identify", examples / "known", photos[0], *model, "--json")
    named = sorted(str(row["person"]) for row in ran.json)
    assert named == ["Barack Obama", "Eileen Collins", "Grace Hopper", "None"]


def test_pull_of_what_ships_and_of_a_wrong_file(home, own_model):
    answer = run("models", "pull", "mobilefacenet", "--json").json
    assert answer["fetched"] is False
    assert answer["folder"] == str(package_folder() / "weights")
    path, _ = own_model
    said = refused("models", "pull", "facenet-casia-webface", "--file", path)
    assert sha256(path) in said
    assert refused("models", "pull", "facenet-casia-webface", "--file", path.parent / "nosuch")
    assert "Did you mean" in refused("models", "pull", "facenet-casia")


def test_doctor_says_what_runs_where(home):
    ran = run("doctor", "--json")
    assert (ran.code, ran.err) == (0, "")
    found = ran.json
    assert found["facenet"] == facenet.__version__
    assert found["home"] == str(home)
    assert found["device"] == "cpu"
    assert found["engines"]["onnxruntime"][0] == "cpu"
    assert found["problems"] == []
    engines = {model["name"]: model["engine"] for model in found["models"]}
    assert engines["mtcnn"] in ("openvino", "onnxruntime")
    assert engines["facenet-casia-webface"] is None
    assert found["pixels"] == "compiled"
    text = run("doctor").out
    assert "pixels      compiled\n" in text
    assert f"facenet {facenet.__version__}, Python " in text
    for model in found["models"]:
        assert f"{model['name']}: {model['engine'] or '-'} (" in text


def test_doctor_stands_a_damaged_home(home):
    """A card that cannot be read is reported; the models that ship are still examined."""
    (home / "models/broken").mkdir(parents=True)
    (home / "models/broken/card.json").write_text("{")
    ran = run("doctor", "--json")
    assert ran.code == 2
    (problem,) = ran.json["problems"]
    assert "broken/card.json" in problem
    assert {model["name"] for model in ran.json["models"]} == set(published())
    assert "broken/card.json" in refused("models", "list")


def test_a_home_that_is_a_file(tmp_path, monkeypatch, casia_graph):
    (tmp_path / "home").write_text("in the way")
    monkeypatch.setenv("FACENET_HOME", str(tmp_path / "home"))
    assert "Cannot write" in refused("models", "import", casia_graph)
    assert json.loads(run("models", "list", "--json").out)
