import collections
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from graph_maker import (
    BOOL,
    FLOAT,
    attr,
    block,
    const,
    graph,
    node,
    number,
    picture,
    raw_node,
    real,
    shape,
    tensor,
    varint,
)

from facenet.errors import ModelFileError
from facenet.models.convert.graphdef import MAX_NODES, DType, Opaque, Shape, read_graph_def

GOLDEN = Path(__file__).resolve().parents[1] / "golden/tensorflow_graphs.npz"


def read_value(encoded):
    """The ``value`` attribute of a graph's only node, given as an encoded TensorProto."""
    data = raw_node("c", "Const", attrs={"value": block(8, encoded)})
    return read_graph_def(data)["c"].attrs["value"]


def test_names_operators_and_inputs_are_kept_in_order():
    nodes = read_graph_def(graph(picture(), node("b", "Add", "input:0", "a:2", "^c")))
    assert list(nodes) == ["input", "b"]
    assert nodes["b"].op == "Add"
    assert nodes["b"].inputs == ("input:0", "a:2", "^c")


@pytest.mark.parametrize(
    "value",
    [7, -3, True, False, 0.25, b"NHWC", FLOAT, BOOL, Shape((None, 160, 3)), Shape(())],
)
def test_scalar_attributes_come_back(value):
    got = read_graph_def(node("n", "Op", key=value))["n"].attrs["key"]
    assert got == value
    assert type(got) is type(value)


def test_a_shape_of_unknown_rank_is_told_from_a_scalar():
    nodes = read_graph_def(node("n", "Op", key=Shape(None)))
    assert nodes["n"].attrs["key"] == Shape(None)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (number(3, 1) + number(3, -2), (1, -2)),
        (block(3, varint(1) + varint(300) + varint(-2)), (1, 300, -2)),
        (block(5, varint(1) + varint(0)), (True, False)),
        (block(4, struct.pack("<2f", 0.5, -2)), (0.5, -2.0)),
        (real(4, 0.5) + real(4, 2.0), (0.5, 2.0)),
        (block(2, b"a") + block(2, b"bc"), (b"a", b"bc")),
        (number(6, 1), (DType(1),)),
        (block(7, shape((2, None))), (Shape((2, None)),)),
        (block(8, tensor(np.zeros(2, "<f4"))), (Opaque("a list of tensors"),)),
        (b"", ()),
    ],
)
def test_list_attributes_single_and_packed(content, expected):
    nodes = read_graph_def(raw_node("n", "Op", attrs={"key": block(1, content)}))
    assert nodes["n"].attrs["key"] == expected


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i4", "|u1", "<i8", "|b1", "<f2"])
def test_tensor_content_is_read_for_every_element_type(dtype):
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    got = read_value(tensor(array))
    assert got.dtype == array.dtype
    assert not got.flags.writeable
    np.testing.assert_array_equal(got, array)


HALVES = np.array([1.5, -2], "<f2").view("<u2").tolist()


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (1, block(5, struct.pack("<3f", 1, 2, 3)), [1, 2, 3]),
        (1, real(5, 1) + real(5, 2) + real(5, 3), [1, 2, 3]),
        (1, real(5, 4), [4, 4, 4]),
        (1, b"", [0, 0, 0]),
        (1, block(5, struct.pack("<2f", 1, 2)), [1, 2, 2]),
        (2, block(6, struct.pack("<3d", 1, 2, 3)), [1, 2, 3]),
        (3, number(7, 5) + number(7, -1) + number(7, 7), [5, -1, 7]),
        (9, block(10, varint(1 << 40) + varint(-1)), [1 << 40, -1, -1]),
        (10, number(11, 1) + number(11, 0), [True, False, False]),
        (19, number(13, HALVES[0]) + number(13, HALVES[1]), [1.5, -2, -2]),
    ],
)
def test_value_fields_fill_up_with_their_last_number(dtype, values, expected):
    got = read_value(tensor(0, (3,), dtype=dtype, values=values))
    assert got.dtype == DType(dtype).numpy
    assert got.tolist() == expected


def test_scalars_have_no_axes():
    assert read_value(tensor(0, (), dtype=1, values=real(5, 0.17))).shape == ()


def test_text_tensors_are_opaque_and_harm_nobody():
    got = read_value(tensor(0, (1,), dtype=7, values=block(8, b"file.jpg")))
    assert isinstance(got, Opaque)


def test_unknown_fields_are_skipped():
    strange = varint(77 << 3 | 1) + b"12345678" + real(78, 1) + number(79, 3)
    data = strange + block(1, block(1, b"n") + block(2, b"Op") + strange) + block(2, b"library")
    assert list(read_graph_def(data)) == ["n"]


def test_the_casia_graph_is_read_whole(casia_graph):
    nodes = read_graph_def(casia_graph.read_bytes())
    counts = collections.Counter(item.op for item in nodes.values())
    expected = np.load(GOLDEN)["casia_ops"].tolist()
    assert sorted(f"{op}: {count}" for op, count in counts.items()) == sorted(expected)
    assert nodes["input"].attrs["shape"] == Shape((1, 160, 160, 3))
    kernel = nodes["InceptionResnetV1/Conv2d_1a_3x3/weights"].attrs["value"]
    assert kernel.shape == (3, 3, 3, 32)
    assert np.isfinite(kernel).all()


def fill(sizes):
    return tensor(0, sizes, dtype=1, values=real(5, 1))


HOSTILE = {
    "empty": b"",
    "no nodes": block(2, b""),
    "text": b"this is not a graph at all",
    "gzip": b"\x1f\x8b\x08\x00" + bytes(40),
    "length beyond the end": varint(1 << 3 | 2) + varint(1 << 50) + b"xx",
    "endless number": b"\x0a" + b"\xff" * 30,
    "number cut short": b"\x0a\xff",
    "group": varint(1 << 3 | 3) + b"\x0c",
    "field zero": b"\x02\x00",
    "repeated node": node("a", "Relu") + node("a", "Relu"),
    "no operator": raw_node("a", ""),
    "name that is a number": block(1, number(1, 5) + block(2, b"Op")),
    "name that is not text": block(1, block(1, b"\xff\xfe") + block(2, b"Op")),
    "huge name": raw_node("a" * 5000, "Op"),
    "attribute that is no message": block(1, block(1, b"a") + block(2, b"Op") + number(5, 3)),
    "huge filled tensor": raw_node("c", "Const", attrs={"v": block(8, fill((1 << 20, 1 << 20)))}),
    "tensor of 9 axes": raw_node("c", "Const", attrs={"v": block(8, fill((1,) * 9))}),
    "huge axis": raw_node("c", "Const", attrs={"v": block(8, fill((1 << 62, 1 << 62)))}),
    "free axis": raw_node("c", "Const", attrs={"v": block(8, fill((None, 3)))}),
    "short content": raw_node("c", "C", attrs={"v": block(8, tensor(np.zeros(3, "f4"), (4,)))}),
    "odd content": raw_node("c", "C", attrs={"v": block(8, number(1, 1) + block(4, b"abc"))}),
    "more values than elements": raw_node(
        "c", "C", attrs={"v": block(8, tensor(0, (1,), dtype=1, values=real(5, 1) + real(5, 2)))}
    ),
    "stretched values": raw_node(
        "c",
        "C",
        attrs={"v": block(8, tensor(0, (999,), dtype=1, values=block(5, bytes(8))))},
    ),
    "packed floats cut": raw_node("c", "C", attrs={"v": block(1, block(4, b"abc"))}),
    "float in a message": raw_node("c", "C", attrs={"v": block(8, number(5, 1))}),
    "message as an int": raw_node("c", "C", attrs={"v": block(3, b"abc")}),
    "many packed numbers": raw_node("c", "C", attrs={"v": block(1, block(3, bytes(700_000)))}),
    "many single numbers": raw_node("c", "C", attrs={"v": block(1, number(3, 1) * 70_000)}),
    "many inputs": raw_node("c", "C", ["a"] * 70_000),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_refused_in_one_sentence(data):
    with pytest.raises(ModelFileError, match=r"^expected a frozen TensorFlow graph .*; download"):
        read_graph_def(data)


def test_too_many_nodes_are_refused():
    data = b"".join(raw_node(str(k), "O") for k in range(MAX_NODES + 1))
    with pytest.raises(ModelFileError, match=str(MAX_NODES)):
        read_graph_def(data)


def test_every_prefix_of_a_graph_is_read_or_refused():
    ends = (picture(160), const("k", np.ones((3, 3, 3, 8))), node("r", "Relu", "k", f=0.5))
    data = graph(*ends)
    for length in range(len(data)):
        try:
            nodes = read_graph_def(data[:length])
        except ModelFileError:
            continue
        assert list(nodes) == ["input", "k", "r"][: len(nodes)]  # cut between two nodes


def test_damaged_graphs_never_raise_anything_else():
    chance = random.Random(5)
    whole = graph(picture(160), const("k", np.ones((2, 2, 3, 4))), node("r", "Op", "k", s=(1, 2)))
    refused = 0
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            read_graph_def(bytes(damaged))
        except ModelFileError:
            refused += 1
    assert 0 < refused < 3000  # damage to names and numbers can be read, damage to lengths cannot


def test_attributes_of_several_fields_keep_the_last():
    data = raw_node("n", "Op", attrs={"key": attr(3) + attr(b"x")})
    assert read_graph_def(data)["n"].attrs["key"] == b"x"
