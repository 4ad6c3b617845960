"""Importing people: what is passed over, what is reported, and runs that are cut off."""

from __future__ import annotations

import csv
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from fakes import ToyDetector, ToyEngine, toy_card, toy_faces, toy_fmr
from PIL import Image

from facenet.apps.jobs.enrolling import import_any
from facenet.faces.embed import Embedder
from facenet.galleries import Gallery
from facenet.gallery.judgement import EnrolmentRules
from facenet.recognizer import Recognizer

WIDTH = 256
"""Values of a toy vector: so many that people who differ are hardly similar."""
LENIENT = EnrolmentRules(
    min_face_size=None, min_sharpness=None, max_yaw=None, max_pitch=None, min_detection_score=None
)


def picture(path: Path, look: int) -> Path:
    """A picture of noise: one person's own look."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(look).integers(0, 256, (80, 80, 3), np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")
    return path


class Toy:
    """A gallery with a toy recognizer, and imports into it."""

    def __init__(self, place: str) -> None:
        self.engine = ToyEngine(WIDTH)
        card = toy_card(fmr=toy_fmr(), dimension=WIDTH)
        recognizer = Recognizer.from_parts(ToyDetector(toy_faces()), Embedder(card, self.engine))
        made = Gallery.create(place, recognizer=recognizer)
        self.gallery = Gallery(made.store, recognizer=recognizer, rules=LENIENT)
        self.told: list[str] = []

    def take(self, source: Path, report: Path | None = None, cut_at: int = 0):
        def done(number: int, total: int) -> None:
            if number == cut_at:
                raise KeyboardInterrupt

        return import_any(self.gallery, source, report=report, done=done, stopped=self.told.append)


@pytest.fixture
def toy():
    return Toy("memory://imports")


def test_files_that_are_no_picture_and_people_without_one_are_named(toy, tmp_path):
    root = tmp_path / "people"
    picture(root / "Ann" / "b.PNG", 1)
    for name in ("Ann/a.heic", "Ann/deep/notes.pdf", "Bob/1.heic", ".hidden/x.heic", "Ann/.x"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    picture(root / "Cid.png", 2)
    (root / "list.txt").write_text("x")
    (root / "Empty").mkdir()
    made = toy.take(root, tmp_path / "report.csv")
    files = ["Ann/a.heic", "Ann/deep/notes.pdf", "Bob/1.heic", "list.txt"]
    values = made.to_dict()
    assert values["files_passed_over"] == [str(root / name) for name in files]
    assert values["folders_without_picture"] == [str(root / "Bob"), str(root / "Empty")]
    assert (values["enrolled"], made.incomplete) == (2, True)
    assert made.text().endswith("0 refused, 4 files passed over, 2 folders without a picture")
    notes = " ".join(made.notes())
    assert f"{root / 'Bob'} holds no picture, so nobody was enrolled." in notes
    assert f"{root / 'Ann/a.heic'} was passed over: its ending is none of .jpg" in notes
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = {row["photo"]: row["reasons"] for row in csv.DictReader(file)}
    assert {rows[str(root / name)] for name in [*files, "Bob", "Empty"]} == {"no_picture"}
    assert len(rows) == 8


def test_a_folder_of_pictures_alone_says_nothing_more(toy, tmp_path):
    picture(tmp_path / "Ann" / "1.png", 1)
    made = toy.take(tmp_path)
    assert made.text() == "1 photos of 1 people enrolled, 0 were there already, 0 refused"
    assert (made.notes(), made.incomplete) == ([], False)


def test_many_files_that_are_passed_over_are_counted_not_all_named(toy, tmp_path):
    picture(tmp_path / "Ann" / "1.png", 1)
    for number in range(50):
        (tmp_path / "Ann" / f"{number}.heic").write_bytes(b"x")
    notes = toy.take(tmp_path).notes()
    assert len(notes) == 21
    assert notes[-1] == "30 more files were passed over."


def test_a_list_with_metadata_is_run_again_without_a_look_at_the_photos(toy, tmp_path):
    picture(tmp_path / "a.png", 1)
    picture(tmp_path / "b.png", 2)
    head = "person,photo,external_id,team\n"
    rows = head + "Ann,a.png,E-1,navy\nBob,b.png,,maths\n"
    (tmp_path / "list.csv").write_text(rows)
    assert toy.take(tmp_path / "list.csv").to_dict()["enrolled"] == 2
    calls = toy.engine.calls
    again = toy.take(tmp_path / "list.csv").to_dict()
    assert (again["already"], toy.engine.calls) == (2, calls)
    (tmp_path / "list.csv").write_text(rows.replace("maths", "law"))
    changed = toy.take(tmp_path / "list.csv").to_dict()
    assert (changed["already"], toy.engine.calls) == (2, calls + 1)
    assert toy.gallery.person("Bob").metadata == {"team": "law"}


def test_a_person_with_an_external_id_is_known_by_the_name_of_a_folder(toy, tmp_path):
    picture(tmp_path / "a.png", 1)
    (tmp_path / "list.csv").write_text("person,photo,external_id\nAnn,a.png,E-1\n")
    toy.take(tmp_path / "list.csv")
    calls = toy.engine.calls
    shutil.copy(tmp_path / "a.png", picture(tmp_path / "known" / "Ann" / "1.png", 3))
    assert toy.take(tmp_path / "known").to_dict()["already"] == 1
    assert toy.engine.calls == calls


def test_a_run_that_is_cut_off_says_what_it_kept_and_leaves_its_report(toy, tmp_path):
    for number in range(3):
        picture(tmp_path / "people" / f"P{number}" / "1.png", number)
    report = tmp_path / "report.csv"
    with pytest.raises(KeyboardInterrupt):
        toy.take(tmp_path / "people", report, cut_at=2)
    (said,) = toy.told
    assert "2 photos of 2 people enrolled" in said
    assert "run it again" in said
    assert len(report.read_text().splitlines()) == 3
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    made = toy.take(tmp_path / "people", report)
    assert (made.to_dict()["enrolled"], made.to_dict()["already"]) == (1, 2)
    assert len(toy.told) == 1
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


def test_photos_are_named_as_they_were_given_new_or_not(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(Path("people/Ann/2.png"), 1)
    toy.take(Path("people"))
    picture(Path("people/Ann/1.png"), 1).write_bytes(b"no picture")
    picture(Path("people/Ann/3.png"), 3)
    made = toy.take(Path("people"))
    names = [row["photo"] for row in made.photos]
    assert names == [os.path.join("people", "Ann", f"{n}.png") for n in (1, 2, 3)]
    assert [row["already"] for row in made.photos] == [False, True, False]
    assert all(os.path.isabs(face.source) for face in toy.gallery.faces("Ann"))
