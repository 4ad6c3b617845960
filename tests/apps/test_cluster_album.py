"""`facenet cluster`: photos become clusters, an album keeps names and what users decided."""

from __future__ import annotations

import json
import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fakes import ToyDetector, ToyEngine, toy_card, toy_faces, toy_fmr
from miniature import front_door, toy
from shell import blank, copy, opened, refused, run, tree

from facenet.apps.jobs.album import UNFINISHED, Place, make_album
from facenet.apps.jobs.albumfolders import MARK, NOBODY, ONCE, folder_name
from facenet.apps.jobs.albumstate import FILE, open_album, shelves
from facenet.apps.jobs.clustering import Clustering, cluster_photos, levels_of, photos_in
from facenet.errors import ContractError, InputError, SettingsError
from facenet.faces.embed import Embedder
from facenet.gallery import corrections
from facenet.recognizer import Recognizer

WHO = {
    "official-portrait-2012.jpg": ["Obama"],
    "Eileen Collins.jpg": ["Collins"],
    "Grace Hopper.jpg": ["Hopper"],
    "collins-rendition.jpg": ["Collins"],
    "group.jpg": ["Obama", "Biden", "Hopper", "Collins"],
    "hopper-rendition.jpg": ["Hopper"],
    "obama-speech-2009.jpg": ["Obama"],
}


def nothing(done: int, total: int) -> None:
    """Progress that nobody watches."""


def album(photos, out, layout="folders", recognizer=None, **how):
    """Make an album with the built-in models."""
    place, asked = Place(photos, out, layout), Clustering(**how)
    return make_album(place, photos_in(photos), recognizer or front_door(), asked, done=nothing)


def names(rows):
    """The true people of each cluster or person of rows, each once."""
    found = {}
    for photo in {row["photo"] for row in rows}:
        there = [row for row in rows if row["photo"] == photo]
        for row, who in zip(there, WHO[Path(photo).name], strict=True):
            found.setdefault(row.get("person", row["cluster"]), []).append(who)
    return {key: sorted(people) for key, people in found.items()}


def store_of(out):
    return open_album(out, front_door()).store


@pytest.fixture
def photos(examples, tmp_path):
    """A folder of four photos with seven faces; `known` adds three."""
    folder = tmp_path / "photos"
    for path in (examples / "photos").iterdir():
        copy(path, folder / path.name)
    return folder


def add_known(examples, photos):
    for path in (examples / "known").rglob("*.jpg"):
        copy(path, photos / "more" / path.name)


def test_the_command_prints_an_object_per_face_and_writes_nothing(examples, tmp_path):
    before = tree(examples)
    ran = run("cluster", examples, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert names(ran.json) == {
        0: ["Obama"] * 3,
        1: ["Collins"] * 3,
        2: ["Hopper"] * 3,
        3: ["Biden"],
    }
    for row in ran.json:
        assert list(row) == ["photo", "box", "detection_score", "cluster", "size"]
        assert len(row["box"]) == 4
        assert row["size"] == (1 if row["cluster"] == 3 else 3)
    rows = run("cluster", examples, "--method", "whispers").rows
    assert [row["cluster"] for row in rows] == [str(row["cluster"]) for row in ran.json]
    assert tree(examples) == before


def test_a_second_run_is_remembered_and_the_same(photos, home):
    first = run("cluster", photos, "--json")
    (file,) = (home / "cache").glob("*.sqlite")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    engine = ToyEngine()
    embedder = Embedder(toy_card(fmr=toy_fmr()), engine)
    recognizer = Recognizer.from_parts(ToyDetector(toy_faces()), embedder)
    recognizer.detection = "toy detector"
    for _ in range(2):
        found = cluster_photos(photos_in(photos), recognizer, Clustering(), done=nothing)
        assert len(found.rows) == 4
        assert sum(engine.batches) == 4
    cluster_photos(photos_in(photos), recognizer, Clustering(remember=False), done=nothing)
    assert sum(engine.batches) == 8
    assert run("cluster", photos, "--json").json == first.json


def test_a_broken_photo_and_one_without_a_face_stop_nothing(photos):
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    blank(photos / "sky.png")
    ran = run("cluster", photos, "--json")
    assert ran.code == 2
    assert len(ran.json) == 7
    assert "broken.jpg" in ran.err
    assert f"No face was found in {photos / 'sky.png'}" in ran.err


def test_an_album_has_a_folder_for_each_person(photos, tmp_path):
    blank(photos / "sky.png")
    out = tmp_path / "album"
    ran = run("cluster", photos, out, "--json")
    assert ran.code == 0
    assert names(ran.json) == {
        "person 1": ["Collins"] * 2,
        "person 2": ["Obama"] * 2,
        "person 3": ["Hopper"] * 2,
        "person 4": ["Biden"],
    }
    files = {name: data for name, data in tree(out).items() if not name.endswith(MARK)}
    assert set(files) == {
        FILE,
        "person 1/collins-rendition.jpg",
        "person 1/group.jpg",
        "person 2/group.jpg",
        "person 2/obama-speech-2009.jpg",
        "person 3/group.jpg",
        "person 3/hopper-rendition.jpg",
        f"{ONCE}/group.jpg",
        f"{NOBODY}/sky.png",
    }
    assert files["person 1/group.jpg"] == (photos / "group.jpg").read_bytes()
    assert stat.S_IMODE((out / FILE).stat().st_mode) == 0o600


def test_names_stay_and_new_photos_come_to_them(examples, photos, tmp_path):
    out = tmp_path / "album"
    album(photos, out)
    (out / "person 1").rename(out / "Eileen")
    corrections.rename(store_of(out), "person 2", "The President / 44")
    add_known(examples, photos)
    made = album(photos, out)
    assert made.notes == []
    assert [entry["action"] for entry in run("gallery", "history", out / FILE, "--json").json] == [
        "rename",
        "rename",
    ]
    assert names(made.rows) == {
        "Eileen": ["Collins"] * 3,
        "The President / 44": ["Obama"] * 3,
        "person 3": ["Hopper"] * 3,
        "person 4": ["Biden"],
    }
    assert {path.name for path in out.iterdir() if path.is_dir()} == {
        "Eileen",
        "The President _ 44",
        "person 3",
        ONCE,
    }
    assert (out / "Eileen" / "Eileen Collins.jpg").exists()
    again = album(photos, out)
    assert again.rows == made.rows
    assert len(store_of(out).read().__enter__().find(corrections.Person)) == 4


def test_what_users_decide_is_obeyed_by_later_runs(examples, photos, tmp_path):
    """Hopper's two photos are said to be two people, and Biden is said to be Collins."""
    out = tmp_path / "album"
    album(photos, out)
    store = store_of(out)
    hopper, biden = (
        next(s for s in shelves(store) if s.person.name == name)
        for name in ("person 3", "person 4")
    )
    corrections.reject(store, hopper.faces[1].id, hopper.person.id)
    corrections.move(store, [biden.faces[0].id], "person 1")
    add_known(examples, photos)
    for _ in range(2):
        people = {tuple(people) for people in names(album(photos, out).rows).values()}
        assert ("Biden", "Collins", "Collins", "Collins") in people
        assert ("Hopper", "Hopper", "Hopper") not in people
        assert sum("Hopper" in one for one in people) == 2
    assert not list((out / ONCE).glob("*rendition*")) or ("Hopper",) in people


def test_an_album_looks_at_each_photo_once_even_without_the_cache(photos, tmp_path):
    """And knows again a photo that lies elsewhere now."""
    engine = ToyEngine()
    embedder = Embedder(toy_card(fmr=toy_fmr()), engine)
    recognizer = Recognizer.from_parts(ToyDetector(toy_faces()), embedder)
    out = tmp_path / "album"
    first = album(photos, out, recognizer=recognizer)
    assert sum(engine.batches) == 4
    (photos / "group.jpg").rename(photos / "moved.jpg")
    blank(photos / "new.png")
    again = album(photos, out, recognizer=recognizer)
    assert sum(engine.batches) == 5
    assert [Path(row["photo"]).name for row in again.rows] == [
        "collins-rendition.jpg",
        "hopper-rendition.jpg",
        "moved.jpg",
        "new.png",
        "obama-speech-2009.jpg",
    ]
    with open_album(out, recognizer) as gallery:
        faces = [face for shelf in shelves(gallery.store) for face in shelf.faces]
    assert len(first.rows) == 4
    assert all(Path(face.source).is_file() for face in faces)


def test_an_interrupted_album_goes_on_where_it_was(photos, tmp_path):
    engine = ToyEngine()
    embedder = Embedder(toy_card(fmr=toy_fmr()), engine)
    recognizer = Recognizer.from_parts(ToyDetector(toy_faces()), embedder)
    recognizer.detection = "toy detector"
    out = tmp_path / "album"

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_album(Place(photos, out), photos_in(photos), recognizer, Clustering(), done=stop)
    assert sum(engine.batches) == 4
    (left,) = (out / UNFINISHED).iterdir()
    assert stat.S_IMODE(left.stat().st_mode) == 0o600
    made = album(photos, out, recognizer=recognizer)
    assert (len(made.rows), sum(engine.batches)) == (4, 4)
    assert not (out / UNFINISHED).exists()


def test_copies_that_do_not_belong_go_and_those_a_user_changed_stay(photos, tmp_path):
    out = tmp_path / "album"
    album(photos, out)
    (out / "person 3" / "hopper-rendition.jpg").write_bytes(b"a user's own")
    (out / "person 3" / "notes.txt").write_text("mine")
    corrections.merge(store_of(out), "person 1", ["person 3"])
    album(photos, out)
    assert {path.name for path in (out / "person 3").iterdir()} == {
        "hopper-rendition.jpg",
        "notes.txt",
    }
    merged = {path.name for path in (out / "person 1").iterdir()}
    assert merged == {MARK, "collins-rendition.jpg", "group.jpg", "hopper-rendition.jpg"}
    assert (out / "person 1" / "hopper-rendition.jpg").stat().st_size > 1000


def test_two_photos_of_one_name_and_two_people_of_one_name(photos, tmp_path):
    copy(photos / "group.jpg", photos / "b" / "collins-rendition.jpg")
    with (photos / "b" / "collins-rendition.jpg").open("ab") as file:
        file.write(b"\0")
    out = tmp_path / "album"
    album(photos, out)
    store = store_of(out)
    for number in (1, 2):
        corrections.rename(store, f"person {number}", "Alex")
    album(photos, out)
    assert {path.name for path in out.iterdir() if path.is_dir()} >= {"Alex", "Alex (2)"}
    alike = list(out.glob("*/collins-rendition*.jpg"))
    assert len({path.read_bytes() for path in alike}) == 2
    assert any(re.fullmatch(r"collins-rendition-[0-9a-f]{8}\.jpg", path.name) for path in alike)


def test_names_of_folders_are_harmless():
    assert folder_name("../../etc") == "_.._.._etc"
    assert folder_name('a<b>:"c|?*\x07') == "a_b___c____"
    assert folder_name(". ") == "_"
    assert folder_name("ok.") == "ok"
    assert len(folder_name("x" * 500)) == 80


class Links(HTMLParser):
    """What a page shows and where it leads."""

    def __init__(self, page):
        super().__init__()
        self.pictures, self.links, self.text, self.tags = [], [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.pictures += [values["src"]] if tag == "img" else []
        self.links += [values["href"]] if tag == "a" else []

    def handle_data(self, data):
        self.text += data


def test_the_page_shows_everybody_and_loads_nothing_from_elsewhere(photos, tmp_path):
    blank(photos / "50 % sky?.png")
    out = tmp_path / "album"
    corrections_name = "<script>alert(1)</script>"
    album(photos, out, "album")
    corrections.rename(store_of(out), "person 1", corrections_name)
    album(photos, out, "album")
    page = Links((out / "index.html").read_text("utf-8"))
    assert "script" not in page.tags
    assert corrections_name in page.text
    assert page.text.index(corrections_name) < page.text.index("Seen once")
    assert len(page.pictures) == 7
    for picture in page.pictures:
        assert max(opened(out / picture).size) == 120
    assert len(page.links) == 8
    from urllib.parse import unquote

    for link in page.links:
        assert "://" not in link
        assert (out / unquote(link)).resolve().is_file()
    record = json.loads((out / "album.json").read_text("utf-8"))
    assert [person["count"] for person in record["people"]] == [2, 2, 2, 1]
    assert record["without_a_face"] == [str(photos / "50 % sky?.png")]
    assert record["method"] == "template"


def test_pictures_of_deleted_people_leave_the_page(photos, tmp_path):
    out = tmp_path / "album"
    album(photos, out, "album")
    corrections.delete_person(store_of(out), "person 1")
    made = album(photos, out, "album")
    assert len(made.rows) == 5
    assert len(list((out / "faces").iterdir())) == 5
    assert "person 1" not in {row["person"] for row in made.rows}


def test_two_faces_of_one_photo_are_two_people_unless_collages_are_meant(tmp_path):
    """Two boxes on one face of a toy that sees them 0.6 alike: below the level for collages."""
    photo = blank(tmp_path / "photos" / "a.png")
    card = toy_card(fmr=toy_fmr())

    class Two(ToyEngine):
        def run(self, feeds):
            rows = super().run(feeds)["embedding"] * 0
            rows[:, 0] = 1
            rows[1::2, 1] = np.tan(np.arccos(0.6))
            return {"embedding": rows}

    boxes = toy_faces((2, 2, 30, 40), (40, 2, 70, 40))
    recognizer = Recognizer.from_parts(ToyDetector(boxes), Embedder(card, Two()))
    for collages, clusters in ((False, [0, 1]), (True, [0, 0])):
        how = Clustering(threshold=0.5, collages=collages)
        assert levels_of(recognizer, how).twice_at > 0.6
        found = cluster_photos(photos_in(photo.parent), recognizer, how, done=nothing)
        assert [row["cluster"] for row in found.rows] == clusters


def test_the_level_is_a_rate_or_a_similarity_or_facenets_own():
    recognizer = toy(fmr=toy_fmr())
    assert levels_of(recognizer, Clustering(fmr=1e-2)).settings.threshold == pytest.approx(0.2)
    assert levels_of(recognizer, Clustering(fmr=1e-2)).twice_at == pytest.approx(0.3)
    assert levels_of(recognizer, Clustering(threshold=0.4)).fmr == pytest.approx(1e-4)
    default = levels_of(recognizer, Clustering())
    assert default.fmr == pytest.approx(3e-6)
    facenet = levels_of(toy(), Clustering("facenet-dbscan"))
    assert (facenet.settings.threshold, facenet.fmr, facenet.twice_at) == (0.5, None, 0.75)
    with pytest.raises(SettingsError, match="no table of false-match rates"):
        levels_of(toy(), Clustering())
    with pytest.raises(SettingsError, match="either fmr or threshold"):
        levels_of(recognizer, Clustering(fmr=1e-2, threshold=0.5))
    with pytest.raises(SettingsError, match="facenet-dbscan has facenet's own threshold"):
        levels_of(recognizer, Clustering("facenet-dbscan", fmr=1e-2))


def test_what_cannot_be_is_refused_before_the_work(photos, examples, tmp_path):
    assert "OUT should lie outside the photos" in refused("cluster", photos, photos / "album")
    assert "OUT should lie outside the photos" in refused("cluster", photos, tmp_path)
    assert "OUT should lie outside the photos" in refused("cluster", photos, photos)
    assert "holds other files" in refused("cluster", photos, examples)
    assert "one of folders, album; got 'pile'" in refused(
        "cluster", photos, tmp_path / "a", "--layout", "pile"
    )
    assert "method should be one of" in refused("cluster", photos, "--method", "kmeans")
    assert "No such file or folder" in refused("cluster", tmp_path / "none")
    file = tmp_path / "a-file"
    file.write_text("")
    assert "Cannot make the album" in refused("cluster", photos, file)
    assert not (tmp_path / "a").exists()


def test_an_album_is_of_one_model_and_hdbscan_cannot_add_to_it(photos, tmp_path):
    out = tmp_path / "album"
    album(photos, out, method="hdbscan")
    with pytest.raises(SettingsError, match="HDBSCAN cannot add photos"):
        album(photos, out, method="hdbscan")
    with pytest.raises(ContractError, match="the model it was made with"):
        album(photos, out, recognizer=toy(fmr=toy_fmr()))
    with pytest.raises(InputError, match="OUT should lie outside"):
        Place(photos / "group.jpg", photos)
