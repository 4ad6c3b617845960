"""Corrections at random, each taken back or refused; `scripts/crash --histories` does more."""

from __future__ import annotations

import pytest
from crashing.histories import Forgetful, run
from peopled import axis, contents, peopled

from facenet.errors import InputError
from facenet.gallery import corrections
from facenet.gallery.sqlite import SqliteStore


def test_what_is_taken_back_is_as_it_was_and_nothing_else_changes():
    found = run(80, 1)
    assert found.told == []
    assert found.histories == 80
    assert min(found.corrections / 4, found.undone, found.refused) > 250


def test_in_a_file_too(tmp_path):
    numbers = iter(range(100))
    found = run(4, 2, lambda: SqliteStore(tmp_path / f"G{next(numbers)}.db", create=True))
    assert (found.wrong, found.told) == (0, [])
    assert found.undone > 5


def test_a_store_that_loses_names_is_found_out():
    found = run(40, 1, Forgetful)
    assert found.wrong > 0
    assert any("gave something else back" in told for told in found.told)


def test_a_decision_that_was_forgotten_does_not_come_back_against_a_later_move():
    """What the histories found: the face is with somebody else by now."""
    store, ids = peopled({"Anna": [axis(0)], "Ben": [axis(1)]})
    corrections.confirm(store, 1, "Anna")
    forgotten = corrections.forget(store, 1, "Anna")
    corrections.move(store, 1, "Ben")
    before = contents(store)
    with pytest.raises(InputError, match=r"cannot be taken back: face 1 was confirmed as Anna"):
        corrections.undo(store, forgotten.entry)
    assert contents(store) == before
    corrections.move(store, 1, ids["Anna"])
    corrections.undo(store, forgotten.entry)
    with pytest.raises(InputError, match="confirmed as Anna"):
        corrections.move(store, 1, "Ben")
