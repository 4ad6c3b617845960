"""Who is this? The decisions about a photo, worked out again by loops over every pair."""

from __future__ import annotations

import numpy as np
import pytest
from peopled import SPACE, axis, faces_of, peopled

from facenet import vectors
from facenet.errors import ContractError, DamagedGalleryError, InputError
from facenet.gallery import corrections, decide
from facenet.gallery.answers import Question
from facenet.gallery.calibrate import Threshold
from facenet.gallery.index import Index
from facenet.gallery.records import EnrolledFace, Person, Ruling, Space

LEVEL = Threshold(0.5, 1e-3, "a million pairs")


def ask(store, faces, *, photo="", level=LEVEL, **how):
    index = Index(store, SPACE.contract)
    index.refresh()
    with store.read() as view:
        question = Question(level, len(index), **how)
        return decide.identify_faces(view, index, faces, question, photo=photo)


def similarities(store, faces, template=False):
    """Per face: person id -> similarity to the best face or the template, in plain loops."""
    with store.read() as view:
        block = view.vectors(SPACE.contract)
    tables = []
    for query in faces.embedding:
        table = {}
        for person in sorted(set(block.people)):
            rows = [row for row, own in zip(block.rows, block.people, strict=True) if own == person]
            rows = [vectors.template(np.array(rows))] if template else rows
            exact = [np.sum(row.astype(np.float64) * query.astype(np.float64)) for row in rows]
            table[person] = float(np.float32(max(exact)))
        tables.append(table)
    return tables


def assignment(tables, level, rejected=(), once=True):
    """Face -> person by always taking the most similar pair that is left."""
    pairs = [
        (-value, face, person)
        for face, table in enumerate(tables)
        for person, value in table.items()
        if value >= level and (face, person) not in rejected
    ]
    found = {}
    while pairs:
        _, face, person = min(pairs)
        found[face] = person
        pairs = [p for p in pairs if p[1] != face and not (once and p[2] == person)]
    return found


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("template", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_every_answer_is_that_of_the_loops(seed, once, template):
    generator = np.random.default_rng(seed)
    people = {f"P{n}": generator.standard_normal((generator.integers(1, 5), 8)) for n in range(9)}
    store, ids = peopled(people)
    names = {own: name for name, own in ids.items()}
    faces = faces_of(generator.standard_normal((7, 8)))
    tables = similarities(store, faces, template)
    expected = assignment(tables, 0.3, once=once)
    level = Threshold(0.3, 1e-3)
    answers = ask(store, faces, level=level, once=once, template=template)
    assert len(set(expected.values())) > 2
    for number, (answer, table) in enumerate(zip(answers, tables, strict=True)):
        ranked = sorted(table, key=lambda own: (-table[own], own))
        mine = expected.get(number)
        assert answer.person_id == mine
        assert answer.person == names.get(mine)
        best = mine or ranked[0]
        others = [own for own in ranked if own != best]
        assert (answer.best.person_id, answer.similarity) == (best, table[best])
        assert (answer.second.person_id, answer.second.similarity) == (others[0], table[others[0]])
        assert answer.margin == table[best] - table[others[0]]
        why = None if mine else "taken" if table[ranked[0]] >= 0.3 else "below_threshold"
        assert answer.reason == why
        assert answer.fpir == pytest.approx(1 - (1 - 1e-3) ** sum(map(len, people.values())))
        assert (answer.best.face == 0) == template


def test_one_person_is_named_once_and_the_best_face_has_them():
    store, _ = peopled({"Anna": [axis(0)], "Ben": [axis(1)]})
    near, nearer, both = axis(0, 0.5), axis(0, 0.2), axis(0, 0.6, towards=1)
    answers = ask(store, faces_of([near, nearer, both]))
    assert [answer.person for answer in answers] == [None, "Anna", "Ben"]
    assert [answer.reason for answer in answers] == ["taken", None, None]
    assert answers[0].best.person == "Anna" and answers[0].similarity >= 0.5
    assert answers[2].margin == pytest.approx(0.6 - 0.8, abs=1e-6), "a better face has Anna"
    freely = ask(store, faces_of([near, nearer, both]), once=False)
    assert [answer.person for answer in freely] == ["Anna"] * 3
    tied = ask(store, faces_of([near, near]))
    assert [answer.person for answer in tied] == ["Anna", None], "ties: the earlier face"


def test_nobody_to_compare_with():
    store, _ = peopled({})
    (answer,) = ask(store, faces_of([axis(0)]))
    plain = answer.to_dict()
    assert plain["reason"] == "no_one_enrolled"
    left = ("person", "person_id", "best_candidate", "runner_up", "similarity", "margin", "fpir")
    assert [plain[name] for name in left] == [None] * 7
    assert ask(store, faces_of(np.zeros((0, 8)))) == []
    store, _ = peopled({"Anna": [axis(0)]})
    (answer,) = ask(store, faces_of([axis(0)]), among=frozenset())
    assert answer.reason == "no_one_enrolled"
    (answer,) = ask(store, faces_of([axis(0)]))
    assert (answer.person, answer.second, answer.margin) == ("Anna", None, None)


def test_only_some_people_count():
    store, ids = peopled({"Anna": [axis(0)], "Ben": [axis(1)], "Cleo": [axis(2)]})
    query = faces_of([axis(0, 0.6, towards=1)])
    (answer,) = ask(store, query, among=frozenset([ids["Ben"], ids["Cleo"]]))
    assert (answer.person, answer.second.person) == ("Ben", "Cleo")


def test_a_rejected_face_is_never_that_person_again():
    """The same photo is asked about again; another photo is another matter."""
    store, ids = peopled({"Anna": [axis(0)] * 2, "Ben": [axis(0, 0.1)], "Cleo": [axis(3)]})
    query = faces_of([axis(0)], boxes=[(12, 22, 50, 80)])
    corrections.reject(store, 3, "Anna")
    (answer,) = ask(store, query, photo="p3")
    assert (answer.person, answer.second.person) == ("Ben", "Cleo")
    assert ask(store, query, photo="p1")[0].person == "Anna"
    assert ask(store, query)[0].person == "Anna"
    elsewhere = faces_of([axis(0)], boxes=[(100, 20, 140, 80)])
    assert ask(store, elsewhere, photo="p3")[0].person == "Anna"
    corrections.delete_person(store, "Ben")
    with store.write() as draft:
        draft.put(Person("person-9", "Eve", 1.0))
        draft.put(EnrolledFace(30, "person-9", 1.0, "p3", box=(10.0, 20.0, 50.0, 80.0)))
        draft.put_vectors(SPACE.contract, {30: axis(5)})
        draft.put(Ruling(30, ids["Anna"], False, 1.0))
    (answer,) = ask(store, query, photo="p3")
    assert (answer.person, answer.reason) == (None, "rejected_by_user")
    assert (answer.best.person, answer.similarity) == ("Anna", 1.0)
    (answer,) = ask(store, faces_of([axis(6)]), photo="p3")
    assert answer.reason == "below_threshold"
    assert answer.best.person != "Anna", "the nearest of those who it may be"


@pytest.mark.parametrize("seed", range(4))
def test_rejections_and_the_rest_together(seed):
    """Random rulings on faces of one photo against the loops."""
    generator = np.random.default_rng(seed)
    store, ids = peopled({f"P{n}": generator.standard_normal((2, 8)) for n in range(6)})
    boxes = [(100.0 * n, 0.0, 100.0 * n + 50, 60.0) for n in range(5)]
    rejected = set()
    with store.write() as draft:
        draft.put(Person("z", "Z", 1.0))
        for number, box in enumerate(boxes):
            face = draft.next_id(EnrolledFace)
            draft.put(EnrolledFace(face, "z", 1.0, "photo", box=box))
            for own in generator.permutation(sorted(ids.values()))[:3]:
                draft.put(Ruling(face, str(own), False, 1.0))
                rejected.add((number, str(own)))
    faces = faces_of(generator.standard_normal((5, 8)), boxes=boxes)
    answers = ask(store, faces, photo="photo", level=Threshold(0.2, None))
    expected = assignment(similarities(store, faces), 0.2, rejected)
    assert {n: a.person_id for n, a in enumerate(answers) if a.known} == expected
    assert {a.fpir for a in answers} == {None}
    for number, answer in enumerate(answers):
        assert answer.second is None or (number, answer.second.person_id) not in rejected


def test_a_confirmed_face_is_that_person_whatever_the_similarity():
    store, ids = peopled({"Anna": [axis(0)], "Ben": [axis(1)] * 2})
    corrections.confirm(store, 3, "Anna")
    query = faces_of([axis(4), axis(0)], boxes=[(10, 20, 50, 80), (100, 20, 150, 80)])
    first, second = ask(store, query, photo="p3")
    assert (first.person, first.reason, first.similarity) == ("Anna", "confirmed_by_user", 0.0)
    assert (second.person, second.reason) == (None, "taken")
    (only,) = ask(store, query[[0]], photo="p3", among=frozenset([ids["Ben"]]))
    assert only.person is None


def test_verifying_against_a_person_counts_every_face():
    store, ids = peopled({"Anna": [axis(0), axis(1), axis(2)], "Ben": [axis(3)], "None": []})
    index = Index(store, SPACE.contract)

    def verify(who, row, photo="", **how):
        with store.read() as view:
            person = view.get(Person, ids[who])
            asked = Question(LEVEL, 3, **how)
            return decide.verify_person(view, index, faces_of([row])[0], person, asked, photo=photo)

    answer = verify("Anna", axis(1, 0.6))
    assert (answer.match, answer.face, answer.comparisons) == (True, 2, 3)
    assert answer.similarity == pytest.approx(0.8, abs=1e-6)
    assert answer.fmr == pytest.approx(1 - (1 - 1e-3) ** 3)
    assert answer.to_dict()["person_id"] == ids["Anna"]
    pooled = verify("Anna", axis(1), template=True)
    assert pooled.similarity == pytest.approx(3**-0.5, abs=1e-6) and pooled.face == 0
    assert not verify("Anna", axis(3)).match
    with pytest.raises(InputError, match="None .* should have an enrolled face"):
        verify("None", axis(0))
    corrections.reject(store, 2, "Anna")
    refused = verify("Anna", axis(0), photo="p2")
    assert (refused.match, refused.reason) == (False, "rejected_by_user")
    corrections.confirm(store, 2, "Anna")
    taken = verify("Anna", axis(5), photo="p2")
    assert (taken.match, taken.reason) == (True, "confirmed_by_user")


def test_ranking_is_by_similarity_alone():
    store, _ = peopled({"Anna": [axis(0)], "Ben": [axis(1)], "Cleo": [axis(2)]})
    index = Index(store, SPACE.contract)
    with store.read() as view:
        face = faces_of([axis(1, 0.3, towards=2)])[0]
        ranked = decide.rank(view, index, face, Question(LEVEL, 1), 2)
    assert [(found.person, found.face) for found in ranked] == [("Ben", 2), ("Cleo", 3)]


class Stale:
    """An index that has not heard of the latest changes, as one on a bad disk might not have."""

    def __init__(self, index):
        self.found = index.search(faces_of([axis(0)]).embedding, 5)

    def search(self, queries, k=5, *, among=None, template=False, view=None):
        return self.found


@pytest.mark.parametrize("change", ["delete", "move"])
def test_nobody_else_is_named_where_the_index_and_the_view_differ(change):
    store, _ = peopled({"Anna": [axis(0)], "Ben": [axis(0, 0.1)], "Cleo": [axis(0, 0.2)]})
    stale = Stale(Index(store, SPACE.contract))
    if change == "delete":
        corrections.delete_person(store, "Anna")
    else:
        corrections.move(store, 1, "Cleo")
    with store.read() as view, pytest.raises(DamagedGalleryError, match="not as it was found"):
        decide.identify_faces(view, stale, faces_of([axis(0)]), Question(LEVEL, 3))


def test_an_index_that_another_thread_brings_forward_answers_from_the_view():
    store, _ = peopled({"Anna": [axis(0)], "Ben": [axis(0, 0.1)]})
    index = Index(store, SPACE.contract)
    with index.reading() as view:
        corrections.delete_person(store, "Anna")
        (before,) = decide.identify_faces(view, index, faces_of([axis(0)]), Question(LEVEL, 2))
    with index.reading() as view:
        (after,) = decide.identify_faces(view, index, faces_of([axis(0)]), Question(LEVEL, 2))
    assert (before.person, after.person) == ("Anna", "Ben")


def test_vectors_that_are_not_fit():
    store, _ = peopled({"Anna": [axis(0)]})
    with pytest.raises(ContractError, match="other:1"):
        ask(store, faces_of([axis(0)], contract="other:1"))
    with pytest.raises(ContractError, match="8 values"):
        ask(store, faces_of([np.ones(5)]))
    with pytest.raises(InputError, match="zero vector"):
        ask(store, faces_of([np.zeros(8)]))
    with pytest.raises(InputError, match="NaN"):
        ask(store, faces_of([np.full(8, np.nan)]))
    with pytest.raises(InputError, match="Embed first"):
        ask(store, faces_of([axis(0)]).with_(embedding=None, contract=SPACE.contract))
    with store.write() as draft:
        draft.put(Space("toy:2", "toy", 8, "active", 1.0))
    with pytest.raises(DamagedGalleryError, match="one active model; this one has 2"):
        ask(store, faces_of([axis(0)]))
