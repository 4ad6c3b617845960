"""The accuracy that the README promises, measured: all 6,000 pairs of LFW, ten folds.

Takes a few minutes: 7,701 pictures through detection and each embedder.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from facenet.apps.jobs.lfw import LfwReport, evaluate_lfw
from facenet.models.catalog import find_card
from facenet.models.store import ModelStore
from facenet.recognizer import Recognizer


def measure(data: Path, model: str) -> LfwReport:
    report = evaluate_lfw(
        data / "lfw" / "images",
        data / "lfw" / "pairs.txt",
        Recognizer(model=model),
        select="center_weighted_size",
        done=lambda done, total: None,
    )
    print(report.sentence())
    return report


def test_mobilefacenet_reaches_its_accuracy(data: Path) -> None:
    report = measure(data, "mobilefacenet")
    assert (report.pairs, report.pictures) == (6000, 7701)
    assert round(report.accuracy, 6) >= 0.992
    assert report.not_found <= 3


def test_facenet_casia_reaches_its_accuracy(data: Path, casia_graph: Path) -> None:
    ModelStore().pull(find_card("facenet-casia-webface"), given=casia_graph)
    report = measure(data, "facenet-casia-webface")
    assert round(report.accuracy, 6) >= 0.987
    assert report.published == pytest.approx(0.9905)
    assert "margin 32" in report.protocol
    assert "standardise fixed" in report.protocol
