"""The report of a training run: RUN/report.html, one page that loads nothing.

It is made from what the run wrote down (config.yaml, run.json, metrics.jsonl), while it trains or
afterwards, whatever of it there is. Names in these files are hostile until they are shortened and
escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

from facenet.errors import DataError, MissingExtraError
from facenet.evaluate.plots import style
from facenet.evaluate.rows import shown
from facenet.files import written
from facenet.train.journal import METRICS, NOT_FINITE, Line, read_metrics
from facenet.train.linechart import POINTS, Curve, chart

REPORT, CONFIG, RUN = "report.html", "config.yaml", "run.json"
MAX_CONFIG, MAX_RUN = 1_000_000, 200_000_000
"""Most bytes of config.yaml, and of run.json, which lists the pictures that are not used."""
ITEMS = 30
"""Values of one fact about the run at most."""
ROWS = 200
"""Rows of a table at most."""
CURVES = 12
"""Lines in a figure at most: as many as can be told apart."""
FURTHER = 12
"""Further figures at most, of numbers that only some losses give."""
DEPTH = 10
"""Records inside records that the page goes down."""
TEXT = 200
"""Characters of a name or a value on the page."""
LARGEST = 1e15
"""Numbers from here on are not drawn."""
SECTIONS = ("data", "backbone", "loss", "terms", "start", "optimiser", "schedule", "loop")
"""Sections of the settings that say what was trained, in one line each."""
OWN = ("step", "epoch", "loss", "lr", "images_per_s", "set", "accuracy", NOT_FINITE)


def write_report(folder: Path) -> Path:
    """Write the page of the run in a folder, whole, and return its path.

    A run without a line of metrics.jsonl has a page too, and so has one without config.yaml or
    run.json. The same files give the same bytes. Raises DataError for a folder that is missing or
    files that are not what a run writes, StorageError where the page cannot be written, and
    MissingExtraError without the extra train.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder} should be the folder of a training run; there is none. Check it."
        )
    lines = read_metrics(folder / METRICS)
    config, run = _config(folder / CONFIG), _record(folder / RUN)
    path = folder / REPORT
    page = _html(lines, config, run, folder.resolve().name)
    with written(path) as file:
        file.write(page.encode("utf-8", "replace"))
    return path


def _html(lines: Sequence[Line], config: Line, run: Line, name: str) -> str:
    jinja2 = _jinja2()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = shown
    template = resources.files("facenet.train").joinpath("report.html.j2").read_text("utf-8")
    steps = [line for line in lines if "set" not in line]
    checks = [line for line in lines if "set" in line]
    settings = list(islice(_flat(config), 2 * ROWS + 1))
    page: str = environment.from_string(template).render(
        title=_clip(f"Training of {_backbone(config)}: {name}"),
        css=_style(),
        lead=_lead(steps, checks),
        facts=list(_facts(config, run)),
        figures=list(_figures(steps, checks)),
        thinned=len(steps) > POINTS,
        validations=_validations(checks),
        troubles=list(islice(_troubles(steps), ROWS)),
        settings=settings[: 2 * ROWS],
        settings_left=len(settings) > 2 * ROWS,
    )
    return page


def _jinja2() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError(
            'Reports need jinja2. Install it with `pip install "facenet[train]"`.'
        ) from error
    return jinja2


def _style() -> str:
    """The style of the evaluation's page: both look the same."""
    page = resources.files("facenet.evaluate").joinpath("report.html.j2").read_text("utf-8")
    return page.partition("<style>")[2].partition("</style>")[0]


# ---- what was read


def _config(path: Path) -> Line:
    """The settings of a run; nothing where there is no such file."""
    text = _text(path, MAX_CONFIG)
    if text is None:
        return {}
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError(
            'Training needs pyyaml. Install it with `pip install "facenet[train]"`.'
        ) from error
    try:
        if not _is_plain(yaml, text):
            raise _unusable(path)
        return _mapping(yaml.safe_load(text), path)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unusable(path) from error


def _is_plain(yaml: Any, text: str) -> bool:
    """Whether a YAML text has no aliases, by which a small file can stand for a huge one, and no
    deep nesting, which takes PyYAML minutes."""
    depth = 0
    for event in yaml.parse(text):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > 2 * DEPTH or isinstance(event, yaml.AliasEvent):
            return False
    return True


def _record(path: Path) -> Line:
    text = _text(path, MAX_RUN)
    if text is None:
        return {}
    try:
        return _mapping(json.loads(text), path)
    except (ValueError, RecursionError) as error:
        raise _unusable(path) from error


def _text(path: Path, most: int) -> str | None:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise _unusable(path)
        return data.decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path) from error


def _mapping(value: Any, path: Path) -> Line:
    if not isinstance(value, dict):
        raise _unusable(path)
    return value


def _unusable(path: Path) -> DataError:
    return DataError(
        f"{path} should be a record as facenet train writes it, without aliases; it is not. Name "
        "the folder of a run."
    )


# ---- words


def _backbone(config: Line) -> str:
    section = config.get("backbone")
    return str(section.get("name", "a network")) if isinstance(section, dict) else "a network"


def _lead(steps: Sequence[Line], checks: Sequence[Line]) -> str:
    """How far it is, and what it has reached, in one sentence."""
    if not steps and not checks:
        return "No step has been written down yet."
    last = max(line["step"] for line in (*steps, *checks))
    words = [f"Step {last:,}"]
    if steps:
        words += [f"{key} {_cell(steps[-1].get(key), key)}" for key in ("epoch", "loss")]
    for name, line in islice(_best(checks).items(), CURVES):
        best = f"{_cell(line['accuracy'])} at step {line['step']:,}"
        words.append(f"best on {_clip(name, 60)}: {best}")
    return _clip(", ".join(words) + ".", 1000)


def _facts(config: Line, run: Line) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A label, and pairs of name and text: sections of the settings, and what else run.json has."""
    facts = {section: config.get(section) for section in SECTIONS}
    facts |= {str(key): value for key, value in islice(run.items(), ROWS) if key not in config}
    for name, value in facts.items():
        found = list(islice(_flat(value), ITEMS + 1))
        if found:
            left = [("", f"more in {CONFIG if name in SECTIONS else RUN}")]
            label = _clip(name.replace("_", " ")).capitalize()
            yield label, found[:ITEMS] + (left if len(found) > ITEMS else [])


def _flat(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Name and text of every value inside a value, in order; empty ones left out."""
    if depth > DEPTH:
        yield name, "\u2026"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, _clip(f"{name}.{key}" if name else str(key)), depth + 1)
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for row, item in enumerate(value):
            yield from _flat(item, _clip(f"{name}[{row}]"), depth + 1)
    elif isinstance(value, list):
        if value:
            yield name, _clip(", ".join(str(item) for item in value[:ROWS]))
    elif value is not None and value != "":
        yield name, _clip(str(value))


def _troubles(steps: Sequence[Line]) -> Iterator[str]:
    """A sentence for each line with values that were not finite."""
    for line in steps:
        lost = line.get(NOT_FINITE)
        if isinstance(lost, dict):
            words = ", ".join(f"{name} was {value}" for name, value in lost.items())
            yield _clip(f"Step {line['step']:,}: {words}.")


# ---- validations


def _best(checks: Sequence[Line]) -> dict[str, Line]:
    """The line with the highest accuracy of each set, the first of equal ones."""
    best: dict[str, Line] = {}
    for line in checks:
        accuracy, name = _number(line.get("accuracy")), str(line["set"])
        if accuracy is not None and (name not in best or accuracy > best[name]["accuracy"]):
            best[name] = line
    return best


def _validations(checks: Sequence[Line]) -> dict[str, Any]:
    """The table of validations: the last ones and the best, in order."""
    best = [id(line) for line in _best(checks).values()]
    first = len(checks) - ROWS
    kept = [line for row, line in enumerate(checks) if row >= first or id(line) in best]
    columns = dict.fromkeys(
        key
        for line in kept
        for key in line
        if key not in ("step", "set", "low", "high", NOT_FINITE) and not key.endswith("_ci")
    )
    columns = {"accuracy": None, **columns}
    rows = [
        {
            "step": line["step"],
            "set": _clip(str(line["set"])),
            "cells": [_measured(line, key) for key in islice(columns, CURVES)],
            "best": id(line) in best,
        }
        for line in kept
    ]
    named = [_clip(key, 60) for key in islice(columns, CURVES)]
    return {"columns": named, "rows": rows, "left": len(checks) - len(kept)}


def _measured(line: Line, key: str) -> str:
    """A value with its interval: `<key>_ci`, or for the accuracy `low` and `high`."""
    ends = line.get(f"{key}_ci")
    if key == "accuracy" and ends is None:
        ends = [line.get("low"), line.get("high")]
    text = _cell(line.get(key), key)
    if isinstance(ends, list) and len(ends) == 2 and None not in map(_number, ends):
        return f"{text} [{_cell(ends[0])}, {_cell(ends[1])}]"
    return text


def _cell(value: Any, key: str = "") -> str:
    """A number for a person; epochs as they are."""
    if value is None or (_number(value) is not None and key != "epoch"):
        return shown(value)
    return _clip(str(value))


# ---- curves


def _figures(steps: Sequence[Line], checks: Sequence[Line]) -> Iterator[dict[str, Any]]:
    """The figures that there are numbers for."""
    cosines = [key for key in _names(steps) if key.endswith("cosine")]
    sets = dict.fromkeys(str(line["set"]) for line in checks)
    plans = [
        ("Loss", "Loss", [("loss", _curve(steps, "loss"))]),
        ("Learning rate", "Learning rate", [("lr", _curve(steps, "lr"))]),
        ("Images per second", "Images per second", [("", _curve(steps, "images_per_s"))]),
        (
            "Accuracy of validations",
            "Accuracy",
            [
                (name, _curve([c for c in checks if str(c["set"]) == name], "accuracy", True))
                for name in islice(sets, CURVES)
            ],
        ),
        ("Cosines", "Cosine", [(key, _curve(steps, key)) for key in cosines[:CURVES]]),
    ]
    further = [key for key in _names(steps) if key not in (*OWN, *cosines)]
    plans += [(_clip(key, 60), "", [(key, _curve(steps, key))]) for key in further[:FURTHER]]
    for row, (title, ordinate, lines) in enumerate(plans):
        heard = ordinate or "A further number of the log"
        svg = chart(f"curve{row}", heard, ordinate, [curve for _, curve in lines])
        if svg:
            names = [(_clip(name, 60), *style(n)) for n, (name, _) in enumerate(lines)]
            yield {"title": title, "names": names, "svg": svg}


def _names(steps: Sequence[Line]) -> list[str]:
    """Names of the numbers that the lines have, in the order they come."""
    return list(
        dict.fromkeys(
            key for line in steps for key, value in line.items() if _number(value) is not None
        )
    )


def _curve(lines: Sequence[Line], key: str, marked: bool = False) -> Curve:
    there = [line for line in lines if key in line]
    return Curve([line["step"] for line in there], [_number(line[key]) for line in there], marked)


def _number(value: Any) -> float | int | None:
    """A number that can be drawn, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < LARGEST else None


def _clip(text: str, limit: int = TEXT) -> str:
    """A text of `limit` characters at most; what cannot be printed is marked."""
    text = text if len(text) <= limit else f"{text[: limit - 1]}\u2026"
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)
