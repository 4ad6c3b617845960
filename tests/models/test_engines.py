"""One contract, two runtimes: every test here runs with both engines unless it says otherwise."""

import hashlib
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import openvino
import pytest
from onnx import helper
from toy_models import convolved, convolved_formula, declare, formula, linear, model

from facenet import vectors
from facenet.errors import EngineError, MissingExtraError
from facenet.models import openvino as vino
from facenet.models import ort
from facenet.models.catalog import package_folder
from facenet.models.engine import EngineSettings, golden_input, open_engine, rounded
from facenet.models.openvino import OpenVinoEngine, in_a_line
from facenet.models.ort import OrtEngine
from facenet.models.quantize import Plan, Quantiser

WEIGHTS = package_folder() / "weights"
CAPABLE = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
BUILT_IN = {
    "pnet": (2, 3, 40, 33),
    "rnet": (5, 3, 24, 24),
    "onet": (5, 3, 48, 48),
    "mobilefacenet": (3, 3, 112, 112),
}


def settings(engine, **changes):
    return EngineSettings(engine=engine, device="cpu", **changes)


@pytest.fixture(params=["onnxruntime", "openvino"])
def engine_name(request):
    return request.param


@pytest.fixture
def opened(engine_name, tmp_path):
    """Opens an ONNX message, or bytes, with the engine of the round."""

    def open_model(graph, **changes):
        path = tmp_path / "model.onnx"
        path.write_bytes(graph if isinstance(graph, bytes) else graph.SerializeToString())
        return open_engine(path, settings(engine_name, **changes))

    return open_model


def noise(*shape, seed=0):
    return np.random.RandomState(seed).uniform(-1, 1, shape).astype(np.float32)


def run(engine, images):
    (answer,) = {id(v): v for v in engine.run({"image": images}).values()}.values()
    return answer


def test_the_class_is_the_one_of_the_name(opened, engine_name):
    kinds = {"onnxruntime": OrtEngine, "openvino": OpenVinoEngine}
    assert type(opened(linear())) is kinds[engine_name]


def test_it_computes_the_formula(opened):
    images = noise(4, 3, 16, 16)
    engine = opened(linear())
    got = engine.run({"image": images})["embedding"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, formula(images), rtol=0, atol=1e-5)


def test_inputs_are_names_with_shapes(opened):
    assert opened(linear()).inputs == {"image": (None, 3, 16, 16)}
    assert opened(linear(batch=2)).inputs == {"image": (2, 3, 16, 16)}


def test_describe_says_what_runs(opened, engine_name):
    versions = {"onnxruntime": onnxruntime.__version__, "openvino": openvino.__version__}
    found = opened(linear(), threads=1).describe()
    assert set(found) == {"engine", "version", "device", "precision", "threads"}
    assert versions[engine_name].startswith(found.pop("version"))
    assert found == {"engine": engine_name, "device": "cpu", "precision": "fp32", "threads": 1}


@pytest.mark.parametrize("name", ["rnet", "onet", "mobilefacenet"])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_batch_gives_what_its_rows_give(engine_name, name, batch):
    engine = open_engine(WEIGHTS / f"{name}.onnx", settings(engine_name))
    images = noise(batch, *BUILT_IN[name][1:])
    whole = engine.run({"image": images})
    for row in range(batch):
        alone = engine.run({"image": images[row : row + 1]})
        for part, values in whole.items():
            assert len(values) == batch
            scale = max(1.0, float(np.abs(values).max()))
            np.testing.assert_allclose(values[row : row + 1], alone[part], atol=2e-6 * scale)


def test_no_rows_give_no_rows(opened):
    assert run(opened(linear()), noise(0, 3, 16, 16)).shape == (0, 8)


def test_an_answer_stays_when_the_engine_runs_again(opened):
    engine = opened(linear())
    first = run(engine, noise(2, 3, 16, 16, seed=1))
    kept = first.copy()
    second = run(engine, noise(2, 3, 16, 16, seed=2))
    assert np.array_equal(first, kept)
    assert not np.allclose(first, second)


def test_the_input_may_be_a_view_and_is_not_changed(opened):
    pixels = noise(2, 16, 16, 3)
    images, before = pixels.transpose(0, 3, 1, 2)[:, ::-1, :, ::-1], pixels.copy()
    assert not images.flags.c_contiguous
    got = run(opened(linear()), images)
    np.testing.assert_allclose(got, formula(images), rtol=0, atol=1e-5)
    assert np.array_equal(pixels, before)


def test_a_read_only_input_will_do(opened):
    images = noise(2, 3, 16, 16)
    images.setflags(write=False)
    np.testing.assert_allclose(run(opened(linear()), images), formula(images), atol=1e-5)


def test_four_threads_get_what_one_gets(opened):
    engine = opened(linear(32, 32))
    batches = [noise(1 + k % 3, 3, 32, 32, seed=k) for k in range(24)]
    expected = [run(engine, images) for images in batches]
    wrong = []

    def work(first):
        for k in range(first, len(batches), 4):
            if not np.array_equal(run(engine, batches[k]), expected[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    for images, answer in zip(batches, expected, strict=True):
        np.testing.assert_allclose(answer, formula(images, 32, 32), rtol=0, atol=1e-4)


def test_two_inputs_and_two_outputs_keep_their_names(opened):
    graph = model(
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Sub", ["a", "b"], ["difference"]),
        ],
        [declare("a", "n", 2), declare("b", "n", 2)],
        [declare("sum", "n", 2), declare("difference", "n", 2)],
    )
    a, b = noise(3, 2), noise(3, 2, seed=1)
    engine = opened(graph)
    got = engine.run({"b": b, "a": a})
    np.testing.assert_allclose(got["sum"], a + b, atol=1e-6)
    np.testing.assert_allclose(got["difference"], a - b, atol=1e-6)
    with pytest.raises(EngineError, match="The graph takes a and b; got a"):
        engine.run({"a": a})


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "The graph takes image; got nothing"),
        ({"picture": noise(1, 3, 16, 16)}, "The graph takes image; got picture"),
        ({"image": noise(1, 3, 16, 16), "x": noise(1)}, "takes image; got image and x"),
        ({"image": noise(1, 3, 16, 15)}, "any x 3 x 16 x 16; got float32, 1 x 3 x 16 x 15"),
        ({"image": noise(3, 16, 16)}, "any x 3 x 16 x 16; got float32, 3 x 16 x 16"),
        ({"image": np.float32(1)}, "got float32, a number"),
        ({"image": noise(1, 3, 16, 16).astype(np.float64)}, "got float64, 1 x 3 x 16 x 16"),
        ({"image": noise(1, 3, 16, 16).astype(np.uint8)}, "should be float32, .* got uint8"),
    ],
)
def test_an_input_that_does_not_fit_is_an_error_and_the_next_runs(opened, feeds, message):
    engine, images = opened(linear()), noise(2, 3, 16, 16)
    before = run(engine, images)
    with pytest.raises(EngineError, match=message):
        engine.run(feeds)
    assert np.array_equal(run(engine, images), before)


def test_a_fixed_batch_is_kept(opened):
    engine = opened(linear(batch=2))
    with pytest.raises(EngineError, match="2 x 3 x 16 x 16; got float32, 3 x 3 x 16 x 16"):
        engine.run({"image": noise(3, 3, 16, 16)})


PLACES = (
    "Exception from src/inference/src/cpp/infer_request.cpp:224:\nException from src/a.cpp:8:\n"
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{PLACES}[CPU] Convolution  node\nobject\n\n", "[CPU] Convolution node"),
        ("Check 'a == b' failed at src/core/src/node.cpp:12:\nShapes differ.\n", "Shapes differ."),
        ("one line", "one line"),
        (f"  \n{'long ' * 200}", "long " * 60),
        ("\n\n", "RuntimeError"),
        (PLACES, "RuntimeError"),
    ],
)
def test_what_openvino_says_is_told_in_a_line(text, told):
    assert in_a_line(RuntimeError(text)) == told


def test_a_graph_that_fails_while_it_runs_is_an_error(opened):
    shape = {"shape": np.array([-1, 7], np.int64)}
    graph = model(
        [helper.make_node("Reshape", ["image", "shape"], ["embedding"])],
        [declare("image", "n", 3)],
        [declare("embedding", "m", 7)],
        shape,
    )
    engine = opened(graph)
    assert run(engine, noise(7, 3)).shape == (3, 7)
    with pytest.raises(EngineError, match="could not run the graph"):
        engine.run({"image": noise(2, 3)})
    if engine.describe()["engine"] == "openvino":
        with pytest.raises(EngineError) as caught:
            engine.run({"image": noise(2, 3)})
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "data", [b"", b"no model", b"\x08\x08", linear().SerializeToString()[:-99]]
)
def test_a_file_that_is_no_model_is_an_error(opened, data, capfd):
    with pytest.raises(EngineError, match=r"could not load .*model\.onnx"):
        opened(data)


def test_a_file_that_is_not_there_is_an_error(engine_name, tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(EngineError, match="could not load"):
            open_engine(path, settings(engine_name))


def test_an_operator_nobody_knows_is_an_error(opened):
    graph = model(
        [helper.make_node("Guess", ["image"], ["embedding"], domain="magic")],
        [declare("image", "n", 3)],
        [declare("embedding", "n", 3)],
        domains=["magic"],
    )
    with pytest.raises(EngineError, match="could not load"):
        opened(graph)


def quantised(tmp_path, message):
    path = tmp_path / "plain.onnx"
    path.write_bytes(message.SerializeToString())
    with Quantiser(path) as quantiser:
        return quantiser.quantise(Plan("nothing", ()), [noise(16, 3, 16, 16)])


def test_an_8_bit_graph_runs_with_both_and_says_which_file_it_is(opened, tmp_path):
    data = quantised(tmp_path, convolved())
    engine = opened(data, precision="int8")
    images = noise(4, 3, 16, 16, seed=1)
    got, right = run(engine, images), convolved_formula(convolved(), images)
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(right, axis=1)
    assert np.all(np.sum(got * right, axis=1) / lengths > 0.98)
    found = engine.describe()
    assert found["precision"] == "int8"
    assert found["weights"] == hashlib.sha256(data).hexdigest()[:16]
    whole = open_engine(data, settings(found["engine"], precision="int8")).describe()
    assert whole == found  # bytes and file are alike
    assert "weights" not in opened(data).describe()


@pytest.mark.parametrize("free", [True, False])
def test_batches_that_come_often_have_a_graph_of_their_own_and_the_same_answers(
    engine_name, tmp_path, free
):
    message = convolved(batch="batch" if free else 4)
    data, sizes = message.SerializeToString(), (1, 4)
    plain = open_engine(data, settings(engine_name))
    quick = open_engine(data, settings(engine_name), batches=sizes)
    assert quick.inputs == plain.inputs
    for count in (4, 1, 3, 4, 0) if free else (4, 4):
        images = noise(count, 3, 16, 16, seed=count)
        np.testing.assert_allclose(run(quick, images), run(plain, images), atol=1e-6)
    if engine_name == "openvino":
        own = {(count, 3, 16, 16) for count in sizes} if free else set()
        assert {kind.shape for kind in quick._free} == {*own, ()}
        assert {kind.shape for kind in plain._free} == {()}


def test_other_batches_are_filled_up_to_few_sizes():
    """A runtime holds memory for each size that it had."""
    engine = open_engine(convolved().SerializeToString(), settings("openvino"), batches=(1, 4))
    images, sizes = noise(16, 3, 16, 16), set()
    for count in range(1, 17):
        feeds, asked = engine._filled({"image": images[:count]})
        assert asked == count
        assert np.array_equal(
            feeds["image"], np.concatenate([images[:count]] * 2)[: len(feeds["image"])]
        )
        sizes.add(len(feeds["image"]))
    assert sizes == {1, 2, 3, 4, 6, 8, 12, 16}
    assert [rounded(count, 8) for count in (1, 8, 9, 13, 17, 25)] == [8, 8, 12, 16, 24, 32]


def test_shapes_that_come_again_and_again_get_a_graph_of_their_own(engine_name):
    """The last few of them; the answers are those of the graph for any shape."""
    data = convolved().SerializeToString()
    plain = open_engine(data, settings(engine_name))
    engine = open_engine(data, settings(engine_name), steady=True)
    came = []
    for count in [1, 2] * vino.OFTEN + [3] * (vino.OFTEN - 1):
        images = noise(count, 3, 16, 16, seed=count)
        np.testing.assert_allclose(run(engine, images), run(plain, images), atol=1e-6)
        came.append({kind.shape for kind in getattr(engine, "_free", ())})
    if engine_name == "openvino":
        assert came[2 * vino.OFTEN - 3] == {()}
        assert came[-1] == {(), (1, 3, 16, 16), (2, 3, 16, 16)}
        for count in range(3, 4 + vino.OWN):
            for _ in range(vino.OFTEN):
                run(engine, noise(count, 3, 16, 16))
        last = range(4, 4 + vino.OWN)
        shapes = {kind.shape for kind in engine._free}
        assert shapes == {(), *((count, 3, 16, 16) for count in last)}


@pytest.mark.parametrize("streams", [1, 2])
def test_openvino_sees_a_picture_as_it_is_like_its_float32(streams):
    """To the bit, before and after it has a graph of its own, in two threads at once, and
    without being in the way of float32 of the same engine."""
    data = convolved(batch=1).SerializeToString()
    running = settings("openvino", streams=streams, threads=2)
    plain, engine = (open_engine(data, running, steady=steady) for steady in (False, True))
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (2 * vino.OFTEN, 1, 16, 16, 3)).astype(np.uint8)
    wanted = [run(plain, p.transpose(0, 3, 1, 2).astype(np.float32)) for p in pictures]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            for answer, right in zip(pool.map(engine.see, pictures), wanted, strict=True):
                assert np.array_equal(answer["embedding"], right)
    images = noise(1, 3, 16, 16)
    assert np.array_equal(run(engine, images), run(plain, images))
    assert {(), (1, 16, 16, 3)} == {kind.shape for kind in engine._free}


def test_what_is_no_picture_for_the_graph_is_told():
    engine = open_engine(convolved(batch=1).SerializeToString(), settings("openvino"))
    with pytest.raises(EngineError, match="should be uint8, 1 x 16 x 16 x 3; got uint8, 1 x 3 x"):
        engine.see(np.zeros((1, 3, 16, 16), np.uint8))
    with pytest.raises(EngineError, match="got float32"):
        engine.see(np.zeros((1, 16, 16, 3), np.float32))


def test_a_large_shape_gets_no_graph_of_its_own_and_few_are_remembered():
    often = vino._Often()
    side = 2048
    assert [often.comes((1, 3, side, side)) for _ in range(20)] == [False] * 20
    wanted = (1, 3, side, side // 2)
    assert [often.comes(wanted) for _ in range(vino.OFTEN)] == [False] * (vino.OFTEN - 1) + [True]
    for width in range(vino.REMEMBERED):
        often.comes((1, 3, 7, width))
    assert not often.comes(wanted)


def test_four_threads_get_what_one_gets_of_batches_of_their_own(engine_name):
    data = convolved().SerializeToString()
    engine = open_engine(data, settings(engine_name), batches=(1, 4))
    wrong = []

    def work(count):
        images = noise(count, 3, 16, 16, seed=count)
        right = convolved_formula(convolved(), images)
        for _ in range(6):
            if not np.allclose(run(engine, images), right, atol=1e-4):
                wrong.append(count)

    threads = [threading.Thread(target=work, args=(count,)) for count in (1, 4, 2, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# The two beside each other


@pytest.mark.parametrize("name", BUILT_IN)
def test_openvino_in_fp32_answers_like_onnxruntime(name):
    """Not so by itself: on processors with bfloat16 OpenVINO would compute in that."""
    engines = [
        open_engine(WEIGHTS / f"{name}.onnx", settings(e)) for e in ("onnxruntime", "openvino")
    ]
    images = noise(*BUILT_IN[name])
    one, other = (engine.run({"image": images}) for engine in engines)
    assert engines[1].describe()["precision"] == "fp32"
    assert set(one) <= set(other)
    for part, values in one.items():
        pair = (values, other[part])
        if part == "embedding":  # not of unit length in the graph
            pair = tuple(map(vectors.unit, pair))
        np.testing.assert_allclose(*pair, rtol=0, atol=1e-5)


def test_bf16_runs_where_the_processor_has_it_and_nowhere_else():
    """Holds on machines with and without: what OpenVINO itself says of the processor decides."""
    path = WEIGHTS / "mobilefacenet.onnx"
    if "BF16" not in CAPABLE:
        with pytest.raises(EngineError, match="bf16 was asked for; this processor has no bfloat16"):
            open_engine(path, settings("openvino", precision="bf16"))
        return
    engine = open_engine(path, settings("openvino", precision="bf16"))
    assert engine.describe()["precision"] == "bf16"
    images = golden_input((2, 3, 112, 112))
    exact = run(open_engine(path, settings("openvino")), images)
    cosine = np.sum(vectors.unit(run(engine, images)) * vectors.unit(exact), axis=1)
    assert np.all(cosine < 1 - 1e-5)  # it really is another arithmetic
    assert np.all(cosine > 0.995)


def child(code):
    """What a Python of its own prints."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_openvino_can_be_held_to_the_instructions_of_an_older_processor():
    """The kernels it says it runs; without it, on such a processor, they are of a newer kind."""
    code = f"""
from pathlib import Path
from facenet.models.engine import EngineSettings, golden_input, open_engine
held = EngineSettings(engine="openvino", device="cpu", instructions="avx2")
engine = open_engine(Path({str(WEIGHTS / "mobilefacenet.onnx")!r}), held)
answer = engine.run({{"image": golden_input((1, 3, 112, 112))}})["embedding"]
graph = next(iter(engine._free.values())).get().get_compiled_model().get_runtime_model()
kinds = {{operation.get_rt_info()["primitiveType"].value for operation in graph.get_ops()}}
print(" ".join(sorted(kinds)))
print(*answer.ravel()[:3])
try:
    open_engine(b"", EngineSettings(engine="openvino", device="cpu"))
except Exception as error:
    print(error)
"""
    kinds, values, message = child(code)
    assert "conv" in kinds
    assert not any(newer in kinds for newer in ("avx512", "amx"))
    images = golden_input((1, 3, 112, 112))
    right = run(open_engine(WEIGHTS / "mobilefacenet.onnx", settings("onnxruntime")), images)
    np.testing.assert_allclose([float(v) for v in values.split()], right.ravel()[:3], atol=1e-4)
    assert message == (
        "instructions auto was asked for; OpenVINO runs with avx2 in this process already, and "
        "looks at the processor only once. Use another process."
    )


def test_instructions_of_an_older_processor_leave_less_exact_precisions_out():
    for precision in ("bf16", "int8"):
        with pytest.raises(EngineError, match=f"{precision} was asked for; it is left out .* avx2"):
            settings("openvino", precision=precision, instructions="avx2")
    open_engine(WEIGHTS / "rnet.onnx", settings("openvino"))
    with pytest.raises(EngineError, match="runs with auto in this process already"):
        open_engine(WEIGHTS / "rnet.onnx", settings("openvino", instructions="avx2"))


def test_two_threads_may_run_their_first_graphs_at_once():
    """OpenVINO's first run in two threads hangs in every fourth process unless it is prepared."""
    code = f"""
import threading
from pathlib import Path
import numpy as np
from facenet.models.engine import EngineSettings, open_engine, rounded
running = EngineSettings(engine="openvino", device="cpu", threads=2, streams=2)
engine = open_engine(Path({str(WEIGHTS / "rnet.onnx")!r}), running)
both = threading.Barrier(2)
def work():
    both.wait()
    engine.run({{"image": np.zeros((1, 3, 24, 24), np.float32)}})
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("done")
"""
    assert [child(code) for _ in range(5)] == [["done"]] * 5


def test_onnxruntime_has_no_bf16(tmp_path):
    with pytest.raises(EngineError, match=r"ONNX Runtime has no bf16.*engine \"openvino\""):
        open_engine(WEIGHTS / "rnet.onnx", settings("onnxruntime", precision="bf16"))


@pytest.mark.parametrize("device", ["gpu", "npu"])
def test_a_device_openvino_does_not_find_is_an_error(device):
    found = vino.available()
    assert "cpu" in found
    if device in found:
        return
    asked = EngineSettings(engine="openvino", device=device)
    with pytest.raises(EngineError, match=rf"The device {device} .*finds {', '.join(found)}\."):
        open_engine(WEIGHTS / "rnet.onnx", asked)


def test_a_device_onnxruntime_does_not_have_is_an_error():
    found = ort.available()
    absent = [d for d in ("cuda", "coreml") if d not in found]
    assert "cpu" in found
    assert absent
    asked = EngineSettings(engine="onnxruntime", device=absent[0])
    with pytest.raises(EngineError, match=rf"offers {', '.join(found)}\. Install the build"):
        open_engine(WEIGHTS / "rnet.onnx", asked)


def test_onnxruntime_never_leaves_the_device_by_itself():
    """Its Python layer would go on with the CPU when a device fails in the middle of a run."""
    engine = OrtEngine(WEIGHTS / "rnet.onnx", settings("onnxruntime"))
    assert engine._session._enable_fallback is False


def test_openvino_that_is_not_installed_says_how_to_get_it():
    assert vino.installed()
    assert not vino.installed("openvino_that_is_not_here")
    with pytest.raises(MissingExtraError, match=r"pip install \"facenet\[openvino\]\""):
        OpenVinoEngine(
            WEIGHTS / "rnet.onnx", settings("openvino"), package="openvino_that_is_not_here"
        )


def test_openvino_that_does_not_load_says_why(tmp_path, monkeypatch):
    (tmp_path / "broken_openvino.py").write_text("raise ImportError('GLIBC_2.99 not found')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineError, match=r"cannot be loaded: GLIBC_2\.99 not found"):
        OpenVinoEngine(WEIGHTS / "rnet.onnx", settings("openvino"), package="broken_openvino")
