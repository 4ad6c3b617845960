"""Deciding about vectors, against loops over pairs."""

import json

import numpy as np
import pytest
from fakes import toy_faces

from facenet.errors import ContractError, InputError
from facenet.gallery.calibrate import Threshold
from facenet.gallery.compare import People, identify, require_contract, verify
from facenet.types import Face, Faces

CONTRACT = "toy:0123456789abcdef"


def rows(count, *, seed=0, width=6):
    return np.random.RandomState(seed).standard_normal((count, width)).astype(np.float32)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def some_faces(vectors, *, contract=CONTRACT):
    boxes = [(10 * i, 5, 10 * i + 8, 20 + i) for i in range(len(vectors))]
    return toy_faces(*boxes, score=0.97).with_(embedding=unit(vectors), contract=contract)


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


# ---- one to one


def test_verify_compares_the_cosine_with_the_threshold():
    faces = some_faces(rows(8))
    for a in faces:
        for b in faces:
            expected = cosine(a.embedding, b.embedding)
            for level in (-0.4, 0.0, 0.3, 0.9):
                got = verify(a, b, Threshold(level, 1e-3))
                assert got.similarity == pytest.approx(expected, abs=1e-6)
                assert got.match == (got.similarity >= level)
                assert (got.threshold, got.fmr) == (level, 1e-3)
                assert got.similarity == verify(b, a, Threshold(level, None)).similarity


def test_the_threshold_itself_matches():
    face = some_faces(np.float32([[1, 0], [0.6, 0.8]]))
    similarity = verify(face[0], face[1], Threshold(0.5, None)).similarity
    assert similarity == pytest.approx(0.6)
    assert verify(face[0], face[1], Threshold(similarity, None)).match
    assert not verify(face[0], face[1], Threshold(np.nextafter(similarity, 2), None)).match
    assert verify(face[0], face[0], Threshold(1.0, None)).match


def test_a_verification_is_plain_values():
    face = some_faces(np.float32([[1, 0], [0.6, 0.8]]))
    got = json.loads(json.dumps(verify(face[0], face[1], Threshold(0.5, None)).to_dict()))
    assert got == {
        "match": True,
        "similarity": pytest.approx(0.6),
        "threshold": 0.5,
        "fmr": None,
        "fmr_source": None,
        "probability": None,
    }


def test_faces_of_two_models_are_not_compared():
    a = some_faces(rows(1))[0]
    b = some_faces(rows(1), contract="other:0123456789abcdef")[0]
    with pytest.raises(
        ContractError, match="expected toy:.*the second face was embedded with other:"
    ):
        verify(a, b, Threshold(0.5, None))
    flipped = some_faces(rows(1), contract=CONTRACT + "+flip")[0]
    with pytest.raises(ContractError):
        verify(a, flipped, Threshold(0.5, None))


def test_faces_without_vectors_are_not_compared():
    bare = toy_faces()[0]
    with pytest.raises(InputError, match="should have embeddings"):
        verify(bare, bare, Threshold(0.5, None))
    with pytest.raises(ContractError):
        verify(bare, some_faces(rows(1))[0], Threshold(0.5, None))


def test_require_contract_lets_equals_pass():
    require_contract(CONTRACT, CONTRACT, "it")
    with pytest.raises(ContractError, match="Embed both with the same model and options"):
        require_contract(CONTRACT, None, "it")


# ---- one to many


def crowd(people, *, each=3, seed=0):
    """People with one to `each` vectors, in a mixed order of names."""
    generator = np.random.RandomState(seed)
    names = [f"p{i:02}" for i in generator.permutation(people)]
    return {
        name: list(some_faces(rows(1 + i % each, seed=seed * 100 + i)))
        for i, name in enumerate(names)
    }


@pytest.mark.parametrize("seed", range(5))
def test_identify_is_the_best_of_all_pairs(seed):
    known = crowd(9, seed=seed)
    faces = some_faces(rows(20, seed=1000 + seed))
    people = People.from_faces(known)
    assert len(people.names) == sum(map(len, known.values()))
    answers = identify(people, faces, Threshold(0.7, 1e-4))
    outcomes = set()
    for face, got in zip(faces, answers, strict=True):
        best_name, best = "", -2.0
        for name, theirs in known.items():
            for other in theirs:
                if cosine(face.embedding, other.embedding) > best:
                    best_name, best = name, cosine(face.embedding, other.embedding)
        assert got.best_candidate == best_name
        assert got.similarity == pytest.approx(best, abs=1e-6)
        assert got.person == (best_name if best >= 0.7 else None)
        assert (got.threshold, got.fmr) == (0.7, 1e-4)
        assert np.array_equal(got.face.box, face.box)
        outcomes.add(got.person is None)
    assert outcomes == {True, False}


def test_of_equal_people_the_first_is_named():
    vector = np.float32([[3, 4]])
    people = People(("b", "a", "c"), np.repeat(unit(vector), 3, axis=0), CONTRACT)
    assert identify(people, some_faces(vector), Threshold(0.5, None))[0].person == "b"


def test_the_best_of_several_vectors_counts():
    known = {
        "near once": list(some_faces(np.float32([[0, 1], [1, 0.1]]))),
        "near twice": list(some_faces(np.float32([[1, 0.3], [1, 0.3]]))),
    }
    answer = identify(
        People.from_faces(known), some_faces(np.float32([[1, 0]])), Threshold(0.9, None)
    )
    assert answer[0].person == "near once"


def test_the_threshold_itself_is_enough_and_the_candidate_is_told():
    people = People(("Ada",), np.float32([[1, 0]]), CONTRACT)
    faces = some_faces(np.float32([[0.6, 0.8]]))
    similarity = identify(people, faces, Threshold(0.0, None))[0].similarity
    assert identify(people, faces, Threshold(similarity, None))[0].person == "Ada"
    unknown = identify(people, faces, Threshold(np.nextafter(similarity, 2), None))[0]
    assert (unknown.person, unknown.best_candidate) == (None, "Ada")


def test_an_answer_is_plain_values():
    people = People(("Zoë",), np.float32([[1, 0]]), CONTRACT)
    faces = some_faces(np.float32([[0.6, 0.8]]))
    got = identify(people, faces, Threshold(0.7, 1e-4))[0].to_dict()
    assert json.loads(json.dumps(got)) == {
        "box": [0.0, 5.0, 8.0, 20.0],
        "detection_score": pytest.approx(0.97),
        "person": None,
        "similarity": pytest.approx(0.6),
        "threshold": 0.7,
        "fmr": 1e-4,
        "best_candidate": "Zoë",
        "fpir": pytest.approx(1e-4),
    }


def test_no_face_no_answer():
    people = People(("Ada",), np.float32([[1, 0]]), CONTRACT)
    assert identify(people, Faces.empty(), Threshold(0.5, None)) == []


def test_faces_to_identify_need_vectors_of_the_same_contract():
    people = People(("Ada",), np.float32([[1, 0, 0, 0, 0, 0]]), CONTRACT)
    with pytest.raises(InputError, match="should have embeddings"):
        identify(people, toy_faces(), Threshold(0.5, None))
    with pytest.raises(ContractError, match="the photo was embedded with other"):
        identify(people, some_faces(rows(1), contract="other"), Threshold(0.5, None))


# ---- people


def test_people_keep_their_own_vectors():
    vectors = unit(rows(2))
    people = People(("Ada", "Bob"), vectors, CONTRACT)
    vectors[:] = 0
    assert np.linalg.norm(people.embedding, axis=1) == pytest.approx([1, 1])
    assert people.embedding.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        people.embedding[0, 0] = 1


@pytest.mark.parametrize(
    ("names", "shape"), [(("Ada",), (2, 6)), (("Ada", "Bob"), (2,)), (("Ada",), (1, 2, 3))]
)
def test_people_have_one_vector_per_name(names, shape):
    with pytest.raises(InputError, match="one vector per name; got"):
        People(names, np.zeros(shape, np.float32), CONTRACT)


def test_people_are_at_least_one():
    with pytest.raises(InputError, match="at least one; got none"):
        People((), np.zeros((0, 6), np.float32), CONTRACT)
    for nobody in ({}, {"Ada": []}):
        with pytest.raises(InputError, match="at least one; got none"):
            People.from_faces(nobody)


def test_people_are_of_one_model_and_embedded():
    known = {"Ada": list(some_faces(rows(1))), "Bob": list(some_faces(rows(1), contract="other"))}
    with pytest.raises(ContractError, match="the face of Bob was embedded with other"):
        People.from_faces(known)
    bare = Face(np.zeros(4, np.float32), None, 1.0)
    with pytest.raises(InputError, match="The face of Ada should have an embedding"):
        People.from_faces({"Ada": [bare]})
    unlabelled = Face(np.zeros(4, np.float32), None, 1.0, contract=CONTRACT)
    with pytest.raises(InputError, match="The face of Bob should have an embedding"):
        People.from_faces({"Ada": list(some_faces(rows(1))), "Bob": [unlabelled]})
