"""Verification of one or several models on a pair set: the work behind `facenet evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from time import perf_counter
from typing import Any

from facenet.apps.jobs.gather import Done, Gathered, Gatherer, Gathering
from facenet.data.pairset import PairSet, Picture
from facenet.errors import DataError, SettingsError
from facenet.evaluate.intervals import REPLICATES
from facenet.evaluate.pairreport import PairReport, compare_models, verification_report
from facenet.evaluate.verification import VerificationSettings
from facenet.models.card import ModelCard, licence_notice
from facenet.recognizer import Recognizer

MOST_REPLICATES = 100_000
"""Draws beyond which an interval gains nothing, and memory is lost."""

Seen = Callable[[Recognizer, Gathered, PairReport], dict[str, Any]]
"""Further numbers of one model, from what it saw."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a set is evaluated. settings: the protocol. select: which of several faces.
    remember: keep what was seen for the next run. replicates, seed: of the bootstrap; see
    `check_draws`. figure: which published figure of the card is measured again, "" for none."""

    settings: VerificationSettings = field(default_factory=VerificationSettings)
    select: str = "center_weighted_size"
    remember: bool = True
    replicates: int = REPLICATES
    seed: int = 0
    figure: str = ""

    def __post_init__(self) -> None:
        check_draws(self.replicates, self.seed)

    def gathering(self, *, aligned: bool = False) -> Gathering:
        """How pictures are looked at for it."""
        return Gathering(self.select, aligned, self.settings.mirrors, self.remember)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """models: a plain record per model, the numbers of `verification_report` and what they rest
    on. paired: differences of each two models. pictures: those that were looked at. gathered: what
    the first model saw in them."""

    models: list[dict[str, Any]]
    paired: list[dict[str, Any]]
    pictures: tuple[Picture, ...]
    gathered: Gathered


def check_draws(replicates: int, seed: int, *, least: int = 1) -> None:
    """Raises SettingsError for numbers that no bootstrap can have; least: draws wanted."""
    if not (least <= replicates <= MOST_REPLICATES and seed >= 0):
        raise SettingsError(
            f"The bootstrap should have {least} to {MOST_REPLICATES:,} draws and a seed of 0 or "
            f"more; got {str(replicates)[:40]} and {str(seed)[:40]}."
        )


def evaluate_pairs(
    pairs: PairSet,
    recognizers: Sequence[Recognizer],
    how: Evaluation,
    *,
    done: Done,
    more: Seen | None = None,
) -> Evaluated:
    """Run a protocol for each model on the same pairs and the same bootstrap draws.

    more: adds numbers of its own to the record of each model. Raises DataError when no face is
    found at all.
    """
    reports: list[PairReport] = []
    models: list[dict[str, Any]] = []
    first: Gathered | None = None
    for number, recognizer in enumerate(recognizers):
        gathered = gather_pictures(
            recognizer,
            pairs.pictures,
            how.gathering(aligned=pairs.aligned),
            done=lambda count, total, n=number: done(  # type: ignore[misc]
                n * total + count, len(recognizers) * total
            ),
        )
        start = perf_counter()
        report = verification_report(
            pairs, gathered.views, how.settings, replicates=how.replicates, seed=how.seed
        )
        extra = more(recognizer, gathered, report) if more else {}
        extra["notes"] = [
            *_override(recognizer),
            *report.values["notes"],
            *extra.get("notes", []),
        ]
        facts = model_facts(recognizer, gathered, aligned=pairs.aligned, select=how.select)
        facts["seconds"]["score"] = perf_counter() - start
        published = _published(recognizer.embedder.card, how.figure)
        facts |= dict(zip(("published", "published_protocol"), published, strict=True))
        folds = how.settings.sentence(len(report.result.thresholds))
        sentence = f"{folds}; {facts.pop('cropping')}"
        models.append(
            {**facts, "protocol": sentence, "protocol_name": how.settings.protocol}
            | report.values
            | {"digests": {**pairs.digests, "pictures": gathered.digest}}
            | extra
        )
        reports.append(report)
        first = first or gathered
    if first is None:
        raise DataError("An evaluation needs one model or more; got none.")
    paired = [
        {"a": models[i]["model"], "b": models[j]["model"], **row}
        for i, j in combinations(range(len(models)), 2)
        for row in compare_models(reports[i], reports[j])
    ]
    return Evaluated(models, paired, pairs.pictures, first)


def gather_pictures(
    recognizer: Recognizer, pictures: Sequence[Picture], how: Gathering, *, done: Done
) -> Gathered:
    """What a model sees in pictures. Raises DataError when that is nothing at all."""
    gathered = Gatherer(recognizer, how).gather(pictures, done)
    if not gathered.views.found.any():
        why = next(iter(gathered.problems.values()), "There are no pictures.")
        raise DataError(
            f"A face should be found in some of the {len(pictures)} pictures; in none it was. The "
            f"first: {why}"
        )
    return gathered


def model_facts(
    recognizer: Recognizer, gathered: Gathered, *, aligned: bool, select: str
) -> dict[str, Any]:
    """What the numbers of a model rest on, as plain values."""
    return {
        **embedder_facts(recognizer, aligned=aligned),
        "cropping": _cropping(recognizer, aligned, select),
        "seconds": dict(gathered.seconds),
        "remembered": gathered.remembered,
        "problems": list(gathered.problems.values()),
    }


def embedder_facts(recognizer: Recognizer, *, aligned: bool) -> dict[str, Any]:
    """The model, its preprocessing, and what runs it, as plain values."""
    embedder = recognizer.embedder
    card, engine = embedder.card, embedder.engine
    return {
        "model": embedder.title,
        "model_digest": card.source.sha256,
        "contract": card.contract,
        "precision": embedder.precision,
        "engine": f"{engine['engine']} {engine['version']} on {engine['device']}",
        "detector": "none: the pictures are crops" if aligned else recognizer.detection,
        "preprocess": asdict(embedder.preprocess),
        "overridden": {"standardise": embedder.overridden} if embedder.overridden else None,
        "commercial": card.licence.commercial,
        **licence_facts(recognizer, aligned=aligned),
    }


def licence_facts(recognizer: Recognizer, *, aligned: bool = False) -> dict[str, Any]:
    """`licence_notice` where weights that were used may not be used commercially, else nothing.

    aligned: the pictures are crops, so that there was no detector.
    """
    used = [card for card in recognizer.cards if not (aligned and card.kind == "detector")]
    notice = licence_notice(used)
    return {"licence_notice": notice} if notice else {}


def _cropping(recognizer: Recognizer, aligned: bool, select: str) -> str:
    preprocess = recognizer.embedder.preprocess
    size = f"{preprocess.width}x{preprocess.height}"
    if aligned:
        crop = f"crops as they are in the file, resized to {size} where they are not"
    else:
        margin = f" margin {preprocess.margin}" if preprocess.margin else ""
        crop = f"face by {select}, crop {preprocess.crop}{margin} {size}"
    return f"{crop}, standardise {preprocess.standardise}"


def _override(recognizer: Recognizer) -> list[str]:
    """That these are the numbers of an experiment, where the card says something else."""
    embedder = recognizer.embedder
    if not embedder.overridden:
        return []
    return [
        f"An experiment: standardise {embedder.preprocess.standardise} was asked for, and the card "
        f"of {embedder.card.name} says {embedder.overridden}."
    ]


def _published(card: ModelCard, name: str) -> tuple[float | None, str | None]:
    """The published figure of a name on a card, and its protocol."""
    for figure in card.figures:
        if figure.name == name and figure.origin.startswith("published"):
            return figure.value, figure.protocol
    return None, None
