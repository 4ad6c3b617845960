"""What a recognizer sees in the pictures of a data set: the work before every evaluation.

One face per picture is chosen, cropped and put through the network, and, where a protocol asks
for it, its mirror image too. What was seen is remembered by content (see `vectorcache`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from threading import Lock
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
from facenet.faces.flow import Flow, FlowLimits
from facenet.faces.pipeline import LIMITS, batch_of, bytes_to_read
from facenet.faces.quality import sharpness
from facenet.images import OpenedImage, open_image
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
    seconds: spent per stage, which go on side by side. remembered: rows that were known from an
    earlier run. digest: SHA-256 over the contents of all pictures, in their order.
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
    """A picture on its way: its content's digest; the row that is known of it, or becomes known;
    the head of the face that is known (none: empty); the face that was chosen; or a problem."""

    row: int
    picture: Picture
    digest: bytes = b""
    known: FloatArray | None = None
    head: FloatArray | None = None
    opened: OpenedImage | None = None
    pixels: ImageArray | None = None
    faces: Faces | None = None
    fresh: FloatArray | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Clock:
    seconds: dict[str, float] = field(
        default_factory=lambda: {"read": 0.0, "detect": 0.0, "embed": 0.0}
    )
    _lock: Lock = field(default_factory=Lock)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the seconds of what goes on inside; several threads may do so."""
        start = perf_counter()
        yield
        with self._lock:
            self.seconds[stage] += perf_counter() - start


class Gatherer:
    """Looks at pictures with one recognizer. Raises StorageError when the cache cannot be used."""

    def __init__(self, recognizer: Recognizer, how: Gathering, limits: FlowLimits = LIMITS) -> None:
        self._recognizer, self._how, self._limits = recognizer, how, limits
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
        stages = _Looking(self._recognizer, self._how, self._found, self._clock)
        with Flow(stages, self._limits).run(self._listed(pictures)) as seen:
            while group := list(islice(seen, GROUP)):
                for item in group:
                    self._whole.update(item.digest or bytes(32))
                problems |= {item.row: item.problem for item in group if item.problem}
                known = {item.row: item.known for item in group if item.known is not None}
                fresh = {item.row: item.fresh for item in group if item.fresh is not None}
                self._cache.keep(
                    {item.digest: item.fresh for item in group if item.fresh is not None}
                )
                rows |= known | fresh
                remembered += len(known)
                count += len(group)
                done(count, len(pictures))
        for row, line in rows.items():
            if len(line) == 0:
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

    def _listed(self, pictures: Sequence[Picture]) -> Iterator[_Read]:
        """The pictures with what is remembered of each, asked for in groups."""
        for start in range(0, len(pictures), GROUP):
            with self._clock.time("read"):
                group = list(enumerate(pictures[start : start + GROUP], start))
                digests = {row: _digest(picture) for row, picture in group}
                known = self._cache.find([digest for digest in digests.values() if digest])
                known = {digest: line for digest, line in known.items() if self._enough(line)}
                asked = [digest for digest in digests.values() if digest and digest not in known]
                heads = self._found.find(asked)
            for row, picture in group:
                digest = digests[row]
                problem = f"No such picture: {picture.name}." if picture.source is None else ""
                yield _Read(
                    row, picture, digest, known.get(digest), heads.get(digest), problem=problem
                )

    def _enough(self, line: FloatArray) -> bool:
        """Whether a remembered row holds what is asked for."""
        both = HEAD + 2 * self._width
        return len(line) in ((0, both) if self._how.mirrors else (0, both - self._width, both))

    def _folder(self) -> Path | None:
        known = self._recognizer.detection or self._how.aligned
        return cache_folder() if self._how.remember and known else None

    def _terms(self) -> dict[str, str]:
        """Everything that what is seen depends on, but the picture."""
        embedder = self._recognizer.embedder
        return {
            **self._finding(),
            "embedder": embedder.card.contract,
            "precision": embedder.arithmetic,
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


class _Looking:
    """What is done with a picture, stage by stage; see `flow.Stages`."""

    def __init__(
        self, recognizer: Recognizer, how: Gathering, found: VectorCache, clock: _Clock
    ) -> None:
        self._recognizer, self._how, self._found, self._clock = recognizer, how, found, clock
        self._preprocess = recognizer.embedder.preprocess
        self.batch = batch_of(recognizer.embedder)

    def weigh(self, item: _Read) -> int:
        """Bytes that will be read for a picture."""
        return 0 if item.known is not None else bytes_to_read(item.picture.source)

    def open(self, item: _Read) -> _Read:
        """Read a picture that is not known."""
        if item.known is not None or item.picture.source is None:
            return item
        with self._clock.time("read"):
            try:
                return replace(item, opened=open_image(item.picture.source))
            except ImageError as error:
                return _refused(item, error)

    def cost(self, item: _Read) -> int:
        """Bytes of the file and the pixels."""
        if item.pixels is not None:
            return item.pixels.nbytes
        return 0 if item.opened is None else item.opened.held + item.opened.decoded

    def decode(self, item: _Read) -> _Read:
        """The pixels of a picture."""
        if item.opened is None:
            return item
        with self._clock.time("read"):
            try:
                return replace(item, opened=None, pixels=item.opened.pixels())
            except ImageError as error:
                return _refused(replace(item, opened=None), error)

    def look(self, items: Sequence[_Read]) -> list[_Read]:
        """The chosen face of each picture; of a crop the whole picture."""
        with self._clock.time("detect"):
            faces = {item.row: _told(item, self._how.aligned) for item in items}
            asked = [i for i in items if faces[i.row] is None and i.pixels is not None]
            images = [item.pixels for item in asked if item.pixels is not None]
            found = self._recognizer.detector.detect(images) if images else []
            for item, image, seen in zip(asked, images, found, strict=True):
                size = (image.shape[1], image.shape[0])
                faces[item.row] = select_faces(seen, self._how.select, size)
            self._found.keep({item.digest: _head(faces[item.row]) for item in asked})
        return [replace(item, faces=faces[item.row]) for item in items]

    def crop(self, item: _Read) -> tuple[_Read, ImageArray]:
        """The crop of the face, (1, H, W, 3), or none."""
        crops = np.empty((0, self._preprocess.height, self._preprocess.width, 3), np.uint8)
        if item.pixels is None or item.faces is None:
            return item, crops
        with self._clock.time("embed"):
            try:
                crops = self._crops(item.pixels, item.faces)
            except InputError as error:
                problem = f"{item.picture.name}: {error}"
                return replace(item, pixels=None, faces=None, problem=problem), crops
        return replace(item, pixels=None), crops

    def _crops(self, image: ImageArray, faces: Faces) -> ImageArray:
        if self._how.aligned:
            size = (self._preprocess.width, self._preprocess.height)
            fits = (image.shape[1], image.shape[0]) == size
            return (image if fits else resize_bilinear(image, *size))[None]
        return crop_faces(image, faces, self._preprocess)

    def embed(self, crops: ImageArray) -> FloatArray:
        """Sharpness and outputs of crops: (n, H, W, 3) -> (n, 1 + d), (n, 1 + 2 d) with mirrors."""
        with self._clock.time("embed"):
            outputs = self._recognizer.embedder.outputs
            parts = [sharpness(crops)[:, None], outputs(crops)]
            if self._how.mirrors:
                parts.append(outputs(np.ascontiguousarray(crops[:, :, ::-1])))
            return np.concatenate(parts, axis=1, dtype=np.float32)

    def finish(self, item: _Read, rows: FloatArray | None) -> _Read:
        """The picture with its row, empty without a face; rows: (n, k) of its crops, n 0 or 1."""
        if item.faces is None or rows is None:
            return item
        fresh = np.concatenate([_head(item.faces), *rows])
        return replace(item, faces=None, fresh=fresh)


def _refused(item: _Read, error: ImageError) -> _Read:
    """A picture that cannot be read."""
    named = isinstance(item.picture.source, Path)
    return replace(item, problem=str(error) if named else f"{item.picture.name}: {error}")


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


def _told(item: _Read, aligned: bool) -> Faces | None:
    """The face of a picture, where it need not be looked for."""
    if item.pixels is None:
        return None
    if aligned:
        return _whole(item.pixels)
    if item.picture.landmarks is not None:
        return _given(item.picture.landmarks)
    known = item.head is not None and len(item.head) in (0, HEAD - 1)
    return _remembered(item.head) if known and item.head is not None else None


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
