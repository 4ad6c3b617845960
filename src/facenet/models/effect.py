"""What a less exact arithmetic than fp32 does to an embedder's decisions."""

from __future__ import annotations

from dataclasses import dataclass

MOST_CHANGE = 0.001
"""Most that the accuracy on pairs may change, up or down: a tenth of a point."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What becomes of the decisions: accuracy on the same pairs in fp32 and in the less exact
    arithmetic, 0 to 1.

    dataset, pairs: what was compared, and how many pairs. reduced: in the less exact arithmetic.
    """

    dataset: str
    pairs: int
    fp32: float
    reduced: float

    @property
    def change(self) -> float:
        """Accuracy in the less exact arithmetic less that in fp32."""
        return self.reduced - self.fp32

    @property
    def little(self) -> bool:
        """Whether the accuracy changes by `MOST_CHANGE` at most."""
        return abs(self.change) <= MOST_CHANGE + 1e-9

    def words(self) -> str:
        """The change in words, as a part of a sentence."""
        return (
            f"the accuracy on {self.pairs:,} pairs of {self.dataset} changes by "
            f"{self.change:+.4f}, from {self.fp32:.4f} to {self.reduced:.4f}"
        )
