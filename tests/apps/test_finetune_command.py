"""`facenet finetune` on people who do not exist: passed, failed, stopped, refused."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import save_file
from shell import blank, refused, run

from facenet.apps.jobs.finetuning import (
    FinetuneSettings,
    Publishing,
    align_settings,
    finetune,
    resume_finetuning,
)
from facenet.apps.jobs.references import open_reference
from facenet.data.procedural import write_drawn_people
from facenet.images import load_image
from facenet.models.catalog import find_card
from facenet.train.runs import train_embedder
from facenet.train.settings import config_from

EXAMPLES = Path(__file__).parents[2] / "examples"
GENTLE = "stages=[{part: head, epochs: 1, rate: 0.01}]"
RUINOUS = ("stages=[{part: all, epochs: 4, rate: 1.0}]", "start.distil=0")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with people, and the run of a base that knows others."""
    folder = tmp_path_factory.mktemp("finetune")
    write_drawn_people(folder / "others", people=10, images=5, size=32, seed=1)
    write_drawn_people(folder / "people", people=12, images=5, size=32)
    crops = {"width": 32, "height": 32, "crop": "similarity", "standardise": "fixed"}
    config = {
        "data": {"train": str(folder / "others"), "threads": 1},
        "preprocess": crops,
        "backbone": {"name": "smallnet", "embedding_size": 16, "width": 4, "input_size": 32},
        "loss": {"name": "softmax"},
        "schedule": {"name": "cosine", "rate": 0.1},
        "loop": {"batch": 10, "epochs": 6},
    }
    train_embedder(config_from(config), folder / "base")
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FACENET_HOME", str(tmp_path / "home"))


def begin(place, out, *more):
    """The arguments of a fine-tuning on the drawn people."""
    return (
        *("finetune", place / "people", "--base", place / "base", "--aligned"),
        *("--hold-out", "0.4", "--out", out, *more),
    )


def test_a_model_that_lost_nothing_is_published_with_its_rates(place, tmp_path, home):
    ran = run(*begin(place, tmp_path / "run", "--name", "tuned", "--json", GENTLE))
    assert ran.code == 0, ran.err
    answer = ran.json
    assert answer["gate"]["passed"] and answer["published"] == "tuned"
    assert (answer["base"], answer["run"]) == (str(place / "base"), str(tmp_path / "run"))
    rows = {(row["set"], row["figure"]): row for row in answer["gate"]["rows"]}
    assert rows["held-out people", "accuracy"]["difference"] == 0, "the head alone was trained"
    assert rows["held-out people", "cosine"]["new"] == pytest.approx(1)
    assert rows["learned people", "accuracy"]["of"].startswith("7 pictures of 7 people")
    card = find_card("tuned")
    assert card.fmr.people == 5 and card.figures[0].value == pytest.approx(
        rows["held-out people", "accuracy"]["new"]
    )
    uses = [row["use"] for row in listed(tmp_path / "run")]
    assert {use: uses.count(use) for use in uses} == {"learned": 28, "held back": 7, "judging": 25}
    assert json.loads((tmp_path / "run" / "gate.json").read_text())["passed"]
    again = run("finetune", "--resume", tmp_path / "run")
    assert again.code == 0
    assert "gate passed: a figure may lose 0.002" in again.out


def listed(folder):
    with (folder / "pictures.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_model_that_forgot_is_refused_unless_asked_for(place, tmp_path, home):
    ran = run(*begin(place, tmp_path / "run", "--name", "ruined", *RUINOUS))
    assert ran.code == 1
    assert "LOST" in ran.out and "gate NOT passed" in ran.out and "published as" not in ran.out
    assert "facenet: The model failed the gate and is not published: " in ran.err
    assert "failed the gate" in refused("export", tmp_path / "run", "--name", "ruined")
    anyway = run(
        "finetune", "--resume", tmp_path / "run", "--name", "ruined", "--publish-anyway", "--json"
    )
    assert (anyway.code, anyway.json["published"]) == (0, "ruined")
    assert not anyway.json["gate"]["passed"]


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(place, tmp_path):
    settings = FinetuneSettings(
        folder=str(place / "people"), base=str(place / "base"), aligned=True, hold_out=0.4
    )
    quiet = {"note": lambda text: None}
    whole = finetune(settings, tmp_path / "whole", Publishing(), **quiet, done=lambda *a: None)

    def interrupted(done, total, words):
        if done == 5 and total > 5:
            signal.getsignal(signal.SIGINT)(signal.SIGINT, None)  # as if Ctrl-C were pressed

    stopped = finetune(settings, tmp_path / "run", Publishing(), **quiet, done=interrupted)
    assert (stopped.finished, stopped.steps, stopped.gate) == (False, 5, None)
    went_on = resume_finetuning(tmp_path / "run", Publishing(), **quiet, done=lambda *a: None)
    assert went_on.finished and went_on.gate == whole.gate
    assert whole.gate is not None
    weights = [
        (tmp_path / name / "last" / "model.safetensors").read_bytes() for name in ("whole", "run")
    ]
    assert weights[0] == weights[1]
    base = (tmp_path / "whole" / "base.safetensors").read_bytes()
    assert weights[0] != base


def test_raw_pictures_are_aligned_and_what_is_no_use_is_listed(place, tmp_path):
    photos = tmp_path / "photos"
    group = cv2.imread(str(EXAMPLES / "photos" / "group.jpg"))
    for number, name in enumerate(["Eileen", "Barack", "Grace", "Joe"]):
        (photos / name).mkdir(parents=True)
        part = group[:, 320 * number : 320 * (number + 1)]
        cv2.imwrite(str(photos / name / "portrait.jpg"), part)
    blank(photos / "Joe" / "wall.jpg")
    (photos / "Joe" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (photos / "Joe" / "notes.txt").write_text("a friend")
    (photos / "Nobody").mkdir()
    out = tmp_path / "run"
    ran = run(
        *("finetune", photos, "--base", place / "base", "--no-gate", "--out", out),
        *("--workers", "1", GENTLE),
    )
    assert ran.code == 0, ran.err
    assert "4 pictures of 4 people are learned, 0 of 0 of them are held back" in ran.err
    assert "nothing judged (--no-gate)" in ran.out
    rows = {row["picture"]: row for row in listed(out)}
    assert rows["Joe/portrait.jpg"]["use"] == "learned"
    assert rows["Joe/wall.jpg"]["reason"] == "no face was found in it"
    assert "should be JPEG" in rows["Joe/broken.jpg"]["reason"]
    assert "its name is none of a picture" in rows["Joe/notes.txt"]["reason"]
    assert rows["Nobody"]["reason"] == "its folder holds no picture"
    assert (out / "crops" / "Joe" / "portrait.png").is_file()
    assert not (out / "gate.json").exists()


def test_a_reference_leaves_out_who_is_learned_and_recipes_are_laid_over(place, tmp_path):
    write_drawn_people(tmp_path / "more", people=8, images=3, size=32, seed=5)
    for person in (tmp_path / "more").iterdir():
        for number, picture in enumerate(sorted(person.iterdir()), 1):
            picture.rename(person / f"{person.name}_{number:04d}.png")
    names = sorted(path.name for path in (tmp_path / "more").iterdir())
    shutil.copytree(place / "people", tmp_path / "strangers")
    for folder in (tmp_path / "strangers").iterdir():
        if folder.name != names[0]:
            folder.rename(folder.with_name(f"x-{folder.name}"))
    lines = ["2\t4"]
    for part in (names[:4], names[4:]):
        lines += [f"{name}\t1\t2" for name in part]
        lines += [f"{one}\t1\t{two}\t3" for one, two in zip(part, part[1:] + part[:1], strict=True)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("loss: {name: arcface}\nstart: {distil: 3.0}\nloop: {batch: 6}\n")
    ran = run(
        *("finetune", tmp_path / "strangers", "--base", place / "base", "--aligned"),
        *("--hold-out", "0.4", "--out", tmp_path / "run", "--recipe", recipe, "--json"),
        *("--reference", f"{tmp_path / 'more'}:{tmp_path / 'pairs.txt'}", "--seed", "2", GENTLE),
    )
    assert ran.code == 0, ran.err
    rows = {(row["set"], row["figure"]): row for row in ran.json["gate"]["rows"]}
    told = [note for note in ran.json["gate"]["notes"] if "somebody who is learned" in note]
    held = {
        row["picture"].split("/")[0] for row in listed(tmp_path / "run") if "judg" in row["use"]
    }
    left = 16 if names[0] in held else 13
    assert rows["pairs", "accuracy"]["of"].startswith(f"{left} pairs of ")
    assert bool(told) == (left == 13)
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "name: arcface" in config and "distil: 3.0" in config and "batch: 6" in config


def test_of_a_raw_reference_only_the_pictures_that_judge_are_aligned(tmp_path):
    group = cv2.imread(str(EXAMPLES / "photos" / "group.jpg"))
    names = ["Eileen", "Barack", "Grace", "Joe"]
    for number, name in enumerate(names):
        part = group[:, 320 * number : 320 * (number + 1)]
        for turn in (1, 2):
            path = tmp_path / "people" / name / f"{name}_{turn:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), part if turn == 1 else part[:, ::-1])
    blank(tmp_path / "people" / "Joe" / "Joe_0002.jpg")
    lines = ["2\t2", "Eileen\t1\t2", "Barack\t1\t2", "Eileen\t1\tBarack\t2"]
    lines += ["Eileen\t2\tBarack\t1", "Grace\t1\t2", "Joe\t1\t2"]
    lines += ["Grace\t1\tJoe\t1", "Grace\t2\tJoe\t2"]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    reference = f"{tmp_path / 'people'}:{tmp_path / 'pairs.txt'}"
    crops = align_settings(
        {"width": 64, "height": 64, "crop": "similarity", "standardise": "fixed"}
    )
    judged, notes = open_reference(
        reference, tmp_path / "crops", {"Eileen"}, crops, workers=1, done=lambda *told: None
    )
    assert notes == ["3 pairs of pairs show somebody who is learned; they are left out."]
    assert len(judged.pairs) == 5
    assert not (tmp_path / "crops" / "Eileen").exists()
    read = {
        judged.pairs.pictures[row].name: judged.read(row)
        for row in {*judged.pairs.a.tolist(), *judged.pairs.b.tolist()}
    }
    assert read.pop("Joe_0002") is None, "there is no face in it"
    assert sorted(read) == ["Barack_0001", "Barack_0002", "Grace_0001", "Grace_0002", "Joe_0001"]
    assert {load_image(data).shape for data in read.values()} == {(64, 64, 3)}


def test_what_cannot_be_done_is_one_sentence(place, tmp_path, home):
    out = tmp_path / "run"
    people, base = place / "people", place / "base"
    assert "needs DIR, --base NAME and --out RUN" in refused("finetune", people, "--out", out)
    save_file({"weight": torch.zeros(2)}, tmp_path / "odd.safetensors")
    for arguments, told in (
        (("--base", "no-such-model"), "no-such-model"),
        (("--base", tmp_path / "odd.safetensors"), "which network its weights are of"),
        (("--hold-out", "0.1"), "12 people, 12 of them with two pictures, and a share of 0.1"),
        (("--reference", "nowhere.bin"), "A reference should be FILE.bin, or FOLDER:PAIRS"),
        (("--reference", f"{people}:none.txt"), "there is no such file or folder"),
        (("--no-gate", "--name", "x"), "A model is published when it passed the gate"),
        (("--no-gate", "--reference", "x.bin"), "leave out --reference or --no-gate"),
        (("--allowed-loss", "2"), "allowed_loss should be 0 or more"),
        (("data.train=x",), "data.train follows from the folder and the base"),
        (("loss.margn=1",), "margn"),
    ):
        assert told in refused(*begin(place, out, *arguments)), told
        assert not out.exists(), "nothing is begun before all of it is known to fit"
    assert "the folder of a run of facenet finetune" in refused("finetune", "--resume", base)
    assert "goes on with a run as it was begun" in refused(
        "finetune", "--resume", base, "--hold-out", "0.3"
    )
    taken = begin(place, base)
    assert "should be a new folder; a run is in it" in refused(*taken)
