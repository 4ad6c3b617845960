"""Comparing faces: one to one, and one against a few known people held in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from facenet import vectors
from facenet.errors import ContractError, InputError
from facenet.gallery.calibrate import Threshold, identification_rate
from facenet.types import Face, Faces, FloatArray


@dataclass(frozen=True, slots=True)
class Verification:
    """Answer to "the same person?": `match` is similarity >= threshold.

    similarity: cosine, -1 to 1. fmr: false-match rate of the threshold, None when not known.
    fmr_source: what it was measured on. probability: that it is one person, known only with a
    calibration, and for its prior.
    """

    match: bool
    similarity: float
    threshold: float
    fmr: float | None
    fmr_source: str | None = None
    probability: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Identification:
    """Answer to "who is this?" for one face.

    face: box, landmarks and score. person: name, or None for unknown. best_candidate: the most
    similar known person, whether or not it was similar enough. fmr: per comparison. fpir: how
    often a stranger would be named over all comparisons with the known people.
    """

    face: Face
    person: str | None
    similarity: float
    threshold: float
    fmr: float | None
    best_candidate: str
    fpir: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values: box, detection_score, and the fields after `face`."""
        face = self.face.to_dict()
        return {
            "box": face["box"],
            "detection_score": face["detection_score"],
            "person": self.person,
            "similarity": self.similarity,
            "threshold": self.threshold,
            "fmr": self.fmr,
            "best_candidate": self.best_candidate,
            "fpir": self.fpir,
        }


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """Known people: names, one per vector, and unit vectors float32 (n, d) of one contract.

    A person may have several vectors; the best of them counts. The array is copied, read-only.
    """

    names: tuple[str, ...]
    embedding: FloatArray
    contract: str

    def __post_init__(self) -> None:
        if len(self.names) == 0:
            raise InputError("Known people should be at least one; got none.")
        rows = np.array(self.embedding, np.float32)
        if rows.ndim != 2 or len(rows) != len(self.names):
            raise InputError(
                f"Known people should have one vector per name; got {len(self.names)} names and "
                f"vectors of the shape {rows.shape}."
            )
        rows.setflags(write=False)
        object.__setattr__(self, "embedding", rows)

    @classmethod
    def from_faces(cls, people: Mapping[str, Sequence[Face]]) -> People:
        """People from their embedded faces. Raises ContractError when models are mixed."""
        rows = [(name, face) for name, faces in people.items() for face in faces]
        if not rows:
            raise InputError("Known people should be at least one; got none.")
        embedding: list[FloatArray] = []
        for name, face in rows:
            require_contract(rows[0][1].contract, face.contract, f"the face of {name}")
            if face.embedding is None:
                raise InputError(f"The face of {name} should have an embedding; embed it first.")
            embedding.append(face.embedding)
        return cls(tuple(name for name, _ in rows), np.stack(embedding), str(rows[0][1].contract))


def verify(a: Face, b: Face, threshold: Threshold) -> Verification:
    """Compare two embedded faces at a threshold."""
    require_contract(a.contract, b.contract, "the second face")
    if a.embedding is None or b.embedding is None:
        raise InputError("Faces to compare should have embeddings; these have none. Embed first.")
    similarity = float(vectors.similarity(a.embedding, b.embedding))
    return Verification(
        similarity >= threshold.similarity,
        similarity,
        threshold.similarity,
        threshold.fmr,
        threshold.source,
    )


def identify(people: People, faces: Faces, threshold: Threshold) -> list[Identification]:
    """Name every face, or say that it is unknown; one answer per face, in their order."""
    if len(faces) == 0:
        return []
    if faces.embedding is None:
        raise InputError("Faces to identify should have embeddings; these have none. Embed first.")
    require_contract(people.contract, faces.contract, "the photo")
    scores = vectors.similarity_matrix(faces.embedding, people.embedding)
    best = vectors.top_k(scores, 1)[:, 0]
    rate = threshold.fmr
    fpir = None if rate is None else identification_rate(rate, len(people.names))
    return [
        _answer(face, people.names[column], float(row[column]), threshold, fpir)
        for face, row, column in zip(faces, scores, best, strict=True)
    ]


def require_contract(expected: str | None, got: str | None, what: str) -> None:
    """Raise ContractError unless two contract ids are the same."""
    if expected != got:
        raise ContractError(
            f"Vectors should come from one model: expected {expected}, but {what} was embedded "
            f"with {got}. Embed both with the same model and options."
        )


def _answer(
    face: Face, name: str, similarity: float, threshold: Threshold, fpir: float | None
) -> Identification:
    person = name if similarity >= threshold.similarity else None
    level, fmr = threshold.similarity, threshold.fmr
    return Identification(face, person, similarity, level, fmr, name, fpir)
