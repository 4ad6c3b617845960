"""IJB-B and IJB-C with a model: the work behind `facenet evaluate ijb`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from facenet.apps.jobs.evaluation import check_draws, gather_pictures, model_facts
from facenet.apps.jobs.gather import Done, Gathered, Gathering
from facenet.data.ijb import IjbSet, crop_path, read_ijb
from facenet.data.pairset import Picture
from facenet.errors import SettingsError
from facenet.evaluate.ijbreport import ijb_report
from facenet.evaluate.intervals import REPLICATES
from facenet.evaluate.rows import interval
from facenet.evaluate.templates import Pooling, combine
from facenet.recognizer import Recognizer


@dataclass(frozen=True, slots=True)
class TemplateSettings:
    """pooling: how faces become a template. remember: keep what was seen for the next run.
    replicates, seed: of the bootstrap. Raises SettingsError."""

    pooling: Pooling
    remember: bool = True
    replicates: int = REPLICATES
    seed: int = 0

    def __post_init__(self) -> None:
        check_draws(self.replicates, self.seed)


def evaluate_ijb(
    folder: Path, dataset: str, recognizer: Recognizer, how: TemplateSettings, *, done: Done
) -> tuple[dict[str, Any], tuple[Picture, ...], Gathered]:
    """Embed all faces of IJB-B or IJB-C at their given points, pool them, run the protocols.

    Raises DataError for lists that do not fit, SettingsError for a model that is not aligned by
    five points, which is all that the lists give.
    """
    crop = recognizer.embedder.preprocess.crop
    if crop != "similarity":
        raise SettingsError(
            f"IJB gives five points per face, which {recognizer.embedder.card.name} (crop {crop}) "
            "cannot be aligned by. Choose a model with the crop similarity."
        )
    data = read_ijb(folder, dataset)
    pictures = _pictures(folder, data)
    pooling = how.pooling
    looking = Gathering(mirrors=pooling.flip, remember=how.remember)
    gathered = gather_pictures(recognizer, pictures, looking, done=done)
    start = perf_counter()
    plain = np.nan_to_num(gathered.views.plain, copy=False)
    mirrored = gathered.views.mirrored
    if mirrored is not None:
        mirrored = np.nan_to_num(mirrored, copy=False)
    features, score = combine(plain, mirrored, pooling), data.faces.detection_score
    values = ijb_report(
        data, features, pooling, quality=score, replicates=how.replicates, seed=how.seed
    )
    facts = model_facts(recognizer, gathered, aligned=False, select="the points of the lists")
    facts["seconds"]["score"] = perf_counter() - start
    facts["detector"] = "none: the points of the lists"
    cropping = facts.pop("cropping")
    protocol = (
        f"templates {values['flags']}, {values['aggregation']}, cosine similarity; {cropping}"
    )
    verification = values.pop("verification")
    if searches := values.get("identification"):
        values["identification"] = {**searches.pop("mean"), **searches}  # as reports read them
    record = {**facts, "protocol": protocol, **values, **verification, "pictures": len(pictures)}
    return {**record, "failures": len(gathered.problems)}, pictures, gathered


def _pictures(folder: Path, data: IjbSet) -> tuple[Picture, ...]:
    faces = data.faces
    return tuple(
        Picture(
            f"{row}:{name}",
            path if (path := crop_path(folder, name)).is_file() else None,
            landmarks=tuple(faces.landmarks[row].ravel().tolist()),
        )
        for row, name in enumerate(faces.names)
    )


def ijb_text(values: dict[str, Any]) -> str:
    """The numbers of a template set for a person."""
    lines = [
        f"{values['model']} ({values['precision']}) on {values['dataset']}: "
        f"{values['templates']:,} templates of {values['people']:,} people, "
        f"{values['pairs']:,} pairs",
        f"AUC {values['auc']:.5f} {interval(values['auc_ci'])}, "
        f"EER {values['eer']:.4f} {interval(values['eer_ci'])}",
    ]
    for name, point in values["tar_at_far"].items():
        lines.append(f"TAR {point['tar']:.4f} {interval(point['ci'])} at FAR {name}")
    lines += [f"not printed: {why}" for why in list(values["refused"].values())[:1]]
    for name, row in values.get("identification", {}).get("cmc", {}).items():
        share = f"{row['share']:.4f} {interval(row['ci'])}"
        lines.append(f"rank {name}: {share}, mean of both galleries")
    lines.append(f"protocol: {values['protocol']}")
    return "\n".join(lines)
