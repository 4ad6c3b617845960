"""From the rate that a user asks for to the similarity that a gallery decides at.

A search among N vectors, and a verification against a person with N faces, are N comparisons: a
rate for the whole is made of the rate of each (`calibrate.identification_rate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

from facenet.errors import ContractError, SettingsError
from facenet.gallery.calibrate import (
    DEFAULT_FMR,
    Threshold,
    decide_threshold,
    fmr_for_identification,
    identification_rate,
    lowest_fmr,
    similarity_at,
)
from facenet.models.calibration import Calibration
from facenet.models.card import FmrTable, ModelCard


@dataclass(frozen=True, slots=True, eq=False)
class Rates:
    """What is known of the errors of a model. calibration: in place of the card's rates. contract:
    of the vectors that are compared. Raises ContractError for a calibration of others."""

    card: ModelCard
    contract: str
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        if self.calibration and self.calibration.contract != self.contract:
            raise ContractError(
                f"The calibration should be of the model in use, {self.contract:.200}; it is of "
                f"{self.calibration.contract:.200}. Calibrate with this model, or leave it out."
            )

    @property
    def table(self) -> FmrTable | None:
        """False matches by similarity, None when they are not known."""
        return self.calibration.fmr if self.calibration else self.card.fmr

    def search(
        self,
        comparisons: int,
        *,
        fmr: float | None = None,
        fpir: float | None = None,
        threshold: float | None = None,
    ) -> Threshold:
        """The threshold of a search: by the rate of each comparison (default 1e-4), by that of
        the whole search, or as given.

        Raises SettingsError when two are given, or the model's rates do not reach so far.
        """
        _require_numbers(fmr=fmr, fpir=fpir, threshold=threshold)
        if fpir is not None:
            if fmr is not None or threshold is not None:
                raise SettingsError("Give one of fmr, fpir and threshold, not several.")
            if not 0 < fpir < 1:
                raise SettingsError(f"fpir should be above 0 and below 1; got {fpir:g}.")
            fmr = fmr_for_identification(fpir, max(comparisons, 1))
            self._require_reached(fpir, fmr, max(comparisons, 1))
        return self._decide(fmr, threshold)

    def person(
        self, comparisons: int, *, fmr: float | None = None, threshold: float | None = None
    ) -> Threshold:
        """The threshold of each comparison with the faces of one person, so that all of them
        together have the wanted rate (default 1e-4, or the lowest that is known).

        Raises SettingsError as `search` does.
        """
        _require_numbers(fmr=fmr, threshold=threshold)
        if threshold is not None:
            return self._decide(fmr, threshold)
        if fmr is not None and not 0 < fmr < 1:
            raise SettingsError(f"fmr should be above 0 and below 1; got {fmr:g}.")
        rate = fmr_for_identification(DEFAULT_FMR if fmr is None else fmr, max(comparisons, 1))
        if fmr is None and self.table is not None:
            rate = max(rate, lowest_fmr(self.table))
        return self._decide(rate, None)

    def _require_reached(self, fpir: float, fmr: float, comparisons: int) -> None:
        """Raise SettingsError when a search cannot have this rate by what is known."""
        if self.table is None or fmr >= lowest_fmr(self.table):
            return
        least = identification_rate(lowest_fmr(self.table), comparisons)
        raise SettingsError(
            f"fpir should be {least:.2g} or more in a search of {comparisons:,} vectors; got "
            f"{fpir:g}. The rates rest on {self.table.pairs:,} pairs of "
            f"{self.table.dataset:.100}, which say nothing about rarer matches."
        )

    def _decide(self, fmr: float | None, threshold: float | None) -> Threshold:
        return decide_threshold(
            self.card,
            fmr=fmr,
            threshold=threshold,
            calibration=self.calibration,
            contract=self.contract,
        )


def level_reached(tables: Sequence[FmrTable | None], fmr: float) -> float | None:
    """The similarity of a rate by the first of some tables that reaches it, None by none."""
    reaching = (table for table in tables if table and lowest_fmr(table) <= fmr < 1)
    return next((similarity_at(table, fmr) for table in reaching), None)


def _require_numbers(**values: object) -> None:
    for name, value in values.items():
        if value is not None and (not isinstance(value, Real) or isinstance(value, bool)):
            raise SettingsError(
                f"{name} should be a number, such as 0.001; got {type(value).__name__}."
            )
