"""MXNet's files against MXNet itself: two small networks it saved and ran."""

import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from small_nets import run

from facenet.errors import ModelFileError, StorageError
from facenet.models.convert.insightface import NORMALISED, recognise
from facenet.models.convert.mxnet import convert_mxnet, find_pair
from facenet.models.convert.mxnetfile import read_params

GOLDEN = Path(__file__).resolve().parents[1] / "golden/mxnet_networks.npz"
NETS = ("lresnet", "mobile")


@pytest.fixture(scope="module")
def golden():
    """Symbol, parameters and answer of each network, and the pictures."""
    stored = np.load(GOLDEN)
    shape = (2, 3, 112, 112)
    images = np.random.default_rng(int(stored["seed"])).integers(0, 256, shape)
    files = {
        net: (stored[f"{net}_symbol"].tobytes(), stored[f"{net}_params"].tobytes()) for net in NETS
    }
    return files, images.astype(np.float32), {net: stored[f"{net}_output"] for net in NETS}


@pytest.mark.parametrize("net", NETS)
def test_the_answer_is_that_of_mxnet(golden, net):
    files, images, outputs = golden
    graph = convert_mxnet(*files[net])
    expected = outputs[net]
    got = run(graph, images)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    assert convert_mxnet(*files[net]) == graph


def changed(files, change):
    """The files with their nodes changed: a function of name -> node."""
    tree = json.loads(files[0])
    change({node["name"]: node for node in tree["nodes"]})
    return json.dumps(tree).encode(), files[1]


@pytest.mark.parametrize("key", ["attr", "param"])
def test_symbols_of_older_versions_mean_the_same(golden, key):
    files = golden[0]["lresnet"]

    def rename(nodes):
        for node in nodes.values():
            node[key] = node.pop("attrs", {})

    assert convert_mxnet(*changed(files, rename)) == convert_mxnet(*files)


def test_the_vector_is_taken_where_training_went_on(golden):
    """A file of a training run ends with the class layer; the vector is before it."""
    files = golden[0]["mobile"]
    tree = json.loads(files[0])
    last = len(tree["nodes"])
    tree["nodes"] += [
        {"op": "null", "name": "label", "inputs": []},
        {"op": "SoftmaxOutput", "name": "softmax", "inputs": [[last - 1, 0, 0], [last, 0, 0]]},
    ]
    tree["heads"] = [[last + 1, 0, 0]]
    assert convert_mxnet(json.dumps(tree).encode(), files[1]) == convert_mxnet(*files)


def test_a_converted_recogniser_is_known_to_standardise_itself(golden):
    files = golden[0]["mobile"]
    weights = read_params(files[1])
    wide = np.tile(weights.pop("fc1_weight"), (8, 1))
    found = recognise(convert_mxnet(files[0], saved({**weights, "fc1_weight": wide})))
    assert (found.role, found.dimension, found.standardise) == ("embedder", 160, NORMALISED)


# The file of parameters


def saved(arrays, *, layout="V2", names=None, kinds=None):
    """A file as MXNet's NDArray::Save writes it, in one of its three layouts."""
    kinds = kinds or {"<f4": 0, "<f8": 1, "<f2": 2, "|u1": 3, "<i4": 4, "|i1": 5, "<i8": 6}
    parts = [struct.pack("<QQQ", 0x112, 0, len(arrays))]
    for values in arrays.values():
        start = {"V2": struct.pack("<Ii", 0xF993FAC9, 0), "V1": struct.pack("<I", 0xF993FAC8)}
        parts.append(start.get(layout, b"") + struct.pack("<I", values.ndim))
        parts.append(struct.pack(f"<{values.ndim}{'I' if layout == 'V0' else 'q'}", *values.shape))
        parts.append(struct.pack("<iii", 1, 0, kinds[values.dtype.str]) + values.tobytes())
    names = [f"arg:{name}" for name in arrays] if names is None else names
    parts.append(struct.pack("<Q", len(names)))
    parts += [struct.pack("<Q", len(name)) + name.encode() for name in names]
    return b"".join(parts)


ARRAYS = {
    "a": np.arange(6, dtype="<f4").reshape(1, 2, 3),
    "b": np.array([1, -2], "<i8"),
    "c": np.array([[7]], "|u1"),
    "d": np.array([0.5], "<f2"),
    "e": np.zeros((0, 3), "<f8"),
}


def test_every_layout_and_type_is_read(golden):
    for layout in ("V2", "V1", "V0"):
        got = read_params(saved(ARRAYS, layout=layout))
        assert list(got) == list(ARRAYS)
        for name, values in ARRAYS.items():
            assert got[name].dtype == values.dtype
            np.testing.assert_array_equal(got[name], values)
            assert not got[name].flags.writeable
    genuine = read_params(golden[0]["lresnet"][1])
    assert genuine["stage1_unit1_conv1_weight"].shape == (6, 6, 3, 3)
    assert genuine["bn0_moving_var"].shape == (6,)
    again = read_params(saved(genuine))
    assert all(np.array_equal(again[name], genuine[name]) for name in genuine)


ONE = {"a": np.ones(3, "<f4")}
HEAD = struct.pack("<QQQ", 0x112, 0, 1)
BAD_PARAMS = {
    "page": (b"<html>" * 9, "bytes of another kind"),
    "empty": (b"", "bytes of another kind"),
    "nothing": (saved({}), "0 arrays with 0 names"),
    "names": (saved(ONE, names=[]), "1 arrays with 0 names"),
    "same": (saved({"a": ONE["a"], "b": ONE["a"]}, names=["arg:a", "aux:a"]), "2 arrays with 1 na"),
    "many": (struct.pack("<QQQ", 0x112, 0, 1 << 60), "a count of 1,152,921,504,606,846,976"),
    "sparse": (HEAD + struct.pack("<Ii", 0xF993FAC9, 1), "an array that is sparse"),
    "scalar": (HEAD + struct.pack("<IiI", 0xF993FAC9, 0, 0), "without a shape, or of an unknown"),
    "layout": (HEAD + struct.pack("<I", 0xF993FACA), "without a shape, or of an unknown layout"),
    "axes": (HEAD + struct.pack("<IiI", 0xF993FAC9, 0, 9), "a count of 9 where at most 8"),
    "type": (saved(ONE, kinds={"<f4": 12}), r"an array of the type 12 and the shape \(3,\)"),
    "negative": (HEAD + struct.pack("<IiIqiii", 0xF993FAC9, 0, 1, -3, 1, 0, 0), r"shape \(-3,\)"),
    "long": (HEAD + struct.pack("<IiIqiii", 0xF993FAC9, 0, 1, 1 << 62, 1, 0, 0), "longer than the"),
    "name": (saved(ONE)[:-5] + b"\xff\xfe\xff\xfe\xff", "damaged parts, or it is cut short"),
}


@pytest.mark.parametrize(("data", "message"), BAD_PARAMS.values(), ids=BAD_PARAMS)
def test_what_is_no_parameter_file_is_refused(data, message):
    with pytest.raises(ModelFileError, match=f"^expected a parameter file of MXNet .*{message}"):
        read_params(data)


def test_every_prefix_and_random_damage_is_read_or_refused(golden):
    data = saved(ARRAYS)
    for end in range(len(data)):
        with pytest.raises(ModelFileError):
            read_params(data[:end])
    symbol, params = golden[0]["mobile"]
    chance, refused = random.Random(3), 0
    for _ in range(200):
        broken, text = bytearray(params), bytearray(symbol)
        broken[chance.randrange(300)] = chance.randrange(256)
        text[chance.randrange(len(text))] = chance.randrange(256)
        for files in ((bytes(text), params), (symbol, bytes(broken))):
            try:
                convert_mxnet(*files)
            except ModelFileError as error:
                assert len(str(error)) < 500
                refused += 1
    assert refused > 100


# The network


def with_attr(name, **attrs):
    return lambda nodes: nodes[name].setdefault("attrs", {}).update(attrs)


def with_op(name, op):
    return lambda nodes: nodes[name].update(op=op)


def with_inputs(name, inputs):
    return lambda nodes: nodes[name].update(inputs=inputs)


BAD_NODES = {
    "operator": (with_op("tanh", "Custom"), "the operator 'Custom', which no recogniser"),
    "activation": (with_attr("tanh", act_type="softsign"), "the activation 'softsign'"),
    "leaky": (with_attr("conv_1_relu", act_type="rrelu"), "the activation 'rrelu'"),
    "pool": (with_attr("pool", pool_type="lp"), "a pool of an unusual kind"),
    "full": (with_attr("pool", pooling_convention="full"), "a pool of an unusual kind"),
    "stride": (with_attr("pool", stride="(2, 2, 2)"), "no height and width as stride of 'pool'"),
    "code": (with_attr("pool", kernel="__import__('os')"), "no height and width as kernel of 'poo"),
    "eps": (with_attr("conv_1_bn", eps="small"), "no number as eps of 'conv_1_bn'"),
    "infinite": (with_attr("conv_1_bn", eps="-2"), "weights that are not finite"),
    "missing": (lambda n: n["fc1_weight"].update(name="gone"), "no weights for 'gone'"),
    "swapped": (with_inputs("fc1", [[0, 0, 0], [1, 0, 0]]), "where real numbers along 2 axes bel"),
    "short": (with_inputs("fc1", [[2, 0, 0]]), "none as '.', where real numbers"),
    "circle": (with_inputs("id", [[5, 0, 0]]), "nodes in a circle, or one that takes another's"),
    "second": (with_inputs("fc1", [[2, 1, 0]]), "takes another's second output"),
    "alone": (with_inputs("tanh", []), "'tanh' without a picture or a vector to work on"),
    "map": (lambda n: n["tanh"].update(name="fc1") or n["fc1"].update(name="x"), "no picture that"),
    "two": (lambda n: n["tanh"].update(name="fc1"), "1 outputs and none named fc1"),
}


@pytest.mark.parametrize(("change", "message"), BAD_NODES.values(), ids=BAD_NODES)
def test_another_network_is_refused_in_one_sentence(golden, change, message):
    with pytest.raises(ModelFileError, match=f"^expected a recogniser of MXNet .*{message}") as e:
        convert_mxnet(*changed(golden[0]["mobile"], change))
    assert len(str(e.value)) < 330


@pytest.mark.parametrize(
    "symbol", [b"", b"[]", b"{}", b"[" * 99_999, b'{"nodes": [3], "heads": []}', b"\xff\xfe"]
)
def test_a_symbol_that_is_none_is_refused(golden, symbol):
    with pytest.raises(ModelFileError, match="^expected a recogniser of MXNet .*damaged nodes"):
        convert_mxnet(symbol, golden[0]["mobile"][1])


# Two files are one model


def test_the_other_file_is_found(tmp_path):
    symbol = tmp_path / "model-symbol.json"
    first, last = (tmp_path / f"model-{epoch}.params" for epoch in ("0000", "0012"))
    for path in (symbol, first, last, tmp_path / "model-large.params"):
        path.touch()
    assert find_pair(symbol) == find_pair(tmp_path) == find_pair(last) == (symbol, last)
    assert find_pair(first) == (symbol, first)
    assert find_pair(tmp_path / "card.json") is None
    (tmp_path / "other-symbol.json").touch()
    with pytest.raises(ModelFileError, match="one network of MXNet, but it holds 2; give one of"):
        find_pair(tmp_path)
    (tmp_path / "empty").mkdir()
    assert find_pair(tmp_path / "empty") is None


def test_half_a_network_is_told(tmp_path):
    half = tmp_path / "a-symbol.json"
    half.touch()
    with pytest.raises(ModelFileError, match=r"half a network of MXNet; a-0000\.params should be"):
        find_pair(half)
    alone = tmp_path / "b-0007.params"
    alone.touch()
    with pytest.raises(ModelFileError, match=r"half a network of MXNet; b-symbol\.json should be"):
        find_pair(alone)
    with pytest.raises(StorageError, match="Cannot read the folder"):
        find_pair(tmp_path / "gone" / "c-symbol.json")
