import json
import re
import sys
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from toy_models import golden, linear, linear_card

from facenet.errors import EngineError
from facenet.models.card import Golden
from facenet.models.catalog import CARD, published
from facenet.models.engine import PRECISIONS, EngineSettings, golden_input, relative_error
from facenet.models.selfcheck import (
    LEAST_COSINE,
    TOLERANCE,
    Verdict,
    ask_child,
    check_answer,
    main,
    remembered,
)
from facenet.models.store import ModelStore

DATA = linear().SerializeToString()
ORT = EngineSettings(engine="onnxruntime", device="cpu")
VINO = EngineSettings(engine="openvino", device="cpu")


def scaled(card, factor):
    """The card with a golden answer that is `factor` times the right one."""
    answer = tuple(factor * v for v in card.golden["toy"].outputs["embedding"])
    return replace(card, golden={"toy": Golden(card.golden["toy"].shape, {"embedding": answer})})


def install(home, card, data=DATA):
    store = ModelStore(home)
    with store.locked(card.name):
        made = store.folder(card) / "made"
        made.parent.mkdir(exist_ok=True)
        made.write_bytes(data)
        store.put(card, {card.files[0].path: made})
    (store.folder(card) / CARD).write_text(json.dumps(card.to_dict()))
    return store


@pytest.fixture
def card():
    return linear_card(DATA)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "toy.onnx"
    path.write_bytes(DATA)
    return path


class Asked:
    """Stands in for the child: counts how often it is asked."""

    def __init__(self, verdict):
        self.verdict, self.times = verdict, 0

    def __call__(self, name, settings, home):
        self.times += 1
        return self.verdict


# The answer


def test_the_golden_input_is_the_formula_of_the_cards():
    got = golden_input((2, 3, 4, 5))
    step = [0.6 * np.sin(0.0131 * k) + 0.4 * np.cos(0.731 * k + 1) for k in range(120)]
    np.testing.assert_allclose(got.ravel(), step, atol=1e-7)
    assert (got.shape, got.dtype) == ((2, 3, 4, 5), np.float32)


def test_the_relative_error_is_a_length_over_a_length():
    expected = np.array([3, 4], np.float32)
    assert relative_error(np.array([3, 4.5], np.float32), expected) == pytest.approx(0.5 / 5)
    assert relative_error(expected[:1], expected) == np.inf
    assert relative_error(np.array([3, np.nan], np.float32), expected) == np.inf


@pytest.mark.parametrize("settings", [ORT, VINO], ids=lambda s: s.engine)
@pytest.mark.parametrize("factor", [1, 1.0005, 0.9995])
def test_an_answer_within_the_tolerance_is_right(card, model, settings, factor):
    error = check_answer(scaled(card, factor), {"toy": model}, settings)
    assert error == pytest.approx(abs(1 / factor - 1), abs=1e-6)


@pytest.mark.parametrize("settings", [ORT, VINO], ids=lambda s: s.engine)
@pytest.mark.parametrize("factor", [1.002, 0.5, -1, float("nan")])
def test_an_answer_beyond_the_tolerance_is_refused(card, model, settings, factor):
    with pytest.raises(EngineError, match=rf"{settings.engine} answers toy with a relative error"):
        check_answer(scaled(card, factor), {"toy": model}, settings)


def test_an_output_the_graph_does_not_have_is_named(card, model):
    answer = Golden((1, 3, 16, 16), {"embedding": (0.0,) * 8, "quality": (0.0,)})
    with pytest.raises(EngineError, match=r"outputs embedding, quality; quality is not among them"):
        check_answer(replace(card, golden={"toy": answer}), {"toy": model})


def test_a_file_without_an_answer_still_has_to_load(card, model):
    bare = replace(card, golden={})
    assert check_answer(bare, {"toy": model}) == 0
    model.write_bytes(b"no model")
    with pytest.raises(EngineError, match="could not load"):
        check_answer(bare, {"toy": model})


def test_every_file_of_a_model_is_checked():
    card = published()["mtcnn"]
    paths = ModelStore().files(card)
    assert 0 < check_answer(card, paths) < 1e-4
    for stem in paths:
        outputs = {k: (9.0, *v[1:]) for k, v in card.golden[stem].outputs.items()}
        wrong = {**card.golden, stem: replace(card.golden[stem], outputs=outputs)}
        with pytest.raises(EngineError, match="answers mtcnn"):
            check_answer(replace(card, golden=wrong), paths)


# The child


@pytest.mark.parametrize("settings", [ORT, VINO], ids=lambda s: s.engine)
def test_a_child_agrees_or_disagrees(home, card, settings):
    install(home, card)
    verdict = ask_child("toy", settings, home)
    assert verdict.ok
    assert verdict.lasting
    assert verdict.reason.startswith("agrees with onnxruntime's answer at import to ")
    assert 0 <= verdict.difference < 1e-5
    assert verdict.cosine == pytest.approx(1, abs=1e-9)
    install(home, scaled(card, 1.5))
    verdict = ask_child("toy", settings, home)
    assert (verdict.ok, verdict.lasting) == (False, True)
    assert "a relative error of 0.33" in verdict.reason  # |1 - 1.5| / 1.5


def test_the_work_folder_is_not_where_the_child_finds_its_modules(
    home, card, tmp_path, monkeypatch
):
    install(home, card)
    (tmp_path / "numpy.py").write_text("raise SystemExit('not that one')")
    monkeypatch.chdir(tmp_path)
    assert ask_child("toy", ORT, home).ok


def test_a_child_that_cannot_check_proves_nothing(home, card):
    store = install(home, card)
    path = store.folder(card) / "toy.onnx"
    path.write_bytes(DATA[:-1])
    verdict = ask_child("toy", ORT, home)
    assert (verdict.ok, verdict.lasting) == (False, False)
    assert sha256(DATA).hexdigest() in verdict.reason


def test_the_child_prints_one_line(home, card, capsys):
    install(home, card)
    assert main(["toy", "onnxruntime", "cpu", "fp32", "auto", str(home)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["ok"] is True


def python(code):
    return (sys.executable, "-c", code)


CRASH = "import os, signal; os.kill(os.getpid(), signal.{})"


@pytest.mark.parametrize(
    ("command", "reason", "lasting"),
    [
        (python(CRASH.format("SIGFPE")), "crashed with SIGFPE", True),
        (python(CRASH.format("SIGILL")), "crashed with SIGILL", True),
        (python("import os; os.abort()"), "crashed with SIGABRT", True),
        (python(CRASH.format("SIGKILL")), "crashed with SIGKILL", False),
        (python(CRASH.format("SIGTERM")), "crashed with SIGTERM", False),
        (python("raise SystemExit(3)"), "the check ended with 3", False),
        (python("raise SystemExit('glibc is too old')"), "glibc is too old", False),
        (python("print('hello')"), "the check ended with 0", False),
        (python("print('{\"ok\": 1}')"), "the check ended with 0", False),
        (("/no/such/program",), "cannot be checked: .*No such file", False),
    ],
)
def test_a_child_that_ends_otherwise_is_a_verdict(home, command, reason, lasting):
    verdict = ask_child("toy", ORT, home, command=command)
    assert not verdict.ok
    assert verdict.lasting is lasting
    assert re.fullmatch(reason + ".*", verdict.reason)


def test_what_a_runtime_prints_does_not_hide_the_verdict(home):
    code = "print('[INFO] {'); print('{\"ok\": true, \"reason\": \"fine\"}'); print('[INFO] bye')"
    assert ask_child("toy", ORT, home, command=python(code)) == Verdict(True, "fine")


def test_a_child_that_hangs_is_ended(home):
    verdict = ask_child(
        "toy", ORT, home, command=python("import time; time.sleep(600)"), patience=0.3
    )
    assert verdict == Verdict(False, "gave no answer within 0.3 seconds", lasting=False)


def test_a_frozen_application_does_not_start_itself(home, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    verdict = ask_child("toy", ORT, home, command=python("raise SystemExit('started')"))
    assert verdict == Verdict(False, "cannot be checked inside a frozen application", False)


# The memory


@pytest.mark.parametrize("ok", [True, False])
def test_a_verdict_is_found_out_once_and_remembered(home, card, ok):
    asked = Asked(Verdict(ok, "because"))
    for _ in range(3):
        assert remembered(card, VINO, home, ask=asked) == Verdict(ok, "because")
    assert asked.times == 1
    assert len(list((home / "checks").iterdir())) == 1


def test_a_verdict_that_need_not_last_is_not_kept(home, card):
    asked = Asked(Verdict(False, "no memory", lasting=False))
    for _ in range(2):
        assert not remembered(card, VINO, home, ask=asked).ok
    assert asked.times == 2
    assert not (home / "checks").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ok": "yes"}', "null"])
def test_a_damaged_memory_is_asked_anew(home, card, text):
    asked = Asked(Verdict(True, "fine"))
    remembered(card, VINO, home, ask=asked)
    (path,) = (home / "checks").iterdir()
    path.write_text(text)
    assert remembered(card, VINO, home, ask=asked) == Verdict(True, "fine")
    assert asked.times == 2
    assert json.loads(path.read_text())["ok"] is True


def test_a_home_that_cannot_be_written_is_asked_each_time(tmp_path, card):
    (tmp_path / "home").write_text("in the way")
    asked = Asked(Verdict(True, "fine"))
    for _ in range(2):
        assert remembered(card, VINO, tmp_path / "home", ask=asked).ok
    assert asked.times == 2


def test_whatever_the_verdict_rests_on_is_asked_anew(home, card, tmp_path, monkeypatch):
    asked = Asked(Verdict(True, "fine"))

    def times(card, settings=VINO):
        remembered(card, settings, home, ask=asked)
        remembered(card, settings, home, ask=asked)
        return asked.times

    assert times(card) == 1
    assert times(card, replace(VINO, precision="bf16")) == 2
    assert times(card, replace(VINO, device="gpu")) == 3
    assert times(card, ORT) == 4
    assert times(scaled(card, 2)) == 5
    assert times(replace(card, name="other")) == 6
    assert times(replace(card, title="other", notes="other")) == 6
    assert times(card, replace(VINO, threads=1)) == 6
    made = replace(card, files=(replace(card.files[0], sha256=""),))
    install(home, made)
    assert times(made) == 7
    install(home, made, linear(seed=1).SerializeToString())  # the file itself is another
    assert times(made) == 8
    newer = tmp_path / "path" / "openvino-9999.0.dist-info"
    newer.mkdir(parents=True)
    (newer / "METADATA").write_text("Metadata-Version: 2.1\nName: openvino\nVersion: 9999.0\n")
    monkeypatch.syspath_prepend(newer.parent)
    assert times(card) == 9


def test_the_tolerances_tell_the_precisions_apart():
    assert set(TOLERANCE) == set(LEAST_COSINE) == set(PRECISIONS)
    assert golden().shape == (1, 3, 16, 16)
    assert 10 * TOLERANCE["fp32"] < TOLERANCE["bf16"] < TOLERANCE["int8"]
