import json
from dataclasses import replace

import pytest
from toy_models import linear, linear_card

from facenet.errors import DigestError, EngineError, ModelError, ModelFileError, SettingsError
from facenet.models import ort
from facenet.models.catalog import published
from facenet.models.engine import DEVICES, EngineSettings, golden_input
from facenet.models.loader import choose_engine, load_model
from facenet.models.selfcheck import Verdict
from facenet.models.store import ModelStore

CARD = linear_card(linear().SerializeToString())
ABSENT = [device for device in ("cuda", "coreml") if device not in ort.available()]


def never(name, settings, home):
    raise AssertionError("nobody should be asked")


def answer(ok, reason):
    return lambda name, settings, home: Verdict(ok, reason)


def choose(home, *, card=CARD, installed=True, ask=never, **settings):
    settings = EngineSettings(**({"device": "cpu"} | settings))
    return choose_engine(card, settings, home, installed=lambda: installed, ask=ask)


def test_auto_takes_openvino_where_it_computes_right(home):
    choice = choose(home, ask=answer(True, "agrees with the golden answer to 1e-07"))
    assert choice.settings.engine == "openvino"
    assert choice.reason == "OpenVINO agrees with the golden answer to 1e-07"
    assert choose(home, ask=never) == choice  # remembered


def test_auto_falls_to_onnxruntime_with_the_reason(home):
    choice = choose(home, ask=answer(False, "crashed with SIGFPE"))
    assert choice.settings.engine == "onnxruntime"
    assert choice.reason == "OpenVINO was turned down: crashed with SIGFPE"
    choice = choose(home, installed=False)
    assert (choice.settings.engine, choice.reason) == ("onnxruntime", "OpenVINO is not installed")


def test_auto_takes_onnxruntime_for_a_model_that_cannot_be_checked(home):
    mtcnn = published()["mtcnn"]
    part = {"pnet": mtcnn.golden["pnet"]}
    for card in (replace(CARD, golden={}), replace(mtcnn, golden=part)):
        choice = choose(home, card=card)
        assert choice.settings.engine == "onnxruntime"
        assert choice.reason == "the card has no golden answer to check OpenVINO with"


def test_what_was_asked_for_by_name_is_taken_as_it_is(home):
    for engine in ("onnxruntime", "openvino"):
        choice = choose(home, engine=engine, installed=False)
        assert (choice.settings.engine, choice.reason) == (engine, "asked for")


@pytest.mark.parametrize("device", [d for d in DEVICES if len(DEVICES[d]) == 1])
def test_a_device_of_one_runtime_decides(home, device):
    choice = choose(home, device=device)
    assert choice.settings.engine == DEVICES[device][0]
    assert choice.reason == f"the one engine for the device {device}"


@pytest.mark.parametrize(
    ("installed", "ask", "reason"),
    [
        (False, never, "OpenVINO is not installed"),
        (True, answer(False, "this processor has no bfloat16"), "turned down: this processor has"),
    ],
)
def test_bf16_is_never_left_for_fp32(home, installed, ask, reason):
    with pytest.raises(EngineError, match=rf"bf16 was asked for.*{reason}"):
        choose(home, precision="bf16", installed=installed, ask=ask)


@pytest.mark.parametrize("engine", ["auto", "onnxruntime"])
@pytest.mark.parametrize("device", ABSENT)
def test_a_device_that_is_not_there_is_an_error_that_lists_what_is(home, device, engine):
    with pytest.raises(EngineError, match=rf"The device {device} was asked for.*offers .*cpu"):
        load_model("mobilefacenet", settings=EngineSettings(engine=engine, device=device))


def test_there_is_always_a_device_to_miss():
    assert ABSENT  # no machine has both CUDA and CoreML


def test_a_device_of_another_runtime_is_an_error():
    with pytest.raises(EngineError, match="device cuda runs with onnxruntime, not with openvino"):
        EngineSettings(engine="openvino", device="cuda")
    with pytest.raises(EngineError, match="device npu runs with openvino, not with onnxruntime"):
        EngineSettings(engine="onnxruntime", device="NPU")


@pytest.mark.parametrize("field", ["engine", "precision", "device"])
def test_a_setting_that_does_not_exist_is_named(field):
    with pytest.raises(SettingsError, match=rf"{field} should be one of .*; got 'steam'"):
        EngineSettings(**{field: "steam"})


def test_a_built_in_model_is_checked_once_and_runs(home):
    """The whole way, with the real child."""
    model = load_model("mobilefacenet", kind="embedder")
    assert model.card is published()["mobilefacenet"]
    assert model.engine.describe()["engine"] == "openvino"
    assert model.reason.startswith("OpenVINO agrees with the golden answer to ")
    (memory,) = (home / "checks").iterdir()
    changed = json.loads(memory.read_text()) | {"reason": "was remembered"}
    memory.write_text(json.dumps(changed))
    again = load_model("mobilefacenet")
    assert again.reason == "OpenVINO was remembered"
    expected = model.card.golden["mobilefacenet"].outputs["embedding"]
    (got,) = again.engine.run({"image": golden_input((1, 3, 112, 112))}).values()
    assert got[0] == pytest.approx(expected, abs=1e-4)


def test_a_model_of_several_files_has_an_engine_each(home):
    settings = EngineSettings(engine="onnxruntime", device="cpu", threads=1)
    model = load_model("mtcnn", kind="detector", settings=settings)
    assert list(model.engines) == ["pnet", "rnet", "onet"]
    assert model.engines["rnet"].inputs == {"image": (None, 3, 24, 24)}
    assert (model.reason, model.engine) == ("asked for", model.engines["pnet"])
    assert model.engine.describe()["threads"] == 1


def test_a_model_that_is_not_here_or_changed_does_not_load(home):
    with pytest.raises(ModelError, match="models pull facenet-casia-webface` .94 MB"):
        load_model("facenet-casia-webface")
    with pytest.raises(ModelFileError, match="mtcnn is a detector; an embedder is needed"):
        load_model("mtcnn", kind="embedder")
    store = ModelStore()
    folder = store.folder(CARD)
    folder.mkdir(parents=True)
    (folder / "made").write_bytes(linear().SerializeToString())
    store.put(CARD, {"toy.onnx": folder / "made"})
    (folder / "card.json").write_text(json.dumps(CARD.to_dict()))
    settings = EngineSettings(engine="onnxruntime", device="cpu")
    assert load_model("toy", settings=settings, store=store).card == CARD
    data = bytearray((folder / "toy.onnx").read_bytes())
    data[100] ^= 1
    (folder / "toy.onnx").write_bytes(data)
    with pytest.raises(DigestError, match=CARD.files[0].sha256):
        load_model("toy", settings=settings, store=store)
