"""People who do not exist are told apart by every family of losses; and every recipe runs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facenet.data.procedural import draw_picture, drawn_person, write_drawn_people
from facenet.errors import SettingsError
from facenet.train.configfile import read_config
from facenet.train.journal import read_metrics
from facenet.train.opening import open_backbone, open_material
from facenet.train.runs import train_embedder
from facenet.train.settings import config_from
from facenet.train.validation import judge

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
SEEN = {"sampling": "people", "people": 8, "images": 4}
FAST = {"name": "cosine", "rate": 0.3, "warmup": 8}
LOSSES = {
    "softmax and center": {
        "loss": {"name": "softmax"},
        "terms": {"center": {"factor": 0.01}},
    },
    "arcface": {"loss": {"name": "arcface", "scale": 16, "margin": 0.3}},
    "cosface": {"loss": {"name": "cosface", "scale": 16, "margin": 0.2}},
    "combined": {"loss": {"name": "combined", "scale": 16, "m1": 1.0, "m2": 0.2, "m3": 0.1}},
    "sphereface": {"loss": {"name": "sphereface"}, "schedule": FAST},
    "triplet": {"loss": {"name": "triplet"}, "schedule": FAST},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    write_drawn_people(folder, people=48, images=8, size=40, seed=3)
    return folder


def config(people, name):
    return config_from(
        {
            "data": {
                "train": str(people),
                "hold_out": 0.33,
                **(SEEN if name == "triplet" else {}),
            },
            "preprocess": {"width": 40, "height": 40, "crop": "similarity", "standardise": "fixed"},
            "backbone": {"name": "smallnet", "embedding_size": 32, "width": 12, "input_size": 40},
            "schedule": {"name": "cosine", "rate": 0.1, "warmup": 8},
            "loop": {"batch": 32, "epochs": 12, "validate_every": 1000},
            **LOSSES[name],
        }
    )


@pytest.fixture(scope="module")
def untrained(people):
    settings = config(people, "arcface")
    material = open_material(settings)
    with torch.no_grad():
        backbone = open_backbone(settings).eval()
        return judge(backbone, material.validation[0], settings.preprocess).accuracy


@pytest.mark.parametrize("name", LOSSES)
def test_unseen_people_are_told_apart(people, untrained, tmp_path, name):
    """Stated: 0.86 of the pairs of people whom the network never saw; 0.84 for triplets."""
    summary = train_embedder(config(people, name), tmp_path / "run")
    assert summary.accuracy >= (0.84 if name == "triplet" else 0.86) > untrained + 0.05
    curve = [
        line["loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in line
    ]
    assert np.mean(curve[-2:]) < np.mean(curve[:2])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_takes_its_first_step(recipe, tmp_path):
    """As it is, but for the pictures, the number of steps and the size of the batch."""
    changes = ["loop.max_steps=1", "schedule.warmup=0", f"data.train={tmp_path / 'people'}"]
    changes += ["data.hold_out=0", "data.min_images=1", "start.model=null"]
    if "triplet" in recipe.stem:
        changes += ["data.people=2", "data.images=2", "loop.batch=4"]
    else:
        changes += ["loop.batch=2"]
    if "r100" in recipe.stem and recipe.stem != "insightface-r100-arcface":
        changes += ["backbone.name=iresnet18"]  # one network of 65 million weights is enough
    if "mobilefacenet" in recipe.stem:
        changes += ["stages=[all]"]
    side = read_config(recipe).preprocess.width
    write_drawn_people(tmp_path / "people", people=2, images=2, size=side)
    summary = train_embedder(read_config(recipe, changes), tmp_path / "run")
    assert summary.steps == 1 and summary.skipped == ()
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["preprocess"]["width"] == side


def test_drawn_people_are_the_same_for_the_same_seed(tmp_path):
    write_drawn_people(tmp_path / "a", people=2, images=3, size=24, seed=5)
    write_drawn_people(tmp_path / "b", people=3, images=3, size=24, seed=5)
    files = sorted((tmp_path / "a").rglob("*.png"))
    assert len(files) == 6
    assert all(
        f.read_bytes() == (tmp_path / "b" / f.relative_to(tmp_path / "a")).read_bytes()
        for f in files
    )
    assert cv2.imread(str(files[0])).shape == (24, 24, 3)


def test_pictures_of_one_person_are_more_alike_than_of_two():
    random = np.random.default_rng(0)
    drawn = [
        [draw_picture(drawn_person(n), size=24, random=random).astype(float) for _ in range(6)]
        for n in range(6)
    ]
    flat = np.array(drawn).reshape(36, -1)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    alike = flat @ flat.T
    person = np.repeat(np.arange(6), 6)
    same = (person[:, None] == person) & ~np.eye(36, dtype=bool)
    assert alike[same].mean() > alike[person[:, None] != person].mean() + 0.1


@pytest.mark.parametrize("wrong", [{"people": 0}, {"images": 0}, {"size": 15}])
def test_numbers_that_cannot_be_drawn_are_refused(tmp_path, wrong):
    with pytest.raises(SettingsError, match=f"{next(iter(wrong))} should be"):
        write_drawn_people(tmp_path, **{"people": 1, "images": 1, **wrong})
