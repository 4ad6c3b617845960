"""One step at a time: what is frozen stays, averages and anchors are what they say."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from facenet.data.procedural import write_drawn_people
from facenet.errors import EngineError, SettingsError
from facenet.faces.embed import standardise
from facenet.images import load_image
from facenet.models.card import Preprocess
from facenet.train.batch import Batch
from facenet.train.centres import begin_at_centres
from facenet.train.loop import Watch
from facenet.train.opening import open_material
from facenet.train.settings import StageSettings, config_from
from facenet.train.stages import learning_blocks
from facenet.train.training import Training, new_backbone
from facenet.train.tripwire import first_loss_note
from facenet.train.validation import HELD_OUT, HELD_OUT_PICTURES, judge


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(**more):
    sections = {
        "data": {"train": "nowhere"},
        "preprocess": {"width": 32, "height": 32, "crop": "similarity", "standardise": "fixed"},
        "backbone": {"name": "smallnet", "embedding_size": 8, "width": 4, "input_size": 32},
        "loss": {"name": "cosface", "scale": 8, "margin": 0.1},
        "optimiser": {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0},
        "loop": {"batch": 6, "clip": 0},
    }
    for name, section in more.items():
        sections[name] = {**sections.get(name, {}), **section}
    return config_from(sections)


def trained(settings, classes=3):
    return Training(settings, classes, new_backbone(settings))


def batch(n=6, seed=0, step=0):
    source = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 3, 32, 32, generator=source)
    labels = torch.randint(0, 3, (n,), generator=source)
    return Batch(step, 0, np.arange(n), images, labels)


def state(training):
    return {name: value.clone() for name, value in training.backbone.state_dict().items()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("frozen", ["trained", "frozen"])
@pytest.mark.parametrize("part", ["head", "embedding", "layer3", "all"])
def test_what_is_frozen_stays_to_the_bit(part, frozen):
    training = trained(config())
    training.enter(StageSettings(part=part, batch_norm=frozen))
    before, weight = state(training), training.loss.weight.clone()
    for step in range(2):
        training.take_step([batch(seed=step)], 0.1)
    moved = changed(before, state(training))
    prefixes = {
        "layer1": ("layers.0.",),
        "layer2": ("layers.1.",),
        "layer3": ("layers.2.",),
        "layer4": ("layers.3.",),
        "embedding": ("linear.", "norm."),
    }
    learning = learning_blocks(training.backbone, part)
    allowed = tuple(prefix for name in learning for prefix in prefixes[name])
    assert all(name.startswith(allowed) for name in moved)
    norms = ("layers.0.1.", "layers.1.1.", "layers.2.1.", "layers.3.1.", "norm.")
    if frozen == "frozen":
        assert not any(name.startswith(norms) for name in moved)
        expected = {name for name in before if name.startswith(allowed or ("-",))}
        expected = {name for name in expected if not name.startswith(norms)}
        assert moved == expected
    else:
        assert moved == {name for name in before if name.startswith(allowed or ("-",))}
    assert not torch.equal(weight, training.loss.weight)


def test_a_part_that_does_not_exist_lists_those_that_do():
    with pytest.raises(SettingsError, match="layer1, layer2, layer3, layer4, embedding"):
        trained(config()).enter(StageSettings(part="block8"))


def test_rates_fall_towards_the_input():
    training = trained(config())
    training.enter(StageSettings(part="layer3", layer_decay=0.5))
    factors = {
        group["name"].split(".")[0]: group["factor"] for group in training.optimiser.param_groups
    }
    assert factors == {"layer3": 0.25, "layer4": 0.5, "embedding": 1.0, "head": 1.0}


def test_accumulated_batches_make_the_step_of_their_mean_gradient():
    """Without batch statistics, two half batches are one whole batch."""
    one, two = trained(config()), trained(config())
    for training in (one, two):
        training.enter(StageSettings(batch_norm="frozen"))
    whole = batch(6)
    halves = [
        Batch(0, 0, whole.rows[part], whole.images[part], whole.labels[part])
        for part in (slice(0, 3), slice(3, 6))
    ]
    first = one.take_step([whole], 0.1)
    second = two.take_step(halves, 0.1)
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
    for name, value in one.backbone.state_dict().items():
        torch.testing.assert_close(value, two.backbone.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_a_step_is_the_step_of_plain_torch():
    """Re-derived: the same network, loss and SGD, written out."""
    training = trained(config(loop={"channels_last": False}))
    plain, weight = copy.deepcopy(training.backbone), training.loss.weight.detach().clone()
    weight.requires_grad_()
    came = batch()
    training.take_step([came], 0.1)
    embeddings = plain.train()(came.images)
    cosines = functional.normalize(embeddings) @ functional.normalize(weight).T
    rows = torch.arange(6)
    logits = cosines.clone()
    logits[rows, came.labels] = cosines[rows, came.labels] - 0.1
    functional.cross_entropy(8 * logits, came.labels).backward()
    torch.testing.assert_close(training.loss.weight.detach(), (weight - 0.1 * weight.grad).detach())
    for name, parameter in plain.named_parameters():
        moved = training.backbone.get_parameter(name)
        torch.testing.assert_close(moved, parameter - 0.1 * parameter.grad, rtol=1e-4, atol=1e-6)


def test_the_gradient_is_cut_to_the_norm_that_is_asked_for():
    loose, tight = trained(config()), trained(config(loop={"clip": 1e-3}))
    starts = [state(training) for training in (loose, tight)]
    figures = [training.take_step([batch()], 1.0)["gradient"] for training in (loose, tight)]
    assert figures[0] > 1e-3
    names = [name for name, _ in tight.backbone.named_parameters()]
    moved = sum(
        float((starts[1][name] - tight.backbone.state_dict()[name]).square().sum())
        for name in names
    )
    assert moved**0.5 == pytest.approx(1e-3, rel=1e-2)


def test_averaged_weights_are_what_is_exported():
    training = trained(config(loop={"average": 0.5}))
    mean = {name: value.clone() for name, value in training.backbone.named_parameters()}
    for step in range(3):
        training.take_step([batch(seed=step)], 0.2)
        keep = min(0.5, (1 + step) / (10 + step))
        for name, value in training.backbone.named_parameters():
            mean[name] = keep * mean[name] + (1 - keep) * value.detach()
        training.advance(step=step + 1)
    own = state(training)
    with training.exported() as backbone:
        for name, value in backbone.named_parameters():
            torch.testing.assert_close(value, mean[name], rtol=1e-5, atol=1e-7)
        assert not backbone.training
    assert changed(own, state(training)) == set()
    assert training.backbone.training


def test_interpolation_is_a_place_on_the_way_from_the_old_weights():
    settings = config(start={"model": "somewhere", "interpolate": 0.25})
    training = trained(settings)
    old = state(training)
    training.take_step([batch()], 0.5)
    new = state(training)
    for name, value in training.exported_weights().items():
        wanted = (
            old[name] + 0.25 * (new[name] - old[name]) if value.is_floating_point() else new[name]
        )
        torch.testing.assert_close(value, wanted)


def test_distillation_holds_on_to_the_old_embeddings():
    def away(weight):
        settings = config(start={"model": "somewhere", "distil": weight}, loop={"clip": 0.5})
        backbone = new_backbone(settings).train()
        for step in range(40):  # a network whose statistics are settled, as that of a model
            backbone(batch(seed=step + 50).images)
        training = Training(settings, 3, backbone)
        training.enter(StageSettings(batch_norm="frozen"))
        seen = [training.take_step([batch(seed=step)], 0.02) for step in range(20)]
        with training.exported() as backbone:
            now = backbone(batch(seed=99).images)
        training.backbone.load_state_dict(training.begun)
        with training.exported() as backbone:
            then = backbone(batch(seed=99).images)
        return float(1 - functional.cosine_similarity(now, then).mean()), seen

    free, _ = away(0)
    held, seen = away(10)
    assert held < 0.7 * free
    assert seen[-1]["distil"] >= 0 and "distil" not in away(0)[1][0]


def test_bfloat16_learns_about_the_same():
    losses = []
    for precision in ("fp32", "bf16"):
        training = trained(config(loop={"precision": precision}))
        came = batch()
        losses.append([training.take_step([came], 0.3)["loss"] for _ in range(10)])
    assert losses[0][-1] < losses[0][0] and losses[1][-1] < losses[1][0]
    assert losses[0][0] == pytest.approx(losses[1][0], abs=0.05)
    assert losses[0] != losses[1]


def test_checkpointing_changes_no_weight():
    one, two = trained(config()), trained(config(loop={"checkpointing": True}))
    for training in (one, two):
        training.take_step([batch()], 0.1)
    assert changed(state(one), state(two)) == set()


def test_another_loss_begins_at_the_centres_of_the_one_before():
    training = trained(config())
    training.take_step([batch()], 0.5)
    before = functional.normalize(training.loss.weight.detach())
    training.enter(StageSettings(loss={"name": "arcface", "scale": 8}))
    after = functional.normalize(training.loss.weight.detach())
    torch.testing.assert_close(before, after)
    assert type(training.loss).__name__ == "ArcFace"


def test_centres_of_the_data_are_the_mean_unit_embeddings(tmp_path):
    write_drawn_people(tmp_path / "people", people=6, images=4, size=32)
    settings = config(data={"train": str(tmp_path / "people")})
    material = open_material(settings)
    training, told = trained(settings, classes=6), []
    begin_at_centres(training, material.training, Watch(note=told.append))
    assert told == ["Finding the class centres of 6 people."]
    pixels = np.stack([load_image(material.training.read(row)) for row in range(24)])
    inputs = torch.from_numpy(standardise(pixels, settings.preprocess))
    with torch.no_grad():
        unit = functional.normalize(training.backbone.eval()(inputs))
    means = functional.normalize(
        torch.stack([unit[material.training.labels == label].mean(0) for label in range(6)])
    )
    found = functional.normalize(training.loss.weight.detach())
    torch.testing.assert_close(found, means, rtol=1e-4, atol=1e-5)


def test_held_out_people_and_pictures_are_not_learned(tmp_path):
    write_drawn_people(tmp_path / "people", people=12, images=5, size=32)
    wanted = {"train": str(tmp_path / "people"), "hold_out": 0.34, "hold_out_images": 0.4}
    settings = config(data=wanted)
    material = open_material(settings)
    assert [one.name for one in material.validation] == [HELD_OUT, HELD_OUT_PICTURES]
    learned = {material.training.read(row) for row in range(len(material.training))}
    assert len(material.training.people) == 8 and len(learned) == 8 * 3
    for one in material.validation:
        seen = {one.read(row) for row in range(len(one.pairs.pictures))}
        assert seen.isdisjoint(learned)
    training = trained(settings, classes=8)
    with training.exported() as backbone:
        judged = [judge(backbone, one, settings.preprocess) for one in material.validation]
    assert all(one.low <= one.accuracy <= one.high for one in judged)
    assert all(one.fmr is not None and one.fmr.people > 1 for one in judged)


def test_a_strange_first_loss_is_told():
    assert first_loss_note(46.5, 46.0, 0.2) is None
    assert first_loss_note(99.0, None, 0.0) is None
    assert "should be about 46.0 with random class centres; it is 69.1" in first_loss_note(
        69.08, 46.0, 0.2
    )


def test_cuda_that_is_not_there_is_one_sentence():
    if torch.cuda.is_available():
        assert trained(config(loop={"device": "cuda"})).device.type == "cuda"
        return
    with pytest.raises(EngineError, match=r"torch finds no such device. Use loop\.device=cpu"):
        trained(config(loop={"device": "cuda"}))


def test_the_card_of_a_run_is_that_of_its_crops():
    made = config().preprocess
    assert made == Preprocess(32, 32, "similarity", "fixed")
