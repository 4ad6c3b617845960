"""The faces of frames that were not looked at, by the tracks of the two frames around them."""

from __future__ import annotations

import numpy as np

from facenet.faces.boxes import Indices
from facenet.faces.detect import largest_first
from facenet.faces.strided import SPREAD
from facenet.types import Faces, FloatArray


def between(before: Faces, after: Faces, share: float) -> Faces:
    """Faces at a share, 0 to 1, of the way from one frame that was looked at to the next.

    before, after: with `track_id`. Faces of one track go from one place to the other at an even
    pace; of a new one its first is known, see `begun`. A face of no track, or of a track in only
    one of the frames, stays where it is in all frames between: whoever is nearest may be somebody
    else, and one that is to be hidden is. Gives boxes, landmarks, detection scores and `track_id`,
    the largest face first.
    """
    one, two = _bare(before), _bare(after)
    rows, columns = _pairs(one, two)
    left, right = one[rows], two[columns]
    alone = [one[_others(len(one), rows)], two[_others(len(two), columns)]]
    boxes = np.concatenate([_mixed(left.boxes, right.boxes, share), *(a.boxes for a in alone)])
    scores = _mixed(left.detection_score, right.detection_score, share)
    scores = np.concatenate([scores, *(a.detection_score for a in alone)])
    ids = np.concatenate([left.tracks, *(a.tracks for a in alone)])
    return largest_first(Faces(boxes, _points((left, right), alone, share), scores, track_id=ids))


def moved_on(predicted: Faces, last: Faces) -> Faces:
    """Tracks where they should be by now, and faces of no track where they were in the last frame
    that was looked at. predicted, last: with `track_id`."""
    one, two = _bare(predicted), _bare(last)
    two = two[two.tracks <= 0]
    still = (one[[]], one[[]])
    boxes = np.concatenate([one.boxes, two.boxes])
    scores = np.concatenate([one.detection_score, two.detection_score])
    ids = np.concatenate([one.tracks, two.tracks])
    return largest_first(Faces(boxes, _points(still, [one, two], 0.0), scores, track_id=ids))


def renamed(faces: Faces, moved: dict[int, int]) -> Faces:
    """Faces whose tracks were found to be others: number -> number."""
    if faces.track_id is None or not moved:
        return faces
    ids = [moved.get(number, number) for number in faces.track_id.tolist()]
    return faces.with_(track_id=np.array(ids, np.int64))


def begun(faces: Faces, first: dict[int, FloatArray]) -> Faces:
    """Faces, those of them numbered that were the first of a track: number -> its box (4,)."""
    ids = faces.tracks.copy()
    for number, box in first.items():
        ids[(ids <= 0) & np.all(faces.boxes == box, axis=1)] = number
    return faces.with_(track_id=ids)


def spread(boxes: FloatArray) -> FloatArray:
    """Boxes (n, 4) as much larger about their centres as `SPREAD` says."""
    more = (boxes[:, 2:] - boxes[:, :2]) * np.float32((SPREAD - 1) / 2)
    return np.asarray(boxes + np.concatenate([-more, more], axis=1), np.float32)


def _pairs(one: Faces, two: Faces) -> tuple[Indices, Indices]:
    """Rows of faces of one track: (k,), (k,)."""
    mine, theirs = one.tracks, two.tracks
    rows, columns = np.nonzero((mine[:, None] == theirs) & (mine[:, None] > 0))
    return rows, columns


def _bare(faces: Faces) -> Faces:
    """Boxes, landmarks, scores and tracks alone."""
    return Faces(faces.boxes, faces.landmarks, faces.detection_score, track_id=faces.tracks)


def _others(count: int, rows: Indices) -> Indices:
    return np.setdiff1d(np.arange(count), rows)


def _mixed(one: FloatArray, two: FloatArray, share: float) -> FloatArray:
    """(k, ...) values on their way from one to the other."""
    return np.asarray(one * np.float32(1 - share) + two * np.float32(share), np.float32)


def _points(moving: tuple[Faces, Faces], alone: list[Faces], share: float) -> FloatArray | None:
    """Landmarks (n, 5, 2), unless there is a face without."""
    columns = [faces.landmarks for faces in (*moving, *alone) if len(faces)]
    known = [column for column in columns if column is not None]
    if len(known) < len(columns):
        return None
    if not known:
        return np.zeros((0, 5, 2), np.float32)
    if len(moving[0]):
        known = [_mixed(known[0], known[1], share), *known[2:]]
    return np.concatenate(known)
