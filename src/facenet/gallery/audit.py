"""What is wrong inside a gallery: wrong names, one person as two, two as one, poor faces.

A person's faces are joined where they are similar; faces that are joined to none of the rest stand
out. Whether such a face is the intruder or the host shows by whom else it looks like: where that
does not tell, the person is reported instead of a face. This finds what the rule of InsightFace's
cleaning (far from the own centre) cannot: the intruder among two faces, and swaps.
What a user has ruled (a face confirmed, two people apart) is never reported again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from facenet import vectors
from facenet.gallery.records import Apart, EnrolledFace, Person, Ruling, VectorBlock
from facenet.gallery.store import View
from facenet.types import FloatArray, IntArray

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
    the own person, where it counts. measure: of a poor face, name and value."""

    kind: str
    people: tuple[str, ...]
    faces: tuple[int, ...]
    similarity: float | None = None
    own: float | None = None
    measure: tuple[str, float] | None = None

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


def audit(view: View, contract: str, rules: AuditRules) -> list[Finding]:
    """Everything suspicious in the active space of a gallery, by kind, the clearest first."""
    rows = PersonRows.of(view.vectors(contract))
    if len(rows.block) == 0:
        return []
    rulings = view.find(Ruling)
    confirmed = {(ruling.face, ruling.person) for ruling in rulings if ruling.same}
    apart = {(row.first, row.second) for row in view.find(Apart)}
    wrong = wrong_labels(rows, rules, confirmed)
    suspects = {finding.faces[0] for finding in wrong if finding.kind == "wrong_label"}
    found = [
        *wrong,
        *duplicate_people(rows, rules, apart, suspects),
        *duplicate_photos(rows),
        *poor_samples(view, rules),
    ]
    return sorted(found, key=lambda finding: KINDS.index(finding.kind))


def wrong_labels(
    rows: PersonRows, rules: AuditRules, confirmed: set[tuple[int, str]]
) -> list[Finding]:
    """Faces that do not belong to their person, and people whose faces are those of two."""
    near, like = nearest_others(rows)
    found: list[Finding] = []
    for person, group in zip(rows.names, rows.groups, strict=True):
        held = np.array([(face, person) in confirmed for face in rows.faces(group)])
        parts = joined(rows.block.rows[group], rules.same, held)
        own = _own(rows.block.rows[group])
        if len(parts) == 1:
            wrong = (near[group] >= rules.other) & (near[group] > own + CLEARLY) & ~held
            suspects = [[int(i)] for i in np.flatnonzero(wrong)] if len(group) > 2 else []
        else:
            suspects = _intruders(parts, near[group], rules.other, held)
            if not suspects:
                faces = rows.faces([group[i] for part in sorted(parts, key=len) for i in part])
                found.append(Finding("two_people", (person,), faces, _between(rows, group, parts)))
        for part in suspects:
            for i in part:
                row = int(group[i])
                looks = (rows.names[like[row]],) if near[row] >= rules.other else ()
                found.append(
                    Finding(
                        "wrong_label",
                        (person, *looks),
                        rows.faces([row]),
                        float(near[row]) if looks else None,
                        float(own[i]),
                    )
                )
    return sorted(found, key=_clearness)


def nearest_others(rows: PersonRows) -> tuple[FloatArray, IntArray]:
    """For each face the best similarity to a face of another person, and that person's number.

    The person is looked for by templates, the similarity is that of their best face: (n,), (n,).
    """
    count = len(rows.block)
    near, like = np.full(count, -1, np.float32), np.zeros(count, np.int64)
    if len(rows.names) < 2:
        return near, like
    for block in _blocks(count):
        scores = rows.block.rows[block] @ rows.templates.T
        scores[np.arange(len(scores)), rows.labels[block]] = -np.inf
        best = np.argmax(scores, axis=1)
        like[block] = best
        for offset, number in enumerate(best):
            row = block.start + offset
            near[row] = np.max(rows.block.rows[rows.groups[number]] @ rows.block.rows[row])
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
    rows: PersonRows, rules: AuditRules, apart: set[tuple[str, str]], suspects: set[int]
) -> list[Finding]:
    """Two people whose best faces are as similar as those of one, the clearest first.

    suspects: faces that do not count, because they may bear the wrong name.
    """
    found = []
    counted = ~np.isin(rows.block.ids, sorted(suspects))
    for block in _blocks(len(rows.names)):
        scores = rows.templates[block] @ rows.templates.T
        first, second = np.nonzero(scores >= rules.same)
        for i, j in zip(first + block.start, second, strict=True):
            pair = rows.names[i], rows.names[j]
            if i >= j or pair in apart:
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


def duplicate_photos(rows: PersonRows) -> list[Finding]:
    """Two faces of one person that are one photo, saved twice."""
    found = []
    for person, group in zip(rows.names, rows.groups, strict=True):
        scores = rows.block.rows[group] @ rows.block.rows[group].T
        for i, j in zip(*np.nonzero(np.triu(scores, 1) >= TWICE), strict=True):
            faces = rows.faces([group[j], group[i]])
            found.append(Finding("duplicate_photo", (person,), faces, float(scores[i, j])))
    return found


def poor_samples(view: View, rules: AuditRules) -> list[Finding]:
    """Faces with a measure below the lowest that is wanted, of people who have better ones too."""
    found = []
    for face in _each_face(view):
        for name, lowest in rules.lowest.items():
            value = face.measures.get(name)
            if value is not None and value < lowest:
                found.append(
                    Finding("poor_sample", (face.person,), (face.id,), measure=(name, value))
                )
                break
    return found


def fixes(finding: Finding, gallery: str, people: Mapping[str, Person]) -> list[str]:
    """Commands that settle a finding: first the likely one, last the one that dismisses it."""
    verb, face, person = f"facenet gallery {{}} {gallery}", finding.faces[0], finding.people[0]
    move, delete = verb.format("move"), verb.format("delete")
    if finding.kind == "wrong_label":
        keep = f"{verb.format('confirm')} --face {face} --person {person}"
        if len(finding.people) > 1:
            return [f"{move} --face {face} --to {finding.people[1]}", keep]
        return [f"{delete} --face {face}", keep]
    if finding.kind == "two_people":
        return [
            f"{verb.format('split')} --face {face} --name NAME",
            *(
                f"{verb.format('confirm')} --face {number} --person {person}"
                for number in finding.faces[:2]
            ),
        ]
    if finding.kind == "duplicate_person":
        first, second = finding.people
        return [
            f"{verb.format('merge')} {first} {second}",
            f"{verb.format('apart')} {first} {second}",
        ]
    return [f"{delete} --face {face}"]


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
