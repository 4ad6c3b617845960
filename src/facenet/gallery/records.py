"""What a gallery keeps, as frozen rows: people, faces, rulings, spaces, the journal.

A row is checked when it is made, so that nothing unfit reaches a store. Ids of people are opaque
and never used twice; two people may bear one name.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ContractError, InputError
from facenet.types import FloatArray, IntArray

LONGEST_NAME = 200
"""Characters of a name or an external id."""
LONGEST_SOURCE = 4096
"""Characters of a source reference."""
LARGEST_METADATA = 16_384
"""Bytes of a person's metadata as JSON."""
LARGEST_CROP = 16_777_216
"""Bytes of a crop."""
MAX_FACE = (1 << 40) - 1
"""The largest id of a face; stores keep the space in the bits above."""
STATES = ("active", "building", "retired")
"""Of a space: searched now; being filled for a change of model; kept for the way back."""
NORM_SLACK = 1e-3
"""How far the length of a vector may be from one."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is enrolled. id: opaque, `new_person_id`. name: need not be unique.
    external_id: unique in a gallery, or None. metadata: a JSON object. created: seconds since
    1970, UTC. automatic: named by a machine (a cluster nobody has named yet)."""

    kind: ClassVar[str] = "person"

    id: str
    name: str
    created: float
    external_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    automatic: bool = False

    def __post_init__(self) -> None:
        _require_id(self.id)
        _set(self, created=_number("The time of a person", self.created))
        _require_text("A person's name", self.name, LONGEST_NAME)
        if self.external_id is not None:
            _require_text("An external id", self.external_id, LONGEST_NAME)
        _require_json("Metadata of a person", self.metadata)

    @property
    def key(self) -> str:
        """What tells this row from others of its kind."""
        return self.id


@dataclass(frozen=True, slots=True)
class EnrolledFace:
    """A face of a person. id: number, never used twice. person: id. photo: SHA-256 of the photo's
    bytes in hex, "" when not known. source: where it lies, as a user would find it. box: x1 y1 x2
    y2 in pixels of the upright photo. quality: 0 to 1 or None. measures: see `faces.quality`."""

    kind: ClassVar[str] = "face"

    id: int
    person: str
    created: float
    photo: str = ""
    source: str = ""
    box: tuple[float, float, float, float] | None = None
    quality: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_number("The id of a face", self.id)
        for text in (self.source, self.photo):
            if not isinstance(text, str) or len(text) > LONGEST_SOURCE or not _encodable(text):
                raise InputError(
                    f"A source should be Unicode text of at most {LONGEST_SOURCE:,} characters; "
                    f"got {text!a:.80}. Give the path of the photo, or another name for it."
                )
        _set(
            self,
            created=_number("The time of a face", self.created),
            box=_box(self.box),
            quality=None if self.quality is None else _number("Quality", self.quality),
            measures={
                str(name): _number("A measure of a face", value)
                for name, value in self.measures.items()
            },
        )

    @property
    def key(self) -> int:
        """What tells this row from others of its kind."""
        return self.id


@dataclass(frozen=True, slots=True)
class Crop:
    """The picture of a face, an encoded image; kept only where a gallery is asked to."""

    kind: ClassVar[str] = "crop"

    face: int
    data: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.data, bytes) or len(self.data) > LARGEST_CROP:
            raise InputError(
                f"A crop should be an encoded picture of at most {LARGEST_CROP:,} bytes; got "
                f"{len(self.data):,}. Keep a smaller one."
            )

    @property
    def key(self) -> int:
        """What tells this row from others of its kind."""
        return self.face


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a user decided: this face is (same) or is not this person. Later runs obey it."""

    kind: ClassVar[str] = "ruling"

    face: int
    person: str
    same: bool
    created: float

    def __post_init__(self) -> None:
        _set(self, same=bool(self.same), created=_number("The time of a ruling", self.created))

    @property
    def key(self) -> str:
        """What tells this row from others of its kind."""
        return f"{self.face}:{self.person}"


@dataclass(frozen=True, slots=True)
class Apart:
    """Two people who look alike and are two: a user said so. first < second."""

    kind: ClassVar[str] = "apart"

    first: str
    second: str
    created: float

    def __post_init__(self) -> None:
        if self.first >= self.second:
            raise InputError(
                "Two people who are apart should be two, in the order of their ids; got "
                f"{self.first:.40} and {self.second:.40}. Give the lower id first."
            )
        _set(self, created=_number("The time of a ruling", self.created))

    @property
    def key(self) -> str:
        """What tells this row from others of its kind."""
        return f"{self.first}:{self.second}"


@dataclass(frozen=True, slots=True)
class Space:
    """Vectors that can be compared: one embedding contract. model: name of the embedder.
    precision: of its arithmetic. state: one of `STATES`; one space of a gallery is active."""

    kind: ClassVar[str] = "space"

    contract: str
    model: str
    dimension: int
    state: str
    created: float
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.state not in STATES or not 1 <= self.dimension <= 65_536:
            raise InputError(
                f"A space should be {', '.join(STATES)} and of 1 to 65,536 values; got "
                f"{self.state!r:.40} and {self.dimension}."
            )
        _set(self, created=_number("The time of a space", self.created))

    @property
    def key(self) -> str:
        """What tells this row from others of its kind."""
        return self.contract


@dataclass(frozen=True, slots=True)
class Entry:
    """A change as the journal keeps it. undo: what takes it back, None when nothing can. people:
    ids it speaks of; when one of them is deleted, the entry goes too."""

    kind: ClassVar[str] = "entry"

    id: int
    time: float
    action: str
    people: tuple[str, ...] = ()
    undo: Mapping[str, Any] | None = None
    undone: bool = False

    def __post_init__(self) -> None:
        _require_number("The id of an entry", self.id)
        _set(self, time=_number("The time of an entry", self.time), people=tuple(self.people))

    @property
    def key(self) -> int:
        """What tells this row from others of its kind."""
        return self.id


@dataclass(frozen=True, slots=True)
class Setting:
    """A named text of a gallery: its settings, a calibration, the id of the gallery."""

    kind: ClassVar[str] = "setting"

    name: str
    value: str

    @property
    def key(self) -> str:
        """What tells this row from others of its kind."""
        return self.name


Row: TypeAlias = Person | EnrolledFace | Crop | Ruling | Apart | Space | Entry | Setting
Key: TypeAlias = str | int


@dataclass(frozen=True, slots=True, eq=False)
class VectorBlock:
    """Vectors of one space in the order of their faces: ids int64 (n,), people n ids, rows float32
    (n, d), unit length. stamps: uint64 (n,), which tell each from every vector and person that
    such a face ever had; None where a store cannot give older ones back."""

    ids: IntArray
    people: tuple[str, ...]
    rows: FloatArray
    stamps: NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Census:
    """How many vectors a space has and how many faces the gallery, and the sum of the stamps of all
    faces, with a vector or without, modulo 2**64."""

    vectors: int
    faces: int
    total: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Faces since a revision: put (new, moved, or with a new vector) and gone."""

    put: tuple[int, ...]
    gone: tuple[int, ...]


def new_person_id() -> str:
    """16 hexadecimal digits from the system's randomness."""
    return secrets.token_hex(8)


def checked_vectors(rows: NDArray[Any], space: Space) -> FloatArray:
    """Vectors fit for a space: float32 (n, d), finite, of length one.

    Raises ContractError for another width, InputError for NaN, infinite or zero vectors and for
    lengths that are not one.
    """
    array = np.atleast_2d(np.asarray(rows, np.float32))
    if array.ndim != 2 or array.shape[1] != space.dimension:
        raise ContractError(
            f"Vectors of {space.model} should have {space.dimension} values; got the shape "
            f"{array.shape}. Embed the photo with the model of this gallery."
        )
    if not np.all(np.isfinite(array)):
        raise InputError("Vectors should hold finite numbers; got NaN or infinity. Embed again.")
    length = np.sqrt(np.sum(array.astype(np.float64) ** 2, axis=1))
    if np.any(np.abs(length - 1) > NORM_SLACK):
        worst = float(length[np.argmax(np.abs(length - 1))])
        raise InputError(
            f"Vectors should have length one; got {worst:.6g}. Scale them with `vectors.unit`; a "
            "zero vector stands for no face."
        )
    return array


def stacked_vectors(rows: Sequence[NDArray[Any]], space: Space) -> FloatArray:
    """Vectors (d,) or (1, d) as one new array float32 (n, d), by `checked_vectors`."""
    arrays = [np.asarray(row, np.float32).reshape(-1) for row in rows]
    for array in arrays:
        if array.shape != (space.dimension,):
            checked_vectors(array, space)
    return checked_vectors(np.stack(arrays), space)


def _set(row: object, **values: Any) -> None:
    """Give fields of a frozen row the plain values that a file can hold."""
    for name, value in values.items():
        object.__setattr__(row, name, value)


def _number(what: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"{what} should be a finite number; got {value!r:.60}. Leave out what is not known."
        )
    return number


def _box(box: Sequence[Any] | None) -> tuple[float, ...] | None:
    numbers = None if box is None else tuple(_number("A box", value) for value in box)
    if numbers is not None and len(numbers) != 4:
        raise InputError(f"A box should be four numbers, x1 y1 x2 y2; got {len(numbers)}.")
    return numbers


def _require_number(what: str, value: Any) -> None:
    if not isinstance(value, int) or not 1 <= value <= MAX_FACE:
        raise InputError(
            f"{what} should be a whole number from 1 to {MAX_FACE:,}; got {value!r:.60}. Ask the "
            "store for the next one."
        )


def _require_id(text: str) -> None:
    _require_text("A person's id", text, LONGEST_NAME)
    if ":" in text:
        raise InputError(
            f"A person's id should hold no colon; got {text:.80}. Make one with `new_person_id`."
        )


def _require_text(what: str, text: str, longest: int) -> None:
    if not isinstance(text, str) or not text.strip() or len(text) > longest:
        came = f"{len(text):,} characters" if isinstance(text, str) else type(text).__name__
        raise InputError(
            f"{what} should be a text of 1 to {longest} characters; got {came}. Choose a shorter "
            "one."
        )
    if not is_line(text):
        raise InputError(
            f"{what} should be one line of printable text; got {text!r:.80}. Take the control "
            "characters out."
        )


def is_line(text: str) -> bool:
    """Whether a text is one line without control characters that can be encoded as UTF-8."""
    return _encodable(text) and not any(ord(mark) < 32 or mark == "\x7f" for mark in text)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _require_json(what: str, value: Mapping[str, Any]) -> None:
    try:
        size = len(json.dumps(dict(value), allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError) as error:
        raise InputError(f"{what} should be a JSON object; got {type(value).__name__}.") from error
    if size > LARGEST_METADATA:
        raise InputError(
            f"{what} should have at most {LARGEST_METADATA:,} bytes as JSON; got {size:,}. Keep "
            "the rest elsewhere, under the person's id."
        )
