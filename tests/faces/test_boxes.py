"""Box arithmetic against plain loops over single boxes."""

from functools import partial

import numpy as np
import pytest

from facenet.faces.boxes import (
    non_maximum_suppression,
    overlap,
    regressed,
    squared,
    suppression_by_group,
)
from facenet.faces.compiled import Compiled


def random_boxes(count, *, seed, side=100, whole=False, dtype=np.float32):
    generator = np.random.RandomState(seed)
    corner = generator.uniform(0, side, (count, 2))
    size = generator.uniform(5, side / 2, (count, 2))
    boxes = np.concatenate([corner, corner + size], axis=1)
    return (np.round(boxes) if whole else boxes).astype(dtype)


def naive_overlap(a, b, *, pixel=0.0, smaller=False):
    """Intersection over union, or over the smaller area, of two boxes; in the type of the boxes."""
    zero = a.dtype.type(0)
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + a.dtype.type(pixel), zero)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + a.dtype.type(pixel), zero)
    area_a = (a[2] - a[0] + a.dtype.type(pixel)) * (a[3] - a[1] + a.dtype.type(pixel))
    area_b = (b[2] - b[0] + b.dtype.type(pixel)) * (b[3] - b[1] + b.dtype.type(pixel))
    shared = width * height
    return shared / (min(area_a, area_b) if smaller else area_a + area_b - shared)


def naive_suppression(boxes, scores, threshold, *, pixel, smaller, ties_last):
    """O(n^2): a row stays when no better row that stays overlaps it too much."""

    def better(i, j):
        if scores[i] != scores[j]:
            return scores[i] > scores[j]
        return i > j if ties_last else i < j

    rank = [sum(better(j, i) for j in range(len(boxes))) for i in range(len(boxes))]
    kept = []
    for i in sorted(range(len(boxes)), key=lambda row: rank[row]):
        shares = [naive_overlap(boxes[k], boxes[i], pixel=pixel, smaller=smaller) for k in kept]
        if not any(share > boxes.dtype.type(threshold) for share in shares):
            kept.append(i)
    return kept


@pytest.fixture(params=["compiled", "numpy"])
def suppression(request, kernels):
    """Suppression by the compiled function and by NumPy."""
    here = Compiled(kernels if request.param == "compiled" else None)
    return partial(non_maximum_suppression, find=lambda: here)


@pytest.mark.parametrize("ties_last", [False, True])
@pytest.mark.parametrize("smaller", [False, True])
@pytest.mark.parametrize("pixel", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_suppression_is_the_greedy_rule(suppression, pixel, smaller, ties_last, dtype):
    for seed in range(12):
        boxes = random_boxes(40, seed=seed, whole=seed % 2 == 0, dtype=dtype)
        # Eight different scores for forty boxes: most are tied.
        scores = np.random.RandomState(seed).randint(0, 8, 40).astype(np.float32) / 8
        options = {"pixel": pixel, "smaller": smaller, "ties_last": ties_last}
        for threshold in (0.1, 0.5, 0.7):
            got = suppression(boxes, scores, threshold, **options)
            assert got.tolist() == naive_suppression(boxes, scores, threshold, **options)


def test_groups_do_not_suppress_one_another():
    options = {"pixel": 1.0, "smaller": True, "ties_last": True}
    boxes, scores = random_boxes(60, seed=1), np.random.RandomState(1).rand(60)
    groups = np.repeat([2, 3, 7], [1, 20, 39])
    expected = [
        row + start
        for start, end in ((0, 1), (1, 21), (21, 60))
        for row in naive_suppression(boxes[start:end], scores[start:end], 0.5, **options)
    ]
    assert suppression_by_group(boxes, scores, groups, 0.5, **options).tolist() == expected
    none = suppression_by_group(boxes[:0], scores[:0], groups[:0], 0.5)
    assert none.shape == (0,) and none.dtype == np.intp


def test_suppression_of_nothing_is_nothing(suppression):
    got = suppression(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.5)
    assert got.tolist() == []


def test_the_winner_of_a_tie(suppression):
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]], np.float32)
    scores = np.array([0.5, 0.5, 0.5], np.float32)
    assert suppression(boxes, scores, 0.5).tolist() == [0, 2]
    assert suppression(boxes, scores, 0.5, ties_last=True).tolist() == [2, 1]


def test_an_overlap_equal_to_the_threshold_stays(suppression):
    # 7 of 10 pixels are shared: exactly 0.7 in either precision.
    for dtype in (np.float32, np.float64):
        boxes = np.array([[0, 0, 10, 1], [0, 0, 7, 1]], dtype)
        assert suppression(boxes, np.array([2, 1], dtype), 0.7).tolist() == [0, 1]
        assert suppression(boxes, np.array([2, 1], dtype), 0.69).tolist() == [0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("smaller", [False, True])
def test_many_boxes_are_compared_alike_by_either(kernels, dtype, smaller):
    """More boxes than are compared at a time, some of them without any area."""
    boxes = random_boxes(700, seed=1, side=300, dtype=dtype)
    boxes[::50, 2] = boxes[::50, 0]
    boxes[1::50] = boxes[1]
    scores = np.random.RandomState(2).uniform(0, 1, 700).astype(np.float32)
    for threshold in (0.0, 0.3, 0.7):
        ours, plain = (
            non_maximum_suppression(boxes, scores, threshold, smaller=smaller, find=find)
            for find in (lambda: Compiled(kernels), Compiled)
        )
        assert 0 < len(plain) < 700 and np.array_equal(ours, plain)


def test_one_pixel_more_decides():
    # Side by side without it; with it the inclusive pixel column 10 is shared: 11 of 231.
    boxes = np.array([[0, 0, 10, 10], [10, 0, 20, 10]], np.float32)
    scores = np.array([2, 1], np.float32)
    assert non_maximum_suppression(boxes, scores, 0.04).tolist() == [0, 1]
    assert non_maximum_suppression(boxes, scores, 0.04, pixel=1.0).tolist() == [0]
    assert non_maximum_suppression(boxes, scores, 0.05, pixel=1.0).tolist() == [0, 1]


def test_a_box_inside_another_is_whole_for_the_smaller_area():
    boxes = np.array([[0, 0, 100, 100], [40, 40, 60, 60]], np.float32)
    scores = np.array([2, 1], np.float32)
    assert non_maximum_suppression(boxes, scores, 0.9).tolist() == [0, 1]
    assert non_maximum_suppression(boxes, scores, 0.9, smaller=True).tolist() == [0]


def test_boxes_without_area_stay_and_do_not_warn():
    boxes = np.array([[5, 5, 5, 5], [5, 5, 5, 5]], np.float32)
    assert non_maximum_suppression(boxes, np.ones(2, np.float32), 0.5).tolist() == [0, 1]


def test_overlap_of_every_pair():
    a, b = random_boxes(15, seed=1), random_boxes(9, seed=2)
    got = overlap(a, b)
    assert got.shape == (15, 9)
    for i in range(15):
        for j in range(9):
            assert got[i, j] == pytest.approx(naive_overlap(a[i], b[j]), abs=1e-6)
    assert np.allclose(np.diag(overlap(a, a)), 1, atol=1e-6)
    assert np.array_equal(overlap(a, b), overlap(b, a).T)


def test_overlap_of_points_is_zero():
    point = np.array([[3, 3, 3, 3]], np.float32)
    assert overlap(point, point).tolist() == [[0.0]]


def test_squared_keeps_the_centre_and_the_longer_side():
    boxes = random_boxes(50, seed=3)
    got = squared(boxes)
    assert got.dtype == np.float32
    for before, after in zip(boxes.astype(float), got.astype(float), strict=True):
        side = max(before[2] - before[0], before[3] - before[1])
        assert after[2] - after[0] == pytest.approx(side, abs=1e-4)
        assert after[3] - after[1] == pytest.approx(side, abs=1e-4)
        assert after[0] + after[2] == pytest.approx(before[0] + before[2], abs=1e-4)
        assert after[1] + after[3] == pytest.approx(before[1] + before[3], abs=1e-4)


@pytest.mark.parametrize("pixel", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_regressed_moves_each_edge_by_its_share_of_the_size(pixel, dtype):
    boxes = random_boxes(30, seed=4, dtype=dtype)
    offsets = np.random.RandomState(5).uniform(-0.3, 0.3, (30, 4)).astype(np.float32)
    got = regressed(boxes, offsets, pixel=pixel)
    assert got.dtype == dtype
    for (x1, y1, x2, y2), move, after in zip(boxes, offsets, got, strict=True):
        wide, high = x2 - x1 + pixel, y2 - y1 + pixel
        expected = [x1 + move[0] * wide, y1 + move[1] * high]
        expected += [x2 + move[2] * wide, y2 + move[3] * high]
        assert after.tolist() == pytest.approx(expected, abs=1e-4)
