"""`facenet classifier`: trained on folders, counted again by scikit-learn, and asked for names."""

from __future__ import annotations

import stat
from dataclasses import replace

import numpy as np
import pytest
from miniature import vectors, write_people
from shell import blank, copy, refused, run
from sklearn.svm import SVC

import facenet
from facenet.apps.jobs.classifying import Judging, Lesson, divide
from facenet.data.folders import class_pictures
from facenet.data.pairset import Picture
from facenet.errors import DataError, SettingsError
from facenet.evaluate.intervals import wilson
from facenet.gallery.calibrate import Threshold
from facenet.gallery.classifier import ClassifierSettings
from facenet.gallery.classifierfile import load_classifier, save_classifier
from facenet.vectors import unit

COLUMNS = (
    "photo,box,detection_score,person,probability,similarity,threshold,fmr,best_candidate,fpir,"
    "runner_up,runner_up_probability,reason"
)
HALF = ("--min-images", 6, "--images-per-class", 4, "--split")
LESSON = Lesson(min_images=6, images_per_class=4, split=True)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Three people with 8 pictures and Joe Biden with 3, one of which is broken."""
    root = tmp_path_factory.mktemp("people")
    for path in write_people(root, blurred=100):
        if path.parent.name == "Joe_Biden" and path.stem > "Joe_Biden_0003":
            path.unlink()
    (root / "Joe_Biden/Joe_Biden_0002.jpg").write_text("no picture")
    return root


@pytest.fixture(scope="module")
def trained(people, tmp_path_factory):
    """The answer of `train` with a split, and the file."""
    out = tmp_path_factory.mktemp("out") / "svm.safetensors"
    ran = run("classifier", "train", people, "--out", out, *HALF, "--json")
    assert ran.code == 0
    return ran.json, out


def test_the_figures_are_those_of_scikit_learn_on_the_same_pictures(trained, people):
    """Each picture alone through the front door, SVC on the vectors, and counting."""
    values, out = trained
    pictures = class_pictures(people)
    parts = divide(pictures, LESSON, "people")
    found = vectors([picture.source for picture in pictures if picture.person != "Joe_Biden"])
    known = [found[pictures[row].source] for row in parts.training]
    who = [pictures[row].person for row in parts.training]
    theirs = SVC(kernel="linear").fit(known, who)
    test = [found[pictures[row].source] for row in parts.test]
    truth = [pictures[row].person for row in parts.test]
    count = int((theirs.predict(test) == truth).sum())
    assert (values["people"], values["training_faces"]) == (3, 12)
    assert len(test) == values["test"]["pictures"] == 12
    assert (values["test"]["right"], values["test"]["faceless"]) == (count, 0)
    assert values["test"]["accuracy"] == pytest.approx(count / 12)
    assert values["test"]["interval"] == pytest.approx(wilson(count, 12), rel=1e-5)
    templates = {
        name: unit(sum(row for row, own in zip(known, who, strict=True) if own == name))
        for name in set(who)
    }
    similar = [
        templates[name] @ row >= values["threshold"] for name, row in zip(truth, test, strict=True)
    ]
    assert count == 12  # so that the named are the similar
    assert (values["test"]["named_right"], values["test"]["unknown"]) == (
        sum(similar),
        12 - sum(similar),
    )
    classifier = load_classifier(out)
    assert classifier.counts == (4, 4, 4)
    assert (classifier.facenet, classifier.dataset) == (facenet.__version__, values["dataset"])
    for name, template in zip(classifier.names, classifier.templates, strict=True):
        assert template @ templates[name] == pytest.approx(1, abs=1e-3)


def test_strangers_are_those_with_too_few_pictures_and_are_counted(trained, people, tmp_path):
    values, _ = trained
    assert values["people_with_too_few_pictures"] == 1
    asked = ("classifier", "train", people, "--out", tmp_path / "c", *HALF, "--method", "knn")
    seeds = [run(*asked, "--json", "--seed", seed).json for seed in range(5)]
    assert [(found["strangers"] or {}).get("faces") for found in seeds].count(1) in (2, 3, 4)
    for found in seeds:  # one picture is drawn, and one of the three is broken
        if found["strangers"]:
            assert found["strangers"]["named"] == 0
            assert found["problems"] == []
        else:
            assert [problem for problem in found["problems"] if "Joe_Biden_0002" in problem]
    (seed, *_) = (seed for seed, found in enumerate(seeds) if found["strangers"])
    loose = ("--threshold", -1, "--probability", 0, "--seed", seed)
    named = run(*asked, *loose, "--json").json["strangers"]
    assert (named["named"], named["faces"], named["rate"]) == (1, 1, 1)
    assert named["interval"] == pytest.approx(wilson(1, 1), rel=1e-5)
    assert "strangers: no face of one was asked for" in run(*asked, "--strangers", 0).out


def test_the_text_says_it_in_sentences(people, tmp_path):
    text = run("classifier", "train", people, "--out", tmp_path / "c", *HALF, "--method", "knn").out
    lines = text.splitlines()
    assert lines[0].startswith("knn of 3 people from 12 faces in 12 pictures of people")
    assert lines[0].endswith(f"mobilefacenet: {tmp_path / 'c'}")
    assert lines[1].startswith("a face is named from probability 0.5 and similarity 0.541")
    assert lines[2].startswith("test: 12 of 12 pictures right, accuracy 1.0000 [0.7575, 1.0000]")
    assert "0 named wrong" in lines[3]
    assert lines[4].startswith("strangers: ")
    all_of_them = ("--min-images", 3, "--seed", 1)
    text = run("classifier", "train", people, "--out", tmp_path / "c", *all_of_them).out
    assert "svm of 4 people from 26 faces in 27 pictures" in text
    assert "nobody had too few pictures to be one" in text
    text = run("classifier", "train", people, "--out", tmp_path / "c", *HALF[:2], "--split").out
    assert "svm of 3 people from 12 faces" in text  # half of them
    fewer = ("--min-images", 8, "--images-per-class", 8, "--split")
    assert (
        "no picture was left"
        in run("classifier", "train", people, "--out", tmp_path / "c", *fewer).out
    )


@pytest.mark.parametrize("method", ["svm", "logistic", "knn"])
def test_the_same_pictures_and_seed_give_the_same_bytes(method, people, tmp_path):
    ask = ("classifier", "train", people, *HALF, "--method", method, "--out")
    run(*ask, tmp_path / "a")
    run(*ask, tmp_path / "b", "--no-cache")
    first, second = ((tmp_path / name).read_bytes() for name in "ab")
    assert first == second
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_faces_are_named_and_a_stranger_is_not(trained, examples):
    ran = run("classifier", "predict", trained[1], examples / "photos", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert [",".join(row) for row in ran.json] == [COLUMNS] * 7
    rows = sorted(ran.json, key=lambda row: (row["photo"], row["box"][0]))
    assert [row["person"] for row in rows] == [
        "Eileen_Collins",
        *("Eileen_Collins", "Barack_Obama", "Grace_Hopper", None),
        "Grace_Hopper",
        "Barack_Obama",
    ]
    classifier = load_classifier(trained[1])
    found = vectors([examples / "photos/hopper-rendition.jpg"])
    (vector,) = found.values()
    chances = classifier.probabilities(vector[None])[0]
    hopper = rows[5]
    assert hopper["probability"] == pytest.approx(chances.max(), rel=1e-3)
    assert hopper["runner_up_probability"] == pytest.approx(np.sort(chances)[-2], rel=1e-2)
    place = classifier.names.index("Grace_Hopper")
    assert hopper["similarity"] == pytest.approx(classifier.templates[place] @ vector, abs=1e-3)
    assert hopper["fpir"] == pytest.approx(1 - (1 - 1e-4) ** 3, rel=1e-4)
    biden = rows[4]
    assert (biden["reason"], biden["best_candidate"]) == (
        "below_threshold",
        biden["best_candidate"],
    )
    assert biden["similarity"] < biden["threshold"]


def test_csv_rates_and_codes(trained, people, tmp_path):
    photo, ask = (
        people / "Grace_Hopper/Grace_Hopper_0001.jpg",
        ("classifier", "predict", trained[1]),
    )
    ran = run(*ask, photo)
    assert (ran.code, ran.out.splitlines()[0]) == (0, COLUMNS)
    assert [row["person"] for row in ran.rows] == ["Grace_Hopper"]
    doubted = run(*ask, photo, "--probability", 1)
    assert doubted.code == 1
    assert [(row["person"], row["reason"]) for row in doubted.rows] == [("", "improbable")]
    assert run(*ask, photo, "--threshold", 0.9999).code == 1
    shared = run(*ask, photo, "--fpir", 0.003, "--json").json[0]
    assert shared["fpir"] == pytest.approx(0.003, rel=1e-5)
    assert shared["fmr"] == pytest.approx(0.001, rel=2e-3)
    sky = blank(tmp_path / "sky.png")
    ran = run(*ask, sky, "--json")
    assert (ran.code, ran.json, ran.sentence) == (2, [], f"No face was found in {sky}.")
    (tmp_path / "broken.jpg").write_text("no picture")
    ran = run(*ask, photo, tmp_path / "broken.jpg", "--json", "--draw", tmp_path / "drawn")
    assert ran.code == 2
    assert "broken.jpg" in ran.sentence
    assert [row["person"] for row in ran.json] == ["Grace_Hopper"]
    assert (tmp_path / "drawn" / photo.name).is_file()


def test_the_model_is_that_of_the_classifier(trained, people, tmp_path):
    photo, out = people / "Grace_Hopper/Grace_Hopper_0001.jpg", tmp_path / "flip"
    run("classifier", "train", people, "--out", out, *HALF, "--flip", "--method", "knn")
    assert load_classifier(out).contract.endswith("+flip")
    ran = run("classifier", "predict", out, photo, "--json")
    assert [row["person"] for row in ran.json] == ["Grace_Hopper"]
    assert run("classifier", "predict", out, photo, "--flip", "--json").json == ran.json
    said = refused("classifier", "predict", trained[1], photo, "--flip")
    assert said.startswith("The classifier is of mobilefacenet in fp32; another model, precision")
    assert "with flip" in refused("classifier", "predict", out, photo, "--precision", "int8")
    other = replace(load_classifier(trained[1]), contract="mobilefacenet:0123456789abcdef")
    save_classifier(other, out)
    said = refused("classifier", "predict", out, photo)
    assert said.startswith("Vectors should come from one model: expected mobilefacenet:0123456789")
    save_classifier(replace(other, model="nobody"), out)
    assert "nobody" in refused("classifier", "predict", out, photo)


def test_what_cannot_be_learnt_is_told(people, tmp_path):
    out, one = tmp_path / "c", tmp_path / "one"

    def said(folder, *more):
        sentence = refused("classifier", "train", folder, "--out", out, *more)
        assert not out.exists()
        return sentence

    for number in (1, 2):
        source = people / f"Grace_Hopper/Grace_Hopper_000{number}.jpg"
        copy(source, one / "Grace_Hopper" / source.name)
    assert "of 1 in one 1 have 2 pictures or more" in said(one)
    copy(source, one / "Alone" / "a.jpg")
    assert "of 2 in one 1 have 2 pictures or more" in said(one)
    blank(one / "Sky/1.png")
    blank(one / "Sky/2.png")
    assert "1 of 2 have them" in said(one)
    assert "one picture file" not in said(tmp_path / "nosuch")
    assert "there is no such folder" in said(tmp_path / "nosuch")
    (tmp_path / "empty").mkdir()
    assert "one per person; it holds none" in said(tmp_path / "empty")
    assert "c should be from 1e-6" in said(people, "--c", 0)
    assert "min-images should be 2 or more; got 1" in said(people, "--min-images", 1)
    assert "images-per-class should be 2 or more" in said(people, "--images-per-class", 1)
    assert "probability should be from 0 to 1" in said(people, "--probability", 2)
    assert "method should be one of" in said(people, "--method", "forest")
    assert "Give either fmr or threshold" in said(people, "--fmr", 0.1, "--threshold", 0.3)
    assert "select should be one of" in said(people, "--select", "x")
    folder = refused("classifier", "train", people, "--out", tmp_path)
    assert folder.startswith("Cannot write")


def test_people_without_usable_pictures_are_left_out_and_told(people, tmp_path):
    root = tmp_path / "some"
    for name in ("Grace_Hopper", "Barack_Obama"):
        for number in range(1, 5):
            source = people / name / f"{name}_000{number}.jpg"
            copy(source, root / name / source.name)
    copy(source, root / "Half" / "1.jpg")
    blank(root / "Half/2.png")
    (root / "Empty").mkdir()
    ran = run("classifier", "train", root, "--out", tmp_path / "c", "--json")
    assert (ran.code, ran.json["people"]) == (0, 2)
    assert ran.json["problems"] == [
        "Empty holds no picture and was left out.",
        "Half was not learnt: 1 of the training pictures shows a face; two are needed.",
        "No face was found in Half/2.png.",
    ]
    assert load_classifier(tmp_path / "c").names == ("Barack_Obama", "Grace_Hopper")


def test_a_file_that_is_no_classifier_is_refused(tmp_path, examples):
    photo = examples / "photos/hopper-rendition.jpg"
    for path in (photo, tmp_path / "none"):
        said = refused("classifier", "predict", path, photo)
        assert "facenet classifier train" in said


def test_the_parts_of_a_folder_are_drawn_once_each_and_by_a_seed():
    counts = {"a": 9, "b": 5, "c": 4, "d": 1, "e": 2}
    pictures = [
        Picture(f"{name}/{number}", None, name)
        for name in "ebadc"
        for number in range(counts[name])
    ]
    lesson = Lesson(ClassifierSettings(seed=3), min_images=4, images_per_class=4, split=True)
    parts = divide(pictures, lesson, "set")
    people = [[pictures[row].person for row in rows] for rows in (parts.training, parts.test)]
    assert parts.names == ("a", "b", "c")
    assert people[0] == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    assert sorted(people[1]) == ["a"] * 5 + ["b"]
    assert not set(parts.training) & set(parts.test)
    assert sorted(pictures[row].person for row in parts.strangers) == ["d", "e"]
    assert len(divide(pictures, replace(lesson, strangers=1), "set").strangers) == 1
    again = divide(pictures, lesson, "set")
    assert np.array_equal(again.training, parts.training)
    assert np.array_equal(again.strangers, parts.strangers)
    seeds = [replace(lesson, settings=ClassifierSettings(seed=seed)) for seed in range(20)]
    drawn = {tuple(divide(pictures, each, "set").training) for each in seeds}
    assert len(drawn) > 10
    whole = divide(pictures, Lesson(min_images=2), "set")
    assert (len(whole.training), len(whole.test), len(whole.strangers)) == (20, 0, 1)
    assert len(divide(pictures, Lesson(split=True), "set").training) == 5 + 3 + 2 + 2
    with pytest.raises(DataError, match="of 5 in set 1 have 6 pictures or more"):
        divide(pictures, Lesson(min_images=6), "set")
    odd = [replace(picture, person=picture.person + "\n") for picture in pictures]
    with pytest.raises(DataError, match="can be printed"):
        divide(odd, lesson, "set")
    with pytest.raises(SettingsError, match="strangers should be 0 or more; got -1"):
        Lesson(strangers=-1)
    with pytest.raises(SettingsError, match="probability should be from 0 to 1"):
        Judging(Threshold(0.5, None), -0.1)


def test_the_protocol_of_facenets_wiki_in_small(data, tmp_path):
    """Six of the 19 people of LFW with 40 pictures and more, 5 for training instead of 35."""
    root = tmp_path / "people"
    for name in sorted(p.name for p in (data / "lfw/images").iterdir()):
        pictures = sorted((data / "lfw/images" / name).iterdir())
        if len(pictures) >= 40 and len(list(root.glob("*"))) < 6:
            (root / name).mkdir(parents=True)
            for picture in pictures[:8]:
                (root / name / picture.name).symlink_to(picture)
    asked = ("--min-images", 8, "--images-per-class", 5, "--split", "--json")
    for method in ("svm", "logistic", "knn"):
        out = tmp_path / method
        found = run("classifier", "train", root, "--out", out, *asked, "--method", method).json
        assert (found["people"], found["training_faces"], found["test"]["pictures"]) == (6, 30, 18)
        assert found["test"]["right"] >= 17
        assert found["test"]["named_wrong"] == 0
