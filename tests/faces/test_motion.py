"""The Kalman filter of boxes, beside one of full matrices that follows the textbook."""

from __future__ import annotations

import numpy as np
import pytest

from facenet.faces import motion
from facenet.faces.motion import FARTHEST, Motion


def boxes(*rows):
    return np.array(rows, np.float32)


def walk(seed=0, count=3, steps=6):
    """Times and boxes of faces that wander and change their size."""
    random = np.random.default_rng(seed)
    times = np.cumsum(random.uniform(0.02, 0.4, steps))
    middle, size = random.uniform(50, 500, (count, 2)), random.uniform(20, 90, (count, 2))
    for time in times:
        middle = middle + random.normal(0, 12, middle.shape)
        size = size * random.uniform(0.9, 1.1, size.shape)
        yield time, np.concatenate([middle - size / 2, middle + size / 2], 1).astype(np.float32)


class Textbook:
    """x = F x, P = F P F' + Q, K = P H' / S for one face, eight numbers, full matrices."""

    def __init__(self, box):
        self.x = np.concatenate([self.measured(box), np.zeros(4)])
        place = self.scaled(motion.PLACE, motion.SIZE)
        self.p = np.diag(np.concatenate([place, self.scaled(motion.SPEED, motion.GROWTH)]))
        self.h = np.eye(4, 8)

    @staticmethod
    def measured(box):
        x1, y1, x2, y2 = (float(value) for value in box)
        return np.array([(x1 + x2) / 2, (y1 + y2) / 2, np.log(x2 - x1), np.log(y2 - y1)])

    def scaled(self, across, growth):
        size = np.exp((self.x[2] + self.x[3]) / 2)
        return np.array([across * size, across * size, growth, growth]) ** 2

    def move(self, t):
        q = np.diag(self.scaled(motion.SWERVE, motion.SWELL))
        f = np.block([[np.eye(4), t * np.eye(4)], [np.zeros((4, 4)), np.eye(4)]])
        noise = np.block([[q * t**3 / 3, q * t**2 / 2], [q * t**2 / 2, q * t]])
        self.x, self.p = f @ self.x, f @ self.p @ f.T + noise

    def spread(self):
        return self.h @ self.p @ self.h.T + np.diag(self.scaled(motion.PLACE, motion.SIZE))

    def correct(self, box):
        gain = self.p @ self.h.T @ np.linalg.inv(self.spread())
        self.x = self.x + gain @ (self.measured(box) - self.h @ self.x)
        self.p = (np.eye(8) - gain @ self.h) @ self.p

    def fits(self, box):
        """The density of a box, its centre in face sizes."""
        off, spread = self.measured(box) - self.h @ self.x, self.spread()
        size = np.exp((self.x[2] + self.x[3]) / 2)
        known = -0.5 * (off @ np.linalg.inv(spread) @ off + np.log(np.linalg.det(spread)))
        return known - 2 * np.log(2 * np.pi) + 2 * np.log(size)


def test_it_is_the_filter_of_the_textbook():
    (before, first), *rest = walk()
    moving, slow = Motion.begin(first), [Textbook(box) for box in first]
    for time, seen in rest:
        moving = moving.moved(time - before)
        for one in slow:
            one.move(time - before)
        wanted = [[one.fits(box) for box in seen] for one in slow]
        np.testing.assert_allclose(moving.likelihood(seen), wanted, rtol=1e-9)
        moving = moving.corrected(seen)
        for one, box in zip(slow, seen, strict=True):
            one.correct(box)
        before = time
    np.testing.assert_allclose(moving.mean, [one.x[:4] for one in slow], rtol=1e-9)
    np.testing.assert_allclose(moving.speed, [one.x[4:] for one in slow], rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(moving.place, [np.diag(one.p)[:4] for one in slow], rtol=1e-8)
    np.testing.assert_allclose(moving.change, [np.diag(one.p)[4:] for one in slow], rtol=1e-8)
    np.testing.assert_allclose(
        moving.both, [np.diag(one.p[:4, 4:]) for one in slow], rtol=1e-8, atol=1e-12
    )


def test_a_steady_face_is_where_it_should_be():
    """A face of 50 pixels goes 200 pixels a second; frames come at odd times."""
    times = np.cumsum([0.0, 0.04, 0.04, 0.3, 0.01, 0.2, 0.16, 0.04])
    moving, before = None, 0.0
    for time in times:
        seen = boxes((200 * time, 10, 200 * time + 50, 70))
        moving = Motion.begin(seen) if moving is None else moving.moved(time - before)
        moving, before = moving.corrected(seen), time
    later = moving.moved(0.25).boxes()[0]
    assert later == pytest.approx(
        [200 * (before + 0.25), 10, 200 * (before + 0.25) + 50, 70], abs=3
    )
    assert moving.speed[0, 0] == pytest.approx(200, abs=8)


def test_a_video_of_twice_the_size_is_followed_alike():
    small = large = None
    before = 0.0
    for time, seen in walk(4):
        other = seen * np.float32(2)
        if small is None:
            small, large = Motion.begin(seen), Motion.begin(other)
        small, large = small.moved(time - before), large.moved(time - before)
        np.testing.assert_allclose(small.likelihood(seen), large.likelihood(other), rtol=1e-6)
        small, large, before = small.corrected(seen), large.corrected(other), time
    np.testing.assert_allclose(small.boxes() * 2, large.boxes(), rtol=1e-5)


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 3600.0, 1e9])
def test_any_step_leaves_numbers(seconds):
    rows = boxes((0, 0, 1e-3, 1e-3), (-9e6, -9e6, 9e6, 9e6), (5, 5, 50, 60))
    moving = Motion.begin(rows).moved(0.04).corrected(rows + np.float32(1)).moved(seconds)
    for values in (moving.mean, moving.speed, moving.place, moving.both, moving.change):
        assert np.isfinite(values).all()
    assert np.isfinite(moving.boxes()).all() and np.isfinite(moving.likelihood(rows)).all()
    assert np.abs(moving.mean[:, :2]).max() <= FARTHEST
    sides = moving.boxes()[:, 2:] - moving.boxes()[:, :2]
    assert (sides >= 0).all()


def test_rows_are_taken_and_joined():
    rows = np.concatenate([seen for _, seen in walk(2, steps=1)])
    whole, parts = Motion.begin(rows), [Motion.begin(rows[:1]), Motion.begin(rows[1:])]
    joined = parts[0].joined(parts[1])
    assert len(joined) == len(whole) == 3
    np.testing.assert_array_equal(joined[np.array([2, 0])].mean, whole.mean[[2, 0]])
    none = Motion.begin(np.zeros((0, 4), np.float32)).moved(1.0)
    assert none.boxes().shape == (0, 4) and none.likelihood(rows).shape == (0, 3)
