"""`facenet identify`, `verify` and `compare` with the built-in models on the examples."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from shell import blank, copy, opened, refused, run

import facenet
from facenet.models.catalog import find_card

OBAMA = "known/Barack Obama/official-portrait-2012.jpg"
COLUMNS = [
    "photo",
    "box",
    "detection_score",
    "person",
    "similarity",
    "threshold",
    "fmr",
    "best_candidate",
    "fpir",
]


@pytest.fixture(scope="module")
def answers(examples):
    ran = run("identify", examples / "known", examples / "photos", "--json")
    assert (ran.code, ran.err) == (0, "")
    return ran.json


@pytest.fixture(scope="module")
def stranger(examples, tmp_path_factory, answers):
    """A photo of the one person in the group whom nobody knows."""
    (box,) = [row["box"] for row in answers if row["person"] is None]
    width, height = box[2] - box[0], box[3] - box[1]
    cut = (box[0] - width / 2, box[1] - height / 2, box[2] + width / 2, box[3] + height / 2)
    path = tmp_path_factory.mktemp("stranger") / "stranger.png"
    opened(examples / "photos/group.jpg").crop([round(side) for side in cut]).save(path)
    return path


def test_known_people_are_named_everywhere_and_the_stranger_is_not(answers, examples):
    rows = sorted(answers, key=lambda row: (row["photo"], row["box"][0]))
    named = [(row["photo"].rsplit("/", 1)[1], row["person"]) for row in rows]
    assert named == [
        ("collins-rendition.jpg", "Eileen Collins"),
        ("group.jpg", "Eileen Collins"),
        ("group.jpg", "Barack Obama"),
        ("group.jpg", "Grace Hopper"),
        ("group.jpg", None),
        ("hopper-rendition.jpg", "Grace Hopper"),
        ("obama-speech-2009.jpg", "Barack Obama"),
    ]
    assert {row["photo"] for row in answers} == {
        str(path) for path in (examples / "photos").iterdir()
    }


def test_an_answer_has_the_agreed_keys_and_follows_from_its_own_numbers(answers):
    table = find_card("mobilefacenet").fmr
    for row in answers:
        assert list(row) == COLUMNS
        assert (row["person"] is not None) == (row["similarity"] >= row["threshold"])
        assert row["person"] in (None, row["best_candidate"])
        assert 0.9 < row["detection_score"] <= 1
        above = np.interp(row["threshold"], table.similarity, np.log10(table.false_matches))
        assert row["fmr"] == pytest.approx(10**above / table.pairs, rel=0.01)
        assert row["fmr"] == pytest.approx(1e-4, rel=0.01)
        assert row["fpir"] == pytest.approx(1 - (1 - row["fmr"]) ** 3, rel=1e-4)


def test_csv_says_what_json_says(answers, examples):
    ran = run("identify", examples / "known", examples / "photos")
    assert ran.out.splitlines()[0] == ",".join(COLUMNS)
    assert len(ran.rows) == len(answers)
    for row, answer in zip(ran.rows, answers, strict=True):
        assert [float(side) for side in row["box"].split()] == answer["box"]
        assert row["person"] == (answer["person"] or "")
        assert float(row["similarity"]) == answer["similarity"]


def test_the_similarity_is_that_of_the_best_photo_of_the_person(answers, examples):
    """From vectors that `facenet.embed` gives: the highest product with any enrolled vector."""
    people = {"Barack Obama": OBAMA}
    people |= {name: f"known/{name}.jpg" for name in ("Eileen Collins", "Grace Hopper")}
    known = {name: facenet.embed(examples / path)[0] for name, path in people.items()}
    for row in answers:
        vectors = facenet.embed(row["photo"])
        boxes = facenet.detect(row["photo"]).boxes
        (face,) = np.flatnonzero(np.abs(boxes - row["box"]).max(axis=1) < 0.01)
        products = {name: float(vectors[face] @ vector) for name, vector in known.items()}
        assert row["best_candidate"] == max(products, key=products.__getitem__)
        assert row["similarity"] == pytest.approx(max(products.values()), abs=1e-5)


def test_several_photos_of_a_person_count_by_the_best_of_them(examples, tmp_path, stranger):
    """A folder with a good and a bad photo of Hopper answers as the good one alone does."""
    known, photo = tmp_path / "known", examples / "photos/hopper-rendition.jpg"
    copy(examples / "known/Grace Hopper.jpg", known / "Grace Hopper.jpg")
    alone = run("identify", known, photo, "--json").json
    copy(stranger, known / "Grace Hopper/other.png")
    (both,), (alone,) = run("identify", known, photo, "--json").json, alone
    assert both.pop("fpir") == pytest.approx(2 * alone.pop("fpir"), rel=1e-3)  # two comparisons
    assert both == alone


def test_nobody_named_is_exit_code_1(examples, stranger):
    ran = run("identify", examples / "known", stranger, "--json")
    assert (ran.code, ran.err) == (1, "")
    assert [row["person"] for row in ran.json] == [None]


def test_a_threshold_of_ones_own_decides(examples, stranger):
    known = ("identify", examples / "known", stranger, "--json")
    seen = run(*known).json[0]["similarity"]
    for threshold, code in ((seen - 0.001, 0), (seen + 0.001, 1)):
        ran = run(*known, "--threshold", threshold)
        assert ran.code == code
        assert ran.json[0]["threshold"] == pytest.approx(threshold, rel=1e-5)


def test_a_rate_over_all_known_people_decides(examples, stranger):
    """Three known people share the rate; 1 - (1 - fmr)^3 is what was asked for."""
    known = ("identify", examples / "known", stranger, "--json")
    row = run(*known, "--fpir", 0.003).json[0]
    assert row["fpir"] == pytest.approx(0.003, rel=1e-5)
    assert row["fmr"] == pytest.approx(0.001, rel=2e-3)
    said = refused(*known, "--fpir", 0.003, "--fmr", 0.001)
    assert said == "Give one of fmr, fpir and threshold, not several."
    assert "should be from" in refused(*known, "--fpir", 1e-9)
    for rate in (0, 1):
        assert "fpir should be above 0 and below 1" in refused(*known, "--fpir", rate)


def test_a_rate_of_ones_own_decides(examples, stranger):
    known = ("identify", examples / "known", stranger, "--json")
    strict, loose = (run(*known, "--fmr", rate).json[0] for rate in (1e-5, 1e-2))
    assert strict["threshold"] > loose["threshold"]
    assert strict["fmr"] == pytest.approx(1e-5, rel=0.05)
    assert loose["fmr"] == pytest.approx(1e-2, rel=0.05)


def test_a_photo_without_a_face_is_told_and_the_others_are_answered(examples, tmp_path):
    photos = tmp_path / "photos"
    copy(examples / "photos/hopper-rendition.jpg", photos / "hopper.jpg")
    blank(photos / "sky.png")
    ran = run("identify", examples / "known", photos, "--json")
    assert (ran.code, ran.sentence) == (0, f"No face was found in {photos / 'sky.png'}.")
    assert [row["person"] for row in ran.json] == ["Grace Hopper"]


def test_no_face_in_any_photo_is_an_error(examples, tmp_path):
    ran = run("identify", examples / "known", blank(tmp_path / "sky.png"), "--json")
    assert (ran.code, ran.json) == (2, [])
    assert "No face was found" in ran.sentence


def test_an_unreadable_photo_is_told_and_the_others_are_answered(examples, tmp_path):
    photos = tmp_path / "photos"
    copy(examples / "photos/hopper-rendition.jpg", photos / "b.jpg")
    (photos / "a.jpg").write_text("no picture")
    ran = run("identify", examples / "known", photos, "--json")
    assert ran.code == 2
    assert "a.jpg" in ran.sentence
    assert [row["person"] for row in ran.json] == ["Grace Hopper"]


def test_a_broken_photo_beside_a_good_one_is_not_enrolled_and_said(examples, tmp_path):
    known = tmp_path / "known"
    copy(examples / "known/Grace Hopper.jpg", known / "Grace Hopper/good.jpg")
    (known / "Grace Hopper/broken.jpg").write_text("no picture")
    ran = run("identify", known, examples / "photos/hopper-rendition.jpg", "--json")
    assert ran.code == 0
    assert ran.sentence.startswith("Not enrolled: ")
    assert "broken.jpg" in ran.sentence
    assert ran.json[0]["person"] == "Grace Hopper"


def test_people_who_cannot_be_known_are_refused(examples, tmp_path):
    photo = examples / "photos/hopper-rendition.jpg"
    empty, faceless, crowded = (tmp_path / name for name in ("empty", "faceless", "crowded"))
    empty.mkdir()
    blank(faceless / "Nobody.png")
    copy(examples / "photos/group.jpg", crowded / "Four People.jpg")
    assert "one picture file or one sub-folder per person" in refused("identify", empty, photo)
    assert "it is a file" in refused("identify", photo, photo)
    assert "there is no such folder" in refused("identify", tmp_path / "nosuch", photo)
    assert refused("identify", faceless, photo).startswith("Nobody has no usable photo.")
    assert "4 faces were found" in refused("identify", crowded, photo)


def test_names_and_paths_need_not_be_ascii(examples, tmp_path):
    known, photos = tmp_path / "Bekannte Zoë", tmp_path / "фото"
    copy(examples / "known/Grace Hopper.jpg", known / "李小龍.jpg")
    photo = copy(examples / "photos/hopper-rendition.jpg", photos / "Zoë's ñandú.jpg")
    ran = run("identify", known, photos, "--json", "--draw", tmp_path / "gezeichnet ß")
    assert ran.code == 0
    assert ran.json[0]["person"] == "李小龍"
    assert ran.json[0]["photo"] == str(photo)
    assert (tmp_path / "gezeichnet ß" / photo.name).is_file()
    assert run("identify", known, photos).rows[0]["person"] == "李小龍"


def test_drawn_copies_mirror_the_photos_and_mark_the_faces(answers, examples, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(examples / "photos", photos / "2024")
    opened(photos / "2024/hopper-rendition.jpg").save(photos / "old.bmp")
    run("identify", examples / "known", photos, "--draw", tmp_path / "out")
    drawn = {p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*") if p.is_file()}
    originals = {p.relative_to(photos) for p in photos.rglob("*.jpg")}
    assert {str(path) for path in drawn} == {str(path) for path in originals} | {"old.bmp.png"}

    before = np.asarray(opened(examples / "photos/group.jpg"), np.int64)
    after = np.asarray(opened(tmp_path / "out/2024/group.jpg"), np.int64)
    changed = np.abs(after - before).max(axis=2) > 60
    far = np.ones_like(changed)
    for row in answers:
        if not row["photo"].endswith("group.jpg"):
            continue
        x1, y1, x2, y2 = (round(side) for side in row["box"])
        color = (38, 166, 91) if row["person"] else (214, 69, 65)
        edge = after[y1 + 20 : y2 - 20, x1 - 1 : x1 + 2] - color
        assert np.abs(edge).max(axis=2).min(axis=1).max() < 60
        assert not changed[y1 + 20 : y2 - 20, x1 + 20 : x2 - 20].any()
        far[max(0, y1 - 60) : y2 + 60, x1 - 20 : x1 + 400] = False
    assert not changed[far].any()


def test_one_answer_per_question(examples, tmp_path):
    a, b = examples / OBAMA, examples / "photos/obama-speech-2009.jpg"
    ran = run("verify", a, b, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert list(ran.json) == [
        *("match", "similarity", "threshold", "fmr", "fmr_source", "probability")
    ]
    assert ran.json["fmr_source"] == "87,294,040 pairs of LFW deep-funneled"
    assert ran.json["probability"] is None
    assert ran.json["match"] is True
    product = float(facenet.embed(a)[0] @ facenet.embed(b)[0])
    assert ran.json["similarity"] == pytest.approx(product, abs=1e-5)
    other = run("verify", a, examples / "known/Grace Hopper.jpg", "--json")
    assert (other.code, other.json["match"]) == (1, False)
    assert other.json["threshold"] == ran.json["threshold"]


def test_the_answer_as_a_sentence(examples):
    a, b = examples / OBAMA, examples / "photos/obama-speech-2009.jpg"
    answer = run("verify", a, b, "--json").json
    assert run("verify", a, b).out == (
        f"same person: similarity {answer['similarity']:.3f} >= {answer['threshold']:.3f} "
        "(false-match rate 0.0001, 87,294,040 pairs of LFW deep-funneled)\n"
    )
    other = run("verify", a, b, "--threshold", "0.95")
    assert other.code == 1
    assert other.out.startswith("different people: similarity ")
    assert " < 0.950 (false-match rate " in other.out


def test_a_photo_to_verify_shows_one_face(examples, tmp_path):
    a, group = examples / OBAMA, examples / "photos/group.jpg"
    sky = blank(tmp_path / "sky.png")
    assert refused("verify", a, sky).startswith(f"No face was found in {sky}; one is needed.")
    assert refused("verify", group, a).startswith(f"4 faces were found in {group};")
    ran = run("verify", group, a, "--select", "largest", "--json")
    assert (ran.code, ran.json["match"]) == (0, True)
    ran = run("verify", group, a, "--select", "center_weighted_size", "--json")
    assert (ran.code, ran.json["match"]) == (1, False)
    assert "select should be one of" in refused("verify", group, a, "--select", "biggest")


def test_flip_is_a_vector_space_of_its_own(examples):
    a, b = examples / OBAMA, examples / "photos/obama-speech-2009.jpg"
    plain, flipped = (run("verify", a, b, "--json", *f).json for f in ((), ("--flip",)))
    assert flipped["similarity"] != plain["similarity"]
    assert flipped["similarity"] == pytest.approx(plain["similarity"], abs=0.1)


def test_compare_is_the_products_of_what_embed_writes(examples, tmp_path):
    photos = [examples / OBAMA, examples / "known/Grace Hopper.jpg"]
    photos += [examples / "photos" / f"{name}-rendition.jpg" for name in ("hopper", "collins")]
    ran = run("compare", *photos, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["photos"] == [str(photo) for photo in photos]
    run("embed", *photos, "--out", tmp_path / "v.npz")
    vectors = np.load(tmp_path / "v.npz")["embeddings"].astype(np.float64)
    assert np.array(ran.json["similarity"]) == pytest.approx(vectors @ vectors.T, abs=1e-5)

    table = run("compare", *photos).out.splitlines()
    assert table[0].split(",") == ["photo", *map(str, photos)]
    cells = [line.split(",") for line in table[1:]]
    assert [row[0] for row in cells] == [str(photo) for photo in photos]
    assert [[float(v) for v in row[1:]] for row in cells] == ran.json["similarity"]


def test_compare_takes_two_photos_or_more_and_the_same_twice(examples):
    photo = examples / "photos/hopper-rendition.jpg"
    assert refused("compare", photo) == "Comparing needs two photos or more; got 1."
    matrix = run("compare", photo, photo, "--json").json["similarity"]
    assert np.array(matrix) == pytest.approx(np.ones((2, 2)), abs=1e-5)
