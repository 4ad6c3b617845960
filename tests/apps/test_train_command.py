"""`facenet train`: recipes by name, what goes together, what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from facenet.apps.cli.program import app
from facenet.apps.jobs.training import RECIPES, found_recipe
from facenet.data.procedural import write_drawn_people
from facenet.train.journal import read_metrics

RECIPE = """
data: {train: %s, hold_out: 0.4}
preprocess: {width: 32, height: 32, crop: similarity, standardise: fixed}
backbone: {name: smallnet, embedding_size: 8, width: 4, input_size: 32}
loss: {name: softmax}
loop: {batch: 8, epochs: 2, log_every: 1}
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def recipe(tmp_path):
    write_drawn_people(tmp_path / "people", people=10, images=4, size=32)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE % (tmp_path / "people"))
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)], prog_name="facenet")


def test_a_run_says_how_it_ended_and_keeps_its_lines(recipe, tmp_path):
    result = run(recipe, "loop.epochs=3", "--out", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["finished"] and answer["steps"] == 9 and answer["skipped"] == []
    assert 0 <= answer["waiting"] <= 1 and answer["images_per_s"] > 0
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    logged = [line for line in lines if "loss" in line]
    judged = [line for line in lines if "set" in line]
    assert [line["step"] for line in logged] == list(range(1, 10))
    assert {"step", "epoch", "loss", "lr", "images_per_s"} <= logged[0].keys()
    assert [line["step"] for line in judged] == [3, 6, 9]
    assert {"step", "set", "accuracy"} <= judged[0].keys()
    assert max(line["accuracy"] for line in judged) == pytest.approx(answer["accuracy"], abs=1e-5)
    assert (tmp_path / "run" / "report.html").read_text().count("<svg") >= 2
    again = run("--resume", tmp_path / "run", "--json")
    assert json.loads(again.stdout)["steps"] == 9


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "needs a recipe and --out RUN, or --resume RUN"),
        (["RECIPE"], "needs a recipe and --out RUN"),
        (["RECIPE", "--resume", "x"], "leave out the recipe"),
        (["--resume", "nothing-here"], "there is no such folder"),
        (["nothing.yaml", "--out", "OUT"], "Cannot read the configuration nothing.yaml"),
        (["RECIPE", "data.train=nowhere", "--out", "OUT"], "nowhere"),
        (["RECIPE", "data.min_images=9", "--out", "OUT"], "9"),
        (["RECIPE", "data.hold_out=0.01", "--out", "OUT"], "holds out 0"),
        (["RECIPE", "loop.batch=500", "--out", "OUT"], "smaller batch"),
        (["RECIPE", "stages=[layer9]", "--out", "OUT"], "layer9"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(recipe, tmp_path, arguments, said):
    places = {"RECIPE": str(recipe), "OUT": str(tmp_path / "run")}
    result = run(*(places.get(word, word) for word in arguments))
    assert result.exit_code == 2 and said in result.output, result.output
    assert not (tmp_path / "run").exists() and "Traceback" not in result.output


def test_a_recipe_that_is_shipped_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = found_recipe(Path("facenet-triplet"))
    assert shipped == RECIPES / "facenet-triplet.yaml" and shipped.is_file()
    (tmp_path / "mine.yaml").write_text("")
    assert found_recipe(Path("mine.yaml")) == Path("mine.yaml")


def test_a_picture_that_breaks_is_listed_and_does_not_end_the_run(recipe, tmp_path):
    broken = tmp_path / "people" / "person-0001" / "0001.png"
    broken.write_bytes(broken.read_bytes()[:40])
    (tmp_path / "people" / "person-0002" / ".DS_Store").write_text("x")
    (tmp_path / "people" / "empty").mkdir()
    result = run(recipe, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    names = [name for name, reason in facts["skipped_pictures"]]
    assert any("0001.png" in name for name in names) and any("empty" in name for name in names)
    assert "are not used" in result.output
