"""Deciding who is who among the people of a video: one name for one of them at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from facenet.gallery.answers import BELOW, TAKEN, Candidate
from facenet.gallery.calibrate import Threshold
from facenet.video.identity import CLOSED, Decider, Finding, Identity
from facenet.video.levels import Levels
from facenet.video.presence import Visit


class Naming:
    """Names visits by what a decider knows; without one nobody has a name.

    The first look that reaches its threshold names a visit. The name stays as long as the person
    is the most similar one and reaches the threshold of the first look, which is the lowest. Two
    visits that were there at one time never have one name: the more similar one keeps it, and the
    other is named as the runner-up, if that is similar enough, or unknown ("taken").
    """

    def __init__(self, decider: Decider | None) -> None:
        self._decider = decider

    def look(self, visit: Visit, others: Sequence[Visit]) -> list[Visit]:
        """Decide who a visit is. Gives those of the others who lose their name by it."""
        vector = visit.template.vector
        if self._decider is None or vector is None:
            return []
        levels = self._decider.levels()
        level = levels.look(visit.looks + 1)
        if level is None:
            if visit.identity.person is None:
                visit.identity = replace(visit.identity, reason=CLOSED)
            return []
        finding = self._decider.find(visit.asked(vector), level)
        visit.looks += 1
        possible = _possible(finding, visit, level, levels)
        rivals = [other for other in others if other.beside(visit)]
        best, losers, taken = _free(possible, rivals)
        reason = TAKEN if best is None and taken else finding.reason
        if best is not None and finding.reason == BELOW:
            reason = None
        visit.identity = _identity(visit, finding, best, (levels, level, reason))
        for loser in losers:
            loser.identity = replace(loser.identity, person=None, person_id=None, reason=TAKEN)
        return losers


def _possible(
    finding: Finding, visit: Visit, level: Threshold, levels: Levels
) -> tuple[Candidate, ...]:
    """Those who are similar enough, the best first."""
    first, *more = finding.candidates or (None,)
    if first is None:
        return ()
    if finding.accepted:
        return (first, *(other for other in more if other and other.similarity >= level.similarity))
    lowest = levels.look(1)
    stays = finding.reason == BELOW and first.person_id == visit.identity.person_id
    if stays and lowest and first.similarity >= lowest.similarity:
        return (first,)
    return ()


def _free(
    possible: Sequence[Candidate], rivals: Sequence[Visit]
) -> tuple[Candidate | None, list[Visit], bool]:
    """The first whom no more similar rival has, the rivals who give way, whether one did not."""
    taken = False
    for candidate in possible:
        holders = [r for r in rivals if r.identity.person_id == candidate.person_id]
        if all((h.identity.similarity or -1.0) < candidate.similarity for h in holders):
            return candidate, holders, taken
        taken = True
    return None, [], taken


def _identity(
    visit: Visit,
    finding: Finding,
    best: Candidate | None,
    how: tuple[Levels, Threshold, str | None],
) -> Identity:
    levels, level, reason = how
    fmr, fpir = levels.spent(visit.looks)
    first = finding.candidates[0] if finding.candidates else None
    shown = best or first
    return Identity(
        person=best.person if best else None,
        person_id=best.person_id if best else None,
        similarity=shown.similarity if shown else None,
        threshold=level.similarity,
        fmr=fmr,
        fpir=fpir,
        best_candidate=first.person if first else None,
        reason=reason,
        looks=visit.looks,
        faces=visit.template.faces,
    )
