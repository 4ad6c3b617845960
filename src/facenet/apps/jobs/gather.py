"""What a recognizer sees in the pictures of a data set: the work before every evaluation.

One face per picture is chosen, cropped and put through the network, and, where a protocol asks
for it, its mirror image too. What was seen is remembered by content (see `vectorcache`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from facenet import __version__
from facenet.apps.jobs.vectorcache import VectorCache, cache_folder
from facenet.data.pairset import Picture
from facenet.errors import ImageError, InputError, SettingsError
from facenet.evaluate.verification import Views
from facenet.faces.align import crop_faces
from facenet.faces.bilinear import resize_bilinear
from facenet.faces.detect import RULES, select_faces
from facenet.faces.quality import sharpness
from facenet.images import load_image
from facenet.recognizer import GROUP, Recognizer
from facenet.types import Faces, FloatArray, ImageArray
from facenet.vectors import unit

Done = Callable[[int, int], None]
"""Called with pictures done and pictures in all."""

REVISION = 1
"""Raised whenever this version sees pictures otherwise than the last one did."""
HEAD = 16
"""Values of a remembered row before its vectors: score, box, landmarks, sharpness."""


@dataclass(frozen=True, slots=True)
class Gathering:
    """How pictures are looked at.

    select: which of several faces, a key of `faces.detect.RULES`. aligned: they are crops already
    and no face is looked for. mirrors: look at mirror images too. remember: use the cache.
    Raises SettingsError for another rule.
    """

    select: str = "center_weighted_size"
    aligned: bool = False
    mirrors: bool = False
    remember: bool = True

    def __post_init__(self) -> None:
        if self.select not in RULES:
            raise SettingsError(f"select should be one of {', '.join(RULES)}; got {self.select!r}.")


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """What was seen in each of m pictures.

    views: the network's outputs. heads: float32 (m, 16), detection score, box, five landmarks,
    sharpness; NaN without a face. problems: a sentence for each row without a face.
    seconds: spent per stage; reading goes on beside the other stages. remembered: rows that were
    known from an earlier run. digest: SHA-256 over the contents of all pictures, in their order.
    """

    views: Views
    heads: FloatArray
    problems: Mapping[int, str]
    seconds: Mapping[str, float]
    remembered: int
    digest: str

    def vectors(self) -> FloatArray:
        """One unit vector per picture, with the mirror image summed in where it was looked at.

        Returns float32 (m, d); zeros without a face.
        """
        total = self.views.plain
        if self.views.mirrored is not None:
            total = total + self.views.mirrored
        return unit(np.where(self.views.found[:, None], total, 0))

    @property
    def boxes(self) -> FloatArray:
        """The chosen faces: float32 (m, 4), x1 y1 x2 y2 in pixels; NaN without a face."""
        return self.heads[:, 1:5]

    @property
    def landmarks(self) -> FloatArray:
        """Their five points: float32 (m, 5, 2), x y in pixels; NaN without."""
        return self.heads[:, 5:15].reshape(-1, 5, 2)


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A picture on its way: its content's digest, and all that is known of it, or its pixels with
    the face that is known (none: empty), or a reason."""

    row: int
    digest: bytes = b""
    known: FloatArray | None = None
    face: FloatArray | None = None
    pixels: ImageArray | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Clock:
    seconds: dict[str, float] = field(
        default_factory=lambda: {"read": 0.0, "detect": 0.0, "embed": 0.0}
    )

    def time(self, stage: str, start: float) -> None:
        self.seconds[stage] += perf_counter() - start


class Gatherer:
    """Looks at pictures with one recognizer. Raises StorageError when the cache cannot be used."""

    def __init__(self, recognizer: Recognizer, how: Gathering) -> None:
        self._recognizer, self._how = recognizer, how
        self._width = int(recognizer.embedder.card.dimension or 0)
        self._cache = VectorCache(self._terms(), self._folder())
        self._found = VectorCache(self._finding(), None if how.aligned else self._folder())
        self._clock = _Clock()
        self._whole = hashlib.sha256()

    def gather(self, pictures: Sequence[Picture], done: Done) -> Gathered:
        """Look at all pictures; a broken one is a problem of its own and does not stop the rest."""
        rows: dict[int, FloatArray] = {}
        problems: dict[int, str] = {}
        remembered = count = 0
        self._whole = hashlib.sha256()
        for group in self._groups(pictures):
            for item in group:
                self._whole.update(item.digest or bytes(32))
            problems |= {item.row: item.problem for item in group if item.problem}
            known = {item.row: item.known for item in group if item.known is not None}
            rows |= known
            remembered += len(known)
            fresh = self._look(group, pictures, problems)
            self._cache.keep({item.digest: fresh[item.row] for item in group if item.row in fresh})
            rows |= fresh
            count += len(group)
            done(count, len(pictures))
        for row, seen in rows.items():
            if len(seen) == 0:
                problems[row] = f"No face was found in {pictures[row].name}."
        return self._gathered(len(pictures), rows, problems, remembered)

    def _gathered(
        self, count: int, rows: dict[int, FloatArray], problems: dict[int, str], remembered: int
    ) -> Gathered:
        width = HEAD + self._width * (2 if self._how.mirrors else 1)
        table = np.full((count, width), np.nan, np.float32)
        for row, seen in rows.items():
            if len(seen):
                table[row] = seen[:width]
        plain, mirrored = table[:, HEAD : HEAD + self._width], table[:, HEAD + self._width :]
        views = Views(
            plain,
            mirrored if self._how.mirrors else None,
            np.array([len(rows.get(row, ())) > 0 for row in range(count)], bool),
        )
        ordered = {row: problems[row] for row in sorted(problems)}
        seconds, digest = dict(self._clock.seconds), self._whole.hexdigest()
        return Gathered(views, table[:, :HEAD], ordered, seconds, remembered, digest)

    def _look(
        self, group: Sequence[_Read], pictures: Sequence[Picture], problems: dict[int, str]
    ) -> dict[int, FloatArray]:
        """Rows of the pictures of a group that are not known; reasons go into `problems`."""
        images = {item.row: item.pixels for item in group if item.pixels is not None}
        faces = self._faces([item for item in group if item.pixels is not None], pictures)
        crops: dict[int, ImageArray] = {}
        start = perf_counter()
        for row, image in images.items():
            try:
                crops[row] = self._crops(image, faces[row])
            except InputError as error:
                problems[row] = f"{pictures[row].name}: {error}"
        used = [row for row in crops if len(crops[row])]
        found = {row: np.empty(0, np.float32) for row in crops}
        if used:
            stacked = np.concatenate([crops[row] for row in used])
            heads = np.stack([_head(faces[row]) for row in used])
            parts = [heads, sharpness(stacked)[:, None], self._outputs(stacked)]
            if self._how.mirrors:
                parts.append(self._outputs(np.ascontiguousarray(stacked[:, :, ::-1])))
            found |= dict(zip(used, np.concatenate(parts, axis=1, dtype=np.float32), strict=True))
        self._clock.time("embed", start)
        return found

    def _outputs(self, crops: ImageArray) -> FloatArray:
        return self._recognizer.embedder.outputs(crops)

    def _faces(self, group: Sequence[_Read], pictures: Sequence[Picture]) -> dict[int, Faces]:
        """The chosen face of each picture; of a crop the whole picture."""
        start = perf_counter()
        faces = {item.row: _told(item, pictures[item.row], self._how.aligned) for item in group}
        asked = [item for item in group if faces[item.row] is None and item.pixels is not None]
        images = [item.pixels for item in asked if item.pixels is not None]
        found = self._recognizer.detector.detect(images) if images else []
        for item, image, seen in zip(asked, images, found, strict=True):
            size = (image.shape[1], image.shape[0])
            faces[item.row] = select_faces(seen, self._how.select, size)
        self._found.keep({item.digest: _head(faces[item.row]) for item in asked})
        self._clock.time("detect", start)
        return {row: face for row, face in faces.items() if face is not None}

    def _crops(self, image: ImageArray, faces: Faces) -> ImageArray:
        preprocess = self._recognizer.embedder.preprocess
        if self._how.aligned:
            size = (preprocess.width, preprocess.height)
            fits = (image.shape[1], image.shape[0]) == size
            return (image if fits else resize_bilinear(image, *size))[None]
        return crop_faces(image, faces, preprocess)

    def _groups(self, pictures: Sequence[Picture]) -> Iterator[list[_Read]]:
        """Pictures in groups, read ahead by a thread."""
        starts = range(0, len(pictures), GROUP)
        with ThreadPoolExecutor(1) as pool:
            coming = None
            for start in starts:
                ready, coming = coming, pool.submit(self._read_group, pictures, start)
                if ready:
                    yield ready.result()
            if coming:
                yield coming.result()

    def _read_group(self, pictures: Sequence[Picture], start: int) -> list[_Read]:
        began = perf_counter()
        rows = range(start, min(start + GROUP, len(pictures)))
        digests = {row: _digest(pictures[row]) for row in rows}
        known = self._cache.find([digest for digest in digests.values() if digest])
        group = [self._read(row, pictures[row], digests[row], known) for row in rows]
        faces = self._found.find([item.digest for item in group if item.pixels is not None])
        group = [replace(item, face=faces.get(item.digest)) for item in group]
        self._clock.time("read", began)
        return group

    def _read(
        self, row: int, picture: Picture, digest: bytes, known: Mapping[bytes, FloatArray]
    ) -> _Read:
        if picture.source is None:
            return _Read(row, digest, problem=f"No such picture: {picture.name}.")
        seen = known.get(digest)
        both = HEAD + 2 * self._width
        enough = (0, both) if self._how.mirrors else (0, both - self._width, both)
        if seen is not None and len(seen) in enough:
            return _Read(row, digest, known=seen)
        try:
            return _Read(row, digest, pixels=load_image(picture.source))
        except ImageError as error:
            said = str(error)
            named = said if isinstance(picture.source, Path) else f"{picture.name}: {said}"
            return _Read(row, digest, problem=named)

    def _folder(self) -> Path | None:
        known = self._recognizer.detection or self._how.aligned
        return cache_folder() if self._how.remember and known else None

    def _terms(self) -> dict[str, str]:
        """Everything that what is seen depends on, but the picture."""
        embedder = self._recognizer.embedder
        return {
            **self._finding(),
            "embedder": embedder.card.contract,
            "precision": str(embedder.precision),
        }

    def _finding(self) -> dict[str, str]:
        """Everything that the chosen face depends on, but the picture: the same for all models."""
        engine, how = self._recognizer.embedder.engine, self._how
        return {
            "facenet": f"{__version__}/{REVISION}",
            "engine": f"{engine['engine']} {engine['version']} {engine['device']}",
            "detection": "aligned" if how.aligned else self._recognizer.detection,
            "select": "" if how.aligned else how.select,
        }


def _digest(picture: Picture) -> bytes:
    """SHA-256 of a picture's content and given points; empty when there is none to be read."""
    content = _content_digest(picture)
    if picture.landmarks is None or not content:
        return content
    return hashlib.sha256(content + np.array(picture.landmarks, "<f8").tobytes()).digest()


def _content_digest(picture: Picture) -> bytes:
    if isinstance(picture.source, bytes):
        return hashlib.sha256(picture.source).digest()
    try:
        if picture.source is not None and picture.source.is_file():
            with picture.source.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
    except OSError:  # reading it for its pixels will say why
        pass
    return b""


def _told(item: _Read, picture: Picture, aligned: bool) -> Faces | None:
    """The face of a picture, where it need not be looked for."""
    if aligned and item.pixels is not None:
        return _whole(item.pixels)
    if picture.landmarks is not None:
        return _given(picture.landmarks)
    known = item.face is not None and len(item.face) in (0, HEAD - 1)
    return _remembered(item.face) if known and item.face is not None else None


def _remembered(head: FloatArray) -> Faces:
    """The face that `_head` wrote down."""
    if len(head) == 0:
        return Faces.empty()
    points = head[5:15].reshape(1, 5, 2)
    landmarks = points if np.isfinite(points).all() else None
    return Faces(head[None, 1:5], landmarks, head[:1])


def _head(faces: Faces | None) -> FloatArray:
    """Score, box and landmarks of one face: float32 (15,), empty without one."""
    if faces is None or len(faces) == 0:
        return np.empty(0, np.float32)
    points = np.full((1, 5, 2), np.nan) if faces.landmarks is None else faces.landmarks
    return np.concatenate([faces.detection_score[:1], faces.boxes[0], points[0].ravel()])


def _given(landmarks: Sequence[float]) -> Faces:
    """A face known by its five points."""
    points = np.array(landmarks, np.float32).reshape(1, 5, 2)
    box = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return Faces(box, points, np.ones(1, np.float32))


def _whole(image: ImageArray) -> Faces:
    """A face that fills its picture."""
    box = np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32)
    return Faces(box, None, np.ones(1, np.float32))
