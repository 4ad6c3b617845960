"""From evaluated models to the report on the disk."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from facenet import __version__
from facenet.apps.jobs.gather import Gathered
from facenet.data.pairset import Picture
from facenet.errors import ImageError
from facenet.evaluate.report import write_report
from facenet.evaluate.rows import interval, shown
from facenet.images import load_image
from facenet.models.home import cpu_name, cpu_threads
from facenet.types import FloatArray, ImageArray

HEIGHT = 132
"""Pixels of a face in a report."""
ROOM = 0.35
"""What is shown around a face, as a share of its sides."""


def assemble(
    title: str, command: str, models: Sequence[Mapping[str, Any]], paired: Sequence[Any] = ()
) -> dict[str, Any]:
    """The whole report as plain values: the header, a record per model, differences."""
    return {
        "title": title,
        "command": command,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "facenet": __version__,
        "machine": {
            "cpu": cpu_name(),
            "cores": cpu_threads(),
            "system": platform.platform(terse=True),
            "python": platform.python_version(),
        },
        "models": [dict(model) for model in models],
        "paired": list(paired),
    }


def save_report(
    folder: Path,
    report: Mapping[str, Any],
    pictures: Sequence[Picture],
    gathered: Gathered | None,
) -> list[Path]:
    """Write report.html, report.json and report.csv, with the faces of the worst pairs.

    gathered: what was seen in the pictures; None shows no face. Raises MissingExtraError,
    StorageError.
    """
    shown = thumbnails(report, pictures, gathered) if gathered else {}
    return write_report(folder, report, pictures=shown)


def thumbnails(
    report: Mapping[str, Any], pictures: Sequence[Picture], gathered: Gathered
) -> dict[str, bytes]:
    """JPEGs of the faces that the report names as worst, by the name of their picture."""
    rows = {picture.name: row for row, picture in enumerate(pictures)}
    named = {
        pair[side]
        for model in report["models"]
        for kind in model.get("worst", {}).values()
        for pair in kind
        for side in ("a", "b")
    }
    shown = {}
    for name in sorted(named & set(rows)):
        jpeg = _face(pictures[rows[name]], gathered.boxes[rows[name]])
        if jpeg:
            shown[name] = jpeg
    return shown


def _face(picture: Picture, box: FloatArray) -> bytes | None:
    """A face with some room around it; None when the picture cannot be read any more."""
    if picture.source is None or not np.isfinite(box).all():
        return None
    try:
        image = load_image(picture.source)
    except ImageError:  # it was readable a moment ago; the pair is shown by name then
        return None
    return face_jpeg(image, box)


def face_jpeg(image: ImageArray, box: FloatArray, *, room: float = ROOM) -> bytes | None:
    """A face as a small JPEG, `HEIGHT` pixels high; None for a box outside the picture.

    image: uint8 (H, W, 3) RGB. box: float32 (4,), x1 y1 x2 y2 in pixels. room: what is shown
    around it, as a share of its sides.
    """
    import cv2

    around = room * (box[2:] - box[:2])
    x1, y1 = np.maximum(box[:2] - around, 0).astype(int)
    x2, y2 = np.ceil(box[2:] + around).astype(int)
    cut = image[y1:y2, x1:x2]
    if cut.size == 0:
        return None
    width = max(1, round(HEIGHT * cut.shape[1] / cut.shape[0]))
    small = cv2.resize(cut, (width, HEIGHT), interpolation=cv2.INTER_AREA)
    encoded, data = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return data.tobytes() if encoded else None


def summary(model: Mapping[str, Any]) -> str:
    """The numbers of one model for a person, a line each, with what they rest on."""
    lines = [
        f"{model['model']} ({model['precision']}): accuracy {model['accuracy']:.4f} "
        f"+- {model['accuracy_std']:.4f} {interval(model['accuracy_ci'])} on {model['pairs']:,} "
        f"pairs, threshold {model['threshold']:.3f}",
    ]
    if model["auc"] is not None:
        lines.append(
            f"AUC {model['auc']:.5f} {interval(model['auc_ci'])}, "
            f"EER {model['eer']:.4f} {interval(model['eer_ci'])}"
        )
    for name, point in model["tar_at_far"].items():
        lines.append(
            f"TAR {point['tar']:.4f} {interval(point['ci'])} at FAR {name}: similarity "
            f"{point['threshold']:.3f}, {point['false_matches']} false matches"
        )
    if model["refused"]:
        lines.append(f"not printed: {next(iter(model['refused'].values()))}")
    lines.append(f"protocol: {model['protocol']}")
    lines.append(f"pairs without both faces: {model['not_found']}, counted as different")
    if model["published"] is not None:
        lines.append(f"published: {model['published']} ({model['published_protocol']})")
    return "\n".join([*lines, *_folder_lines(model), *model["notes"]])


def _folder_lines(model: Mapping[str, Any]) -> list[str]:
    """What was measured of a folder besides its pairs: searches, quality, groups."""
    lines: list[str] = []
    if found := model.get("identification"):
        first = found["cmc"]["1"]
        lines.append(
            f"rank 1: {first['share']:.4f} {interval(first['ci'])} of {found['searches_mated']:,} "
            f"searches in a gallery of {found['gallery']:,} people"
        )
        for name, point in found["fnir_at_fpir"].items():
            lines.append(f"FNIR {point['fnir']:.4f} {interval(point['ci'])} at FPIR {name}")
    for measure, curve in (model.get("quality") or {}).items():
        lines.append(
            f"quality by {measure}: area under FNMR to 20 % discarded {shown(curve['pauc_20'])}; "
            f"at random {shown(curve['pauc_20_random'])}, at best {shown(curve['pauc_20_oracle'])}"
        )
    for attribute, groups in (model.get("groups") or {}).items():
        lines += _group_lines(attribute, groups)
    return lines


def _group_lines(attribute: str, groups: Mapping[str, Any]) -> list[str]:
    lines = [f"{attribute}, all at similarity {groups['threshold']:.3f} (FMR {groups['far']}):"]
    for row in groups["rows"]:
        rates = [
            f"{name.upper()} {shown(row[name])} {interval(row[f'{name}_ci'])}"
            for name in ("fmr", "fnmr")
        ]
        lines.append(f"  {row['group']}: {row['people']:,} people, {', '.join(rates)}")
    return lines


def difference(row: Mapping[str, Any]) -> str:
    """One difference of two models for a person."""
    return (
        f"{row['a']} less {row['b']}: {row['metric']} {row['difference']:+.4f} "
        f"{interval(row['ci'], signed=True)}"
    )
