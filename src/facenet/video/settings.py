"""How a video is watched: every option in one record."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from facenet.errors import SettingsError
from facenet.faces.track import TrackSettings

BETWEEN = ("interpolate", "motion")
"""What is said of frames without detection."""


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How a video is watched.

    stride: faces are looked for in every so many frames. between: "interpolate", for which at most
    `stride` frames are held, or "motion", where the tracks should be by their speed, at once; None:
    "motion" for what is live. resize: frames are shrunk by this factor before they are looked at.
    embed: False tells nobody apart; tracks are then followed by place alone. embed_every: while the
    same people are there, apart from one another and known or unknown for good, faces are embedded
    in every so many of the frames that are looked at; 1: in all.
    fmr: how often a track of somebody else may be named as a given person, all looks at it together
    (default 1e-4); fpir: how often a stranger's track may be named at all, instead; threshold: a
    similarity for every look, instead. pooled: compare with one vector per person of a gallery.
    same_fmr: how often two tracks of different people may be held for one person.
    min_quality: faces below it do not count (see `template.face_quality`). settle: faces after
    which a person who is not known is reported as unknown.
    gone_s: seconds without a person until they have left. seen_s: seconds between two "seen"
    events of a person, None for none.
    budget: seconds of work for each second of video: 1 keeps the pace of a camera. The stride then
    changes between 1 and `max_stride`; `stride` is where it begins. None: the stride stays.
    portraits: pictures kept of each track. strangers: unknown people remembered. tracks: finished
    tracks kept, the latest; those before are forgotten. track: how faces are followed.
    Raises SettingsError for values that there cannot be.
    """

    stride: int = 3
    between: str | None = None
    resize: float = 1.0
    embed: bool = True
    embed_every: int = 3
    fmr: float | None = None
    fpir: float | None = None
    threshold: float | None = None
    pooled: bool = False
    same_fmr: float = 1e-4
    min_quality: float = 0.02
    settle: int = 8
    gone_s: float = 5.0
    seen_s: float | None = None
    budget: float | None = None
    max_stride: int = 15
    portraits: int = 5
    strangers: int = 1000
    tracks: int = 1000
    track: TrackSettings = field(default_factory=TrackSettings)

    def __post_init__(self) -> None:
        for name, least in _COUNTS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not (isinstance(value, int) and value >= least):
                raise SettingsError(
                    f"{name} should be a whole number, {least} or more; got {value!r:.40}."
                )
        if self.between not in (None, *BETWEEN):
            raise SettingsError(
                f"between should be one of {', '.join(BETWEEN)}, or None; got {self.between!r:.40}."
            )
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not _within(value, low, high):
                raise SettingsError(
                    f"{name} should be a number above {low:g} and at most {high:g}; got "
                    f"{value!r:.40}."
                )
        self._require_one_level()
        if self.budget is not None and self.max_stride < self.stride:
            raise SettingsError(
                f"max_stride should be at least the stride, {self.stride}; got {self.max_stride}."
            )

    def _require_one_level(self) -> None:
        given = [n for n in ("fmr", "fpir", "threshold") if getattr(self, n) is not None]
        if len(given) > 1:
            raise SettingsError(f"Give one of fmr, fpir and threshold; got {' and '.join(given)}.")
        if given and not self.embed:
            raise SettingsError(
                f"{given[0]} is for telling people apart, which embed=False leaves out. Leave out "
                "one of the two."
            )
        if self.min_quality < 0 or not self.min_quality < 1:
            raise SettingsError(
                f"min_quality should be from 0 to below 1; got {self.min_quality!r:.40}."
            )


_COUNTS = {
    "stride": 1, "embed_every": 1, "settle": 1, "max_stride": 1, "portraits": 0, "strangers": 1,
    "tracks": 1,
}  # fmt: skip
_BOUNDS = {
    "resize": (0.0, 1.0),
    "same_fmr": (0.0, 0.5),
    "gone_s": (0.0, 1e6),
    "seen_s": (0.0, 1e6),
    "budget": (0.0, 1e3),
}


def _within(value: object, low: float, high: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and low < value <= high
