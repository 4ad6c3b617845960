"""facenet-pytorch's state dicts against facenet-pytorch itself, with weights drawn from a seed."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from small_nets import run
from torch_maker import Raw, contiguous, legacy, zipped

from facenet.errors import ModelFileError
from facenet.models.convert.facenet_pytorch import (
    convert_state_dict,
    is_facenet_pytorch,
    read_network,
)
from facenet.models.convert.inception_resnet_v1 import inception_resnet_v1
from facenet.models.convert.torchfile import read_state_dict

GOLDEN = Path(__file__).resolve().parents[1] / "golden/facenet_pytorch_inception.npz"


def draw(seed, name, shape, row):
    """As in scripts/golden/facenet_pytorch_inception.py, which ran the network with these."""
    random = np.random.default_rng([seed, row])
    if name.endswith("running_var"):
        values = random.uniform(0.5, 1.5, shape)
    elif name.endswith(("bn.weight", "last_bn.weight")):
        values = random.uniform(0.7, 1.3, shape)
    elif len(shape) == 1:
        values = random.uniform(-0.2, 0.2, shape)
    else:
        reach = np.sqrt(4.5 / np.prod(shape[1:]))
        values = random.uniform(-reach, reach, shape)
    return values.astype(np.float32)


def saved(state, write=zipped):
    """A `.pt` file; entries that are no arrays go in as they are."""
    arrays = {name: a for name, a in state.items() if isinstance(a, np.ndarray)}
    keys = {name: str(number) for number, name in enumerate(arrays)}
    tree = {name: contiguous(keys[name], a) if name in arrays else a for name, a in state.items()}
    return write(tree, {keys[name]: a for name, a in arrays.items()})


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


@pytest.fixture(scope="module")
def state(golden):
    """The state dict of the network with a class layer of seven people."""
    return {
        str(name): draw(int(golden["seed"]), str(name), tuple(s for s in shape if s), row)
        for row, (name, shape) in enumerate(zip(golden["names"], golden["shapes"], strict=True))
    }


@pytest.fixture(scope="module")
def headless(state):
    return {name: values for name, values in state.items() if not name.startswith("logits")}


@pytest.fixture(scope="module")
def graph(headless):
    return convert_state_dict(saved(headless))


def test_vectors_are_those_of_facenet_pytorch(graph, golden):
    random = np.random.default_rng(int(golden["seed"]))
    got = run(graph, random.uniform(-1, 1, (2, 3, 160, 160)).astype(np.float32))
    expected = golden["prelogits"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    unit = got / np.linalg.norm(got, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, golden["vectors"], rtol=0, atol=1e-5)
    assert expected.std() > 0.1


def test_the_class_layer_is_counted_and_left_out(graph, state, headless):
    with_head, without = read_network(state), read_network(headless)
    assert (with_head.classes, without.classes) == (7, None)
    assert (with_head.dimension, without.dimension) == (512, 512)
    assert convert_state_dict(saved(state)) == graph
    ends = onnx.load_from_string(graph).graph
    assert [end.name for end in [*ends.input, *ends.output]] == ["image", "embedding"]


def test_counters_older_files_and_parallel_training_change_nothing(graph, headless):
    counted = {**headless, "conv2d_1a.bn.num_batches_tracked": np.array(9, "<i8")}
    assert convert_state_dict(saved(counted, legacy)) == graph
    parallel = {f"module.{name}": values for name, values in headless.items()}
    assert convert_state_dict(saved(parallel)) == graph
    assert convert_state_dict(saved(dict(reversed(headless.items())))) == graph
    assert is_facenet_pytorch(counted)
    assert is_facenet_pytorch(parallel)
    assert not is_facenet_pytorch({"conv1.weight": headless["block8.conv2d.bias"]})


def without(name):
    return lambda state: {key: values for key, values in state.items() if key != name}


def but(name, values):
    return lambda state: {**state, name: values}


ONES = np.ones(32, np.float32)
BAD_STATES = {
    "first layer": (without("conv2d_1a.conv.weight"), "'conv2d_1a.conv.weight' is missing"),
    "a branch": (without("repeat_2.9.branch1.2.bn.bias"), "'repeat_2.9.branch1.2.bn.bias' is mis"),
    "last": (without("last_bn.running_var"), "'last_bn.running_var' is missing; the file is dam"),
    "resnet": (lambda _: {"layer1.0.conv1.weight": ONES}, "'conv2d_1a.conv.weight' is missing"),
    "extra": (but("layer4.2.bn3.bias", ONES), "there is also 'layer4.2.bn3.bias'; this is anot"),
    "axes": (but("conv2d_1a.conv.weight", ONES), r"along 4 axes, but it is float32 of the shape"),
    "whole": (but("conv2d_1a.bn.bias", np.ones(32, np.int64)), "along 1 axes, but it is int64"),
    "wide": (but("conv2d_1a.bn.weight", np.ones(31, np.float32)), r"shape \(32,\), but it is \(31"),
    "kernel": (
        but("conv2d_2a.conv.weight", np.ones((32, 32, 3, 1), np.float32)),
        r"shape \(3, 3, 32, 32\), but it is \(3, 1, 32, 32\); this is another network",
    ),
    "infinite": (but("last_bn.weight", np.full(512, np.inf, np.float32)), "finite weights, but"),
    "negative": (but("last_bn.running_var", np.full(512, -1, np.float32)), "finite weights, but"),
    "classes": (but("logits.bias", np.ones(8, np.float32)), "a class layer of 8 x 512.*is 7 x 512"),
    "no bias": (without("logits.bias"), "'logits.bias' is missing"),
}


@pytest.mark.parametrize(("change", "message"), BAD_STATES.values(), ids=BAD_STATES)
def test_another_network_is_refused_in_one_sentence(state, change, message):
    with pytest.raises(ModelFileError, match=f"^expected .*(?:{message})") as failure:
        inception_resnet_v1(read_network(change(state)).weights)
    assert len(str(failure.value)) < 260
    assert ". " not in str(failure.value)


def test_what_is_no_tensor_is_refused_and_not_run(headless):
    few = dict(list(headless.items())[:3])
    noted = saved({**few, "epoch": 3})
    with pytest.raises(ModelFileError, match="an entry 'epoch' that is no tensor; save the netw"):
        convert_state_dict(noted)
    network = Raw(b"cfacenet_pytorch.models.inception_resnet_v1\nInceptionResnetV1\n)R")
    for write in (zipped, legacy):
        with pytest.raises(ModelFileError, match=r"a call of facenet_pytorch\.models\.inception"):
            convert_state_dict(write(network, {}))


def test_a_file_cut_short_is_told_wherever_it_ends(headless):
    few = dict(list(headless.items())[:6])
    for write in (zipped, legacy):
        data = saved(few, write)
        for end in range(0, len(data) - 1, 997):
            with pytest.raises(ModelFileError, match="expected a torch state dict file"):
                convert_state_dict(data[:end])
    assert list(read_state_dict(data)) == list(few)
