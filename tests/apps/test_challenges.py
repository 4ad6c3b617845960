"""`facenet evaluate ijb` and `megaface` on sets in miniature, every number counted again."""

from __future__ import annotations

import json
import struct
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from miniature import (
    PEOPLE,
    area_in_loops,
    front_door,
    strict,
    tar_in_loops,
    toy,
    write_people,
)
from PIL import Image
from protocol_loops import unit
from shell import blank, refused, run, tree

from facenet.apps.jobs.templates import TemplateSettings, evaluate_ijb
from facenet.errors import SettingsError
from facenet.evaluate.templates import Pooling
from facenet.faces.align import similarity_crop
from facenet.images import load_image

FAST = ("--replicates", 100)

# ---- IJB


@pytest.fixture(scope="module")
def ijb(tmp_path_factory):
    """Four people of nine faces: a gallery template of three faces, two of them of one video, and
    three probes of two. A picture is missing, a face badly detected. Returns folder and faces."""
    root = tmp_path_factory.mktemp("ijb") / "IJBC ø"
    paths = write_people(root / "loose_crop", 9, seed=7)
    faces, gone = [], paths[5]
    for row, path in enumerate(paths):
        person, number = divmod(row, 9)
        template = 10 * (person + 1) + (0 if number < 3 else (number - 1) // 2)
        media = 100 + row - (number == 1)  # the first two are of one video
        points = front_door().detect(path).landmarks[0]
        score = 0.05 if row == 12 else round(0.5 + 0.05 * number, 2)
        faces.append((path, person, template, media, points, score))
    gone.unlink()
    meta, names = root / "meta", [p.relative_to(root / "loose_crop").as_posix() for p in paths]
    owner = {template: person for _, person, template, *_ in faces}
    gallery, probes = [t for t in owner if t % 10 == 0], [t for t in owner if t % 10]
    pairs = [(a, b, int(owner[a] == owner[b])) for a, b in product(gallery, probes)]
    lists = {
        "face_tid_mid.txt": [f"{n} {f[2]} {f[3]}" for n, f in zip(names, faces, strict=True)],
        "name_5pts_score.txt": [
            f"{n} {' '.join(map(str, f[4].ravel().tolist()))} {f[5]}"
            for n, f in zip(names, faces, strict=True)
        ],
        "template_pair_label.txt": [f"{a} {b} {same}" for a, b, same in pairs],
    }
    for name, some in (
        ("gallery_G1", gallery[:2]),
        ("gallery_G2", gallery[2:]),
        ("probe_mixed", probes),
    ):
        lines = [f"{template},{900 + owner[template]},x" for template in some]
        lists[f"1N_{name}.csv"] = ["TEMPLATE_ID,SUBJECT_ID,FILENAME", *lines]
    meta.mkdir()
    for name, lines in lists.items():
        (meta / f"ijbc_{name}").write_text("\n".join(lines) + "\n")
    return root, faces, pairs


def templates(faces, *, flip=False, norm=True, detector=True, media=True):
    """Features of faces, pooled one template at a time."""
    made = {}
    for path, _, template, medium, points, score in faces:
        feature = np.zeros(192)
        if path.exists():
            crop = similarity_crop(load_image(path), points)[None]
            outputs = front_door().embedder.outputs
            feature = outputs(crop)[0].astype(float)
            if flip:
                feature = feature + outputs(np.ascontiguousarray(crop[:, :, ::-1]))[0]
        if not norm:
            feature = feature / max(np.linalg.norm(feature), 1e-9)
        by_media = made.setdefault(template, {})
        by_media.setdefault(medium if media else path, []).append(
            feature * (score if detector else 1)
        )
    return {
        template: unit(np.sum([np.mean(rows, axis=0) for rows in by_media.values()], axis=0))
        for template, by_media in made.items()
    }


POOLINGS = {
    (): {},
    ("--flip",): {"flip": True},
    ("--unit-norm", "--equal-weight"): {"norm": False, "detector": False},
    ("--aggregation", "mean"): {"norm": False, "media": False},
}


@pytest.mark.parametrize(("flags", "how"), POOLINGS.items(), ids=str)
def test_templates_one_by_one(ijb, flags, how):
    root, faces, pairs = ijb
    ran = run("evaluate", "ijb", root, "--json", *FAST, *flags)
    assert ran.code == 0
    found, rows = strict(ran.out), templates(faces, **how)
    near = [(float(rows[a] @ rows[b]), same) for a, b, same in pairs]
    mated, others = ([score for score, same in near if same == kind] for kind in (1, 0))
    assert (found["mated"], found["non_mated"]) == (len(mated), len(others)) == (12, 36)
    assert found["auc"] == pytest.approx(area_in_loops(mated, others), abs=1e-6)
    tar, false = tar_in_loops(mated, others, 0.1)
    point = found["tar_at_far"]["1e-1"]
    assert (point["tar"], point["false_matches"]) == (pytest.approx(tar), false)
    accepted = sorted([*mated, *others], reverse=True)[: round(tar * len(mated)) + false]
    assert point["threshold"] == pytest.approx(accepted[-1], abs=1e-5)
    assert "FAR 1e-2 needs 300" in found["refused"]["1e-2"]

    gallery, first = sorted({a for a, _, _ in pairs}), []
    for number, name in enumerate(("G1", "G2")):
        own, hits, searched = gallery[2 * number :][:2], 0, 0
        for probe in (t for t in rows if t % 10):
            mate = probe - probe % 10
            if mate in own:
                searched += 1
                hits += max(own, key=lambda t: float(rows[probe] @ rows[t])) == mate
        values = found["identification"]["galleries"][name]
        assert (values["searches_mated"], values["cmc"]["1"]["hits"]) == (searched, hits)
        assert values["searches_non_mated"] == 6
        first.append(hits / searched)
    assert found["identification"]["cmc"]["1"]["share"] == pytest.approx(np.mean(first))


def test_what_the_record_of_templates_says(ijb, tmp_path):
    root, faces, _ = ijb
    command = ("evaluate", "ijb", root, "--report", tmp_path, *FAST)
    found = run(*command, "--json").json
    assert found["protocol"].startswith(
        "templates N1D1F0, media, cosine similarity; face by the po"
    )
    assert (found["dataset"], found["templates"], found["people"]) == ("ijbc", 16, 4)
    assert (found["pictures"], found["failures"], found["without_face"]) == (36, 1, 1)
    assert found["problems"] == [f"No such picture: 5:{PEOPLE[0]}/{PEOPLE[0]}_0006.jpg."]
    assert found["detector"] == "none: the points of the lists"
    assert len(found["digests"]) == 6
    assert found["bootstrap"] == {"replicates": 100, "seed": 0}
    assert run(*command, "--json").json["remembered"] == 35
    assert run(*command, "--no-cache", "--json").json["remembered"] == 0
    (model,) = json.loads((tmp_path / "report.json").read_text("utf-8"))["models"]
    assert model["auc"] == pytest.approx(found["auc"], abs=1e-6)
    lines = (tmp_path / "report.csv").read_text("utf-8").splitlines()
    share = found["identification"]["cmc"]["1"]["share"]
    (rank,) = [line.split(",") for line in lines if line.startswith("mobilefacenet,ijbc,rank@1,")]
    assert float(rank[3]) == pytest.approx(share, abs=1e-6)
    text = run(*command).out
    assert text.startswith("mobilefacenet (fp32) on ijbc: 16 templates of 4 people, 48 pairs\nAUC ")
    low, high = found["auc_ci"]
    assert f"AUC {found['auc']:.5f} [{low:.4f}, {high:.4f}], EER " in text
    low, high = found["identification"]["cmc"]["1"]["ci"]
    assert f"\nrank 1: {share:.4f} [{low:.4f}, {high:.4f}], mean of both galleries\n" in text
    (area,) = [line.split(",") for line in lines if line.startswith("mobilefacenet,ijbc,auc,")]
    assert [float(area[4]), float(area[5])] == pytest.approx(found["auc_ci"], abs=1e-6)


def test_templates_that_cannot_be(ijb, home, tmp_path):
    root, *_ = ijb
    command = ("evaluate", "ijb", root)
    assert "aggregation should be one of media, " in refused(*command, "--aggregation", "best")
    assert "should be one of ijbb, ijbc; got 'ijba'" in refused(*command, "--set", "ijba")
    assert "ijbb should have its lists; expected " in refused(*command, "--set", "ijbb")
    assert "100 to 100,000 draws" in refused(*command, "--replicates", 2)
    assert refused(*command, "--unit-norm", "--aggregation", "medoid") == (
        "--unit-norm would change nothing: medoid looks at no lengths. Leave it out, or choose "
        "media or norm_weighted."
    )
    for name in ("--detector", "--min-face-size", "--thresholds", "--factor", "--exactness"):
        assert f"No such option: {name}" in run(*command, name, "1").err  # no face is looked for
    (tmp_path / "file").write_text("")
    assert "Cannot write" in refused(*command, "--report", tmp_path / "file")
    assert not (home / "cache").exists()
    with pytest.raises(SettingsError) as raised:
        evaluate_ijb(root, "ijbc", toy(), TemplateSettings(Pooling()), done=lambda n, m: None)
    assert str(raised.value) == (
        "IJB gives five points per face, which toy (crop margin_output) cannot be aligned by. "
        "Choose a model with the crop similarity."
    )


# ---- MegaFace

STRANGERS = 130


@pytest.fixture(scope="module")
def megaface(tmp_path_factory):
    """Three people of eight pictures among 130 strangers: eight pictures of the fourth, the rest
    patterns; a picture is missing."""
    root, random = tmp_path_factory.mktemp("megaface"), np.random.default_rng(2)
    write_people(root / "all", seed=5)
    probes = [f"{name}/{name}_{n:04d}.jpg" for name in PEOPLE[:3] for n in range(1, 9)]
    others = []
    for number in range(STRANGERS):
        name = f"{number % 3}/{number % 7}/{number}.png"
        path = root / "far" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < 8:
            picture = Image.open(root / "all" / PEOPLE[3] / f"{PEOPLE[3]}_{number + 1:04d}.jpg")
        else:
            small = random.integers(0, 255, (5, 4, 3)).astype(np.uint8)
            picture = Image.fromarray(small).resize((96, 112), Image.Resampling.BICUBIC)
        picture.save(path)
        others.append(name)
    (root / "all" / probes[3]).unlink()
    (root / "probes.txt").write_text("\n".join(probes))
    (root / "others.txt").write_text("\n".join(others))
    (root / "noisy.txt").write_text(f"# one\n{PEOPLE[1]}_0002.jpg\n")
    (root / "far.txt").write_text(f"1\t{others[4]}\n")
    return root, probes, others


def command(root, features, *more):
    lists = ("--probe-list", root / "probes.txt", "--distractor-list", root / "others.txt")
    folders = ("--probes", root / "all", "--distractors", root / "far")
    return ("evaluate", "megaface", features, *lists, *folders, *FAST, *more)


def noises(root):
    return ("--probe-noises", root / "noisy.txt", "--distractor-noises", root / "far.txt")


@pytest.fixture(scope="module")
def features(megaface, tmp_path_factory):
    """The features as the first run writes them, and what it printed."""
    folder = tmp_path_factory.mktemp("features") / "here"
    ran = run(*command(megaface[0], folder), "--json")
    assert ran.code == 0
    return folder, ran


def feature(folder, kind, name, apart=()):
    """The feature file of a picture, of the one contract that is there but for those in `apart`."""
    there = set(
        (folder / kind / name).parent.glob(f"{Path(name).name}_mobilefacenet-*_112x112.bin")
    )
    (path,) = sorted(there - set(apart), key=lambda one: one.stat().st_mtime_ns)[:1]
    return path


def read(folder, kind, name):
    if not list((folder / kind / name).parent.glob(f"{Path(name).name}_*.bin")):
        return np.zeros(192)  # the picture is missing
    data = feature(folder, kind, name).read_bytes()
    assert struct.unpack("<4i", data[:16]) == (192, 1, 4, 5)
    return np.frombuffer(data[16:], "<f4").astype(float)


def rank_one(probes, rows, others):
    """Over ordered pairs of pictures of one person: whether the mate is before all strangers."""
    hits = total = 0
    for a, b in product(probes, probes):
        if a != b and a.split("/")[0] == b.split("/")[0]:
            total += 1
            lost = not rows[a].any() or not rows[b].any()
            best = max(float(rows[a] @ other) for other in others)
            hits += not lost and float(rows[a] @ rows[b]) > best + 1e-6
    return hits, total


def test_features_are_sums_of_both_sides_of_the_crop(megaface, features):
    (root, probes, _), (folder, ran) = megaface, features
    outputs = front_door().embedder.outputs
    for name in (probes[0], probes[17]):
        crop = np.array(Image.open(root / "all" / name).convert("RGB").resize(
            (112, 112), Image.Resampling.BILINEAR
        ))[None]  # fmt: skip
        both = outputs(crop)[0] + outputs(np.ascontiguousarray(crop[:, :, ::-1]))[0]
        assert float(read(folder, "facescrub", name) @ unit(both.astype(float))) > 0.999
        assert np.linalg.norm(read(folder, "facescrub", name)) == pytest.approx(1)
    assert not list(folder.rglob(f"{probes[3].split('/')[1]}_*.bin"))
    assert ran.json["problems"] == [
        f"No usable face in {probes[3]}: it is missing, cannot be read, or shows none."
    ]


def test_ranks_and_rates_are_counted(megaface, features):
    (_, probes, others), (folder, ran) = megaface, features
    found = strict(ran.out)
    rows = {name: read(folder, "facescrub", name) for name in probes}
    far = [read(folder, "megaface", name) for name in others]
    hits, total = rank_one(probes, rows, far)
    last = found["rank_1"][-1]
    assert (last["distractors"], last["hits"]) == (STRANGERS, hits)
    assert last["rate"] == pytest.approx(hits / total)
    assert (found["ordered_pairs"], found["people"], found["probes"]) == (total, 3, 24)
    assert 0.2 < last["rate"] < 1
    assert [row["distractors"] for row in found["rank_1"]] == [10, 100, STRANGERS]
    mated = [
        float(rows[a] @ rows[b]) if rows[a].any() and rows[b].any() else -np.inf
        for a, b in product(probes, probes)
        if a < b and a.split("/")[0] == b.split("/")[0]
    ]
    non = [float(row @ one) if row.any() else -np.inf for row in rows.values() for one in far]
    point, (tar, false) = found["tar_at_far"]["1e-3"], tar_in_loops(mated, non, 1e-3)
    assert (point["tar"], point["false_matches"]) == (pytest.approx(tar), false)
    assert "needs 30,000 non-mated pairs (3 / rate); there are 3,120." in found["refused"]["1e-4"]
    assert (found["model"], found["failures"]) == ("mobilefacenet", 1)
    assert set(found["digests"]) == {"probes.txt", "others.txt"}


def test_the_second_run_writes_no_feature_again(megaface, features, tmp_path):
    (root, probes, _), (folder, first) = megaface, features
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.bin")}
    content = tree(folder)
    assert len(before) == 23 + STRANGERS  # one picture is missing
    again = run(*command(root, folder, "--report", tmp_path), "--json")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.bin")} == before
    differing = {"seconds"}
    assert {k: v for k, v in again.json.items() if k not in differing} == {
        k: v for k, v in first.json.items() if k not in differing
    }
    lines = (tmp_path / "report.csv").read_text("utf-8").splitlines()
    (row,) = [line for line in lines if ",hit_rate@gallery=130," in line]
    assert float(row.split(",")[3]) == pytest.approx(first.json["rank_1"][-1]["rate"], abs=1e-6)
    target = feature(folder, "facescrub", probes[7])
    target.unlink()
    text = run(*command(root, folder)).out
    assert tree(folder) == content
    changed = {p for p in before if p.stat().st_mtime_ns != before[p]}
    assert changed == {target}
    rate = first.json["rank_1"][-1]["rate"]
    assert text.startswith("mobilefacenet on MegaFace: 24 probes of 3 people\n")
    assert f"\nrank 1 among 130 distractors: {rate:.4f} [" in text
    point = first.json["tar_at_far"]["1e-3"]
    low, high = point["ci"]
    assert f"\nTAR {point['tar']:.4f} [{low:.4f}, {high:.4f}] at FAR 1e-3\n" in text
    ends = [float(end) for end in row.split(",")[4:6]]
    assert ends == pytest.approx(first.json["rank_1"][-1]["ci"], abs=1e-6)


def test_noisy_pictures_are_left_out_or_replaced(megaface, features):
    (root, probes, others), (folder, _) = megaface, features
    rows = {name: read(folder, "facescrub", name) for name in probes}
    far = {name: read(folder, "megaface", name) for name in others}
    noisy = f"{PEOPLE[1]}/{PEOPLE[1]}_0002.jpg"
    clean = [name for name in probes if name != noisy]
    strangers = [row for name, row in far.items() if name != others[4]]
    out = run(*command(root, folder, *noises(root)), "--json").json
    hits, total = rank_one(clean, rows, strangers)
    assert (out["rank_1"][-1]["hits"], out["ordered_pairs"]) == (hits, total)
    assert (out["probes"], out["distractors"], out["noisy"]) == (23, STRANGERS - 1, [1, 1])
    assert out["protocol"].endswith("pictures are crops; noisy pictures left out")
    assert set(out["digests"]) == {"probes.txt", "others.txt", "noisy.txt", "far.txt"}
    put = run(*command(root, folder, *noises(root), "--as-insightface"), "--json").json
    mine = sum(rows[name] for name in clean if name.startswith(PEOPLE[1]))
    replaced = {**rows, noisy: mine / np.linalg.norm(mine)}
    hits, total = rank_one(probes, replaced, strangers)
    assert (put["rank_1"][-1]["hits"], put["ordered_pairs"]) == (hits, total)
    assert (put["probes"], put["distractors"]) == (24, STRANGERS)
    assert put["protocol"].endswith("noisy pictures replaced as by insightface")


def test_faces_that_are_looked_for_have_features_of_their_own(megaface, features):
    (root, probes, _), (folder, first) = megaface, features
    before = set(folder.rglob("*.bin"))
    ran = run(*command(root, folder, "--detect"), "--json")
    assert ran.code == 0
    path = feature(folder, "facescrub", probes[0], before)
    data = np.frombuffer(path.read_bytes()[16:], "<f4").astype(float)
    both = front_door(flip=True).embed(root / "all" / probes[0])[0]
    assert float(data @ both) == pytest.approx(1, abs=1e-5)
    found = ran.json
    assert found["rank_1"][-1]["rate"] > first.json["rank_1"][-1]["rate"]
    assert found["distractors_lost"] >= 100  # there is no face in a pattern
    assert found["model"] == "mobilefacenet"
    assert "faces looked for" in found["protocol"]
    assert ran.err.count("\n") == 11


def test_megaface_that_cannot_be(megaface, tmp_path):
    root, *_ = megaface
    here = tmp_path / "features"
    wrong = refused(*command(root, here), "--probes", tmp_path)
    assert "such as Barack_Obama/Barack_Obama_0001.jpg; none of them is there." in wrong
    wrong = refused(*command(root, here), "--distractors", tmp_path)
    assert "such as 0/0/0.png; none of them is there." in wrong
    for name in ("probe-list", "distractor-list", "probe-noises", "distractor-noises"):
        said = refused(*command(root, here), f"--{name}", tmp_path / "gone")
        assert f"{tmp_path / 'gone'}; there is none" in said
    (tmp_path / "list").write_text("../../etc/passwd\n")
    assert "line 1: expected a rel" in refused(
        *command(root, here), "--probe-list", tmp_path / "list"
    )
    assert "100 to 100,000 draws" in refused(*command(root, here), "--seed", -3)
    for flags, named in (
        (("--min-face-size", 40), "--min-face-size"),
        (("--factor", 0.5, "--exactness", "facenet"), "--factor and --exactness"),
    ):
        assert refused(*command(root, here), *flags) == (
            f"{named} would change nothing: the pictures are crops, in which no face is looked "
            "for. Leave it out, or look for faces with --detect."
        )
    said = refused(*command(root, here), "--as-insightface")
    assert "no list names any. Give --probe-noises and --distractor-noises, or leave it" in said
    assert not here.exists()
    blank(tmp_path / "x" / "A" / "A_1.png")
    (tmp_path / "list").write_text("A/A_1.png\n")
    (tmp_path / "few").write_text("0/0/0.png\n")
    lists = ("--probe-list", tmp_path / "list", "--distractor-list", tmp_path / "few")
    said = refused(*command(root, here), *lists, "--probes", tmp_path / "x")
    assert "needs two pictures or more of a person" in said
