"""What a command prints: answers on stdout, notes and progress on stderr."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facenet.apps.jobs.photos import FaceRows


def note(text: str) -> None:
    """One sentence for the person at the keyboard, on stderr."""
    with suppress(OSError):  # nobody listens
        print(f"facenet: {text}", file=sys.stderr)


def note_faceless(photos: Iterable[object]) -> None:
    """A sentence for each photo without a face."""
    for photo in photos:
        note(f"No face was found in {photo}.")


def print_faces(
    found: FaceRows, columns: Sequence[str], as_json: bool, *, notice: str | None = None
) -> None:
    """The rows on stdout; photos without a face, or of no use, on stderr.

    notice: of the licence of the weights, on stderr once, and in JSON in every row.
    """
    rows = [noticed(row, notice) for row in found.rows]
    print_json(rows) if as_json else print_rows(rows, columns)
    if notice:
        note(f"{notice}.")
    note_faceless(found.faceless)
    for problem in found.problems:
        note(problem)


def noticed(answer: Mapping[str, Any], notice: str | None) -> dict[str, Any]:
    """An answer, with `licence_notice` where its weights may not be used commercially."""
    return {**answer, "licence_notice": notice} if notice else dict(answer)


def print_json(value: Any) -> None:
    """JSON; the objects of an array on a line each, floats to 6 significant digits."""
    plain = tidy(value)
    if isinstance(plain, list):
        lines = ",\n ".join(json.dumps(entry) for entry in plain)
        print(f"[{lines}]")
    else:
        print(json.dumps(plain, indent=1))


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """The named columns of rows as CSV."""
    print_csv(columns, ([row.get(column) for column in columns] for row in rows))


def print_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """CSV with a header; lists are joined by spaces, None is empty."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_cell(tidy(value)) for value in row])


def print_as_found(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], as_json: bool
) -> None:
    """JSON or CSV like `print_json` and `print_rows`, each row as soon as it is there.

    Numbers are printed as they are. Nothing is printed when the first row fails to come. stdout
    is taken before: a progress bar on stderr takes its place while it is shown.
    """
    out, coming = sys.stdout, iter(rows)
    first = next(coming, None)
    found = coming if first is None else chain([first], coming)
    if as_json:
        opening = "["
        for row in found:
            out.write(opening + json.dumps(row))
            opening = ",\n "
        out.write("[]\n" if first is None else "]\n")
        return
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in found:
        writer.writerow([_cell(row.get(column)) for column in columns])


def tidy(value: Any) -> Any:
    """Floats to 6 significant digits, also inside lists and mappings."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: tidy(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [tidy(entry) for entry in value]
    return value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(_cell(entry) for entry in value)
    return str(value)


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr where a person watches; gives a callback (done, total)."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def training_bar(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar with a few words; gives a callback (done, total, words)."""
    if not sys.stderr.isatty():
        yield lambda done, total, words: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)

        def show(done: int, total: int, words: str) -> None:
            told = f"{label}: {words}"
            progress.update(task, description=told, completed=done, total=total)

        yield show


@contextmanager
def fetch_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for downloads; gives a callback (label, bytes done, bytes in all)."""
    if not sys.stderr.isatty():
        yield lambda label, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)

        def show(label: str, done: int, total: int) -> None:
            progress.update(task, description=label, completed=done, total=total or None)

        yield show
