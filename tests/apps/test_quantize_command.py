"""`facenet models quantize`: what is kept, what is refused, and what the commands say of it.

The networks are those of `toy_models.convolved`, whose harmed layers decide what becomes of them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import contextmanager
from copy import copy

import numpy as np
import pytest
from fakes import ToyDetector
from miniature import toy_face, write_people
from PIL import Image
from shell import refused, run
from toy_models import convolved

from facenet.apps.jobs.quantizing import (
    HELD_OUT,
    Measure,
    Quantising,
    gather_faces,
    quantise_model,
)
from facenet.apps.jobs.rounding import measure_rounded, reduced_text
from facenet.errors import DataError, EngineError, SettingsError
from facenet.faces.embed import Embedder
from facenet.models.catalog import find_card
from facenet.models.effect import Effect
from facenet.models.engine import EngineSettings, open_engine
from facenet.models.loader import load_model
from facenet.models.measured import read_measured
from facenet.models.quantised import read_record
from facenet.models.quantize import Plan, Quantiser
from facenet.models.store import ModelStore
from facenet.recognizer import Recognizer

TOLD = ("--crop", "margin_output", "--standardise", "fixed", "--size", 16)
COLOURS = {"Ann": (250, 30, 30), "Bob": (30, 250, 30), "Cid": (30, 30, 250), "Dot": (250, 250, 30)}


def pictures(root, count=7):
    """A folder per person: noise in a colour of their own."""
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for number in range(1, count + 1):
            noise = random.integers(-25, 25, (70, 64, 3)) + colour
            path = root / name / f"{name}_{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("people"))


@contextmanager
def unseen(label):
    yield lambda done, total: None


def imported(tmp_path, name, **harm):
    path = tmp_path / f"{name}.onnx"
    path.write_bytes(convolved(**harm).SerializeToString())
    assert run("models", "import", path, "--name", name, *TOLD).code == 0
    return find_card(name)


def recognizer(name, detector=None):
    """A recognizer of an imported network and a toy that finds one face in every picture."""
    model = load_model(name, settings=EngineSettings("onnxruntime", "cpu"))
    return Recognizer.from_parts(
        detector or ToyDetector(toy_face), Embedder(model.card, model.engine)
    )


def pairs_file(path, folds=5):
    """LFW's form: in each fold two pairs of one person, two of two."""
    names = list(COLOURS)
    lines = [f"{folds}\t2"]
    for fold in range(folds):
        a, b, c, d = (names[(fold + step) % 4] for step in range(4))
        lines += [f"{a}\t1\t2", f"{b}\t1\t3", f"{a}\t{1 + fold % 4}\t{c}\t2", f"{b}\t2\t{d}\t3"]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_network_that_8_bits_do_not_harm_is_kept(home, tmp_path, people):
    card = imported(tmp_path, "sound")
    how = Quantising(people, pairs_file(tmp_path / "pairs.txt"), count=8)
    record = quantise_model(recognizer("sound"), how, unseen)
    assert record == read_record(card, home)
    assert (record.offered, [each.kept for each in record.tries]) == (True, ["nothing"])
    file = home / "models/sound/sound.int8.onnx"
    assert record.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (record.bytes, record.source) == (file.stat().st_size, ModelStore().digests(card))
    assert record.tool.startswith("onnxruntime.quantization ")
    assert (record.effect.dataset, record.effect.pairs) == ("LFW", 20)
    assert f"changes by {record.effect.change:+.4f}, from {record.effect.fp32:.4f}" in record.reason
    # The cosines once more, one face at a time: the faces held out are those after the first 8.
    faces = gather_faces(recognizer("sound"), how.pair_set(), how, lambda done, total: None)
    exact = recognizer("sound").embedder
    rough = Embedder(card, open_engine(file, EngineSettings("onnxruntime", "cpu", "int8")))
    cosines = [
        (rough.embed_crops(crop[None]) @ exact.embed_crops(crop[None]).T).item()
        for crop in faces.held_out
    ]
    assert record.closeness.crops == len(cosines) == 28 - 8
    assert record.closeness.lowest == pytest.approx(min(cosines), abs=1e-5)
    assert record.closeness.median == pytest.approx(np.median(cosines), abs=1e-5)
    assert 0.99 < record.closeness.median < 1
    model = load_model("sound", settings=EngineSettings("onnxruntime", "cpu", "int8"))
    assert model.card.contract == card.contract
    assert model.engine.describe()["weights"] == record.sha256[:16]


def test_what_8_bits_harm_goes_back_into_float_step_by_step(home, tmp_path, people):
    imported(tmp_path, "harmed", harmed=("last",))
    record = quantise_model(recognizer("harmed"), Quantising(people, count=8), unseen)
    assert record.offered
    assert [(each.kept, each.layers) for each in record.tries] == [
        ("nothing", 0),
        ("the convolutions of single channels", 1),
        ("the first and the last layer", 2),
    ]
    medians = [each.median for each in record.tries]
    assert max(medians[:2]) < 0.99 <= medians[2]


def test_a_network_that_stays_harmed_is_refused_with_its_numbers(home, tmp_path, people):
    card = imported(tmp_path, "lost", harmed=("inner",))
    record = quantise_model(recognizer("lost"), Quantising(people, count=8), unseen)
    assert (record.offered, record.sha256, record.effect, len(record.tries)) == (False, "", None, 4)
    best = max(each.median for each in record.tries)
    assert f"a median cosine of {best:.4f} to those of fp32 at best; at least 0.99" in record.reason
    assert not list((home / "models/lost").glob("*.int8.onnx"))
    with pytest.raises(EngineError, match="refused: Its vectors have a median cosine of .* 0.99"):
        load_model("lost", settings=EngineSettings("onnxruntime", "cpu", "int8"))
    assert "int8 refused. Its vectors have" in " ".join(run("models", "show", "lost").out.split())
    shown = run("models", "show", card.name, "--json").json["int8"]
    assert (shown["offered"], shown["change"], "golden" in shown) == (False, None, False)


def test_decisions_that_change_are_a_refusal_too(home, tmp_path, people):
    """Vectors that are close enough; what becomes of the accuracy is told here."""
    imported(tmp_path, "sound")
    exact, how = recognizer("sound"), Quantising(people, count=8)
    faces = gather_faces(exact, how.pair_set(), how, lambda done, total: None)

    class Other(Measure):
        def _decisions(self, embedder):
            return Effect("LFW", 6000, 0.9875, 0.9875 + self.change)

    with Quantiser(tmp_path / "sound.onnx") as quantiser:
        data = quantiser.quantise(Plan("nothing", ()), [exact.embedder.feed(faces.calibration)])
    for change, passes in ((-0.001, True), (0.001, True), (-0.0011, False), (0.0012, False)):
        measure = Other(exact, how.pair_set(), faces.held_out, unseen)
        measure.change = change
        assert measure.passes(Plan("nothing", ()), data) is passes
        assert f"changes by {change:+.4f}, from 0.9875 to {0.9875 + change:.4f}" in measure.reason()
        assert measure.reason().endswith("; at most 0.001 is allowed.") is not passes


def test_faces_are_drawn_by_the_seed_and_first_from_those_in_no_pair(home, tmp_path, people):
    imported(tmp_path, "sound")
    exact = recognizer("sound")
    pairs = pairs_file(tmp_path / "pairs.txt")
    how = Quantising(people, pairs, count=8)
    first = gather_faces(exact, how.pair_set(), how, lambda done, total: None)
    again = gather_faces(exact, how.pair_set(), how, lambda done, total: None)
    assert first.origin == again.origin
    assert first.origin.in_pairs == 0  # pictures 5 to 7 of each are in no pair
    assert np.array_equal(first.calibration, again.calibration)
    other = Quantising(people, pairs, count=8, seed=1)
    assert gather_faces(exact, how.pair_set(), other, lambda d, t: None).origin.digest != (
        first.origin.digest
    )
    many = Quantising(people, pairs, count=500)
    shares = gather_faces(exact, how.pair_set(), many, lambda done, total: None)
    assert (len(shares.calibration), len(shares.held_out)) == (21, 7)
    assert shares.origin.in_pairs > 0
    together = np.concatenate([shares.calibration, shares.held_out]).reshape(28, -1)
    assert len(np.unique(together, axis=0)) == 28  # nobody is in both
    assert HELD_OUT == 100


def test_what_cannot_be_used_is_said(home, tmp_path, people):
    for wrong in ({"count": 7}, {"count": 10_001}, {"seed": -1}):
        with pytest.raises(SettingsError, match="8 to 10,000 faces and a seed of 0 or more; got"):
            Quantising(people, **wrong)
    imported(tmp_path, "sound")
    few = tmp_path / "few"
    for name in COLOURS:
        shutil.copytree(people / name, few / name)
        for path in sorted((few / name).iterdir())[1:]:
            Image.new("RGB", (64, 70)).save(path)  # black: the toy finds no face in it
    (few / "Ann/broken.png").write_bytes(b"no picture")
    how = Quantising(few, pairs_file(tmp_path / "pairs.txt"), count=8)
    with pytest.raises(DataError, match=r"show 8 faces or more, .*; 4 were found\. Give a folder"):
        gather_faces(recognizer("sound"), how.pair_set(), how, lambda done, total: None)


def test_bfloat16_is_measured_on_faces_and_pairs(home, tmp_path, people):
    """The network itself stands in for its bfloat16, then one that is harmed."""
    card = imported(tmp_path, "sound")
    imported(tmp_path, "lost", harmed=("inner",))
    exact, how = (
        recognizer("sound"),
        Quantising(people, pairs_file(tmp_path / "pairs.txt"), count=8),
    )
    record = measure_rounded(exact, recognizer("sound").embedder, how, unseen)
    assert record == read_measured(card, home)
    assert (record.source, record.crops) == (ModelStore().digests(card), 28)
    assert record.lowest == pytest.approx(1, abs=1e-6)
    assert (record.effect.dataset, record.effect.pairs, record.effect.change) == ("LFW", 20, 0)
    assert record.offered
    told = f"the accuracy on 20 pairs of LFW changes by +0.0000, from {record.effect.fp32:.4f}"
    assert told in record.reason
    assert reduced_text(record).startswith("sound: --precision auto may take bf16. Its vectors")
    shown = run("models", "show", "sound")
    assert "bf16, here auto may take it. Its vectors" in " ".join(shown.out.split())
    said = run("models", "show", "sound", "--json").json["bf16"]
    assert (said["offered"], said["change"], said["reason"]) == (True, 0, record.reason)

    other = measure_rounded(exact, rotated(recognizer("sound").embedder), how, unseen)
    assert other == read_measured(card, home)  # the last run counts
    assert (other.offered, other.median < 0.9) == (False, True)
    assert other.reason.endswith("; at least 0.999 and at most 0.001 are allowed.")
    assert "does not take bf16. Its vectors" in reduced_text(other)
    assert "auto does not take it. Its" in " ".join(run("models", "show", "sound").out.split())


def rotated(embedder):
    """An embedder whose vectors have their values one place further."""
    further = copy(embedder)
    further.embed_crops = lambda crops: np.roll(embedder.embed_crops(crops), 1, axis=1)
    return further


def test_the_command_measures_bfloat16_where_the_processor_has_it(home, tmp_path):
    write_people(tmp_path / "faces", count=4, blurred=100)
    imported(tmp_path, "sound")
    told = ("models", "quantize", "sound", "--images", tmp_path / "faces")
    assert "precision should be int8 or bf16; got fp16" in refused(*told, "--precision", "fp16")
    ran = run(*told, "--count", 8, "--precision", "bf16", "--json")
    settings = EngineSettings("openvino", "cpu", "bf16")
    try:
        load_model("sound", settings=settings)
    except EngineError as error:
        assert str(error) in ran.err
        return
    assert ran.code == (0 if ran.json["offered"] else 1)
    assert ran.json["change"] == ran.json["effect"]["reduced"] - ran.json["effect"]["fp32"]
    assert 0.99 < ran.json["lowest"] <= ran.json["median"]


def test_the_command_measures_and_says_so(home, tmp_path):
    """With MTCNN and faces; 600 pairs are drawn from the folder of people."""
    write_people(tmp_path / "faces", count=8, blurred=100)
    imported(tmp_path, "sound")
    images = tmp_path / "faces"
    ran = run("models", "quantize", "sound", "--images", images, "--count", 12, "--json")
    assert ran.code == (0 if ran.json["offered"] else 1)
    assert ran.json["tries"][0]["median"] > 0.99
    assert ran.json["calibration"]["pictures"] == 12
    assert ran.json["change"] == pytest.approx(
        ran.json["effect"]["reduced"] - ran.json["effect"]["fp32"]
    )
    text = run("models", "quantize", "sound", "--images", images, "--count", 12)
    assert text.out.startswith("sound: int8 is ")
    assert text.out.splitlines()[1].startswith("nothing in float: cosine to fp32 median ")
    imported(tmp_path, "lost", harmed=("inner",))
    ran = run("models", "quantize", "lost", "--images", images, "--count", 12)
    assert ran.code == 1
    assert ran.out.startswith("lost: int8 is refused. Its vectors have a median cosine of 0.")
    int8 = ("--model", "lost", "--precision", "int8")
    assert "was refused" in refused("embed", images, "--out", tmp_path / "v.npz", *int8)
    assert "a detector; an embedder" in refused("models", "quantize", "mtcnn", "--images", images)
    assert "no such folder" in refused("models", "quantize", "sound", "--images", tmp_path / "none")


def test_a_whole_model_on_real_faces(home, data):
    """MobileFaceNet on pictures of LFW: what goes back into float, and that int8 then verifies."""
    images, listed = data / "lfw/images", (data / "lfw/pairs.txt").read_text().splitlines()
    lines = [line for start in (1, 301, 601, 901) for line in listed[start : start + 50]]
    (home / "pairs.txt").write_text("\n".join(["2\t50", *lines]) + "\n")
    ran = run("models", "quantize", "mobilefacenet", "--images", images, "--pairs",
              home / "pairs.txt", "--count", 32, "--json")  # fmt: skip
    last = ran.json["tries"][-1]
    assert last["median"] >= 0.99
    assert last["kept"] != "nothing"
    assert abs(ran.json["change"]) <= 0.02
    record = json.loads((home / "models/mobilefacenet/int8.json").read_text())
    assert record["offered"] is (abs(ran.json["change"]) <= 0.001 + 1e-9)
