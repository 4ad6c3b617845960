"""Runs of `facenet evaluate`: their reports, what they remember, and how they are stopped."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import stat
from contextlib import closing

import pytest
from miniature import PEOPLE, write_people
from shell import blank, environment, process, refused, run

from facenet.apps.jobs.gather import Gathering
from facenet.recognizer import GROUP

FAST = ("--replicates", 100)
UNLIKE = {"seconds", "remembered"}
"""What differs between two runs that say the same."""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """48 pictures of four people, and one without a face."""
    root = tmp_path_factory.mktemp("runs") / "people"
    write_people(root, 12, seed=3)
    blank(root / "Nobody" / "1.jpg")
    return root


@pytest.fixture(scope="module")
def pairs(images):
    """The same as a list of pairs."""
    lines = [f"3\t{8}"]
    for fold in range(3):
        lines += [f"{PEOPLE[n % 4]}\t{1 + n // 4 + fold}\t{4 + n % 3 + fold}" for n in range(8)]
        lines += [
            f"{PEOPLE[n % 4]}\t{1 + n + fold}\t{PEOPLE[(n + 1) % 4]}\t{2 + n + fold}"
            for n in range(8)
        ]
    path = images.parent / "pairs.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def lfw(images, pairs, *more):
    return ("evaluate", "lfw", "--images", images, "--pairs", pairs, *FAST, *more)


def said(record):
    return {name: value for name, value in record.items() if name not in UNLIKE}


def rounded(value):
    """As `--json` prints it."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: rounded(entry) for name, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list) else value


# ---- reports


def test_a_report_holds_what_was_printed_and_comes_out_the_same_again(images, pairs, tmp_path):
    records, tables = [], []
    for name in ("one", "two"):
        folder = tmp_path / name
        ran = run(*lfw(images, pairs, "--report", folder, "--json"))
        assert ran.code == 0
        assert [path.name for path in sorted(folder.iterdir())] == [
            "report.csv", "report.html", "report.json",
        ]  # fmt: skip
        for path in folder.iterdir():
            assert f"facenet: wrote {path}\n" in ran.err
        report = json.loads((folder / "report.json").read_text("utf-8"))
        (model,) = report["models"]
        assert (
            rounded({k: v for k, v in model.items() if k not in ("curves", "worst", "tables")})
            == ran.json
        )
        assert report["title"] == "LFW"
        assert report["command"].startswith("facenet ")
        assert {"cpu", "cores", "system", "python"} == set(report["machine"])
        records.append(said(model))
        with (folder / "report.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        tables.append([row for row in rows if not row["metric"].startswith("seconds@")])
        accuracy = next(row for row in rows if row["metric"] == "accuracy")
        assert float(accuracy["value"]) == model["accuracy"]
        assert [float(accuracy["low"]), float(accuracy["high"])] == model["accuracy_ci"]
        page = (folder / "report.html").read_text("utf-8")
        shown = [pair for kind in model["worst"].values() for pair in kind]
        assert shown
        faces = {pair[side] for pair in shown for side in "ab"}
        assert page.count("data:image/jpeg;base64,") >= len(faces)
    assert records[0] == records[1]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    "verb", [("folder", "--pairs", 60), ("all-pairs",), ("audit",)], ids=lambda verb: verb[0]
)
def test_reports_of_folders(images, tmp_path, verb):
    name, *more = verb
    draws = () if name == "audit" else FAST
    command = ("evaluate", name, images, *more, *draws, "--report", tmp_path, "--json")
    ran = run(*command)
    (model,) = json.loads((tmp_path / "report.json").read_text("utf-8"))["models"]
    assert (
        rounded({k: v for k, v in model.items() if k not in ("curves", "worst", "tables")})
        == ran.json
    )
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "No face was found in Nobody/1.jpg." in page
    metrics = (tmp_path / "report.csv").read_text("utf-8")
    for metric in {"folder": ("rank@1", "pauc_20@sharpness"), "all-pairs": ("tar@1e-2",)}.get(
        name, ("pictures",)
    ):
        assert f",{metric}," in metrics


@pytest.mark.parametrize("verb", ["lfw", "all-pairs", "folder", "audit"])
def test_a_report_that_cannot_be_written_is_found_out_before_the_work(
    images, pairs, home, tmp_path, verb
):
    (tmp_path / "file").write_text("mine")
    start = lfw(images, pairs) if verb == "lfw" else ("evaluate", verb, images)
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        text = refused(*start, "--report", place)
        assert text.startswith("Cannot write ")
        assert text.endswith("Choose another place.")
    assert (tmp_path / "file").read_text() == "mine"
    assert not (home / "cache").exists()


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_extra_is_found_out_before_the_work(images, pairs, home, tmp_path, package):
    command = lfw(images, pairs, "--report", tmp_path / "report")
    ran = process(*map(str, command), before=f"sys.modules[{package!r}] = None")
    assert (ran.code, ran.out) == (2, "")
    assert ran.sentence.startswith("Reports need matplotlib and jinja2; an import failed: ")
    assert ran.sentence.endswith('Install them with `pip install "facenet[evaluate]"`.')
    assert not (home / "cache").exists()
    assert not (tmp_path / "report").exists()


# ---- what is remembered


def rows_of(path):
    with closing(sqlite3.connect(path)) as file:
        return file.execute("SELECT count(*) FROM seen").fetchone()[0]


def test_the_second_run_remembers_and_the_cache_can_be_forgotten(images, pairs, home):
    first = run(*lfw(images, pairs, "--json")).json
    second = run(*lfw(images, pairs, "--json")).json
    assert (first["remembered"], second["remembered"]) == (0, first["pictures"])
    assert said(first) == said(second)
    files = sorted((home / "cache").iterdir())
    assert files
    assert stat.S_IMODE(os.stat(home / "cache").st_mode) == 0o700
    kept = [rows_of(path) for path in files]
    assert sorted(kept) == [first["pictures"]] * 2  # the faces, and their vectors
    assert run(*lfw(images, pairs, "--json", "--no-cache")).json["remembered"] == 0
    assert run("evaluate", "all-pairs", images, "--json", *FAST).json["remembered"] == sum(kept) / 2
    size = sum(path.stat().st_size for path in files)
    ran = run("evaluate", "forget", "--json")
    assert ran.json["files"] == len(files) == 2
    assert ran.json["bytes"] >= size
    assert list((home / "cache").iterdir()) == []
    assert run("evaluate", "forget").out == "removed 0 files of remembered vectors, 0 bytes\n"
    assert run(*lfw(images, pairs, "--json")).json["remembered"] == 0


def test_nothing_is_kept_where_that_is_asked(images, pairs, home):
    assert run(*lfw(images, pairs, "--no-cache")).code == 0
    assert not (home / "cache").exists()


def test_a_damaged_cache_is_one_sentence(images, pairs, home):
    run(*lfw(images, pairs))
    for path in (home / "cache").iterdir():
        path.write_bytes(b"no database" * 100)
    text = refused(*lfw(images, pairs))
    assert text.startswith(f"Cannot use the remembered vectors in {home / 'cache'}")
    assert run(*lfw(images, pairs, "--no-cache")).code == 0


def test_a_stopped_run_goes_on_where_it_was(images, home, tmp_path):
    """The signal comes while pictures are read ahead; groups before them are kept by then."""
    for number, path in enumerate([*images.rglob("*.jpg")] * 6):
        copy = tmp_path / path.parent.name / f"{number:03}.jpg"
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes() + b"%d" % number)  # other bytes, the same picture
    pictures = sorted(tmp_path.rglob("*.jpg"))
    target = pictures[-2 * GROUP]
    before = (
        "import os, signal; stopped = []; sys.addaudithook(lambda event, given: event == 'open' "
        f"and str(given[0]) == {str(target)!r} and not stopped and "
        "(stopped.append(1), os.kill(os.getpid(), signal.SIGINT)))"
    )
    command = ("evaluate", "all-pairs", str(tmp_path), "--json", *map(str, FAST))
    ran = process(*command, before=before, env=environment(FACENET_HOME=home))
    assert (ran.code, ran.out, ran.err) == (130, "", "facenet: stopped.\n")
    second = run(*command).json
    assert second["remembered"] % GROUP == 0
    assert 0 < second["remembered"] < len(pictures) - 2 * GROUP
    fresh = run(*command, "--no-cache").json
    assert fresh["remembered"] == 0
    assert said(second) == said(fresh)


def test_the_flags_of_looking_reach_the_job():
    from facenet.apps.cli.evaluating import Evaluating, Looking

    assert Looking("largest", True).gathering(True) == Gathering(
        "largest", mirrors=True, remember=False
    )
    assert Looking().gathering(False) == Gathering()
    how = Evaluating("largest", True, None, 7, 3, "insightface").how(False)
    assert (how.select, how.remember, how.replicates, how.seed) == ("largest", False, 7, 3)
    assert how.gathering(aligned=True) == Gathering("largest", True, mirrors=True, remember=False)
