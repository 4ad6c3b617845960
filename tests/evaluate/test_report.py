"""The report of an evaluation, read back: the page, the table and the record."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import report_maker as maker

from facenet.errors import InputError, StorageError
from facenet.evaluate import curves, rows
from facenet.evaluate.report import (
    COLUMNS,
    FILES,
    require_report_folder,
    write_report,
)

VOID = {"meta", "img", "br", "link", "input", "line", "use", "path", "rect"}
HOSTILE = "\"><img src=x onerror=a()><script>&amp;{{7*7}}'"


class Page(HTMLParser):
    """What a browser would find: elements, the text in the body, tables cell by cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.cells[-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def headings(self):
        return [attributes["id"] for attributes in self.all("h2")]

    def said(self):
        return " ".join(" ".join(self.words).split())


def written(folder, report, **more):
    """The page, the rows of the table and the record of a report."""
    paths = write_report(folder, report, **more)
    assert paths == [folder / name for name in FILES]
    record, table, page = (path.read_text("utf-8") for path in paths)
    return Page(page), list(csv.DictReader(io.StringIO(table))), json.loads(record)


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    pictures = {"ann/1.jpg": maker.PICTURE, "bea/2.jpg": maker.PICTURE + b"2"}
    return written(tmp_path_factory.mktemp("rich"), maker.report(), pictures=pictures)


def test_the_record_is_the_report(rich):
    _, _, record = rich
    assert record == maker.report()
    assert list(record) == list(maker.report())
    assert list(record["models"][0]) == list(maker.result())


def test_every_number_of_a_model_is_in_the_table_of_the_page(rich):
    page, _, record = rich
    cells = page.cells
    for model in record["models"]:
        for name in ("pairs", "mated", "pictures", "people"):
            assert f"{model[name]:,}" in cells
        for name in ("accuracy", "auc", "eer", "d_prime"):
            low, high = model[f"{name}_ci"]
            assert f"{model[name]:.4f}[{low:.4f}, {high:.4f}]" in cells
        for name in ("accuracy_std", "threshold"):
            assert f"{model[name]:.4f}" in cells
        for count in (*model["errors"].values(), model["failures"], model["not_found"]):
            assert str(count) in cells
        assert f"{model['published']:.4f}by its author" in cells
        assert "0.9432[0.9202, 0.9599]deviation 0.0213, FAR 0.0011" in cells
        for point in model["tar_at_far"].values():
            low, high = point["ci"]
            assert (
                f"{point['tar']:.4f}[{low:.4f}, {high:.4f}]FAR {point['far']:.4f}, false matches "
                f"{point['false_matches']}, threshold {point['threshold']:.4f}"
            ) in cells
        assert f"–{model['refused']['1e-5']}" in cells
    assert {"0.0873[0.0712, 0.1098]false positives 12", "0.9712"} <= set(cells)
    assert {"5,749", "901", "4,069", "0.9853[0.9812, 0.9894]"} <= set(cells)
    assert {"0.0823", "0.0711", "0.0066", "0.1067", "-2.1250"} <= set(cells)


def test_the_other_tables_of_the_page(rich):
    page, _, _ = rich
    cells = page.cells
    at = cells.index("first less second")
    assert cells[at - 1 : at + 4] == [
        "accuracy", "first less second", "-0.0041", "[-0.0072, -0.0012]", "outside",
    ]  # fmt: skip
    at = cells.index("East")
    assert cells[at : at + 5] == [
        "East", "0.0021[0.0013, 0.0091]", "0.0234[0.0187, 0.0291]", "400", "500",
    ]  # fmt: skip
    assert "3.0172 [2.1043, 7.7071]" in cells
    at = cells.index("detect")
    assert cells[at + 1 : at + 3] == ["33.57.1 ms a picture"] * 2
    assert "No face was found in dan/7.jpg." in page.said()
    heat = [a["style"] for a in page.all("td") if "--h" in a.get("style", "")]
    assert heat[:3] == ["--h: 67%", "--h: 50%", "--h: 33%"]  # 1e-2, 1e-3, 1e-4 of 1e-6 to 1


def test_the_head_of_the_page_says_what_was_measured(rich):
    page, _, _ = rich
    for words in (
        "A made-up evaluation", "facenet evaluate lfw data --report out", "2026-11-22T04:00:00Z",
        "facenet 0.1.0", "A processor", "2 cores", "Python 3.11.2", "0123abcd" * 8, "feed" * 16,
        "first/512", "second/512", "fp32", "onnxruntime 1.23 on cpu", "mtcnn 20", "width 160",
        "mean [127.5, 128.25]", "Made up, view 2", "facenet: 10 contiguous folds, no flip",
        "Folds share no people.",
    ):  # fmt: skip
        assert words in page.said()
    assert page.cells.count("fp32") == 1  # said once where the models agree


def test_the_page_loads_nothing_and_runs_nothing(rich):
    page, _, _ = rich
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "xlink:href", "action", "poster"):
                assert (value or "").startswith(("#", "data:image/jpeg;base64,")), (tag, value)
    assert all(link.startswith("#") for link in re.findall(r"url\(([^)]*)", page.text))
    assert set(re.findall(r"https?:[^\"' ]*", page.text)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in page.text


def test_the_page_is_fit_for_all_readers(rich):
    page, _, _ = rich
    assert page.all("html") == [{"lang": "en"}]
    assert any("width=device-width" in str(meta.get("content")) for meta in page.all("meta"))
    identifiers = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(identifiers) == len(set(identifiers))
    assert {a["href"][1:] for a in page.all("a")} == set(page.headings())
    for _, attributes in page.elements:
        for name in set(attributes) & {"aria-labelledby"}:
            assert attributes[name] in identifiers
    assert all(a.get("alt") for a in page.all("img"))
    assert all(a.get("aria-labelledby") or "aria-hidden" in a for a in page.all("svg"))
    assert all(a.get("scope") in ("col", "row", "rowgroup") for a in page.all("th"))
    for rule in ("prefers-color-scheme: dark", "@media print", "max-width: 600px"):
        assert rule in page.text


def test_the_worst_pairs_are_shown_with_their_pictures(rich):
    page, _, _ = rich
    images = page.all("img")
    assert [image["alt"] for image in images] == ["ann/1.jpg", "bea/2.jpg"] * 2
    data = [base64.b64decode(image["src"].partition(",")[2]) for image in images]
    assert data[:2] == [maker.PICTURE, maker.PICTURE + b"2"]
    said = page.said()
    assert said.count("no picture no picture cy/1.jpg cy/2.jpg") == 2
    assert "0.6123 ann/1.jpg bea/2.jpg" in said and "0.1371" in said


def test_the_csv_has_a_row_per_number(rich):
    _, table, record = rich
    assert tuple(table[0]) == COLUMNS
    for model in record["models"]:
        named = {row["metric"]: row for row in table if row["model"] == model["model"]}
        assert {row["dataset"] for row in named.values()} == {"Made up, view 2"}
        for name in ("accuracy", "auc", "eer"):
            read = [float(named[name][column]) for column in ("value", "low", "high")]
            assert read == [model[name], *model[f"{name}_ci"]]
        for rate, point in model["tar_at_far"].items():
            row = named[f"tar@{rate}"]
            assert [float(row["value"]), float(row["low"]), float(row["high"])] == [
                point["tar"], *point["ci"],
            ]  # fmt: skip
            for metric in ("far", "threshold", "false_matches"):
                assert float(named[f"{metric}@{rate}"]["value"]) == point[metric]
        assert named["tar@1e-5"]["value"] == ""
        assert named["tar@1e-5"]["note"] == model["refused"]["1e-5"]
        assert float(named["fnir@1e-2"]["low"]) == 0.0712
        assert float(named["fmr@region=West"]["value"]) == 0.0042
        assert float(named["fmr_ratio@region"]["high"]) == 7.7071
        assert [float(named[f"fold_accuracy@{n}"]["value"]) for n in (1, 2)] == [0.9861, 0.9889]
        at = named["fnir@gallery=1000"]
        assert [float(at[c]) for c in ("value", "low", "high")] == [0.0822, 0.07, 0.09]
        assert float(named["fpir@gallery=1000"]["value"]) == 0.0098
        assert float(named["pauc_20@vector_length"]["value"]) == 0.00663
        assert float(named["seconds@detect"]["value"]) == 33.5
    (pair,) = [row for row in table if row["note"] == "paired difference"]
    assert (pair["model"], pair["metric"]) == ("first less second", "accuracy")
    assert [float(pair[c]) for c in ("value", "low", "high")] == [-0.00413, -0.00721, -0.00118]
    assert all(row["value"] or row["note"] for row in table)


def test_the_same_report_gives_the_same_bytes(tmp_path):
    pictures = {"ann/1.jpg": maker.PICTURE}
    first = write_report(tmp_path / "one", maker.report(), pictures=pictures)
    second = write_report(tmp_path / "two", maker.report(), pictures=pictures)
    again = write_report(tmp_path / "two", maker.report(), pictures=pictures)
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert again == second
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(FILES)


PARTS = {
    "accuracy": ("accuracy", {"values"}),
    "tar_at_far": ("tar_at_far", {"values"}),
    "refused": ("refused", {"values"}),
    "roc": ("curves", {"errors", "scores", "thresholds"}),
    "identification": ("identification", {"values", "searches"}),
    "quality": ("quality", {"values", "quality"}),
    "groups": ("groups", {"groups"}),
    "calibration": ("calibration", {"values", "calibration"}),
    "all pairs": ("fmr_table", {"thresholds"}),
    "worst": ("worst", {"worst"}),
    "seconds": ("seconds", {"time"}),
    "problems": ("problems", {"problems"}),
    "digests": ("digests", {"setup"}),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_alone_makes_a_page_of_its_own(part, tmp_path):
    key, headings = PARTS[part]
    for named in ({"model": "first"}, {}):
        page, _, _ = written(tmp_path, {"models": [{**named, key: maker.result()[key]}]})
        assert set(page.headings()) == headings


def test_a_report_of_nothing_but_a_name(tmp_path):
    page, table, record = written(tmp_path, {"models": [{"model": "alone"}]})
    assert (page.headings(), table, record) == ([], [], {"models": [{"model": "alone"}]})
    empty = dict.fromkeys(maker.result())
    page, table, _ = written(tmp_path, {**dict.fromkeys(maker.report()), "models": [empty] * 2})
    assert (page.headings(), table) == ([], [])


def hostile(value, bad):
    """A report with a bad text for every text in it, and in every name of the data's own."""
    if isinstance(value, dict):
        own = any(key in value for key in ("pairs.txt", "region", "detection_score", "1e-2"))
        return {(bad + key if own else key): hostile(item, bad) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile(item, bad) for item in value]
    return bad + value if isinstance(value, str) else value


def spoilt(folder, bad):
    """The report of one model in which every text begins with a bad one."""
    model = hostile(maker.result(), bad)
    report = {**maker.report(model), "title": bad, "command": bad, "machine": {"cpu": bad}}
    pictures = {model["worst"]["false_matches"][0]["a"]: maker.PICTURE}
    page, table, record = written(folder, report, pictures=pictures)
    assert record["models"] == [model]
    return page, table


@pytest.fixture(scope="module")
def harmless(tmp_path_factory):
    return spoilt(tmp_path_factory.mktemp("harmless"), "harmless ")


@pytest.mark.parametrize(
    "bad",
    [
        HOSTILE, "=cmd|' /C calc'!A0", "@x", "Zo\u00eb \u674e\u96f7 \U0001f600",
        "\u202egnp.exe\x00\x1b[2J\r\n", "\udcff\udc80", "x" * 200_000,
    ],
    ids=["script", "formula", "at", "letters", "control", "surrogate", "long"],
)  # fmt: skip
def test_hostile_texts_are_shortened_and_escaped(bad, tmp_path, harmless):
    page, table = spoilt(tmp_path, bad)
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in harmless[0].elements]
    names = [[*attributes] for _, attributes in page.elements]
    assert names == [[*attributes] for _, attributes in harmless[0].elements]
    assert len(page.text) < 300_000
    assert len(table) == len(harmless[1])
    cells = [row[name] for row in table for name in ("model", "dataset", "metric", "note")]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    assert max(map(len, cells)) <= 401  # 400 and the apostrophe
    body = "".join(page.words)
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\ud800-\udfff]", body)
    if bad.isprintable() and len(bad) < 50:
        assert bad + "East" in page.cells and bad + "first" in page.said()


def test_a_name_of_ten_megabytes_costs_nothing(tmp_path):
    model = {"model": "n" * 10_000_000, "accuracy": 0.5}
    page, _, _ = written(tmp_path, {"models": [model]})
    assert len(page.text) < 10_000
    assert page.cells[1] == "n" * 39 + "\u2026" + "n" * 20


def test_numbers_that_are_none_are_null(tmp_path):
    model = {
        "model": "odd", "accuracy": math.nan, "eer": -math.inf, "auc": np.float32(0.5),
        "pairs": np.int64(7), "auc_ci": (0.25, math.inf), "eer_ci": None, "mated": True,
        "tar_at_far": {"1e-1": {"tar": None, "ci": None, "far": None, "threshold": None}},
    }  # fmt: skip
    page, table, record = written(tmp_path, {"models": [model]})
    assert "NaN" not in (tmp_path / "report.json").read_text() and "nan" not in page.said()
    read = record["models"][0]
    assert [read[k] for k in ("accuracy", "eer", "auc", "pairs")] == [None, None, 0.5, 7]
    assert read["auc_ci"] == [0.25, None]
    named = {row["metric"]: row for row in table}
    assert (named["auc"]["low"], named["auc"]["high"]) == ("0.25", "")
    assert "accuracy" not in named and "0.5000" in page.cells


def test_long_lists_are_cut_with_a_count_of_the_rest(tmp_path):
    many = [{"a": f"a{n}", "b": f"b{n}", "similarity": 0.5} for n in range(1234)]
    names = [f"group {n}" for n in range(31)]
    model = {
        "problems": [f"problem {n}." for n in range(1201)],
        "worst": {"false_matches": many},
        "groups": {"age": {"cross": {"groups": names, "fmr": [[0.1] * 31] * 31}}},
    }
    page, _, record = written(tmp_path, {"models": [model]})
    said = page.said()
    assert "problem 199." in said and "problem 200." not in said
    assert "1,001 more in report.json." in said
    assert "a49" in said and "a50" not in said and "1,184 more in report.json." in said
    assert "between 31 groups are in report.json" in said
    assert len(record["models"][0]["problems"]) == 1201


def test_thresholds_are_those_of_the_scores():
    mated, others = maker.scores(seed=4)
    lost = {"mated": len(mated) + 5, "non_mated": len(others) + 3}
    found = rows.threshold_rows({"curves": {"histogram": curves.histogram(mated, others)}, **lost})
    assert 8 <= len(found) <= rows.THRESHOLDS
    for row in found:
        assert row["false_matches"] == np.sum(others >= row["similarity"])
        assert row["fmr"] == row["false_matches"] / lost["non_mated"] <= 0.5
        assert row["tar"] == np.sum(mated >= row["similarity"]) / lost["mated"] >= 0.05
    assert np.all(np.diff([row["similarity"] for row in found]) > 0)


def test_rows_of_a_table_of_false_matches_are_the_first_that_reach_a_rate():
    table = {
        "similarity": [n / 100 for n in range(60)],
        "false_matches": [round(1e6 * math.exp(-n / 4)) for n in range(60)],
        "pairs": 1_000_000,
    }
    found = rows.fmr_rows(table)
    assert found == sorted(found, key=lambda row: row["similarity"])
    for rate in (0.5, 0.1, 0.03, 0.01, 1e-3, 1e-4, 1e-5):
        first = next(
            at
            for at, count in zip(table["similarity"], table["false_matches"], strict=True)
            if count <= rate * table["pairs"]
        )
        assert first in [row["similarity"] for row in found]
    assert all(row["fmr"] == row["false_matches"] / 1e6 for row in found)
    assert rows.fmr_rows({}) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0, "0"), (0.0, "0"), (6000, "6,000"), (-12, "-12"), (0.98754, "0.9875"),
        (1.0, "1.0000"), (0.99996, "0.999960"), (0.9999999, "0.999999"), (-0.99999, "-0.999990"),
        (0.00033333, "3.3e-4"), (-2e-7, "-2.0e-7"), (0.001, "0.0010"), (12345.678, "12,345.6780"),
    ],
)  # fmt: skip
def test_numbers_for_a_person(value, text):
    assert rows.shown(value) == text


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ({"models": [{"roc": np.zeros(3)}]}, r"report\.models\[0\]\.roc is of the type ndarray"),
        ({"models": [{"a": {"x" * 999: object()}}]}, r"x{40} is of the type object"),
        ({"models": []}, "a record per model, one at least"),
        ({"title": "none"}, "a record per model, one at least"),
        ({"models": ["first"]}, "a record per model, one at least"),
    ],
)
def test_what_is_no_report(report, words, tmp_path):
    with pytest.raises(InputError, match=words):
        write_report(tmp_path, report)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_made(tmp_path):
    folder = tmp_path / "a" / "b"
    require_report_folder(folder)
    assert folder.is_dir() and list(folder.iterdir()) == []


def test_a_place_that_cannot_be_written_is_known_beforehand(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for folder in (file, file / "below", Path("/proc/nothing")):
        with pytest.raises(StorageError, match="Cannot write .*Choose another place"):
            require_report_folder(folder)
        with pytest.raises(StorageError, match="Cannot write"):
            write_report(folder, maker.report())
    assert file.read_text() == "mine"
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StorageError, match="report.html: there is a folder of that name"):
        write_report(tmp_path, maker.report())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "report.html"]


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_extra_is_known_beforehand(package, tmp_path):
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from pathlib import Path\n"
        "from facenet.errors import MissingExtraError\n"
        "from facenet.evaluate.report import require_report_extra, write_report\n"
        "for call in (require_report_extra, lambda: write_report(Path(sys.argv[1]), {})):\n"
        "    try:\n        call()\n    except MissingExtraError as error:\n        print(error)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = answer.stdout.splitlines()
    assert first == second
    assert first.startswith("Reports need matplotlib and jinja2; an import failed: ")
    assert package in first and first.endswith('`pip install "facenet[evaluate]"`.')
    assert list(tmp_path.iterdir()) == []
