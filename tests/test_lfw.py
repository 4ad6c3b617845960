"""The accuracy that the README promises, measured: all 6,000 pairs of LFW, ten folds.

Takes a few minutes: 7,701 pictures through detection and each embedder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from facenet.apps.jobs.evaluation import Evaluation, evaluate_pairs
from facenet.apps.jobs.reporting import summary
from facenet.data.pairs import lfw_pairs
from facenet.models.catalog import find_card
from facenet.models.store import ModelStore
from facenet.recognizer import Recognizer


def measure(data: Path, model: str) -> dict[str, Any]:
    pairs = lfw_pairs(data / "lfw" / "images", data / "lfw" / "pairs.txt")
    recognizer = Recognizer(model=model)
    found = evaluate_pairs(
        pairs, [recognizer], Evaluation(figure="LFW accuracy"), done=lambda done, total: None
    )
    (record,) = found.models
    print(summary(record))
    assert (record["pairs"], record["pictures"]) == (6000, 7701)
    assert record["not_found"] <= 3
    low, high = record["accuracy_ci"]
    assert low < record["accuracy"] < high
    return record


def test_mobilefacenet_reaches_its_accuracy(data: Path) -> None:
    record = measure(data, "mobilefacenet")
    assert round(record["accuracy"], 6) >= 0.992
    assert record["auc"] > 0.99


def test_facenet_casia_reaches_its_accuracy(data: Path, casia_graph: Path) -> None:
    ModelStore().pull(find_card("facenet-casia-webface"), given=casia_graph)
    record = measure(data, "facenet-casia-webface")
    assert round(record["accuracy"], 6) >= 0.987
    assert record["published"] == pytest.approx(0.9905)
    assert "margin 32" in record["protocol"]
    assert "standardise fixed" in record["protocol"]


def test_facenet_msceleb_reaches_its_accuracy(data: Path, msceleb_file: Path) -> None:
    ModelStore().pull(find_card("facenet-msceleb-20170512"), given=msceleb_file)
    record = measure(data, "facenet-msceleb-20170512")
    assert round(record["accuracy"], 6) >= 0.990
    assert record["published"] == pytest.approx(0.992)
