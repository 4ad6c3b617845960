"""Weights of backbones: graphs read by structure, files by names, there and back."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from facenet.errors import (
    DataError,
    DigestError,
    InputError,
    ModelError,
    ModelFileError,
    SettingsError,
    StorageError,
    UnknownModelError,
)
from facenet.models.card import Preprocess
from facenet.models.catalog import find_card, package_folder
from facenet.models.engine import EngineSettings, open_engine
from facenet.models.importing import import_model
from facenet.models.recognising import Found, read_model
from facenet.models.store import ModelStore
from facenet.pytorch import InceptionResnetV1
from facenet.train.backbones import BACKBONES, build_backbone
from facenet.train.backbones.inception_resnet_v1 import FacenetSettings
from facenet.train.backbones.iresnet import IResNetSettings
from facenet.train.backbones.mobilefacenet import MobileFaceNetSettings
from facenet.train.backbones.smallnet import SmallNetSettings
from facenet.train.checkpoint import save_checkpoint
from facenet.train.onnxlayers import read_layers
from facenet.train.unfolding import running_order, settle_statistics, weights_for
from facenet.train.weightfiles import read_run
from facenet.train.weights import (
    load_backbone,
    load_into,
    load_network,
    load_weights,
    save_weights,
    to_facenet_pytorch,
)

SMALL = SmallNetSettings(8, 4, 32)
FACTS = {
    "backbone": "smallnet",
    "backbone_settings": {"embedding_size": 8, "width": 4, "input_size": 32},
    "preprocess": {"width": 32, "height": 32, "crop": "margin_output", "standardise": "fixed"},
    "licence": {"code": "MIT", "weights": "unknown", "commercial": None},
    "training_data": "toy",
    "torch": "of no account here",
}


def lively(backbone, seed=0):
    """The network with statistics, gains and offsets that no fresh one has, to evaluate."""
    torch.manual_seed(seed)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.7, 1.3)
            module.bias.data.normal_(0, 0.1)
        if isinstance(module, nn.PReLU):
            module.weight.data.uniform_(0.1, 0.4)
    return backbone.eval()


def small(seed=0):
    torch.manual_seed(seed)
    return lively(build_backbone("smallnet", SMALL), seed)


def noise(count, side, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3, side, side)).astype(np.float32)


def run(backbone, images):
    with torch.no_grad():
        return backbone(torch.from_numpy(images)).numpy()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def answer(graph, images):
    engine = open_engine(graph, EngineSettings(engine="onnxruntime", device="cpu"))
    return next(iter(engine.run({next(iter(engine.inputs)): images}).values()))


def same_bits(left, right):
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


@pytest.fixture(scope="module")
def built_in():
    return load_network("mobilefacenet")


def test_the_built_in_model_in_torch_answers_as_its_graph(built_in):
    assert (built_in.name, built_in.settings.embedding_size) == ("mobilefacenet_tf", 192)
    assert built_in.card.name == "mobilefacenet" and not built_in.backbone.training
    images = noise(4, 112)
    right = answer(package_folder() / "weights" / "mobilefacenet.onnx", images)
    got = run(built_in.backbone, images)
    assert np.max(np.abs(unit(got) - unit(right))) < 1e-5
    assert np.max(np.abs(got - right)) < 1e-5 * np.max(np.abs(right))


def test_the_convolutions_of_the_built_in_model_are_the_bits_of_its_graph(built_in):
    model = onnx.load(package_folder() / "weights" / "mobilefacenet.onnx")
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kernels = [n.input[1:3] for n in model.graph.node if n.op_type == "Conv"]
    products = [
        (module, name)
        for name, module in running_order(built_in.backbone)
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    norms = [m for _, m in running_order(built_in.backbone) if hasattr(m, "running_mean")]
    assert len(kernels) == len(products) == len(norms) == 50
    for (weight, bias), (module, _), norm in zip(kernels, products, norms, strict=True):
        assert np.array_equal(stored[weight].ravel(), module.weight.detach().numpy().ravel())
        assert np.array_equal(stored[bias], norm.bias.detach().numpy())
        assert torch.all(norm.running_var + norm.eps == 1) and not norm.running_mean.any()


def test_settled_statistics_leave_the_answers_and_are_those_of_the_pictures(built_in):
    """As checked with sums over the values of one layer; batches then answer nearly the same."""
    backbone = build_backbone("mobilefacenet_tf", built_in.settings)
    backbone.load_state_dict(built_in.backbone.state_dict())
    images = torch.from_numpy(noise(10, 112, seed=3))
    before = run(backbone.eval(), images.numpy())
    seen = []
    hook = backbone.layers[0].layers[1].register_forward_pre_hook(lambda m, x: seen.append(x[0]))
    run(backbone, images.numpy())
    hook.remove()
    raw = build_backbone("mobilefacenet_tf", built_in.settings)
    raw.load_state_dict(built_in.backbone.state_dict())
    count = settle_statistics(backbone.train(), iter([images[:4], images[4:]]))
    assert count == 10 and backbone.training and not backbone._forward_pre_hooks
    norm, values = backbone.layers[0].layers[1], seen[0].double()
    np.testing.assert_allclose(norm.running_mean, values.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    variance = values.var((0, 2, 3), unbiased=False)
    np.testing.assert_allclose(norm.running_var, variance, rtol=1e-4, atol=1e-8)
    assert np.max(np.abs(unit(run(backbone.eval(), images.numpy())) - unit(before))) < 1e-5

    def in_training(network):
        return np.sum(unit(run(network.train(), images.numpy())) * unit(before), axis=1)

    assert np.min(in_training(backbone)) > 0.99
    assert np.max(in_training(raw)) < 0.9
    with pytest.raises(InputError, match="there are none"):
        settle_statistics(backbone, [])


def test_the_published_model_is_facenet_pytorchs_network(casia_graph, home):
    card = find_card("facenet-casia-webface")
    store = ModelStore()
    store.pull(card, given=casia_graph)
    network = InceptionResnetV1(pretrained="casia-webface", num_classes=5).eval()
    images = noise(2, 160)
    right = answer(store.files(card)["facenet-casia-webface"], images)
    assert np.max(np.abs(run(network, images) - right)) < 1e-5
    network.classify = True
    assert run(network, images).shape == (2, 5)
    loaded = load_network("20180408-102900")
    assert (loaded.name, loaded.settings) == ("inception_resnet_v1", FacenetSettings(512))
    state = loaded.backbone.state_dict()
    assert all(torch.equal(state[name], network.state_dict()[name]) for name in state)
    with pytest.raises(ModelFileError, match="casia-webface should have the layers of SmallNet; l"):
        load_into(small(), "casia-webface")


def test_an_exported_iresnet_is_found_with_its_free_normalisations(home, tmp_path):
    """As InsightFace exports them: BatchNorm after a convolution folded, before one not."""
    torch.manual_seed(2)
    settings = IResNetSettings(16, input_size=32)
    backbone = lively(build_backbone("iresnet18", settings), 2)
    path = tmp_path / "r18.onnx"
    path.write_bytes(folded_iresnet(backbone))
    images = noise(2, 32)
    right = run(backbone, images)
    assert np.max(np.abs(answer(path, images) - right)) < 1e-4 * np.max(np.abs(right))
    found = read_model(path)
    source = Found("embedder", "an iResNet", found.source, lambda _: {"": path.read_bytes()})
    import_model(source, name="r18", preprocess=Preprocess(32, 32, "similarity", "insightface"))
    loaded = load_network("r18")
    assert (loaded.name, loaded.settings) == ("iresnet18", settings)
    assert np.max(np.abs(unit(run(loaded.backbone, images)) - unit(right))) < 1e-5
    for name in ("layer1.0.bn1.running_mean", "bn2.running_var", "features.weight"):
        assert torch.equal(loaded.backbone.state_dict()[name], backbone.state_dict()[name])


def folded_iresnet(backbone):
    """An iResNet as ONNX by hand, from its state dict."""
    state = {n: t.numpy() for n, t in backbone.state_dict().items()}
    nodes, constants = [], {}

    def put(name, values):
        constants[name] = np.asarray(values, np.float32)
        return name

    def node(operator, inputs, **attributes):
        name = f"v{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def conv(x, kernel, norm, stride=1):
        scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + 1e-5)
        weight = state[f"{kernel}.weight"] * scale[:, None, None, None]
        bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
        pad = weight.shape[-1] // 2
        names = [x, put(f"{kernel}.w", weight), put(f"{kernel}.b", bias)]
        return node("Conv", names, strides=[stride] * 2, pads=[pad] * 4)

    def norm(x, name):
        parts = ("weight", "bias", "running_mean", "running_var")
        names = [put(f"{name}.{part}", state[f"{name}.{part}"]) for part in parts]
        return node("BatchNormalization", [x, *names], epsilon=1e-5)

    def prelu(x, name):
        return node("PRelu", [x, put(f"{name}.s", state[f"{name}.weight"].reshape(-1, 1, 1))])

    x = prelu(conv("image", "conv1", "bn1"), "prelu")
    for stage in range(1, 5):
        for number in range(2):
            block, stride = f"layer{stage}.{number}", 2 if number == 0 else 1
            inner = conv(norm(x, f"{block}.bn1"), f"{block}.conv1", f"{block}.bn2")
            inner = prelu(inner, f"{block}.prelu")
            inner = conv(inner, f"{block}.conv2", f"{block}.bn3", stride)
            if number == 0:
                x = conv(x, f"{block}.downsample.0", f"{block}.downsample.1", stride)
            x = node("Add", [x, inner])  # the shortcut first: its place says nothing
    x = node("Flatten", [norm(x, "bn2")], axis=1)
    gemm = [x, put("fc.w", state["fc.weight"]), put("fc.b", state["fc.bias"])]
    norm(node("Gemm", gemm, transB=1), "features")
    nodes[-1].output[0] = "embedding"
    sides = (("image", [None, 3, 32, 32]), ("embedding", [None, 16]))
    ends = [helper.make_tensor_value_info(name, 1, shape) for name, shape in sides]
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "iresnet", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def test_a_graph_of_no_network_here_is_told(home, tmp_path):
    path = tmp_path / "other.onnx"
    weight = numpy_helper.from_array(np.eye(8, 3, dtype=np.float32), "w")
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "w"], ["embedding"], transB=1),
    ]
    sides = (("image", [None, 3, 32, 32]), ("embedding", [None, 8]))
    ends = [helper.make_tensor_value_info(name, 1, shape) for name, shape in sides]
    graph = helper.make_graph(nodes, "other", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    import_model(path, name="other", preprocess=Preprocess(32, 32, "similarity", "fixed"))
    with pytest.raises(ModelFileError, match="other should be one of the networks"):
        load_network("other")
    layers = read_layers(path.read_bytes())
    assert [(layer.kind, layer.after) for layer in layers] == [("dense", -1)]
    with pytest.raises(ModelFileError, match="conv, the graph has dense"):
        weights_for(small(), layers)


def test_the_mobilefacenet_of_torch_is_not_that_of_tensorflow(built_in):
    layers = read_layers((package_folder() / "weights" / "mobilefacenet.onnx").read_bytes())
    with pytest.raises(
        ModelFileError, match=re.escape("(2, 2, 1, 1, 1, 1, 1), the graph (2, 2, 0")
    ):
        weights_for(build_backbone("mobilefacenet", built_in.settings), layers)
    other = build_backbone("mobilefacenet_tf", MobileFaceNetSettings(64))
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(ModelFileError, match=re.escape("(64, 512), in the graph (192, 512")):
        load_into(other, "mobilefacenet")
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())


def test_weights_come_back_as_the_same_bits(tmp_path):
    backbone, other = small(), small(seed=5)
    save_weights(backbone, tmp_path / "new" / "plain.safetensors")
    load_weights(other, tmp_path / "new" / "plain.safetensors")
    assert same_bits(backbone, other)
    third = small(seed=6)
    load_into(third, tmp_path / "new" / "plain.safetensors")
    assert same_bits(backbone, third)
    with pytest.raises(ModelFileError, match="should tell which network its weights are of"):
        load_network(tmp_path / "new" / "plain.safetensors")
    save_weights(backbone, tmp_path / "told.safetensors", FACTS)
    loaded = load_network(str(tmp_path / "told.safetensors"))
    assert same_bits(backbone, loaded.backbone) and loaded.settings == SMALL
    assert (loaded.card.training_data, loaded.card.dimension) == ("toy", 8)
    save_weights(loaded.backbone, tmp_path / "again.safetensors", loaded.facts())
    assert load_network(tmp_path / "again.safetensors").card.preprocess == loaded.card.preprocess


def test_facenet_pytorchs_files_go_both_ways(tmp_path):
    """torch.save writes them; they are read without running them, with or without classes."""
    torch.manual_seed(4)
    backbone = lively(build_backbone("inception_resnet_v1"), 4)
    state = to_facenet_pytorch(backbone)
    assert "last_bn.num_batches_tracked" in state and "logits.weight" not in state
    classes = {"logits.weight": torch.zeros(3, 512), "logits.bias": torch.zeros(3)}
    torch.save({**state, **classes}, tmp_path / "vggface2.pt")
    loaded = load_network(tmp_path / "vggface2.pt")
    assert loaded.name == "inception_resnet_v1" and same_bits(loaded.backbone, backbone)
    assert (loaded.card.preprocess.crop, loaded.card.dimension) == ("margin_output", 512)
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save(parallel, tmp_path / "parallel.pt")
    other = build_backbone("inception_resnet_v1")
    load_weights(other, tmp_path / "parallel.pt")
    assert same_bits(other, backbone)
    with pytest.raises(ModelFileError, match="logits.bias and 1 more are not in the network"):
        load_weights(other, tmp_path / "vggface2.pt")
    for network in (small(), build_backbone("inception_resnet_v1", FacenetSettings(128))):
        with pytest.raises(SettingsError, match="with 512 values; got"):
            to_facenet_pytorch(network)


@pytest.fixture
def folder(tmp_path):
    """A run with weights `last`."""
    run_folder = tmp_path / "my run"
    run_folder.mkdir()
    (run_folder / "run.json").write_text(json.dumps(FACTS))
    save_checkpoint(run_folder / "last", {"model": small().state_dict()}, {"step": 3})
    return run_folder


def test_a_run_is_read_with_its_best_weights(folder):
    assert same_bits(load_network(folder).backbone, small())
    assert load_network(folder).card.name == "my-run" and read_run(folder).which == "last"
    save_checkpoint(folder / "best", {"model": small(1).state_dict()}, {"step": 2})
    assert same_bits(load_network(folder).backbone, small(1)) and read_run(folder).which == "best"
    (folder / "best").rename(folder / "best.old")  # a save was killed between its two renames
    assert read_run(folder).which == "best" and read_run(folder, "last").which == "last"


def test_runs_that_are_none_or_damaged_are_told(folder, tmp_path):
    with pytest.raises(SettingsError, match="which should be best or last; got 'third'"):
        read_run(folder, "third")
    with pytest.raises(DataError, match="should hold the weights best; it holds none yet"):
        read_run(folder, "best")
    with pytest.raises(DataError, match="should be the folder of a run of facenet train"):
        load_network(tmp_path)
    weights = folder / "last" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + b"\0\0\0\1")
    with pytest.raises(DigestError, match="Take the other checkpoint"):
        load_network(folder)
    weights.write_bytes(whole)
    for change, words in (
        ({"backbone": "smalnet"}, "Did you mean smallnet"),
        ({"backbone_settings": {"embedding_size": 9, "width": 4, "input_size": 32}}, "linear.weig"),
        ({"preprocess": {"width": 32}}, "is incomplete"),
        ({"licence": None}, "is no model card"),
    ):
        (folder / "run.json").write_text(json.dumps({**FACTS, **change}))
        with pytest.raises((SettingsError, ModelFileError), match=words):
            load_network(folder)
    (folder / "run.json").write_text(json.dumps({"backbone": "smallnet"}))
    with pytest.raises(ModelFileError, match="'backbone_settings' is missing or of no use"):
        load_network(folder)


def test_files_that_hold_no_weights_of_this_network_are_told(tmp_path, home):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"not tensors")
    with pytest.raises(ModelFileError, match=r"x\.safetensors should be a safetensors file"):
        load_weights(small(), path)
    (tmp_path / "x.pt").write_bytes(b"not tensors")
    with pytest.raises(ModelFileError, match=r"x\.pt: expected a torch state dict"):
        load_weights(small(), tmp_path / "x.pt")
    with pytest.raises(StorageError, match=r"Cannot read .*missing\.pt"):
        load_weights(small(), tmp_path / "missing.pt")
    save_weights(small(), path)
    backbone = build_backbone("smallnet", SmallNetSettings(9, 4, 32))
    with pytest.raises(ModelFileError, match=r"linear\.weight is 8 x 32, not 9 x 32\. They are"):
        load_into(backbone, path)
    with pytest.raises(ModelFileError, match="are missing"):
        load_into(build_backbone("mobilefacenet"), path)
    with pytest.raises(UnknownModelError, match="Did you mean mobilefacenet"):
        load_backbone("mobilefacenet2")
    with pytest.raises(ModelError, match="`facenet models pull facenet-casia-webface`"):
        load_backbone("casia-webface")
    with pytest.raises(ModelFileError, match="'licence' is missing or of no use"):
        save_weights(small(), path, {k: v for k, v in FACTS.items() if k != "licence"})


def test_a_full_disk_leaves_the_weights_that_were_there(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(small(), path)
    kept = path.read_bytes()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="Cannot write"):
        save_weights(small(1), tmp_path / "file" / "w.safetensors")
    if Path("/dev/full").exists():
        (tmp_path / f"w.safetensors.{__import__('os').getpid()}.part").symlink_to("/dev/full")
        with pytest.raises(StorageError, match="No space left on device"):
            save_weights(small(1), path)
    assert path.read_bytes() == kept and set(BACKBONES) >= {"mobilefacenet_tf", "smallnet"}
