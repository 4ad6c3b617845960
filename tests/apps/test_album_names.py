"""Albums of photos whose names are no Unicode text: shown, linked, copied and followed."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from miniature import front_door
from shell import blank, copy

from facenet.apps.jobs.album import Place, make_album
from facenet.apps.jobs.albumfolders import MARK, NOBODY
from facenet.apps.jobs.albumstate import open_album, shelves
from facenet.apps.jobs.clustering import Clustering, photos_in
from facenet.sightings import file_at

BYTES = sys.platform == "linux"
"""Whether a name may be any bytes; elsewhere it is Unicode."""
ODD = os.fsdecode(b"hop\xffper.jpg") if BYTES else "hop\u2603per.jpg"
EMPTY = os.fsdecode(b"empty\xfe.png") if BYTES else "empty\u2603.png"


@pytest.fixture
def photos(examples, tmp_path):
    folder = tmp_path / "photos"
    copy(examples / "photos" / "hopper-rendition.jpg", folder / ODD)
    copy(examples / "known" / "Grace Hopper.jpg", folder / "plain.jpg")
    blank(folder / EMPTY)
    return folder


def made(photos, out, layout):
    place = Place(photos, out, layout)
    return make_album(
        place, photos_in(photos), front_door(), Clustering(), done=lambda done, total: None
    )


def linked(out):
    """Every file that the page leads to, by the links that a browser would follow."""
    page = (out / "index.html").read_text("utf-8")
    return {
        Path(os.fsdecode(os.path.normpath(os.fsencode(out) + b"/" + unquote_to_bytes(link))))
        for link in re.findall(r'<a href="([^"]+)"', page)
    }


def test_the_page_links_them_and_shows_their_faces(photos, tmp_path):
    out = tmp_path / "album"
    made(photos, out, "album")
    assert linked(out) == set(photos.iterdir())
    assert all(path.is_file() for path in linked(out))
    record = json.loads((out / "album.json").read_text("utf-8"))
    faces = [face for person in record["people"] for face in person["faces"]]
    assert len(faces) == 2
    assert all((out / face["picture"]).is_file() for face in faces)


def test_folders_take_copies_and_remove_them_again(photos, tmp_path):
    out = tmp_path / "folders"
    assert made(photos, out, "folders").notes == []
    (folder,) = (path for path in out.iterdir() if path.is_dir() and path.name != NOBODY)
    assert {path.name for path in folder.iterdir()} == {ODD, "plain.jpg", MARK}
    assert (folder / ODD).read_bytes() == (photos / ODD).read_bytes()
    assert (out / NOBODY / EMPTY).is_file()
    (photos / ODD).rename(photos.parent / "gone.jpg")
    with open_album(out, front_door()) as gallery:
        (shelf,) = shelves(gallery.store)
        odd = next(face for face in shelf.faces if file_at(face.source).name == ODD)
        gallery.delete_faces(odd.id)
    made(photos, out, "folders")
    assert {path.name for path in out.rglob("*.jpg")} == {"plain.jpg"}


def test_one_that_moved_is_followed(photos, tmp_path):
    out = tmp_path / "album"
    made(photos, out, "album")
    moved = photos / "below" / ODD
    moved.parent.mkdir()
    (photos / ODD).rename(moved)
    made(photos, out, "album")
    assert moved in linked(out)
    assert (photos / ODD) not in linked(out)
