"""The report of an evaluation: report.json, report.csv and one page, report.html, of one record.

The page holds all that a reader needs to judge a number (ISO/IEC 19795-1, clause on reporting):
what was measured, intervals, error counts, curves, the worst pairs and what went wrong. It loads
nothing: style, drawings (SVG) and pictures are inside. Names from the data are hostile until
they are shortened and escaped.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from facenet.errors import InputError, MissingExtraError
from facenet.evaluate import plots, rows, svg
from facenet.files import require_writable, written

FILES = ("report.json", "report.csv", "report.html")
PROBLEMS = 200
"""Sentences on what went wrong that the page shows of each model."""
WORST = 50
"""Wrongly decided pairs of each kind that the page shows of each model."""
CROSS = 30
"""Groups up to which the page shows a map of all pairs of groups."""
TEXT = 400
"""Characters of a name or a sentence on the page and in the CSV; the JSON has all of them."""
KINDS = {
    "false_matches": "False matches: two people, taken for one",
    "false_non_matches": "False non-matches: one person, taken for two",
    "suspects": "Closer to another person than to the rest of their own",
    "one_picture_two_people": "Two people, nearly one picture",
    "near_duplicates": "One person, nearly one picture",
    "closest": "The most similar pictures of two people",
    "least_similar": "The least similar pictures of one person",
}
"""Kinds of pairs that a page shows, and their headings."""
COLUMNS = ("model", "dataset", "metric", "value", "low", "high", "note")

_FACTS = (
    ("dataset", "Data set"),
    ("protocol", "Protocol"),
    ("model_digest", "Model file, SHA-256"),
    ("contract", "Vectors"),
    ("preprocess", "Preprocessing"),
    ("detector", "Detector"),
    ("precision", "Precision"),
    ("engine", "Engine"),
    ("licence_notice", "Licence"),
    ("flags", "Flags"),
    ("aggregation", "Templates"),
    ("bootstrap", "Intervals"),
    ("digests", "Files read, SHA-256"),
    ("notes", "Notes"),
)

Record = Mapping[str, Any]


def require_report_extra() -> None:
    """Check, before hours of work, that a report can be made.

    Raises MissingExtraError where matplotlib or jinja2 is missing or broken.
    """
    try:
        plots.require_matplotlib()
        import jinja2  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"Reports need matplotlib and jinja2; an import failed: {_clip(str(error), 200)}. "
            'Install them with `pip install "facenet[evaluate]"`.'
        ) from error


def require_report_folder(folder: Path) -> None:
    """Check, before hours of work, that the three files can be written; the folder is made.

    Raises StorageError where they cannot.
    """
    for name in FILES:
        require_writable(folder / name)


def write_report(
    folder: Path, report: Record, *, pictures: Mapping[str, bytes] = MappingProxyType({})
) -> list[Path]:
    """Write the three files of a report and return their paths; each is written whole.

    report: plain values. "models" is a list with the record of each model, as
    `verification_report` gives it, with what else was measured; "paired" are differences;
    "title", "command", "created", "facenet" and "machine" make the header. What is absent is left
    out. pictures: JPEGs of the worst pairs, by the name of the picture. The same report gives the
    same bytes. Numbers that are not finite are written as null.
    Raises MissingExtraError, StorageError, and InputError for values that are not plain.
    """
    require_report_extra()
    require_report_folder(folder)
    values = _plain(report, "report")
    _check(values)
    contents = (_json(values), _csv(values), _html(values, pictures))
    paths = [folder / name for name in FILES]
    for path, text in zip(paths, contents, strict=True):
        with written(path) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    return paths


def _plain(value: Any, where: str) -> Any:
    """Values that JSON can hold: a NaN becomes None, a number of NumPy a number."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{str(key)[:40]}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{row}]") for row, item in enumerate(value)]
    raise InputError(
        f"A report should hold plain values (texts, numbers, lists, records); {_clip(where, 120)} "
        f"is of the type {type(value).__name__}. Make a list or a text of it."
    )


def _check(report: Record) -> None:
    models = report.get("models")
    if not isinstance(models, list) or not models or not all(isinstance(m, dict) for m in models):
        raise InputError(
            'A report should have a list "models" with a record per model, one at least; this one '
            "has none. Evaluate a model first."
        )


def _json(report: Record) -> str:
    return json.dumps(report, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _csv(report: Record) -> str:
    """One row per number, with its interval; curves and tables are in the JSON only."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for model in report["models"]:
        for row in (*rows.rows(model), *rows.details(model)):
            names = [_cell(model.get("model")), _cell(model.get("dataset")), _cell(row.metric)]
            writer.writerow([*names, row.value, row.low, row.high, _cell(row.note)])
    for pair in report.get("paired") or []:
        low, high = pair.get("ci") or (None, None)
        names = [_cell(f"{pair.get('a')} less {pair.get('b')}"), "", _cell(pair.get("metric"))]
        writer.writerow([*names, pair.get("difference"), low, high, "paired difference"])
    return buffer.getvalue()


def _cell(text: Any) -> str:
    """A text that no spreadsheet takes for a formula."""
    cell = _clip("" if text is None else str(text))
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@")) else cell


def _html(report: Record, pictures: Mapping[str, bytes]) -> str:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.ChainableUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown": rows.shown, "clip": _clip, "heat": _heat, "signed": _signed}
    template = resources.files("facenet.evaluate").joinpath("report.html.j2").read_text("utf-8")
    page = _for_page({**report, "models": [_model(model) for model in report["models"]]})
    for number, model in enumerate(page["models"]):
        model["colour"], model["dashes"] = plots.style(number)
        model["number"] = number
    return environment.from_string(template).render(
        report=page,
        models=page["models"],
        figures=plots.draw(report["models"]),
        table=list(_table(page["models"])),
        facts=list(_facts(page["models"])),
        worst=[_worst(model, pictures) for model in report["models"]],
        series=[svg.variable(colour) for colour in svg.SERIES],
        lines=plots.DASHES,
        limits={"problems": PROBLEMS, "cross": CROSS, "rows": PROBLEMS},
        kinds_named=KINDS,
    )


def _model(model: Record) -> dict[str, Any]:
    """What the page shows of a model, without the curves and lists that it does not."""
    left_out = ("curves", "worst", "fmr_table")
    problems = model.get("problems") or []
    return {key: value for key, value in model.items() if key not in left_out} | {
        "problems": problems[:PROBLEMS],
        "problems_left": len(problems[PROBLEMS:]),
        "threshold_rows": rows.threshold_rows(model),
        "fmr_rows": rows.fmr_rows(model.get("fmr_table") or {}),
        "fmr_pairs": (model.get("fmr_table") or {}).get("pairs"),
    }


def _table(
    models: Sequence[Record],
) -> Iterator[tuple[str, list[tuple[str, list[rows.Row | None]]]]]:
    """The table of values: groups of lines, each with a label and a number per model."""
    columns = [{row.metric: row for row in rows.rows(model)} for model in models]
    lines: dict[str, rows.Row] = {}
    for column in columns:
        lines = {**lines, **{k: row for k, row in column.items() if k not in lines}}
    for group in (rows.DATA, rows.DECISIONS, rows.SCORES, rows.SEARCHES, rows.BEYOND):
        found = [
            (row.label, [column.get(metric) for column in columns])
            for metric, row in lines.items()
            if row.group == group
        ]
        if found:
            yield group, found


def _facts(models: Sequence[Record]) -> Iterator[tuple[str, list[list[tuple[str, str]]]]]:
    """What the numbers rest on: a label, and per model pairs of name and text; one for all where
    the models agree."""
    for key, label in _FACTS:
        cells = [_fact(model.get(key)) for model in models]
        if any(cells):
            yield label, cells[:1] if all(cell == cells[0] for cell in cells) else cells


def _fact(value: Any) -> list[tuple[str, str]]:
    if value is None or value in ("", [], {}):
        return []
    if isinstance(value, list):
        return [("", str(item)) for item in value]
    if not isinstance(value, dict):
        return [("", str(value))]
    flat = {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in value.items()}
    return [(key, str(item)) for key, item in flat.items() if item is not None]


def _worst(model: Record, pictures: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """The wrongly decided pairs by kind, each side with its name and its picture as a link."""
    found = {}
    for kind, pairs in (model.get("worst") or {}).items():
        sides = [
            {
                "similarity": pair.get("similarity"),
                "sides": [_side(str(pair.get(side)), pictures) for side in ("a", "b")],
            }
            for pair in pairs[:WORST]
        ]
        if sides:
            found[kind] = {"pairs": sides, "left": len(pairs[WORST:])}
    return found


def _side(name: str, pictures: Mapping[str, bytes]) -> tuple[str, str]:
    data = pictures.get(name)
    link = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" if data else ""
    return _clip(name, 90), link


def _for_page(value: Any) -> Any:
    """The values with every text and every name shortened."""
    if isinstance(value, dict):
        return {_clip(key): _for_page(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_for_page(item) for item in value]
    return _clip(value) if isinstance(value, str) else value


def _clip(text: str, limit: int = TEXT) -> str:
    """A text of `limit` characters at most, cut in its middle; what cannot be printed is marked."""
    if len(text) > limit:
        tail = limit // 3
        text = f"{text[: limit - tail - 1]}\u2026{text[-tail:]}"
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def _heat(rate: float | None) -> int | None:
    """The depth of a colour for log10 of a rate: 0 at 1e-6 and below, 100 at 1."""
    if rate is None:
        return None
    return 0 if rate <= 1e-6 else min(100, round(100 * (1 + math.log10(rate) / 6)))


def _signed(value: float | None) -> str:
    """A difference with its sign."""
    return rows.shown(value) if value is None or value < 0 else f"+{rows.shown(value)}"
