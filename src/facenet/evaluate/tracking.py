"""How well tracks follow people: CLEAR MOT and the identity measures.

CLEAR MOT (Bernardin and Stiefelhagen 2008) asks frame by frame: which faces were missed, which
boxes are of nobody, and how often a person's number changed. IDF1, IDP and IDR (Ristani and others
2016) ask over a whole clip: every person is given the one track that covers them best, and only
its boxes count. Both assignments are exact. Definitions are those of py-motmetrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from facenet.assignment import best_pairs
from facenet.errors import InputError, SettingsError

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

OVERLAP = 0.5
"""Intersection over union from which a box shows a face; the value of MOTChallenge."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Boxes of one frame and whose they are.

    boxes: (n, 4), x1 y1 x2 y2 in pixels, finite. ids: whole numbers (n,), each once. counted: bool
    (n,) or None for all; of the truth only: a face that is not counted, because it is hidden, may
    be found or not, and the box that finds it is left out. Raises InputError.
    """

    boxes: NDArray[np.floating]
    ids: NDArray[np.integer]
    counted: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, np.float64).reshape(-1, 4)
        ids = np.asarray(self.ids, np.int64).reshape(-1)
        counted = self.counted
        counted = np.ones(len(ids), np.bool_) if counted is None else np.asarray(counted, np.bool_)
        if not len(boxes) == len(ids) == len(counted) or not np.isfinite(boxes).all():
            raise InputError(
                "A frame should have one finite box, one id and one flag per face; got "
                f"{len(boxes)} boxes, {len(ids)} ids and {len(counted)} flags."
            )
        if len(np.unique(ids)) < len(ids):
            raise InputError(
                f"Each id should be once in a frame; got {str(ids.tolist())[:80]}. Leave out boxes "
                "of no track."
            )
        for name, value in (("boxes", boxes), ("ids", ids), ("counted", counted)):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class TrackScore:
    """What was counted in one clip or several; see `sum_scores`.

    frames. people: of the truth. tracks: numbers that were given. faces: of the truth, in all
    frames. boxes: that were given. misses: faces without a box. false_positives: boxes without a
    face. switches: a face has another number than the last time it was matched. fragmentations: a
    person was found, then not, then found again. id_matches: boxes of the one track that each
    person was given. overlap_sum: of the matched boxes.
    """

    frames: int = 0
    people: int = 0
    tracks: int = 0
    faces: int = 0
    boxes: int = 0
    misses: int = 0
    false_positives: int = 0
    switches: int = 0
    fragmentations: int = 0
    id_matches: int = 0
    overlap_sum: float = 0.0

    @property
    def mota(self) -> float:
        """1 - (misses + false positives + switches) / faces, 1 at best; it may be negative.

        Without a face in the truth: 1 when no box was given either, else 0.
        """
        wrong = self.misses + self.false_positives + self.switches
        return 1 - wrong / self.faces if self.faces else float(not wrong)

    @property
    def idf1(self) -> float:
        """Share of faces and boxes that are of the right track, 0 to 1; 1 without any."""
        return _share(2 * self.id_matches, self.faces + self.boxes)

    @property
    def idp(self) -> float:
        """Share of the boxes that are of the right track, 0 to 1; 1 without any."""
        return _share(self.id_matches, self.boxes)

    @property
    def idr(self) -> float:
        """Share of the faces that are of the right track, 0 to 1; 1 without any."""
        return _share(self.id_matches, self.faces)

    @property
    def overlap(self) -> float:
        """Mean intersection over union of the matched boxes, 0 to 1; 1 without any."""
        return _share(self.overlap_sum, self.faces - self.misses)


def score_tracks(
    truth: Sequence[Labelled], found: Sequence[Labelled], *, overlap: float = OVERLAP
) -> TrackScore:
    """Judge the tracks of one clip. truth, found: one `Labelled` per frame, in order.

    overlap: intersection over union from which a box shows a face, above 0 and at most 1.
    Raises InputError for another number of frames, SettingsError for an overlap that is none.
    """
    if not 0 < overlap <= 1:
        raise SettingsError(f"overlap should be above 0 and at most 1; got {overlap}.")
    if len(truth) != len(found):
        raise InputError(
            "score_tracks should get as many frames found as of the truth; got "
            f"{len(found)} and {len(truth)}."
        )
    tally = _Tally(overlap)
    for there, given in zip(truth, found, strict=True):
        tally.add(there, given)
    return tally.score(len(truth))


def sum_scores(scores: Iterable[TrackScore]) -> TrackScore:
    """The counts of several clips together; people and tracks of each clip are their own."""
    rows = list(scores)
    return TrackScore(
        *(sum(getattr(row, field.name) for row in rows) for field in fields(TrackScore))
    )


def box_overlap(a: Floats, b: Floats) -> Floats:
    """Intersection over union of every box of a with every one of b: (n, 4), (m, 4) -> (n, m)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    whole = np.prod(a[:, 2:] - a[:, :2], axis=1)[:, None] + np.prod(b[:, 2:] - b[:, :2], axis=1)
    return np.asarray(shared / np.maximum(whole - shared, 1e-12), np.float64)


class _Tally:
    """Counts frame by frame."""

    def __init__(self, least: float) -> None:
        self.least = least
        self.counts: Counter[str] = Counter()
        self.overlap_sum = 0.0
        self.last: dict[int, int] = {}
        self.lost: dict[int, bool] = {}
        self.together: Counter[tuple[int, int]] = Counter()
        self.people: set[int] = set()
        self.tracks: set[int] = set()

    def add(self, there: Labelled, given: Labelled) -> None:
        """Count a frame."""
        table = box_overlap(np.asarray(there.boxes), np.asarray(given.boxes))
        table = np.where(table >= self.least, table, 0.0)
        counted = np.asarray(there.counted)
        kept = np.ones(len(given.ids), np.bool_)
        if not counted.all():
            rows, columns = _most(table)
            kept[columns[~counted[rows]]] = False
        table = table[np.ix_(counted, kept)]
        self._count(there.ids[counted].tolist(), given.ids[kept].tolist(), table)

    def _count(self, people: list[int], tracks: list[int], table: Floats) -> None:
        """Count what is left of a frame. table: overlaps, 0 where two are not the same."""
        self.people.update(people)
        self.tracks.update(tracks)
        for row, column in zip(*np.nonzero(table), strict=True):
            self.together[people[row], tracks[column]] += 1
        matched = self._matched(people, tracks, table)
        for row, person in enumerate(people):
            if row in matched:
                self._match(person, tracks[matched[row]])
                self.overlap_sum += float(table[row, matched[row]])
            elif person in self.last:
                self.lost[person] = True
        self.counts["faces"] += len(people)
        self.counts["boxes"] += len(tracks)
        self.counts["misses"] += len(people) - len(matched)
        self.counts["false_positives"] += len(tracks) - len(matched)

    def _matched(self, people: list[int], tracks: list[int], table: Floats) -> dict[int, int]:
        """Row to column: who was matched the last time stays so, then as many as possible."""
        matched: dict[int, int] = {}
        for row, person in enumerate(people):
            track = self.last.get(person)
            if track in tracks:
                column = tracks.index(track)
                if table[row, column] > 0 and column not in matched.values():
                    matched[row] = column
        left = table.copy()
        left[list(matched)] = 0
        left[:, list(matched.values())] = 0
        rows, columns = _most(left)
        return matched | dict(zip(rows.tolist(), columns.tolist(), strict=True))

    def _match(self, person: int, track: int) -> None:
        """A person is matched by a track in this frame."""
        self.counts["switches"] += self.last.get(person, track) != track
        self.counts["fragmentations"] += self.lost.pop(person, False)
        self.last[person] = track

    def score(self, frames: int) -> TrackScore:
        """What was counted."""
        people, tracks = sorted(self.people), sorted(self.tracks)
        table = np.zeros((len(people), len(tracks)))
        for (person, track), count in self.together.items():
            table[people.index(person), tracks.index(track)] = count
        right = int(table[best_pairs(table)].sum())
        return TrackScore(
            frames=frames,
            people=len(people),
            tracks=len(tracks),
            id_matches=right,
            overlap_sum=self.overlap_sum,
            **self.counts,
        )


def _most(table: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """As many pairs of an overlap above 0 as can be, of these the ones that overlap most."""
    return best_pairs(np.where(table > 0, table + min(table.shape), 0.0))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 1.0
