"""LFW accuracy and false-match tables on miniature data sets, against the protocol in loops."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fakes import ToyDetector, ToyEngine, toy_card, toy_faces, toy_fmr
from PIL import Image
from shell import blank, copy, refused, run

from facenet.apps.jobs.falsematch import measure_table, require_card, table_text, write_table
from facenet.apps.jobs.lfw import evaluate_lfw
from facenet.apps.jobs.vectors_of import collect_vectors
from facenet.errors import DataError, InputError, ModelFileError, SettingsError
from facenet.faces.embed import Embedder
from facenet.gallery.calibrate import similarity_at
from facenet.models.card import Figure, load_card
from facenet.models.catalog import package_folder
from facenet.recognizer import GROUP, Recognizer
from facenet.types import Faces

FOLDS, SIZE, PEOPLE = 5, 4, 12


def find_face(image):
    """One face, but none in a black picture and one that lies outside in a white one."""
    if image.max() == 0:
        return Faces.empty()
    return toy_faces((500, 500, 540, 540)) if image.min() == 255 else toy_faces()


@pytest.fixture(scope="module")
def recognizer():
    figure = Figure("LFW accuracy", 0.97, "published (the toy makers)", "their protocol")
    embedder = Embedder(toy_card(fmr=toy_fmr(), figures=(figure,)), ToyEngine(dimension=8))
    return Recognizer.from_parts(ToyDetector(find_face), embedder)


def write_person(root, name, number, generator, pattern):
    """A picture of a person: the person's pattern with noise, so that the toy confuses some."""
    pixels = np.clip(pattern + generator.normal(0, 30, pattern.shape), 0, 255).astype(np.uint8)
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
    names = [f"Person_{letter}" for letter in "ABCDEFGHIJKL"]
    for name in names:
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
            person = names[(fold * SIZE + row) % PEOPLE]
            i, j = generator.choice(4, 2, replace=False) + 1
            lines.append(f"{person}\t{i}\t{j}")
        for _ in range(SIZE):
            a, b = generator.choice(PEOPLE, 2, replace=False)
            i, j = generator.integers(1, 5, 2)
            lines.append(f"{names[a]}\t{i}\t{names[b]}\t{j}")
    lines[1] = "Person_A\t1\t2"
    lines[2] = "Person_B\t2\t3"
    lines[10] = "Person_C\t3\t1"
    lines[SIZE + 1] = "Person_A\t1\tPerson_B\t2"
    lines[SIZE + 2] = "Person_D\t1\tPerson_E\t2"
    (root / "pairs.txt").write_text("\n".join(lines) + "\n")
    return images, root / "pairs.txt"


def naive_accuracy(images, pairs, recognizer):
    """The protocol in loops, one picture at a time: (accuracy, deviation, pairs without faces)."""
    lines = [line.split("\t") for line in pairs.read_text().splitlines()[1:]]

    def vector(name, number):
        path = images / name / f"{name}_{int(number):04d}.png"
        try:
            rows = recognizer.embed(path)
        except InputError:
            return None
        return rows[0].astype(np.float64) if len(rows) else None

    distances, same = [], []
    for line in lines:
        first = vector(line[0], line[1])
        second = vector(line[0] if len(line) == 3 else line[2], line[-1])
        found = first is not None and second is not None
        distances.append(float(((first - second) ** 2).sum()) if found else None)
        same.append(len(line) == 3)

    def right(row, threshold):
        return (distances[row] is not None and distances[row] < threshold) == same[row]

    scores = []
    for fold in range(FOLDS):
        own = range(fold * 2 * SIZE, (fold + 1) * 2 * SIZE)
        others = [row for row in range(len(lines)) if row not in own]
        counts = [sum(right(row, step / 100) for row in others) for step in range(400)]
        threshold = counts.index(max(counts)) / 100
        scores.append(sum(right(row, threshold) for row in own) / len(own))
    return np.mean(scores), np.std(scores), sum(d is None for d in distances)


def evaluate(lfw, recognizer, seen=None):
    def done(count, total):
        if seen is not None:
            seen.append((count, total))

    return evaluate_lfw(*lfw, recognizer, select="largest", done=done)


def test_accuracy_is_that_of_the_protocol_in_loops(lfw, recognizer):
    report = evaluate(lfw, recognizer)
    accuracy, deviation, missing = naive_accuracy(*lfw, recognizer)
    assert 0.5 < accuracy < 1  # the toy is neither blind nor perfect, or this would test nothing
    assert report.accuracy == pytest.approx(accuracy)
    assert report.accuracy_std == pytest.approx(deviation)
    assert report.not_found == missing >= 5
    assert report.pairs == 2 * FOLDS * SIZE
    assert -1 <= report.threshold <= 1


def test_the_report_says_what_was_done(lfw, recognizer):
    seen = []
    report = evaluate(lfw, recognizer, seen)
    assert report.model == "toy"
    assert report.precision == "fp32"
    assert (report.published, report.published_protocol) == (0.97, "their protocol")
    assert report.protocol.startswith("5 contiguous folds")
    assert "face by largest, crop margin_output, standardise fixed, no flip" in report.protocol
    assert seen[-1] == (report.pictures, report.pictures)
    assert [count for count, _ in seen] == sorted(count for count, _ in seen)
    missing, *others = report.problems
    assert missing == "No such picture: Person_A_0001."
    for part in ("Person_B_0002", "Person_C_0003", "Person_D_0001"):
        assert sum(part in problem for problem in others) == 1
    sentence = report.sentence()
    assert f"accuracy {report.accuracy:.4f}" in sentence
    assert f"pairs without both faces: {report.not_found}, counted as different" in sentence
    assert "published: 0.97 (their protocol)" in sentence


def test_groups_do_not_matter(lfw, recognizer):
    """More pictures than a group, in whatever order, get the vectors they get alone."""
    images, _ = lfw
    paths = sorted(images.rglob("*.png"))
    assert len(paths) > 2 * GROUP
    first = collect_vectors(paths, recognizer, select="largest", done=lambda d, t: None)
    second = collect_vectors(paths[::-1], recognizer, select="largest", done=lambda d, t: None)
    assert first.vectors.keys() == second.vectors.keys()
    assert first.failed == second.failed
    assert len(first.vectors) + len(first.failed) == len(paths)
    for path, vector in first.vectors.items():
        assert vector == pytest.approx(recognizer.embed(path)[0], abs=1e-6)
        assert vector == pytest.approx(second.vectors[path], abs=1e-6)


def test_no_pictures_is_no_work(recognizer):
    collected = collect_vectors([], recognizer, select="largest", done=lambda d, t: None)
    assert (collected.vectors, collected.failed) == ({}, {})


def test_a_rule_that_chooses_one_face_is_needed(recognizer):
    for rule in ("all", "first"):
        with pytest.raises(SettingsError, match="select should be one of probability, largest"):
            collect_vectors([], recognizer, select=rule, done=lambda d, t: None)


def test_pictures_that_are_all_missing(lfw, recognizer, tmp_path):
    with pytest.raises(DataError, match="should hold Name/Name_0001.jpg"):
        evaluate((tmp_path, lfw[1]), recognizer)


# ---- through the command, with the built-in models


@pytest.fixture(scope="module")
def famous(examples, tmp_path_factory):
    """Three people with two pictures each, in the layout of LFW, and one picture of nobody."""
    root = tmp_path_factory.mktemp("famous")
    pictures = {
        "Obama": ("known/Barack Obama/official-portrait-2012.jpg", "photos/obama-speech-2009.jpg"),
        "Hopper": ("known/Grace Hopper.jpg", "photos/hopper-rendition.jpg"),
        "Collins": ("known/Eileen Collins.jpg", "photos/collins-rendition.jpg"),
    }
    for name, paths in pictures.items():
        for number, path in enumerate(paths, 1):
            copy(examples / path, root / "images" / name / f"{name}_{number:04d}.jpg")
    blank(root / "images/Nobody/Nobody_0001.jpg")
    rows = ["Obama 1 2", "Hopper 1 2", "Obama 1 Hopper 1", "Obama 2 Collins 1"]
    rows += ["Obama 2 1", "Collins 1 2", "Nobody 1 Hopper 2", "Hopper 1 Collins 2"]
    text = "\n".join(["2 2", *rows])
    (root / "pairs.txt").write_text(text.replace(" ", "\t") + "\n")
    return root


def test_the_lfw_command(famous):
    command = ("evaluate", "lfw", "--images", famous / "images", "--pairs", famous / "pairs.txt")
    ran = run(*command, "--json")
    assert ran.code == 0
    answer = ran.json
    assert {"model", "accuracy", "accuracy_std", "pairs", "threshold", "published"} <= set(answer)
    assert (answer["model"], answer["pairs"]) == ("mobilefacenet", 8)
    assert (answer["accuracy"], answer["accuracy_std"], answer["not_found"]) == (1, 0, 1)
    assert ran.sentence == f"No face was found in {famous / 'images/Nobody/Nobody_0001.jpg'}."
    assert run(*command).out.startswith(
        "mobilefacenet (fp32): accuracy 1.0000 +- 0.0000 on 8 pairs"
    )


def test_lfw_files_that_cannot_be(famous, tmp_path):
    images, pairs = famous / "images", famous / "pairs.txt"
    lfw = ("evaluate", "lfw", "--images")
    assert "Cannot read the pairs file" in refused(*lfw, images, "--pairs", tmp_path / "nosuch")
    (tmp_path / "pairs.txt").write_text("10\t300\nnobody\n")
    assert "pairs" in refused(*lfw, images, "--pairs", tmp_path / "pairs.txt")
    assert "no picture of the pairs is there" in refused(*lfw, tmp_path, "--pairs", pairs)
    (tmp_path / "pairs.txt").write_text("1\t1\nObama\t1\t2\nObama\t1\tHopper\t1\n")
    assert "two folds or more" in refused(*lfw, images, "--pairs", tmp_path / "pairs.txt")
    assert "select should be" in refused(*lfw, images, "--pairs", pairs, "--select", "all")


def test_the_false_match_command_writes_into_a_card(famous, examples, tmp_path):
    source = package_folder() / "cards/mobilefacenet.json"
    card = copy(source, tmp_path / "card.json")
    command = ("evaluate", "fmr", famous / "images", "--card", card, "--json")
    ran = run(*command, "--dataset", "three people")
    assert ran.code == 0
    assert "Nobody_0001" in ran.sentence
    assert (ran.json["pairs"], ran.json["people"], ran.json["images"]) == (12, 3, 6)
    assert ran.json["dataset"] == "three people"
    written = load_card(card)
    assert list(written.fmr.false_matches) == ran.json["false_matches"]
    assert list(written.fmr.similarity) == pytest.approx(ran.json["similarity"])
    before, after = (json.loads(path.read_text("utf-8")) for path in (source, card))
    assert before.pop("fmr") != after.pop("fmr")
    assert before == after

    photos = [str(path) for path in sorted(famous.rglob("*.jpg")) if "Nobody" not in str(path)]
    matrix = np.array(run("compare", *photos, "--json").json["similarity"])
    people = [photo.split("/")[-2] for photo in photos]
    scores = [matrix[i, j] for i in range(6) for j in range(i) if people[i] != people[j]]
    for threshold, count in zip(written.fmr.similarity, written.fmr.false_matches, strict=True):
        assert count == sum(score >= threshold for score in scores)
    text = run("evaluate", "fmr", famous / "images").out
    assert text.startswith("12 pairs of different people, 3 people in 6 pictures of images\n")


def test_a_card_that_is_none_is_refused_before_the_work(famous, tmp_path):
    (tmp_path / "card.json").write_text('{"name": "x"}')
    images = famous / "images"
    assert "is no model card" in refused(
        "evaluate", "fmr", images, "--card", tmp_path / "card.json"
    )
    said = refused("evaluate", "fmr", images, "--card", tmp_path / "nosuch.json")
    assert "should be a model card in JSON" in said
    with pytest.raises(ModelFileError):
        require_card(tmp_path / "card.json")
    require_card(None)


def test_a_table_needs_faces_of_two_people(recognizer, tmp_path):
    for person in "ab":
        blank(tmp_path / person / "1.png", (80, 70), (0, 0, 0))
    arguments = {"dataset": "d", "select": "largest", "done": lambda d, t: None}
    with pytest.raises(DataError, match="No face was found in any picture"):
        measure_table(tmp_path, recognizer, **arguments)
    blank(tmp_path / "a/2.png", (80, 70), (90, 80, 70))
    with pytest.raises(DataError, match="two people or more"):
        measure_table(tmp_path, recognizer, **arguments)
    blank(tmp_path / "b/2.png", (80, 70), (10, 200, 30))
    table, problems = measure_table(tmp_path, recognizer, **arguments)
    assert (table.pairs, table.people, table.images) == (1, 2, 2)
    assert len(problems) == 2


def test_the_text_of_a_table_has_the_rates_that_its_pairs_support():
    text = table_text(toy_fmr())
    assert list(text["thresholds"]) == ["0.1", "0.01", "0.001", "0.0001", "1e-05"]
    for rate, value in text["thresholds"].items():
        assert value == pytest.approx(similarity_at(toy_fmr(), float(rate)), abs=1e-4)
        assert value == pytest.approx(-np.log10(float(rate)) / 10, abs=1e-3)
    assert "1,000,000 pairs of different people, 1,000 people in 2,000 pictures" in text["text"]


def test_a_card_that_cannot_be_written_stays_as_it_is(tmp_path):
    with pytest.raises(ModelFileError):
        write_table(tmp_path / "nosuch.json", toy_fmr())
    assert list(tmp_path.iterdir()) == []
