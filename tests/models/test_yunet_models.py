"""YuNet as a model: cards, what is recognised, fetching, importing, and detecting with it."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import openvino
import pytest
from detector_graphs import convolving
from onnx import helper
from shell import process, refused, run
from web import Web
from yunet_graphs import PARTS, STRIDES, looking

import facenet
from facenet.errors import EngineError, ModelFileError
from facenet.faces.detectors import YUNET, detector_settings, family_of, held_back, open_detector
from facenet.faces.yunet import Yunet, YunetSettings
from facenet.models.card import Source, card_from_dict
from facenet.models.catalog import find_card, published
from facenet.models.convert.yunet import fits_yunet, is_yunet
from facenet.models.engine import EngineSettings
from facenet.models.loader import load_model
from facenet.models.store import ModelStore

GENUINE = {
    "yunet": (
        "face_detection_yunet_2026may.onnx",
        "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
        "https://media.githubusercontent.com/media/opencv/opencv_zoo/",
        "MIT",
    ),
    "yunet-n": (
        "yunet_n_dynamic.onnx",
        "104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12",
        "https://raw.githubusercontent.com/ShiqiYu/libfacedetection.train/",
        "Apache-2.0",
    ),
}
ORT = ("--engine", "onnxruntime")


@pytest.fixture
def photo(examples):
    return examples / "photos/hopper-rendition.jpg"


# Published


@pytest.mark.parametrize("name", GENUINE)
def test_the_cards_say_where_the_files_are(home, photo, name):
    file, digest, place, licence = GENUINE[name]
    card = published()[name]
    assert (card.kind, card.family, card.licence.weights) == ("detector", "yunet", licence)
    assert card.source.sha256 == card.files[0].sha256 == digest
    for source in (card.source, *card.source.alternatives):
        assert source.url.startswith(place)
        assert source.url.endswith(f"/{file}")
        assert (source.sha256, source.bytes) == (digest, card.files[0].bytes)
    assert family_of(card) is YUNET
    assert all("not re-measured" in f.origin for f in card.figures if f.name.startswith("WIDER"))
    assert find_card(file.removesuffix(".onnx")) is card
    said = refused("detect", photo, "--detector", name)
    assert f"Fetch it with `facenet models pull {name}` (0." in said


@pytest.mark.parametrize("name", GENUINE)
def test_the_genuine_files_are_known_right_and_used(home, data, photo, name):
    file = data / "models" / GENUINE[name][0]
    assert run("models", "import", file).out.startswith(f"{name}: imported, detector, contract")
    rows = run("models", "check", name, "--json").json
    assert {row["engine"] for row in rows} == {"onnxruntime", "openvino"}
    assert all(row["ok"] for row in rows)
    assert all(row["reason"].startswith("agrees with the golden answer") for row in rows)
    model = load_model(name, settings=EngineSettings())
    assert model.reason.startswith("OpenVINO agrees with the golden answer")
    (row,) = run("detect", photo, "--detector", name, "--json").json
    (mtcnn,) = run("detect", photo, *ORT, "--json").json
    np.testing.assert_allclose(row["landmarks"], mtcnn["landmarks"], atol=12)
    mine = run("models", "import", file, "--name", "mine", "--json").json
    assert (mine["name"], mine["commercial"]) == ("mine", True)
    assert find_card("mine").family == "yunet"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_it_is_pulled_from_its_address_or_the_other_one(home, photo):
    graph = looking(seed=4)
    with Web({"/main/y.onnx": graph}) as web:
        other = Source("url", sha256(graph), len(graph), url=web.url("/main/y.onnx"))
        source = replace(other, url=web.url("/commit/y.onnx"), alternatives=(other,))
        card = published()["yunet"]
        (entry,) = card.files
        entry = replace(entry, path="y.onnx", sha256=sha256(graph), bytes=len(graph))
        card = replace(card, name="y", source=source, files=(entry,), golden={}, aliases=())
        folder = home / "models/y"
        folder.mkdir(parents=True)
        (folder / "card.json").write_text(json.dumps(card.to_dict()))
        assert run("models", "pull", "y", "--json").json["fetched"] is True
        assert [path for path, _, _ in web.log] == ["/commit/y.onnx", "/main/y.onnx"]
    assert ModelStore().files(card)["y"].read_bytes() == graph
    assert run("detect", photo, "--detector", "y", *ORT).code == 0


# Recognised


@pytest.mark.parametrize(
    "options",
    [{}, {"names": "o{stride}{part}"}, {"declared": False}, {"size": (160, 128)}],
)
def test_a_yunet_of_ones_own_is_recognised_and_detects(home, tmp_path, photo, options):
    graph = looking(seed=4, **options)
    (tmp_path / "small.onnx").write_bytes(graph)
    made = run("models", "import", tmp_path / "small.onnx", "--json").json
    assert (made["name"], made["kind"], made["commercial"]) == ("small", "detector", None)
    card = find_card("small")
    assert (card.family, card.notes) == ("yunet", "YuNet, a detector with five landmarks")
    assert ModelStore().files(card)["small"].read_bytes() == graph
    (golden,) = card.golden.values()
    assert golden.shape == (1, 3, *(options.get("size") or (128, 128))[::-1])
    assert len(golden.outputs) == 12
    if not options:
        assert run("models", "check", "small").code == 0
    engine = load_model("small", settings=EngineSettings(engine="onnxruntime")).engine
    (expected,) = Yunet(engine).detect([facenet.load_image(photo)])
    rows = run("detect", photo, "--detector", "small", *ORT, "--json").json
    assert len(rows) == len(expected) > 0
    np.testing.assert_allclose([row["box"] for row in rows], expected.boxes, atol=0.1)
    one = facenet.YunetSettings(max_faces=1)
    found = facenet.detect(photo, detector="small", detection=one, engine="onnxruntime")
    assert len(found) == 1


def test_its_arithmetic_is_the_one_asked_for(home, tmp_path, photo):
    (tmp_path / "small.onnx").write_bytes(looking(seed=4))
    assert run("models", "import", tmp_path / "small.onnx").code == 0
    capable = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    running = EngineSettings(engine="openvino", device="cpu")

    def found(arithmetic, running=running):
        settings = YunetSettings(arithmetic=arithmetic)
        return open_detector("small", running, options=settings).detect(
            [facenet.load_image(photo)]
        )[0]

    exact = found("fp32")
    held = EngineSettings(engine="onnxruntime", device="cpu")
    assert found("auto", held) == found("fp32", held)
    with pytest.raises(EngineError, match="bf16"):
        found("bf16", held)
    for slow, reason in (
        (held, "ONNX Runtime has no bf16 arithmetic"),
        (replace(held, instructions="avx2"), "it is left out where the instructions are held to"),
    ):
        assert found("auto", slow) == found("fp32", slow)
        said = held_back("small", slow, options=YunetSettings(arithmetic="auto"))
        assert said.startswith(f"fp32 alone, which is slower; bf16: {reason}")
        assert held_back("small", slow, options=YunetSettings(arithmetic="fp32")) is None
    if capable:
        quick = found("bf16")
        assert len(quick) > 0 and quick != exact
        assert found("auto") in (exact, quick)
    else:
        assert found("auto") == exact


def test_a_large_fixed_one_keeps_its_family(home, tmp_path):
    """Its golden answer has only some of the tables, so the card has to say it."""
    (tmp_path / "large.onnx").write_bytes(looking(size=(640, 640)))
    assert run("models", "import", tmp_path / "large.onnx").code == 0
    card = find_card("large")
    assert len(next(iter(card.golden.values())).outputs) < 12
    assert detector_settings(card) == facenet.YunetSettings()
    with pytest.raises(
        facenet.SettingsError, match="family YuNet and takes YunetSettings; got Scr"
    ):
        detector_settings(card, facenet.ScrfdSettings())


def test_other_graphs_are_none(home, tmp_path):
    assert is_yunet(looking())
    for other in (convolving(9), convolving(6), looking(declared=False, names="{stride}{part}")):
        assert not is_yunet(other)
    assert not is_yunet(looking(batch=2))
    (tmp_path / "scrfd.onnx").write_bytes(convolving(9))
    run("models", "import", tmp_path / "scrfd.onnx")
    assert find_card("scrfd").family == "scrfd"
    (tmp_path / "wide.onnx").write_bytes(looking(declared=False, names="{stride}{part}"))
    said = refused("models", "import", tmp_path / "wide.onnx", "--name", "w", "--kind", "detector")
    assert (
        "fits no decoder. Known are MTCNN as three files, YuNet as OpenCV has it, with 12" in said
    )


def test_tables_of_another_length_are_told_at_the_import(home, tmp_path):
    import onnx

    model = onnx.ModelProto.FromString(looking())
    (node,) = (n for n in model.graph.node if n.output[0] == "ckps32")
    for attribute in node.attribute:
        if attribute.name == "strides":
            attribute.CopyFrom(helper.make_attribute("strides", [16, 16]))
    (tmp_path / "odd.onnx").write_bytes(model.SerializeToString())
    said = refused("models", "import", tmp_path / "odd.onnx")
    assert "odd.onnx is not supported: for a picture of 128x128 it gives" in said
    assert not (home / "models/odd").exists()


def test_which_tables_fit():
    def shapes(width, height, batch=(1,)):
        return [
            (*batch, (width // s) * (height // s), wide) for s in STRIDES for wide in PARTS.values()
        ]

    assert fits_yunet(shapes(64, 96), (64, 96))
    assert fits_yunet(shapes(64, 96, ()), (64, 96))
    assert not fits_yunet(shapes(64, 64), (64, 96))
    assert not fits_yunet(shapes(64, 96)[:-1], (64, 96))
    assert not fits_yunet(shapes(64, 96, (2,)), (64, 96))
    assert not fits_yunet(shapes(64, 80), (64, 80))


def test_how_it_is_fed_is_not_to_be_said(home, tmp_path):
    (tmp_path / "small.onnx").write_bytes(looking())
    for flag, value in (("--mean", "127.5"), ("--color", "rgb"), ("--standardise", "fixed")):
        said = refused("models", "import", tmp_path / "small.onnx", flag, value)
        assert f"{flag} says nothing of small.onnx, which is YuNet, a detector with five" in said


def test_the_family_of_a_card_is_one_of_three():
    card = published()["yunet"].to_dict()
    with pytest.raises(ModelFileError, match="family should be one of None, mtcnn, scrfd, yunet"):
        card_from_dict({**card, "family": "yolo"})


def test_without_a_network_the_file_may_be_brought(home, data):
    file = data / "models" / GENUINE["yunet"][0]
    ran = process("models", "pull", "yunet", "--file", file)
    assert (ran.code, ran.out) == (0, f"yunet: fetched into {home / 'models/yunet'}\n")
    said = refused("models", "pull", "yunet-n", "--file", file)
    assert said.startswith(f"{GENUINE['yunet'][0]} should have the SHA-256 104ee26c")
