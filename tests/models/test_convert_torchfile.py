import os
import pickle
import random
import zipfile

import numpy as np
import pytest
from torch_maker import (
    FACTS,
    Raw,
    call,
    contiguous,
    legacy,
    name,
    program,
    storage,
    tensor,
    value,
    zipped,
)

from facenet.errors import ModelFileError
from facenet.models.convert.torchfile import read_state_dict

WRITERS = pytest.mark.parametrize("write", [legacy, zipped])
WEIGHT = np.arange(24, dtype="<f4").reshape(2, 3, 4)
BIAS = np.array([0.5, -1], dtype="<f4")
STORED = {"10": WEIGHT, "11": BIAS}
TREE = {"conv.weight": contiguous("10", WEIGHT), "conv.bias": contiguous("11", BIAS)}


@WRITERS
def test_names_order_shapes_and_numbers(write):
    got = read_state_dict(write(TREE, STORED))
    assert list(got) == ["conv.weight", "conv.bias"]
    np.testing.assert_array_equal(got["conv.weight"], WEIGHT)
    np.testing.assert_array_equal(got["conv.bias"], BIAS)
    assert not got["conv.weight"].flags.writeable


@WRITERS
@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<f8", "<i4", "<i8", "|u1", "|b1"])
def test_every_storage_type(write, dtype):
    array = np.array([[0, 1], [1, 0]]).astype(dtype)
    got = read_state_dict(write({"x": contiguous("0", array)}, {"0": array}))["x"]
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)


@WRITERS
def test_views_follow_strides_and_offset(write):
    flat = np.arange(40, dtype="<f4")
    where = storage("7", "f4", 40)
    tree = {
        "turned": tensor(where, (4, 3), (1, 4), 5),
        "spread": tensor(where, (3, 2), (10, 3), 2),
        "scalar": tensor(where, (), (), 39),
        "long step": tensor(where, (1, 2), (1 << 30, 1), 38),
        "nothing": tensor(where, (0, 5), (5, 1)),
    }
    got = read_state_dict(write(tree, {"7": flat}))
    np.testing.assert_array_equal(got["turned"], flat[5:17].reshape(3, 4).T)
    np.testing.assert_array_equal(got["spread"], [[2, 5], [12, 15], [22, 25]])
    assert got["scalar"].shape == ()
    assert got["scalar"] == 39
    assert got["long step"].tolist() == [[38, 39]]
    assert got["nothing"].shape == (0, 5)


@WRITERS
def test_ordered_dicts_with_metadata_parameters_and_memo(write):
    body = b"q\x00(" + value("w") + value(TREE["conv.bias"]) + b"u"
    metadata = b"}(" + value("_metadata") + value({"": {"version": 1}}) + b"ub"
    tree = Raw(call("collections.OrderedDict") + body + metadata)
    np.testing.assert_array_equal(read_state_dict(write(tree, {"11": BIAS}))["w"], BIAS)
    parameter = call("torch._utils._rebuild_parameter", TREE["conv.bias"], True, {})
    got = read_state_dict(write({"p": parameter}, {"11": BIAS}))
    np.testing.assert_array_equal(got["p"], BIAS)


@WRITERS
def test_a_checkpoint_is_opened_one_level_down(write):
    tree = {"epoch": 7, "state_dict": TREE, "note": "x"}
    assert list(read_state_dict(write(tree, STORED))) == list(TREE)


def test_protocol_4_programs_are_read():
    where = value(("storage", Raw(b"\x8c\x05torch\x8c\x0cFloatStorage\x93\x94"), "11", "cpu", 2))
    rebuild = b"\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93\x94"
    arguments = value((Raw(where + b"Q"), 0, (2,), (1,), False, {}))
    body = b"}\x94\x8c\x01w" + rebuild + arguments + b"Rs."
    data = zipped(None, {"11": BIAS}, pickled=b"\x80\x04\x95" + bytes(8) + body)
    assert read_state_dict(data)["w"].tolist() == BIAS.tolist()


class Command:
    """Pickles to a call of os.system that leaves a file behind."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_a_program_that_calls_the_shell_is_named_and_never_run(tmp_path, protocol):
    marker = tmp_path / "ran"
    hostile = pickle.dumps({"w": Command(marker)}, protocol)
    files = [zipped(None, {}, pickled=hostile), hostile, legacy(Raw(hostile[:-1]), {})]
    files += [pickle.dumps(Command(marker), protocol) + hostile]
    for data in files:
        with pytest.raises(ModelFileError):
            read_state_dict(data)
    with pytest.raises(ModelFileError, match="system|opcode"):
        read_state_dict(files[0])
    assert not marker.exists()


@pytest.mark.parametrize(
    "text",
    ["os.system", "builtins.eval", "torch.load", "torch.BFloat16Storage", "numpy.load"],
)
def test_foreign_names_are_named_and_refused(text):
    with pytest.raises(ModelFileError, match=text.replace(".", r"\.")):
        read_state_dict(legacy({"x": call(text, "ls")}, {}))


WHERE = storage("11", "f4", 2)
BAD_TENSORS = {
    "past the end": tensor(WHERE, (3,), (1,)),
    "offset past the end": tensor(WHERE, (2,), (1,), 1),
    "step past the end": tensor(WHERE, (2,), (2,)),
    "negative step": tensor(WHERE, (2,), (-1,), 1),
    "negative offset": tensor(WHERE, (1,), (1,), -1),
    "negative size": tensor(WHERE, (-1,), (1,)),
    "repeated without end": tensor(WHERE, (1 << 30, 1 << 30), (0, 0)),
    "huge empty": tensor(WHERE, (0, 1 << 30, 1 << 30), (1, 1, 1)),
    "sizes and steps differ": tensor(WHERE, (2,), (1, 1)),
    "nine axes": tensor(WHERE, (1,) * 9, (1,) * 9),
    "a size that is true": tensor(WHERE, (True,), (1,)),
    "a size beyond 40 bits": tensor(WHERE, (1 << 62,), (1,)),
    "no storage": tensor(3, (1,), (1,)),
    "a list as shape": tensor(WHERE, [2], (1,)),
    "few arguments": call("torch._utils._rebuild_tensor_v2", WHERE),
    "storage called": call("torch.FloatStorage", 3),
    "dict with arguments": call("collections.OrderedDict", []),
    "parameter of nothing": call("torch._utils._rebuild_parameter"),
    "storage of another length": contiguous("11", WEIGHT),
    "storage of another type": tensor(storage("11", "f8", 2), (2,), (1,)),
    "storage as entry": WHERE,
    "number as entry": 3,
    "view of a storage": tensor(storage("11", "f4", 2, ("v", 0, 1)), (1,), (1,)),
    "record of another kind": Raw(value(("module", "x", "11", "cpu", 2)) + b"Q"),
    "a storage type that is no type": Raw(
        value(("storage", name("collections.OrderedDict"), "11", "cpu", 2)) + b"Q"
    ),
    "a storage key that is a number": Raw(
        value(("storage", name("torch.FloatStorage"), 11, "cpu", 2)) + b"Q"
    ),
}


@WRITERS
@pytest.mark.parametrize("entry", BAD_TENSORS.values(), ids=BAD_TENSORS.keys())
def test_impossible_tensors_are_refused(write, entry):
    with pytest.raises(ModelFileError, match="^expected a torch state dict file"):
        read_state_dict(write({"x": entry}, {"11": BIAS}))


BAD_PROGRAMS = {
    "empty": b"",
    "no stop": b"\x80\x02}",
    "nothing left": b"\x80\x02.",
    "empty stack": b"\x80\x02R.",
    "no mark": b"\x80\x02u.",
    "pops below a mark": b"\x80\x02}(s.",
    "append to a number": b"\x80\x02K\x01K\x02a.",
    "odd pairs": b"\x80\x02}(K\x01u.",
    "list as a key": b"\x80\x02}]K\x01s.",
    "unknown memo": b"\x80\x02h\x07.",
    "new object": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "duplicated top": b"\x80\x02}2.",
    "unknown opcode": b"\x80\x02\xf0.",
    "attributes of a list": b"\x80\x02]}b.",
    "number that is cut short": b"\x80\x02J\x01",
    "huge text": b"\x80\x02X\xff\xff\xff\xff.",
    "huger text": b"\x80\x04\x8d" + b"\x7f" * 8 + b".",
    "text that is no text": b"\x80\x02X\x01\x00\x00\x00\xff.",
    "a list": program([1, 2]),
    "an empty dict": program({}),
    "a number as name": program({3: TREE["conv.bias"]}),
}


@pytest.mark.parametrize("content", BAD_PROGRAMS.values(), ids=BAD_PROGRAMS.keys())
def test_damaged_programs_are_refused(content):
    for data in (content, zipped(None, {"11": BIAS}, pickled=content)):
        with pytest.raises(ModelFileError, match="^expected a torch state dict file"):
            read_state_dict(data)


BAD_FILES = {
    "wrong magic": legacy(TREE, STORED, magic=1),
    "wrong protocol": legacy(TREE, STORED, protocol=999),
    "big-endian": legacy(TREE, STORED, facts={**FACTS, "little_endian": False}),
    "facts are a list": legacy(TREE, STORED, facts=[]),
    "repeated key": legacy(TREE, STORED, keys=["10", "10"]),
    "unknown key": legacy(TREE, STORED, keys=["10", "12"]),
    "key that is a list": legacy(TREE, STORED, keys=[["10"], "11"]),
    "missing key": legacy(TREE, STORED, keys=["10"]),
    "storages swapped": legacy(TREE, STORED, keys=["11", "10"]),
    "missing entry": zipped(TREE, {"10": WEIGHT}),
    "compressed": zipped(TREE, STORED, compress=zipfile.ZIP_DEFLATED),
    "big-endian zip": zipped(TREE, STORED, extra={"net/byteorder": b"big"}),
    "two programs": zipped(TREE, STORED, extra={"other/data.pkl": b""}),
    "no program": b"PK\x03\x04" + bytes(60),
    "plain text": b"weights!" * 20,
    "two storages of one key": legacy(
        {"a": contiguous("11", BIAS), "b": contiguous("11", WEIGHT)}, {"11": BIAS}
    ),
}


@pytest.mark.parametrize("data", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_damaged_files_are_refused_in_one_sentence(data):
    with pytest.raises(ModelFileError, match="^expected a torch state dict file.*; save the"):
        read_state_dict(data)


def test_a_program_that_never_ends_is_stopped():
    data = b"\x80\x02" + b"0" * 5_000_000
    with pytest.raises(ModelFileError):
        read_state_dict(data)
    pushes = b"\x80\x02" + b"N" * 4_100_000 + b"."
    with pytest.raises(ModelFileError, match="4000000 opcodes"):
        read_state_dict(pushes)


@WRITERS
def test_every_prefix_and_random_damage_is_read_or_refused(write):
    data = write(TREE, STORED)
    for length in range(0, len(data), 3):
        with pytest.raises(ModelFileError):
            read_state_dict(data[:length])
    chance = random.Random(3)
    for _ in range(800):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            read_state_dict(bytes(damaged))
        except ModelFileError:
            continue
