"""The table of false matches: every picture against every picture of another person.

It is counted by the sweep, so that millions of pairs need no more memory than one block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facenet.errors import DataError, InputError
from facenet.evaluate.sweep import BLOCK, count_non_mated, labelled
from facenet.evaluate.tally import EDGES, Done, Tally
from facenet.models.card import FmrTable


def non_mated_tally(
    embedding: NDArray[np.floating],
    people: Sequence[str],
    *,
    block: int = BLOCK,
    done: Done | None = None,
) -> Tally:
    """Count the similarities of all pairs of different people.

    embedding: (n, d). people: name of each row. done: see `tally.blocks`. Raises InputError for
    rows and names that do not fit, and for a row that is zero or not finite.
    """
    if len(embedding) != len(people):
        raise InputError(
            f"There should be one name per vector; got {len(people)} names for "
            f"{len(embedding)} vectors."
        )
    person = np.unique(np.asarray(people, str), return_inverse=True)[1]
    return count_non_mated(labelled(embedding, person), block=block, done=done)


def false_match_table(
    embedding: NDArray[np.floating],
    people: Sequence[str],
    *,
    dataset: str,
    done: Done | None = None,
) -> FmrTable:
    """Count the false matches at each similarity, in steps of 0.01.

    embedding: (n, d). people: name of each row. done: see `tally.blocks`. Raises DataError with
    fewer than two people, and as `non_mated_tally`.
    """
    tally = non_mated_tally(embedding, people, done=done)
    return table_of(tally, images=len(embedding), people=len(set(people)), dataset=dataset)


def table_of(tally: Tally, *, images: int, people: int, dataset: str) -> FmrTable:
    """The table of a sweep.

    It begins with the last row that all pairs reach and ends with the first that none reaches.
    Raises DataError without pairs of two people.
    """
    pairs, matches = tally.pairs, tally.grid
    if pairs == 0:
        raise DataError("A table of false matches needs pictures of two people or more.")
    first = max(0, int(np.sum(matches == pairs)) - 1)
    last = len(EDGES) - max(0, int(np.sum(matches == 0)) - 1)
    return FmrTable(
        dataset=dataset,
        images=images,
        people=people,
        pairs=pairs,
        similarity=tuple(float(edge) for edge in EDGES[first:last]),
        false_matches=tuple(int(count) for count in matches[first:last]),
    )
