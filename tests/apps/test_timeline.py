"""The page of who was there: everything inside, bars where they belong, names that stay names."""

from __future__ import annotations

import base64
import re
import stat
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from visitors import little_disk, portrait, track

from facenet.apps.jobs.filming.timeline import (
    ALL_PORTRAITS,
    MARKS,
    Period,
    marks,
    write_timeline,
)
from facenet.errors import SettingsError, StorageError

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """The elements of a page, and whether each one that is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag, **wanted):
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(key) == value for key, value in wanted.items())
        ]

    @property
    def bars(self):
        """(number of the track, left and width in percent, what is told)."""
        found = [one for one in self.all("a") if one.get("class", "").startswith("bar")]
        return [
            (
                int(one["href"].removeprefix("#t")),
                *(float(value) for value in re.findall(r"[\d.]+(?=%)", one["style"])),
                one["aria-label"],
            )
            for one in found
        ]


def page(tmp_path, tracks, **period):
    path = tmp_path / "timeline.html"
    write_timeline(path, tracks, Period(**{"title": "clip.mp4", **period}))
    return Page(path.read_text("utf-8"))


def test_bars_stand_where_people_were_visible(tmp_path):
    tracks = [
        track(1, "Zoë", (10.0, 20.0), (50.0, 75.0)),
        track(2, None, (0.0, 100.0), stranger="unknown 1"),
        track(3, "Zoë", (90.0, 95.0)),
    ]
    found = page(tmp_path, tracks, end_s=100.0)
    assert found.bars == [
        (1, 10, 10, "Zoë: 0:00:10 to 0:00:20, track 1"),
        (1, 50, 25, "Zoë: 0:00:50 to 0:01:15, track 1"),
        (3, 90, 5, "Zoë: 0:01:30 to 0:01:35, track 3"),
        (2, 0, 100, "unknown 1: 0:00:00 to 0:01:40, track 2"),
    ]
    rows = [one["id"] for one in found.all("li")]
    assert rows == ["r0", "r1"]  # Zoë has one row
    assert "40.0 s · 2×" in found.texts  # seconds and tracks of Zoë


def test_lengths_and_times_are_as_fine_as_the_page_is_short(tmp_path):
    short = page(tmp_path, [track(1, "Ann", (0.25, 0.61))], end_s=60.0)
    assert short.bars[0][3] == "Ann: 0:00:00.2 to 0:00:00.6, track 1"
    assert "0.4 s" in short.texts
    long = page(tmp_path, [track(1, "Ann", (10.0, 3700.0))])
    assert long.bars[0][3] == "Ann: 0:00:10 to 1:01:40, track 1"
    assert "1:01:30" in long.texts


def test_a_piece_of_a_video_begins_at_its_start(tmp_path):
    found = page(tmp_path, [track(1, "Ann", (630.0, 640.0))], start_s=600.0, end_s=700.0)
    assert [bar[:3] for bar in found.bars] == [(1, 30, 10)]
    assert "0:10:00" in found.texts
    assert "0:00:00" not in found.texts


def test_narrow_bars_can_be_seen_and_neighbours_become_one(tmp_path):
    spans = ((0.0, 10.0), (10.05, 20.0), (999.999, 1000.0))
    found = page(tmp_path, [track(1, "Ann", *spans)])
    (_, left, width, _), (_, last, least, _) = found.bars
    assert (left, width) == (0, 2)
    assert last + least <= 100
    assert least == 0.2


def test_the_page_holds_all_it_shows_and_runs_nothing(tmp_path):
    found = page(tmp_path, [track(n, f"P{n % 3}") for n in range(1, 9)])
    assert {tag for tag, _ in found.elements}.isdisjoint({"script", "link", "iframe", "object"})
    for _, attributes in found.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value.startswith(("data:image/jpeg;base64,", "#"))
    text = (tmp_path / "timeline.html").read_text("utf-8")
    assert not re.search(r"https?:|url\(|@import", text)
    (policy,) = found.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'")
    assert "prefers-color-scheme: dark" in text
    assert stat.S_IMODE((tmp_path / "timeline.html").stat().st_mode) == 0o600


def test_every_bar_leads_to_its_track_and_back(tmp_path):
    found = page(tmp_path, [track(n, f"P{n % 3}") for n in range(1, 9)])
    places = {attributes["id"] for _, attributes in found.elements if "id" in attributes}
    links = [one["href"] for one in found.all("a")]
    assert {link.removeprefix("#") for link in links} == places
    assert len(links) == 16


HOSTILE = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "' onfocus='alert(1)",
           "</style><b>", "{{ 7*7 }}{% raw %}", "&lt;i&gt;", "\u202eevil\x00\x1b[0m",
           "\udcff"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_no_html(name, tmp_path):
    harmless = page(tmp_path, [track(1, "Ann"), track(2)])
    tracks = [track(1, name), track(2, None, stranger=name, best_candidate=name)]
    found = page(tmp_path, tracks, title=name, facts=[name])
    shape = [(tag, sorted(attributes)) for tag, attributes in found.elements]
    assert shape == [(tag, sorted(attributes)) for tag, attributes in harmless.elements]
    shown = name.replace("\u202e", "").replace("\x00\x1b", " ").replace("\udcff", "\ufffd")
    texts = [text.strip() for text in found.texts]
    assert texts.count(shown) == 5  # the heading, two rows, two tracks
    assert any(text == f"nearest: {shown}" for text in texts)


def test_thumbnails_show_the_face(tmp_path):
    """A red square is the face; the picture around it is blue."""
    image = np.zeros((200, 300, 3), np.uint8)
    image[:, :, 0], image[50:150, 180:280] = 255, (0, 0, 255)
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    face = np.array([180, 50, 280, 150], np.float32)
    one = replace(portrait(), jpeg=jpeg, face=face)
    found = page(tmp_path, [track(1, "Ann", portraits=(one,))])
    data = found.all("img")[0]["src"].removeprefix("data:image/jpeg;base64,")
    small = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert small.shape == (88, 88, 3)
    assert small[44, 60, 2] > 200  # 100 red pixels of 150, at the right edge of the picture
    assert (small[:, :, 2] > 128).mean() == pytest.approx((100 / 150) ** 2, abs=0.03)


def test_a_track_without_a_usable_portrait_has_a_blank(tmp_path):
    broken = replace(portrait(), jpeg=b"no picture")
    far = replace(portrait(), face=np.array([500, 500, 900, 900], np.float32))
    cases = [track(1, "A", portraits=()), track(2, "B", portraits=(broken,)),
             track(3, "C", portraits=(far,))]  # fmt: skip
    found = page(tmp_path, cases)
    assert len(found.all("span", **{"class": "none"})) == 2
    assert len(found.all("img")) == 2


def test_five_hundred_tracks(tmp_path):
    pictures = (portrait(1.0, 0.9), portrait(2.0, 0.5))
    tracks = [track(n, None, (n, n + 30.0), portraits=pictures) for n in range(1, 501)]
    found = page(tmp_path, tracks)
    assert len(found.all("li")) == len(found.bars) == 500
    assert len(found.all("img")) == 1000  # a row and a track each: beyond so many, the best alone
    found = page(tmp_path, tracks[:ALL_PORTRAITS])
    assert len(found.all("img")) == 3 * ALL_PORTRAITS
    assert len(found.all("a", **{"class": "bar late"})) > 0


def test_decisions_are_told_with_their_rates(tmp_path):
    found = page(tmp_path, [track(1, "Ann"), track(2), track(3, "Bob", reason="confirmed_by_user")])
    assert found.texts.count("0.420") == 3
    assert found.texts.count("1e-05") == 3
    assert ("nearest: Ann" in found.texts, "confirmed by user" in found.texts) == (True, True)
    page(tmp_path, [track(4, similarity=None, threshold=None, fmr=None, fpir=None)])


def test_nobody_was_seen(tmp_path):
    found = page(tmp_path, [])
    assert "Nobody was seen." in found.texts
    assert found.bars == []


@pytest.mark.parametrize("length", [1, 7.5, 59, 61, 3599, 3600, 86400, 1e6, 1e7])
@pytest.mark.parametrize("start", [0, 0.4, 3601])
def test_the_axis_has_few_round_marks(length, start):
    found = marks(start, start + length)
    assert len(found) <= MARKS + 1
    assert all(start <= mark <= start + length for mark in found)
    steps = np.diff(found)
    assert len(set(steps)) <= 1
    assert all(mark % step == 0 for mark, step in zip(found, steps, strict=False))
    assert len(found) >= (1 if length < 2 else 2)


@pytest.mark.parametrize("name", ["page.mp4", "page", "page.html.txt", "x" * 500])
def test_a_page_has_the_name_of_a_page(name, tmp_path):
    with pytest.raises(SettingsError, match=r"should end with \.html or \.htm; got ") as caught:
        write_timeline(tmp_path / name, [track()], Period("a"))
    assert len(str(caught.value)) < 600
    assert list(tmp_path.iterdir()) == []
    write_timeline(tmp_path / "page.HTM", [track()], Period("a"))


def test_a_full_disk_leaves_the_page_that_was_there(tmp_path):
    path = tmp_path / "timeline.html"
    path.write_text("mine")
    with little_disk(2000), pytest.raises(StorageError, match=r"Cannot write .*timeline\.html"):
        write_timeline(path, [track()], Period("a"))
    assert [one.name for one in tmp_path.iterdir()] == ["timeline.html"]
    assert path.read_text() == "mine"
