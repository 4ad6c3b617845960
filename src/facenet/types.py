"""The one currency of facenet: the faces of one image, as a frozen record.

Frame of every coordinate: pixels of the EXIF-corrected original image, x to the right, y down,
the origin at the outer corner of the top-left pixel as MTCNN uses it.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from facenet.errors import ContractError, InputError

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
ImageArray = NDArray[np.uint8]

LANDMARK_NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
"""Order of the five points; left and right as they appear in the image."""


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face of an image.

    box: float32 (4,), x1 y1 x2 y2 in pixels. landmarks: float32 (5, 2) or None.
    detection_score: 0 to 1. embedding: float32 (d,), unit length, or None.
    quality: 0 to 1 or None. track_id: number of the track or None. contract: see `Faces`.
    """

    box: FloatArray
    landmarks: FloatArray | None
    detection_score: float
    embedding: FloatArray | None = None
    quality: float | None = None
    track_id: int | None = None
    contract: str | None = None

    @property
    def width(self) -> float:
        """Width of the box in pixels."""
        return float(self.box[2] - self.box[0])

    @property
    def height(self) -> float:
        """Height of the box in pixels."""
        return float(self.box[3] - self.box[1])

    @property
    def xywh(self) -> tuple[float, float, float, float]:
        """The box as left, top, width, height in pixels."""
        return float(self.box[0]), float(self.box[1]), self.width, self.height

    @property
    def css(self) -> tuple[float, float, float, float]:
        """The box as top, right, bottom, left in pixels (the order of `face_recognition`)."""
        x1, y1, x2, y2 = (float(v) for v in self.box)
        return y1, x2, y2, x1

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON; fields that are None are left out."""
        optional = {
            "landmarks": None if self.landmarks is None else _rounded(self.landmarks),
            "embedding": None if self.embedding is None else self.embedding.tolist(),
            "quality": self.quality,
            "track_id": self.track_id,
            "contract": self.contract,
        }
        return {
            "box": _rounded(self.box),
            "detection_score": round(self.detection_score, 6),
            **{key: value for key, value in optional.items() if value is not None},
        }

    def to_json(self) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict())


@dataclass(frozen=True, slots=True, eq=False)
class Faces(Sequence[Face]):
    """The faces of one image: arrays of equal length n, checked when the record is made.

    boxes: float32 (n, 4), x1 y1 x2 y2. landmarks: float32 (n, 5, 2) or None, order of
    `LANDMARK_NAMES`. detection_score: float32 (n,), 0 to 1. embedding: float32 (n, d), unit
    length, or None. quality: float32 (n,) or None. track_id: int64 (n,) or None.
    contract: id of the model and preprocessing that made the embeddings, or None.

    Index with a number for a `Face`; with a slice, a boolean mask or an integer array for
    `Faces`. Arrays are read-only; a stage returns a new record with `with_`.
    Follows the results record of roboflow/supervision.
    """

    boxes: FloatArray
    landmarks: FloatArray | None
    detection_score: FloatArray
    embedding: FloatArray | None = None
    quality: FloatArray | None = None
    track_id: IntArray | None = None
    contract: str | None = None

    def __post_init__(self) -> None:
        boxes = _frozen("boxes", self.boxes, ("n", 4))
        object.__setattr__(self, "boxes", boxes)
        count = len(boxes)
        shapes: dict[str, tuple[int | str, ...]] = {
            "landmarks": (count, 5, 2),
            "detection_score": (count,),
            "embedding": (count, "d"),
            "quality": (count,),
            "track_id": (count,),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is not None or name == "detection_score":
                object.__setattr__(self, name, _frozen(name, value, shape))
        if self.embedding is not None and self.contract is None:
            raise ContractError(
                "Faces with embeddings need the contract id of the model that made them; "
                "got None. Pass contract=card.contract."
            )

    @classmethod
    def empty(cls, *, landmarks: bool = True) -> Faces:
        """No face at all; with or without an (empty) landmark array."""
        points = np.zeros((0, 5, 2), np.float32) if landmarks else None
        return cls(np.zeros((0, 4), np.float32), points, np.zeros(0, np.float32))

    def __len__(self) -> int:
        return len(self.boxes)

    @overload
    def __getitem__(self, index: int) -> Face: ...
    @overload
    def __getitem__(self, index: slice | NDArray[Any] | list[int]) -> Faces: ...
    def __getitem__(self, index: int | slice | NDArray[Any] | list[int]) -> Face | Faces:
        chosen: Any = index if isinstance(index, slice) else np.asarray(index)
        if isinstance(chosen, np.ndarray):
            if chosen.ndim == 0:
                return self._face(operator.index(index))  # type: ignore[arg-type]
            if chosen.size == 0 and chosen.dtype != np.bool_:
                chosen = chosen.astype(np.int64)
        columns = {name: value[chosen] for name, value in self._columns().items()}
        return replace(self, **columns)

    def __iter__(self) -> Iterator[Face]:
        return (self._face(i) for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Faces):
            return NotImplemented
        mine, theirs = self._columns(), other._columns()
        return (
            self.contract == other.contract
            and mine.keys() == theirs.keys()
            and all(np.array_equal(mine[k], theirs[k], equal_nan=True) for k in mine)
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[Faces], tuple[Any, ...]]:
        """Pickled as its fields and made anew, so that a copy is checked and read-only too."""
        return Faces, tuple(getattr(self, field.name) for field in fields(self))

    @property
    def areas(self) -> FloatArray:
        """Box areas in square pixels, float32 (n,)."""
        return (self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1])

    @property
    def tracks(self) -> IntArray:
        """The track of each face, int64 (n,), 0 for none."""
        return np.zeros(len(self), np.int64) if self.track_id is None else self.track_id

    def with_(self, **columns: Any) -> Faces:
        """A copy with some columns replaced, checked anew."""
        return replace(self, **columns)

    def to_dict(self) -> dict[str, Any]:
        """{"faces": [...]} with one plain dictionary per face."""
        return {"faces": [face.to_dict() for face in self]}

    def to_json(self) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Faces:
        """The inverse of `to_dict`, to the decimals that it keeps: 2 of coordinates, 6 of scores.

        Without a face it is `empty()`. Raises InputError for another form, ContractError when
        the faces are of different contracts.
        """
        names = {field.name: field.name for field in fields(cls)} | {"boxes": "box"}
        try:
            rows = list(data["faces"])
            columns = {name: [row.get(key) for row in rows] for name, key in names.items()}
        except (LookupError, TypeError, AttributeError) as error:
            raise InputError(
                'Faces.from_dict should get {"faces": [...]} with one dictionary per face, as '
                f"to_dict makes it; got {str(data)[:80]}."
            ) from error
        if not rows:
            return cls.empty()
        contracts = columns.pop("contract")
        if any(contract != contracts[0] for contract in contracts):
            raise ContractError(
                "The faces of one record should have one contract; got "
                f"{', '.join(sorted({str(contract) for contract in contracts}))}. Embed them "
                "again with one model."
            )
        given: dict[str, Any] = {name: _complete(name, values) for name, values in columns.items()}
        return cls(**given, contract=contracts[0])

    def _columns(self) -> dict[str, NDArray[Any]]:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "contract"}
        return {name: value for name, value in values.items() if value is not None}

    def _face(self, index: int) -> Face:
        def at(column: NDArray[Any] | None) -> Any:
            return None if column is None else column[index]

        quality, track = at(self.quality), at(self.track_id)
        return Face(
            box=self.boxes[index],
            landmarks=at(self.landmarks),
            detection_score=float(self.detection_score[index]),
            embedding=at(self.embedding),
            quality=None if quality is None else float(quality),
            track_id=None if track is None else int(track),
            contract=self.contract,
        )


def _frozen(name: str, value: Any, shape: tuple[int | str, ...]) -> NDArray[Any]:
    """A read-only copy of a column in its dtype, or an error that names the column.

    shape: a letter stands for any number. An empty list is a column of no rows.
    """
    wanted = f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
    try:
        array = np.array(value, None if name == "track_id" else np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"Faces.{name} should be numbers of the shape {wanted}; got {str(value)[:80]}. "
            "Every column of Faces has one row per face."
        ) from error
    if array.shape == (0,) and shape[0] in (0, "n"):
        array = array.reshape([0 if isinstance(want, str) else want for want in shape])
    if array.ndim != len(shape) or any(
        want != got for want, got in zip(shape, array.shape, strict=True) if want not in ("n", "d")
    ):
        raise InputError(
            f"Faces.{name} should have the shape {wanted}; got {array.shape}. "
            "Every column of Faces has one row per face."
        )
    if name == "track_id":
        array = _whole(name, array)
    array.setflags(write=False)
    return array


def _whole(name: str, array: NDArray[Any]) -> IntArray:
    """The values as int64, or an error when they are no whole numbers."""
    if array.dtype.kind not in "iu" and not (
        array.dtype.kind == "f" and np.all(np.isfinite(array) & (array == np.rint(array)))
    ):
        raise InputError(
            f"Faces.{name} should be whole numbers, one per face; got {str(array.tolist())[:80]}."
        )
    return array.astype(np.int64)


def _complete(name: str, values: list[Any]) -> list[Any] | None:
    """One value per face, or None when no face has one."""
    missing = sum(value is None for value in values)
    if missing not in (0, len(values)):
        raise InputError(
            f"Faces.{name} should be there for every face or for none; {missing} of {len(values)} "
            "faces lack it. Give the others a value, or drop it."
        )
    return None if missing else values


def _rounded(array: FloatArray) -> Any:
    return np.round(array.astype(np.float64), 2).tolist()
