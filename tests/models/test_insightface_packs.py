"""What a graph of InsightFace is, told from generated graphs of the same inputs and outputs."""

import hashlib

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from facenet.errors import ModelFileError, StorageError
from facenet.models.convert import insightface
from facenet.models.convert.insightface import (
    FORMS,
    KNOWN,
    NORMALISED,
    ports,
    read_pack,
    recognise,
)


def port(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def graph(inputs, outputs, *, nodes=None, weights=()):
    """ONNX bytes with these (name, shape) inputs and outputs; `nodes` come first."""
    nodes = list(nodes or [])
    nodes += [helper.make_node("Identity", [inputs[0][0]], [name]) for name, _ in outputs]
    tensors = [numpy_helper.from_array(np.ones(2, np.float32), name) for name in weights]
    made = helper.make_graph(
        nodes, "g", [port(*i) for i in inputs], [port(*o) for o in outputs], tensors
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()


def embedder(length=512, *, batch="None", side=112, nodes=None, weights=()):
    """w600k_r50 and its like."""
    inputs = [("data", [batch, 3, side, side]), *((name, [2]) for name in weights)]
    return graph(inputs, [("683", [1, length])], nodes=nodes, weights=weights)


def detector(count, *, side="?", batched=False, cells=True, widths=(1, 4, 10)):
    levels = len(FORMS[count].strides)
    outputs = []
    for number in range(count):
        shape = [12800 if cells else "?", widths[number // levels]]
        outputs.append((str(448 + number), [1, *shape] if batched else shape))
    return graph([("input.1", [1, 3, side, side])], outputs)


LANDMARKS_3D = graph([("data", ["None", 3, 192, 192])], [("fc1", [1, 3309])])
LANDMARKS_2D = graph([("data", ["None", 3, 192, 192])], [("fc1", [1, 212])])
GENDER_AGE = graph([("data", ["None", 3, 96, 96])], [("fc1", [1, 3])])
SWAPPER = graph(
    [("target", [1, 3, 128, 128]), ("source", [1, 512])], [("output", [1, 3, 128, 128])]
)
CLASSIFIER = graph([("input", [1, 3, 224, 224])], [("output", [1, 1000])])


def head(*operators, named=True):
    """A chain of operators behind `data`: (operator, name)."""
    nodes, source = [], "data"
    for number, (operator, name) in enumerate(operators):
        inputs = [source] if operator == "Relu" else [source, source]
        nodes.append(helper.make_node(operator, inputs, [f"h{number}"], name=name if named else ""))
        source = f"h{number}"
    return nodes


# One file


@pytest.mark.parametrize("length", [128, 256, 512, 1024])
def test_an_embedder_is_known_by_its_face_and_its_vector(length):
    found = recognise(embedder(length))
    assert (found.role, found.dimension, found.size) == ("embedder", length, (112, 112))
    assert (found.standardise, found.name, found.used) == ("insightface", None, True)
    assert found.title == f"recogniser, {length} values of a 112x112 face"
    assert [str(port) for port in found.inputs] == ["data (any x 3 x 112 x 112)"]
    assert recognise(embedder(length, batch=1)).inputs[0].shape == (1, 3, 112, 112)


@pytest.mark.parametrize(
    ("operators", "named", "expected"),
    [
        ([("Sub", "_minusscalar0"), ("Mul", "_mulscalar0")], True, NORMALISED),
        ([("Sub", "Sub_0"), ("Mul", "Mul_1")], True, NORMALISED),
        ([("Relu", "a"), ("Sub", "Sub_0"), ("Relu", "b"), ("Mul", "Mul_1")], True, NORMALISED),
        ([("Sub", "Sub_0"), ("Relu", "a")], True, "insightface"),
        ([("Mul", "Mul_0"), ("Relu", "a")], True, "insightface"),
        ([*[("Relu", "a")] * 8, ("Sub", "Sub_0"), ("Mul", "Mul_1")], True, "insightface"),
        ([("Sub", ""), ("Mul", "")], False, NORMALISED),
        ([("Mul", ""), ("Sub", "")], False, "insightface"),
        ([("Relu", ""), ("Sub", ""), ("Mul", "")], False, "insightface"),
    ],
)
def test_normalisation_inside_the_graph_is_seen_as_insightface_sees_it(operators, named, expected):
    data = embedder(nodes=head(*operators, named=named))
    assert recognise(data).standardise == expected


def test_weights_that_are_listed_as_inputs_are_none():
    found = recognise(embedder(weights=("conv0_weight", "bn_gamma")))
    assert [port.name for port in found.inputs] == ["data"]


@pytest.mark.parametrize("count", FORMS)
@pytest.mark.parametrize(
    "options", [{}, {"side": 640}, {"batched": True}, {"cells": False, "batched": True}]
)
def test_a_detector_is_known_by_its_tables(count, options):
    found = recognise(detector(count, **options))
    assert (found.role, found.form, found.used) == ("detector", FORMS[count], True)
    assert found.size == ((640, 640) if options.get("side") else None)
    assert found.title == (
        f"detector, {3 if count in (6, 9) else 5} strides, "
        f"with{'' if count in (9, 15) else 'out'} landmarks"
    )
    assert (found.dimension, found.standardise) == (None, "fixed")


@pytest.mark.parametrize(
    ("data", "role", "title"),
    [
        (LANDMARKS_3D, "landmarks", "68 landmarks in space"),
        (LANDMARKS_2D, "landmarks", "106 landmarks"),
        (GENDER_AGE, "attributes", "sex and age"),
    ],
)
def test_models_that_are_not_used_are_known(data, role, title):
    found = recognise(data)
    assert (found.role, found.title, found.used) == (role, title, False)


UNKNOWN = {
    "classifier": CLASSIFIER,
    "swapper": SWAPPER,
    "short": embedder(127),
    "long": embedder(1025),
    "free": embedder("D"),
    "other side": embedder(side=160),
    "gray": graph([("data", [1, 1, 112, 112])], [("o", [1, 512])]),
    "map": graph([("data", [1, 3, 112, 112])], [("o", [1, 512, 7, 7])]),
    "other tables": detector(9, widths=(2, 4, 10)),
    "seven": graph([("i", [1, 3, 9, 9])], [(str(k), [9, 1]) for k in range(7)]),
}


@pytest.mark.parametrize("data", UNKNOWN.values(), ids=UNKNOWN)
def test_another_graph_is_nothing_known(data):
    assert recognise(data) is None


def test_what_a_graph_takes_and_gives_is_said():
    assert ports(SWAPPER) == (
        "the input target (1 x 3 x 128 x 128), source (1 x 512) "
        "and the output output (1 x 3 x 128 x 128)"
    )
    assert ports(detector(9)).endswith("451 (12800 x 4) and 5 more")
    assert (
        len(ports(graph([("i" * 999, [1] * 20)], [(str(k) * 99, [1] * 20) for k in range(9)])))
        < 500
    )


@pytest.mark.parametrize("data", [b"", b"<html>" * 30, embedder()[:-40], b"\x08\x08"])
def test_bytes_that_are_no_onnx_file_are_told(data):
    with pytest.raises(ModelFileError, match="^expected an ONNX file, but"):
        recognise(data)


# A folder


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / f"{name}.onnx").write_bytes(data)
    return folder


PACK = {
    "1k3d68": LANDMARKS_3D,
    "2d106det": LANDMARKS_2D,
    "det_10g": detector(9),
    "genderage": GENDER_AGE,
    "w600k_r50": embedder(),
}


def test_a_pack_is_a_detector_a_recogniser_and_what_is_not_used(tmp_path):
    folder = write(tmp_path / "buffalo_l", **PACK)
    (folder / "readme.txt").write_text("not looked at")
    pack = read_pack(folder)
    assert pack.name == "buffalo_l"
    assert pack.detector.path == folder / "det_10g.onnx"
    assert pack.recogniser.path == folder / "w600k_r50.onnx"
    assert (pack.recogniser.sha256, pack.recogniser.bytes) == (
        hashlib.sha256(PACK["w600k_r50"]).hexdigest(),
        len(PACK["w600k_r50"]),
    )
    assert [file.path.stem for file in pack.others] == ["1k3d68", "2d106det", "genderage"]
    assert pack.refused == ()
    assert pack.describe() == [
        "det_10g.onnx: detector, 3 strides, with landmarks",
        "w600k_r50.onnx: recogniser, 512 values of a 112x112 face",
        "1k3d68.onnx: 68 landmarks in space, not used here",
        "2d106det.onnx: 106 landmarks, not used here",
        "genderage.onnx: sex and age, not used here",
    ]


def test_unknown_and_damaged_files_refuse_themselves_and_not_the_pack(tmp_path):
    folder = write(tmp_path / "mine", **PACK, inswapper=SWAPPER, broken=embedder()[:60])
    pack = read_pack(folder)
    assert pack.recogniser is not None
    assert [path.stem for path, _ in pack.refused] == ["broken", "inswapper"]
    assert pack.refused[0][1].startswith("broken.onnx: expected an ONNX file, but")
    assert pack.refused[1][1] == f"inswapper.onnx: an unknown graph with {ports(SWAPPER)}"


def test_the_first_of_two_is_taken_and_a_half_pack_is_one(tmp_path):
    folder = write(tmp_path / "two", b=embedder(256), a=embedder(128))
    pack = read_pack(folder)
    assert (pack.recogniser.path.stem, pack.detector) == ("a", None)
    assert [file.path.stem for file in pack.others] == ["b"]
    assert pack.describe()[1] == "b.onnx: recogniser, 256 values of a 112x112 face, not used here"


def test_published_files_are_known_by_their_digest():
    data = embedder()
    assert recognise(data).name is None
    known = {hashlib.sha256(data).hexdigest(): "w600k_r50"}
    assert recognise(data, known=known).name == "w600k_r50"
    assert KNOWN == {
        "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43": "w600k_r50",
        "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f": "w600k_mbf",
        "5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a": "scrfd_500m_kps",
        "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91": "scrfd_10g_kps",
    }


def test_a_folder_without_a_pack_is_told(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelFileError, match="empty should hold ONNX files.*Unpack the pack"):
        read_pack(empty)
    write(empty / "antelopev2", **PACK)
    with pytest.raises(ModelFileError, match=r"there is none\. Give .*empty/antelopev2\."):
        read_pack(empty)
    other = write(tmp_path / "other", net=CLASSIFIER, genderage=GENDER_AGE)
    with pytest.raises(
        ModelFileError, match="net.onnx: an unknown graph with the input input"
    ) as e:
        read_pack(other)
    assert "genderage.onnx: sex and age, not used here" in str(e.value)
    with pytest.raises(StorageError, match="Cannot read the folder .*missing: No such file"):
        read_pack(tmp_path / "missing")


def test_a_file_too_large_refuses_itself(tmp_path):
    folder = write(tmp_path / "large", det=detector(9))
    with (folder / "big.onnx").open("wb") as stream:
        stream.truncate(insightface.MAX_BYTES + 1)
    ((path, reason),) = read_pack(folder).refused
    assert (path.name, reason) == (
        "big.onnx",
        "big.onnx: expected an ONNX file of at most 2 GiB, but it is larger",
    )
