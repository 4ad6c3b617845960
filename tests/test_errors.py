"""The tree of errors is the one its module draws, and all of it is behind the front door."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

import facenet
from facenet import errors

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, Exception)
}


def drawn_tree() -> dict[str, str]:
    """Child -> parent, read from the drawing in the module's docstring."""
    parents: dict[str, str] = {}
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([│├└─ ]*)(\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            branch[depth:] = [found[2]]
            parents[found[2]] = branch[depth - 1] if depth else "Exception"
    return parents


def test_the_drawing_is_the_tree():
    assert drawn_tree() == {name: value.__base__.__name__ for name, value in CLASSES.items()}
    assert drawn_tree()["ImageError"] == "InputError"
    assert drawn_tree()["FacenetError"] == "Exception"


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_is_caught_by_its_kind_and_by_the_root(name):
    error = CLASSES[name]("what came, and what to do")
    assert isinstance(error, facenet.FacenetError)
    assert str(error) == "what came, and what to do"
    assert error.__doc__ and error.__doc__.endswith(".")


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_travels_between_processes(name):
    error = pickle.loads(pickle.dumps(CLASSES[name]("told")))
    assert type(error) is CLASSES[name]
    assert error.args == ("told",)


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_is_behind_the_front_door(name):
    assert name in facenet.__all__
    assert getattr(facenet, name) is CLASSES[name]


def test_the_branches_do_not_catch_each_other():
    kinds = [value for value in CLASSES.values() if value.__base__ is errors.FacenetError]
    assert len(kinds) == 6
    for kind in kinds:
        caught = {name for name, value in CLASSES.items() if issubclass(value, kind)}
        others = {
            n for n, v in CLASSES.items() if any(issubclass(v, k) for k in kinds if k != kind)
        }
        assert not caught & others
