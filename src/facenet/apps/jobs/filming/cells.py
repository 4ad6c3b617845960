"""Texts of others on their way into files: names in one line, and cells of CSV that stay texts.

A spreadsheet takes a cell that begins with = + - @ for a formula (OWASP, "CSV Injection"). Names
come from folders and galleries of others, so such a cell gets an apostrophe in front.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""How a formula begins, in the narrow and the wide signs."""
LONGEST = 500
"""Characters of a name that are written."""


def one_line(text: str) -> str:
    """A text without what breaks or turns lines: control signs, line ends, marks of direction.

    Bytes of file names that are no Unicode become the replacement sign. At most `LONGEST`
    characters.
    """
    kinds = {"Cc": " ", "Zl": " ", "Zp": " ", "Cs": "\N{REPLACEMENT CHARACTER}"}
    turned = {*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"}
    signs = (
        "" if sign in turned else kinds.get(unicodedata.category(sign), sign)
        for sign in text[:LONGEST]
    )
    return " ".join("".join(signs).split())


def cell(value: Any) -> str:
    """A value as one cell of CSV: None is empty, lists are joined by spaces, no formulas."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, list | tuple):
        return " ".join(cell(entry) for entry in value)
    if not isinstance(value, str):
        return str(value)
    text = one_line(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def csv_line(values: Iterable[Any]) -> str:
    """A row of CSV with its line end (RFC 4180, but for the line end, which is a line feed)."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([cell(value) for value in values])
    return out.getvalue()


def plain(value: Any) -> Any:
    """A value as JSON can hold it: floats to 6 decimals, null for what is no finite number."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def json_line(value: Any) -> str:
    """A value as one line of JSON with its line end, in readable letters.

    Signs that a terminal or a reader of lines could take for an order are written as escapes.
    """
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
    return re.sub(r"[^\x20-\x7e]", _escaped, text) + "\n"


def _escaped(found: re.Match[str]) -> str:
    sign = found.group()
    return sign if sign.isprintable() else json.dumps(sign)[1:-1]
