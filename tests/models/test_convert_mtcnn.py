"""MTCNN's files of weights: the published ones, and those written here from the built-in graphs."""

import hashlib
import io
import os
import random
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch_maker import Raw, call, contiguous, legacy, name, value, zipped

from facenet.errors import ModelFileError
from facenet.models.convert.mtcnn import LAYERS, convert_mtcnn, read_mtcnn, which_mtcnn
from facenet.models.convert.numpyfile import read_layers

WEIGHTS = Path(__file__).resolve().parents[2] / "src/facenet/models/weights"
NETS = ("pnet", "rnet", "onet")
HEADS = {"pnet": "conv4", "rnet": "dense5", "onet": "dense6"}
DIGESTS = {
    "det1.npy": "3285cf7a3de2651c5784cb9e32013f5919aae95fd1ed1bc371dd9691affb39af",
    "det2.npy": "716b8b83e42476791c9096f14dbb09fefc88bf5c7ec876b1683f9acd52b3f39c",
    "det3.npy": "396ead803d85d3443307ff8f45fb6aed2536579b415a4f4d4cb8f93ea6b1476a",
}


def built_in(net):
    return (WEIGHTS / f"{net}.onnx").read_bytes()


# The published files


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Members of two wheels by path: in the folder FACENET_TEST_WHEELS, or fetched with pip."""
    folder = os.environ.get("FACENET_TEST_WHEELS")
    if not folder:
        folder = tmp_path_factory.mktemp("wheels")
        wanted = ["facenet==1.0.5", "facenet-pytorch==2.6.0"]
        options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--dest", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, *wanted], check=True)
    members = {}
    for pattern in ("facenet-1.0.5-*.whl", "facenet_pytorch-2.6.0-*.whl"):
        (file,) = Path(folder).glob(pattern)
        with zipfile.ZipFile(file) as wheel:
            names = [n for n in wheel.namelist() if n.endswith((".npy", ".pt"))]
            members |= {n: wheel.read(n) for n in names}
    return members


@pytest.mark.parametrize("number", [1, 2, 3])
def test_facenets_files_are_facenet_pytorchs_and_the_built_in_ones(wheels, number):
    net, det = NETS[number - 1], f"facenet/src/align/det{number}.npy"
    assert hashlib.sha256(wheels[det]).hexdigest() == DIGESTS[f"det{number}.npy"]
    (old_net, old), (new_net, new) = map(
        read_mtcnn, (wheels[det], wheels[f"facenet_pytorch/data/{net}.pt"])
    )
    assert old_net == new_net == net
    assert set(old) == set(new)
    assert all(np.array_equal(old[layer], new[layer]) for layer in new)
    assert {array.dtype for array in [*old.values(), *new.values()]} == {np.dtype(np.float32)}
    assert convert_mtcnn(wheels[det]) == (net, built_in(net))
    assert which_mtcnn(new) == net


# The same weights, read back from the built-in graphs and written in every form


def stored(net):
    """The state dict a built-in graph comes from, but for the logits: background is zero."""
    constants = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(built_in(net)).graph.initializer
    }
    state = {}
    for layer, shape in LAYERS[net].items():
        if not layer.startswith(HEADS[net]):
            weight = constants[f"{layer}.weight"]
            if len(shape) == 2:  # columns: channel, row, column -> column, row, channel
                channels = {"rnet": 64, "onet": 128}[net]
                weight = weight.reshape(shape[0], channels, 3, 3).transpose(0, 3, 2, 1)
            state[f"{layer}.weight"] = weight.reshape(shape).copy()
            state[f"{layer}.bias"] = constants[f"{layer}.bias"]
            state[f"prelu{layer[-1]}.weight"] = constants[f"prelu{layer[-1]}.slope"].reshape(-1)
    for part in ("weight", "bias"):
        rows = constants[f"heads.{part}"]
        zero = np.zeros_like(rows[:1])
        cuts = {1: np.concatenate([zero, rows[:1]]), 2: rows[1:5], 3: rows[5:]}
        for number in range(1, 4 if net == "onet" else 3):
            state[f"{HEADS[net]}_{number}.{part}"] = cuts[number].copy()
    return state


def tree_of(state, net):
    """facenet's two levels of names, and the axes in its order."""
    tree = {}
    for key, values in state.items():
        layer, part = key.split(".")
        slope = layer.startswith("prelu")
        old = layer.replace("dense", "conv").replace("_", "-")
        if slope and net == "pnet":
            old = old.replace("prelu", "PReLU")
        variable = "alpha" if slope else {"weight": "weights", "bias": "biases"}[part]
        tree.setdefault(old, {})[variable] = values.T
    return tree


def header(text=b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"):
    body = text + b" " * (70 - len(text) - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body)) + body


def old_text(content):
    """A string of Python 2."""
    if len(content) < 256:
        return Raw(b"U" + bytes([len(content)]) + content)
    return Raw(b"T" + struct.pack("<I", len(content)) + content)


def old_dtype(code="f4", order=b"<"):
    made = call("numpy.dtype", old_text(code.encode()), 0, 1)
    state = (3, old_text(order), None, None, None, -1, -1, 0)
    return Raw(made + value(state) + b"b")


def old_array(shape, content, *, dtype=None, columns=False):
    made = call("numpy.core.multiarray._reconstruct", name("numpy.ndarray"), (0,), old_text(b"b"))
    return Raw(made + value((1, shape, dtype or old_dtype(), columns, content)) + b"b")


def old_values(array):
    """An array as Python 2 pickles it, by columns where its memory lies so."""
    columns = array.flags.f_contiguous and not array.flags.c_contiguous
    content = array.tobytes("F" if columns else "C")
    return old_array(array.shape, old_text(content), columns=columns)


def old_file(tree, *, shape=(), items=None):
    content = {
        layer: {old_text(key.encode()): old_values(a) for key, a in variables.items()}
        for layer, variables in tree.items()
    }
    objects = [content] if items is None else items
    array = old_array(shape, objects, dtype=old_dtype("O8", b"|"))
    return header() + b"\x80\x02" + array + b"."


def new_file(tree):
    """As np.save writes it today."""
    stream = io.BytesIO()
    np.save(stream, np.array(tree, dtype=object), allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize("net", NETS)
def test_every_form_becomes_the_built_in_graph_byte_for_byte(net):
    state = stored(net)
    tree = tree_of(state, net)
    turned = dict(reversed(tree.items()))
    keys = {name: str(number) for number, name in enumerate(state)}
    entries = {name: contiguous(keys[name], a) for name, a in state.items()}
    arrays = {keys[name]: a for name, a in state.items()}
    files = [zipped(entries, arrays), legacy(entries, arrays), old_file(tree), new_file(turned)]
    files += [new_file({k: {v: a.astype("f8") for v, a in d.items()} for k, d in tree.items()})]
    for data in files:
        assert convert_mtcnn(data) == (net, built_in(net))


def test_arrays_by_rows_and_by_columns_are_read():
    rows = np.arange(24, dtype="<f4").reshape(2, 3, 4)
    tree = {"a": {"x": rows, "y": rows.T, "z": np.array(3, "<f8"), "half": rows[:0].astype("<f2")}}
    for data in (new_file(tree), old_file({"a": {"x": rows, "y": rows.T}})):
        for key, values in read_layers(data).items():
            expected = tree["a"][key[2:]]
            assert (values.dtype, values.shape) == (expected.dtype, expected.shape)
            np.testing.assert_array_equal(values, expected)
            assert not values.flags.writeable


def test_a_program_for_python_2_written_by_python_3_is_read():
    text = Raw(b"X\x05\x00\x00\x00\x00\x00\xc2\x80?")
    content = call("_codecs.encode", text, "latin1")
    tree = {"a": {"x": old_array((1,), content)}}
    array = old_array((), [tree], dtype=old_dtype("O8", b"|"))
    assert read_layers(header() + b"\x80\x02" + array + b".")["a/x"].tolist() == [1.0]


# What is no such file


def changed(net, **changes):
    state = stored(net)
    for key, values in changes.items():
        key = key.replace("__", ".")
        state = {k: v for k, v in state.items() if k != key}
        if values is not None:
            state[key] = values
    return state


def as_torch(state):
    keys = {name: str(number) for number, name in enumerate(state)}
    entries = {name: contiguous(keys[name], a) for name, a in state.items()}
    return zipped(entries, {keys[name]: a for name, a in state.items()})


BAD_WEIGHTS = {
    "missing": (changed("rnet", dense5_1__bias=None), "MTCNN's R-net, but 'dense5_1.bias' is miss"),
    "slope": (changed("onet", prelu5__weight=None), "MTCNN's O-net, but 'prelu5.weight' is missin"),
    "shape": (
        changed("pnet", conv1__bias=np.ones(9, "<f4")),
        r"\(10,\), but it is float32 of \(9,",
    ),
    "whole": (changed("pnet", conv1__bias=np.ones(10, "<i4")), r"\(10,\), but it is int32 of \(10"),
    "extra": (
        changed("pnet", conv9__bias=np.ones(9, "<f4")),
        "there is also 'conv9.bias'; this is",
    ),
    "nan": (
        changed("pnet", conv1__bias=np.full(10, np.nan, "<f4")),
        "finite weights, but those of",
    ),
    "other": ({"layer1.weight": np.ones(3, "<f4")}, "is missing; the file is damaged or of anothe"),
}


@pytest.mark.parametrize(("state", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_another_network_is_refused_in_one_sentence(state, message):
    with pytest.raises(ModelFileError, match=f"^expected .*{message}") as failure:
        convert_mtcnn(as_torch(state))
    assert len(str(failure.value)) < 220


def test_a_state_dict_is_known_by_all_its_weights():
    states = {net: stored(net) for net in NETS}
    assert [which_mtcnn(state) for state in states.values()] == list(NETS)
    assert which_mtcnn(changed("rnet", dense5_1__bias=None)) is None


def test_a_layer_missing_in_facenets_form_is_told():
    tree = tree_of(stored("onet"), "onet")
    del tree["conv6-3"]["biases"]
    with pytest.raises(ModelFileError, match=r"MTCNN's O-net, but 'dense6_3\.bias' is missing"):
        convert_mtcnn(old_file(tree))


ONE = {"a": {"x": np.ones(3, "<f4")}}
HELD = old_text(np.ones(3, "<f4").tobytes())


def holding(values):
    """A file whose one variable is this value."""
    array = old_array((), [{"a": {"x": values}}], dtype=old_dtype("O8", b"|"))
    return header() + b"\x80\x02" + array + b"."


def plain(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


BAD_FILES = {
    "page": (b"<html>" * 20, "bytes of another kind"),
    "header": (b"\x93NUMPY\x09\x00", "a header of an unknown version"),
    "cut header": (old_file(ONE)[:40], "a header that is cut short or too long"),
    "code header": (
        header(b"{'descr': __import__('os'), }"),
        "an array of plain numbers or of sev",
    ),
    "numbers": (plain(np.ones(4)), "an array of plain numbers or of several objects"),
    "objects": (plain(np.array([{}, {}], object)), "an array of plain numbers or of several obj"),
    "list": (plain(np.array(None, object)), "in place of the layers"),
    "two": (old_file(ONE, shape=(2,), items=[1, 2]), "another array than one of layers"),
    "nothing": (new_file({}), "no layers"),
    "number": (new_file({"a": 3}), "int in place of the variables of a layer"),
    "text": (new_file({"a": {"x": "y"}}), "str in place of the values of a variable"),
    "whole": (
        holding(old_array((3,), HELD, dtype=old_dtype("i4"))),
        "the type 'i4', not real numb",
    ),
    "big-endian": (holding(old_array((3,), HELD, dtype=old_dtype("f4", b">"))), "big-endian order"),
    "short": (holding(old_array((4,), HELD)), r"shape \(4,\) with other values"),
    "huge": (holding(old_array((1 << 40,), HELD)), "an impossible shape"),
    "negative": (holding(old_array((-3,), HELD)), "an impossible shape"),
    "axes": (holding(old_array((1,) * 9 + (3,), HELD)), "an impossible shape"),
    "object": (holding(old_array((1,), [3], dtype=old_dtype("O8"))), "list in place of the values"),
    "called": (holding(call("os.system", "touch x")), "a call of os.system, which is refused"),
    "memmap": (
        holding(call("numpy.core.multiarray._reconstruct", name("numpy.dtype"), (0,), "b")),
        "an unusual kind of NumPy array",
    ),
    "coded": (holding(call("_codecs.encode", "x", "rot13")), "bytes in an unusual form"),
}


@pytest.mark.parametrize(("data", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_what_is_no_file_of_layers_is_refused_in_one_sentence(data, message):
    with pytest.raises(
        ModelFileError, match=f"^expected a NumPy file of layers.*{message}.*; take the file"
    ) as failure:
        read_layers(data)
    assert len(str(failure.value)) < 260


def test_every_prefix_and_random_damage_is_read_or_refused():
    data = old_file(tree_of(stored("pnet"), "pnet"))
    for end in [*range(8, 400), *range(400, len(data), 501)]:
        with pytest.raises(ModelFileError, match="expected a NumPy file of layers"):
            read_layers(data[:end])
    chance, refused = random.Random(5), 0
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[chance.randrange(8, 900)] = chance.randrange(256)
        try:
            convert_mtcnn(bytes(damaged))
        except ModelFileError as error:
            assert len(str(error)) < 400
            refused += 1
    assert refused > 100
