"""What a gallery keeps, as frozen rows: people, faces, rulings, spaces, the journal.

A row is checked when it is made, so that nothing unfit reaches a store. Ids of people are opaque
and never used twice; two people may bear one name.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
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
        if len(self.source) > LONGEST_SOURCE:
            raise InputError(
                f"A source should have at most {LONGEST_SOURCE} characters; got "
                f"{len(self.source):,}. Give the path of the photo."
            )
        numbers = [*(self.box or ()), *self.measures.values(), self.quality or 0.0]
        if not all(math.isfinite(number) for number in numbers):
            raise InputError(
                "Box, quality and measures of a face should be finite numbers; got "
                f"{str(numbers)[:120]}. Leave out what is not known."
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
            raise InputError("Two people who are apart should be two, in the order of their ids.")

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
    (n, d), unit length."""

    ids: IntArray
    people: tuple[str, ...]
    rows: FloatArray

    def __len__(self) -> int:
        return len(self.ids)


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


def _require_text(what: str, text: str, longest: int) -> None:
    if not isinstance(text, str) or not text.strip() or len(text) > longest:
        came = f"{len(text):,} characters" if isinstance(text, str) else type(text).__name__
        raise InputError(
            f"{what} should be a text of 1 to {longest} characters; got {came}. Choose a shorter "
            "one."
        )
    if any(ord(letter) < 32 or letter == "\x7f" for letter in text) or not _encodable(text):
        raise InputError(
            f"{what} should be one line of printable text; got {text!r:.80}. Take the control "
            "characters out."
        )


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
