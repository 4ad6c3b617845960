"""A classifier of known people: scikit-learn's answers by NumPy, probabilities, the file."""

from __future__ import annotations

import hashlib
import json
import math
import stat
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from fakes import toy_faces
from safetensors.numpy import load as load_safetensors
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from facenet.errors import (
    ContractError,
    DataError,
    InputError,
    MissingExtraError,
    ModelFileError,
    SettingsError,
    StorageError,
)
from facenet.gallery import classifierfit
from facenet.gallery.calibrate import Threshold
from facenet.gallery.classifier import Classifier, ClassifierSettings, classify
from facenet.gallery.classifierfile import KEY, load_classifier, save_classifier
from facenet.gallery.classifierfit import best_slope, fit_classifier, held_out
from facenet.gallery.classifiermachines import MOST_DUELLING, Nearest, coupled
from facenet.vectors import unit

METHODS = ("svm", "logistic", "knn")
FACTS = {"contract": "toy:1", "model": "toy", "digest": "0" * 64, "facenet": "0.1.0"}


def drawn(people, *, width=12, spread=1.0, seed=0, least=2):
    """Unit vectors around a centre per person, of unequal numbers, and who they are; shuffled."""
    random = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), least + np.arange(people) % 5)
    centres = random.normal(size=(people, width))
    rows = centres[person] + spread * random.normal(size=(len(person), width))
    order = random.permutation(len(person))
    return unit(rows[order]), person[order], unit(random.normal(size=(40, width)) + centres[0])


def trained(method="svm", people=5, **changes):
    rows, person, _ = drawn(people, **changes)
    names = tuple(f"person {number}" for number in range(people))
    return fit_classifier(rows, names, person, ClassifierSettings(method), **FACTS)


def flat(rows):
    """As both learn them: solvers stop near the solution, the same for the same numbers only."""
    return unit(rows).astype(np.float64)


@pytest.mark.parametrize("people", [2, 3, 8])
@pytest.mark.parametrize("c", [0.1, 10.0])
def test_duels_are_those_of_scikit_learn(people, c):
    rows, person, probes = drawn(people)
    order = np.argsort(person, kind="stable")
    theirs = SVC(kernel="linear", C=c, decision_function_shape="ovo")
    theirs.fit(flat(rows[order]), person[order])
    names = tuple(map(str, range(people)))
    ours = fit_classifier(rows, names, person, ClassifierSettings("svm", c), **FACTS)
    scores = ours.machine.scores(flat(probes))
    wanted = theirs.decision_function(flat(probes))
    assert np.allclose(scores, -wanted[:, None] if people == 2 else wanted, atol=1e-9)
    votes = np.zeros((len(probes), people), int)
    for column, (i, j) in enumerate(combinations(range(people), 2)):
        votes[np.arange(len(probes)), np.where(scores[:, column] > 0, i, j)] += 1
    assert np.array_equal(votes.argmax(1), theirs.predict(flat(probes)))


@pytest.mark.parametrize("people", [2, 3, 8])
def test_a_logistic_regression_gives_scikit_learns_probabilities(people):
    rows, person, probes = drawn(people)
    order = np.argsort(person, kind="stable")
    theirs = LogisticRegression(C=3.0, max_iter=2000).fit(flat(rows[order]), person[order])
    names = tuple(map(str, range(people)))
    ours = fit_classifier(rows, names, person, ClassifierSettings("logistic", 3.0), **FACTS)
    plain = replace(ours, slope=1.0).probabilities(probes)
    assert np.allclose(plain, theirs.predict_proba(flat(probes)), atol=1e-9)
    decided = ours.decide(probes, -1.0)
    assert np.array_equal(decided.best, theirs.predict(flat(probes)))
    chance = theirs.decision_function(flat(probes))
    logits = np.stack([-chance / 2, chance / 2], 1) if people == 2 else chance
    raised = np.exp(ours.slope * (logits - logits.max(1, keepdims=True)))
    assert np.allclose(ours.probabilities(probes), raised / raised.sum(1, keepdims=True))
    assert np.allclose(decided.probability, np.sort(ours.probabilities(probes), axis=1)[:, -1])


@pytest.mark.parametrize("neighbours", [1, 4])
def test_the_nearest_vote_as_in_scikit_learn(neighbours):
    rows, person, probes = drawn(6, spread=0.5)
    theirs = KNeighborsClassifier(
        neighbours, metric="cosine", weights=lambda away: np.maximum(1 - away, 0)
    ).fit(flat(rows), person)
    ours = fit_classifier(
        rows, tuple("abcdef"), person, ClassifierSettings("knn", neighbours=neighbours), **FACTS
    )
    near = (flat(probes) @ flat(rows).T).max(1) > 0.1  # the others have no voter to speak of
    assert near.sum() > 30
    assert np.array_equal(ours.decide(probes, -1.0).best[near], theirs.predict(flat(probes))[near])


def test_duels_are_coupled_as_libsvm_does():
    """Golden: chances of the duels of SVC(probability=True) of scikit-learn 1.9, which will no
    longer have it, and its predict_proba; libsvm stops within 0.005 / 4 of the solution."""
    duels = np.array(
        [
            [0.945915, 0.877428, 0.589828, 0.141329, 0.102643, 0.310799],
            [0.624042, 0.715516, 0.454280, 0.506056, 0.320143, 0.285833],
            [0.452696, 0.626669, 0.473923, 0.692238, 0.441283, 0.387932],
        ]
    )
    wanted = [
        [0.523523, 0.030117, 0.106688, 0.339672],
        [0.311994, 0.173884, 0.143170, 0.370953],
        [0.258097, 0.282319, 0.156288, 0.303296],
    ]
    chance = np.zeros((3, 4, 4))
    first, second = np.triu_indices(4, 1)
    chance[:, first, second], chance[:, second, first] = duels, 1 - duels
    found = coupled(chance)
    assert np.allclose(found, wanted, atol=0.005 / 4)

    def cost(row, p):
        return sum(
            (chance[row, j, i] * p[i] - chance[row, i, j] * p[j]) ** 2
            for i in range(4)
            for j in range(4)
        )

    random = np.random.default_rng(0)
    for row in range(3):
        for _ in range(50):
            other = found[row] + 1e-3 * random.normal(size=4)
            assert cost(row, other / other.sum()) > cost(row, found[row])


def test_duels_that_agree_give_back_the_probabilities_they_come_from():
    p = np.array([[0.7, 0.2, 0.06, 0.04], [0.25, 0.25, 0.25, 0.25]])
    chance = p[:, :, None] / (p[:, :, None] + p[:, None, :])
    assert np.allclose(coupled(chance), p, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_are_of_faces_that_were_not_learnt(method):
    """The slope is the best on a grid, counted in loops; the seed deals the folds."""
    rows, person, _ = drawn(4, spread=0.9)
    order = np.argsort(person, kind="stable")
    rows, person = rows[order], person[order]
    settings = ClassifierSettings(method)
    found = fit_classifier(rows, tuple("abcd"), person, settings, **FACTS)
    scores, truth = held_out(rows, person, settings)
    assert sorted(truth) == sorted(person)
    doubt = 1 / (len(truth) + 2)

    def loss(slope):
        total = 0.0
        for chances, who in zip(found.machine.probabilities(scores, slope), truth, strict=True):
            logs = [math.log(max(chance, 1e-12)) for chance in chances]
            others = [log for place, log in enumerate(logs) if place != who]
            total -= (1 - doubt) * logs[who] + doubt * sum(others) / len(others)
        return total

    least = min(loss(slope) for slope in np.geomspace(0.01, 1000, 400))
    assert loss(found.slope) <= least * (1 + 1e-4)
    other = fit_classifier(rows, tuple("abcd"), person, replace(settings, seed=1), **FACTS)
    assert other.slope != found.slope
    assert np.array_equal(held_out(rows, person, settings)[0], scores)


def test_no_face_answers_for_itself_and_many_are_sampled():
    rows = np.eye(14, dtype=np.float32)
    person = np.repeat([0, 1], 7)
    scores, _ = held_out(rows, person, ClassifierSettings("knn"))
    assert np.all(scores == 0)  # a face that had learnt itself would be 1
    many, labels = np.tile(rows, (100, 1)), np.repeat([0, 1], 700)
    assert len(held_out(many, labels, ClassifierSettings("knn"))[1]) == classifierfit.HELD_OUT


def test_a_few_faces_that_are_all_right_do_not_make_everything_certain():
    machine = Nearest(np.eye(2, dtype=np.float32), *np.array([[0, 1], [1, 1]]), np.array([2]))
    machine = replace(machine, neighbours=np.array([1]))
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    few, many = (best_slope(machine, np.tile(sure, (n, 1)), np.tile([0, 1], n)) for n in (3, 300))
    chance = [float(machine.probabilities(sure, slope)[0, 0]) for slope in (few, many)]
    assert chance == pytest.approx([1 - 1 / 8, 1 - 1 / 602], abs=1e-3)


def test_a_face_is_named_when_it_is_probable_and_similar_enough():
    classifier = trained("knn", 3, spread=0.2)
    rows, person, _ = drawn(3, spread=0.2)
    face = toy_faces((0, 0, 9, 9), (9, 0, 18, 9), (0, 9, 9, 18)).with_(
        embedding=np.stack([rows[0], -rows[0], rows[1]]), contract="toy:1"
    )
    found = classify(classifier, face, Threshold(0.5, 0.01), 0.5)
    who = f"person {person[0]}"
    assert [answer.person for answer in found] == [who, None, f"person {person[1]}"]
    assert [answer.reason for answer in found] == [None, "below_threshold", None]
    first, template = found[0], unit(rows[person == person[0]].sum(0))
    assert first.similarity == pytest.approx(float(template @ rows[0]), abs=1e-6)
    assert first.fpir == pytest.approx(1 - 0.99**3)
    chances = sorted(classifier.probabilities(rows[:1])[0])
    assert (first.probability, first.runner_up_probability) == (chances[-1], chances[-2])
    assert first.runner_up not in (who, None)
    assert list(first.to_dict())[:4] == ["box", "detection_score", "person", "probability"]
    (doubted, *_) = classify(classifier, face, Threshold(0.5, None), first.probability + 1e-9)
    assert (doubted.person, doubted.reason, doubted.fpir) == (None, "improbable", None)
    assert classify(classifier, face[:0], Threshold(0.5, None)) == []


@pytest.mark.parametrize("people", [2, 7])
@pytest.mark.parametrize("method", METHODS)
def test_a_file_brings_the_same_answers_without_scikit_learn(method, people, tmp_path, monkeypatch):
    classifier, probes = trained(method, people), drawn(people)[2]
    classifier = replace(classifier, names=("Zoë 李", *classifier.names[1:]))
    path, again = tmp_path / "in" / "a.safetensors", tmp_path / "b.safetensors"
    for place in (path, again):
        save_classifier(classifier, place)
    assert path.read_bytes() == again.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    monkeypatch.setitem(sys.modules, "sklearn", None)
    read = load_classifier(path)
    assert np.array_equal(read.probabilities(probes), classifier.probabilities(probes))
    for name in (
        "settings",
        "names",
        "counts",
        "slope",
        "contract",
        "model",
        "precision",
        "facenet",
    ):
        assert getattr(read, name) == getattr(classifier, name)
    tensors = load_safetensors(path.read_bytes())
    assert set(tensors) == {"templates", *classifier.arrays()}
    assert np.array_equal(tensors["templates"], classifier.templates)


def test_without_scikit_learn_only_knn_is_trained(monkeypatch):
    for name in ("sklearn", "sklearn.svm", "sklearn.linear_model"):
        monkeypatch.setitem(sys.modules, name, None)
    assert trained("knn").settings.method == "knn"
    for method in ("svm", "logistic"):
        with pytest.raises(MissingExtraError, match="needs scikit-learn.*or choose the method knn"):
            trained(method)


def header_of(content):
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def rewritten(content, change):
    """A file whose header was changed by `change(entries, said)`."""
    entries, data = header_of(content)
    said = json.loads(entries["__metadata__"][KEY])
    data = change(entries, said) or data
    entries["__metadata__"][KEY] = json.dumps(said)
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + data


def setting(path, value):
    """A change of one value in what is said."""

    def change(_, said):
        *parents, last = path.split(".")
        for name in parents:
            said = said[name]
        said[last] = value

    return change


def shaped(name, **values):
    """A change of one entry of an array."""
    return lambda entries, _: entries[name].update(values)


HOSTILE = {
    "version": (setting("version", 2), "expected version 1, got 2 of facenet '0"),
    "format": (setting("format", "other"), "another format"),
    "digest": (setting("sha256", "0" * 64), "not what was written"),
    "one person": (setting("people", ["a"]), "two people or more"),
    "blank name": (setting("people", ["", "b", "c"]), "1 to 255 characters"),
    "escape": (setting("people", ["\x1b[2J", "b", "c"]), "can be printed"),
    "twice": (setting("people", ["a", "a", "c"]), "each once"),
    "number": (setting("people", [1, 2, 3]), "int where str should be"),
    "counts": (setting("counts", [1, 2]), "3 names and 2 counts"),
    "no face": (setting("counts", [0, 2, 2]), "two people or more"),
    "slope": (setting("slope", -1.0), "slope should be above 0"),
    "endless slope": (setting("slope", float("inf")), "Infinity in its JSON"),
    "truth": (setting("slope", True), "bool where float should be"),
    "method": (setting("settings.method", "forest"), "one of svm, logistic, knn"),
    "other method": (setting("settings.method", "knn"), "its arrays should be"),
    "cost": (setting("settings.c", 0), "c should be from 1e-6"),
    "unknown setting": (setting("settings.kernel", "rbf"), "kernel"),
    "a list": (setting("settings", [1]), "list where dict should be"),
    "long text": (setting("dataset", "x" * 1001), "dataset that cannot be shown"),
    "too wide": (shaped("vectors", shape=[1 << 40, 1 << 40]), "cut off or of another type"),
    "negative": (shaped("vectors", shape=[-1, -4]), "cut off or of another type"),
    "flat": (shaped("templates", shape=[36]), "should be (3, 36)"),
    "beyond": (shaped("offsets", data_offsets=[0, 1 << 60]), "cut off or of another type"),
    "type": (shaped("offsets", dtype="F16"), "cut off or of another type"),
    "turned": (shaped("vectors", shape=[12, 9]), "vectors of a classifier should be"),
    "entry": (lambda entries, _: entries.update(duals=3), "int where dict should be"),
    "more": (lambda entries, _: entries.update(extra={}), "its arrays should be"),
    "no metadata": (lambda entries, said: said.clear(), "another format"),
}


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "c.safetensors"
    save_classifier(trained("svm", 3), path)
    return path.read_bytes()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_not_true_is_refused(name, content, tmp_path):
    change, sentence = HOSTILE[name]
    path = tmp_path / "c.safetensors"
    path.write_bytes(rewritten(content, lambda *_: None))
    assert load_classifier(path).names == ("person 0", "person 1", "person 2")
    path.write_bytes(rewritten(content, change))
    with pytest.raises(ModelFileError) as refused:
        load_classifier(path)
    assert sentence in str(refused.value)
    assert str(refused.value).startswith(str(path))
    assert len(str(refused.value)) < 500


def test_numbers_that_are_none_are_refused_although_the_digest_is_right(content, tmp_path):
    for name, value, sentence in (
        ("offsets", np.float64("nan"), "offsets of a classifier should be finite"),
        ("person", np.int64(3), "person of a classifier should be"),
        ("person", np.int64(-1), "person of a classifier should be 0 to 2"),
    ):

        def change(entries, said, name=name, value=value):
            start = entries[name]["data_offsets"][0]
            start = entries[name]["data_offsets"][1] - 8 if value == 3 else start
            _, data = header_of(content)
            data = data[:start] + value.tobytes() + data[start + 8 :]
            said["sha256"] = hashlib.sha256(data).hexdigest()
            return data

        path = tmp_path / "c.safetensors"
        path.write_bytes(rewritten(content, change))
        with pytest.raises(ModelFileError, match=sentence):
            load_classifier(path)


def test_a_file_that_is_cut_or_changed_anywhere_is_refused(content, tmp_path):
    path = tmp_path / "c.safetensors"
    for length in [*range(64), *range(64, len(content), 101), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError, match="none, or not whole"):
            load_classifier(path)
    start = 8 + int.from_bytes(content[:8], "little")
    for place in [*range(8), *range(start, len(content), 37)]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
        with pytest.raises(ModelFileError):
            load_classifier(path)
    for text in (b"", b"no classifier", b"[" * 100_000, b"\xff" * 64, b'{"__metadata__": 1}'):
        for head in (b"", len(text).to_bytes(8, "little")):
            path.write_bytes(head + text)
            with pytest.raises(ModelFileError, match="facenet classifier train"):
                load_classifier(path)
    with pytest.raises(ModelFileError, match="Cannot read the classifier"):
        load_classifier(tmp_path)
    with pytest.raises(StorageError, match="Cannot write"):
        save_classifier(trained("knn"), tmp_path)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"method": "forest"}, "method should be one of svm, logistic, knn; got 'forest'"),
        ({"c": 0.0}, "c should be from 1e-6 to 1e6; got 0"),
        ({"c": math.nan}, "c should be from 1e-6 to 1e6; got nan"),
        ({"neighbours": 0}, "neighbours should be 1 to 1,000; got 0"),
        ({"seed": -1}, "seed should be 0 or more; got -1"),
    ],
)
def test_settings_that_are_none(values, sentence):
    with pytest.raises(SettingsError, match=sentence):
        ClassifierSettings(**values)


def test_what_cannot_be_learnt_or_asked():
    rows, person, _ = drawn(3)
    wanted = "two people or more with two faces or more each"
    for names, who in (
        (("a",), np.zeros(len(rows), int)),
        (("a", "b", "c", "d"), person),
        (("a", "b"), person),
        (("a", "b", "c"), person[:-1]),
        (("a", "b", "c"), person - 1),
        (("a", "b", "c"), np.where(np.arange(len(rows)) == 0, 2, np.minimum(person, 1))),
    ):
        with pytest.raises(InputError, match=wanted):
            fit_classifier(rows, names, who, ClassifierSettings(), **FACTS)
    with pytest.raises(DataError, match="each once"):
        fit_classifier(rows, ("a", "a", "b"), person, ClassifierSettings(), **FACTS)
    many = tuple(map(str, range(MOST_DUELLING + 1)))
    with pytest.raises(SettingsError, match="An SVM is for up to 200 people.*got 201"):
        fit_classifier(rows, many, person, ClassifierSettings(), **FACTS)
    with pytest.raises(SettingsError, match="should settle in 1 steps"):
        fit_logistic_in_one_step(rows, person)
    classifier = trained("svm", 3)
    face = toy_faces().with_(embedding=rows[:1], contract="other:2")
    with pytest.raises(ContractError, match="expected toy:1, but the photo was embedded with oth"):
        classify(classifier, face, Threshold(0.5, None))
    with pytest.raises(InputError, match="should have embeddings"):
        classify(classifier, toy_faces(), Threshold(0.5, None))
    with pytest.raises(InputError, match=r"should be \(m, 12\); got \(1, 5\)"):
        classifier.probabilities(rows[:1, :5])
    with pytest.raises(SettingsError, match="probability should be from 0 to 1; got 2"):
        classifier.decide(rows, 0.5, 2)
    assert classifier.decide(rows[:0], 0.5).named.shape == (0,)


def fit_logistic_in_one_step(rows, person):
    order = np.argsort(person, kind="stable")
    return classifierfit._fit_planes(rows[order], person[order], ClassifierSettings(c=1e4), steps=1)


def test_a_record_whose_parts_do_not_fit_is_none():
    good = trained("knn", 3)
    with pytest.raises(DataError, match="templates of a classifier should be"):
        replace(good, templates=good.templates[:2])
    with pytest.raises(DataError, match="neighbours should be 1 or more"):
        replace(good, machine=replace(good.machine, people=np.array([4])))
    with pytest.raises(DataError, match="An SVM is for up to 200 people; this has 201"):
        trained("svm", 3).machine.check(201, 12)
    with pytest.raises(DataError, match="vectors of a classifier should be"):
        replace(good, machine=replace(good.machine, vectors=good.machine.vectors[:, :3]))
    assert isinstance(good, Classifier)
