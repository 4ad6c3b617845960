"""`Faces`: what may be in it, how it is cut and compared, and its way to JSON and back."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from facenet.errors import ContractError, FacenetError, InputError
from facenet.types import LANDMARK_NAMES, Face, Faces

COLUMNS = ("boxes", "landmarks", "detection_score", "embedding", "quality", "track_id")


def some(count: int = 3, *, full: bool = True) -> Faces:
    rng = np.random.default_rng(count)
    corner = rng.uniform(0, 100, (count, 2))
    boxes = np.hstack([corner, corner + rng.uniform(1, 50, (count, 2))])
    plain = Faces(boxes, rng.uniform(0, 100, (count, 5, 2)), rng.uniform(0, 1, count))
    if not full:
        return plain
    return plain.with_(
        embedding=rng.normal(size=(count, 4)),
        quality=rng.uniform(0, 1, count),
        track_id=np.arange(count) * 10,
        contract="model/1",
    )


@st.composite
def records(draw: st.DrawFn) -> Faces:
    """Any valid record: 0 to 5 faces, with or without each optional column."""
    count = draw(st.integers(0, 5))
    pixels = st.floats(-2000, 2000, width=32)
    part = st.floats(0, 1, width=32)

    def column(shape: tuple[int, ...], numbers: st.SearchStrategy[float]) -> np.ndarray:
        return draw(arrays.arrays(np.float32, (count, *shape), elements=numbers))

    embedding = column((draw(st.integers(1, 8)),), st.floats(-1, 1, width=32))
    with_embedding = draw(st.booleans())
    tracks = st.integers(-(2**62), 2**62)
    return Faces(
        column((4,), pixels),
        column((5, 2), pixels) if draw(st.booleans()) else None,
        column((), part),
        embedding=embedding if with_embedding else None,
        quality=column((), part) if draw(st.booleans()) else None,
        track_id=draw(arrays.arrays(np.int64, count, elements=tracks))
        if draw(st.booleans())
        else None,
        contract="m/1" if with_embedding or draw(st.booleans()) else None,
    )


# ---- what may be in it


def test_columns_get_their_types_and_are_copies():
    boxes = [[1, 2, 3, 4], [5, 6, 7, 8]]
    points = np.arange(20, dtype=np.float64).reshape(2, 5, 2)
    faces = Faces(boxes, points, (1, 0), quality=[0, 1], track_id=[3.0, 4.0])
    types = {name: getattr(faces, name).dtype for name in COLUMNS if name != "embedding"}
    assert types.pop("track_id") == np.int64
    assert set(types.values()) == {np.dtype(np.float32)}
    points[:] = -1
    assert faces.landmarks.ravel().tolist() == list(range(20))
    assert faces.track_id.tolist() == [3, 4]


def test_every_array_is_read_only_also_of_a_face_and_of_a_part():
    for faces in (some(), some()[1:], some()[[0]], pickle.loads(pickle.dumps(some()))):
        for record in (faces, faces[0]):
            for name in ("boxes", "box", "landmarks", "embedding", "quality"):
                value = getattr(record, name, None)
                if isinstance(value, np.ndarray):
                    with pytest.raises(ValueError, match="read-only"):
                        value[...] = 0
    with pytest.raises(AttributeError):
        some().boxes = np.zeros((3, 4))


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("boxes", np.zeros((3, 5)), r"shape \(n, 4\); got \(3, 5\)"),
        ("boxes", np.zeros(4), r"shape \(n, 4\); got \(4,\)"),
        ("boxes", None, r"shape \(n, 4\); got \(\)"),
        ("boxes", 7, r"shape \(n, 4\); got \(\)"),
        ("boxes", [[1, 2, 3, 4], [1, 2]], r"numbers of the shape \(n, 4\); got \[\[1, 2, 3"),
        ("boxes", "many", r"numbers of the shape \(n, 4\); got many"),
        ("landmarks", np.zeros((3, 10)), r"shape \(3, 5, 2\); got \(3, 10\)"),
        ("landmarks", np.zeros((2, 5, 2)), r"shape \(3, 5, 2\); got \(2, 5, 2\)"),
        ("detection_score", np.zeros((3, 1)), r"shape \(3,\); got \(3, 1\)"),
        ("detection_score", 0.5, r"shape \(3,\); got \(\)"),
        ("detection_score", None, r"shape \(3,\); got \(\)"),
        ("embedding", np.zeros((2, 8)), r"shape \(3, d\); got \(2, 8\)"),
        ("embedding", np.zeros(3), r"shape \(3, d\); got \(3,\)"),
        ("embedding", [], r"shape \(3, d\); got \(0,\)"),
        ("quality", np.zeros(4), r"shape \(3,\); got \(4,\)"),
        ("quality", [1, 2, {}], r"numbers of the shape \(3,\); got \[1, 2, {}\]"),
        ("track_id", [1, 2], r"shape \(3,\); got \(2,\)"),
        ("track_id", [1, 2, 2.5], r"whole numbers, one per face; got \[1.0, 2.0, 2.5\]"),
        ("track_id", [1, 2, np.nan], r"whole numbers, one per face; got \[1.0, 2.0, nan\]"),
        ("track_id", [1, 2, None], r"whole numbers, one per face; got \[1, 2, None\]"),
        ("track_id", ["a", "b", "c"], r"whole numbers, one per face; got \['a'"),
    ],
)
def test_a_column_that_does_not_fit_is_named(column, value, told):
    with pytest.raises(InputError, match=rf"^Faces.{column} should (have|be) .*{told}"):
        some().with_(**{column: value})


def test_embeddings_need_their_contract():
    told = "need the contract id of the model.*got None. Pass contract=card.contract"
    with pytest.raises(ContractError, match=told):
        some(full=False).with_(embedding=np.zeros((3, 4)))
    with pytest.raises(ContractError, match=told):
        some().with_(contract=None)
    assert some(full=False).with_(contract="a/1").contract == "a/1"
    assert some().with_(embedding=None, contract=None).embedding is None


def test_nobody_at_all():
    for nobody in (Faces.empty(), Faces([], [], []), Faces(np.zeros((0, 4)), None, [])):
        assert len(nobody) == 0 and list(nobody) == []
        assert nobody.boxes.shape == (0, 4)
        assert nobody.areas.shape == (0,)
        assert nobody[:].boxes.shape == nobody[[]].boxes.shape == (0, 4)
        with pytest.raises(IndexError):
            nobody[0]
    assert Faces.empty().landmarks.shape == (0, 5, 2)
    assert Faces.empty(landmarks=False).landmarks is None
    kept = some()[[]]
    assert kept.embedding.shape == (0, 4) and kept.contract == "model/1"


# ---- cutting


@given(records(), st.data())
@settings(max_examples=60, deadline=None)
def test_every_way_to_cut_is_the_same_as_picking_rows(faces, data):
    count = len(faces)
    rows = data.draw(st.lists(st.integers(0, count - 1), max_size=6)) if count else []
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool)
    part = data.draw(st.slices(count)) if count else slice(0, 0)
    ways = [
        (rows, rows),
        (np.array(rows, np.int32), rows),
        ([row - count for row in rows], rows),
        (mask, [i for i in range(count) if mask[i]]),
        (mask.tolist(), [i for i in range(count) if mask[i]]),
        (part, list(range(count))[part]),
    ]
    for index, picked in ways:
        cut = faces[index]
        assert isinstance(cut, Faces) and cut.contract == faces.contract
        for name in COLUMNS:
            whole, column = getattr(faces, name), getattr(cut, name)
            assert (column is None) == (whole is None)
            if whole is not None:
                assert column.tolist() == [whole[i].tolist() for i in picked]


@given(records())
@settings(max_examples=40, deadline=None)
def test_a_face_is_a_row(faces):
    for i, face in enumerate(faces):
        for same in (face, faces[i], faces[i - len(faces)], faces[np.int64(i)]):
            assert isinstance(same, Face)
            assert same.box.tolist() == faces.boxes[i].tolist()
            assert same.detection_score == float(faces.detection_score[i])
            assert same.contract == faces.contract
            for name in ("landmarks", "embedding", "quality", "track_id"):
                column, value = getattr(faces, name), getattr(same, name)
                assert (value is None) == (column is None)
                if column is not None:
                    assert np.array_equal(value, column[i])
        assert type(face.detection_score) is float
        assert type(face.quality) in (float, type(None))
        assert type(face.track_id) in (int, type(None))
    assert [f.box.tolist() for f in reversed(faces)] == faces.boxes[::-1].tolist()


def test_an_index_out_of_range_or_of_the_wrong_kind():
    faces = some()
    for index in (3, -4, [3], [True, False], np.zeros(4, bool)):
        with pytest.raises(IndexError):
            faces[index]
    for index in (1.0, "a", None):
        with pytest.raises(TypeError):
            faces[index]
    with pytest.raises(FacenetError):
        faces[np.zeros((2, 2), int)]


def test_boxes_in_other_orders():
    face = Faces([[10, 20, 40, 80]], None, [0.5])[0]
    assert (face.width, face.height) == (30, 60)
    assert face.xywh == (10, 20, 30, 60)
    assert face.css == (20, 40, 80, 10)
    assert len(LANDMARK_NAMES) == some().landmarks.shape[1]


@given(records())
@settings(max_examples=30, deadline=None)
def test_areas_are_width_times_height(faces):
    want = [face.width * face.height for face in faces]
    assert np.allclose(faces.areas, want, rtol=1e-5, atol=1)


# ---- equality


@given(records())
@settings(max_examples=40, deadline=None)
def test_equal_after_any_copy(faces):
    copies = [faces.with_(), faces[:], copy.deepcopy(faces), pickle.loads(pickle.dumps(faces))]
    assert all(same == faces and same is not faces for same in copies)


def test_any_change_makes_it_unequal():
    faces = some()
    for name in COLUMNS:
        changed = np.array(getattr(faces, name))
        changed.flat[-1] += 1
        assert faces != faces.with_(**{name: changed})
    for name in ("landmarks", "embedding", "quality", "track_id"):
        assert faces != faces.with_(**{name: None})
    assert faces != faces.with_(contract="model/2")
    assert faces != faces[:2] and faces[:0] != faces[:1]
    assert faces != "faces" and faces != None  # noqa: E711
    assert Faces.empty() != Faces.empty(landmarks=False)


def test_nan_equals_nan_in_the_same_place():
    faces = some().with_(quality=[np.nan, 0.5, np.nan])
    assert faces == faces.with_(quality=[np.nan, 0.5, np.nan])
    assert faces != faces.with_(quality=[np.nan, np.nan, 0.5])
    assert faces != some()


def test_no_hash_because_it_holds_arrays():
    with pytest.raises(TypeError, match="unhashable"):
        hash(some())


# ---- JSON


@given(records())
@settings(max_examples=80, deadline=None)
def test_the_way_to_json_and_back(faces):
    text = faces.to_json()
    assert "\n" not in text
    assert json.loads(text) == faces.to_dict()
    back = Faces.from_dict(json.loads(text))
    if len(faces) == 0:
        assert back == Faces.empty()
        return
    assert back.contract == faces.contract
    for name in COLUMNS:
        mine, theirs = getattr(faces, name), getattr(back, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            tolerance = {"boxes": 0.0051, "landmarks": 0.0051, "detection_score": 6e-7}.get(name, 0)
            assert np.allclose(mine, theirs, rtol=1e-7 if tolerance else 0, atol=tolerance)
    assert Faces.from_dict(back.to_dict()) == back


def test_a_dictionary_in_full():
    faces = Faces(
        [[1.234, 2, 3.456, 4]],
        [[[0.126, 1]] * 5],
        [0.12345678],
        embedding=[[0.5, -0.25]],
        quality=[0.75],
        track_id=[7],
        contract="m/1",
    )
    face = {
        "box": [1.23, 2.0, 3.46, 4.0],
        "detection_score": 0.123457,
        "landmarks": [[0.13, 1.0]] * 5,
        "embedding": [0.5, -0.25],
        "quality": 0.75,
        "track_id": 7,
        "contract": "m/1",
    }
    assert faces.to_dict() == {"faces": [face]}
    assert faces[0].to_dict() == json.loads(faces[0].to_json()) == face
    bare = Faces([[1, 2, 3, 4]], None, [1])
    assert bare[0].to_dict() == {"box": [1.0, 2.0, 3.0, 4.0], "detection_score": 1.0}


@pytest.mark.parametrize(
    "data", [{}, {"face": []}, {"faces": 7}, {"faces": [7]}, [], None, "faces"]
)
def test_another_form_is_refused(data):
    with pytest.raises(InputError, match=r'should get {"faces": \[...\]} with one dictionary per'):
        Faces.from_dict(data)


def test_faces_that_differ_in_their_columns_or_contracts_are_refused():
    rows = some().to_dict()["faces"]
    del rows[1]["quality"]
    told = "Faces.quality should be there for every face or for none; 1 of 3 faces lack it"
    with pytest.raises(InputError, match=told):
        Faces.from_dict({"faces": rows})
    rows = some().to_dict()["faces"]
    rows[2]["contract"] = "model/2"
    with pytest.raises(ContractError, match="one contract; got model/1, model/2. Embed them again"):
        Faces.from_dict({"faces": rows})
    with pytest.raises(InputError, match="Faces.boxes should"):
        Faces.from_dict({"faces": [{"detection_score": 1}]})
    with pytest.raises(InputError, match="Faces.detection_score should"):
        Faces.from_dict({"faces": [{"box": [1, 2, 3, 4]}]})


def test_faces_of_no_track_have_the_number_0() -> None:
    assert some(3, full=False).tracks.tolist() == [0, 0, 0]
    assert Faces.empty().tracks.shape == (0,)
    assert some(2).with_(track_id=np.array([4, 0])).tracks.tolist() == [4, 0]
