"""`facenet evaluate` on lists of pairs, with the built-in models, as it is typed."""

from __future__ import annotations

import csv
import hashlib
import json
import pickle
from itertools import combinations, product

import numpy as np
import onnx
import pytest
from miniature import (
    PEOPLE,
    area_in_loops,
    front_door,
    scores,
    strict,
    tar_in_loops,
    vectors,
    write_people,
)
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from protocol_loops import in_loops, listed
from shell import blank, copy, refused, run

from facenet.data.bins import read_bin
from facenet.evaluate.verification import VerificationSettings
from facenet.images import load_image

FOLDS, SIZE = 3, 10
PROMISED = {"accuracy", "accuracy_std", "accuracy_ci", "auc", "eer", "tar_at_far", "failures"}
PROMISED |= {"protocol", "model", "digests"}
FAST = ("--replicates", 100)


@pytest.fixture(scope="module")
def lfw(tmp_path_factory):
    """Four people in the layout of LFW, a blank picture, a picture and a person that are missing,
    and 60 pairs of theirs."""
    root, random = tmp_path_factory.mktemp("lfw"), np.random.default_rng(8)
    images = root / "images"
    write_people(images, seed=1)
    blank(images / "Nobody/Nobody_0001.jpg")
    lines = []
    for _ in range(FOLDS):
        for number in range(SIZE):
            i, j = random.choice(8, 2, replace=False) + 1
            lines.append(f"{PEOPLE[number % 4]}\t{i}\t{j}")
        for _ in range(SIZE):
            a, b = random.choice(4, 2, replace=False)
            i, j = random.integers(1, 9, 2)
            lines.append(f"{PEOPLE[a]}\t{i}\t{PEOPLE[b]}\t{j}")
    lines[0] = f"{PEOPLE[0]}\t1\t9"
    lines[SIZE] = f"Nobody\t1\t{PEOPLE[1]}\t1"
    lines[SIZE + 1] = f"Missing Person\t1\t{PEOPLE[1]}\t2"
    (root / "pairs.txt").write_text("\n".join([f"{FOLDS}\t{SIZE}", *lines]) + "\n")
    return images, root / "pairs.txt"


def command(lfw, *more):
    return ("evaluate", "lfw", "--images", lfw[0], "--pairs", lfw[1], *more)


PROTOCOLS = {
    (): VerificationSettings(),
    ("--flip", "--subtract-mean"): VerificationSettings(flip=True, subtract_mean=True),
    ("--distance", "angle"): VerificationSettings(distance="angle"),
    ("--protocol", "insightface"): VerificationSettings("insightface"),
    ("--protocol", "cosine", "--flip"): VerificationSettings("cosine", flip=True),
}


@pytest.mark.parametrize(("flags", "how"), PROTOCOLS.items(), ids=str)
def test_lfw_by_every_protocol(lfw, flags, how):
    ran = run(*command(lfw, "--json", *FAST, *flags))
    assert ran.code == 0
    found, (folds, _, lost) = strict(ran.out), in_loops(lfw, front_door(), how)
    assert set(found) > PROMISED
    assert found["fold_accuracies"] == pytest.approx(folds, abs=1e-6)
    assert found["accuracy"] == pytest.approx(folds.mean(), abs=1e-6)
    assert found["accuracy_std"] == pytest.approx(folds.std(), abs=1e-6)
    low, high = found["accuracy_ci"]
    assert low <= found["accuracy"] <= high
    assert found["not_found"] == lost == 3
    assert found["protocol"].startswith(how.sentence(FOLDS) + "; face by center_weighted_size")
    assert found["protocol_name"] == how.protocol


def test_lfw_is_counted_and_explained(lfw):
    ran = run(*command(lfw, "--json", *FAST))
    found, pairs = ran.json, list(listed(lfw))
    good = {path for _, paths, _ in pairs for path in paths if path.exists()}
    rows = {**dict.fromkeys((p for _, paths, _ in pairs for p in paths)), **vectors(good)}
    mated, others = (
        scores([tuple(paths) for _, paths, same in pairs if same == kind], rows)
        for kind in (True, False)
    )
    assert found["auc"] == pytest.approx(area_in_loops(mated, others), abs=1e-6)
    point, (tar, false) = found["tar_at_far"]["1e-1"], tar_in_loops(mated, others, 0.1)
    assert set(point) == {"tar", "ci", "far", "threshold", "false_matches"}
    assert (point["tar"], point["false_matches"]) == (pytest.approx(tar), false)
    assert "needs 300 non-mated pairs (3 / rate); there are 30." in found["refused"]["1e-2"]
    assert (found["model"], found["dataset"], found["pairs"]) == ("mobilefacenet", "LFW", 60)
    assert found["failures"] == 3
    digest = hashlib.sha256(lfw[1].read_bytes()).hexdigest()
    assert found["digests"].pop("pictures") != digest
    assert found["digests"] == {"pairs.txt": digest}
    assert any("have no folder in " in n and "Missing Person" in n for n in found["notes"])
    assert any("in more than one fold" in note for note in found["notes"])
    assert ran.err.splitlines() == [f"facenet: {problem}" for problem in found["problems"]]
    assert found["problems"][0] == f"No such picture: {PEOPLE[0]}_0009."
    assert {"No face was found in Nobody_0001.", "No such picture: Missing Person_0001."} < set(
        found["problems"]
    )
    text = run(*command(lfw, *FAST)).out
    assert text.startswith(f"mobilefacenet (fp32): accuracy {found['accuracy']:.4f} +- ")
    assert "\nAUC 0.9" in text
    assert "\nTAR " in text
    assert "\nnot printed: FAR 1e-2 needs 300 non-mated pairs (3 / rate); there are 30." in text
    assert "\npairs without both faces: 3, counted as different" in text


def test_several_models_and_their_differences(lfw, home, tmp_path):
    weights = np.random.default_rng(0).standard_normal((3 * 256, 6)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["face"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weights"], ["vector"]),
        ],
        "own",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 6])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "own.onnx")
    told = ("--name", "own", "--crop", "similarity", "--standardise", "fixed", "--size", 16)
    assert run("models", "import", tmp_path / "own.onnx", *told).code == 0
    both = run(*command(lfw, "--model", "mobilefacenet,own", "--json", *FAST))
    first, second = both.json["models"]
    assert (first["model"], second["model"]) == ("mobilefacenet", "own")
    assert second["accuracy"] < first["accuracy"]
    differences = {row["metric"]: row for row in both.json["paired"]}
    metrics = {"accuracy", "auc", "d_prime", "eer", "tar@1e-1", "val@1e-3"}
    assert set(differences) == metrics
    for name in ("accuracy", "auc", "eer"):
        row = differences[name]
        assert row["difference"] == pytest.approx(first[name] - second[name], abs=2e-6)
        assert (row["a"], row["b"]) == ("mobilefacenet", "own")
    assert both.err.count("Nobody_0001") == 1
    text = run(*command(lfw, "--model", "own, mobilefacenet", *FAST)).out
    assert text.index("own (fp32)") < text.index("mobilefacenet (fp32)")
    assert f"own less mobilefacenet: auc {second['auc'] - first['auc']:+.4f} [" in text
    assert "mobilefacenet,own" in refused(
        "evaluate", "audit", lfw[0], "--model", "mobilefacenet,own"
    )


# ---- pairs of one's own


def test_pairs_in_csv(lfw, tmp_path):
    root = tmp_path / "Bilder ñ 雪"
    paths = write_people(root, 4, seed=2, blurred=2)
    lines = []
    for fold, (a, b) in enumerate(product(paths, paths)):
        if a < b:
            names = (path.relative_to(root).as_posix() for path in (a, b))
            lines.append(
                [*names, int(a.parent == b.parent), fold % 3, a.parent.name, b.parent.name]
            )
    with (root / "paare.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["a", "b", "same", "fold", "person_a", "person_b"], *lines])
    found = run("evaluate", "pairs", root / "paare.csv", "--json", *FAST).json
    rows = vectors(paths)
    pairs = [((root / a, root / b), same) for a, b, same, *_ in lines]
    mated, others = (scores([p for p, same in pairs if same == kind], rows) for kind in (1, 0))
    assert (found["mated"], found["non_mated"]) == (len(mated), len(others)) == (24, 96)
    assert found["auc"] == pytest.approx(area_in_loops(mated, others), abs=1e-6)
    assert found["dataset"] == "paare"
    assert (found["people"], found["failures"], found["problems"]) == (4, 0, [])
    copy(root / "paare.csv", tmp_path / "elsewhere.csv")
    again = run("evaluate", "pairs", tmp_path / "elsewhere.csv", "--root", root, "--json", *FAST)
    assert again.json["auc"] == found["auc"]
    lost = "none of its 16 is there, not even Barack_Obama/Barack_Obama_0001.jpg. Give the folder"
    assert lost in refused("evaluate", "pairs", tmp_path / "elsewhere.csv")


def write_bin(path, crops, truth):
    """What InsightFace packs: encoded pictures, two for each pair, and truths."""
    files = []
    for number, crop in enumerate(crops):
        Image.fromarray(crop).save(path.with_suffix(f".{number}.png"))
        files.append(path.with_suffix(f".{number}.png").read_bytes())
    path.write_bytes(pickle.dumps((files, list(truth)), protocol=2))
    return path


def test_crops_of_others_are_used_as_they_are(lfw, tmp_path):
    paths = [lfw[0] / name / f"{name}_{n:04d}.jpg" for name in PEOPLE for n in (1, 2, 3, 4)]
    wide = [np.array(Image.open(path).convert("RGB").resize((112, 112))) for path in paths]
    pairs = list(combinations(range(16), 2))
    crops = [wide[row] for pair in pairs for row in pair]
    truth = [a // 4 == b // 4 for a, b in pairs]
    file = write_bin(tmp_path / "made.bin", crops, truth)
    found = run("evaluate", "bin", file, "--json", *FAST).json
    rows = dict(enumerate(front_door().embedder.embed_crops(np.stack(wide)).astype(float)))
    mated, others = (
        scores([p for p, same in zip(pairs, truth, strict=True) if same == kind], rows)
        for kind in (True, False)
    )
    assert found["auc"] == pytest.approx(area_in_loops(mated, others), abs=1e-6)
    assert found["tar_at_far"]["1e-1"]["tar"] == pytest.approx(tar_in_loops(mated, others, 0.1)[0])
    assert found["detector"] == "none: the pictures are crops"
    assert "crops as they are in the file" in found["protocol"]
    assert (found["dataset"], found["people"]) == ("made", 4)  # found by their bytes and pairs
    aligned = run("evaluate", "bin", file, "--detect", "--json", *FAST).json
    assert aligned["detector"].startswith("mtcnn:")
    assert aligned["auc"] > found["auc"]


def test_a_set_of_one_kind_has_an_accuracy_and_a_note(data):
    ran = run("evaluate", "bin", data / "small_lfw.bin", "--json", *FAST)
    found = strict(ran.out)
    assert (found["pairs"], found["mated"], found["non_mated"]) == (10, 10, 0)
    crops = [load_image(p.source) for p in read_bin(data / "small_lfw.bin").pictures]
    rows = front_door().embedder.embed_crops(np.stack(crops)).astype(float)
    far = np.sum((rows[::2] - rows[1::2]) ** 2, axis=1)
    limits = [np.ceil(np.delete(far, fold).max() * 100) / 100 for fold in range(10)]
    assert found["fold_accuracies"] == (far < limits).tolist()
    assert found["accuracy"] == np.mean(far < limits) == 0.9
    assert found["auc"] is found["eer"] is found["auc_ci"] is None
    assert found["tar_at_far"] == {}
    assert any("All 10 pairs are of one person: error rates need" in n for n in found["notes"])
    text = run("evaluate", "bin", data / "small_lfw.bin", *FAST).out
    assert "AUC" not in text
    assert "All 10 pairs are of one person" in text


def test_files_that_are_no_set_are_one_sentence(lfw, tmp_path):
    crop = np.zeros((112, 112, 3), np.uint8)
    file = write_bin(tmp_path / "whole.bin", [crop] * 20, [True] * 10)
    cut = tmp_path / "cut.bin"
    cut.write_bytes(file.read_bytes()[:-40])
    assert "should be a verification set of InsightFace" in refused("evaluate", "bin", cut)
    hostile = tmp_path / "hostile.bin"
    hostile.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    assert "os.system" in refused("evaluate", "bin", hostile)
    assert not (tmp_path / "ran").exists()
    assert "there is none" in refused("evaluate", "bin", tmp_path / "gone.bin")


def test_flags_of_the_detector_need_a_face_to_look_for(lfw, tmp_path):
    crop = np.zeros((112, 112, 3), np.uint8)
    file = write_bin(tmp_path / "whole.bin", [crop] * 20, [True] * 10)
    for flags, named in (
        (("--factor", 0.5), "--factor"),
        (("--select", "largest", "--min-face-size", 30), "--min-face-size and --select"),
    ):
        assert refused("evaluate", "bin", file, *flags) == (
            f"{named} would change nothing: the pictures are crops, in which no face is looked "
            "for. Leave it out, or look for faces with --detect."
        )


# ---- CFP and AgeDB


def test_cfp_in_its_own_folders(lfw, tmp_path):
    root, lists = tmp_path / "cfp", {"F": [], "P": []}
    for number, name in enumerate(PEOPLE, 1):
        for side, pose, pictures in (("F", "frontal", (1, 2, 4, 5)), ("P", "profile", (3, 6))):
            for place, picture in enumerate(pictures, 1):
                path = f"{number:03d}/{pose}/{place:02d}.jpg"
                copy(lfw[0] / name / f"{name}_{picture:04d}.jpg", root / "Data/Images" / path)
                lists[side].append(path)
    for side, names in lists.items():
        text = [f"{row} ../Data/Images/{name}" for row, name in enumerate(names, 1)]
        (root / "Protocol").mkdir(exist_ok=True)
        (root / "Protocol" / f"Pair_list_{side}.txt").write_text("\n".join(text))
    expected = {"FF": ([], []), "FP": ([], [])}
    for split, protocol in product((1, 2), expected):
        folder = root / "Protocol/Split" / protocol / f"{split:02d}"
        folder.mkdir(parents=True)
        sides = [lists[side] for side in protocol]
        for kind, name in enumerate(("same", "diff")):
            pairs = [
                (a, b)
                for a, b in product(range(len(sides[0])), range(len(sides[1])))
                if (sides[0][a] != sides[1][b] and (a + b) % 2 == split - 1)
                and (sides[0][a][:3] == sides[1][b][:3]) == (kind == 0)
            ]
            (folder / f"{name}.txt").write_text("\n".join(f"{a + 1},{b + 1}" for a, b in pairs))
            expected[protocol][kind].extend((sides[0][a], sides[1][b]) for a, b in pairs)
    rows = vectors(sorted((root / "Data").rglob("*.jpg")))
    rows = {path.relative_to(root / "Data/Images").as_posix(): row for path, row in rows.items()}
    for views, (same, others) in expected.items():
        found = run("evaluate", "cfp", root, "--views", views, "--json", *FAST).json
        assert (found["dataset"], found["pairs"]) == (f"CFP-{views}", len(same) + len(others))
        area = area_in_loops(scores(same, rows), scores(others, rows))
        assert found["auc"] == pytest.approx(area, abs=1e-6)
    assert found["auc"] < 0.99  # the coarse ones stand for profiles
    assert run("evaluate", "cfp", root, "--json", *FAST).json["auc"] == found["auc"]
    assert "should be FF or FP; got 'PP'" in refused("evaluate", "cfp", root, "--views", "PP")
    assert "Give the folder cfp-dataset" in refused("evaluate", "cfp", tmp_path)


def test_agedb_listed_and_drawn(lfw, tmp_path):
    root, names = tmp_path / "agedb", []
    for who, person in enumerate(PEOPLE):
        for number in range(1, 9):
            age = 20 + 10 * (number % 4)
            name = f"{8 * who + number}_{person.replace('_', '')}_{age}_f"
            copy(lfw[0] / person / f"{person}_{number:04d}.jpg", root / f"{name}.jpg")
            names.append(name)
    rows = {path.stem: row for path, row in vectors(sorted(root.glob("*.jpg"))).items()}
    same = [(a, b) for a, b in combinations(names, 2) if a.split("_")[1] == b.split("_")[1]]
    others = [(a, b) for a, b in combinations(names[::3], 2) if (a, b) not in set(same)]
    lines = [f"{a} {b} {int((a, b) in set(same))}" for a, b in [*same[::2], *others]]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    found = run("evaluate", "agedb", root, "--pairs", tmp_path / "list.txt", "--json", *FAST).json
    area = area_in_loops(scores(same[::2], rows), scores(others, rows))
    assert found["auc"] == pytest.approx(area, abs=1e-6)
    assert (found["dataset"], found["people"]) == ("AgeDB", 4)
    drawn = ("evaluate", "agedb", root, "--gap", 20, "--json", *FAST)
    one, two, three = (run(*drawn, "--seed", seed).json for seed in (0, 0, 1))
    differing = ("seconds", "remembered")
    assert {k: v for k, v in one.items() if k not in differing} == {
        k: v for k, v in two.items() if k not in differing
    }
    assert one["notes"] != three["notes"]
    assert one["mated"] == one["non_mated"] > 0
    (tmp_path / "splits.mat").write_bytes(b"MATLAB 5.0")
    assert "is a MATLAB file" in refused(
        "evaluate", "agedb", root, "--pairs", tmp_path / "splits.mat"
    )


# ---- what cannot be


def test_lists_and_settings_that_cannot_be(lfw, tmp_path):
    images, pairs = lfw
    start = ("evaluate", "lfw", "--images")
    assert "Cannot read the pairs file" in refused(*start, images, "--pairs", tmp_path / "gone")
    (tmp_path / "pairs.txt").write_text("10\t300\nnobody\n")
    assert "it has 1." in refused(*start, images, "--pairs", tmp_path / "pairs.txt")
    assert "no picture of the pairs is there" in refused(*start, tmp_path, "--pairs", pairs)
    (tmp_path / "pairs.txt").write_text(f"1\t1\n{PEOPLE[0]}\t1\t2\n{PEOPLE[0]}\t1\tNobody\t1\n")
    assert "two folds or more" in refused(*start, images, "--pairs", tmp_path / "pairs.txt")
    for flags, said in (
        (("--select", "all"), "select should be one of probability, largest"),
        (("--protocol", "lfw"), "protocol should be one of facenet, insightface, cosine"),
        (("--distance", "cosine"), "distance should be one of squared, angle"),
        (("--protocol", "cosine", "--distance", "angle"), "distance angle belongs to the protocol"),
        (("--protocol", "insightface", "--subtract-mean"), "does not subtract a mean"),
        (("--replicates", 99), "have 100 to 100,000 draws and a seed of 0 or more; got 99 and 0."),
        (("--seed", -1), "100 to 100,000 draws and a seed of 0 or more; got 1000 and -1."),
        (("--model", "mobilefacenet,nosuch"), "nosuch"),
        (("--model", ","), "model should name an embedder or several; got none."),
    ):
        assert said in refused(*command(lfw, *flags))


def test_many_problems_are_counted(lfw, tmp_path):
    rows = [f"{n}.jpg,{n + 1}.jpg,{n % 2}" for n in range(0, 30, 2)]
    rows.append("a.jpg,b.jpg,1")
    for number, name in enumerate("ab", 1):
        copy(lfw[0] / PEOPLE[0] / f"{PEOPLE[0]}_{number:04d}.jpg", tmp_path / f"{name}.jpg")
    (tmp_path / "p.csv").write_text("\n".join(["a,b,same", *rows]))
    ran = run("evaluate", "pairs", tmp_path / "p.csv", "--json", *FAST)
    assert ran.code == 0
    *first, last = ran.err.splitlines()
    assert first == [f"facenet: No such picture: {n}.jpg." for n in range(10)]
    assert last == "facenet: 20 more problems; --report and --json list them all."
    assert len(json.loads(ran.out)["problems"]) == 30
