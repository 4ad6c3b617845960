"""The bounds of enrolment, measured on a data set: whom they stop, and whom they should not have.

Three questions, each over every face of the set. All rules at once: what is refused when the set is
enrolled in its order. The rule `conflict`, with everybody enrolled: which faces does it stop that
come under a second name, and which of people who are new? The rule `unlike`: which faces does it
stop that are given to a wrong person, and which that are given to their own?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.evaluation import gather_pictures
from facenet.apps.jobs.gather import Done, Gathered, Gathering
from facenet.data.folders import class_pictures
from facenet.data.pairset import Picture
from facenet.errors import DataError, ImageError
from facenet.faces.looking import measure_faces
from facenet.gallery.judgement import (
    CONFLICT,
    UNLIKE,
    Enrolment,
    Sighting,
    judge_photo,
    rules_for,
)
from facenet.gallery.levels import Rates
from facenet.images import load_image
from facenet.recognizer import Recognizer
from facenet.types import Faces, FloatArray, IntArray

AT_ONCE = 512
"""Faces that are compared with all others at a time: 27 MB for all of LFW."""
MEASURED_AT_ONCE = 100
"""Pictures between two signs of progress."""

Bars = Callable[[str], AbstractContextManager[Done]]
"""From what is counted to a bar that counts it."""


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """Faces in the order of enrolment, the faces of a person together. rows: unit vectors (n, d).
    owner: number of the person (n,), ascending. starts: the first face of each person (p,)."""

    rows: FloatArray
    owner: IntArray
    starts: IntArray

    @classmethod
    def of(cls, rows: FloatArray, names: Sequence[str]) -> People:
        """Faces (n, d) under names, of which equal ones follow each other.

        Raises DataError for fewer than two people.
        """
        fresh = np.array([i == 0 or names[i] != names[i - 1] for i in range(len(names))], np.bool_)
        starts = np.flatnonzero(fresh)
        if len(starts) < 2:
            raise DataError(
                f"Rules of enrolment are measured on the faces of two people or more; there are "
                f"{len(starts)} here. Take a folder with a folder for each person."
            )
        return cls(rows, np.cumsum(fresh) - 1, starts)

    def similarities(self, done: Done) -> Iterator[tuple[int, FloatArray]]:
        """Face after face, its number and its similarity to every face, (n,)."""
        for start in range(0, len(self.rows), AT_ONCE):
            block = self.rows[start : start + AT_ONCE] @ self.rows.T
            yield from enumerate(block, start)
            done(start + len(block), len(self.rows))


def score_rules(
    folder: Path, recognizer: Recognizer, how: Gathering, *, bars: Bars
) -> dict[str, Any]:
    """Measure the rules of enrolment on a data set, a folder per person.

    Rates come from the recognizer's calibration or the model's card; a rule of similarity that
    they do not reach has no figures. Raises DataError.
    """
    pictures = class_pictures(folder)
    with bars("pictures") as done:
        gathered = gather_pictures(recognizer, pictures, how, done=done)
    used = np.flatnonzero(gathered.views.found)
    names = [str(pictures[row].person) for row in used]
    people = People.of(gathered.vectors()[used], names)
    card, contract = recognizer.embedder.card, recognizer.embedder.contract
    rates = Rates(card, contract, recognizer.calibration)
    enrolment = Enrolment(rules_for(recognizer.detection), (), rates.table, card.fmr)
    with bars("measured") as done:
        refused = refusals(pictures, gathered, used, enrolment, done)
    with bars("compared") as done:
        figures = compare(people, refused, enrolment, done)
    return {
        "dataset": folder.resolve().name,
        "model": card.name,
        "contract": contract,
        "faces": len(used),
        "people": len(people.starts),
        "failures": len(gathered.problems),
        "rules": asdict(enrolment.rules),
        **figures,
        "problems": list(gathered.problems.values()),
    }


def refusals(
    pictures: Sequence[Picture], gathered: Gathered, used: IntArray, how: Enrolment, done: Done
) -> list[set[str]]:
    """Codes of the reasons for which each picture is refused by itself. used: the rows of those
    that have a face, int64 (n,)."""
    found = []
    for count, row in enumerate(used.tolist(), 1):
        head = gathered.heads[row]
        faces = Faces(head[None, 1:5], head[None, 5:15].reshape(1, 5, 2), head[None, 0])
        judged = judge_photo(Sighting(faces, _measures(pictures[row], faces)), how)
        found.append({reason.code for reason in judged.reasons})
        if count % MEASURED_AT_ONCE == 0 or count == len(used):
            done(count, len(used))
    return found


def _measures(picture: Picture, faces: Faces) -> list[dict[str, float]]:
    """Measures of the face of a picture; none where it cannot be read any more."""
    try:
        return [] if picture.source is None else measure_faces(load_image(picture.source), faces)
    except ImageError:
        return []


def compare(
    people: People, refused: Sequence[set[str]], how: Enrolment, done: Done
) -> dict[str, Any]:
    """The figures of the rules. refused: codes for which each face is refused by itself."""
    count = len(people.rows)
    conflict, unlike = how.conflict_level(count), how.unlike_level()
    order, seen = _InOrder(people, how), Counter[str]()
    for face, similar in people.similarities(done):
        reasons = refused[face] | order.reasons(face, similar)
        order.kept[face] = not reasons
        order.count_reasons(reasons)
        own = people.owner == people.owner[face]
        others = np.where(own, np.float32(-2), similar)
        alike = np.where(own, similar, np.float32(-2))
        alike[face] = -2
        known = bool(alike.max() > -2)
        seen["known"] += known
        if conflict is not None:
            seen["second"] += known and bool(max(alike.max(), others.max()) >= conflict)
            seen["new"] += bool(others.max() >= conflict)
        if unlike is not None:
            best = np.maximum.reduceat(similar, people.starts)
            mine = people.owner[face]
            seen["wrong"] += int(np.sum(best < unlike)) - int(best[mine] < unlike)
            seen["right"] += known and bool(alike.max() < unlike)
    pairs = count * (len(people.starts) - 1)
    return {
        "in_order": order.to_dict(),
        CONFLICT: None if conflict is None else {
            "similarity": conflict,
            "second_names": _share(seen["second"], seen["known"]),
            "new_people": _share(seen["new"], count),
        },
        UNLIKE: None if unlike is None else {
            "similarity": unlike,
            "wrong_person": _share(seen["wrong"], pairs),
            "right_person": _share(seen["right"], seen["known"]),
        },
    }  # fmt: skip


def _share(part: int, whole: int) -> dict[str, Any]:
    """How many were stopped of how many; the share is None of none."""
    return {"stopped": part, "of": whole, "share": part / whole if whole else None}


class _InOrder:
    """A gallery into which the faces come one after the other. kept: bool (n,), those it took."""

    def __init__(self, people: People, how: Enrolment) -> None:
        self.people, self.how = people, how
        self.kept = np.zeros(len(people.rows), np.bool_)
        self._reasons: Counter[str] = Counter()
        self._refused = 0

    def reasons(self, face: int, similar: FloatArray) -> set[str]:
        """What the rules of similarity say of a face: its similarities (n,) to all faces."""
        own = self.people.owner == self.people.owner[face]
        mine, theirs = similar[self.kept & own], similar[self.kept & ~own]
        nearest = float(mine.max()) if len(mine) else None
        level, found = self.how.conflict_level(int(self.kept.sum())), set()
        if level is not None and len(theirs):
            near = level if nearest is None else max(level, nearest)
            found |= {CONFLICT} if float(theirs.max()) >= near else set()
        unlike = self.how.unlike_level()
        if nearest is not None and unlike is not None and nearest < unlike:
            found.add(UNLIKE)
        return found

    def count_reasons(self, reasons: set[str]) -> None:
        """Keep count of a face that is refused."""
        self._reasons.update(reasons)
        self._refused += bool(reasons)

    def to_dict(self) -> dict[str, Any]:
        """How many were refused, and how many of them for each reason; some for several."""
        reasons = dict(self._reasons.most_common())
        return {**_share(self._refused, len(self.kept)), "reasons": reasons}


def rules_text(values: dict[str, Any]) -> str:
    """The figures for a person."""
    order, conflict, unlike = values["in_order"], values[CONFLICT], values[UNLIKE]
    reasons = ", ".join(f"{count} {code}" for code, count in order["reasons"].items())
    lines = [
        f"{values['faces']:,} faces of {values['people']:,} people, {values['model']}",
        f"all rules, enrolled in order: {order['stopped']} refused ({order['share']:.1%})"
        + (f": {reasons}" if reasons else ""),
    ]
    if conflict is None:
        lines.append("conflict: left out, the rates that are known do not reach so far")
    else:
        lines.append(
            f"conflict at {conflict['similarity']:.3f}: stops {_said(conflict['second_names'])} "
            f"under a second name, {_said(conflict['new_people'])} of new people"
        )
    if unlike is None:
        lines.append("unlike: left out, the rates that are known do not reach so far")
    else:
        lines.append(
            f"unlike at {unlike['similarity']:.3f}: stops {_said(unlike['wrong_person'])} given to "
            f"a wrong person, {_said(unlike['right_person'])} given to the right one"
        )
    return "\n".join(lines)


def _said(share: dict[str, Any]) -> str:
    return "none of 0 faces" if share["share"] is None else f"{share['share']:.2%} of faces"
