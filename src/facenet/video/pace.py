"""Keeping the pace: how many frames may be passed over so that the work fits the time there is."""

from __future__ import annotations

import math

from facenet.video.settings import WatchSettings

MEMORY = 0.8
"""Share of a running mean that stays when a new value comes."""


class Pace:
    """Chooses the stride by what frames cost.

    With d seconds for a frame that is looked at, o for another one, and g seconds of video from
    one frame to the next, a stride of s takes d + (s - 1) o for s g seconds of video. It is the
    least s, 1 to `settings.max_stride`, at which that is no more than `settings.budget` times s g.
    d, o and g are running means. Without a budget the stride stays.
    """

    def __init__(self, settings: WatchSettings) -> None:
        self.stride = settings.stride
        self._settings = settings
        self._looked: float | None = None
        self._passed: float | None = None
        self._gap: float | None = None
        self._work = self._video = 0.0
        self.frames = self.looked_at = self.passed_over = 0

    def add(self, busy_s: float, gap_s: float, *, looked: bool) -> None:
        """Count a frame: seconds of work, seconds of video since the frame before, whether it was
        looked at."""
        self.frames += 1
        self.looked_at += looked
        self.passed_over += not looked
        self._work += busy_s
        self._video += max(gap_s, 0.0)
        if looked and self.looked_at > 1:  # the first loads the models
            self._looked = _mean(self._looked, busy_s)
        elif not looked:
            self._passed = _mean(self._passed, busy_s)
        if gap_s > 0:
            self._gap = _mean(self._gap, gap_s)
        if self._settings.budget is not None and looked:
            self.stride = self._fitting(self._settings.budget)

    @property
    def mean_stride(self) -> float:
        """Frames for each one that was looked at."""
        return self.frames / self.looked_at if self.looked_at else float(self._settings.stride)

    def notices(self) -> list[str]:
        """What was left out to keep the pace, in one sentence or two; none without a budget."""
        budget = self._settings.budget
        if budget is None or self.looked_at < 2:
            return []
        said = [
            f"To keep to {budget:g} s of work for each second of video, faces were looked for in "
            f"{self.looked_at:,} of {self.frames:,} frames, one in {self.mean_stride:.1f}."
        ]
        if self._video and self._work > budget * self._video * 1.02:
            said.append(
                f"The pace was not kept: the work took {self._work / self._video:.2f} s for each "
                "second of video. Raise max_stride, or shrink the frames with resize."
            )
        return said

    def _fitting(self, budget: float) -> int:
        most = self._settings.max_stride
        if self._gap is None or self._looked is None:
            return self.stride
        other = min(self._passed or 0.0, self._looked)
        room = budget * self._gap - other
        if room <= 0:
            return most
        return min(most, max(1, math.ceil((self._looked - other) / room - 1e-9)))


def _mean(before: float | None, value: float) -> float:
    return value if before is None else MEMORY * before + (1 - MEMORY) * value
