"""The fastest arithmetic that computes right: which it is, why, and what a child that dies says."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_quantised import record
from toy_models import linear, linear_card

from facenet.models.catalog import CARD, published
from facenet.models.effect import Effect
from facenet.models.engine import BATCHES, EngineSettings, golden_input
from facenet.models.fastest import (
    GAIN,
    ROUNDS,
    Times,
    fastest,
    in_words,
    main,
    measure,
    remembered_times,
    time_in_child,
)
from facenet.models.loader import choose_engine, load_model, settled
from facenet.models.measured import Measured, measured_path, read_measured, save_measured
from facenet.models.quantised import RECORD, quantised_path, save_quantised
from facenet.models.selfcheck import Verdict
from facenet.models.store import ModelStore

DATA = linear().SerializeToString()
LITTLE = Effect("LFW", 6000, 0.9915, 0.9905)
CARD_OF = replace(linear_card(DATA), effects={"bf16": LITTLE})
AUTO = EngineSettings(device="cpu", precision="auto")
CANDIDATES = [EngineSettings("openvino", "cpu", name) for name in ("fp32", "bf16")]
GOOD = Verdict(True, "agrees")
NO_BF16 = Verdict(False, "bf16 was asked for; this processor has none.")


@pytest.fixture
def store(home):
    """A store that has the toy, and a file that stands in for an 8-bit one."""
    store = ModelStore(home)
    folder = store.folder(CARD_OF)
    folder.mkdir(parents=True)
    with store.locked("toy"):
        (folder / "made").write_bytes(DATA)
        store.put(CARD_OF, {"toy.onnx": folder / "made"})
    (folder / CARD).write_text(json.dumps(CARD_OF.to_dict()))
    save_quantised(CARD_OF, record(), DATA, store)
    return store


class Clock:
    """Stands in for the child that times."""

    def __init__(self, problem="", lasting=True, **batch):
        self.times = Times({k: (v / 10, v) for k, v in batch.items()}, problem, lasting)
        self.asked = []

    def __call__(self, name, home, candidates):
        self.asked.append([(each.engine, each.precision) for each in candidates])
        return self.times


def verdicts(**given):
    return lambda name, settings, home: given.get(settings.precision, GOOD)


def choose(store, clock, *, ask=None, installed=True, card=CARD_OF, **settings):
    return choose_engine(
        card,
        replace(AUTO, **settings),
        store.home,
        installed=lambda: installed,
        ask=ask or verdicts(),
        clock=clock,
    )


# The choice


@pytest.mark.parametrize(
    ("batch", "taken"),
    [
        ({"fp32": 60, "bf16": 10, "int8": 8}, "int8"),
        ({"fp32": 60, "bf16": 10, "int8": 14}, "bf16"),
        ({"fp32": 10, "bf16": 20, "int8": 30}, "fp32"),
        ({"fp32": 10, "bf16": 9.8, "int8": 9.7}, "fp32"),  # no gain that is worth it
        ({"fp32": 10, "bf16": 5, "int8": 4.9}, "bf16"),
        ({"fp32": GAIN * 10 + 0.01, "bf16": 10}, "bf16"),
    ],
)
def test_the_fastest_is_taken_unless_a_more_exact_one_is_as_fast(store, batch, taken):
    assert fastest({name: (1.0, value) for name, value in batch.items()}) == taken
    ask = verdicts() if "int8" in batch else verdicts(int8=Verdict(False, "wrong"))
    choice = choose(store, Clock(**batch), ask=ask)
    assert (choice.settings.precision, choice.settings.engine) == (taken, "openvino")
    assert choice.reason.startswith(f"{taken} taken: bf16 is ")


def test_the_reason_has_the_ratios():
    words = in_words({"fp32": (5.0, 60.0), "bf16": (2.0, 10.0), "int8": (4.0, 120.0)})
    assert words == (
        "bf16 is 6.00 times as fast as fp32 in batches of 16 and 2.50 times one by one, "
        "int8 is 0.50 times as fast as fp32 in batches of 16 and 1.25 times one by one"
    )


def test_what_does_not_compute_right_is_not_timed_and_named(store):
    clock = Clock(fp32=60, int8=20)
    choice = choose(store, clock, ask=verdicts(bf16=Verdict(False, "crashed with SIGILL")))
    assert choice.settings.precision == "int8"
    assert clock.asked == [[("openvino", "fp32"), ("openvino", "int8")]]
    assert (
        "; bf16: only OpenVINO computes it, and OpenVINO was turned down: crashed with SIGILL"
        in (choice.reason)
    )


def test_what_is_alone_is_not_timed(store):
    save_quantised(CARD_OF, record(offered=False, reason="Too far off.", sha256="", bytes=0,
                                   effect=None, golden=None), b"", store)  # fmt: skip
    clock = Clock()
    choice = choose(store, clock, ask=verdicts(bf16=NO_BF16))
    assert (choice.settings.precision, clock.asked) == ("fp32", [])
    assert choice.reason.startswith("fp32, the only one; bf16: ")
    assert "int8: the 8-bit file of toy was refused: Too far off. Use" in choice.reason
    assert choose(store, clock, installed=False).settings.engine == "onnxruntime"


def test_a_damaged_record_of_8_bits_is_told_and_no_end(store):
    quantised_path(CARD_OF, store.home).with_name(RECORD).write_text("{")
    choice = choose(store, Clock(fp32=60, bf16=10))
    assert choice.settings.precision == "bf16"
    assert "int8.json should be the record of an 8-bit file; " in choice.reason


def test_as_on_an_older_processor_it_is_fp32_and_says_why(store):
    clock = Clock()
    choice = choose(store, clock, instructions="avx2")
    assert (choice.settings.precision, choice.settings.instructions) == ("fp32", "avx2")
    assert clock.asked == []
    for precision in ("bf16", "int8"):
        assert f"; {precision}: it is left out where the instructions are held to avx2" in (
            choice.reason
        )


def test_without_openvino_8_bits_may_still_be_faster(store):
    choice = choose(store, Clock(fp32=60, int8=20), installed=False)
    assert (choice.settings.engine, choice.settings.precision) == ("onnxruntime", "int8")


def test_an_engine_that_was_named_is_verified_too(store):
    def ask(name, settings, home):
        assert settings.engine == "openvino"
        return {"int8": Verdict(False, "wrong")}.get(settings.precision, GOOD)

    choice = choose(store, Clock(fp32=60, bf16=20), ask=ask, engine="openvino")
    assert choice.settings.precision == "bf16"
    assert "; int8: wrong" in choice.reason
    named = choose(store, Clock(fp32=6, int8=2), engine="onnxruntime")
    assert (named.settings.engine, named.settings.precision) == ("onnxruntime", "int8")


def test_detectors_and_other_devices_run_in_fp32(store):
    choice = choose(store, Clock(), card=published()["mtcnn"])
    assert choice.settings.precision == "fp32"
    assert choice.reason.startswith("fp32, as always but for embedders on the cpu; OpenVINO agrees")
    assert choose(store, Clock(), device="cuda").settings.precision == "fp32"


# What bfloat16 does to decisions


def measured(reduced=0.9915, median=0.9995, **changes):
    values = {
        "model": "toy",
        "source": {"toy.onnx": CARD_OF.files[0].sha256},
        "lowest": 0.9991,
        "median": median,
        "crops": 400,
        "effect": Effect("own", 600, 0.9915, reduced),
        "engine": "openvino 1 on cpu",
        "processor": "a processor",
        "created": "2026-11-22T12:00:00Z",
    }
    return Measured(**{**values, **changes})


MEASURE = "`facenet models quantize toy --precision bf16 --images DIR`"


def test_bf16_is_taken_only_where_its_effect_is_known_and_little(store):
    def taken(effects):
        card = replace(CARD_OF, effects=effects)
        ask = verdicts(int8=Verdict(False, "wrong"))
        return choose(store, Clock(fp32=60, bf16=10), ask=ask, card=card)

    for change in (0, 0.001, -0.001):
        effect = Effect("LFW", 6000, 0.99, 0.99 + change)
        assert taken({"bf16": effect}).settings.precision == "bf16"
    unknown = taken({})
    assert unknown.settings.precision == "fp32"
    assert "; bf16: what it does to the decisions of toy was not measured. " in unknown.reason
    assert MEASURE in unknown.reason
    worse = taken({"bf16": Effect("LFW", 6000, 0.9915, 0.9903)})
    assert worse.settings.precision == "fp32"
    assert (
        "; bf16: the accuracy on 6,000 pairs of LFW changes by -0.0012, from 0.9915 to 0.9903; "
        "at most 0.001 is allowed" in worse.reason
    )
    named = choose(store, Clock(), card=replace(CARD_OF, effects={}), precision="bf16")
    assert named.settings.precision == "bf16"


@pytest.mark.parametrize(
    ("record", "taken"),
    [
        (measured(), "bf16"),
        (measured(0.9902), "fp32"),
        (measured(median=0.9989), "fp32"),
        (measured(0.9902, source={"toy.onnx": "b" * 64}), "bf16"),  # of other weights: the card
    ],
)
def test_what_was_measured_here_counts_more_than_the_card(store, record, taken):
    save_measured(CARD_OF, record, store)
    assert read_measured(CARD_OF, store.home) == record
    ask = verdicts(int8=Verdict(False, "wrong"))
    choice = choose(store, Clock(fp32=60, bf16=10), ask=ask)
    assert choice.settings.precision == taken
    assert ("; bf16: it was measured here and refused: Its vectors" in choice.reason) is (
        taken == "fp32"
    )
    bare = replace(CARD_OF, effects={})
    alone = choose(store, Clock(fp32=60, bf16=10), ask=ask, card=bare)
    assert alone.settings.precision == ("bf16" if record == measured() else "fp32")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"effect": {}}', "[" * 100_000, "x" * (2 << 20)])
def test_a_damaged_measurement_is_told_and_no_end(store, text):
    save_measured(CARD_OF, measured(), store)
    measured_path(CARD_OF, store.home).write_text(text)
    choice = choose(store, Clock(fp32=60, int8=10))
    assert choice.settings.precision == "int8"
    assert "bf16.json should be the record of a measurement in bf16; " in choice.reason
    assert MEASURE in choice.reason


def test_the_models_measured_on_lfw_have_their_effect_on_the_card():
    """The figures are those of docs/evaluation.md, to its four digits."""
    page = Path(__file__).parents[2] / "docs" / "evaluation.md"
    rows = [line.split("|") for line in page.read_text("utf-8").splitlines() if "| bf16 |" in line]
    exact = [line.split("|") for line in page.read_text("utf-8").splitlines() if "| fp32 |" in line]
    told = {
        fp32[1].strip(" `"): (fp32[3].split()[0], bf16[3].split()[0])
        for fp32, bf16 in zip(exact, rows, strict=True)
    }
    known = {card.name: card.effects["bf16"] for card in published().values() if card.effects}
    assert {n: (f"{e.fp32:.4f}", f"{e.reduced:.4f}") for n, e in known.items()} == told
    assert all(effect.little for effect in known.values())


# The memory


def test_times_are_taken_once_and_remembered_with_the_choice(store):
    clock = Clock(fp32=60, bf16=10, int8=8)
    first = choose(store, clock)
    assert choose(store, clock) == first
    assert len(clock.asked) == 1
    kept = [json.loads(path.read_text()) for path in (store.home / "checks").iterdir()]
    (times,) = [data for data in kept if "milliseconds" in data]
    assert times["choice"] == "int8"
    assert times["ratios"] == pytest.approx({"fp32": 1, "bf16": 6, "int8": 7.5})
    assert list(times["milliseconds"]) == ["fp32", "bf16", "int8"]


def test_whatever_the_times_rest_on_is_measured_anew(store):
    clock = Clock(fp32=60, bf16=10)

    def count(candidates=CANDIDATES, card=CARD_OF):
        for _ in range(2):
            remembered_times(card, store.home, candidates, clock=clock)
        return len(clock.asked)

    assert count() == 1
    assert count([replace(each, threads=1) for each in CANDIDATES]) == 2
    assert (
        count(
            [
                replace(each, engine="onnxruntime", precision=p)
                for each, p in zip(CANDIDATES, ("fp32", "int8"), strict=True)
            ]
        )
        == 4
    )  # other names: never kept
    assert count(card=replace(CARD_OF, name="other")) == 5
    assert count(card=replace(CARD_OF, notes="other")) == 5


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"milliseconds": {"fp32": [1, 2]}}',
             '{"milliseconds": {"fp32": [1, 2], "bf16": [1, NaN]}}',
             '{"milliseconds": {"fp32": [1, 2], "bf16": [1, 0]}}',
             '{"milliseconds": {"fp32": [1, 2], "bf16": "fast"}}'],
)  # fmt: skip
def test_a_damaged_memory_is_measured_anew(store, text):
    clock = Clock(fp32=60, bf16=10)
    remembered_times(CARD_OF, store.home, CANDIDATES, clock=clock)
    (path,) = (store.home / "checks").iterdir()
    path.write_text(text)
    assert remembered_times(CARD_OF, store.home, CANDIDATES, clock=clock) == clock.times
    assert len(clock.asked) == 2


@pytest.mark.parametrize("lasting", [True, False])
def test_a_timing_that_fails_leaves_the_exact_one_and_says_so(store, lasting):
    clock = Clock("crashed with SIGILL", lasting)
    for _ in range(2):
        choice = choose(store, clock)
        assert choice.settings.precision == "fp32"
        assert choice.reason == "fp32, because the timing crashed with SIGILL"
    assert len(clock.asked) == (1 if lasting else 2)


# The child


def python(code):
    return (sys.executable, "-c", code)


CRASH = "import os, signal; os.kill(os.getpid(), signal.{})"


@pytest.mark.parametrize(
    ("command", "problem", "lasting"),
    [
        (python(CRASH.format("SIGSEGV")), "crashed with SIGSEGV", True),
        (python(CRASH.format("SIGILL")), "crashed with SIGILL", True),
        (python(CRASH.format("SIGKILL")), "crashed with SIGKILL", False),
        (python("raise SystemExit('no memory')"), "no memory", False),
        (python("print('hello')"), "the check ended with 0", False),
        (python("""print('{"milliseconds": {"fp32": [1, 2]}}')"""), "the check ended with", False),
        (python("print('{\"problem\": \"does not load\"}')"), "does not load", True),
        (("/no/such/program",), "cannot be checked: .*No such file", False),
    ],
)  # fmt: skip
def test_a_child_that_ends_otherwise_is_no_end(home, command, problem, lasting):
    times = time_in_child("toy", home, CANDIDATES, command=command)
    assert (times.milliseconds, times.lasting) == ({}, lasting)
    assert re.fullmatch(problem + ".*", times.problem)


def test_a_child_that_hangs_is_ended(home):
    hangs = python("import time; time.sleep(600)")
    times = time_in_child("toy", home, CANDIDATES, command=hangs, patience=0.3)
    assert times == Times({}, "gave no answer within 0.3 seconds", lasting=False)


def test_the_child_times_each_precision(store, capsys):
    """The whole way, with the real child; then in this process, for its one line."""
    candidates = [EngineSettings("openvino", "cpu", name) for name in ("fp32", "int8")]
    times = time_in_child("toy", store.home, candidates)
    assert (list(times.milliseconds), times.problem) == (["fp32", "int8"], "")
    assert all(one > 0 and many > 0 for one, many in times.milliseconds.values())
    asked = json.dumps([{"engine": "openvino", "device": "cpu"}])
    assert main(["toy", str(store.home), asked]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert list(json.loads(line)["milliseconds"]) == ["fp32"]
    broken = json.dumps([{"engine": "openvino", "device": "gpu", "precision": "fp32"}])
    assert main(["toy", str(store.home), broken]) == 0
    assert "gpu" in json.loads(capsys.readouterr().out)["problem"]


class Counted:
    """An engine whose runs take as many seconds as it says; `now` is its clock."""

    def __init__(self, clock, seconds, batch=None):
        self.clock, self.seconds, self.runs = clock, list(seconds), []
        self.inputs = {"image": (batch, 3, 4, 5)}

    def run(self, feeds):
        (image,) = feeds.values()
        assert np.array_equal(image, golden_input(image.shape))
        self.runs.append(len(image))
        self.clock[0] += self.seconds[len(self.runs) % len(self.seconds)]


def test_engines_are_timed_in_turn_and_the_first_run_does_not_count():
    clock = [0.0]
    first, second = Counted(clock, [0.002]), Counted(clock, [0.004], batch=4)
    found = measure({"a": first, "b": second}, (3, 4, 5), rounds=5, now=lambda: clock[0])
    assert first.runs == [1, 16] * 6
    assert second.runs == [4, 4, 4, 4, 4] * 6  # a fixed batch: once for one, four times for 16
    assert found == {"a": pytest.approx((2, 2)), "b": pytest.approx((4, 16))}
    assert (BATCHES, ROUNDS >= 5) == ((1, 16), True)


def test_a_built_in_model_is_timed_once_and_runs_as_the_reason_says(home):
    """The whole way, whatever this processor can do."""
    model = load_model("mobilefacenet", settings=AUTO)
    taken = model.engine.describe()["precision"]
    assert model.reason.startswith((f"{taken} taken: ", f"{taken}, the only one; "))
    assert "; int8: mobilefacenet has no 8-bit file on this machine. Make one" in model.reason
    assert settled("mobilefacenet", AUTO).reason == model.reason
