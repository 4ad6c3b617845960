import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from hashlib import sha256

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from toy_models import declare, formula, linear, linear_card, model, weights

from facenet.errors import ModelFileError, SettingsError, StorageError
from facenet.models.card import Preprocess
from facenet.models.catalog import catalog, find_card, published
from facenet.models.engine import EngineSettings, golden_input
from facenet.models.importing import INSIGHTFACE, LICENCES, import_model, recognised
from facenet.models.loader import load_model
from facenet.models.store import ModelStore

SQUARE = Preprocess(16, 16, crop="similarity", standardise="insightface")


def bring(tmp_path, graph, name="mine.onnx"):
    """Write an ONNX message, or bytes, to a file."""
    path = tmp_path / name
    path.write_bytes(graph if isinstance(graph, bytes) else graph.SerializeToString())
    return path


@pytest.fixture
def store(home):
    return ModelStore()


def add(tmp_path, store, graph, *, name="mine", preprocess=SQUARE, **options):
    file = bring(tmp_path, graph)
    return import_model(file, name=name, preprocess=preprocess, store=store, **options)


def nothing_came(store):
    folder = store.home / "models"
    left = [path.name for path in folder.rglob("*")] if folder.exists() else []
    return [name for name in left if not name.endswith(".lock")] == []


# What is good


@pytest.mark.parametrize("batch", ["batch", 1, 2])
def test_an_embedder_is_imported_with_a_card_that_is_true(tmp_path, store, batch):
    graph = linear(batch=batch)
    data = graph.SerializeToString()
    card = add(tmp_path, store, graph)
    assert (card.name, card.kind, card.dimension, card.preprocess) == (
        "mine",
        "embedder",
        8,
        SQUARE,
    )
    assert (card.source.type, card.source.origin) == ("file", "mine.onnx")
    assert card.source.sha256 == card.files[0].sha256 == sha256(data).hexdigest()
    assert card.source.bytes == card.files[0].bytes == len(data)
    assert card.licence.commercial is None
    rows = batch if isinstance(batch, int) else 1
    golden = card.golden["mine"]
    assert golden.shape == (rows, 3, 16, 16)
    expected = formula(golden_input(golden.shape)).ravel()
    np.testing.assert_allclose(golden.outputs["embedding"], expected, atol=1e-5)
    assert find_card("mine", kind="embedder") == catalog()["mine"] == card
    assert sorted(p.name for p in store.folder(card).iterdir()) == [
        "card.json",
        "digests.json",
        "mine.onnx",
    ]
    assert (store.folder(card) / "mine.onnx").read_bytes() == data
    assert store.pull(card) is False


def test_an_imported_model_runs_in_the_engine_that_is_chosen(tmp_path, store):
    add(tmp_path, store, linear())
    images = golden_input((3, 3, 16, 16))
    for engine in ("auto", "onnxruntime", "openvino"):
        model = load_model("mine", settings=EngineSettings(engine=engine, device="cpu"))
        got = model.engine.run({"image": images})["embedding"]
        np.testing.assert_allclose(got, formula(images), atol=1e-5)


def test_height_and_width_are_not_mixed_up(tmp_path, store):
    rows = {"weights": np.ones((3 * 24 * 16, 2), np.float32)}
    graph = model(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["embedding"]),
        ],
        [declare("image", "n", 3, 24, 16)],
        [declare("embedding", "n", 2)],
        rows,
    )
    assert add(tmp_path, store, graph, preprocess=replace(SQUARE, width=16, height=24))
    with pytest.raises(ModelFileError, match=r"take N x 3 x 16 x 24.*takes any x 3 x 24 x 16"):
        add(
            tmp_path,
            store,
            graph,
            name="other",
            preprocess=replace(SQUARE, width=24, height=16),
        )


def test_free_sides_are_taken_from_the_preprocessing(tmp_path, store):
    graph = model(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["embedding"]),
        ],
        [declare("image", "n", 3, "height", "width")],
        [declare("embedding", "n", 3)],
    )
    card = add(tmp_path, store, graph)
    expected = golden_input((1, 3, 16, 16)).mean(axis=(2, 3))[0]
    np.testing.assert_allclose(card.golden["mine"].outputs["embedding"], expected, atol=1e-6)


def test_constants_among_the_inputs_are_no_inputs(tmp_path, store):
    """So wrote the exporters of 2018, InsightFace's MXNet among them."""
    graph = linear()
    graph.graph.input.append(declare("weights", *weights().shape))
    assert add(tmp_path, store, graph).dimension == 8


def test_a_declared_but_unused_operator_set_does_no_harm(tmp_path, store):
    graph = linear()
    graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert add(tmp_path, store, graph).dimension == 8


def test_the_licence_of_known_weights_is_told():
    assert INSIGHTFACE.commercial is False
    assert "non-commercial" in INSIGHTFACE.weights
    assert all(len(bytes.fromhex(digest)) == 32 for digest in LICENCES)


# What is refused before a runtime sees it


def external():
    graph = linear()
    (tensor,) = graph.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return graph


def external_in_a_node():
    graph = linear()
    secret = TensorProto(name="secret", data_type=TensorProto.FLOAT, dims=[1])
    secret.external_data.add(key="location", value="secret")
    graph.graph.node.append(helper.make_node("Constant", [], ["secret"], value=secret))
    return graph


def external_sparse():
    graph = linear()
    sparse = graph.graph.sparse_initializer.add()
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "s"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "i"))
    sparse.dims.append(4)
    sparse.indices.data_location = TensorProto.EXTERNAL
    return graph


def foreign(op="Sneak", domain="com.acme"):
    graph = linear()
    graph.graph.node[-1].CopyFrom(
        helper.make_node(op, ["flat", "weights"], ["embedding"], domain=domain)
    )
    graph.opset_import.append(helper.make_opsetid(domain, 1))
    return graph


def foreign_in_a_branch():
    sneak = helper.make_node("Sneak", ["flat"], ["embedding_"], domain="com.acme")
    branch = helper.make_graph([sneak], "branch", [], [declare("embedding_", "n", 8)])
    node = helper.make_node("If", ["yes"], ["embedding"], then_branch=branch, else_branch=branch)
    graph = linear()
    graph.graph.node[-1].CopyFrom(node)
    graph.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    return graph


def with_function():
    own = helper.make_function(
        "own",
        "F",
        ["x"],
        ["y"],
        [helper.make_node("Neg", ["x"], ["y"])],
        [helper.make_opsetid("", 17)],
    )
    graph = linear()
    graph.functions.append(own)
    return graph


def two_inputs():
    graph = linear()
    graph.graph.input.append(declare("phase", 1))
    return graph


def two_outputs():
    graph = linear()
    graph.graph.output.append(declare("flat", "batch", 768))
    return graph


def no_output():
    graph = linear()
    del graph.graph.output[:]
    return graph


def channels_last(side=16):
    return _flat([declare("image", "n", side, side, 3)])


def newer():
    graph = linear()
    graph.opset_import[0].version = 10_000
    return graph


def _flat(inputs):
    return model(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["embedding"]),
        ],
        inputs,
        [declare("embedding", "n", 8)],
        {"weights": weights()},
    )


def bytes_in():
    return model(
        [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["float"], ["embedding"]),
        ],
        [declare("image", "n", 3, 16, 16, kind=TensorProto.UINT8)],
        [declare("embedding", "n", 768)],
    )


def unknown_operator():
    graph = linear()
    graph.graph.node[-1].op_type = "Guess"
    return graph


def not_connected():
    graph = linear()
    graph.graph.node[-1].input[0] = "nowhere"
    return graph


REFUSED = {
    "nothing": (lambda: b"", "there is no graph in it"),
    "text": (lambda: b"<html>not found</html>", "mine.onnx should be an ONNX file"),
    "zip": (lambda: b"PK\3\4" + bytes(100), "mine.onnx should be an ONNX file"),
    "pickle": (lambda: b"\x80\x04\x95\x10\x00", "mine.onnx should be an ONNX file"),
    "half": (lambda: linear().SerializeToString()[:-1000], "mine.onnx should be an ONNX file"),
    "external": (external, "the values of 'weights' in another file"),
    "external-node": (external_in_a_node, "the values of 'secret' in another file"),
    "external-sparse": (external_sparse, "the values of 'i' in another file"),
    "operator": (foreign, "the operator com.acme.Sneak; only the operators of ONNX itself"),
    "microsoft": (lambda: foreign("FusedMatMul", "com.microsoft"), "com.microsoft.FusedMatMul"),
    "branch": (foreign_in_a_branch, "the operator com.acme.Sneak"),
    "function": (with_function, "defines functions of its own, which is not supported"),
    "two-inputs": (two_inputs, "one input and one output; it has image, phase and embedding"),
    "two-outputs": (two_outputs, "it has image and embedding, flat"),
    "no-output": (no_output, "mine.onnx"),
    "channels-last": (lambda: channels_last(24), "it takes any x 3 x 24 x 24"),
    "newer": (newer, "written with an operator set after"),
    "size": (lambda: linear(24), "should take N x 3 x 16 x 16, .* it takes any x 3 x 24 x 24"),
    "grey": (lambda: _flat([declare("image", "n", 1, 16, 16)]), "it takes any x 1 x 16 x 16"),
    "flat": (lambda: _flat([declare("image", "n", 768)]), "it takes any x 768"),
    "bytes": (bytes_in, "input of mine.onnx should be float32; it is of another type"),
    "unknown": (unknown_operator, "mine.onnx is not valid ONNX: .*Guess"),
    "torn": (not_connected, "mine.onnx is not valid ONNX: .*nowhere"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_embedder_is_refused(tmp_path, store, case):
    make, message = REFUSED[case]
    with pytest.raises(ModelFileError, match=message):
        add(tmp_path, store, make())
    assert nothing_came(store)
    with pytest.raises(ModelFileError, match=message):  # there is no way round by --overwrite
        add(tmp_path, store, make(), overwrite=True)


def test_no_runtime_sees_a_file_that_is_refused(tmp_path, home):
    """In a process of its own, because here the runtimes are loaded already."""
    for case, (make, _) in REFUSED.items():
        bring(tmp_path, make(), f"{case}.onnx")
    code = """
import sys
from pathlib import Path
from facenet.errors import ModelFileError
from facenet.models.card import Preprocess
from facenet.models.importing import import_model

square, refused = Preprocess(16, 16, "similarity", "fixed"), 0
for file in Path(sys.argv[1]).glob("*.onnx"):
    try:
        import_model(file, name="mine", preprocess=square)
    except ModelFileError:
        refused += 1
print(refused, [name for name in ("onnxruntime", "openvino") if name in sys.modules])
"""
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert answer.stdout == f"{len(REFUSED)} []\n"


# What is refused after it was run


def batch_norm_in_training():
    """Subtracts the mean over the faces of a batch."""
    graph = linear()
    graph.graph.node[-1].output[0] = "raw"
    graph.graph.node.append(helper.make_node("ReduceMean", ["raw"], ["mean"], axes=[0], keepdims=1))
    graph.graph.node.append(helper.make_node("Sub", ["raw", "mean"], ["embedding"]))
    return graph


def stuck_batch():
    """Says any batch, and reshapes to one row."""
    graph = linear()
    graph.graph.node[0].CopyFrom(helper.make_node("Reshape", ["image", "one"], ["flat"]))
    graph.graph.initializer.append(numpy_helper.from_array(np.array([1, 768]), "one"))
    return graph


def not_a_number():
    graph = linear()
    graph.graph.node[-1].output[0] = "raw"
    graph.graph.node.append(helper.make_node("Sub", ["raw", "raw"], ["zero"]))
    graph.graph.node.append(helper.make_node("Div", ["raw", "zero"], ["embedding"]))
    return graph


def a_map():
    return model(
        [helper.make_node("Neg", ["image"], ["embedding"])],
        [declare("image", "n", 3, 16, 16)],
        [declare("embedding", "n", 3, 16, 16)],
    )


def one_value():
    return model(
        [
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Reshape", ["mean", "column"], ["embedding"]),
        ],
        [declare("image", "n", 3, 16, 16)],
        [declare("embedding", "n", 1)],
        {"column": np.array([-1, 1], np.int64)},
    )


def whole_numbers():
    graph = linear()
    graph.graph.node[-1].output[0] = "raw"
    graph.graph.node.append(helper.make_node("Cast", ["raw"], ["embedding"], to=TensorProto.INT32))
    graph.graph.output[0].CopyFrom(declare("embedding", "n", 8, kind=TensorProto.INT32))
    return graph


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (batch_norm_in_training, "a face's values depend on the others"),
        (stuck_batch, "mine.onnx does not run: "),
        (not_a_number, "should give finite float32 values"),
        (a_map, "N x D values for N faces; for 1 it gives 1 x 3 x 16 x 16"),
        (one_value, "N x D values for N faces; for 1 it gives 1 x 1"),
        (whole_numbers, "should give finite float32 values"),
    ],
)
def test_what_gives_no_vectors_is_refused(tmp_path, store, make, message):
    with pytest.raises(ModelFileError, match=message) as failure:
        add(tmp_path, store, make())
    assert "mine.onnx" in str(failure.value)
    assert nothing_came(store)


# Names, overwriting, trouble


def test_a_published_name_is_refused(tmp_path, store):
    taken = [n for card in published().values() for n in (card.name, *card.aliases)]
    for name in [*taken, "MobileFaceNet"]:
        with pytest.raises(SettingsError, match=rf"{name} is a name of the published model"):
            add(tmp_path, store, linear(), name=name, overwrite=True)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, store, name):
    with pytest.raises(SettingsError, match="name of a model should be letters"):
        add(tmp_path, store, linear(), name=name)


def test_the_kind_is_that_of_the_file(tmp_path, store):
    with pytest.raises(SettingsError, match="kind detector or embedder can be imported; got 'x'"):
        add(tmp_path, store, linear(), kind="x")
    with pytest.raises(ModelFileError, match="should be a model of the kind detector; it is a gr"):
        add(tmp_path, store, linear(), kind="detector", preprocess=None)
    with pytest.raises(SettingsError, match="needs its preprocessing"):
        add(tmp_path, store, linear(), preprocess=None)
    assert nothing_came(store)


def test_a_second_import_of_a_name_is_asked_for(tmp_path, store):
    first = add(tmp_path, store, linear())
    with pytest.raises(SettingsError, match="mine was imported before.*--overwrite"):
        add(tmp_path, store, linear(seed=1))
    assert find_card("mine") == first
    second = add(
        tmp_path, store, linear(seed=1), preprocess=replace(SQUARE, color="bgr"), overwrite=True
    )
    assert find_card("mine") == second
    assert second.contract != first.contract
    (path,) = store.files(second).values()
    assert path.read_bytes() == linear(seed=1).SerializeToString()
    with pytest.raises(ModelFileError, match="depend on the others"):
        add(tmp_path, store, batch_norm_in_training(), overwrite=True)
    assert find_card("mine") == second  # what was there is there
    assert store.files(second)


def test_a_file_that_is_not_there_is_told(tmp_path, store):
    for path, said in ((tmp_path / "none.onnx", "no such file"), (tmp_path, "It holds none")):
        with pytest.raises(ModelFileError, match=said):
            import_model(path, name="mine", preprocess=SQUARE, store=store)
        with pytest.raises(ModelFileError, match="there is no such file"):
            recognised(path, store.home)


def test_a_file_beyond_what_onnx_can_hold_is_not_read(tmp_path, store):
    path = tmp_path / "big.onnx"
    with path.open("wb") as file:
        file.truncate(2**31 + 1)  # takes no room on the disk
    with pytest.raises(ModelFileError, match="at most 2 GiB; it is larger"):
        import_model(path, name="mine", preprocess=SQUARE, store=store)


def test_a_home_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "home").write_text("in the way")
    with pytest.raises(StorageError, match="Cannot write"):
        add(tmp_path, ModelStore(tmp_path / "home"), linear())


# Published files


DATA = linear().SerializeToString()


@pytest.fixture
def shelf(store):
    """A home with the card of a published model `shelf`, not fetched yet."""
    card = linear_card(DATA, "shelf", type="url", url="http://127.0.0.1:9/x", member="in/m.onnx")
    store.folder(card).mkdir(parents=True)
    (store.folder(card) / "card.json").write_text(json.dumps(card.to_dict()))
    return card


def test_a_published_file_is_known_by_its_digest_under_any_name(tmp_path, store, shelf):
    file = bring(tmp_path, DATA, "download (1)")
    assert recognised(file, store.home) == shelf
    assert store.pull(shelf, given=file) is True
    assert store.files(shelf)
    assert recognised(bring(tmp_path, DATA[:-1] + b"!"), store.home) is None


def test_a_published_file_is_known_inside_its_archive(tmp_path, store, shelf):
    for name, data, card in [
        ("in/m.onnx", DATA, shelf),
        ("m.onnx", DATA, None),
        ("in/m.onnx", DATA[:-1] + b"!", None),
        ("in/m.onnx", DATA + b"!", None),
    ]:
        with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
            archive.writestr(name, data)
            archive.writestr("other", b"")
        assert recognised(tmp_path / "x.whl", store.home) == card
        if card:
            assert store.pull(card, given=tmp_path / "x.whl") is True
            assert store.files(card)


def test_a_damaged_archive_is_not_known(tmp_path, store, shelf):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("in/m.onnx", DATA)
    data = bytearray((tmp_path / "x.zip").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "x.zip").write_bytes(data)
    assert recognised(tmp_path / "x.zip", store.home) is None


def test_a_file_imported_under_a_name_may_be_imported_under_another(tmp_path, store):
    file = bring(tmp_path, linear())
    import_model(file, name="first", preprocess=SQUARE, store=store)
    assert recognised(file, store.home) is None
    other = replace(SQUARE, margin=4)
    import_model(file, name="second", preprocess=other, store=store)
    assert find_card("first").contract != find_card("second").contract


def test_the_frozen_graph_of_casia_webface_is_known(casia_graph, home):
    assert recognised(casia_graph, home) is published()["facenet-casia-webface"]


def test_the_toy_graphs_are_what_they_say():
    """The good graph is valid, so that each bad one above is refused for its own reason."""
    onnx.checker.check_model(linear(), full_check=True)
    images = golden_input((2, 3, 16, 16))
    np.testing.assert_allclose(formula(images), images.reshape(2, -1) @ weights(), atol=1e-5)
