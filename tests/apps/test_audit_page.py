"""The words and the page of a gallery's audit, and how it is scored."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import toy_fmr
from shell import copy, refused, run

from facenet.apps.jobs.galleryaudit import (
    audit_lines,
    audit_rules,
    audit_values,
    score_audit,
    write_page,
)
from facenet.errors import SettingsError
from facenet.gallery.audit import AuditRules
from facenet.gallery.memory import MemoryStore
from facenet.gallery.records import Crop, EnrolledFace, Person, Space, VectorBlock
from facenet.models.card import FmrTable
from facenet.vectors import unit

WIDTH = 16
RULES = AuditRules(same=0.5, other=0.6, double=0.75, lowest={"sharpness": 10.0})


def basis(number: int, wobble: float = 0.0) -> np.ndarray:
    row = np.zeros(WIDTH, np.float32)
    row[number], row[-1] = 1.0, wobble
    return unit(row)


def photo(path: Path, shade: int) -> str:
    """A file with one colour; its SHA-256."""
    cv2.imwrite(str(path), np.full((60, 80, 3), shade, np.uint8))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def store_of(tmp_path: Path) -> MemoryStore:
    """Ann <b> has a face of Bob, Bob two faces, Cid is Dan too, one of Eve's two is blurred."""
    store = MemoryStore()
    rows = [
        ("a", basis(0), 50.0),
        ("a", basis(0, 0.2), 50.0),
        ("a", basis(1, 0.1), 50.0),
        ("b", basis(1), 50.0),
        ("b", basis(1, 0.3), 50.0),
        ("c", basis(2), 50.0),
        ("d", basis(2, 0.4), 50.0),
        ("e", basis(3), 2.0),
        ("e", basis(3, 0.3), 50.0),
    ]
    with store.write() as draft:
        draft.put(Space("toy@1", "toy", WIDTH, "active", 0.0))
        for key, name in zip("abcde", ("Ann <b>", "Bob", "Cid", "Dan", "Eve"), strict=True):
            draft.put(Person(key, name, 0.0))
        for number, (person, row, sharpness) in enumerate(rows, 1):
            path = tmp_path / f"{number}.png"
            digest = photo(path, 20 * number)
            box = (10.0, 5.0, 40.0, 45.0)
            measures = {"sharpness": sharpness}
            face = EnrolledFace(number, person, 0.0, digest, str(path), box, None, measures)
            draft.put(face)
            draft.put_vectors("toy@1", {number: row})
    return store


def test_every_finding_is_said_in_words_with_the_command_that_settles_it(tmp_path: Path) -> None:
    with store_of(tmp_path).read() as view:
        values = audit_values(view, "toy@1", RULES, "G.db")
    assert values["found"] == {
        "wrong_label": 1,
        "two_people": 0,
        "duplicate_person": 1,
        "duplicate_photo": 1,
        "poor_sample": 1,
    }
    text = audit_lines(values)
    assert "face 3 of Ann <b> looks like Bob" in text
    assert "facenet gallery move G.db --face 3 --to b" in text
    assert "Cid and Dan look like one person" in text
    assert "face 8 of Eve has a sharpness of 2" in text
    assert "5 people, 9 faces" in text


def test_the_page_shows_faces_escapes_names_and_is_private(tmp_path: Path) -> None:
    page = tmp_path / "out" / "audit.html"
    with store_of(tmp_path).read() as view:
        write_page(view, audit_values(view, "toy@1", RULES, "G.db"), page)
    text = page.read_text(encoding="utf-8")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "Ann &lt;b&gt;" in text
    assert "Ann <b>" not in text
    assert text.count("data:image/jpeg;base64,") >= 8
    assert 'class="suspect"' in text
    assert "http" not in text


def test_a_photo_that_changed_is_shown_by_its_source_and_a_crop_in_its_place(
    tmp_path: Path,
) -> None:
    store = store_of(tmp_path)
    photo(tmp_path / "8.png", 99)
    page = tmp_path / "audit.html"
    with store.read() as view:
        write_page(view, audit_values(view, "toy@1", RULES, "G.db"), page)
    assert "8.png" in page.read_text(encoding="utf-8")
    with store.write() as draft:
        draft.put(Crop(8, cv2.imencode(".png", np.zeros((20, 20, 3), np.uint8))[1].tobytes()))
    with store.read() as view:
        write_page(view, audit_values(view, "toy@1", RULES, "G.db"), page)
    assert "8.png" not in page.read_text(encoding="utf-8")


def test_a_damaged_crop_does_not_stop_the_page(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    with store.write() as draft:
        draft.put(Crop(8, b"no picture"))
    with store.read() as view:
        write_page(view, audit_values(view, "toy@1", RULES, "G.db"), tmp_path / "audit.html")
    assert "8.png" in (tmp_path / "audit.html").read_text(encoding="utf-8")


def test_the_rules_follow_the_rates_of_the_model() -> None:
    rules = audit_rules(toy_fmr())
    assert rules.same == pytest.approx(0.3, abs=1e-6)
    assert rules.other == pytest.approx(0.4, abs=1e-6)
    assert rules.same < rules.other < rules.double
    few = FmrTable("few", 20, 10, 190, (0.0, 0.2), (190, 3))
    assert audit_rules(few, toy_fmr()) == rules
    assert audit_rules(None, toy_fmr()) == rules
    assert audit_rules(few).same == audit_rules(few).double
    with pytest.raises(SettingsError, match="facenet calibrate"):
        audit_rules(None)


def test_injected_errors_are_counted_as_found_missed_and_false() -> None:
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    rows = unit(np.repeat(centres, 4, axis=0) + 0.05 * rng.normal(size=(160, 40)))
    people = tuple(f"p{i // 4:02d}" for i in range(160))
    block = VectorBlock(np.arange(1, 161), people, rows)
    score = score_audit(block, RULES, share=0.05, seed=1)
    assert (score["faces"], score["errors"]) == (160, 8)
    assert score["found"] == 1.0
    assert score["false_alarms"] == 0
    blind = score_audit(block, AuditRules(-1.0, 2.0, 2.0), share=0.05, seed=1)
    assert (blind["found"], blind["findings"]) == (0.0, 0)
    alarmed = score_audit(block, AuditRules(1.1, 0.6, 2.0), share=0.05, seed=1)
    assert alarmed["false_alarms"] > 0
    with pytest.raises(SettingsError, match="between 0 and 1"):
        score_audit(block, RULES, share=1.0, seed=0)


def test_the_command_scores_the_audit_on_a_folder(examples: Path, tmp_path: Path) -> None:
    known, photos = examples / "known", examples / "photos"
    for name, source in (
        ("Grace/1.jpg", known / "Grace Hopper.jpg"),
        ("Grace/2.jpg", photos / "hopper-rendition.jpg"),
        ("Eileen/1.jpg", known / "Eileen Collins.jpg"),
        ("Eileen/2.jpg", photos / "collins-rendition.jpg"),
    ):
        copy(source, tmp_path / name)
    asked = ("evaluate", "gallery-audit", tmp_path, "--errors", "0.25", "--runs", "2")
    ran = run(*asked, "--json")
    assert (ran.code, ran.json["faces"], ran.json["people"]) == (0, 4, 2)
    assert [(one["errors"], one["found"]) for one in ran.json["runs"]] == [(1, 1.0), (1, 1.0)]
    assert "100.0% of the wrong labels found" in run(*asked).out
    assert "runs should be" in refused(*asked[:-1], 0)
