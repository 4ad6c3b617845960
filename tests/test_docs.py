"""The pages in docs/ and the README are true: what they show runs and prints that, links exist.

A ```python block runs in one namespace per page; a ```output block after it is what it prints.
A ```console block holds commands behind `$` and what they print; `$ echo $?` shows the last exit
code. In what is shown, `...` stands for anything (alone on a line: for any lines or none), and a
number with a decimal point may differ in its third digit, since runtimes round differently.
Blocks run in order in a folder that holds the repository's examples/; ```text is not run.
"""

from __future__ import annotations

import ast
import contextlib
import io
import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import facenet
from facenet.apps.cli.program import app

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
README = ROOT / "README.md"

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[ ]*$", re.M | re.S)
NUMBER = re.compile(r"(?<![\w.])(-?\d+\.\d+(?:e[-+]?\d+)?)(?![\w.]*\d)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
KINDS = {"python", "output", "console", "text"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: `line` is where its first line stands."""

    page: str
    line: int
    kind: str
    text: str
    shown: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The blocks of a page that run, each with the output shown for it."""
    text = page.read_text("utf-8")
    found: list[Block] = []
    for match in FENCE.finditer(text):
        kind, body = match.groups()
        line = text.count("\n", 0, match.start()) + 2
        if kind == "output":
            last = found.pop()
            found.append(Block(last.page, last.line, last.kind, last.text, body))
        elif kind in ("python", "console"):
            found.append(Block(page.name, line, kind, body))
    return tuple(found)


RUN = [
    pytest.param(page, number, id=str(block))
    for page in [*PAGES, README]
    for number, block in enumerate(blocks(page))
]


class Reader:
    """Somebody who tries one page: a folder with the examples, a namespace, the last exit code."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.namespace: dict[str, object] = {"__name__": "page"}
        self.code = 0
        self.read = 0
        (folder / "examples").symlink_to(ROOT / "examples", target_is_directory=True)

    def try_block(self, number: int) -> None:
        """Try a block, after those before it that were not tried yet."""
        while self.read <= number:
            block, self.read = blocks(self.page)[self.read], self.read + 1
            with contextlib.chdir(self.folder):
                self.python(block) if block.kind == "python" else self.console(block)

    def python(self, block: Block) -> None:
        code = compile("\n" * (block.line - 1) + block.text, str(DOCS / block.page), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, self.namespace)
        wrong = None if block.shown is None else difference(block.shown, printed.getvalue())
        assert wrong is None, f"{block}\n{wrong}"

    def console(self, block: Block) -> None:
        for command, shown in commands(block.text):
            wrong = difference(shown, self.command(command))
            assert wrong is None, f"{block}\n$ {command}\n{wrong}"

    def command(self, command: str) -> str:
        if command == "echo $?":
            return f"{self.code}\n"
        name, *arguments = shlex.split(command)
        assert name == "facenet", f"only facenet commands run: {command}"
        result = CliRunner().invoke(app, arguments, prog_name="facenet")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.code = result.exit_code
        return result.output


def commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block with what is shown below each."""
    assert text.startswith("$ "), "a console block begins with a command"
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        part = part.replace("\\\n", " ")
        command, _, shown = part.partition("\n")
        yield command.strip(), shown


def difference(shown: str, printed: str) -> str | None:
    """None when what was printed is what the page shows, else both."""
    wanted, came = shown.rstrip(), printed.rstrip()
    pattern, numbers = "", NUMBER.findall(wanted)
    for number, text in enumerate(NUMBER.split(wanted)):
        pattern += r"(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)" if number % 2 else _pattern(text)
    match = re.fullmatch(pattern, came)
    if match and all(
        math.isclose(float(a), float(b), rel_tol=3e-3, abs_tol=6e-3)
        for a, b in zip(numbers, match.groups(), strict=True)
    ):
        return None
    return f"the page shows:\n{wanted}\n\nwhat came:\n{came}"


def _pattern(text: str) -> str:
    lines = re.sub(r"\n\.\.\.(?=\n|$)", "\0", text)
    return re.escape(lines).replace("\0", r"(?s:\n.*?)?").replace(r"\.\.\.", ".*?")


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """One reader per page; what they import and check goes into a FACENET_HOME of their own."""
    home = tmp_path_factory.mktemp("docs-home")

    @cache
    def reader(page: Path) -> Reader:
        return Reader(page, tmp_path_factory.mktemp(page.stem))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACENET_HOME", str(home))
        yield reader


@pytest.mark.parametrize(("page", "number"), RUN)
def test_example_runs_and_prints_what_the_page_shows(page, number, readers):
    readers(page).try_block(number)


def test_every_page_has_an_example():
    assert [page.name for page in PAGES if not blocks(page)] == []


def test_fences_are_of_a_kind_that_means_something():
    used = {kind for page in PAGES for kind, _ in FENCE.findall(page.read_text("utf-8"))}
    assert used <= KINDS


def test_no_command_that_could_run_hides_in_a_block_that_does_not():
    """Only what downloads or needs a data set may stand in a block that is not run."""
    hidden = [
        f"{page.name}: {line}"
        for page in PAGES
        for kind, text in FENCE.findall(page.read_text("utf-8"))
        for line in text.splitlines()
        if kind == "text" and re.match(r"(\$ )?facenet (?!models pull|evaluate lfw)", line)
    ]
    assert hidden == []


def test_every_command_is_on_a_page():
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    missing = [name for name in command_names() if not re.search(rf"\b{name}\b(?!-)", text)]
    assert missing == []


def command_names() -> list[str]:
    """Every command of the program, such as "facenet models pull"."""

    def walk(command, name: str) -> Iterator[str]:
        parts = getattr(command, "commands", None)
        if parts is None:
            yield name
        for part, inner in (parts or {}).items():
            yield from walk(inner, f"{name} {part}")

    return list(walk(typer.main.get_command(app), "facenet"))


def test_the_walk_over_the_commands_finds_them():
    assert {"facenet identify", "facenet models pull", "facenet evaluate lfw"} <= {*command_names()}


def test_every_public_name_is_on_a_page():
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    missing = [name for name in facenet.__all__ if not re.search(rf"(?<!\w){name}(?!\w)", text)]
    assert missing == []


def test_the_sentences_on_the_page_of_errors_are_those_of_the_source():
    """Each quoted message, cut at `...`, stands in the source's strings."""
    said = "\n".join(texts())
    quoted = re.findall(r"^\| `([^`]+)` \|", (DOCS / "errors.md").read_text("utf-8"), flags=re.M)
    messages = [text for text in quoted if " " in text]
    pieces = [piece.strip() for text in messages for piece in text.split("...")]
    assert len(messages) > 20
    assert [piece for piece in pieces if piece not in said] == []


def texts() -> Iterator[str]:
    """The strings of the source, `...` in place of what is filled in."""
    for path in (ROOT / "src" / "facenet").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (
                    part.value if isinstance(part, ast.Constant) else "..." for part in node.values
                )
                yield "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_page_is_on_the_map():
    linked = set(LINK.findall((DOCS / "index.md").read_text("utf-8")))
    assert {page.name for page in PAGES} - {"index.md"} <= linked


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_links_to_files_exist(page):
    text = FENCE.sub("", page.read_text("utf-8"))
    targets = [link.split("#")[0] for link in LINK.findall(text) if "://" not in link]
    broken = [target for target in targets if target and not (page.parent / target).exists()]
    assert broken == []


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("similarity 0.805", "similarity 0.8052", True),
        ("similarity 0.805", "similarity 0.905", False),
        ("3 faces", "4 faces", False),
        ("a\n...\nc\n", "a\nb\nb\nc\n", True),
        ("a\n...\nc\n", "a\nb\n", False),
        ("a\n...\nc\n", "a\nc\n", True),
        ("a\n...\n", "a\n", True),
        ("a\n...\n", "ab\n", False),
        ("onnx 1.2 in ... folder", "onnx 1.2 in some folder", True),
        ("facenet 0.1.0", "facenet 0.1.1", False),
        ("(x) [y]", "(x) [y]", True),
        ("112.5 1e-4", "112.498 1e-4", True),
        ("", "", True),
        ("", "noise", False),
    ],
)
def test_the_comparison_of_output_is_strict_where_it_should_be(shown, printed, same):
    assert (difference(shown, printed) is None) is same
