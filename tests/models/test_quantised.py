"""The record of an 8-bit file: written and read, and what is told where it may not be used."""

import json
from dataclasses import replace
from hashlib import sha256

import pytest
from toy_models import golden, linear, linear_card

from facenet.errors import DigestError, EngineError, ModelFileError
from facenet.models.catalog import CARD, published
from facenet.models.effect import Effect
from facenet.models.engine import EngineSettings
from facenet.models.loader import choose_engine, load_model
from facenet.models.parity import WHEN_MADE
from facenet.models.quantised import (
    RECORD,
    Calibrated,
    Closeness,
    Quantised,
    as_quantised,
    quantised_path,
    read_record,
    require_quantised,
    save_quantised,
)
from facenet.models.selfcheck import Verdict, ask_child, remembered
from facenet.models.store import ModelStore

DATA = linear().SerializeToString()
CARD_OF = linear_card(DATA)
VINO8 = EngineSettings(engine="openvino", device="cpu", precision="int8")
TRY = Closeness("nothing", 0, 0.98, 0.995, 100)


def record(data=DATA, **changes):
    """Of a file that is offered; the toy's own graph stands in for an 8-bit one."""
    values = {
        "model": "toy",
        "offered": True,
        "reason": "It is as good.",
        "sha256": sha256(data).hexdigest(),
        "bytes": len(data),
        "source": {"toy.onnx": CARD_OF.files[0].sha256},
        "calibration": Calibrated(300, "a" * 64, 0, 12),
        "tries": (TRY,),
        "effect": Effect("LFW", 6000, 0.9875, 0.9873),
        "tool": "a tool 1.0",
        "engine": "openvino 1 on cpu",
        "processor": "a processor",
        "created": "2026-11-22T12:00:00Z",
        "golden": golden(),
    }
    return Quantised(**{**values, **changes})


def refused(reason="It is not as good."):
    return record(offered=False, reason=reason, sha256="", bytes=0, effect=None, golden=None)


@pytest.fixture
def store(home):
    """A store that has the toy."""
    store = ModelStore(home)
    folder = store.folder(CARD_OF)
    folder.mkdir(parents=True)
    with store.locked("toy"):
        (folder / "made").write_bytes(DATA)
        store.put(CARD_OF, {"toy.onnx": folder / "made"})
    (folder / CARD).write_text(json.dumps(CARD_OF.to_dict()))
    return store


def settle(store, ask=None, **settings):
    settings = EngineSettings(**{"device": "cpu", "precision": "int8", **settings})
    return choose_engine(CARD_OF, settings, store.home, ask=ask)


def test_a_record_is_read_as_it_was_written(store):
    assert read_record(CARD_OF, store.home) is None
    save_quantised(CARD_OF, record(), DATA, store)
    assert read_record(CARD_OF, store.home) == record()
    assert require_quantised(CARD_OF, store) == record()
    assert quantised_path(CARD_OF, store.home).read_bytes() == DATA
    assert record().effect.change == pytest.approx(-0.0002)
    summary = record().summary()
    assert (summary["change"], "golden" in summary) == (pytest.approx(-0.0002), False)
    left = {path.name for path in store.folder(CARD_OF).iterdir()}
    assert left == {"toy.onnx", "digests.json", "card.json", "toy.int8.onnx", RECORD}


def test_a_built_in_model_has_its_8_bit_file_in_the_home(home):
    card, store = published()["mobilefacenet"], ModelStore()
    made = record(source=store.digests(card), model="mobilefacenet")
    save_quantised(card, made, DATA, store)
    assert quantised_path(card, home) == home / "models/mobilefacenet/mobilefacenet.int8.onnx"
    assert require_quantised(card, store) == made


def test_the_last_run_counts_and_a_refusal_takes_the_file_away(store):
    save_quantised(CARD_OF, record(), DATA, store)
    save_quantised(CARD_OF, refused(), b"", store)
    assert read_record(CARD_OF, store.home) == refused()
    assert not quantised_path(CARD_OF, store.home).exists()


MAKE = r"`facenet models quantize toy --images DIR`"


@pytest.mark.parametrize("engine", ["auto", "openvino", "onnxruntime"])
def test_without_a_file_the_command_is_named(store, engine):
    with pytest.raises(EngineError, match=f"toy has no 8-bit file on this machine. .* {MAKE}, or"):
        settle(store, engine=engine)
    save_quantised(CARD_OF, record(), DATA, store)
    quantised_path(CARD_OF, store.home).unlink()
    with pytest.raises(EngineError, match="has no 8-bit file"):
        load_model("toy", settings=EngineSettings(engine, "cpu", "int8"), store=store)


def test_a_refusal_is_told_with_its_numbers(store):
    save_quantised(CARD_OF, refused("Its vectors have 0.9702 at best."), b"", store)
    with pytest.raises(EngineError, match=f"was refused: .* 0.9702 at best. Use .* {MAKE} with"):
        settle(store)


def test_a_file_of_other_weights_is_not_used(store):
    save_quantised(CARD_OF, record(source={"toy.onnx": "b" * 64}), DATA, store)
    with pytest.raises(EngineError, match=f"made of other weights .* Make it anew with {MAKE}"):
        settle(store)


def test_a_changed_byte_is_seen_each_time(store):
    save_quantised(CARD_OF, record(), DATA, store)
    as_quantised(CARD_OF, store)
    quantised_path(CARD_OF, store.home).write_bytes(DATA[:-1] + b"x")
    with pytest.raises(DigestError, match=f"{record().sha256}; it has .* {MAKE}"):
        as_quantised(CARD_OF, store)
    settings = EngineSettings("openvino", "cpu", "int8")
    with pytest.raises(DigestError):
        load_model("toy", settings=settings, store=store)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"model": 1}', json.dumps({**record().to_dict(), "tries": []}),
     json.dumps({**record().to_dict(), "sha256": "short"}),
     json.dumps({**record().to_dict(), "effect": None}),
     json.dumps({**record().to_dict(), "unknown": 1}), "[" * 100_000, "x" * (5 << 20)],
)  # fmt: skip
def test_a_damaged_record_is_named_and_not_believed(store, text):
    save_quantised(CARD_OF, record(), DATA, store)
    path = quantised_path(CARD_OF, store.home).with_name(RECORD)
    path.write_text(text)
    with pytest.raises(ModelFileError, match=r"int8\.json should be the record .* Remove it, or"):
        read_record(CARD_OF, store.home)
    with pytest.raises(ModelFileError) as caught:
        settle(store)
    assert len(str(caught.value)) < 700


def test_only_embedders_on_the_cpu_have_one(home):
    with pytest.raises(
        EngineError, match="for embedders on the cpu, and this is the detector mtcnn on cpu"
    ):
        choose_engine(published()["mtcnn"], EngineSettings("auto", "cpu", "int8"), home)
    gpu = EngineSettings("openvino", "gpu", "int8")
    with pytest.raises(EngineError, match="this is the embedder mobilefacenet on gpu"):
        choose_engine(published()["mobilefacenet"], gpu, home)


# The check, and the engine


def answers(**verdicts):
    return lambda name, settings, home: verdicts[settings.engine]


GOOD, BAD = Verdict(True, "agrees with it"), Verdict(False, "crashed with SIGILL")


def test_openvino_comes_first_and_onnxruntime_where_it_is_wrong(store):
    save_quantised(CARD_OF, record(), DATA, store)
    choice = settle(store, ask=answers(openvino=GOOD))
    assert (choice.settings.engine, choice.settings.precision) == ("openvino", "int8")
    assert settle(store, engine="openvino").reason == "asked for"
    (store.home / "checks").rename(store.home / "old")
    choice = settle(store, ask=answers(openvino=BAD, onnxruntime=GOOD))
    assert choice.settings.engine == "onnxruntime"
    assert choice.reason == (
        "OpenVINO was turned down: crashed with SIGILL; ONNX Runtime agrees with it"
    )
    (store.home / "checks").rename(store.home / "older")
    with pytest.raises(EngineError, match="turned down: crashed .* ONNX Runtime was turned down"):
        settle(store, ask=answers(openvino=BAD, onnxruntime=BAD))


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_the_child_compares_with_the_file_s_own_answer(store, engine):
    save_quantised(CARD_OF, record(), DATA, store)
    settings = EngineSettings(engine, "cpu", "int8")
    verdict = ask_child("toy", settings, store.home)
    assert verdict.ok
    assert verdict.reason.startswith(f"agrees with {WHEN_MADE} to ")
    off = replace(golden(), outputs={"embedding": golden().outputs["embedding"][::-1]})
    save_quantised(CARD_OF, record(golden=off), DATA, store)
    verdict = ask_child("toy", settings, store.home)
    assert (verdict.ok, verdict.lasting) == (False, True)
    assert "with a relative error of" in verdict.reason


def test_another_file_is_asked_anew(store):
    times = []

    def ask(name, settings, home):
        times.append(name)
        return GOOD

    for made in (record(), record(), record(golden=replace(golden(), shape=(1, 3, 16, 16)))):
        save_quantised(CARD_OF, made, DATA, store)
        remembered(CARD_OF, VINO8, store.home, ask=ask)
    assert len(times) == 1
    data = linear(seed=1).SerializeToString()
    save_quantised(CARD_OF, record(data), data, store)
    remembered(CARD_OF, VINO8, store.home, ask=ask)
    remembered(CARD_OF, replace(VINO8, precision="fp32"), store.home, ask=ask)
    assert len(times) == 3


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_model_loads_as_its_8_bit_file(store, engine):
    data = linear(seed=1).SerializeToString()  # of other weights, so that it shows which one runs
    save_quantised(CARD_OF, record(data), data, store)
    model = load_model("toy", settings=EngineSettings(engine, "cpu", "int8"), store=store)
    assert model.card == CARD_OF  # and so the contract is that of the model
    found = model.engine.describe()
    assert (found["precision"], found["weights"]) == ("int8", sha256(data).hexdigest()[:16])
