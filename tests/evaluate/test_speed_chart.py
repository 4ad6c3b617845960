"""The chart of `facenet bench`: bars as long as the figures, read back from the SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import cv2
import pytest

from facenet.errors import InputError, SettingsError, StorageError
from facenet.evaluate.speedchart import PEER, save_chart
from facenet.evaluate.svg import SERIES

SVG = "{http://www.w3.org/2000/svg}"


def row(name, unit, median, peer=None, theirs=None, ratio=None):
    return {
        "name": name, "unit": unit, "median": median, "p95": median, "runs": 5, "peer": peer,
        "peer_median": theirs, "ratio": ratio,
    }  # fmt: skip


ROWS = [
    row("mtcnn/a", "frames/s", 20.0, "facenet-pytorch", 5.0, 4.0),
    row("mtcnn/b", "frames/s", 40.0, "facenet-pytorch", 10.0, 4.0),
    row("mtcnn/alone", "frames/s", 30.0),
    row("latency/c", "ms", 12.0, "insightface", 30.0, 2.5),
    row("search/d", "ms", 1.0, "faiss", 12345.0, 12345.0),
    row("mtcnn/a/floor", "ms", 3.0, "facenet", 50.0, 16.7),
]


def bars(path, colour):
    """Widths of the filled rectangles of a colour, in units of the drawing."""
    found = []
    for element in ElementTree.parse(path).iter(f"{SVG}path"):
        if f"fill: {colour}" in element.get("style", ""):
            numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", element.get("d"))]
            found.append(max(numbers[::2]) - min(numbers[::2]))
    return found


def words(path):
    return [element.text for element in ElementTree.parse(path).iter(f"{SVG}text")]


def test_bars_of_a_unit_are_in_proportion_and_carry_the_ratio(tmp_path):
    path = tmp_path / "speed.svg"
    save_chart(ROWS, path)
    ours, theirs = bars(path, SERIES[0]), bars(path, PEER)
    assert len(ours) == len(theirs) == 4  # not the one alone, nor the floor
    assert ours[1] / ours[0] == pytest.approx(2, rel=1e-3)
    assert ours[0] / theirs[0] == pytest.approx(4, rel=1e-3)
    assert theirs[2] / ours[2] == pytest.approx(2.5, rel=1e-3)
    said = words(path)
    assert said.count("20   (4.00 times)") == 1
    assert said.count("ms (less is better)") == 2  # a search has a scale of its own
    assert {
        "5 facenet-pytorch",
        "12,345 faiss",
        "12   (2.50 times)",
        "ms (less is better)",
        "frames/s",
    } <= {*said}
    again = tmp_path / "again.svg"
    save_chart(ROWS, again)
    assert again.read_bytes() == path.read_bytes()


def test_without_any_peer_all_rows_are_drawn(tmp_path):
    path = tmp_path / "alone.SVG"
    save_chart([ROWS[2], row("memory", "MB", 70.0)], path)
    assert len(bars(path, SERIES[0])) == 2
    assert bars(path, PEER) == []


@pytest.mark.parametrize(
    ("unit", "title"),
    [
        ("frames/s", "frames/s"),
        ("GFLOP/s", "GFLOP/s"),
        ("ms", "ms (less is better)"),
        ("s", "s (less is better)"),
        ("GB", "GB (less is better)"),
        ("MB/10,000 photos", "MB/10,000 photos (less is better)"),
        ("share of 63 faces", "share of 63 faces (more is better)"),
        ("times one by one", "times one by one (more is better)"),
        ("queries with equal answers", "queries with equal answers (more is better)"),
        ("of 4096", "of 4096"),
    ],
)
def test_what_is_better_depends_on_the_unit(tmp_path, unit, title):
    save_chart([row("a", unit, 0.97)], tmp_path / "speed.svg")
    assert title in words(tmp_path / "speed.svg")


def test_png(tmp_path):
    path = tmp_path / "speed.png"
    save_chart(ROWS, path)
    assert min(cv2.imread(str(path)).shape[:2]) > 200


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(SettingsError, match=r"\.svg or \.png; got speed\.jpg"):
        save_chart(ROWS, tmp_path / "speed.jpg")
    with pytest.raises(InputError, match="should have rows"):
        save_chart([], tmp_path / "speed.svg")
    with pytest.raises(StorageError, match="Cannot write"):
        save_chart(ROWS, tmp_path / "nowhere" / "speed.svg")
