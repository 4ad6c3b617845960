"""The configuration of a run: read, changed, refused; and the shipped recipes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from facenet.errors import SettingsError
from facenet.train.configfile import read_config, write_config
from facenet.train.schedules import Schedule
from facenet.train.settings import StageSettings, config_from
from facenet.train.stages import planned

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def small(**more):
    return {
        "data": {"train": "people"},
        "preprocess": {"width": 56, "height": 56, "crop": "similarity", "standardise": "fixed"},
        "backbone": {"name": "smallnet"},
        "loss": {"name": "softmax"},
        **more,
    }


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_whole_and_names_its_figure(recipe):
    config = read_config(recipe)
    assert len(config.published) > 10
    for stage, length in planned(config, 100):
        schedule = config.schedule
        if stage.rate is not None:
            schedule = replace(schedule, rate=stage.rate)
        schedule = replace(schedule, warmup=0)
        assert Schedule(schedule, 100, length).rate(0) > 0


def test_there_is_a_recipe_for_what_people_know():
    names = {path.stem for path in RECIPES}
    assert names >= {
        "facenet-casia-softmax",
        "facenet-vggface2-softmax",
        "facenet-msceleb-softmax",
        "facenet-casia-center",
        "facenet-triplet",
        "facenet-pytorch-finetune",
        "insightface-r50-arcface",
        "insightface-r100-arcface",
        "insightface-r50-cosface",
        "insightface-r100-cosface",
        "insightface-r100-combined",
        "mobilefacenet-two-stage",
    }


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_what_is_written_reads_back_the_same(recipe, tmp_path):
    config = read_config(recipe)
    write_config(config, tmp_path / "c.yaml")
    assert read_config(tmp_path / "c.yaml") == config


def test_changes_are_laid_over_the_file(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(small()))
    changes = ["loop.batch=7", "loss.name=arcface", "loss.margin=0.3", "schedule.rate=5e-2"]
    config = read_config(path, [*changes, "stages=[head, layer3, all]"])
    assert (config.loop.batch, config.loss["margin"], config.schedule.rate) == (7, 0.3, 0.05)
    assert [stage.part for stage in config.stages] == ["head", "layer3", "all"]
    assert read_config(path).loop.batch == 64


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["loop.batches=7"], r"loop has no key 'batches'. Did you mean batch\?"),
        (["loss.name=arkface"], r"loss\.name should be one of .*Did you mean arcface"),
        (["loss.scal=3"], r"loss has no key 'scal'"),
        (["backbone.name=resnet"], r"backbone\.name should be one of"),
        (["optimiser.name=sdg"], r"optimiser\.name should be one of .*Did you mean sgd"),
        (["loop.precision=fp16"], r"loop\.precision should be one of fp32, bf16"),
        (["loop.batch=0"], r"loop\.batch should be 1 or more; got 0"),
        (["loop.epochs=0"], r"loop\.epochs should be more than 0"),
        (["data.hold_out=1"], r"data\.hold_out should be 0 to 0\.9"),
        (["data.people=3"], r"data\.people is not used with data\.sampling shuffled"),
        (["loss.name=triplet"], r"triplet compares pictures of one person within a batch"),
        (["data.sampling=people"], r"loop\.batch should be data\.people x data\.images = 32"),
        (["start.distil=1"], r"start\.model names none"),
        (["start.interpolate=2"], r"start\.interpolate should be 0 to 1"),
        (["stages=[{part: all, epochs: 0}]"], r"stages\.epochs should be more than 0"),
        (["stages=[{batch_norm: off}]"], r"batch_norm"),
        (["validation=[{bin: a, images: b}]"], r"either `bin: FILE`, or `images: FOLDER`"),
        (["preprocess.height=60"], r"square crops; got 56x60"),
        (["loop.batch"], r"should be key=value, such as loop\.batch=32; got 'loop\.batch'"),
        (["data.train.x=1"], r"names a key inside train, which is no section"),
        (["loop.batch=[1"], r"The value of loop\.batch should be YAML"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_sentence(tmp_path, changes, said):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(small()))
    with pytest.raises(SettingsError, match=said):
        read_config(path, changes)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"- 1\n- 2\n", "should hold sections such as data, backbone and loss; it holds list"),
        (b"a: &x [1]\nb: *x\n", r"uses a YAML alias \(\*\)"),
        (b"a: !!python/object/apply:os.system [ls]\n", "should be YAML"),
        (b"a: " + b"[" * 50_000, "at most 20 levels"),
        (b"\xff\xfe", "Cannot read the configuration"),
        (b"x" * 1_000_001, "at most 1 MB"),
    ],
)
def test_a_hostile_file_is_refused(tmp_path, data, said):
    (tmp_path / "r.yaml").write_bytes(data)
    with pytest.raises(SettingsError, match=said):
        read_config(tmp_path / "r.yaml")
    with pytest.raises(SettingsError, match="Cannot read the configuration"):
        read_config(tmp_path / "none.yaml")


def test_stages_lie_one_behind_the_other():
    config = config_from(small(stages=["head", {"part": "all", "epochs": 2.5}]))
    assert planned(config, 10) == (
        (StageSettings("head"), 10),
        (StageSettings("all", epochs=2.5), 25),
    )
    assert planned(config_from(small()), 10) == ((StageSettings("all", 20.0), 200),)
