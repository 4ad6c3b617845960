"""Settings from plain data: what fits, what does not, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from facenet.errors import SettingsError
from facenet.train.choosing import chosen, settings_from


@dataclass(frozen=True)
class Inner:
    size: int = 3


@dataclass(frozen=True)
class Outer:
    name: str
    rate: float = 0.1
    marks: tuple[float, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    inner: Inner = field(default_factory=Inner)
    many: tuple[Inner, ...] = ()
    maybe: int | None = None
    section: Mapping[str, int] | None = None
    whether: bool = False


def test_values_take_the_type_of_their_field():
    given = {
        "name": "x",
        "rate": 1,
        "marks": [1, 2.5],
        "pair": [3, 4],
        "inner": {"size": 7},
        "many": [{"size": 1}, {}],
        "maybe": None,
        "section": {"a": 1},
        "whether": True,
    }
    made = settings_from(Outer, given, "here")
    assert made == Outer(
        "x", 1.0, (1.0, 2.5), (3.0, 4.0), Inner(7), (Inner(1), Inner(3)), None, {"a": 1}, True
    )
    assert type(made.rate) is float and type(made.marks) is tuple


def test_a_number_as_yaml_misses_it_is_a_number():
    assert settings_from(Outer, {"name": "x", "rate": "5e-4"}, "here").rate == 0.0005
    with pytest.raises(SettingsError, match=r"here\.rate should be a number; got '5e'"):
        settings_from(Outer, {"name": "x", "rate": "5e"}, "here")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1], r"here should be a section of `key: value` lines; got \[1\]"),
        ({}, r"here should give name; it does not"),
        ({"name": "x", "rat": 1}, r"here has no key 'rat'. Did you mean rate\?"),
        ({"name": 3}, r"here\.name should be a text; got 3"),
        ({"name": "x", "whether": 1}, r"here\.whether should be true or false; got 1"),
        ({"name": "x", "maybe": True}, r"here\.maybe should be a whole number; got True"),
        ({"name": "x", "maybe": "a"}, r"here\.maybe should be a whole number; got 'a'"),
        ({"name": "x", "marks": "12"}, r"here\.marks should be a list; got '12'"),
        ({"name": "x", "marks": [1, "a"]}, r"here\.marks\[1\] should be a number; got 'a'"),
        ({"name": "x", "pair": [1]}, r"here\.pair should be a list of 2; got \[1\]"),
        ({"name": "x", "inner": {"siz": 1}}, r"here\.inner has no key 'siz'. Did you mean size"),
        ({"name": "x", "section": 5}, r"here\.section should be"),
        ({"name": "x", "many": [4]}, r"here\.many\[0\] should be a section"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(values, said):
    with pytest.raises(SettingsError, match=said):
        settings_from(Outer, values, "here")


def test_a_choice_that_does_not_exist_lists_all_and_the_nearest():
    assert chosen("loss", "b", {"a": 1, "b": 2}) == 2
    with pytest.raises(SettingsError, match=r"one of arcface, cosface; got 'arkface'. Did you me"):
        chosen("loss", "arkface", {"arcface": 1, "cosface": 2})
