"""Networks made into models of the store: the graph, the card, and what is refused."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fakes import toy_fmr
from torch import nn

from facenet.errors import (
    ImageError,
    MissingExtraError,
    ModelFileError,
    SettingsError,
    StorageError,
)
from facenet.faces.embed import Embedder
from facenet.models.card import Figure, Licence, Preprocess
from facenet.models.catalog import CARD, find_card
from facenet.models.engine import EngineSettings, open_engine
from facenet.models.loader import load_model
from facenet.models.store import ModelStore
from facenet.train.backbones import BACKBONES, build_backbone
from facenet.train.backbones.smallnet import SmallNetSettings
from facenet.train.export import Publication, check_parity, export_model, onnx_of
from facenet.train.weightfiles import read_weights
from facenet.train.weights import load_network

PREPROCESS = Preprocess(32, 32, "margin_output", "fixed")
FIGURE = Figure("toy accuracy", 0.75, "validation at step 3", "100 pairs")
TOLD = Publication(
    "tiny",
    PREPROCESS,
    Licence("MIT", "unknown", None),
    "toy pictures",
    (FIGURE,),
    toy_fmr(),
    "runs/toy/best",
    ("smallnet", SmallNetSettings(8, 4, 32)),
)


def small(seed=0):
    """A network whose normalisations are not those of a fresh one."""
    torch.manual_seed(seed)
    backbone = build_backbone("smallnet", SmallNetSettings(8, 4, 32))
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return backbone.train()


def noise(count):
    return np.random.default_rng(7).uniform(-1, 1, (count, 3, 32, 32)).astype(np.float32)


def answer(graph, images):
    engine = open_engine(graph, EngineSettings(engine="onnxruntime", device="cpu"))
    return engine.run({"image": images})["embedding"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return ModelStore(tmp_path_factory.mktemp("export-home"))


@pytest.fixture(scope="module")
def card(store):
    backbone = small()
    made = export_model(backbone, TOLD, store=store)
    assert backbone.training and all(module.training for module in backbone.modules())
    return made


def test_the_graph_answers_as_the_network_for_any_number_of_faces(card, store):
    path = store.files(card)["tiny"]
    network = small().eval()
    for count in (1, 3, 17):
        with torch.no_grad():
            right = network(torch.from_numpy(noise(count))).numpy()
        np.testing.assert_allclose(answer(path, noise(count)), right, rtol=0, atol=1e-5)
    assert not np.allclose(np.linalg.norm(right, axis=1), 1, atol=1e-2)  # raw embeddings


def test_the_graph_is_plain_and_tells_nothing_of_this_machine(card, store):
    data = store.files(card)["tiny"].read_bytes()
    model = onnx.ModelProto.FromString(data)
    assert [(used.domain, used.version) for used in model.opset_import] == [("", 18)]
    assert str(Path(__file__).parents[2]).encode() not in data and b"site-packages" not in data
    assert b"stack_trace" not in data and b"smallnet.py" not in data
    assert {node.op_type for node in model.graph.node} <= {
        "Conv", "PRelu", "ReduceMean", "GlobalAveragePool", "Reshape", "Flatten", "Gemm", "MatMul",
        "Add", "BatchNormalization", "Squeeze",
    }  # fmt: skip


def test_the_card_says_what_was_told_and_measured(card, store):
    assert find_card("tiny", kind="embedder", home=store.home) == card
    assert (card.figures, card.fmr) == ((FIGURE,), toy_fmr())
    assert (card.preprocess, card.licence, card.dimension) == (PREPROCESS, TOLD.licence, 8)
    assert card.training_data == "toy pictures" and card.source.origin == "runs/toy/best"
    assert card.title == "SmallNet, 8 values, exported by facenet"
    assert "Exported from runs/toy/best" in card.notes and "on 64 inputs" in card.notes
    assert "no false-match rates" not in card.notes
    (golden,) = card.golden.values()
    assert golden.shape == (1, 3, 32, 32) and len(golden.outputs["embedding"]) == 8
    embedder = Embedder(card, load_model("tiny", store=store).engine)
    crops = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
    standard = (crops.astype(np.float32) - 127.5) / 128
    with torch.no_grad():
        right = small().eval()(torch.from_numpy(standard.transpose(0, 3, 1, 2).copy())).numpy()
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    np.testing.assert_allclose(embedder.embed_crops(crops), right, rtol=0, atol=1e-5)


def test_it_can_be_trained_on_from_the_same_bits(card, store):
    loaded = load_network("tiny", store=store)
    state, right = loaded.backbone.state_dict(), small().state_dict()
    assert (loaded.name, loaded.settings, loaded.card) == (*TOLD.network, card)
    assert all(torch.equal(state[name], right[name]) for name in right)
    kept = store.folder(card) / "weights.safetensors"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1])  # another import of the name: what lies there is not its own
    assert read_weights("tiny", store).graph == store.files(card)["tiny"]
    kept.write_bytes(whole)
    assert read_weights("tiny", store).graph is None


def test_names_that_are_taken_or_none_are_told(card, store):
    with pytest.raises(SettingsError, match=r"a model named tiny already\. Choose another name"):
        export_model(small(), TOLD, store=store)
    with pytest.raises(SettingsError, match="a name of the published model facenet-casia-webface"):
        replace(TOLD, name="Casia-WebFace")
    with pytest.raises(SettingsError, match="The name of a model should be"):
        replace(TOLD, name="../tiny")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilefacenet_x2", {}),
        ("mobilenet_v1", {}),
        ("vit_tiny", {"depth": 1, "width": 32}),
    ],
)
def test_a_network_of_each_family_that_can_be_small_is_written_as_it_computes(name, options):
    """The others and the large ones: `scripts/export_parity.py`."""
    torch.manual_seed(0)
    settings = BACKBONES[name].settings(input_size=32, embedding_size=8, **options)
    backbone = build_backbone(name, settings)
    with torch.no_grad():
        backbone.train()(torch.rand(4, 3, 32, 32))  # normalisations that are not those of a new one
    assert check_parity(backbone, onnx_of(backbone, PREPROCESS), PREPROCESS) < 2e-5


def test_a_graph_that_answers_otherwise_is_refused(card, store):
    graph = store.files(card)["tiny"].read_bytes()
    assert check_parity(small(), graph, PREPROCESS) < 1e-6
    with pytest.raises(ModelFileError, match="similarities of the network to 0.0001; it differs"):
        check_parity(small(1), graph, PREPROCESS)
    with pytest.raises(ModelFileError, match="The exported graph should run; it does not"):
        check_parity(small(), graph, Preprocess(48, 48, "margin_output", "fixed"))


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_weights_that_went_wrong_are_refused(value, card, store):
    backbone = small()
    nn.init.constant_(backbone.norm.weight, value)
    nn.init.constant_(backbone.norm.bias, 0.0)
    with pytest.raises(ModelFileError, match="finite embeddings that are not zero"):
        check_parity(backbone, store.files(card)["tiny"].read_bytes(), PREPROCESS)


def test_crops_that_the_network_does_not_take_are_told():
    backbone = build_backbone("mobilefacenet")
    with pytest.raises(ImageError, match=r"takes crops \(n, 3, 112, 112\); got \(2, 3, 96, 96\)"):
        onnx_of(backbone, Preprocess(96, 96, "similarity", "fixed"))


def test_without_onnxscript_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'facenet\[train\]'"):
        onnx_of(small(), PREPROCESS)


def test_a_store_that_cannot_be_written_keeps_nothing(card, store, tmp_path):
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(StorageError, match="Cannot write"):
        export_model(small(), TOLD, store=ModelStore(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    full = store.home / "models" / "full" / "full.onnx.new"
    if Path("/dev/full").exists():
        full.parent.mkdir()
        full.symlink_to("/dev/full")
        with pytest.raises(StorageError, match="No space left on device"):
            export_model(small(), replace(TOLD, name="full"), store=store)
        assert not (full.parent / CARD).exists()
    record = json.loads((store.home / "models" / "tiny" / CARD).read_text())
    assert record["name"] == "tiny"


def test_another_export_of_the_same_weights_has_the_same_vector_space(card, store):
    again = export_model(small(), replace(TOLD, fmr=None), store=store, overwrite=True)
    assert again.contract == card.contract and again.source == card.source
    assert again.fmr is None and "decide with a threshold" in again.notes
    assert find_card("tiny", home=store.home) == again
