"""Verification of toy models on a miniature of LFW, against the protocols in loops."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from fakes import ToyEngine
from miniature import area_in_loops, tar_in_loops, toy
from PIL import Image
from protocol_loops import in_loops, listed, sight, unit
from shell import blank

from facenet.apps.cli.evaluating import plain
from facenet.apps.jobs.evaluation import Evaluation, evaluate_pairs
from facenet.apps.jobs.reporting import HEIGHT, difference, summary, thumbnails
from facenet.data.pairs import lfw_pairs
from facenet.errors import DataError, EngineError, SettingsError
from facenet.evaluate.verification import VerificationSettings
from facenet.models.card import Figure

FOLDS, SIZE, PEOPLE, DRAWS, SEED = 5, 8, 12, 60, 3
NAMES = [f"Person_{letter}" for letter in "ABCDEFGHIJKL"]
FIGURE = Figure("LFW accuracy", 0.97, "published (the toy makers)", "their protocol")


def write_person(root, name, number, generator, pattern):
    """A picture of a person: the person's pattern with noise, so that the toy confuses some."""
    pixels = np.clip(pattern + generator.normal(0, 55, pattern.shape), 0, 255).astype(np.uint8)
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((80, 70), Image.Resampling.NEAREST).save(
        folder / f"{name}_{number:04d}.png"
    )


@pytest.fixture(scope="module")
def lfw(tmp_path_factory):
    """Folders of people and a pairs file; a picture is missing, one black, one damaged, one
    white."""
    root, generator = tmp_path_factory.mktemp("lfw"), np.random.default_rng(7)
    images = root / "images"
    for name in NAMES:
        pattern = generator.normal(128, 50, (14, 16, 3))
        for number in range(1, 5):
            write_person(images, name, number, generator, pattern)
    (images / "Person_A/Person_A_0001.png").unlink()
    blank(images / "Person_B/Person_B_0002.png", (80, 70), (0, 0, 0))
    (images / "Person_C/Person_C_0003.png").write_text("damaged")
    blank(images / "Person_D/Person_D_0001.png", (80, 70), (255, 255, 255))
    lines = [f"{FOLDS}\t{SIZE}"]
    for fold in range(FOLDS):
        for row in range(SIZE):
            i, j = generator.choice(4, 2, replace=False) + 1
            lines.append(f"{NAMES[(fold * SIZE + row) % PEOPLE]}\t{i}\t{j}")
        for _ in range(SIZE):
            a, b = generator.choice(PEOPLE, 2, replace=False)
            i, j = generator.integers(1, 5, 2)
            lines.append(f"{NAMES[a]}\t{i}\t{NAMES[b]}\t{j}")
    lines[1:4] = ["Person_A\t1\t2", "Person_B\t2\t3", "Person_C\t3\t1"]
    lines[SIZE + 1] = "Person_A\t1\tPerson_B\t2"
    lines[SIZE + 2] = "Person_D\t1\tPerson_E\t2"
    (root / "pairs.txt").write_text("\n".join(lines) + "\n")
    return images, root / "pairs.txt"


def evaluated(lfw, *recognizers, settings=None, seen=None, figure=""):
    def done(count, total):
        if seen is not None:
            seen.append((count, total))

    how = Evaluation(
        settings or VerificationSettings(), "largest", replicates=DRAWS, seed=SEED, figure=figure
    )
    return evaluate_pairs(lfw_pairs(*lfw), recognizers, how, done=done)


PROTOCOLS = [
    VerificationSettings(),
    VerificationSettings(flip=True),
    VerificationSettings(flip=True, subtract_mean=True),
    VerificationSettings(distance="angle", subtract_mean=True),
    VerificationSettings("insightface"),
    VerificationSettings("cosine"),
    VerificationSettings("cosine", flip=True, subtract_mean=True),
]


@pytest.mark.parametrize("how", PROTOCOLS, ids=lambda how: how.sentence(5)[:60])
def test_accuracy_is_that_of_the_protocol_in_loops(lfw, how):
    recognizer = toy()
    (model,) = evaluated(lfw, recognizer, settings=how).models
    folds, correct, lost = in_loops(lfw, recognizer, how)
    assert 0.5 < folds.mean() < 1  # the toy is neither blind nor perfect
    assert model["fold_accuracies"] == pytest.approx(folds)
    assert model["accuracy"] == pytest.approx(folds.mean())
    assert model["accuracy_std"] == pytest.approx(folds.std())
    assert sum(model["errors"].values()) == np.sum(~correct)
    assert model["not_found"] == lost >= 5
    assert model["pairs"] == 2 * FOLDS * SIZE
    assert model["protocol"].startswith(how.sentence(FOLDS))


def weights(lfw):
    """How often each pair counts in each draw of people, people in the order of the file."""
    pairs = [names for names, _, _ in listed(lfw)]
    people = list(dict.fromkeys(name for names in pairs for name in names))
    share = np.full(len(people), 1 / len(people))
    draws = np.random.default_rng(SEED).multinomial(len(people), share, size=DRAWS)
    for draw in draws:
        often = dict(zip(people, draw.tolist(), strict=True))
        yield np.array([often[a] * (often[b] if a != b else 1) for a, b in pairs])


def test_intervals_are_those_of_draws_of_people(lfw):
    recognizer = toy()
    (model,) = evaluated(lfw, recognizer).models
    _, correct, _ = in_loops(lfw, recognizer, VerificationSettings())
    drawn = [float(weight @ correct) / weight.sum() for weight in weights(lfw)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert model["accuracy_ci"] == pytest.approx([low, high])
    assert low < model["accuracy"] < high
    assert model["bootstrap"] == {"replicates": DRAWS, "seed": SEED, "people": PEOPLE}


def test_rates_are_counted_over_all_pairs(lfw):
    recognizer = toy()
    (model,) = evaluated(lfw, recognizer).models
    mated, others = [], []
    for _, paths, same in listed(lfw):
        seen = [sight(recognizer, path) for path in paths]
        score = -np.inf if None in seen else float(unit(seen[0][0]) @ unit(seen[1][0]))
        (mated if same else others).append(score)
    assert model["auc"] == pytest.approx(area_in_loops(mated, others))
    tar, false = tar_in_loops(mated, others, 0.1)
    point = model["tar_at_far"]["1e-1"]
    assert (point["tar"], point["false_matches"]) == (pytest.approx(tar), false)
    assert point["far"] == false / len(others) <= 0.1
    assert point["ci"][0] <= tar <= point["ci"][1]
    passed = [score for score in (*mated, *others) if score >= point["threshold"] - 1e-6]
    assert min(passed) == pytest.approx(point["threshold"], abs=1e-6)
    assert len(passed) == round(tar * len(mated)) + false
    assert list(model["tar_at_far"]) == ["1e-1"]
    said = "FAR 1e-2 needs 300 non-mated pairs (3 / rate); there are 40."
    assert model["refused"]["1e-2"] == said
    assert 0 < model["eer"] < 0.5
    assert model["eer_ci"][0] <= model["eer"] <= model["eer_ci"][1]


def test_two_models_are_compared_on_the_same_draws(lfw):
    one, two = toy("one"), toy("two", seed=4)
    seen = []
    both = evaluated(lfw, one, two, seen=seen)
    right = [in_loops(lfw, model, VerificationSettings())[1] for model in (one, two)]
    drawn = [float(w @ right[0] - w @ right[1]) / w.sum() for w in weights(lfw)]
    (row,) = [row for row in both.paired if row["metric"] == "accuracy"]
    assert (row["a"], row["b"]) == ("one", "two")
    assert row["difference"] == pytest.approx(right[0].mean() - right[1].mean())
    assert row["ci"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist())
    metrics = {"accuracy", "auc", "d_prime", "eer", "tar@1e-1", "val@1e-3"}
    assert {row["metric"] for row in both.paired} == metrics
    for number, model in enumerate((one, two)):
        (alone,) = evaluated(lfw, model).models
        for name in ("accuracy", "accuracy_ci", "auc", "eer_ci", "tar_at_far", "worst"):
            assert both.models[number][name] == alone[name]
    pictures = len(both.pictures)
    assert seen[-1] == (2 * pictures, 2 * pictures)
    assert [count for count, _ in seen] == sorted(count for count, _ in seen)
    shown = plain(both.models, both.paired)
    assert [model["model"] for model in shown["models"]] == ["one", "two"]
    assert shown["paired"] == both.paired
    low, high = row["ci"]
    assert difference(row) == (
        f"one less two: accuracy {row['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
    )


def test_a_model_differs_from_itself_by_nothing(lfw):
    for row in evaluated(lfw, toy("one"), toy("same")).paired:
        assert (row["difference"], row["ci"]) == (0, [0, 0])


def test_the_record_says_what_was_done(lfw):
    (other,) = evaluated(lfw, toy(figures=(FIGURE,))).models
    assert other["published"] is None  # the figure is of LFW, and this may be any set
    (model,) = evaluated(lfw, toy(figures=(FIGURE,)), figure="LFW accuracy").models
    assert model["model"] == "toy"
    assert model["model_digest"] == "0" * 64
    assert (model["precision"], model["engine"]) == ("fp32", "toy 0 on cpu")
    assert (model["published"], model["published_protocol"]) == (0.97, "their protocol")
    assert "face by largest, crop margin_output 16x16, standardise fixed" in model["protocol"]
    assert list(model["digests"]) == ["pairs.txt", "pictures"]
    assert set(model["seconds"]) == {"read", "detect", "embed", "score"}
    assert model["failures"] == 4
    missing, *others = model["problems"]
    assert missing == "No such picture: Person_A_0001."
    for part in ("Person_B_0002", "Person_C_0003", "Person_D_0001"):
        assert sum(part in problem for problem in others) == 1
    text = summary(model)
    assert text.startswith(f"toy (fp32): accuracy {model['accuracy']:.4f} +- ")
    assert f"TAR {model['tar_at_far']['1e-1']['tar']:.4f} " in text
    assert f"pairs without both faces: {model['not_found']}, counted as different" in text
    assert "published: 0.97 (their protocol)" in text
    assert "not printed: FAR 1e-2 needs 300 non-mated pairs" in text
    assert plain([model], ()).keys() == model.keys() - {"curves", "worst", "tables"}


def test_the_worst_pairs_are_shown_by_their_faces(lfw, tmp_path):
    found = evaluated(lfw, toy())
    (model,) = found.models
    pairs = [pair for kind in model["worst"].values() for pair in kind]
    names = {pair[side] for pair in pairs for side in "ab"}
    shown = thumbnails({"models": found.models}, found.pictures, found.gathered)
    assert set(shown) == names != set()
    for picture in found.pictures:
        if picture.name in names:
            with Image.open(io.BytesIO(shown[picture.name])) as face:
                assert face.height == HEIGHT
                mean = np.array(face).mean(axis=(0, 1))
            pixels = np.array(Image.open(picture.source))
            assert np.abs(mean - pixels[:, :66].mean(axis=(0, 1))).max() < 12
    gone = tuple(replace(picture, source=tmp_path / "gone.png") for picture in found.pictures)
    assert thumbnails({"models": found.models}, gone, found.gathered) == {}


class NanEngine(ToyEngine):
    def run(self, feeds):
        return {name: rows * np.nan for name, rows in super().run(feeds).items()}


def test_what_cannot_be_evaluated_is_said(lfw, tmp_path):
    with pytest.raises(EngineError, match=r"finite numbers; it gave NaN .*precision \"fp32\""):
        evaluated(lfw, toy(engine=NanEngine()))
    with pytest.raises(DataError, match="needs one model or more; got none"):
        evaluated(lfw)
    with pytest.raises(DataError, match="no picture of the pairs is there"):
        evaluated((tmp_path, lfw[1]), toy())
    for name in NAMES:
        for number in range(1, 5):
            blank(tmp_path / name / f"{name}_{number:04d}.png", (80, 70), (0, 0, 0))
    said = r"found in some of the \d+ pictures; in none it was. The first: No face was found in Pe"
    with pytest.raises(DataError, match=said):
        evaluated((tmp_path, lfw[1]), toy())


@pytest.mark.parametrize(("draws", "seed"), [(0, 0), (-1, 0), (10**7, 0), (10, -1)])
def test_draws_that_cannot_be_are_refused(draws, seed):
    with pytest.raises(SettingsError, match="1 to 100,000 draws and a seed of 0 or more; got"):
        Evaluation(replicates=draws, seed=seed)
