"""CLEAR MOT and the identity measures: beside py-motmetrics, by hand, and by brute force."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from facenet.errors import InputError, SettingsError
from facenet.evaluate.tracking import Labelled, TrackScore, box_overlap, score_tracks, sum_scores

PEOPLE, FRAMES = 6, 40

GOLDEN = {
    0: (207, 209, 48, 50, 9, 38, 131, 0.48309178743961356, 0.3483024091296676, 0.6298076923076923),
    1: (202, 199, 55, 52, 12, 40, 78, 0.4108910891089109, 0.3639600379125552, 0.38902743142144636),
    2: (
        201,
        206,
        48,
        53,
        21,
        32,
        76,
        0.39303482587064675,
        0.34817799301698316,
        0.37346437346437344,
    ),
    4: (
        199,
        204,
        58,
        63,
        11,
        38,
        100,
        0.33668341708542715,
        0.3424570550450332,
        0.49627791563275436,
    ),
    7: (203, 208, 51, 56, 19, 37, 76, 0.3793103448275862, 0.34947051493022796, 0.36982968369829683),
}
"""What py-motmetrics 1.4.0 (`iou_matrix`, max_iou=0.5) says of `walk(seed)`: num_objects,
num_predictions, num_misses, num_false_positives, num_switches, num_fragmentations, idtp, mota,
motp (1 - overlap) and idf1."""


def walk(seed):
    """Random walks; the tracker loses, shifts, swaps and invents boxes."""
    r = np.random.default_rng(seed)
    place, name = r.integers(0, 160, (PEOPLE, 2)), list(range(1, PEOPLE + 1))
    truth, found = [], []
    for frame in range(FRAMES):
        place = np.clip(place + r.integers(-12, 13, (PEOPLE, 2)), 0, 180)
        here = r.random(PEOPLE) < 0.85
        boxes = np.concatenate([place, place + 40], 1)
        truth.append(Labelled(boxes[here], np.arange(PEOPLE)[here]))
        if r.random() < 0.15:
            a, b = r.choice(PEOPLE, 2, replace=False)
            name[a], name[b] = name[b], name[a]
        if r.random() < 0.1:
            name[r.integers(PEOPLE)] = 100 + frame
        seen = r.random(PEOPLE) < 0.8
        moved = boxes + r.integers(-9, 10, (PEOPLE, 4))
        rows = [(moved[p], name[p]) for p in range(PEOPLE) if seen[p]]
        if r.random() < 0.4:
            x = r.integers(0, 180, 2)
            rows.append((np.r_[x, x + 40], 500 + int(r.integers(5))))
        boxes = np.array([box for box, _ in rows]).reshape(-1, 4)
        found.append(Labelled(boxes, np.array([number for _, number in rows], int)))
    return truth, found


@pytest.mark.parametrize("seed", GOLDEN)
def test_the_measures_are_those_of_motmetrics(seed):
    score = score_tracks(*walk(seed))
    mine = (score.faces, score.boxes, score.misses, score.false_positives, score.switches)
    mine += (score.fragmentations, score.id_matches, score.mota, 1 - score.overlap, score.idf1)
    assert mine == pytest.approx(GOLDEN[seed], abs=1e-12)
    assert score.idp == pytest.approx(score.id_matches / score.boxes)
    assert score.idr == pytest.approx(score.id_matches / score.faces)
    assert (score.frames, score.people) == (FRAMES, PEOPLE)


def test_identities_are_assigned_as_well_as_can_be():
    truth, found = walk(3)
    names = sorted({i for frame in found for i in frame.ids.tolist()})
    together = np.zeros((PEOPLE, len(names)), int)
    for there, given in zip(truth, found, strict=True):
        for i, j in product(range(len(there.ids)), range(len(given.ids))):
            if box_overlap(there.boxes[i : i + 1], given.boxes[j : j + 1])[0, 0] >= 0.5:
                together[there.ids[i], names.index(given.ids[j])] += 1
    busy = np.argsort(-together.sum(axis=0))[:9]
    best = max(
        sum(together[p, busy[c]] for p, c in enumerate(choice))
        for choice in permutations(range(len(busy)), PEOPLE)
    )
    assert score_tracks(truth, found).id_matches >= best > 0


def one(*rows, counted=None):
    """A frame of (id, left) with boxes of 10 x 10."""
    boxes = np.array([(left, 0, left + 10, 10) for _, left in rows], float).reshape(-1, 4)
    return Labelled(boxes, np.array([number for number, _ in rows], int), counted)


def test_a_swap_is_two_switches_and_half_the_identity():
    truth = [one((0, 0), (1, 100))] * 4
    found = [one((7, 0), (8, 100))] * 2 + [one((8, 0), (7, 100))] * 2
    score = score_tracks(truth, found)
    assert (score.switches, score.misses, score.false_positives) == (2, 0, 0)
    assert score.mota == pytest.approx(1 - 2 / 8) and score.idf1 == pytest.approx(0.5)


def test_a_gap_is_a_fragment_only_when_the_face_is_found_again():
    truth = [one((0, 0))] * 5
    found = [one((4, 0)), one(), one((4, 0)), one(), one()]
    score = score_tracks(truth, found)
    assert (score.fragmentations, score.misses, score.switches) == (1, 3, 0)
    late = score_tracks(truth, [one(), one(), *[one((4, 0))] * 3])
    assert late.fragmentations == 0


def test_the_last_match_is_kept_although_another_box_fits_better():
    truth = [one((0, 0)), one((0, 0))]
    found = [one((4, 1)), one((5, 0), (4, 3))]
    score = score_tracks(truth, found)
    assert (score.switches, score.false_positives) == (0, 1)


def test_hidden_faces_may_be_found_or_not():
    hidden = one((0, 0), (1, 50), counted=np.array([True, False]))
    for given in (one((4, 0)), one((4, 0), (5, 50))):
        score = score_tracks([hidden], [given])
        assert (score.faces, score.boxes, score.mota, score.idf1) == (1, 1, 1.0, 1.0)
    assert score_tracks([hidden], [one((4, 0), (5, 90))]).false_positives == 1


def test_nothing_is_never_nan():
    empty = score_tracks([one()], [one()])
    assert (empty.mota, empty.idf1, empty.idp, empty.idr, empty.overlap) == (1, 1, 1, 1, 1)
    wrong = score_tracks([one()], [one((1, 0))])
    assert (wrong.mota, wrong.idf1, wrong.idp) == (0.0, 0.0, 0.0)
    assert score_tracks([], []) == TrackScore() == sum_scores([])


def test_clips_add_up():
    parts = [score_tracks(*walk(seed)) for seed in (0, 1)]
    whole = sum_scores(parts)
    assert whole.faces == 207 + 202 and whole.switches == 9 + 12
    assert whole.mota == pytest.approx(1 - (48 + 50 + 9 + 55 + 52 + 12) / (207 + 202))


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(InputError, match="as many frames found as of the truth; got 1 and 2"):
        score_tracks([one(), one()], [one()])
    with pytest.raises(SettingsError, match="above 0 and at most 1; got 0"):
        score_tracks([one()], [one()], overlap=0)
    with pytest.raises(InputError, match="Each id should be once in a frame"):
        one((3, 0), (3, 50))
    with pytest.raises(InputError, match="one finite box, one id and one flag per face"):
        Labelled(np.full((1, 4), np.nan), np.array([1]))
    with pytest.raises(InputError, match="1 boxes, 2 ids and 2 flags"):
        Labelled(np.zeros((1, 4)), np.array([1, 2]))
