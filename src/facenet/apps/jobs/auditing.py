"""Data sets judged by a model: the work behind `facenet evaluate audit` and `overlap`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.allpairs import comparing, pictures_digest
from facenet.apps.jobs.evaluation import gather_pictures, licence_facts
from facenet.apps.jobs.gather import Done, Gathered, Gathering
from facenet.data.folders import class_pictures
from facenet.data.pairset import Picture
from facenet.errors import SettingsError
from facenet.evaluate.audit import (
    NamedVectors,
    identity_overlap,
    label_suspects,
    lowest_mated,
    similar_pairs,
)
from facenet.gallery.calibrate import Threshold
from facenet.recognizer import Recognizer

SHOWN = 50
"""Pairs of each kind that a list holds."""


@dataclass(frozen=True, slots=True, eq=False)
class Audited:
    """values: the plain record. pictures, gathered: what was looked at, for the report."""

    values: dict[str, Any]
    pictures: tuple[Picture, ...]
    gathered: Gathered


def audit_folder(
    folder: Path, recognizer: Recognizer, how: Gathering, *, duplicate_at: float, done: Done
) -> Audited:
    """Find wrong labels, pictures that are there twice, and pictures unlike the rest.

    duplicate_at: similarity from which two pictures are near-duplicates. Raises DataError, and
    SettingsError for one that no two pictures can have.
    """
    if not -1 <= duplicate_at <= 1:
        raise SettingsError(f"duplicate-at should be a cosine from -1 to 1; got {duplicate_at:g}.")
    pictures = class_pictures(folder)
    gathered = gather_pictures(recognizer, pictures, how, done=done)
    labelled = _labelled(pictures, gathered)
    suspects = [suspect.to_dict() for suspect in label_suspects(labelled)]
    twice = {
        name: [p.to_dict() for p in similar_pairs(labelled, threshold=duplicate_at, same=same)]
        for name, same in (("one_picture_two_people", False), ("near_duplicates", True))
    }
    closest = similar_pairs(labelled, threshold=-1, same=False, most=SHOWN)
    least = lowest_mated(labelled, most=SHOWN)
    facts = comparing(recognizer, gathered, how)
    cropping = facts.pop("cropping")
    values = {
        **facts,
        "dataset": folder.resolve().name,
        "protocol": "each picture against the others of its person and the nearest other person, "
        f"cosine similarity; {cropping}",
        "digests": {folder.resolve().name: pictures_digest(pictures)},
        "pictures": len(pictures),
        "people": len(set(labelled.person)),
        "failures": len(gathered.problems),
        "duplicate_at": duplicate_at,
        "suspects": suspects,
        **twice,
        "tables": _tables(suspects, twice),
        "worst": {
            "suspects": [_beside(suspect) for suspect in suspects],
            **twice,
            "closest": [pair.to_dict() for pair in closest],
            "least_similar": [pair.to_dict() for pair in least],
        },
    }
    return Audited(values, pictures, gathered)


def _tables(
    suspects: list[dict[str, Any]], twice: dict[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The findings as tables of a report."""
    return [
        {"title": "Closer to another person than to the rest of their own", "rows": suspects},
        {"title": "Two people, nearly one picture", "rows": twice["one_picture_two_people"]},
        {"title": "One person, nearly one picture", "rows": twice["near_duplicates"]},
    ]


def _beside(suspect: dict[str, Any]) -> dict[str, Any]:
    """A suspect with the picture that it is like, as a pair to look at."""
    return {"a": suspect["picture"], "b": suspect["like"], "similarity": suspect["similarity"]}


def find_overlap(
    folders: tuple[Path, Path],
    recognizer: Recognizer,
    how: Gathering,
    *,
    threshold: Threshold,
    done: Done,
) -> dict[str, Any]:
    """People who seem to be in two data sets, with the false pairs that chance would bring."""
    first, second = (class_pictures(folder) for folder in folders)
    total = len(first) + len(second)
    one = gather_pictures(recognizer, first, how, done=lambda n, _: done(n, total))
    two = gather_pictures(recognizer, second, how, done=lambda n, _: done(len(first) + n, total))
    a, b = _labelled(first, one), _labelled(second, two)
    pairs = identity_overlap(a, b, threshold=threshold.similarity)
    comparisons = len(a.picture) * len(b.picture)
    return {
        "model": recognizer.embedder.card.name,
        "contract": recognizer.embedder.contract,
        **licence_facts(recognizer),
        "threshold": threshold.similarity,
        "fmr": threshold.fmr,
        "comparisons": comparisons,
        "expected_by_chance": None if threshold.fmr is None else threshold.fmr * comparisons,
        "people": [len(set(a.person)), len(set(b.person))],
        "shared": [pair.to_dict() for pair in pairs],
        "problems": [*one.problems.values(), *two.problems.values()],
    }


def audit_text(values: dict[str, Any]) -> str:
    """The findings of an audit for a person."""
    lines = [
        f"{values['pictures']:,} pictures of {values['people']:,} people, "
        f"{values['failures']} without a usable face",
        f"pictures closer to another person than to the rest of their own: "
        f"{len(values['suspects'])}",
    ]
    lines += [
        f"  {s['picture']} looks like {s['looks_like']} ({s['other']:.3f} against {s['own']:.3f})"
        for s in values["suspects"][:SHOWN]
    ]
    for name, words in (
        ("one_picture_two_people", "pairs of two people that are nearly one picture"),
        ("near_duplicates", "pairs of one person that are nearly one picture"),
    ):
        level = f"similarity {values['duplicate_at']:g} or more"
        lines.append(f"{words} ({level}): {len(values[name])}")
        lines += [f"  {p['a']}  {p['b']}  {p['similarity']:.3f}" for p in values[name][:SHOWN]]
    return "\n".join(lines)


def overlap_text(values: dict[str, Any]) -> str:
    """The people of both sets for a person."""
    chance = values["expected_by_chance"]
    said = "" if chance is None else f"; chance alone would bring about {chance:.2g} such pairs"
    lines = [
        f"{len(values['shared'])} pairs of people reach similarity {values['threshold']:.3f} in "
        f"{values['comparisons']:,} comparisons of pictures{said}"
    ]
    lines += [
        f"  {p['person_a']}  {p['person_b']}  {p['similarity']:.3f}  {p['a']}  {p['b']}"
        for p in values["shared"]
    ]
    return "\n".join(lines)


def _labelled(pictures: tuple[Picture, ...], gathered: Gathered) -> NamedVectors:
    """The pictures with a face."""
    used = np.flatnonzero(gathered.views.found)
    rows = gathered.vectors()[used]
    return NamedVectors(rows, [pictures[i].name for i in used], [pictures[i].person for i in used])
