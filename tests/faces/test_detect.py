"""Choosing faces: each rule against a loop, and against facenet-pytorch's frozen choices."""

from pathlib import Path

import numpy as np
import pytest

from facenet.errors import SettingsError
from facenet.faces.detect import RULES, largest_first, select_faces
from facenet.types import Faces

GOLDEN = Path(__file__).resolve().parents[1] / "golden/facenet_pytorch_crops.npz"


def some_faces(count, *, seed, size=(320, 240)):
    generator = np.random.RandomState(seed)
    corner = generator.uniform(0, 1, (count, 2)) * (np.array(size) - 60)
    boxes = np.concatenate([corner, corner + generator.uniform(10, 60, (count, 2))], axis=1)
    landmarks = generator.uniform(0, 200, (count, 5, 2))
    return Faces(boxes, landmarks, generator.uniform(0.6, 1, count))


def value(face, rule, size):
    """What a rule thinks of one face, in Python's own arithmetic."""
    x1, y1, x2, y2 = (float(v) for v in face.box)
    area = (x2 - x1) * (y2 - y1)
    if rule == "probability":
        return face.detection_score
    if rule == "largest":
        return area
    if rule == "largest_over_threshold":
        return area if face.detection_score > 0.9 else None
    dx, dy = (x1 + x2) / 2 - size[0] / 2, (y1 + y2) / 2 - size[1] / 2
    return area - 2.0 * (dx * dx + dy * dy)


@pytest.mark.parametrize("rule", RULES)
def test_the_face_of_the_highest_value_is_chosen(rule):
    chosen = set()
    for seed in range(40):
        faces = some_faces(1 + seed % 7, seed=seed)
        values = [value(face, rule, (320, 240)) for face in faces]
        sure = [i for i, v in enumerate(values) if v is not None]
        expected = [max(sure, key=lambda i: values[i])] if sure else []
        got = select_faces(faces, rule, (320, 240))
        assert got == faces[expected]
        chosen.update(expected)
    assert len(chosen) > 3


@pytest.mark.parametrize("rule", RULES)
def test_rules_choose_as_facenet_pytorch_does(rule):
    golden = np.load(GOLDEN)
    height, width = golden["picture"].shape[:2]
    for case in range(3):
        columns = (golden[f"select_{name}"][case] for name in ("boxes", "landmarks", "scores"))
        got = select_faces(Faces(*columns), rule, (width, height))
        box = golden[f"{rule}_box"][case]
        if np.isnan(box).any():
            assert len(got) == 0
            continue
        assert got.boxes.tolist() == [box.tolist()]
        # For largest_over_threshold the peer hands back another face's score and landmarks.
        if rule != "largest_over_threshold":
            assert got.detection_score[0] == np.float32(golden[f"{rule}_score"][case])
            assert np.array_equal(got.landmarks[0], golden[f"{rule}_landmarks"][case])


def test_a_chosen_face_keeps_its_own_row():
    faces = Faces([[0, 0, 10, 10], [0, 0, 30, 30]], np.arange(20).reshape(2, 5, 2), [0.99, 0.95])
    got = select_faces(faces, "largest_over_threshold", (100, 100))
    assert got.detection_score.tolist() == [np.float32(0.95)]
    assert got.landmarks[0].tolist() == np.arange(10, 20).reshape(5, 2).tolist()


@pytest.mark.parametrize("rule", RULES)
def test_the_first_of_equal_faces_is_chosen(rule):
    faces = Faces([[10, 10, 30, 30]] * 3, [[[i, i]] * 5 for i in range(3)], [0.95] * 3)
    got = select_faces(faces, rule, (40, 40))
    assert got.landmarks[0, 0].tolist() == [0.0, 0.0]


def test_0_9_itself_is_not_sure():
    faces = Faces([[0, 0, 10, 10]], None, [np.float32(0.9)])
    assert faces.detection_score[0] == np.float32(0.9)
    assert len(select_faces(faces, "largest_over_threshold", (20, 20))) == 0


@pytest.mark.parametrize("rule", ["all", *RULES])
def test_of_no_faces_none_is_chosen(rule):
    assert select_faces(Faces.empty(), rule, (10, 10)) == Faces.empty()


def test_all_is_all():
    faces = some_faces(4, seed=9)
    assert select_faces(faces, "all", (320, 240)) == faces


def test_an_unknown_rule_is_refused_even_without_faces():
    with pytest.raises(SettingsError, match="center_weighted_size; got 'smallest'"):
        select_faces(Faces.empty(), "smallest", (10, 10))


def test_largest_first_sorts_by_area_and_keeps_ties_in_order():
    faces = Faces(
        [[0, 0, 10, 10], [0, 0, 30, 10], [5, 5, 15, 15], [0, 0, 10, 30]], None, [0.1, 0.2, 0.3, 0.4]
    )
    assert (
        largest_first(faces).detection_score.tolist()
        == faces.detection_score[[1, 3, 0, 2]].tolist()
    )
    assert len(largest_first(Faces.empty())) == 0
