"""The card of a model as a person reads it: the work behind `facenet models show`."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import Any

from facenet.gallery.calibrate import lowest_fmr, similarity_at
from facenet.models.card import FmrTable, ModelCard, Preprocess
from facenet.models.measured import BF16, Measured, read_measured
from facenet.models.quantised import Quantised, read_record

RATES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
LABEL, WIDTH = 15, 100
"""Columns of a label, and of a whole line."""

USE = {
    True: "the licence of the weights allows commercial use",
    False: "non-commercial only",
    None: "whether commercial use is allowed is not stated",
}
CROP = {
    "similarity": "Five landmarks of the face are brought to their places in a template of {size} "
    "pixels, by turning, scaling and shifting.",
    "margin_original": "The box of the face, {half:g} pixels of the photo wider on each side, is "
    "cut out and brought to {size} pixels.",
    "margin_output": "The box of the face, wider on each side by what makes {half:g} pixels of the "
    "crop, is cut out and brought to {size} pixels.",
}
STANDARDISE = {
    "fixed": "Each value x, 0 to 255, becomes (x - 127.5) / 128.",
    "per_image": "Each value x becomes (x - mean) / max(deviation, 1 / sqrt(number of values)), "
    "with the mean and deviation of that crop.",
    "insightface": "Each value x, 0 to 255, becomes (x - 127.5) / 127.5.",
    "none": "The values stay 0 to 255; the graph standardises them itself.",
}


def card_facts(card: ModelCard, home: Path) -> dict[str, Any]:
    """The card in plain values; of an embedder also what was measured here, None where nothing."""
    facts = {**card.to_dict(), "contract": card.contract}
    if card.kind != "embedder":
        return facts
    int8, bf16 = read_record(card, home), read_measured(card, home)
    return {**facts, "int8": int8 and int8.summary(), BF16: bf16 and bf16.summary()}


def card_text(card: ModelCard, home: Path) -> str:
    """What the card holds and what was measured here, line by line; long lines are wrapped."""
    quantised, measured = read_record(card, home), read_measured(card, home)
    licence = card.licence
    rows = [
        ("kind", card.kind),
        ("origin", card.source.origin or card.source.type),
        (
            "published file",
            f"{card.source.bytes:,} bytes" if card.source.bytes else "size not known",
        ),
        ("SHA-256", card.source.sha256),
        ("licence", f"code {licence.code}; weights {licence.weights}. {licence.note}".strip()),
        ("use", USE[licence.commercial]),
        ("training data", card.training_data),
        ("contract", card.contract if card.kind == "embedder" else ""),
        *(_input(card.preprocess) if card.preprocess else []),
        ("output", f"{card.dimension} values" if card.dimension else ""),
        ("notes", card.notes),
        *((f.name, f"{f.value:g} - {f.origin}; {f.protocol}") for f in card.figures),
        *_rates(card.fmr, embedder=card.kind == "embedder"),
        *((name, _sentence(effect.words())) for name, effect in card.effects.items()),
        (f"{BF16}, here", measured_words(measured) if measured else ""),
        ("int8", quantised_words(quantised) if quantised else ""),
    ]
    lines = [line for label, text in rows if text for line in _lines(label, text)]
    return "\n".join([f"{card.name}: {card.title}", *lines])


def preprocess_words(preprocess: Preprocess) -> dict[str, str]:
    """In words how a face becomes the input of an embedder: its crop, values and channels."""
    size, half = f"{preprocess.width}x{preprocess.height}", preprocess.margin / 2
    return {
        "crop": CROP[preprocess.crop].format(size=size, half=half),
        "values": STANDARDISE[preprocess.standardise],
        "channels": "red, green, blue" if preprocess.color == "rgb" else "blue, green, red",
    }


def quantised_words(record: Quantised) -> str:
    """In words what was measured of an 8-bit file, and how it was made."""
    origin, last = record.calibration, record.closeness
    state = f"offered, {record.bytes:,} bytes" if record.offered else "refused"
    return (
        f"{state}. {record.reason} Made on {record.created[:10]} with {record.tool} from "
        f"{origin.pictures} pictures (seed {origin.seed}, SHA-256 {origin.digest[:16]}..., "
        f"{origin.in_pairs} of them among the pairs), {last.kept} in float; measured with "
        f"{record.engine} on {record.processor}."
    )


def measured_words(record: Measured) -> str:
    """In words what bfloat16 was found to do."""
    state = "auto may take it" if record.offered else "auto does not take it"
    return (
        f"{state}. {record.reason} Measured on {record.created[:10]} with {record.engine} on "
        f"{record.processor}."
    )


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _input(preprocess: Preprocess) -> list[tuple[str, str]]:
    short = (
        f"{preprocess.width}x{preprocess.height} {preprocess.color.upper()}, "
        f"crop {preprocess.crop}, margin {preprocess.margin}, standardise {preprocess.standardise}"
    )
    return [("input", short), *preprocess_words(preprocess).items()]


def _rates(table: FmrTable | None, *, embedder: bool) -> list[tuple[str, str]]:
    if table is None:
        advice = "none: measure your own with `facenet calibrate`, or decide by a similarity"
        return [("FMR table", advice)] if embedder else []
    possible = [rate for rate in RATES if rate >= lowest_fmr(table)]
    thresholds = [(rate, similarity_at(table, rate)) for rate in possible]
    rows = [(f"FMR {rate:g}", f"at similarity {value:.3f}") for rate, value in thresholds]
    source = f"{table.pairs:,} pairs of {table.people:,} people in {table.images:,} pictures"
    return [("FMR table", f"{table.dataset}: {source}"), *rows]


def _lines(label: str, text: str) -> list[str]:
    """A row, wrapped into a column."""
    room = WIDTH - max(LABEL, len(label)) - 2
    parts = wrap(text, room, break_long_words=False, break_on_hyphens=False)
    labels = [label, *[""] * (len(parts) - 1)]
    return [f"{name:>{LABEL}}  {part}" for name, part in zip(labels, parts, strict=True)]
