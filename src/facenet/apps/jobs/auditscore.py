"""Errors put into a data set, and how many of them the audit of a gallery finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.evaluation import gather_pictures
from facenet.apps.jobs.galleryaudit import audit_rules, score_audit
from facenet.apps.jobs.gather import Done, Gathering
from facenet.data.folders import class_pictures
from facenet.errors import SettingsError
from facenet.gallery.records import VectorBlock
from facenet.recognizer import Recognizer


def score_folder(
    folder: Path,
    recognizer: Recognizer,
    how: Gathering,
    *,
    errors: float,
    runs: int,
    done: Done,
) -> dict[str, Any]:
    """Enrol a data set with a share of wrong names, audit it, and count; `runs` times, seeds 0 up.

    The median of the shares found and of the false-alarm rates is beside each run. Raises
    DataError, SettingsError.
    """
    if runs < 1:
        raise SettingsError(f"runs should be 1 or more; got {runs}.")
    card = recognizer.embedder.card
    calibration = recognizer.calibration
    rules = audit_rules(calibration.fmr if calibration else None, card.fmr)
    pictures = class_pictures(folder)
    gathered = gather_pictures(recognizer, pictures, how, done=done)
    used = np.flatnonzero(gathered.views.found)
    people = tuple(pictures[row].person for row in used)
    block = VectorBlock(used.astype(np.int64) + 1, people, gathered.vectors()[used])
    scores = [score_audit(block, rules, share=errors, seed=seed) for seed in range(runs)]
    return {
        "dataset": folder.resolve().name,
        "model": card.name,
        "contract": recognizer.embedder.contract,
        "faces": len(block),
        "people": len(set(people)),
        "failures": len(gathered.problems),
        "rules": {"same": rules.same, "other": rules.other},
        "found": float(np.median([score["found"] for score in scores])),
        "false_alarm_rate": float(np.median([score["false_alarm_rate"] for score in scores])),
        "problems": list(gathered.problems.values()),
        "runs": scores,
    }


def score_text(values: dict[str, Any]) -> str:
    """The score for a person."""
    lines = [
        f"{values['faces']:,} faces of {values['people']:,} people, {values['model']}: "
        f"{values['found']:.1%} of the wrong labels found, "
        f"{values['false_alarm_rate']:.2%} false alarms"
    ]
    lines += [
        f"  seed {run['seed']}: {run['errors']} errors, {run['found']:.1%} found "
        f"({run['found_by_face']:.1%} by the face itself), {run['findings']} findings, "
        f"{run['false_alarms']} of them false"
        for run in values["runs"]
    ]
    return "\n".join(lines)
