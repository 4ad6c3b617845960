"""The report of a training run, read back: the page, its curves, its tables; hostile files."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from facenet.errors import DataError, StorageError
from facenet.train.journal import METRICS, Journal
from facenet.train.linechart import BOTTOM, LEFT, POINTS, RIGHT, TOP, Curve, chart
from facenet.train.report import CONFIG, ROWS, RUN, write_report

VOID = {"meta"}
HOSTILE = "\"><img src=x onerror=a()><script>&amp;{{7*7}}'\u202e"
CONFIGURED = """
data: {train: /data/lfw, hold_out: 0.1}
backbone: {name: mobilefacenet, embedding_size: 128}
loss: {name: arcface, margin: 0.5}
schedule: {name: steps, at: [10, 15]}
stages: [{part: head, epochs: 1}, {part: all, epochs: 2, rate: null}]
published: ""
"""


class Page(HTMLParser):
    """What a browser would find: elements with the text in them, nested as they should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def headings(self) -> list[str | None]:
        return [attributes["id"] for attributes in self.all("h2")]


def page(folder: Path) -> Page:
    path = write_report(folder)
    assert path == folder / "report.html"
    return Page(path.read_text("utf-8"))


def run(folder: Path, steps: int = 40) -> Path:
    with Journal(folder, tensorboard=False) as book:
        for step in range(1, steps + 1):
            loss = math.nan if step == 30 else 8.0 - step / 10
            book.step(step, epoch=step / 10, loss=loss, lr=0.1, images_per_s=50.0,
                      positive_cosine=step / 50, negative_cosine=0.1, gradient=2.0)  # fmt: skip
            if step % 10 == 0:
                accuracy = {10: 0.7, 20: 0.9, 30: 0.9, 40: 0.8}.get(step, 0.6)
                book.validation(step, "lfw", accuracy=accuracy, accuracy_ci=[0.6, 0.95], eer=0.125)
                book.validation(
                    step,
                    "held-out people",
                    accuracy=step / 100,
                    low=0.05,
                    high=0.5,
                    epoch=step // 10,
                )
    (folder / CONFIG).write_text(CONFIGURED)
    (folder / RUN).write_text(json.dumps({"revision": "abc", "versions": {"torch": "2.13"}}))
    return folder


def test_the_page_of_a_run(tmp_path: Path) -> None:
    found = page(run(tmp_path / "first run"))
    assert found.headings() == ["setup", "curves", "validations", "problems", "settings"]
    assert "Training of mobilefacenet: first run" in found.words
    assert "Step 40, epoch 4.0, loss 4.0000, best on lfw: 0.9000 at step 20" in found.words
    assert "Step 30: loss was nan." in found.words
    assert ["Loss", "name arcfacemargin 0.5"] in [[c.strip() for c in row] for row in found.rows]
    assert ["Versions", "torch 2.13"] in [[c.strip() for c in row] for row in found.rows]
    for row in (["data.hold_out", "0.1"], ["schedule.at", "10, 15"], ["stages[1].part", "all"]):
        assert row in found.rows
    assert not any(row[0] in ("published", "stages[1].rate") for row in found.rows)


def test_the_page_loads_nothing_and_is_the_same_each_time(tmp_path: Path) -> None:
    found = page(run(tmp_path))
    assert page(tmp_path).text == found.text
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"script", "link", "img", "iframe", "image", "use"}
    for _, attributes in found.elements:
        assert not {"src", "href", "onload", "onerror"} & set(attributes)
    assert "url(" not in found.text and "@import" not in found.text
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert found.text.count("<style>") == 1 and "--paper" in found.text


def test_the_best_of_each_set_is_marked(tmp_path: Path) -> None:
    found = page(run(tmp_path))
    start = next(row for row, cells in enumerate(found.rows) if cells[:2] == ["Step", "Set"])
    assert found.rows[start] == ["Step", "Set", "accuracy", "eer", "epoch", ""]
    table = found.rows[start + 1 : start + 9]
    assert table[0] == ["10", "lfw", "0.7000 [0.6000, 0.9500]", "0.1250", "\u2013", ""]
    assert table[1][2:] == ["0.1000 [0.0500, 0.5000]", "\u2013", "1", ""]
    best = [row[:2] for row in table if row[-1] == "best"]
    assert best == [["20", "lfw"], ["40", "held-out people"]]


def test_of_many_validations_the_last_and_the_best_are_shown(tmp_path: Path) -> None:
    with Journal(tmp_path, tensorboard=False) as book:
        for step in range(ROWS + 50):
            book.validation(step, "lfw", accuracy=0.9 if step == 7 else 0.5)
    found = page(tmp_path)
    rows = [row for row in found.rows if row[1:2] == ["lfw"]]
    assert len(rows) == ROWS + 1
    assert (rows[0][0], rows[0][-1], rows[1][0]) == ("7", "best", "50")
    assert "49 more in metrics.jsonl" in found.words


def test_the_curves_are_the_numbers(tmp_path: Path) -> None:
    found = page(run(tmp_path))
    titles = [
        "Loss", "Learning rate", "Images per second", "Accuracy of validations", "Cosines",
        "gradient",
    ]  # fmt: skip
    shown = [part.partition("</figcaption>")[0] for part in found.text.split("<figcaption>")[1:]]
    assert shown == titles
    assert len(found.all("svg")) == len(titles) + 4  # and the keys of two figures
    loss = found.text.split("<figcaption>")[1]
    assert loss.count("<polyline") == 2  # broken at the step without a number
    places = [
        [float(v) for v in p.split(",")] for p in loss.split('points="')[1].split('"')[0].split()
    ]
    assert len(places) == 29
    xs, ys = zip(*places, strict=True)
    assert xs[0] == pytest.approx(LEFT + (RIGHT - LEFT) / 40, abs=0.1)
    steps = [b - a for a, b in zip(ys, ys[1:], strict=False)]
    assert all(step == pytest.approx(steps[0], abs=0.11) and step > 0 for step in steps)


def test_many_lines_are_drawn_as_means_with_their_range() -> None:
    x = list(range(3 * POINTS))
    svg = chart("c", "t", "y", [Curve(x, [float(step % 3) for step in x])])
    line = svg.partition("<polyline")[2].split('"')[1].split()
    assert len(line) == POINTS
    middle = f"{(TOP + BOTTOM) / 2:.1f}"
    assert {point.split(",")[1] for point in line} == {middle}  # of 0, 1 and 2 the mean is 1
    band = svg.partition("<polygon")[2].split('"')[1].split()
    assert len({point.split(",")[1] for point in band}) == 2
    assert len(band) == 2 * POINTS


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.1, 0.01, 1e-5], {"0.1", "0.01", "0.001", "1e-4", "1e-5"}),
        ([31.0, 1.0], {"1", "2", "5", "10", "20"}),
        ([0.0, 1.0], {"0", "0.2", "0.4", "0.6", "0.8", "1"}),
        ([5.0, 5.0], {"4.8", "4.9", "5", "5.1", "5.2"}),
        ([0.0], {"0"}),
        ([-2e4, 3e4], {"-20k", "-10k", "0", "10k", "20k", "30k"}),
    ],
)
def test_ticks_are_round(values: list[float], ticks: set[str]) -> None:
    found = Page(chart("c", "t", "y", [Curve(list(range(len(values))), values)]))
    svg = found.text.split('text-anchor="end"')[1:]
    assert ticks <= {part.partition(">")[2].partition("<")[0] for part in svg}


@pytest.mark.parametrize(
    "values",
    [[5e-324], [1e14, -1e14], [1.0, math.nextafter(1, 2)], [1e-320, 1e14], [0.0, 1e-310], [-1e-5]],
)
def test_extreme_numbers_stay_in_the_field(values: list[float]) -> None:
    svg = chart("c", "t", "y", [Curve([0] * len(values), values, marked=True)])
    circles = Page(svg).all("circle")
    assert len(circles) == len(values)
    assert all(TOP <= float(circle["cy"] or "nan") <= BOTTOM for circle in circles)


def test_a_chart_without_a_number_is_none() -> None:
    assert chart("c", "t", "y", []) == ""
    assert chart("c", "t", "y", [Curve([1, 2], [None, math.inf])]) == ""


@pytest.mark.parametrize("lines", [0, 1])
def test_a_run_that_has_hardly_begun_has_a_page(tmp_path: Path, lines: int) -> None:
    with Journal(tmp_path, tensorboard=False) as book:
        for _ in range(lines):
            book.step(0, epoch=0, loss=8.0, lr=0.1, images_per_s=0.0)
    found = page(tmp_path)
    assert found.headings() == ["curves"] * lines
    assert ("No step has been written down yet." in found.words) is (lines == 0)
    assert len(found.all("circle")) == 3 * lines
    (tmp_path / METRICS).unlink()
    assert "Training of a network" in page(tmp_path).words


def test_hostile_names_are_text(tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE.replace("/", "")
    record: dict[str, Any] = {HOSTILE: {HOSTILE: [HOSTILE, 1]}, "backbone": {"name": HOSTILE}}
    with Journal(folder, tensorboard=False) as book:
        for step in (1, 2):
            book.step(step, epoch=1, loss=1.0, lr=1.0, images_per_s=1.0,
                      **{HOSTILE: math.nan if step == 1 else 1.0, f"{HOSTILE}cosine": 1.0,
                         "second_cosine": 0.5})  # fmt: skip
            book.validation(step, HOSTILE, accuracy=0.5, **{HOSTILE: HOSTILE})
            book.validation(step, "other", accuracy=0.5)
    (folder / CONFIG).write_text(json.dumps(record))
    (folder / RUN).write_text(json.dumps(record))
    found = page(folder)
    assert not {tag for tag, _ in found.elements} & {"img", "script"}
    assert all("onerror" not in attributes for _, attributes in found.elements)
    shown = HOSTILE.replace("\u202e", "\ufffd")
    assert found.words.count(shown) >= 12


def test_long_names_and_many_of_them_are_cut(tmp_path: Path) -> None:
    with Journal(tmp_path, tensorboard=False) as book:
        more = {f"further{row}{'x' * 1000}": 1.0 for row in range(300)}
        book.step(1, epoch=1, loss=1.0, lr=1.0, images_per_s=1.0, **more)
        few = dict(list(more.items())[:40])
        for row in range(100):
            book.validation(row, f"set{row}{'x' * 5000}", accuracy=10**400, **few)
    nested: Any = "deep"
    for _ in range(50):
        nested = {"k" * 300: [nested]}
    (tmp_path / CONFIG).write_text(json.dumps({"many": [{"a": row} for row in range(5000)]}))
    skipped = [[f"{row}.jpg", "no picture"] for row in range(40)]
    (tmp_path / RUN).write_text(json.dumps({"nested": nested, "skipped_pictures": skipped}))
    found = page(tmp_path)
    assert len(found.text) < 600_000
    assert "more than are shown here" in found.words
    assert "29.jpg, no picture" in found.words and "30.jpg" not in found.words
    assert "more in run.json" in found.words


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (CONFIG, "a: &a [[], []]\nb: [*a, *a]"), (CONFIG, "[1, 2]"), (CONFIG, "a: [1"),
        (CONFIG, "!!python/object/apply:os.getcwd []"), (CONFIG, "[" * 50_000),
        (CONFIG, "#" * 1_000_001), (RUN, "{"), (RUN, "3"), (RUN, "[" * 50_000),
    ],
)  # fmt: skip
def test_files_that_no_run_wrote_are_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"{name} should be a record as facenet train writes it"):
        write_report(tmp_path)


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="should be the folder of a training run; there is none"):
        write_report(tmp_path / "none")
    (tmp_path / RUN).write_bytes(b"\xff")
    with pytest.raises(DataError, match="run.json should be a record"):
        write_report(tmp_path)
    (tmp_path / RUN).unlink()
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StorageError, match="report.html"):
        write_report(tmp_path)
