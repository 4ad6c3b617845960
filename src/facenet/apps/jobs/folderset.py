"""A folder of people measured from all sides: the work behind `facenet evaluate folder`.

Verification on drawn pairs, identification with a drawn gallery, what each measure of quality is
worth, and, with a list of attributes, the rates of groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.allpairs import pictures_digest
from facenet.apps.jobs.evaluation import Evaluated, Evaluation, Seen, evaluate_pairs
from facenet.apps.jobs.gather import Done, Gathered
from facenet.data.attributes import Attributes, read_attributes
from facenet.data.drawn import draw_pairs
from facenet.data.folders import class_pictures, read_class_folders
from facenet.data.pairset import PairSet, Picture
from facenet.errors import DataError
from facenet.evaluate.curves import pairs_needed, rate_name
from facenet.evaluate.groupcounts import count_all_pairs
from facenet.evaluate.groups import GroupReport, group_report
from facenet.evaluate.identification import identification_report, split_gallery
from facenet.evaluate.pairreport import PairReport
from facenet.evaluate.quality import error_discard_curve
from facenet.evaluate.sweep import Labelled, labelled, sweep
from facenet.faces.quality import measure_quality
from facenet.recognizer import Recognizer
from facenet.types import FloatArray

DISCARD_RATES = (1e-3, 1e-2, 1e-1)
"""Rates of the quality curves: the first that the pairs support."""
GROUP_RATES = (1e-3, 1e-2)
"""Rates of the common threshold of groups."""


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """pairs: how many are drawn, half of them mated. enrol: pictures per person in the gallery.
    attributes: a CSV file, or None. The seed of the draw is that of the evaluation."""

    pairs: int = 6000
    enrol: int = 1
    attributes: Path | None = None


def evaluate_folder(
    folder: Path,
    recognizers: list[Recognizer],
    how: Evaluation,
    settings: FolderSettings,
    *,
    done: Done,
) -> Evaluated:
    """Measure models on a folder per person. Raises DataError where it holds too little."""
    pairs = folder_pairs(folder, settings, how.seed)
    attributes = read_attributes(settings.attributes) if settings.attributes else None
    if attributes:
        pairs = replace(pairs, digests={**pairs.digests, attributes.file: attributes.digest})
    return evaluate_pairs(
        pairs, recognizers, how, done=done, more=_more(pairs, how, settings, attributes)
    )


def folder_pairs(folder: Path, settings: FolderSettings, seed: int) -> PairSet:
    """Pairs drawn from a folder, over all of its pictures."""
    name = folder.resolve().name
    drawn = draw_pairs(read_class_folders(folder), dataset=name, pairs=settings.pairs, seed=seed)
    pictures = class_pictures(folder)
    rows = {picture.source: row for row, picture in enumerate(pictures)}
    place = np.array([rows[picture.source] for picture in drawn.pictures])
    digests = {name: pictures_digest(pictures)}
    return replace(drawn, pictures=pictures, a=place[drawn.a], b=place[drawn.b], digests=digests)


def _more(
    pairs: PairSet, how: Evaluation, settings: FolderSettings, attributes: Attributes | None
) -> Seen:
    """What is measured besides the pairs."""
    person = np.unique([picture.person for picture in pairs.pictures], return_inverse=True)[1]

    def measure(_: Recognizer, gathered: Gathered, report: PairReport) -> dict[str, Any]:
        faces = labelled(gathered.vectors(), person, gathered.views.found)
        values: dict[str, Any] = {
            "identification": _searches(faces, how, settings),
            "quality": discard_curves(pairs, gathered, report),
        }
        if attributes:
            values |= _groups(faces, pairs.pictures, attributes, how)
        return values

    return measure


def _searches(faces: Labelled, how: Evaluation, settings: FolderSettings) -> dict[str, Any]:
    split = split_gallery(faces.person, enrol=settings.enrol, seed=how.seed)
    gallery, probes = (
        Labelled(faces.rows[rows], faces.person[rows], faces.found[rows])
        for rows in (split.gallery, split.probes)
    )
    return identification_report(gallery, probes, replicates=how.replicates, seed=how.seed)


def discard_curves(pairs: PairSet, gathered: Gathered, report: PairReport) -> dict[str, Any]:
    """What each measure of quality is worth: errors left when the worst pairs are discarded.

    Empty where the pairs are too few for a rate of 1e-1.
    """
    others = int(np.sum(~pairs.same))
    rates = [rate for rate in DISCARD_RATES if pairs_needed(rate) <= others]
    if not rates:
        return {}
    curves = {}
    for name, values in qualities(gathered).items():
        curve = error_discard_curve(
            report.result.similarity, pairs.same, values[pairs.a], values[pairs.b], far=rates[0]
        )
        curves[name] = {
            "far": rate_name(rates[0]),
            "threshold": curve.threshold,
            "discard": list(curve.fraction),
            "fnmr": list(curve.fnmr),
            "oracle": list(curve.oracle),
            "random": [curve.random] * len(curve.fraction),
            "pauc_20": curve.pauc["0.2"],
            "pauc_30": curve.pauc["0.3"],
            "pauc_20_random": curve.pauc_random["0.2"],
            "pauc_20_oracle": curve.pauc_oracle["0.2"],
            "spearman": curve.spearman,
        }
    return curves


def qualities(gathered: Gathered) -> Mapping[str, FloatArray]:
    """Every measure of the chosen faces, each float32 (m,), NaN without a face."""
    return measure_quality(
        gathered.heads[:, 0],
        gathered.boxes,
        gathered.landmarks,
        sharpness=gathered.heads[:, 15],
        norm=np.linalg.norm(gathered.views.plain, axis=1).astype(np.float32),
    )


def _groups(
    faces: Labelled, pictures: tuple[Picture, ...], attributes: Attributes, how: Evaluation
) -> dict[str, Any]:
    """The rates of the groups of each attribute, at one threshold of all pairs of the folder, and
    what has to be said of them."""
    swept = sweep(faces)
    rates = [rate for rate in GROUP_RATES if pairs_needed(rate) <= swept.pairs]
    if not rates:
        raise DataError(
            f"Groups need {pairs_needed(GROUP_RATES[-1]):,} pairs of different people to set a "
            f"threshold by; there are {swept.pairs:,}. Add pictures, or leave attributes out."
        )
    threshold = swept.threshold_at(rates[0]).similarity
    keys = [p.person if attributes.by == "person" else p.name for p in pictures]
    found: dict[str, Any] = {}
    notes: list[str] = []
    for name in attributes.names:
        cells = attributes.cells(keys, [name])
        outcomes = count_all_pairs(faces, swept, cells.labels, threshold=threshold)
        report = group_report(outcomes, far=rates[0], replicates=how.replicates, seed=how.seed)
        found[name] = _group_rows(report)
        notes += [f"{name}: {note}" for note in (*cells.notes, *report.notes)]
    return {"groups": found, "notes": notes}


def _group_rows(report: GroupReport) -> dict[str, Any]:
    """A group report in the shape that pages and tables read."""
    rows = [
        {
            "group": group.name,
            "people": group.people,
            "pictures": group.attempts,
            "failures": group.failures,
            "fmr": group.fmr.value,
            "fmr_ci": group.fmr.interval,
            "false_matches": group.fmr.errors,
            "non_mated": group.fmr.pairs,
            "non_mated_needed": group.fmr.needs,
            "fnmr": group.fnmr.value,
            "fnmr_ci": group.fnmr.interval,
            "false_non_matches": group.fnmr.errors,
            "mated": group.fnmr.pairs,
            "mated_needed": group.fnmr.needs,
        }
        for group in report.groups
    ]
    summary: dict[str, Any] = {}
    for name, found in report.summaries.items():
        summary |= {name: found.value, f"{name}_ci": found.interval}
    cross = {"groups": [group.name for group in report.groups], "fmr": report.cross}
    level = {"threshold": report.threshold, "far": rate_name(report.far)}
    return {**level, "rows": rows, "summary": summary, "cross": cross}
