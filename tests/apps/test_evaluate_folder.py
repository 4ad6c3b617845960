"""Data sets of a folder per person: measured from all sides, every number counted again."""

from __future__ import annotations

import hashlib
import json
from itertools import combinations

import numpy as np
import pytest
from miniature import (
    PEOPLE,
    area_in_loops,
    front_door,
    scores,
    strict,
    tar_in_loops,
    toy,
    vectors,
    write_people,
)
from PIL import Image
from shell import blank, copy, refused, run

from facenet.apps.jobs.allpairs import require_card, write_table
from facenet.apps.jobs.evaluation import Evaluation
from facenet.apps.jobs.folderset import FolderSettings, evaluate_folder
from facenet.data.drawn import draw_pairs
from facenet.data.folders import read_class_folders
from facenet.errors import ModelFileError
from facenet.models.card import load_card
from facenet.models.catalog import package_folder

NOBODY = "Nobody at all"


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """Eight pictures each of four people, and of somebody else a blank and a damaged one."""
    root = tmp_path_factory.mktemp("folder") / "Gesichter ä"
    write_people(root, blurred=2)
    blank(root / NOBODY / "1.jpg")
    (root / NOBODY / "2.jpg").write_bytes(b"damaged")
    return root


@pytest.fixture(scope="module")
def rows(mini):
    """The vector of each picture, by its path; None without a face."""
    good = [path for path in sorted(mini.rglob("*.jpg")) if path.name != "2.jpg"]
    return {**vectors(good), mini / NOBODY / "2.jpg": None}


def split(rows):
    """Scores of all pairs of one person, and of two."""
    pairs = list(combinations(rows, 2))
    same = [pair for pair in pairs if pair[0].parent == pair[1].parent]
    return scores(same, rows), scores([pair for pair in pairs if pair not in set(same)], rows)


# ---- all pairs


def test_all_pairs_are_counted(mini, rows):
    ran = run("evaluate", "all-pairs", mini, "--json", "--replicates", 100)
    assert ran.code == 0
    found, (mated, others) = strict(ran.out), split(rows)
    assert (found["mated"], found["pairs"], found["people"]) == (len(mated), len(others), 5)
    assert (found["pictures"], found["failures"]) == (34, 2)
    assert found["not_found"] == sum(np.isneginf(mated)) + sum(np.isneginf(others))
    assert found["auc"] == pytest.approx(area_in_loops(mated, others), abs=1e-6)
    assert list(found["tar_at_far"]) == ["1e-1", "1e-2"]
    for name, point in found["tar_at_far"].items():
        tar, false = tar_in_loops(mated, others, float(name))
        assert (point["tar"], point["false_matches"]) == (pytest.approx(tar), false)
        assert point["far"] == pytest.approx(false / len(others), rel=1e-5)
        assert point["ci"][0] <= point["tar"] <= point["ci"][1]
        assert point["far_ci"][0] <= point["far"] <= point["far_ci"][1]
        assert point["threshold_exact"]
    assert found["auc_ci"][0] < found["auc"] < found["auc_ci"][1]
    assert "needs 3,000 non-mated pairs (3 / rate); there are" in found["refused"]["1e-3"]
    assert found["dataset"] == "Gesichter ä"
    assert found["model"] == "mobilefacenet"
    assert found["protocol"].startswith("every picture against every other, cosine similarity; ")
    assert len(found["problems"]) == ran.err.count("\n") == 2
    assert all(NOBODY in problem for problem in found["problems"])
    assert "curves" not in found


def test_the_digest_is_that_of_names_and_contents(mini):
    found = run("evaluate", "all-pairs", mini, "--json", "--replicates", 100).json
    whole = hashlib.sha256()
    for path in sorted(mini.rglob("*.jpg")):
        name = path.relative_to(mini).as_posix().encode()
        whole.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    assert found["digests"] == {"Gesichter ä": whole.hexdigest()}


def test_all_pairs_in_text(mini):
    text = run("evaluate", "all-pairs", mini, "--replicates", 100).out
    assert text.startswith("mobilefacenet (fp32): ")
    assert "5 people in 34 pictures of Gesichter ä, 2 without a usable face\n" in text
    assert "\nFMR 1e-2  similarity 0." in text
    assert "\nnot printed: FAR 1e-3 needs 3,000" in text


def test_the_table_goes_into_a_card(mini, rows, tmp_path):
    source = package_folder() / "cards/mobilefacenet.json"
    card = copy(source, tmp_path / "card.json")
    command = ("evaluate", "all-pairs", mini, "--card", card, "--dataset", "four people")
    found = run(*command, "--json", "--replicates", 100).json["fmr_table"]
    written = load_card(card).fmr
    assert list(written.false_matches) == found["false_matches"]
    assert (written.dataset, written.people, written.images) == ("four people", 4, 32)
    before, after = (json.loads(path.read_text("utf-8")) for path in (source, card))
    assert before.pop("fmr") != after.pop("fmr")
    assert before == after

    photos = [str(path) for path in rows if rows[path] is not None]
    matrix = np.array(run("compare", *photos, "--json").json["similarity"])
    people = [photo.split("/")[-2] for photo in photos]
    count = len(photos)
    others = [matrix[i, j] for i in range(count) for j in range(i) if people[i] != people[j]]
    assert written.pairs == len(others)
    for level, false in zip(written.similarity, written.false_matches, strict=True):
        near = [sum(score >= level + by for score in others) for by in (1e-5, -1e-5)]
        assert near[0] <= false <= near[1]


def test_a_card_that_is_not_that_of_the_vectors_is_refused_before_the_work(mini, tmp_path):
    (tmp_path / "none.json").write_text('{"name": "x"}')
    command = ("evaluate", "all-pairs", tmp_path / "no such folder", "--card")
    assert "is no model card" in refused(*command, tmp_path / "none.json")
    assert "should be a model card in JSON" in refused(*command, tmp_path / "gone.json")
    other = package_folder() / "cards/facenet-casia-webface.json"
    said = refused(*command, other)
    assert "should be the card of the vectors that are compared, mobilefacenet:" in said
    card = copy(package_folder() / "cards/mobilefacenet.json", tmp_path / "card.json")
    before = card.read_bytes()
    assert "+flip; it is that of mobilefacenet:" in refused(*command, card, "--flip")
    assert card.read_bytes() == before
    require_card(None)
    with pytest.raises(ModelFileError):
        write_table(tmp_path / "gone.json", {})


def test_flips_are_summed_and_said(mini, rows):
    command = ("evaluate", "all-pairs", mini, "--json", "--replicates", 100)
    plain, flipped = (run(*command, *more).json for more in ((), ("--flip",)))
    assert "cosine similarity; flips summed; face by" in flipped["protocol"]
    assert flipped["contract"] == plain["contract"] + "+flip"
    both = vectors([path for path in rows if path.name != "2.jpg"], flip=True)
    mated, others = split({**both, mini / NOBODY / "2.jpg": None})
    assert flipped["auc"] == pytest.approx(area_in_loops(mated, others), abs=1e-6)
    assert flipped["auc"] != plain["auc"]


# ---- a folder from all sides


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    path = tmp_path_factory.mktemp("groups") / "groups.csv"
    lines = ["Barack_Obama,m,x", "Joe_Biden,m,x", "Grace_Hopper,f,x", "Eileen_Collins,f,"]
    path.write_text("\n".join(["person,sex,some", *lines]))
    return path


@pytest.fixture(scope="module")
def folder(mini, groups):
    more = ("--pairs", 100, "--replicates", 100, "--seed", 2, "--attributes", groups)
    ran = run("evaluate", "folder", mini, "--json", *more)
    assert ran.code == 0
    return strict(ran.out)


def test_pairs_are_drawn_and_scored(mini, rows, folder, groups):
    drawn = draw_pairs(read_class_folders(mini), dataset="", pairs=100, seed=2)
    paths = [picture.source for picture in drawn.pictures]
    pairs = [(paths[a], paths[b]) for a, b in zip(drawn.a, drawn.b, strict=True)]
    found = np.array(scores(pairs, rows))
    mated, others = found[drawn.same], found[~drawn.same]
    assert (folder["mated"], folder["non_mated"]) == (len(mated), len(others))
    assert folder["auc"] == pytest.approx(area_in_loops(mated, others), abs=1e-6)
    tar, false = tar_in_loops(mated.tolist(), others.tolist(), 0.1)
    point = folder["tar_at_far"]["1e-1"]
    assert (point["tar"], point["false_matches"]) == (pytest.approx(tar), false)
    assert folder["digests"]["groups.csv"] == hashlib.sha256(groups.read_bytes()).hexdigest()
    assert any(note.startswith("The pairs were drawn with seed 2 ") for note in folder["notes"])
    keys = {"accuracy", "accuracy_std", "accuracy_ci", "auc", "eer", "tar_at_far", "failures"}
    assert keys | {"protocol", "model", "digests"} < set(folder)


def test_what_quality_is_worth_begins_at_the_error_of_all_pairs(folder):
    assert set(folder["quality"]) == {"detection_score", "face_size", "sharpness", "pose", "norm"}
    missed = 1 - folder["tar_at_far"]["1e-1"]["tar"]
    for curve in folder["quality"].values():
        assert curve["fnmr"][0] == curve["oracle"][0] == pytest.approx(missed, abs=1e-6)
        assert curve["pauc_20_random"] == pytest.approx(0.2 * missed, abs=1e-6)
        assert curve["pauc_20_oracle"] <= curve["pauc_20"] + 1e-9
        assert curve["far"] == "1e-1"
    assert folder["quality"]["sharpness"]["pauc_20"] < 0.2 * missed  # the coarse ones are missed


def test_pairs_of_the_lowest_quality_are_discarded_first(mini, rows, folder):
    """A pair is as good as the worse of its faces; equally good ones go at their mean error."""
    drawn = draw_pairs(read_class_folders(mini), dataset="", pairs=100, seed=2)
    paths = [picture.source for picture in drawn.pictures]
    good = {
        path: front_door().detect(path).detection_score[0]
        for path in rows
        if rows[path] is not None
    }
    level, quality = folder["tar_at_far"]["1e-1"]["threshold"], {}
    for a, b in zip(drawn.a[drawn.same], drawn.b[drawn.same], strict=True):
        worse = min(good.get(paths[a], -1), good.get(paths[b], -1))
        (score,) = scores([(paths[a], paths[b])], rows)
        quality.setdefault(worse, []).append(score < level - 1e-6)
    errors = [sum(same) / len(same) for _, same in sorted(quality.items()) for _ in same]
    curve = folder["quality"]["detection_score"]
    for share, fnmr in zip(curve["discard"], curve["fnmr"], strict=True):
        left = errors[int(share * len(errors) + 1e-9) :]
        assert fnmr == pytest.approx(sum(left) / len(left), abs=1e-6)
    assert len(set(curve["fnmr"])) > 3


def test_groups_are_judged_at_one_threshold_of_all_pairs(folder, rows):
    sex = folder["groups"]["sex"]
    members = {"f": ("Eileen_Collins", "Grace_Hopper"), "m": ("Barack_Obama", "Joe_Biden")}
    assert [row["group"] for row in sex["rows"]] == ["f", "m"]
    for row in sex["rows"]:
        own = {path: rows[path] for path in rows if path.parent.name in members[row["group"]]}
        mated, others = split(own)
        level = sex["threshold"]
        assert (row["mated"], row["non_mated"]) == (len(mated), len(others))
        assert row["false_non_matches"] == sum(score < level - 1e-6 for score in mated)
        assert row["false_matches"] == sum(score >= level - 1e-6 for score in others)
        assert (row["people"], row["pictures"]) == (2, 16)
    assert sex["far"] == "1e-2"
    assert sum(score >= level - 1e-6 for score in split(rows)[1]) == sum(
        row["false_matches"] for row in sex["rows"]
    ) + round(2 * 64 * 2 * sex["cross"]["fmr"][0][1])
    (some,) = folder["groups"]["some"]["rows"]
    assert some["group"] == "x"
    said = "some: 2 of the data set have no attribute and are left out of the groups: Eileen_"
    assert any(note.startswith(said) for note in folder["notes"])
    highest, lowest = (row["fnmr"] for row in reversed(sex["rows"]))
    assert sex["summary"]["fnmr_max_min"] == pytest.approx(highest / lowest, rel=1e-4)


def test_a_folder_in_text(mini, groups, folder):
    command = ("evaluate", "folder", mini, "--pairs", 100, "--replicates", 100)
    text = run(*command, "--attributes", groups).out
    assert text.startswith("mobilefacenet (fp32): accuracy ")
    for part in (
        "\nrank 1: ",
        " of 29 searches in a gallery of 5 people\n",
        "\nquality by sharpness: area under FNMR to 20 % discarded 0.0",
        f"\nsex, all at similarity {folder['groups']['sex']['threshold']:.3f} (FMR 1e-2):\n",
        "\n  f: 2 people, FMR 0",
        "non-mated pairs: f, m.",
    ):
        assert part in text


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Ten people with four pictures each, and 32 with a single one."""
    root, generator = tmp_path_factory.mktemp("toys"), np.random.default_rng(5)
    for person in range(42):
        pattern = generator.normal(128, 50, (14, 16, 3))
        for number in range(4 if person < 10 else 1):
            noise = generator.normal(0, 70, pattern.shape)
            pixels = np.clip(pattern + noise, 0, 255).astype(np.uint8)
            path = root / f"{person:02d}" / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).resize((80, 70), Image.Resampling.NEAREST).save(path)
    return root


@pytest.mark.parametrize("enrol", [1, 2])
def test_searches_in_loops(toys, enrol):
    recognizer = toy()
    settings = FolderSettings(pairs=100, enrol=enrol)
    how = Evaluation(replicates=40)
    done = []
    model = evaluate_folder(
        toys, [recognizer], how, settings, done=lambda count, total: done.append((count, total))
    ).models[0]
    found = model["identification"]
    assert done[-1] == (72, 72)
    paths = sorted(toys.rglob("*.png"))
    rows = {path: recognizer.embed(path)[0].astype(np.float64) for path in paths}
    shuffled = np.random.default_rng(0).permutation(len(paths))
    enrolled = {}
    for person in {path.parent.name for path in paths}:
        mine = [paths[i] for i in shuffled if paths[i].parent.name == person]
        if len(mine) > enrol:
            enrolled[person] = mine[:enrol]
    inside = {path for own in enrolled.values() for path in own}
    ranks, best = [], []
    for path in paths:
        if path in inside:
            continue
        near = {who: max(rows[path] @ rows[one] for one in own) for who, own in enrolled.items()}
        if path.parent.name in near:
            ranks.append(sum(score >= near[path.parent.name] for score in near.values()))
        else:
            best.append(max(near.values()))
    assert (found["gallery"], found["gallery_pictures"]) == (10, 10 * enrol)
    assert (found["searches_mated"], found["searches_non_mated"]) == (len(ranks), 32)
    assert len(ranks) == 10 * (4 - enrol)
    for rank in (1, 5):
        share = sum(one <= rank for one in ranks) / len(ranks)
        assert found["cmc"][str(rank)]["share"] == pytest.approx(share)
    assert 0.2 < found["cmc"]["1"]["share"] < 1
    point = found["fnir_at_fpir"]["1e-1"]
    assert point["false_positives"] == sum(score >= point["threshold"] - 1e-6 for score in best)
    assert point["false_positives"] <= 3
    assert "FPIR 1e-2 needs 300 non-mated searches" in found["refused"]["1e-2"]


# ---- what cannot be


def test_folders_that_cannot_be_measured(mini, tmp_path, groups):
    for verb in ("folder", "all-pairs", "audit"):
        assert "there is no such folder" in refused("evaluate", verb, tmp_path / "gone")
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert "it holds none. Put the" in refused("evaluate", verb, tmp_path / "empty")
    blind = tmp_path / "blind"
    for number in range(8):
        blank(blind / f"P{number // 2}" / f"{number}.jpg")
    for verb in ("folder", "all-pairs", "audit"):
        said = refused("evaluate", verb, blind, *(("--pairs", 20) if verb == "folder" else ()))
        assert "A face should be found in some of the 8 pictures; in none it was." in said
    alone = tmp_path / "alone"
    for name in PEOPLE:
        copy(mini / name / f"{name}_0001.jpg", alone / name / "1.jpg")
    assert "two of them with two pictures or more" in refused("evaluate", "folder", alone)
    assert "pairs of one person and pairs of two" in refused("evaluate", "all-pairs", alone)
    single = tmp_path / "single"
    copy(mini / PEOPLE[0] / f"{PEOPLE[0]}_0001.jpg", single / "a" / "1.jpg")
    assert "pictures of two people or more" in refused("evaluate", "all-pairs", single)


def test_settings_that_cannot_be(mini, tmp_path, groups):
    command = ("evaluate", "folder", mini, "--pairs")
    assert "an even number of pairs" in refused(*command, 21)
    assert "an even number of pairs" in refused(*command, -2)
    assert "Searches need a person with 41 pictures" in refused(*command, 100, "--enrol", 40)
    (tmp_path / "a.csv").write_text("person,sex\nNo One,f\n")
    said = refused(*command, 100, "--attributes", tmp_path / "a.csv")
    assert "should give attributes of each person of the data set" in said
    few = tmp_path / "few"
    for name in PEOPLE:
        for number in (1, 2):
            copy(mini / name / f"{name}_{number:04d}.jpg", few / name / f"{number}.jpg")
    said = refused("evaluate", "folder", few, "--pairs", 20, "--attributes", groups)
    assert said.startswith("Groups need 300 pairs of different people to set a threshold by; there")
    for verb in ("folder", "all-pairs"):
        for more in (("--replicates", 2), ("--seed", -1)):
            assert "100 to 100,000 draws" in refused("evaluate", verb, mini, *more)
