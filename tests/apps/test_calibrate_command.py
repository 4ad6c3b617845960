"""`facenet calibrate`, and what `facenet verify` says from then on."""

from __future__ import annotations

import hashlib
import json
import math
from itertools import combinations

import numpy as np
import pytest
from miniature import PEOPLE, scores, strict, vectors, write_people
from shell import blank, copy, refused, run

from facenet.evaluate.calibration import fit_logistic

RATE = 0.02
"""A rate that the pairs of the miniature reach."""


@pytest.fixture(scope="module", autouse=True)
def room(tmp_path_factory):
    """A FACENET_HOME of this file's own, in which calibrations may lie."""
    folder = tmp_path_factory.mktemp("calibrate") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACENET_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Eight pictures each of four people, one of them twice, and one without a face."""
    root = tmp_path_factory.mktemp("own") / "Fotos ß"
    write_people(root, seed=6)
    blank(root / PEOPLE[0] / "blank.jpg")
    copy(root / PEOPLE[1] / f"{PEOPLE[1]}_0001.jpg", root / PEOPLE[1] / "twice.jpg")
    return root


@pytest.fixture(scope="module")
def rows(images):
    return {
        path: row for path, row in vectors(sorted(images.rglob("*.jpg"))).items() if row is not None
    }


def split(rows):
    pairs = list(combinations(rows, 2))
    same = [pair for pair in pairs if pair[0].parent == pair[1].parent]
    return scores(same, rows), scores([pair for pair in pairs if pair not in set(same)], rows)


@pytest.fixture
def made(images, room):
    """What the command prints, and the file that it writes."""
    ran = run("calibrate", images, "--json")
    assert ran.code == 0
    path = room / "models/mobilefacenet/calibration.json"
    yield strict(ran.out), path
    path.unlink(missing_ok=True)


def verify(photos, *more):
    ran = run("verify", *photos, "--json", *more)
    assert ran.code in (0, 1), ran
    return ran.json


@pytest.fixture
def photos(examples):
    return examples / "known/Grace Hopper.jpg", examples / "photos/obama-speech-2009.jpg"


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def logit(share):
    return math.log(share / (1 - share))


# ---- what is measured


def test_the_table_is_counted_over_all_pairs(made, rows, images):
    found, path = made
    _, others = split(rows)
    table = found["fmr_table"]
    assert (table["pairs"], table["people"], table["images"]) == (len(others), 4, 33)
    for level, false in zip(table["similarity"], table["false_matches"], strict=True):
        near = [sum(score >= level + by for score in others) for by in (1e-5, -1e-5)]
        assert near[0] <= false <= near[1]
    for name, level in found["similarity_at"].items():
        assert sum(score >= level + 0.01 for score in others) <= float(name) * len(others)
    assert list(found["similarity_at"]) == ["0.1", "0.01"]
    for row in found["galleries"]:
        assert row["fmr"] == pytest.approx(1 - 0.99 ** (1 / row["gallery"]), rel=1e-4)
    assert found["galleries"][-1]["similarity"] is None
    assert (found["pictures"], found["failures"], found["dataset"]) == (34, 1, "Fotos ß")
    assert found["file"] == str(path)
    whole = hashlib.sha256()
    for file in sorted(images.rglob("*.jpg")):
        name = file.relative_to(images).as_posix().encode()
        whole.update(name + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    assert found["digests"] == {"Fotos ß": whole.hexdigest()}
    kept = json.loads(path.read_text("utf-8"))
    assert kept["digest"] == whole.hexdigest()
    assert kept["fmr"] == table
    assert kept["contract"] == found["contract"]
    assert kept["detector"] == "mtcnn"


def test_the_probabilities_are_the_best_that_a_line_can_give(made, rows):
    """The weighted sums of what is wrong vanish, plain and times the similarity."""
    (mated, others), line = split(rows), made[0]["logistic"]
    assert line["prior"] == 0.01

    def wrong(weight):
        at = [line["slope"] * s + line["offset"] + logit(0.01) for s in (*mated, *others)]
        one, two = at[: len(mated)], at[len(mated) :]
        missed = sum(sigmoid(-a) * weight(s) for a, s in zip(one, mated, strict=True))
        false = sum(sigmoid(a) * weight(s) for a, s in zip(two, others, strict=True))
        return 0.01 * missed / len(mated), 0.99 * false / len(others)

    for weight in (lambda s: 1, lambda s: s):
        one, two = wrong(weight)
        assert one == pytest.approx(two, rel=1e-3)


def test_the_cost_is_that_of_people_held_out(made, rows):
    found = made[0]["calibration"]
    order = np.random.default_rng(0).permutation(4)
    first = {name for name, place in zip(PEOPLE, order, strict=True) if place < 2}
    halves = [
        split({path: row for path, row in rows.items() if (path.parent.name in first) == side})
        for side in (True, False)
    ]
    line = fit_logistic(*map(np.array, halves[0]), 0.01)
    mated, others = (line.llr(np.array(part)) for part in halves[1])
    bits = (np.mean(np.log2(1 + np.exp(-mated))) + np.mean(np.log2(1 + np.exp(others)))) / 2
    assert found["cllr"] == pytest.approx(bits, rel=5e-3)  # pictures together, and one by one
    assert (found["mated"], found["non_mated"]) == (len(mated), len(others))
    assert found["cllr"] >= found["min_cllr"] >= 0
    assert sum(found["reliability"]["mated"]) == len(mated)
    for name, answer in made[0]["held_out"].items():
        assert answer["within_factor_two"] is None
        assert f"The data do not allow the claim: at FMR {name}" in answer["note"] or (
            f"The data do not allow the claim: FMR {name} needs" in answer["note"]
        )


def test_a_calibration_in_text_says_what_it_reaches(images, room, photos):
    ran = run("calibrate", images, "--dataset", "mine")
    assert ran.err.splitlines()[1] == (f"facenet: No face was found in {PEOPLE[0]}/blank.jpg.")
    text = ran.out
    assert text.startswith("mobilefacenet:")
    assert "408 pairs of different people, 4 people in 33 pictures of mine\n" in text
    assert "\nFMR   0.01  similarity 0.3" in text
    assert "\ngallery of 10: FPIR 0.01 at FMR 0.001, similarity too rare for these pairs\n" in text
    assert " + logit prior), prior 0.01; Cllr " in text
    said = "These pictures speak of false-match rates from 0.0074 on, and verify and identify"
    assert said in text.splitlines()[-1]
    assert (
        "fmr should be 0.0074 or more with the calibration on mine, which has 408 pairs"
        in refused("verify", *photos)
    )
    assert verify(photos, "--fmr", 0.0074)["fmr"] == 0.0074


# ---- what decides from then on


def test_verify_decides_by_it(made, photos, images):
    found, _ = made
    line, table = found["logistic"], found["fmr_table"]
    answer = verify(photos, "--fmr", RATE)
    assert answer["fmr_source"] == f"{table['pairs']} pairs of Fotos ß"
    reached = [
        false
        for level, false in zip(table["similarity"], table["false_matches"], strict=True)
        if level >= answer["threshold"]
    ]
    assert max(reached) <= RATE * table["pairs"] < min(set(table["false_matches"]) - set(reached))
    chance = line["slope"] * answer["similarity"] + line["offset"]
    assert answer["probability"] == pytest.approx(sigmoid(chance + logit(0.01)), rel=1e-3)
    likely = verify(photos, "--fmr", RATE, "--prior", 0.5)["probability"]
    assert likely == pytest.approx(sigmoid(chance), rel=1e-3)
    card = verify(photos, "--fmr", RATE, "--calibration", "card")
    assert card["similarity"] == answer["similarity"]
    assert card["probability"] is None
    assert card["fmr_source"] == "87,294,040 pairs of LFW deep-funneled"
    assert card["threshold"] != answer["threshold"]
    flipped = verify(photos, "--fmr", RATE, "--flip")
    assert (flipped["probability"], flipped["fmr_source"]) == (None, card["fmr_source"])
    text = run("verify", *photos, "--fmr", RATE).out
    assert f"{table['pairs']} pairs of Fotos ß), probability " in text


def test_flipped_vectors_have_a_calibration_of_their_own(made, images, photos, room):
    plain, path = made
    found = run("calibrate", images, "--flip", "--json", "--prior", 0.2).json
    assert found["file"] == str(room / "models/mobilefacenet/calibration+flip.json")
    assert found["contract"] == plain["contract"] + "+flip"
    assert found["logistic"]["prior"] == 0.2
    assert found["logistic"]["slope"] != plain["logistic"]["slope"]
    answer = verify(photos, "--fmr", RATE, "--flip")
    assert answer["probability"] is not None
    chance = found["logistic"]["slope"] * answer["similarity"] + found["logistic"]["offset"]
    assert answer["probability"] == pytest.approx(sigmoid(chance + logit(0.2)), rel=1e-3)
    both = ("evaluate", "overlap", images, images, "--fmr", RATE, "--json")
    assert run(*both, "--flip").json["threshold"] == answer["threshold"]
    level = verify(photos, "--fmr", RATE)["threshold"]
    assert run(*both).json["threshold"] == level != answer["threshold"]
    said = refused("verify", *photos, "--flip", "--calibration", path)
    assert "should be of the model in use, mobilefacenet:" in said


def test_a_calibration_is_kept_in_a_gallery(images, photos, room, tmp_path):
    place, known = tmp_path / "G.db", photos[0]
    assert run("gallery", "create", place).code == 0
    allow = "several_faces,too_small,blurred,extreme_pose,low_score,conflict,unlike"
    assert run("enroll", place, "Ann", known, "--allow", allow).code == 0
    done = run("calibrate", images, "--gallery", place, "--json")
    assert done.json["file"] == str(place)
    assert not (room / "models/mobilefacenet/calibration.json").exists()
    asked = ("verify", "Ann", photos[1], "--gallery", place, "--fmr", RATE, "--json")
    assert run(*asked).json["fmr_source"].endswith(f"pairs of {images.name}")
    assert run(*asked, "--calibration", "card").json["fmr_source"].startswith("87,294,040 pairs")
    out = tmp_path / "c.json"
    assert "leave one out" in refused("calibrate", images, "--gallery", place, "--out", out)
    assert "none.db" in refused("calibrate", images, "--gallery", tmp_path / "none.db")
    flipped = refused("calibrate", images, "--flip", "--gallery", place)
    assert "Calibrate with the gallery's model" in flipped


def test_a_file_of_ones_own(images, photos, room, tmp_path):
    out = tmp_path / "eigene ü" / "c.json"
    found = run("calibrate", images, "--out", out, "--json", "--seed", 3).json
    assert found["file"] == str(out)
    assert not (room / "models/mobilefacenet/calibration.json").exists()
    assert verify(photos)["fmr_source"].startswith("87,294,040 pairs")
    mine = verify(photos, "--fmr", RATE, "--calibration", out)
    assert mine["fmr_source"].endswith(" pairs of Fotos ß")
    other = json.loads(out.read_text("utf-8")) | {"contract": "another:0123456789abcdef"}
    out.write_text(json.dumps(other))
    said = refused("verify", *photos, "--calibration", out)
    assert "should be of the model in use, mobilefacenet:" in said
    assert said.endswith(
        "is of another:0123456789abcdef. Calibrate again with this model and these options."
    )


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[:-40], "should be a calibration in JSON; "),
        (lambda text: "[1]", "is no calibration: "),
        (lambda text: text.replace('"prior"', '"Prior"'), "is no calibration: "),
        (lambda text: text.replace('"slope": ', '"slope": NaN, "x": '), "NaN is no number of JSON"),
    ],
)
def test_a_damaged_file_is_one_sentence_and_can_be_made_anew(made, images, photos, damage, said):
    _, path = made
    path.write_text(damage(path.read_text("utf-8")))
    text = refused("verify", *photos, "--fmr", RATE)
    assert said in text
    assert str(path) in text
    assert text.endswith("with `facenet calibrate`.")
    assert verify(photos, "--calibration", "card")["probability"] is None
    assert run("calibrate", images).code == 0
    assert verify(photos, "--fmr", RATE)["probability"] is not None


def test_a_report_of_a_calibration(images, tmp_path):
    ran = run("calibrate", images, "--out", tmp_path / "c.json", "--report", tmp_path, "--json")
    (model,) = json.loads((tmp_path / "report.json").read_text("utf-8"))["models"]
    assert model["fmr_table"] == ran.json["fmr_table"]
    lines = (tmp_path / "report.csv").read_text("utf-8").splitlines()
    assert [line.split(",")[2] for line in lines if line.startswith("mobilefacenet")][:5] == [
        "pictures", "people", "failures", "cllr", "min_cllr",
    ]  # fmt: skip
    assert "No face was found in" in (tmp_path / "report.html").read_text("utf-8")


def test_equal_similarities_are_no_evidence(images, tmp_path):
    """One picture under every name: a pair of one person is as similar as any other."""
    for name in "abcd":
        for number in (1, 2):
            source = images / PEOPLE[2] / f"{PEOPLE[2]}_0001.jpg"
            copy(source, tmp_path / "same" / name / f"{number}.jpg")
    found = run("calibrate", tmp_path / "same", "--out", tmp_path / "c.json", "--json").json
    line = found["logistic"]
    assert line["slope"] + line["offset"] == pytest.approx(0, abs=1e-6)
    assert found["calibration"]["cllr"] == pytest.approx(1, abs=1e-5)
    assert found["similarity_at"] == {}
    assert "false-match rates from 1 on" in found["notes"][0]


# ---- what cannot be


def test_pictures_that_are_too_few(images, tmp_path, room):
    out = ("--out", tmp_path / "c.json")
    three = tmp_path / "three"
    for name in PEOPLE[:3]:
        for number in (1, 2):
            copy(images / name / f"{name}_{number:04d}.jpg", three / name / f"{number}.jpg")
    assert "need four people or more; got 3" in refused("calibrate", three, *out)
    alone = tmp_path / "alone"
    for name in PEOPLE:
        copy(images / name / f"{name}_0001.jpg", alone / name / "1.jpg")
    assert "scores of mated and of non-mated pairs; got 0 and 6" in refused(
        "calibrate", alone, *out
    )
    blind = tmp_path / "blind"
    blank(blind / "a" / "1.jpg")
    assert "in none it was. The first: No face was" in refused("calibrate", blind, *out)
    assert "there is no such folder" in refused("calibrate", tmp_path / "gone", *out)
    assert not (tmp_path / "c.json").exists()


def test_settings_that_cannot_be_are_refused_before_the_work(images, home):
    for prior in ("0", "1", "-1", "nan"):
        said = refused("calibrate", images, "--prior", prior)
        assert said.startswith("prior should be the share of mated pairs, above 0 and below 1; got")
    assert "a seed of 0 or more" in refused("calibrate", images, "--seed", -1)
    assert not (home / "cache").exists()


def test_a_file_that_cannot_be_written(images, tmp_path):
    (tmp_path / "folder").mkdir()
    said = refused("calibrate", images, "--out", tmp_path / "folder")
    assert said.startswith(f"Cannot write {tmp_path / 'folder'}: ")
