"""A run that is stopped, killed or full of wrong numbers goes on to the very same weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from facenet.data.procedural import write_drawn_people
from facenet.errors import DataError, TrainingError
from facenet.train.checkpoint import load_checkpoint
from facenet.train.journal import read_metrics
from facenet.train.loop import Watch
from facenet.train.runs import resume_training, train_embedder
from facenet.train.settings import config_from


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    write_drawn_people(folder, people=12, images=6, size=32)
    return folder


def config(people, **more):
    """A run with all that has a memory: momentum, averages, dropout by augmentation, two losses."""
    return config_from(
        {
            "data": {"train": str(people), "hold_out": 0.4, "threads": 1},
            "preprocess": {"width": 32, "height": 32, "crop": "similarity", "standardise": "fixed"},
            "augment": {"flip": True, "rotate": 5.0, "adaface": 0.2},
            "backbone": {"name": "smallnet", "embedding_size": 16, "width": 4, "input_size": 32},
            "loss": {"name": "adaface"},
            "terms": {"center": {"factor": 0.01}},
            "optimiser": {"name": "facenet_adam"},
            "schedule": {"name": "poly", "rate": 0.01, "warmup": 3},
            "stages": [
                {"part": "all", "epochs": 4},
                {"part": "layer3", "epochs": 3, "loss": {"name": "curricularface"}},
            ],
            "loop": {"batch": 6, "accumulate": 2, "average": 0.9, "log_every": 1, **more},
        }
    )


def stopping_after(steps):
    """A watch that stops a run after so many steps of this process."""
    left = [steps]

    def stopped():
        left[0] -= 1
        return left[0] < 0

    return Watch(stopped=stopped)


def weights(run):
    parts, state = load_checkpoint(run / "last")
    return parts, state["progress"]


def assert_same(one, other):
    (parts, progress), (others, other_progress) = weights(one), weights(other)
    assert progress == other_progress
    assert parts.keys() == others.keys() == {"model", "raw", "loss", "optimiser", "average"}
    for name, tensors in parts.items():
        assert tensors.keys() == others[name].keys()
        assert all(torch.equal(tensors[key], others[name][key]) for key in tensors), name


def lines(run):
    """The journal without what depends on the clock."""
    kept = [dict(line) for line in read_metrics(run / "metrics.jsonl")]
    for line in kept:
        line.pop("images_per_s", None)
        line.pop("waiting", None)
    return kept


@pytest.fixture(scope="module")
def whole(people, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "whole"
    summary = train_embedder(config(people), run)
    assert summary.finished and summary.accuracy is not None
    return run, summary


@pytest.mark.parametrize("stop", [0, 1, 5, 12, 13])
def test_stopped_at_any_step_it_ends_with_the_same_bits(people, whole, tmp_path, stop):
    run, summary = tmp_path / "run", whole[1]
    first = train_embedder(config(people), run, watch=stopping_after(stop))
    assert not first.finished and first.steps < summary.steps
    second = resume_training(run)
    assert second.finished and second.steps == summary.steps
    assert (second.accuracy, second.best_step) == (summary.accuracy, summary.best_step)
    assert_same(run, whole[0])
    assert lines(run) == lines(whole[0])


def test_a_run_that_has_ended_stays_as_it_is(whole, tmp_path):
    run = tmp_path / "again"
    shutil.copytree(whole[0], run)
    assert resume_training(run).finished
    assert_same(run, whole[0])


KILLED = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from facenet.train.configfile import read_config
from facenet.train.loop import Watch
from facenet.train.runs import train_embedder
def done(step, total, words):
    print(step, flush=True)
train_embedder(read_config(Path(sys.argv[1])), Path(sys.argv[2]), watch=Watch(done=done))
"""


def test_killed_in_the_middle_it_ends_with_the_same_bits(people, whole, tmp_path):
    from facenet.train.configfile import write_config

    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    write_config(config(people, save_every=2), recipe)
    command = [sys.executable, "-c", KILLED, str(recipe), str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ran:
        while int(ran.stdout.readline()) < 9:
            pass
        ran.send_signal(signal.SIGKILL)
    assert ran.returncode == -signal.SIGKILL
    assert weights(run)[1]["step"] < weights(whole[0])[1]["step"]
    assert resume_training(run).finished
    assert_same(run, whole[0])
    assert lines(run) == lines(whole[0])


def test_a_save_killed_between_its_renames_is_no_new_beginning(people, whole, tmp_path):
    run = tmp_path / "run"
    train_embedder(config(people), run, watch=stopping_after(5))
    (run / "last").rename(run / "last.old")
    assert resume_training(run).finished
    assert_same(run, whole[0])


def test_a_run_stopped_before_its_first_checkpoint_begins_as_it_would_have(whole, people, tmp_path):
    """Begun from a model: with the centres of the data, not with random ones."""
    settings = config(people)
    settings = replace(
        settings,
        start=replace(settings.start, model=str(whole[0])),
        stages=(replace(settings.stages[0], epochs=1.0),),
        schedule=replace(settings.schedule, warmup=0),
        loss={"name": "cosface"},
    )
    first, second = tmp_path / "first", tmp_path / "second"
    train_embedder(settings, first)
    train_embedder(settings, second, watch=stopping_after(0))
    shutil.rmtree(second / "last")
    assert resume_training(second).finished
    parts = [load_checkpoint(run / "last")[0] for run in (first, second)]
    for name, tensors in parts[0].items():
        assert all(torch.equal(tensors[key], parts[1][name][key]) for key in tensors), name


def test_pictures_that_changed_are_refused_with_the_difference(people, tmp_path):
    copied, run = tmp_path / "people", tmp_path / "run"
    shutil.copytree(people, copied)
    train_embedder(config(copied), run, watch=stopping_after(3))
    (copied / "person-0003" / "0001.png").unlink()
    with pytest.raises(TrainingError, match=r"goes on with the pictures it began with\. .*0003"):
        resume_training(run)
    shutil.copy(people / "person-0003" / "0001.png", copied / "person-0003" / "0001.png")
    assert resume_training(run).finished


def test_a_folder_with_a_run_is_not_begun_again(people, whole):
    with pytest.raises(TrainingError, match=r"should be a new folder; .*--resume"):
        train_embedder(config(people), whole[0])


def test_what_is_no_run_cannot_be_resumed(tmp_path):
    with pytest.raises(DataError, match=r"there is no such folder"):
        resume_training(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"with run\.json in it; there is none"):
        resume_training(tmp_path)


def test_a_checkpoint_of_another_network_is_refused(people, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    text = (run / "config.yaml").read_text().replace("width: 4\n", "width: 8\n")
    (run / "config.yaml").write_text(text)
    with pytest.raises(TrainingError, match=r"are of another network: .*Restore config\.yaml"):
        resume_training(run)


def test_numbers_that_are_not_finite_are_left_out_and_told(people, tmp_path):
    """An infinite picture in one batch: what it saw is written down, training goes back and on."""
    from facenet.train.loop import Loop
    from facenet.train.opening import open_backbone, open_material
    from facenet.train.runfolder import begin_folder
    from facenet.train.training import Training

    run, told = tmp_path / "run", []
    settings = config(people, save_every=3)
    material = open_material(settings)
    poisoned = Poisoned(material.loader, {10, 11})
    material = replace(material, loader=poisoned)
    backbone = open_backbone(settings)
    begin_folder(run, settings, backbone, material.whole)
    training = Training(settings, len(material.training.people), backbone)
    summary = Loop(training, material, run, Watch(note=told.append)).run()
    assert summary.finished and summary.skipped == (5,)
    assert len(told) == 1 and told[0].startswith("Step 5 gave numbers that are not finite")
    dump = json.loads(Path(told[0].split()[-1].rstrip(".")).read_text())
    assert dump["step"] == 5 and len(dump["names"]) == 12
    steps = [line["step"] for line in lines(run) if "loss" in line]
    assert steps == [step for step in range(1, summary.steps + 1) if step != 6]
    assert all(torch.isfinite(value).all() for value in weights(run)[0]["raw"].values())


class Poisoned:
    """A loader whose batches of some steps hold infinity."""

    def __init__(self, loader, steps):
        self.loader, self.steps = loader, steps

    def run(self, first):
        for batch in self.loader.run(first):
            if batch.step in self.steps:
                batch.images[0] = float("inf")
            yield batch


def test_a_run_that_stays_infinite_is_given_up(people, tmp_path):
    settings = config(people)
    settings = replace(settings, schedule=replace(settings.schedule, rate=1e30, warmup=0))
    with pytest.raises(TrainingError, match=r"4 times \(at the steps .*Lower schedule\.rate"):
        train_embedder(settings, tmp_path / "run")


def test_the_stop_of_a_person_is_a_checkpoint(people, tmp_path):
    """Ctrl-C while a step is under way: the command ends with 130 and goes on to the end."""
    from facenet.train.configfile import write_config

    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    write_config(config(people, max_steps=2000), recipe)
    text = recipe.read_text().replace("epochs: 4.0", "epochs: 4000.0")
    recipe.write_text(text)
    command = [sys.executable, "-m", "facenet", "train"]
    ran = subprocess.Popen(
        [*command, str(recipe), "--out", str(run)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (run / "last").exists() or not read_metrics(run / "metrics.jsonl"):
        assert ran.poll() is None, ran.stderr.read()
        time.sleep(0.05)
    ran.send_signal(signal.SIGINT)
    out, _ = ran.communicate()
    assert ran.returncode == 130 and "stopped (facenet train --resume goes on)" in out
    assert weights(run)[1]["step"] >= 1
