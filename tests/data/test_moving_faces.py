"""Clips of moving faces: the truth is beside the pixels, and the same seed is the same clip."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from facenet.data.movingfaces import KINDS, ClipSettings, MovingClip, Portrait, moving_clip
from facenet.data.movingways import plan
from facenet.errors import InputError, SettingsError
from facenet.images import load_image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = ClipSettings(width=160, height=96, rate=10, seconds=3, people=2, face=(14, 20))
SHADES = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}


def shaded(names=tuple(SHADES)):
    """People of one colour each: whose pixel it is can be seen."""
    box = np.array([20, 20, 60, 68], np.float32)
    return [
        Portrait(name, np.full((90, 80, 3), SHADES[name], np.uint8), box.copy()) for name in names
    ]


@cache
def clip(kind, seed=0, people=2) -> MovingClip:
    grey = np.full((10, 10, 3), 120, np.uint8)
    settings = ClipSettings(
        width=160, height=96, rate=10, seconds=6, people=people, face=(14, 20), speed=(1, 4)
    )
    return moving_clip(shaded(), kind, settings=settings, seed=seed, background=grey)


@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_is_what_the_pixels_show(kind):
    """Count the pixels of a person's colour in the ellipse of the face, in loops."""
    looked = 0
    for frame in list(clip(kind))[::7]:
        for box, person, shown in zip(frame.boxes, frame.people, frame.shown, strict=True):
            x1, y1, x2, y2 = box
            inside = mine = 0
            for y in range(int(np.floor(y1)), int(np.ceil(y2))):
                for x in range(int(np.floor(x1)), int(np.ceil(x2))):
                    across = (x + 0.5 - (x1 + x2) / 2) / ((x2 - x1) / 2)
                    down = (y + 0.5 - (y1 + y2) / 2) / ((y2 - y1) / 2)
                    if across**2 + down**2 > 1:
                        continue
                    inside += 1
                    if 0 <= x < 160 and 0 <= y < 96:
                        wanted = np.array(SHADES[clip(kind).names[person]], int)
                        mine += np.abs(frame.image[y, x].astype(int) - wanted).max() < 95
            assert shown == pytest.approx(mine / inside, abs=0.04)
            looked += 1
    assert looked > 5


def test_the_same_seed_makes_the_same_clip():
    first, again, other = (
        list(moving_clip(shaded(), "cross", settings=SMALL, seed=s)) for s in (3, 3, 4)
    )
    assert len(first) == SMALL.frames == 30
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.boxes, b.boxes)
    assert any(not np.array_equal(a.image, b.image) for a, b in zip(first, other, strict=True))


def test_visits_are_when_the_middle_of_a_face_is_in_the_picture():
    """From the boxes of every frame, in loops."""
    for kind in ("return", "walk"):
        whole, seen = clip(kind), {}
        for frame in whole:
            for box, person in zip(frame.boxes, frame.people.tolist(), strict=True):
                x, y = (box[:2] + box[2:]) / 2
                if 0 <= x < 160 and 0 <= y < 96:
                    seen.setdefault(person, []).append(frame.number)
        wanted = []
        for person, numbers in seen.items():
            breaks = [k for k, (a, b) in enumerate(pairwise(numbers), 1) if b - a > 1]
            for part in np.split(np.array(numbers), breaks):
                wanted.append((part[0] / 10, person, part[-1] / 10))
        assert [(v.from_s, v.person, v.to_s) for v in whole.visits] == sorted(wanted)
        if kind == "return":
            assert len(whole.visits) > len(seen)


def ways(kind, people=6, seed=1):
    settings = ClipSettings(people=people, speed=(1, 9), seconds=8)
    return settings, plan(kind, settings, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_faster_than_asked(kind):
    settings, found = ways(kind)
    for way in found:
        steps = np.diff(way.places, axis=0) / np.diff(way.times)[:, None]
        speeds = np.abs(steps[:, 0]) / way.places[:-1, 2]
        if kind != "nearer":
            assert speeds.max() <= settings.speed[1] / 0.8 + 1e-9
        assert (way.places[:, 2] >= 8).all()
    assert sorted(way.near for way in found) == [way.near for way in found]


def test_each_kind_is_what_it_says():
    def places(kind):
        settings, found = ways(kind)
        return settings, {w.person: w for w in found}, found

    _, by, _ = places("cross")
    for one, two in ((0, 1), (2, 3), (4, 5)):
        ways_x = [by[p].at(by[one].times.mean())[0] for p in (one, two)]
        assert abs(ways_x[0] - ways_x[1]) < 1
        ends = [np.sign(by[p].places[-1, 0] - by[p].places[0, 0]) for p in (one, two)]
        assert ends[0] == -ends[1]
    _, by, _ = places("meet")
    assert all(w.places[0, 0] == pytest.approx(w.places[-1, 0]) for w in by.values())
    _, by, _ = places("stop")
    assert all((by[p].places[1] == by[p].places[2]).all() for p in (0, 2, 4))
    settings, by, _ = places("nearer")
    sizes = [max(w.places[:, 2]) / min(w.places[:, 2]) for w in by.values()]
    assert sizes == pytest.approx([3.0] * 6)
    _, _, found = places("return")
    for person in range(6):
        out, back = sorted((w for w in found if w.person == person), key=lambda w: w.times[0])
        away = back.times[0] - out.times[-1]
        assert (2.5 <= away <= 4) if person % 2 else (0.3 <= away <= 1)
        assert not 0 <= out.places[-1, 0] < settings.width


def test_each_visit_takes_another_portrait():
    two = [*shaded(("red",)), Portrait("red", shaded(("green",))[0].image, shaded()[0].box)]
    whole = moving_clip([*two, *shaded(("blue",))], "return", settings=SMALL, seed=1)
    mine = [
        h for w, h in zip(whole.ways, whole.heads, strict=True) if whole.names[w.person] == "red"
    ]
    assert len(mine) == 2 and not np.array_equal(mine[0]._layers, mine[1]._layers)


def test_noise_and_blur_are_those_of_the_camera():
    plain = ClipSettings(width=160, height=96, rate=10, seconds=0.5, people=2)
    noisy = ClipSettings(width=160, height=96, rate=10, seconds=0.5, people=2, noise=9)
    soft = ClipSettings(width=160, height=96, rate=10, seconds=0.5, people=2, blur=3)
    first, loud, dim = (
        next(iter(moving_clip(shaded(), "walk", settings=s, seed=2))) for s in (plain, noisy, soft)
    )
    off = loud.image.astype(float) - first.image
    assert off.std() == pytest.approx(9, rel=0.1) and abs(off.mean()) < 1
    assert (
        np.abs(np.diff(dim.image.astype(float), axis=1)).mean()
        < 0.7 * np.abs(np.diff(first.image.astype(float), axis=1)).mean()
    )
    np.testing.assert_array_equal(loud.boxes, first.boxes)


def test_a_face_of_a_photo_is_where_the_truth_says():
    """The middle of the face, cut out of a photo and drawn, looks like that of the photo."""
    import cv2

    image = load_image(EXAMPLES / "known" / "Grace Hopper.jpg")
    box = np.array([174, 120, 356, 340], np.float32)
    people = [Portrait("Grace Hopper", image, box), *shaded(("blue",))]
    settings = ClipSettings(width=320, height=200, rate=5, seconds=4, people=2, face=(60, 60))
    whole = moving_clip(people, "walk", settings=settings, seed=5)
    hopper = whole.names.index("Grace Hopper")
    face = cv2.resize(image[120:340, 174:356], (40, 48), interpolation=cv2.INTER_AREA)
    likeness = []
    for frame in whole:
        for there, person, shown in zip(frame.boxes, frame.people, frame.shown, strict=True):
            x1, y1, x2, y2 = (round(float(value)) for value in there)
            if person == hopper and shown > 0.97 and min(x1, y1) >= 0:
                cut = cv2.resize(frame.image[y1:y2, x1:x2], (40, 48), interpolation=cv2.INTER_AREA)
                likeness.append(np.corrcoef(cut.ravel(), face.ravel())[0, 1])
    assert len(likeness) > 3 and min(likeness) > 0.9


def test_what_cannot_be_filmed_is_refused():
    with pytest.raises(SettingsError, match="kind should be one of walk, cross"):
        moving_clip(shaded(), "dance")
    with pytest.raises(InputError, match="needs portraits of as many; got 3"):
        moving_clip(shaded(), "walk", settings=ClipSettings(people=4))
    with pytest.raises(SettingsError, match="people should be 200 or fewer"):
        moving_clip(shaded(), "walk", settings=ClipSettings(people=500))
    with pytest.raises(InputError, match="box of a face, 4 pixels or more"):
        Portrait("x", np.zeros((9, 9, 3), np.uint8), np.array([1, 1, 3, 3], np.float32))
    with pytest.raises(InputError, match="box of a face"):
        Portrait("x", np.zeros((9, 9), np.uint8), np.full(4, np.nan, np.float32))
    with pytest.raises(InputError, match="background should be uint8"):
        moving_clip(shaded(), "walk", settings=SMALL, background=np.zeros((4, 4), np.uint8))
    with pytest.raises(SettingsError, match="speed should be the least and the most"):
        ClipSettings(speed=(5, 1))
    with pytest.raises(SettingsError, match="seconds should be 0.1 or more"):
        ClipSettings(seconds=0)
