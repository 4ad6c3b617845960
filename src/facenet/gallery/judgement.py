"""Is a photo good enough to know a person by? Bounds, and reasons by code.

All reasons but those in `FINAL` can be overruled one by one (`allow`). The bounds were measured,
not guessed: see `EnrolmentRules`. Whether a face is the right person's is for `enrolment` to say.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from facenet.errors import SettingsError
from facenet.gallery.calibrate import fmr_for_identification
from facenet.gallery.levels import level_reached
from facenet.models.card import FmrTable
from facenet.types import Faces

UNREADABLE, NO_FACE, REJECTED = "unreadable", "no_face", "rejected"
SEVERAL, SMALL, BLURRED = "several_faces", "too_small", "blurred"
POSE, SCORE = "extreme_pose", "low_score"
CONFLICT, UNLIKE = "conflict", "unlike"
FINAL = (UNREADABLE, NO_FACE, REJECTED)
"""Reasons that cannot be overruled."""
ALLOWABLE = (SEVERAL, SMALL, BLURRED, POSE, SCORE, CONFLICT, UNLIKE)
"""Reasons that `allow` can overrule; of several faces the largest is taken then."""


LEAST = ("face_size", "sharpness", "detection_score")
"""Measures that are better when they are higher."""
STEPS: Mapping[str, str] = {
    SMALL: f"Use a photo from nearer, or allow {SMALL}.",
    BLURRED: f"Use a sharper photo, or allow {BLURRED}.",
    SCORE: f"Use a photo that shows the face better, or allow {SCORE}.",
    POSE: f"Use a photo from the front, or allow {POSE}.",
}
"""What to do about a reason."""


@dataclass(frozen=True, slots=True)
class EnrolmentRules:
    """What a face has to be for enrolment. None switches a rule off.

    Measured on LFW: 13,232 faces of MTCNN in 13,233 photos of 250x250 pixels, mobilefacenet. At
    an FMR of 1e-4, 4.1 % of pairs of one person are missed (FNMR); beside each bound is what is
    missed of the faces beyond it.

    min_face_size: pixels of the shorter side of the box. With the face scaled down to 40 pixels
    6.3 % are missed, at 32 7.3 %, at 24 13.7 %, at 20 25.8 %, at 16 56.7 % (600 faces).
    min_sharpness: variance of the Laplacian of the box at 112x112 pixels; 1 % of LFW are below 23:
    15.5 % missed. max_yaw, max_pitch: proxies of `faces.quality`, 0 to 1; 1 % of LFW are above
    0.89 and 1 % above 0.56: 11.1 % and 6.6 % missed. min_detection_score: of MTCNN; 0.1 % of LFW
    are below 0.986, 3 of 9 pairs missed. Scores of other detectors are on other scales: None.
    conflict_fpir: how often a new person may be held for somebody who is enrolled, over the whole
    gallery. With all of LFW enrolled, 0.01 stops 82 % of faces that are enrolled under a second
    name, and 0.7 % of people who are new.
    unlike_fmr: a face is unlike a person when it is less similar to all their faces than this
    share of pairs of different people. 0.01 stops 98.7 % of faces given to a wrong person of LFW
    and 0.24 % of those given to the right one, who has two photos or more.
    All of them together refuse 464 of the 13,232 faces (3.5 %) when LFW is enrolled in order: 252
    for their pose, 128 blurred, 60 conflicts, 21 unlike, 13 low scores; some for two reasons.
    The last three figures are those of `facenet evaluate gallery-rules`.
    """

    min_face_size: float | None = 32.0
    min_sharpness: float | None = 23.0
    max_yaw: float | None = 0.89
    max_pitch: float | None = 0.56
    min_detection_score: float | None = 0.986
    conflict_fpir: float | None = 0.01
    unlike_fmr: float | None = 0.01

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            good = value is None or (isinstance(value, int | float) and 0 <= value < math.inf)
            if good and name in ("conflict_fpir", "unlike_fmr") and value is not None:
                good = 0 < value < 1
            if not good:
                raise SettingsError(
                    f"EnrolmentRules.{name} should be a number of 0 or more, a rate between 0 and "
                    f"1, or None to leave it out; got {value!r:.40}."
                )


def rules_for(detection: str | None) -> EnrolmentRules:
    """The rules for faces of a detector, as `Recognizer.detection` names it: the bound on detection
    scores is MTCNN's, and is left out with another."""
    other = detection and not detection.startswith("mtcnn")
    return EnrolmentRules(min_detection_score=None) if other else EnrolmentRules()


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """What was seen in a photo. faces: with embeddings, the largest first. measures: of each face,
    see `measures` in `facenet.faces.looking`; what is not known is left out. photo: SHA-256 in
    hex. source: where it lies. crops: an encoded picture of each face, or none. problem: why the
    photo could not be read, "" when it could."""

    faces: Faces
    measures: Sequence[Mapping[str, float]] = ()
    photo: str = ""
    source: str = ""
    crops: Sequence[bytes] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a photo was refused. code: one of this module's words. text: a sentence. person: id of
    whom it is a conflict with; similarity: to them, or to the person's own faces."""

    code: str
    text: str
    person: str | None = None
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What enrolment makes of one photo. row: of the face among those of the photo, None when
    there is none to be taken. reasons: why it is refused. overruled: reasons that were allowed.
    existing: number of the face when the photo is enrolled already."""

    row: int | None
    reasons: tuple[Reason, ...] = ()
    overruled: tuple[Reason, ...] = ()
    existing: int | None = None

    @property
    def accepted(self) -> bool:
        """Whether there is a new face to be kept."""
        return self.row is not None and not self.reasons and self.existing is None

    def with_reasons(self, found: Sequence[Reason], allow: Collection[str]) -> Judgement:
        """The judgement with further reasons, those that are allowed among `overruled`."""
        return replace(
            self,
            reasons=(*self.reasons, *(one for one in found if one.code not in allow)),
            overruled=(*self.overruled, *(one for one in found if one.code in allow)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Enrolment:
    """How to enrol. rules: bounds. allow: codes of `ALLOWABLE` that are overruled. table: rates of
    the model, None when not known. fallback: rates that count where the table does not reach, as
    those of the card beside somebody's own small calibration. Where neither reaches, a rule of
    similarity is left out, and `unjudged` says so; a conflict is then judged by the photo alone.

    Raises SettingsError for a code that is none or cannot be overruled.
    """

    rules: EnrolmentRules = field(default_factory=EnrolmentRules)
    allow: tuple[str, ...] = ()
    table: FmrTable | None = None
    fallback: FmrTable | None = None

    def __post_init__(self) -> None:
        wrong = [code for code in self.allow if code not in ALLOWABLE]
        if wrong or isinstance(self.allow, str):
            raise SettingsError(
                f"allow should be among {', '.join(ALLOWABLE)}; got {str(self.allow):.80}. "
                f"{', '.join(FINAL)} cannot be overruled."
            )

    def conflict_level(self, faces: int) -> float | None:
        """Similarity from which a face is held for somebody among `faces` enrolled ones."""
        if self.rules.conflict_fpir is None or faces == 0:
            return None
        return self._level(fmr_for_identification(self.rules.conflict_fpir, faces))

    def unlike_level(self) -> float | None:
        """Similarity below which a face is unlike a person."""
        return None if self.rules.unlike_fmr is None else self._level(self.rules.unlike_fmr)

    def unjudged(self, faces: int) -> tuple[str, ...]:
        """Codes of rules that are left out among `faces` enrolled ones: no rates reach so far."""
        rules, left = self.rules, []
        if rules.conflict_fpir is not None and faces and self.conflict_level(faces) is None:
            left.append(CONFLICT)
        if rules.unlike_fmr is not None and self.unlike_level() is None:
            left.append(UNLIKE)
        return tuple(left)

    def _level(self, rate: float) -> float | None:
        return level_reached((self.table, self.fallback), rate)


def judge_photo(sighting: Sighting, how: Enrolment) -> Judgement:
    """Judge a photo by what is seen in it, whoever it shows."""
    if sighting.problem:
        return Judgement(None, (Reason(UNREADABLE, sighting.problem),))
    where = sighting.source or "the photo"
    if len(sighting.faces) == 0:
        return Judgement(None, (Reason(NO_FACE, f"No face was found in {where}; use another."),))
    measured = sighting.measures[0] if sighting.measures else {}
    found = _quality(measured, how.rules)
    if len(sighting.faces) > 1:
        text = (
            f"{len(sighting.faces)} faces were found in {where} and one is expected: crop it, or "
            f"allow {SEVERAL} to take the largest."
        )
        found.insert(0, Reason(SEVERAL, text))
    return Judgement(0).with_reasons(found, how.allow)


def _quality(measures: Mapping[str, float], rules: EnrolmentRules) -> list[Reason]:
    """What is wrong with a face; what was not measured is not judged."""
    checks = (
        (SMALL, "face_size", rules.min_face_size, "The face should be {:g} pixels or more across"),
        (BLURRED, "sharpness", rules.min_sharpness, "The sharpness should be {:g} or more"),
        (SCORE, "detection_score", rules.min_detection_score, "The score should be {:g} or more"),
        (POSE, "yaw", rules.max_yaw, "The face should be turned aside by {:g} of 1 at most"),
        (POSE, "pitch", rules.max_pitch, "The face should be tilted by {:g} of 1 at most"),
    )
    found = {}
    for code, name, bound, wanted in checks:
        value = measures.get(name)
        if value is None or bound is None:
            continue
        if value < bound if name in LEAST else not abs(value) <= bound:
            text = f"{wanted.format(bound)}; it is {abs(value):.3g}. {STEPS[code]}"
            found[code] = Reason(code, text)
    return list(found.values())
