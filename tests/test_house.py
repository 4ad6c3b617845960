"""The rules of the house, checked: see docs/development.md."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import facenet
from facenet import errors

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "facenet"
FILES = sorted(SOURCE.rglob("*.py"))

MAX_FUNCTION, MAX_FILE, MAX_PARAMETERS = 50, 400, 7
FORBIDDEN_NAMES = {"utils", "common", "helpers", "core", "base", "manager"}
HEAVY = ("torch", "onnxruntime", "openvino", "onnx", "matplotlib", "sklearn", "cv2")


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_function_bodies_are_short() -> None:
    long = {
        f"{path.relative_to(SOURCE)}:{node.name}": body_lines(node)
        for path, node in functions()
        if body_lines(node) > MAX_FUNCTION
    }
    assert long == {}


def test_commands_are_thin() -> None:
    commands = {
        f"{path.name}:{node.name}": body_lines(node)
        for path, node in functions()
        if path.parent.name == "cli"
        and any(isinstance(d, ast.Name) and d.id == "command" for d in node.decorator_list)
    }
    assert len(commands) >= 13
    assert {name: lines for name, lines in commands.items() if lines > 15} == {}


def test_files_are_short() -> None:
    lines = {
        str(path.relative_to(SOURCE)): len(path.read_text("utf-8").splitlines()) for path in FILES
    }
    assert {name: count for name, count in lines.items() if count > MAX_FILE} == {}


MANY_OPTIONS = {"recognizer.py:__init__": 8, "pytorch.py:__init__": 10}
"""The front door: each is an option of its own that users write by name."""


def test_functions_have_few_parameters() -> None:
    too_many = {}
    for path, node in functions():
        name = f"{path.relative_to(SOURCE)}:{node.name}"
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = len([a for a in arguments if a.arg not in ("self", "cls")])
        if count > MAX_PARAMETERS:
            too_many[name] = count
    assert too_many == MANY_OPTIONS


def test_module_names_say_what_is_in_them() -> None:
    assert [path for path in FILES if path.stem in FORBIDDEN_NAMES] == []


def test_no_error_is_swallowed() -> None:
    broad = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                caught = "" if node.type is None else ast.unparse(node.type)
                if caught in ("", "Exception", "BaseException"):
                    broad.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert broad == []


def test_every_raise_has_words() -> None:
    silent = []
    names = {name for name, kind in vars(errors).items() if inspect.isclass(kind)}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                called = ast.unparse(node.exc.func)
                if called in names and not node.exc.args:
                    silent.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
            named = isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name)
            if named and node.exc.id in names:
                silent.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert silent == []


def test_the_error_tree_is_one_tree_and_drawn_whole() -> None:
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    for kind in classes:
        assert issubclass(kind, errors.FacenetError)
        assert kind.__doc__ and kind.__doc__.endswith(".")
        assert kind.__name__ in (errors.__doc__ or "")
        assert kind.__name__ in facenet.__all__


WORKING_STATE = {"tensorflow_values.py:Linear", "tensorflow_values.py:Builder", "liveness.py:_Flow"}
"""Records that a converter fills while it walks a graph; nothing of them leaves the room."""


def test_dataclasses_are_frozen() -> None:
    loose = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                marks = [ast.unparse(d) for d in node.decorator_list]
                loose += [
                    f"{path.name}:{node.name}"
                    for mark in marks
                    if mark.startswith("dataclass") and "frozen=True" not in mark
                ]
    assert set(loose) == WORKING_STATE


def test_exported_names_are_sorted_complete_and_there() -> None:
    assert facenet.__all__ == sorted(set(facenet.__all__))
    for name in facenet.__all__:
        assert getattr(facenet, name) is not None
    with pytest.raises(AttributeError, match="facenet.__all__"):
        _ = facenet.no_such_name


def test_exported_names_are_typed() -> None:
    """The names under TYPE_CHECKING are those that are loaded lazily."""
    tree = ast.parse((SOURCE / "__init__.py").read_text("utf-8"))
    typed = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert typed == set(facenet.__all__) - {"__version__"}


@pytest.mark.parametrize("statement", ["import facenet", "import facenet.apps.cli.program"])
def test_nothing_heavy_is_imported_at_the_door(statement: str) -> None:
    code = f"{statement}; import sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_public_functions_that_take_arrays_state_their_shapes() -> None:
    silent = []
    for path, node in functions():
        text = ast.get_docstring(node)
        arguments = [*node.args.args, *node.args.kwonlyargs]
        kinds = [ast.unparse(a.annotation) for a in arguments if a.annotation]
        arrays = [k for k in kinds if re.search(r"NDArray|FloatArray|ImageArray|IntArray", k)]
        public = not node.name.startswith("_") and "/convert/" not in str(path)
        stated = re.search(r"\([^)]*\b[nHdmS5]\b|\(\d", text or "")
        if public and arrays and text and not stated:
            silent.append(f"{path.relative_to(SOURCE)}:{node.name}")
    assert silent == []


def test_the_readme_tree_is_the_source_tree() -> None:
    """One line per module in the README's map, with a phrase, and none for what is not there."""
    readme = (ROOT / "README.md").read_text("utf-8")
    block = readme.split("```tree\n", 1)[1].split("```", 1)[0]
    listed, folder = [], ""
    for line in block.splitlines():
        name, _, phrase = line.strip().partition(" ")
        if name.endswith("/"):
            folder = name
        else:
            assert phrase.strip(), f"no phrase: {line}"
            listed.append(name if not line.startswith(" ") else folder + name)
    actual = [
        path.relative_to(SOURCE).as_posix()
        for path in FILES
        if path.name != "__init__.py" or path.parent == SOURCE
    ]
    assert sorted(listed) == sorted(actual)


def test_wheel_carries_data_and_types() -> None:
    assert (SOURCE / "py.typed").is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["license"] == "MIT"
    assert project["project"]["version"] == facenet.__version__


def test_no_face_of_the_shared_data_is_in_the_repository() -> None:
    """Pictures in the repository are the credited examples and the README's result only."""
    listing = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    endings = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
    pictures = [path for path in listing if path.lower().endswith(endings)]
    assert [p for p in pictures if not p.startswith(("examples/", "docs/"))] == []


def test_frozen_records_really_are() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        facenet.MtcnnSettings().factor = 0.5  # type: ignore[misc]
