"""What is wrong inside a gallery: wrong names, one person as two, two as one, poor faces.

A person's faces are joined where they are similar; faces that are joined to none of the rest stand
out. Whether such a face is the intruder or the host shows by whom else it looks like: where that
does not tell, the person is reported instead of a face. This finds what the rule of InsightFace's
cleaning (far from the own centre) cannot: the intruder among two faces, and swaps.
What a user has ruled (a face confirmed, two people apart) is never reported again.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from facenet import vectors
from facenet.gallery.records import Apart, EnrolledFace, Ruling, VectorBlock
from facenet.gallery.store import View
from facenet.types import FloatArray, IntArray

Done = Callable[[int, int], None]
KINDS = ("wrong_label", "two_people", "duplicate_person", "duplicate_photo", "poor_sample")
BLOCK = 1024
"""Rows compared at a time."""
CLEARLY = 0.1
"""By how much a face must be more like another person than like its own to be called wrong, and
by how much one of two rivals must be more like somebody else than the other."""
TWICE = 0.98
"""Two photos of one person from this similarity on are one photo, saved twice."""


@dataclass(frozen=True, slots=True)
class AuditRules:
    """When something is reported.

    same: similarity from which two faces of a person belong together. other: similarity to another
    person from which a face is said to look like them. double: best similarity of two people's
    faces from which they are said to be one. lowest: measure -> value below which a face is poor.
    """

    same: float
    other: float
    double: float
    lowest: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to look at. kind: one of `KINDS`. faces: their ids, the suspects first. people:
    ids, first the one it is about. similarity: that speaks for it. own: similarity to the rest of
    the own person, where it counts. measure: of a poor face, name and value. parts: of two people
    under one name, the faces that belong together, the smallest part first."""

    kind: str
    people: tuple[str, ...]
    faces: tuple[int, ...]
    similarity: float | None = None
    own: float | None = None
    measure: tuple[str, float] | None = None
    parts: tuple[tuple[int, ...], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PersonRows:
    """A gallery's vectors by person: labels int64 (n,) of `names`, templates (p, d)."""

    block: VectorBlock
    names: tuple[str, ...]
    labels: IntArray
    templates: FloatArray
    groups: tuple[IntArray, ...]

    @classmethod
    def of(cls, block: VectorBlock) -> PersonRows:
        """The same vectors, by person."""
        names, labels = np.unique(np.asarray(block.people, np.str_), return_inverse=True)
        sums = np.zeros((len(names), block.rows.shape[1]), np.float64)
        np.add.at(sums, labels, block.rows.astype(np.float64))
        order = np.argsort(labels, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
        return cls(block, tuple(names.tolist()), labels, vectors.unit(sums), tuple(groups))

    def faces(self, rows: Sequence[int] | IntArray) -> tuple[int, ...]:
        """The numbers of the faces in some rows, (n,)."""
        return tuple(int(self.block.ids[row]) for row in rows)


@dataclass(frozen=True, slots=True)
class Decided:
    """What users said, which no finding contradicts. confirmed, rejected: faces and people. apart:
    two people each, in the order of their ids."""

    confirmed: frozenset[tuple[int, str]] = frozenset()
    rejected: frozenset[tuple[int, str]] = frozenset()
    apart: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, view: View) -> Decided:
        """All that was decided in a gallery."""
        rulings = view.find(Ruling)
        said = {
            same: frozenset(
                (ruling.face, ruling.person) for ruling in rulings if ruling.same is same
            )
            for same in (True, False)
        }
        pairs = frozenset((row.first, row.second) for row in view.find(Apart))
        return cls(said[True], said[False], pairs)

    def two(self, first: str, second: str) -> bool:
        """Whether two people are said to be two."""
        return (min(first, second), max(first, second)) in self.apart


def audit(
    view: View, contract: str, rules: AuditRules, done: Done = lambda done, total: None
) -> list[Finding]:
    """Everything suspicious in the active space of a gallery, by kind, the clearest first.

    done: called with faces compared and faces in all.
    """
    rows = PersonRows.of(view.vectors(contract))
    if len(rows.block) == 0:
        return []
    decided = Decided.of(view)
    wrong = wrong_labels(rows, rules, decided, done)
    suspects = {finding.faces[0] for finding in wrong if finding.kind == "wrong_label"}
    found = [
        *wrong,
        *duplicate_people(rows, rules, decided, suspects),
        *duplicate_photos(rows, decided),
        *poor_samples(view, rules, decided),
    ]
    return sorted(found, key=lambda finding: KINDS.index(finding.kind))


def wrong_labels(
    rows: PersonRows, rules: AuditRules, decided: Decided, done: Done = lambda done, total: None
) -> list[Finding]:
    """Faces that do not belong to their person, and people whose faces are those of two."""
    near, like = nearest_others(rows, decided, done)
    found: list[Finding] = []
    for person, group in zip(rows.names, rows.groups, strict=True):
        held = np.array([(face, person) in decided.confirmed for face in rows.faces(group)])
        parts = joined(rows.block.rows[group], rules.same, held)
        own = _own(rows.block.rows[group])
        if len(parts) == 1:
            wrong = (near[group] >= rules.other) & (near[group] > own + CLEARLY) & ~held
            suspects = [[int(i)] for i in np.flatnonzero(wrong)] if len(group) > 2 else []
        else:
            suspects = _intruders(parts, near[group], rules.other, held)
            if not suspects:
                found.append(_two(rows, person, group, parts))
        for row in (int(group[i]) for part in suspects for i in part):
            looks = (rows.names[like[row]],) if near[row] >= rules.other else ()
            score = float(near[row]) if looks else None
            mine = float(own[np.flatnonzero(group == row)[0]])
            found.append(Finding("wrong_label", (person, *looks), rows.faces([row]), score, mine))
    return sorted(found, key=_clearness)


def nearest_others(
    rows: PersonRows, decided: Decided, done: Done = lambda done, total: None
) -> tuple[FloatArray, IntArray]:
    """For each face the best similarity to a face of another person, and that person's number.

    The person is looked for by templates, the similarity is that of their best face: (n,), (n,).
    People whom a face was said not to be, and those told apart from its own person, do not count.
    """
    count = len(rows.block)
    near, like = np.full(count, -1, np.float32), np.zeros(count, np.int64)
    if len(rows.names) < 2:
        done(count, count)
        return near, like
    barred = _barred(rows, decided)
    for block in _blocks(count):
        scores = rows.block.rows[block] @ rows.templates.T
        scores[np.arange(len(scores)), rows.labels[block]] = -np.inf
        for row in range(block.start, block.stop):
            scores[row - block.start, barred.get(row, [])] = -np.inf
        best = np.argmax(scores, axis=1)
        like[block] = best
        for offset, number in enumerate(best):
            row = block.start + offset
            if np.isfinite(scores[offset, number]):
                near[row] = np.max(rows.block.rows[rows.groups[number]] @ rows.block.rows[row])
        done(block.stop, count)
    return near, like


def joined(rows: FloatArray, same: float, held: np.ndarray[Any, Any]) -> list[list[int]]:
    """Groups of one person's faces that are joined by similarities of `same` or more.

    rows: (n, d). held: bool (n,), faces a user confirmed: they are joined to one another.
    """
    count = len(rows)
    scores = rows @ rows.T
    linked = (scores >= same) | (held[:, None] & held[None, :])
    part = np.arange(count)
    for _ in range(count):
        lowest = np.where(linked, part[None, :], count).min(axis=1)
        lowest = np.minimum(lowest, part)
        if np.array_equal(lowest, part):
            break
        part = lowest
    return [np.flatnonzero(part == number).tolist() for number in np.unique(part)]


def duplicate_people(
    rows: PersonRows, rules: AuditRules, decided: Decided, suspects: set[int]
) -> list[Finding]:
    """Two people whose best faces are as similar as those of one, the clearest first.

    suspects: faces that do not count, because they may bear the wrong name. Two people who were
    told apart, or of whom a face of one was said not to be the other, are two.
    """
    found = []
    counted = ~np.isin(rows.block.ids, sorted(suspects))
    place = dict(zip(rows.block.ids.tolist(), rows.labels.tolist(), strict=True))
    said = {(rows.names[place[face]], who) for face, who in decided.rejected if face in place}
    for block in _blocks(len(rows.names)):
        scores = rows.templates[block] @ rows.templates.T
        first, second = np.nonzero(scores >= rules.same)
        for i, j in zip(first + block.start, second, strict=True):
            pair = rows.names[i], rows.names[j]
            if i >= j or decided.two(*pair) or pair in said or pair[::-1] in said:
                continue
            one, two = (group[counted[group]] for group in (rows.groups[i], rows.groups[j]))
            if len(one) == 0 or len(two) == 0:
                continue
            table = rows.block.rows[one] @ rows.block.rows[two].T
            a, b = np.unravel_index(int(np.argmax(table)), table.shape)
            if table[a, b] >= rules.double:
                faces = rows.faces([one[a], two[b]])
                found.append(Finding("duplicate_person", pair, faces, float(table[a, b])))
    return sorted(found, key=lambda finding: -(finding.similarity or 0))


def duplicate_photos(rows: PersonRows, decided: Decided) -> list[Finding]:
    """Two faces of one person that are one photo, saved twice; the later one first."""
    found = []
    for person, group in zip(rows.names, rows.groups, strict=True):
        scores = rows.block.rows[group] @ rows.block.rows[group].T
        for i, j in zip(*np.nonzero(np.triu(scores, 1) >= TWICE), strict=True):
            faces = rows.faces([group[j], group[i]])
            if (faces[0], person) not in decided.confirmed:
                found.append(Finding("duplicate_photo", (person,), faces, float(scores[i, j])))
    return found


def poor_samples(view: View, rules: AuditRules, decided: Decided) -> list[Finding]:
    """Faces with a measure below the lowest that is wanted, of people who have a better one."""
    poor: list[Finding] = []
    better: set[str] = set()
    for face in _each_face(view):
        below = [
            (name, face.measures[name])
            for name, lowest in rules.lowest.items()
            if name in face.measures and face.measures[name] < lowest
        ]
        if not below:
            better.add(face.person)
        elif (face.id, face.person) not in decided.confirmed:
            poor.append(Finding("poor_sample", (face.person,), (face.id,), measure=below[0]))
    return [finding for finding in poor if finding.people[0] in better]


def fixes(finding: Finding, gallery: str) -> list[str]:
    """Commands that settle a finding: first the likely one, last those that dismiss it.

    Only a photo that is there twice, or a poor one of a person who has better ones, is deleted.
    """
    place = shlex.quote(gallery)
    face, person = finding.faces[0], shlex.quote(finding.people[0])

    def said(verb: str, rest: str) -> str:
        return f"facenet gallery {verb} {place} {rest}"

    keep = said("confirm", f"--face {face} --person {person}")
    if finding.kind == "wrong_label" and len(finding.people) > 1:
        return [said("move", f"--face {face} --to {shlex.quote(finding.people[1])}"), keep]
    if finding.kind == "wrong_label":
        return [said("split", f"--face {face}"), keep]
    if finding.kind == "two_people":
        away = " ".join(f"--face {number}" for part in finding.parts[:-1] for number in part)
        firsts = [part[0] for part in finding.parts]
        kept = [said("confirm", f"--face {number} --person {person}") for number in firsts]
        return [said("split", away), *kept]
    if finding.kind == "duplicate_person":
        pair = " ".join(shlex.quote(one) for one in finding.people)
        return [said("merge", pair), said("apart", pair)]
    return [said("delete", f"--face {face}"), keep]


def _two(rows: PersonRows, person: str, group: IntArray, parts: list[list[int]]) -> Finding:
    """A person whose faces fall into parts, and nothing tells which of them are the person's."""
    ordered = sorted(parts, key=lambda part: (len(part), part))
    numbers = tuple(rows.faces([int(group[i]) for i in part]) for part in ordered)
    faces = tuple(face for part in numbers for face in part)
    between = _between(rows, group, parts)
    return Finding("two_people", (person,), faces, between, parts=numbers)


def _barred(rows: PersonRows, decided: Decided) -> dict[int, list[int]]:
    """For each row, the numbers of people that it is said not to be."""
    number = {name: at for at, name in enumerate(rows.names)}
    row = {face: at for at, face in enumerate(rows.block.ids.tolist())}
    barred: dict[int, list[int]] = {}
    for face, person in decided.rejected:
        if face in row and person in number:
            barred.setdefault(row[face], []).append(number[person])
    for pair in decided.apart:
        if all(person in number for person in pair):
            one, two = (number[person] for person in pair)
            for at, other in ((one, two), (two, one)):
                for member in rows.groups[at].tolist():
                    barred.setdefault(member, []).append(other)
    return barred


def _each_face(view: View) -> Iterator[EnrolledFace]:
    after: int | None = None
    while batch := view.find(EnrolledFace, after=after, limit=10_000):
        yield from batch
        after = batch[-1].id


def _own(rows: FloatArray) -> FloatArray:
    """Similarity of each face to the template of its person's other faces: (n, d) -> (n,)."""
    if len(rows) == 1:
        return np.full(1, np.nan, np.float32)
    rest = vectors.unit(rows.sum(axis=0, dtype=np.float64) - rows)
    return np.asarray(np.sum(rest * rows, axis=1), np.float32)


def _intruders(
    parts: list[list[int]], near: FloatArray, other: float, held: np.ndarray[Any, Any]
) -> list[list[int]]:
    """The parts that are somebody else's faces; none where it cannot be told which they are."""
    outside = [float(near[part].max()) for part in parts]
    free = [not held[part].any() for part in parts]
    size = max(map(len, parts))
    hosts = [i for i, part in enumerate(parts) if len(part) == size or not free[i]]
    if not all(free):
        hosts = [i for i in hosts if not free[i]]
    if len(hosts) > 1:
        lowest = min(outside[i] for i in hosts)
        hosts = [i for i in hosts if outside[i] < max(other, lowest + CLEARLY)]
    if len(hosts) != 1:
        return []
    return [part for i, part in enumerate(parts) if i != hosts[0] and free[i]]


def _between(rows: PersonRows, group: IntArray, parts: list[list[int]]) -> float:
    """The best similarity between faces of different parts."""
    scores = rows.block.rows[group] @ rows.block.rows[group].T
    part = np.zeros(len(group), np.int64)
    for number, members in enumerate(parts):
        part[members] = number
    return float(scores[part[:, None] != part[None, :]].max())


def _clearness(finding: Finding) -> tuple[int, float, int]:
    gap = (finding.similarity or 0) - (finding.own or 0)
    return KINDS.index(finding.kind), -gap, finding.faces[0]


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))
