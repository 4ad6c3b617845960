import collections
import os
import sys
from hashlib import sha256
from pathlib import Path

import h5py
import numpy as np
import onnx
import openvino
import pytest
from naive_inception import Naive, keras_file
from shell import run as run_command
from small_nets import nchw, run

from facenet.errors import MissingExtraError, ModelFileError
from facenet.faces.embed import per_image
from facenet.models.card import Preprocess
from facenet.models.catalog import find_card, published
from facenet.models.convert.inception_resnet_v1 import inception_resnet_v1
from facenet.models.convert.keras import convert_keras, read_keras_weights
from facenet.models.engine import EngineSettings
from facenet.models.importing import import_model, recognised
from facenet.models.loader import load_model
from facenet.models.store import ModelStore

GOLDEN = Path(__file__).resolve().parents[1] / "golden/keras_msceleb.npz"
NAME = "facenet-msceleb-20170512"
OWN = Preprocess(160, 160, "margin_original", "per_image", 32)
DIMENSION = 96


def run_openvino(model, image):
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return compiled(image)["embedding"]


# The published file against Keras itself


@pytest.fixture(scope="module")
def msceleb(msceleb_file):
    return convert_keras(msceleb_file.read_bytes())


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


@pytest.mark.parametrize("runtime", [run, run_openvino])
def test_prelogits_are_those_of_keras_on_tensorflow(msceleb, golden, runtime):
    faces = nchw(per_image(golden["images"].astype(np.float32)))
    np.testing.assert_allclose(runtime(msceleb, faces), golden["prelogits"], rtol=0, atol=1e-5)
    generator = np.random.RandomState(int(golden["noise_seed"]))
    noise = nchw(generator.standard_normal((2, 160, 160, 3)).astype(np.float32))
    got = runtime(msceleb, noise)
    np.testing.assert_allclose(got, golden["noise_prelogits"], rtol=0, atol=1e-5)


def test_a_face_does_not_depend_on_the_others(msceleb, golden):
    faces = nchw(per_image(golden["images"].astype(np.float32)))
    alone = np.concatenate([run(msceleb, faces[k : k + 1]) for k in range(2)])
    np.testing.assert_allclose(run(msceleb, faces)[:2], alone, rtol=0, atol=1e-5)


def test_the_graph_is_plain_and_the_same_every_time(msceleb, msceleb_file):
    assert convert_keras(msceleb_file.read_bytes()) == msceleb
    graph = onnx.load_from_string(msceleb).graph
    kinds = collections.Counter(node.op_type for node in graph.node)
    assert kinds == {
        "Conv": 132,
        "Relu": 6 + 5 * 6 + 4 + 10 * 4 + 7 + 6 * 4 + 5 + 10 + 5,
        "MaxPool": 3,
        "Concat": 5 + 1 + 10 + 1 + 6,
        "Add": 21,
        "GlobalAveragePool": 1,
        "Flatten": 1,
        "Gemm": 1,
    }
    ends = [*graph.input, *graph.output]
    shapes = [
        [side.dim_value or side.dim_param for side in end.type.tensor_type.shape.dim]
        for end in ends
    ]
    assert shapes == [["batch", 3, 160, 160], ["batch", 128]]


def test_the_published_file_is_known_and_its_answer_is_that_of_the_card(msceleb_file, home):
    card = published()[NAME]
    assert recognised(msceleb_file, home) is card is find_card("20170512-110547")
    assert (card.preprocess, card.dimension) == (OWN, 128)
    store, steps = ModelStore(), []
    assert store.pull(card, lambda *step: steps.append(step), given=msceleb_file) is True
    assert [label for label, _, _ in steps] == [f"convert {NAME} to ONNX"] * 2
    assert [path.name for path in sorted(store.folder(card).iterdir())] == [
        "digests.json",
        f"{NAME}.onnx",
    ]
    assert store.pull(card) is False


# Random weights against the network written down in NumPy


@pytest.fixture(scope="module")
def naive():
    """Random weights, random input and what the network in NumPy makes of it."""
    net = Naive(seed=3)
    images = np.random.default_rng(4).standard_normal((1, 160, 160, 3), np.float32)
    expected = net.run(images, DIMENSION)
    return net.weights, images, expected


@pytest.fixture(scope="module")
def saved(naive):
    return keras_file(naive[0])


def test_the_network_is_that_of_the_paper(naive, saved):
    weights, images, expected = naive
    assert len(weights) == 490
    assert expected.std() > 0.1
    got = run(convert_keras(saved), nchw(images))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_whole_models_and_weights_alone_are_read(naive, saved):
    weights = naive[0]
    for data in (saved, keras_file(weights, whole=False)):
        read = read_keras_weights(data)
        assert set(read) == set(weights)
        assert all(np.array_equal(read[name], weights[name]) for name in weights)
        assert {array.dtype for array in read.values()} == {np.dtype(np.float32)}


def test_a_keras_file_of_ones_own_is_imported(home, tmp_path, naive, saved):
    weights, images, expected = naive
    file = tmp_path / "mine.h5"
    file.write_bytes(saved)
    assert recognised(file, home) is None
    card = import_model(file, name="mine", preprocess=OWN)
    assert (card.dimension, card.source.convert) == (DIMENSION, "keras")
    assert (card.source.origin, card.source.sha256) == ("mine.h5", sha256(saved).hexdigest())
    plain = EngineSettings(engine="onnxruntime", device="cpu")
    got = load_model("mine", settings=plain).engine.run({"image": nchw(images)})["embedding"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    file.write_bytes(saved[: len(saved) // 2])
    with pytest.raises(ModelFileError, match=r"^mine\.h5: expected a Keras file .* damaged parts"):
        import_model(file, name="half", preprocess=OWN)
    assert not (home / "models/half").exists()


def test_a_keras_file_is_used_by_the_name_it_was_given(home, tmp_path, saved, examples):
    (tmp_path / "mine.h5").write_bytes(saved)
    told = ("--name", "mine", "--crop", "margin_original", "--standardise", "per_image")
    assert run_command("models", "import", tmp_path / "mine.h5", *told).code == 0
    photo, out = examples / "photos/hopper-rendition.jpg", tmp_path / "v.npz"
    assert run_command("embed", photo, "--model", "mine", "--out", out).code == 0
    assert np.load(out)["embeddings"].shape == (1, DIMENSION)


# Another network


def without(*names):
    return lambda weights: {key: weights[key] for key in weights if key not in names}


def but(**changes):
    return lambda weights: weights | {key.replace("__", "/"): changes[key] for key in changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("Conv2d_2a_3x3/kernel"), r"'Conv2d_2a_3x3/kernel' is missing; the file is dam"),
        (without("Block8_6_Conv2d_1x1/bias"), "'Block8_6_Conv2d_1x1/bias' is missing"),
        (without("Bottleneck/kernel"), "'Bottleneck/kernel' is missing"),
        (without("Bottleneck_BatchNorm/beta"), "'Bottleneck_BatchNorm/beta' is missing"),
        (lambda _: {"block1_conv1/kernel": np.ones((3, 3, 3, 64))}, "'Conv2d_1a_3x3/kernel' is mi"),
        (but(Conv2d_1a_3x3_BatchNorm__gamma=np.ones(32)), r"also 'Conv2d_1a_3x3_BatchNorm/gamma'"),
        (but(Logits__kernel=np.ones((96, 5))), "there is also 'Logits/kernel'; this is another"),
        (but(Conv2d_1a_3x3__kernel=np.ones((3, 3, 1, 32))), r"shape \(3, 3, 3, 32\), but it is \("),
        (but(Bottleneck__kernel=np.ones((1792, 5000))), "a Bottleneck of 1 to 4096 values"),
        (but(Bottleneck__kernel=np.ones((1792, 0))), "a Bottleneck of 1 to 4096 values"),
        (but(Bottleneck__kernel=np.ones(1792)), r"a Bottleneck of .* has the shape \(1792,\)"),
        (but(Conv2d_1a_3x3__kernel=np.full((3, 3, 3, 32), np.nan)), "finite weights, but those of"),
        (
            but(Conv2d_1a_3x3_BatchNorm__moving_variance=np.full(32, -1.0)),
            "finite weights, but those of 'Conv2d_1a_3x3/kernel' are not",
        ),
    ],
)
def test_another_network_is_refused_in_one_sentence(naive, change, message):
    with pytest.raises(ModelFileError, match=message) as failure:
        inception_resnet_v1(change(naive[0]))
    assert len(str(failure.value)) < 250


# Files that are no good


SMALL = {
    "a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a_BatchNorm/beta": np.ones(3, np.float32),
}


def changed(change):
    return keras_file(SMALL, change=change)


def outside(group):
    group["a/a/out:0"] = h5py.ExternalLink("/etc/hostname", "/x")


def soft(group):
    group["a/a/soft:0"] = h5py.SoftLink("/model_weights/a/a/kernel:0")


def soft_layer(group):
    group["b"] = h5py.SoftLink("/model_weights/a")


def elsewhere(group):
    group["a/a"].create_dataset(
        "raw:0", (4,), np.float32, external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
    )


def virtual(group):
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", shape=(4,))
    group["a/a"].create_virtual_dataset("virtual:0", layout)


def packed(group):
    group["a/a"].create_dataset("z:0", data=np.zeros(1_000_000, np.float32), compression="gzip")


def in_pieces(group):
    group["a/a"].create_dataset("z:0", data=np.zeros(8, np.float32), chunks=(4,))


def never_written(group):
    group["a/a"].create_dataset("huge:0", (1 << 20, 1 << 20), np.float32)


def many_names(group):
    group["a/a"].create_dataset("big:0", data=np.zeros(50_000, np.float32))
    for number in range(9):
        group[f"a/a/same{number}:0"] = group["a/a/big:0"]


def double(group):
    group["a/a"].create_dataset("wide:0", data=np.zeros(3))


def words(group):
    group["a/a"].create_dataset("text:0", data=["a", "b"])


def empty(group):
    group["a/a"].create_dataset("none:0", data=h5py.Empty(np.float32))


def nested(group):
    group["a/a/a"] = group["a"]


def flat(group):
    group.create_dataset("flat:0", data=np.zeros(3, np.float32))


def stray(group):
    group.create_group("b/c").create_dataset("kernel:0", data=np.zeros(3, np.float32))


def crowd(group):
    for number in range(20):
        group[f"a/a/same{number}:0"] = group["a/a/kernel:0"]


def throng(group):
    for number in range(4200):
        group[f"x{number}"] = group["Dropout"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (outside, "a link 'out:0' to another place"),
        (soft, "a link 'soft:0' to another place"),
        (soft_layer, "a link 'b' to another place"),
        (elsewhere, "'a/raw' in pieces, compressed or in another file"),
        (virtual, "'a/virtual' in pieces, compressed or in another file"),
        (packed, "'a/z' in pieces, compressed or in another file"),
        (in_pieces, "'a/z' in pieces, compressed or in another file"),
        (never_written, "'a/huge' with other bytes than its shape asks for"),
        (many_names, "more values than bytes"),
        (double, "'a/wide' of the type float64"),
        (words, "'a/text' of the type object"),
        (empty, "'a/none' without values"),
        (nested, "a group 'a' in an unexpected place"),
        (flat, "a dataset 'flat:0' in an unexpected place"),
        (stray, "a layer 'b' that is not in a group of its own name"),
        (crowd, "21 arrays in the layer 'a'"),
        (throng, "4203 layers, more than the 4096 that are read"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_plain_weights_is_refused(change, message):
    with pytest.raises(ModelFileError, match=f"^expected a Keras file .*{message}.*Keras 2 as"):
        read_keras_weights(changed(change))


def test_a_link_to_another_file_is_not_followed(tmp_path):
    """A pipe nobody writes to: who opens it waits for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = h5py.ExternalLink(str(pipe), "/x")
    bad = keras_file({}, whole=False, change=lambda top: top.__setitem__("model_weights", link))
    with pytest.raises(ModelFileError, match="a link 'model_weights' to another place"):
        read_keras_weights(bad)


@pytest.mark.parametrize("data", [b"", b"\x89HDF", b"PK\x03\x04" + bytes(99), b"<html>" * 9])
def test_another_kind_of_file_is_told(data):
    with pytest.raises(ModelFileError, match=r"Keras file \(HDF5\).*bytes of another kind"):
        read_keras_weights(data)


def test_a_file_cut_short_is_told_wherever_it_ends():
    data = keras_file(SMALL)
    for end in range(8, len(data) - 1, 97):
        with pytest.raises(ModelFileError, match="it holds"):
            read_keras_weights(data[:end])


def test_damaged_bytes_give_weights_or_a_refusal():
    """Nothing but ModelFileError comes out of h5py, whatever byte is wrong."""
    good, random, refused = keras_file(SMALL), np.random.default_rng(5), 0
    for _ in range(600):
        data = bytearray(good)
        for place in random.integers(8, len(data), 3):
            data[place] = random.integers(256)
        try:
            assert sum(a.nbytes for a in read_keras_weights(bytes(data)).values()) <= len(data)
        except ModelFileError as error:
            assert len(str(error)) < 400
            refused += 1
    assert refused > 100


def test_without_h5py_the_extra_is_named_before_anything_is_fetched(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(home))
    with pytest.raises(MissingExtraError, match=r'`pip install "facenet\[keras\]"`'):
        ModelStore().pull(published()[NAME])
    with pytest.raises(MissingExtraError, match="h5py"):
        convert_keras(b"")
