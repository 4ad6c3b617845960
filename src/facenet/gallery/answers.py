"""What is asked of a gallery, and what it answers: frozen records, ready for JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from facenet.gallery.calibrate import Threshold
from facenet.types import Face

BELOW, REJECTED, TAKEN, NOBODY = "below_threshold", "rejected_by_user", "taken", "no_one_enrolled"
"""Why a face is unknown: nobody is similar enough; a user said it is not them; the person was
given to a better face of the same photo; there is nobody to compare with."""
CONFIRMED = "confirmed_by_user"
"""Why a face is known although its similarity did not decide it."""


@dataclass(frozen=True, slots=True)
class Question:
    """How faces are to be identified. threshold: see `Threshold`. comparisons: vectors that each
    face is compared with. once: a person at most once per photo. among: ids of the only people
    that count, None for all. template: compare with each person's pooled vector. contract: of
    the model whose rates the threshold is of, None where it is of none; an answer by another is
    refused."""

    threshold: Threshold
    comparisons: int
    once: bool = True
    among: frozenset[str] | None = None
    template: bool = False
    contract: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person who might be it. face: the enrolled face that is most similar, 0 for a template."""

    person: str
    person_id: str
    similarity: float
    face: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {
            "person": self.person,
            "person_id": self.person_id,
            "similarity": self.similarity,
            "face": self.face,
        }


@dataclass(frozen=True, slots=True, eq=False)
class GalleryIdentification:
    """Answer to "who is this?" for one face of a photo.

    face: box, landmarks and score. best: whom it is, or who came nearest; None when there was
    nobody. known: whether it is them. threshold: similarity that was needed. fmr: of that, per
    comparison. fpir: how often a stranger would be named, over all comparisons with this gallery;
    both None when the model's rates are not known. second: the most similar other person. reason:
    None when the similarity decided, else one of this module's words.
    """

    face: Face
    best: Candidate | None
    known: bool
    threshold: float
    fmr: float | None
    fpir: float | None
    second: Candidate | None = None
    reason: str | None = None

    @property
    def person(self) -> str | None:
        """Name of the person, None for unknown."""
        return self.best.person if self.known and self.best else None

    @property
    def person_id(self) -> str | None:
        """Id of the person, None for unknown."""
        return self.best.person_id if self.known and self.best else None

    @property
    def similarity(self) -> float | None:
        """To the person or the best candidate, -1 to 1; None when there was nobody."""
        return self.best.similarity if self.best else None

    @property
    def margin(self) -> float | None:
        """Similarity less that of the runner-up. Below 0 only where a more similar person went to
        a better face, or a user decided; None without a runner-up."""
        return self.best.similarity - self.second.similarity if self.best and self.second else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what `Identification.to_dict` gives, then what a gallery adds."""
        face, best, second = self.face.to_dict(), self.best, self.second
        return {
            "box": face["box"],
            "detection_score": face["detection_score"],
            "person": self.person,
            "similarity": self.similarity,
            "threshold": self.threshold,
            "fmr": self.fmr,
            "best_candidate": best.person if best else None,
            "fpir": self.fpir,
            "person_id": self.person_id,
            "best_candidate_id": best.person_id if best else None,
            "matched_face": best.face or None if best else None,
            "runner_up": second.person if second else None,
            "runner_up_id": second.person_id if second else None,
            "runner_up_similarity": second.similarity if second else None,
            "margin": self.margin,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class PersonVerification:
    """Answer to "is this that person?": `match` is similarity >= threshold, unless a user decided.

    similarity: to the person's best face or template. threshold: so high that `fmr` is the chance
    that a stranger passes any of the `comparisons` with the faces of the person. fmr_source: what
    it was measured on. face: the enrolled face that is most similar, 0 for a template. reason:
    None when the similarity decided, "rejected_by_user" or "confirmed_by_user" otherwise.
    """

    match: bool
    similarity: float
    threshold: float
    fmr: float | None
    fmr_source: str | None
    person: str
    person_id: str
    face: int
    comparisons: int
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {name: getattr(self, name) for name in self.__slots__}
