"""How far an audit or an enrolment is: told to the caller, and shown where a person watches."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from facenet.apps.cli.enroll import counted
from facenet.apps.jobs.galleryaudit import audit_gallery
from facenet.galleries import Gallery
from facenet.gallery.audit import BLOCK
from facenet.gallery.records import EnrolledFace, Person
from facenet.vectors import unit

FACES = 2 * BLOCK + 7


def filled(place, people, faces):
    """A gallery with so many people, who have so many faces among them."""
    rng = np.random.default_rng(0)
    with Gallery.create(place) as gallery:
        space = gallery.space
        with gallery.store.write() as draft:
            for number in range(people):
                draft.put(Person(f"p{number}", f"P {number}", 1.0))
            ids = [draft.next_id(EnrolledFace) for _ in range(faces)]
            for face in ids:
                draft.put(EnrolledFace(face, f"p{face % people}", 1.0))
            rows = unit(rng.standard_normal((faces, space.dimension))).astype(np.float32)
            draft.put_vectors(space.contract, dict(zip(ids, rows, strict=True)))
    return place


@pytest.mark.parametrize(
    ("people", "faces", "told"),
    [
        (90, FACES, [(BLOCK, FACES), (2 * BLOCK, FACES), (FACES, FACES)]),
        (1, 3, [(3, 3)]),
    ],
)
def test_the_faces_that_were_compared_are_told(tmp_path, people, faces, told):
    place = filled(tmp_path / "G.db", people, faces)
    seen = []
    with Gallery.open(place) as gallery:
        audit_gallery(gallery, str(place), page=None, done=lambda *step: seen.append(step))
    assert seen == told


def test_a_bar_is_shown_to_a_person_and_to_nobody_else(tmp_path):
    place = filled(tmp_path / "G.db", 9, 30)
    code = "from facenet.apps.cli import main; main()"
    command = [sys.executable, "-c", code, "gallery", "audit", str(place), "--json"]
    master, slave = os.openpty()
    terminal = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    watched = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=slave, env=terminal, check=False
    )
    os.close(slave)
    shown = os.read(master, 1 << 16).decode()
    os.close(master)
    alone = subprocess.run(command, capture_output=True, check=False)
    assert "faces" in shown
    assert "30/30" in shown
    assert b"30/30" not in alone.stderr
    assert watched.stdout == alone.stdout


def test_photos_are_counted_as_they_are_taken():
    seen = []
    taken = counted(["a", "b", "c"], lambda *step: seen.append(step))
    assert next(taken) == "a"
    assert seen == []
    assert list(taken) == ["b", "c"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
