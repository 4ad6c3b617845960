"""Running `facenet` as a user does: in this process, or in one of its own."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

from facenet.apps.cli.program import app


@dataclass(frozen=True)
class Ran:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def rows(self):
        return list(csv.DictReader(io.StringIO(self.out)))

    @property
    def sentence(self):
        """What is on stderr: one line that says who speaks, and no traceback."""
        assert self.err.startswith("facenet: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.err.endswith((".\n", "?\n", ")\n")), self.err
        return self.err.removeprefix("facenet: ").strip()


def run(*arguments) -> Ran:
    """A command in this process; what is no exit code is raised."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="facenet")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def refused(*arguments, out="") -> str:
    """The sentence of a command that ends with 2; out: what it prints all the same."""
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, out), ran
    return ran.sentence


def process(*arguments, before="pass", **options) -> Ran:
    """A command in a process of its own. before: Python statements that run first."""
    code = f"import sys; {before}; sys.argv[0] = 'facenet'\n"
    code += "from facenet.apps.cli import main; main()"
    child = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, check=False, **options
    )
    return Ran(child.returncode, child.stdout.decode(), child.stderr.decode())


def tree(folder: Path) -> dict[str, bytes]:
    """The files below a folder with their bytes, without locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def opened(path: Path) -> Image.Image:
    """A picture as Pillow reads it, its file closed."""
    with Image.open(path) as image:
        image.load()
        return image


def blank(path: Path, size=(80, 60), color=(120, 130, 140)) -> Path:
    """A picture without a face."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def copy(source: Path, target: Path) -> Path:
    """A copy of a file, with the folders it needs."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    return target


def environment(**changes) -> dict[str, str]:
    """This process's environment with changes."""
    return {**os.environ, **{name: str(value) for name, value in changes.items()}}
