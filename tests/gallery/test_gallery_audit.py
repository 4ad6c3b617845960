"""What an audit of a gallery finds, with errors that are put there on purpose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from facenet.gallery.audit import (
    TWICE,
    AuditRules,
    Finding,
    audit,
    fixes,
    joined,
)
from facenet.gallery.memory import MemoryStore
from facenet.gallery.records import Apart, EnrolledFace, Person, Ruling, Space
from facenet.types import FloatArray
from facenet.vectors import unit

CONTRACT, WIDTH = "toy@1", 32
RULES = AuditRules(same=0.5, other=0.6, double=0.75, lowest={"sharpness": 10.0})


def near(centre: FloatArray, rng: np.random.Generator, spread: float = 0.12) -> FloatArray:
    """A vector of the person with this centre; the default gives similarities of about 0.8."""
    return unit(centre + spread * rng.normal(size=WIDTH).astype(np.float32))


def centres(count: int, rng: np.random.Generator) -> FloatArray:
    """Unit vectors of which no two are similar: rows of a random rotation."""
    rotation, _ = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))
    return rotation[:count].astype(np.float32)


def gallery(people: Sequence[Sequence[FloatArray]], measures: dict[int, float]) -> MemoryStore:
    """A store with people p0, p1, ... and faces numbered from 1 on in their order."""
    store = MemoryStore()
    with store.write() as draft:
        draft.put(Space(CONTRACT, "toy", WIDTH, "active", 0.0))
        for number, rows in enumerate(people):
            draft.put(Person(f"p{number}", f"Person {number}", 0.0))
            for row in rows:
                face = draft.next_id(EnrolledFace)
                sharpness = {"sharpness": measures.get(face, 50.0)}
                draft.put(EnrolledFace(face, f"p{number}", 0.0, measures=sharpness))
                draft.put_vectors(CONTRACT, {face: row})
    return store


def found(store: MemoryStore) -> list[Finding]:
    with store.read() as view:
        return audit(view, CONTRACT, RULES)


def test_a_clean_gallery_has_no_findings() -> None:
    rng = np.random.default_rng(0)
    people = [[near(c, rng) for _ in range(4)] for c in centres(8, rng)]
    assert found(gallery(people, {})) == []


def test_an_empty_gallery_has_no_findings() -> None:
    assert found(gallery([], {})) == []


def test_a_face_of_somebody_else_is_named_with_whom_it_looks_like() -> None:
    rng = np.random.default_rng(1)
    people = [[near(c, rng) for _ in range(3)] for c in centres(4, rng)]
    people[0].append(near(centres(4, np.random.default_rng(1))[2], rng))
    store = gallery(people, {})
    (finding,) = found(store)
    assert (finding.kind, finding.faces, finding.people) == ("wrong_label", (4,), ("p0", "p2"))
    best = max(float(people[0][3] @ row) for row in people[2])
    assert finding.similarity == pytest.approx(best, abs=1e-6)
    rest = unit(np.sum(people[0][:3], axis=0))
    assert finding.own == pytest.approx(float(rest @ people[0][3]), abs=1e-6)


def test_of_two_faces_the_one_that_looks_like_somebody_else_is_the_intruder() -> None:
    rng = np.random.default_rng(2)
    c = centres(3, rng)
    people = [[near(c[1], rng), near(c[0], rng)], [near(c[1], rng) for _ in range(3)]]
    (finding,) = found(gallery(people, {}))
    assert (finding.kind, finding.faces) == ("wrong_label", (1,))


def test_two_strangers_under_one_name_are_reported_as_the_person() -> None:
    rng = np.random.default_rng(3)
    c = centres(4, rng)
    people = [[near(c[0], rng), near(c[1], rng)], [near(c[2], rng)]]
    (finding,) = found(gallery(people, {}))
    assert (finding.kind, finding.people, set(finding.faces)) == ("two_people", ("p0",), {1, 2})


def test_a_stranger_among_many_is_a_wrong_label_that_looks_like_nobody() -> None:
    rng = np.random.default_rng(4)
    c = centres(4, rng)
    people = [[*(near(c[0], rng) for _ in range(4)), near(c[1], rng)], [near(c[2], rng)]]
    (finding,) = found(gallery(people, {}))
    assert (finding.kind, finding.faces, finding.people) == ("wrong_label", (5,), ("p0",))
    assert finding.similarity is None


def test_one_person_under_two_names_is_found_until_a_user_says_they_are_two() -> None:
    rng = np.random.default_rng(5)
    c = centres(3, rng)
    store = gallery([[near(c[0], rng, 0.05)], [near(c[0], rng, 0.05)], [near(c[1], rng)]], {})
    (finding,) = found(store)
    assert (finding.kind, finding.people) == ("duplicate_person", ("p0", "p1"))
    with store.write() as draft:
        draft.put(Apart("p0", "p1", 0.0))
    assert found(store) == []


def test_what_a_user_confirmed_is_not_reported_again() -> None:
    rng = np.random.default_rng(6)
    c = centres(3, rng)
    store = gallery([[near(c[0], rng), near(c[1], rng)], [near(c[1], rng), near(c[1], rng)]], {})
    assert [finding.faces for finding in found(store)] == [(2,)]
    with store.write() as draft:
        draft.put(Ruling(2, "p0", True, 0.0))
        draft.put(Ruling(1, "p0", True, 0.0))
    (finding,) = found(store)  # what is left: p0 and p1 now share a face that counts
    assert (finding.kind, finding.people) == ("duplicate_person", ("p0", "p1"))


def test_one_photo_saved_twice_and_a_blurred_face_are_found() -> None:
    rng = np.random.default_rng(7)
    row = near(centres(1, rng)[0], rng)
    twin = near(row, rng, 0.01)
    assert float(row @ twin) >= TWICE
    findings = found(gallery([[row, twin, near(row, rng)]], {3: 4.0}))
    assert [(f.kind, f.faces) for f in findings] == [
        ("duplicate_photo", (2, 1)),
        ("poor_sample", (3,)),
    ]
    assert findings[1].measure == ("sharpness", 4.0)


@pytest.mark.parametrize("seed", range(5))
def test_joined_faces_are_those_that_a_walk_along_links_reaches(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = unit(rng.normal(size=(12, 3)).astype(np.float32))
    held = rng.random(12) < 0.2
    parts = joined(rows, 0.8, held)
    assert sorted(i for part in parts for i in part) == list(range(12))
    for start in range(12):
        reached, todo = {start}, [start]
        while todo:
            i = todo.pop()
            for j in set(range(12)) - reached:
                if float(rows[i] @ rows[j]) >= 0.8 or (held[i] and held[j]):
                    reached.add(j)
                    todo.append(j)
        assert sorted(reached) in parts


def test_most_swapped_faces_are_found_and_few_others() -> None:
    rng = np.random.default_rng(8)
    c = centres(30, rng)
    people = [[near(centre, rng) for _ in range(6)] for centre in c]
    swapped = set()
    for number in range(0, 30, 3):
        people[number][0], people[number + 1][0] = people[number + 1][0], people[number][0]
        swapped |= {number * 6 + 1, (number + 1) * 6 + 1}
    wrong = {f.faces[0] for f in found(gallery(people, {})) if f.kind == "wrong_label"}
    assert wrong == swapped


def test_what_was_rejected_or_told_apart_is_not_suggested() -> None:
    rng = np.random.default_rng(9)
    c = centres(3, rng)
    people = [[near(c[0], rng, 0.05)], [near(c[0], rng, 0.05)], [near(c[1], rng)]]
    store = gallery(people, {})
    with store.write() as draft:
        draft.put(Ruling(1, "p1", False, 0.0))
    assert found(store) == []
    people = [[near(c[0], rng) for _ in range(3)] + [near(c[1], rng)], [near(c[1], rng)] * 2]
    store = gallery(people, {})
    assert [f.people for f in found(store) if f.kind == "wrong_label"] == [("p0", "p1")]
    with store.write() as draft:
        draft.put(Ruling(4, "p1", False, 0.0))
    assert [f.people for f in found(store) if f.kind == "wrong_label"] == [("p0",)]
    with store.write() as draft:
        draft.delete(Ruling, "4:p1")
        draft.put(Apart("p0", "p1", 0.0))
    assert [f.people for f in found(store) if f.kind == "wrong_label"] == [("p0",)]


def test_two_people_are_parted_or_kept_by_the_commands_of_the_finding() -> None:
    rng = np.random.default_rng(10)
    c = centres(4, rng)
    mixed = [near(c[0], rng), near(c[1], rng), near(c[0], rng), near(c[1], rng)]
    store = gallery([mixed, [near(c[2], rng)]], {})
    (finding,) = found(store)
    assert finding.parts == ((1, 3), (2, 4))
    split, *keep = fixes(finding, "G.db")
    assert split == "facenet gallery split G.db --face 1 --face 3"
    assert keep == [f"facenet gallery confirm G.db --face {n} --person p0" for n in (1, 2)]
    with store.write() as draft:
        draft.put(Ruling(1, "p0", True, 0.0))
        draft.put(Ruling(2, "p0", True, 0.0))
    assert found(store) == []


def test_a_poor_face_counts_only_beside_a_better_one_and_until_it_is_confirmed() -> None:
    rng = np.random.default_rng(11)
    c = centres(2, rng)
    alone = gallery([[near(c[0], rng)]], {1: 4.0})
    assert found(alone) == []
    store = gallery([[near(c[0], rng), near(c[0], rng)]], {1: 4.0})
    assert [f.faces for f in found(store)] == [(1,)]
    with store.write() as draft:
        draft.put(Ruling(1, "p0", True, 0.0))
    assert found(store) == []


def test_every_finding_comes_with_the_commands_that_settle_it() -> None:
    commands = {
        kind: fixes(Finding(kind, ("a", "b"), (7, 8), 0.9), "My G.db")
        for kind in ("wrong_label", "duplicate_person", "duplicate_photo", "poor_sample")
    }
    keep = "facenet gallery confirm 'My G.db' --face 7 --person a"
    assert commands["wrong_label"] == ["facenet gallery move 'My G.db' --face 7 --to b", keep]
    assert commands["duplicate_person"] == [
        "facenet gallery merge 'My G.db' a b",
        "facenet gallery apart 'My G.db' a b",
    ]
    assert commands["duplicate_photo"] == ["facenet gallery delete 'My G.db' --face 7", keep]
    assert commands["poor_sample"][-1] == keep
    stranger = fixes(Finding("wrong_label", ("a",), (7,), None), "G.db")
    assert stranger[0] == "facenet gallery split G.db --face 7"
