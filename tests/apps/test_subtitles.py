"""Who is there, as subtitles: exact times, nothing overlaps, names are no orders."""

from __future__ import annotations

import html
import random
import re
from dataclasses import replace

import pytest
from visitors import little_disk, track

from facenet.apps.jobs.filming.subtitles import write_subtitles
from facenet.apps.jobs.filming.whose import called, clock, merged, present, rows_of
from facenet.errors import SettingsError, StorageError


def cues(path):
    """(start, end, lines) of each cue by milliseconds, read by a parser of our own."""
    found = []
    for block in path.read_text("utf-8").strip().split("\n\n"):
        if block == "WEBVTT":
            continue
        number, times, *lines = block.split("\n")
        assert int(number) == len(found) + 1
        match = re.fullmatch(
            r"(\d+):(\d\d):(\d\d)[.,](\d{3}) --> (\d+):(\d\d):(\d\d)[.,](\d{3})", times
        )
        values = [int(group) for group in match.groups()]
        ends = [((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (values[:4], values[4:])]
        found.append((*ends, lines))
    return found


TRACKS = [
    track(1, "Ann", (0.5, 2.0), (3.0, 4.0)),
    track(2, None, (1.25, 3.5), stranger="unknown 1"),
    track(3, "Ann", (4.0, 5.0)),
    track(4, "Bob", (3601.0, 3602.0005)),
]
EXPECTED = [
    (500, 1250, ["Ann"]),
    (1250, 2000, ["Ann", "unknown 1"]),
    (2000, 3000, ["unknown 1"]),
    (3000, 3500, ["Ann", "unknown 1"]),
    (3500, 5000, ["Ann"]),
    (3_601_000, 3_602_000, ["Bob"]),
]


@pytest.mark.parametrize("ending", [".vtt", ".SRT"])
def test_a_cue_for_each_time_the_company_changes(ending, tmp_path):
    path = tmp_path / f"who{ending}"
    assert write_subtitles(path, TRACKS) == 6
    assert cues(path) == EXPECTED


def test_the_first_cue_of_each_format_to_the_letter(tmp_path):
    for name in ("a.vtt", "a.srt"):
        write_subtitles(tmp_path / name, [track(1, "Zoë", (3661.0, 3662.25))])
    vtt = "WEBVTT\n\n1\n01:01:01.000 --> 01:01:02.250\nZoë\n"
    assert (tmp_path / "a.vtt").read_text("utf-8") == vtt
    srt = "1\n01:01:01,000 --> 01:01:02,250\nZoë\n\n"
    assert (tmp_path / "a.srt").read_text("utf-8") == srt


def test_against_a_look_at_every_millisecond():
    """Random spans on whole milliseconds: who is there is asked at each of them."""
    rng = random.Random(0)
    tracks = []
    for number in range(1, 13):
        cuts = sorted(rng.sample(range(200), 4))
        spans = ((cuts[0] / 1000, cuts[1] / 1000), (cuts[2] / 1000, cuts[3] / 1000))
        tracks.append(track(number, rng.choice(["Ann", "Bob", None]), *spans))
    rows = rows_of(tracks)
    found = present(rows)
    for at in range(200):
        middle = (at + 0.5) / 1000
        there = {called(t) for t in tracks if any(a < middle < b for a, b in t.spans)}
        shown = [names for start, end, names in found if start < middle < end]
        assert [set(names) for names in shown] == ([there] if there else [])
    for before, after in zip(found, found[1:], strict=False):
        assert before[1] < after[0] or (before[1] == after[0] and before[2] != after[2])


def test_people_of_one_name_who_follow_each_other_are_one_cue(tmp_path):
    tracks = [
        track(number, "Ann", (start, start + 1.0), person_id=f"p{number}")
        for number, start in ((1, 0.0), (2, 1.0))
    ]
    assert len(rows_of(tracks)) == 2
    assert present(rows_of(tracks)) == [(0.0, 2.0, ["Ann"])]
    assert write_subtitles(tmp_path / "a.srt", tracks) == 1


HOSTILE = ["<i>Ann</i>", "a --> b", "{\\an8}up", "x\n\n2\n00:00:00.000 --> 00:00:09.000\nfake",
           "&amp;", "WEBVTT\r\n\r\nNOTE", "u\u2028v", "\u202eevil"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_no_orders(name, tmp_path):
    for ending in ("vtt", "srt"):
        path = tmp_path / f"a.{ending}"
        assert write_subtitles(path, [track(1, name), track(2, "Bob")]) == 1
        ((_, _, lines),) = cues(path)
        assert len(lines) == 2
        orders = r"[<>]|-->" if ending == "vtt" else r"[<>{}\\]|-->"
        assert not re.search(orders, lines[0])
        if ending == "vtt":
            plain = "".join(sign for sign in name if sign != "\u202e")
            assert html.unescape(lines[0]) == " ".join(plain.split())


def test_a_crowd_is_counted(tmp_path):
    write_subtitles(tmp_path / "a.srt", [track(n, f"P{n}") for n in range(1, 13)])
    ((_, _, lines),) = cues(tmp_path / "a.srt")
    assert lines == [f"P{n}" for n in range(1, 9)] + ["and 4 more"]


def test_nobody_and_moments_without_length(tmp_path):
    for ending, text in (("vtt", "WEBVTT\n"), ("srt", "")):
        path = tmp_path / f"a.{ending}"
        assert write_subtitles(path, []) == 0
        assert write_subtitles(path, [track(1, "Ann", (1.0, 1.0), (2.0, 2.0001))]) == 0
        assert path.read_text() == text


def test_tracks_are_gathered_by_who_they_are():
    same = track(5, "Ann", (0.1, 0.2))
    other = replace(same, id=6, identity=replace(same.identity, person_id="another Ann"))
    rows = rows_of([*TRACKS, same, other, track(7, None, (0.0, 9.0), stranger="unknown 1")])
    assert [(row.name, row.known, [t.id for t in row.tracks]) for row in rows] == [
        ("Ann", True, [5, 1, 3]),
        ("Ann", True, [6]),
        ("Bob", True, [4]),
        ("unknown 1", False, [7, 2]),
    ]
    assert rows[0].spans == ((0.1, 0.2), (0.5, 2.0), (3.0, 5.0))
    assert rows[0].visible_s == pytest.approx(3.6)
    nameless = replace(same, identity=replace(same.identity, person=None, person_id=None))
    assert [row.name for row in rows_of([nameless])] == ["track 5"]


def test_spans_and_clocks():
    assert merged([(3, 4), (0, 1), (1, 2), (0.5, 0.7)]) == ((0, 2), (3, 4))
    assert merged([(0, 1), (1.5, 2), (4, 5)], 0.5) == ((0, 2), (4, 5))
    assert [clock(s) for s in (0, 59.6, 3599.4, 360000)] == [
        "0:00:00",
        "0:01:00",
        "0:59:59",
        "100:00:00",
    ]
    assert clock(59.96, decimals=1) == "0:01:00.0"
    assert clock(3661.25, decimals=2) == "1:01:01.25"


def test_other_endings_and_full_disks(tmp_path):
    with pytest.raises(SettingsError, match=r"should end with \.vtt or \.srt"):
        write_subtitles(tmp_path / "a.txt", TRACKS)
    with little_disk(20), pytest.raises(StorageError, match=r"a\.vtt"):
        write_subtitles(tmp_path / "a.vtt", TRACKS)
    assert list(tmp_path.iterdir()) == []
