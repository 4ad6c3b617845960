"""A frame that is looked at: its faces found, measured and, where it is needed, embedded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from facenet.errors import InputError
from facenet.faces.boxes import overlap
from facenet.faces.detect import Detector
from facenet.faces.embed import Embedder
from facenet.faces.looking import measure_faces
from facenet.faces.strided import Strided
from facenet.types import Faces, FloatArray, ImageArray, IntArray
from facenet.video.between import spread
from facenet.video.settings import WatchSettings
from facenet.video.template import face_quality

SAME = 0.4
"""Overlap (IoU) from which a face is that of the frame before."""


class Looking:
    """Finds faces and embeds them.

    embedder: None tells nobody apart. settled: says of numbers of tracks, (n,), whether it is known
    who they are; then faces are embedded in every `settings.embed_every`-th frame only.
    """

    def __init__(
        self,
        detector: Detector,
        embedder: Embedder | None,
        settings: WatchSettings,
        settled: Callable[[IntArray], bool],
    ) -> None:
        self._strided = Strided(detector, resize=settings.resize)
        self._embedder, self._every, self._settled = embedder, settings.embed_every, settled
        self._since = 0
        self.embedded = 0

    def see(self, image: ImageArray, before: Faces | None) -> tuple[Faces, list[float]]:
        """The faces of a picture, uint8 (H, W, 3) RGB, and the quality of each.

        before: those of the last frame that was looked at, with the numbers of their tracks; None
        where there is none of this size. `Faces.quality` is set, embeddings where they were made;
        of a face that cannot be embedded the vector is zero, and so is the quality.
        """
        faces = next(self._strided.frames([image]))
        inside = share_inside(faces.boxes, image).tolist()
        quality = [
            face_quality({**measures, "inside": share})
            for measures, share in zip(measure_faces(image, faces), inside, strict=True)
        ]
        if self._embedder is not None and len(faces) and self._needed(faces, before):
            faces, good = _embedded(self._embedder, image, faces)
            quality = [value if fine else 0.0 for value, fine in zip(quality, good, strict=True)]
            self.embedded += len(faces)
            self._since = 0
        return faces.with_(quality=np.array(quality, np.float32)), quality

    def _needed(self, faces: Faces, before: Faces | None) -> bool:
        self._since += 1
        if self._since >= self._every or before is None or before.track_id is None:
            return True
        return (
            len(faces) != len(before)
            or not _alone(faces.boxes)
            or bool(np.any(before.track_id <= 0))
            or bool(np.any(overlap(faces.boxes, before.boxes).max(axis=0, initial=0) < SAME))
            or not self._settled(before.track_id)
        )


def share_inside(boxes: FloatArray, image: ImageArray) -> FloatArray:
    """How much of each box, float32 (n, 4), is in a picture, uint8 (H, W, 3): float32 (n,)."""
    far = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
    seen = np.clip(boxes, 0, far)
    areas = [np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (seen, boxes)]
    return np.asarray(areas[0] / np.maximum(areas[1], 1e-6), np.float32)


def _alone(boxes: FloatArray) -> bool:
    """Whether no two boxes, (n, 4), are near each other."""
    shared = overlap(spread(boxes), spread(boxes))
    return not np.any(shared[~np.eye(len(boxes), dtype=bool)] > 0)


def _embedded(embedder: Embedder, image: ImageArray, faces: Faces) -> tuple[Faces, Sequence[bool]]:
    """The faces with vectors, and which of them could be cropped."""
    try:
        return embedder.embed([image], [faces])[0], [True] * len(faces)
    except InputError:
        rows = [_one(embedder, image, faces[[row]]) for row in range(len(faces))]
    width = next((len(row) for row in rows if row is not None), int(embedder.card.dimension or 0))
    table = np.stack([np.zeros(width, np.float32) if row is None else row for row in rows])
    good = [row is not None for row in rows]
    return faces.with_(embedding=table, contract=embedder.contract), good


def _one(embedder: Embedder, image: ImageArray, face: Faces) -> FloatArray | None:
    try:
        found = embedder.embed([image], [face])[0].embedding
    except InputError:  # it lies outside the frame, or its points coincide
        return None
    return None if found is None else found[0]
