"""The threshold of each look at a track, so that the rate that was asked for holds for the visit.

A track is looked at when it has 1, 2, 4, 8, ... faces. Were every look decided at the same rate, a
stranger who stays would be named in the end: 1 - (1 - fpir)^looks. So the rate is shared out: each
of the first six looks has 15 % of it, those after them 10 % / (k (k + 1)) for the k-th; all shares
together are 1, however many looks there are (spending of an error rate over repeated tests: Lan and
DeMets 1983). It needs a higher similarity, and pooled faces have it.

The rates of a model are of pairs of single faces. The mean of several faces is also more similar to
strangers: with mobilefacenet and the 127 people of LFW who have 12 photos or more, at the threshold
of an FMR of 1e-4, the mean of 8 photos of one person matches single faces of others 1.7 times as
often as a single photo does, and the means of others 5 times as often; 0.8 % of true matches are
missed instead of 5 %. `POOLED` and `BOTH` are taken off the rate for that.

What comes of it, on the 82 people of LFW with 17 photos or more, looked at five times with up to 16
of them, against a single photo of everybody, an FMR of 1e-4 being asked: 2.2e-5 of comparisons are
a false match at any look, and 1.1 % of true ones never match. With 1e-4 at each look it would be
2.9e-4 and 0.6 %; with shares of 1 / (i (i + 1)), 4.7e-5 and 1.3 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from facenet.gallery.calibrate import (
    Threshold,
    identification_rate,
    lowest_fmr,
    similarity_at,
)
from facenet.gallery.levels import Rates
from facenet.models.card import FmrTable

POOLED, BOTH = 2.0, 6.0
"""Times as many false matches of a template with single faces, and with templates."""
SHARES, SHARE = 6, 0.15
"""Looks that have the same share of the rate, and the share of each."""
AGREE_FMR = 0.01
"""Faces less similar than this share of pairs of different people are not of one person."""
AGREE = 0.2
"""The same as a similarity, where a model's rates are not known."""


@dataclass(frozen=True, slots=True)
class Levels:
    """How the looks at a track are decided.

    asked: the rate of each comparison, or the similarity, for the whole visit. given: it is the
    similarity that was asked for. comparisons: vectors that a look compares with. tables: rates of
    the model; those of its card also count where somebody's own calibration does not reach.
    pooled: what is compared with is pooled too.
    """

    asked: Threshold
    given: bool
    comparisons: int
    tables: tuple[FmrTable, ...]
    pooled: bool = False

    def look(self, number: int) -> Threshold | None:
        """Similarity and rate of the number-th look, from 1; None when nothing is left for it."""
        if self.given:
            rate = self.asked.fmr
            rate = None if rate is None else min(1.0, rate * self._factor(number))
            return Threshold(self.asked.similarity, rate, self.asked.source)
        rate = self._shares(number)[-1]
        if not rate:
            return None
        similarity, table = reaching(self.tables, rate / self._factor(number))
        return Threshold(similarity, rate, f"{table.pairs:,} pairs of {table.dataset}")

    def spent(self, looks: int) -> tuple[float | None, float | None]:
        """FMR of each comparison and FPIR over all of them, after so many looks together."""
        if self.asked.fmr is None or not looks:
            return None, None
        if self.given:
            rates = [min(1.0, self.asked.fmr * self._factor(n)) for n in range(1, looks + 1)]
        else:
            rates = self._shares(looks)
        fmr = 1.0 if 1.0 in rates else -math.expm1(sum(math.log1p(-rate) for rate in rates))
        return fmr, identification_rate(fmr, self.comparisons) if self.comparisons else None

    def _factor(self, number: int) -> float:
        if self.pooled:
            return POOLED if number == 1 else BOTH
        return 1.0 if number == 1 else POOLED

    def _shares(self, looks: int) -> list[float]:
        """The rate of each of so many looks; 0 where the tables reach no rate that is left."""
        lowest = min(lowest_fmr(table) for table in self.tables)
        asked, left, shares = float(self.asked.fmr or 0), float(self.asked.fmr or 0), []
        for number in range(1, looks + 1):
            share = max(asked * _share(number), lowest * self._factor(number))
            share = share if share <= left * (1 + 1e-9) else 0.0
            left -= share
            shares.append(share)
        return shares


def _share(number: int) -> float:
    """What the number-th look has of the whole rate."""
    later = number - SHARES
    return SHARE if later <= 0 else (1 - SHARES * SHARE) / (later * (later + 1))


def levels_of(rates: Rates, asked: Threshold, *, given: bool, comparisons: int) -> Levels:
    """Levels by what is known of a model. asked, given, comparisons: see `Levels`."""
    return Levels(asked, given, comparisons, tables_of(rates))


def tables_of(rates: Rates) -> tuple[FmrTable, ...]:
    """Tables by which a threshold is chosen: one's own first, then the card's."""
    return tuple(dict.fromkeys(t for t in (rates.table, rates.card.fmr) if t is not None))


def reaching(tables: Sequence[FmrTable], fmr: float) -> tuple[float, FmrTable]:
    """The similarity of a rate, and the first table that reaches it, else that which reaches the
    lowest; never below what the tables before it say of their own lowest rate."""
    floor = -1.0
    for table in tables:
        if lowest_fmr(table) <= fmr * (1 + 1e-9):
            level = similarity_at(table, min(max(fmr, lowest_fmr(table)), 1 - 1e-12))
            return max(floor, level), table
        floor = max(floor, similarity_at(table, lowest_fmr(table)))
    return floor, min(tables, key=lowest_fmr)


def same_person(rates: Rates, fmr: float, given: float | None) -> float | None:
    """Similarity from which two templates are of one person; None when no rate is known and no
    similarity was given."""
    tables = tables_of(rates)
    return reaching(tables, fmr / BOTH)[0] if tables else given


def agreement(rates: Rates) -> float:
    """Similarity below which two faces of a track are not of one person."""
    tables = tables_of(rates)
    return reaching(tables, AGREE_FMR)[0] if tables else AGREE
