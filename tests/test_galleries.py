"""Galleries as people use them: photos in, people kept, faces named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes import ToyDetector, ToyEngine, toy_card, toy_faces, toy_fmr

import facenet
from facenet.errors import (
    ContractError,
    GalleryError,
    ImageError,
    InputError,
    NoFaceError,
    SettingsError,
    SeveralFacesError,
    UnknownModelError,
    UnknownPersonError,
)
from facenet.faces.embed import Embedder
from facenet.galleries import Gallery
from facenet.gallery.judgement import EnrolmentRules
from facenet.gallery.records import Setting, Space
from facenet.gallery.snapshot import snapshot_path
from facenet.models.calibration import Calibration, Logistic
from facenet.recognizer import GROUP, Recognizer
from facenet.types import Faces

WIDTH = 256
"""Values of a toy vector: so many that people who differ are hardly similar."""
LENIENT = EnrolmentRules(
    min_face_size=None, min_sharpness=None, max_yaw=None, max_pitch=None, min_detection_score=None
)


def picture(look, faces=1, seed=0):
    """Noise of a person's own look, with a little of a photo's own; the corner tells the toy
    how many faces to find."""
    pixels = np.random.default_rng(look).integers(1, 256, (80, 200, 3))
    pixels = pixels + np.random.default_rng(1000 + seed).integers(0, 8, (80, 200, 3))
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    pixels[0, 0] = faces
    return pixels


def find_faces(image):
    boxes = [(60 * n, 5, 60 * n + 50 - n, 60 - n) for n in range(int(image[0, 0, 0]))]
    return toy_faces(*boxes) if boxes else Faces.empty()


def toy(precision="fp32", flip=False, calibration=None, **card):
    engine = ToyEngine(WIDTH)
    if precision != "fp32":
        engine.describe = lambda: {"precision": precision}
    card = toy_card(**{"fmr": toy_fmr(), "dimension": WIDTH, **card})
    return Recognizer.from_parts(
        ToyDetector(find_faces), Embedder(card, engine, flip=flip), calibration
    )


@pytest.fixture(params=["memory", "file"])
def gallery(request, tmp_path):
    place = "memory://toy" if request.param == "memory" else tmp_path / "G.db"
    with Gallery.create(place, recognizer=toy()) as made:
        yield Gallery(made.store, recognizer=toy(), rules=LENIENT)


# ---- the photos of the repository


def test_the_people_of_the_examples(examples, tmp_path):
    """The built-in models, a file, and no model named anywhere."""
    with facenet.Gallery.create(tmp_path / "G.db", keep_crops=True) as gallery:
        known = examples / "known"
        people = {
            path.stem: sorted(path.iterdir()) if path.is_dir() else path
            for path in sorted(known.iterdir())
        }
        for name, photos in people.items():
            for answer in gallery.enroll(name, photos, metadata={"film": "no"}):
                assert (answer.reasons, answer.name) == ((), name)
        hopper = examples / "photos/hopper-rendition.jpg"
        (wrong,) = gallery.enroll("Barack Obama", hopper)
        assert [reason.code for reason in wrong.reasons] == ["conflict", "unlike"]
    with facenet.Gallery.open(tmp_path / "G.db") as gallery:
        answers = gallery.identify(examples / "photos/group.jpg")
        named = {answer.person for answer in answers}
        assert named == {None, "Barack Obama", "Eileen Collins", "Grace Hopper"}
        for answer in answers:
            assert answer.fmr == 1e-4
            assert answer.fpir == pytest.approx(1 - (1 - 1e-4) ** 3)
            assert (answer.reason is None) == (answer.margin > 0.4) == bool(answer.person)
        assert gallery.verify("Grace Hopper", hopper).match
        assert not gallery.verify("Eileen Collins", hopper).match
        assert gallery.search(hopper, 2)[0].person == "Grace Hopper"
        (face,) = gallery.faces("Grace Hopper")
        assert facenet.load_image(gallery.crop(face.id)).shape[0] > 100
        assert face.source == str(known / "Grace Hopper.jpg")
        again = gallery.enroll("Grace Hopper", face.source)
        assert again[0].already and again[0].face == face.id
        gallery.reject(face.id, "Grace Hopper")
        (stranger,) = gallery.identify(face.source)
        assert stranger.person.startswith("unknown-")
        gallery.undo()
        assert gallery.identify(face.source)[0].person == "Grace Hopper"


# ---- one gallery, one model


def test_a_recognizer_of_another_model_is_refused(tmp_path):
    place = tmp_path / "G.db"
    Gallery.create(place, recognizer=toy(flip=True)).close()
    other = toy(source=replace(toy_card().source, sha256="1" * 64), flip=True)
    for wrong in (other, toy(), toy(flip=True, precision="bf16")):
        with pytest.raises(ContractError) as caught:
            Gallery.open(place, recognizer=wrong)
        assert "give --model toy --precision fp32 --flip" in str(caught.value)
        assert toy(flip=True).embedder.contract in str(caught.value)
    with Gallery.open(place, recognizer=toy(flip=True)) as gallery:
        assert gallery.space.contract.endswith("+flip")


def test_a_gallery_knows_its_model_by_name(tmp_path):
    with Gallery.create(tmp_path / "G.db", model="mobilefacenet", flip=True) as gallery:
        assert gallery.space.contract == facenet.find_card("mobilefacenet").contract + "+flip"
        assert gallery.recognizer.embedder.contract == gallery.space.contract
        assert gallery.recognizer is gallery.recognizer
    with pytest.raises(UnknownModelError):
        Gallery.create(tmp_path / "H.db", model="no-such-model")
    with pytest.raises(SettingsError, match="precision should be one of"):
        Gallery.create(tmp_path / "H.db", precision="int3")
    assert not (tmp_path / "H.db").exists()
    with pytest.raises(GalleryError):
        Gallery.create(tmp_path / "G.db")
    with pytest.raises(GalleryError):
        Gallery.open(tmp_path / "none.db")


def test_a_model_that_was_switched_elsewhere_is_noticed(gallery):
    gallery.enroll("Anna", picture(1))
    with gallery.store.write() as draft:
        old = gallery.space
        draft.put(replace(old, state="retired"))
        draft.put(Space("other:1", "other", WIDTH, "active", 1.0))
    with pytest.raises(ContractError, match="other:1 in fp32; the recognizer is of toy:"):
        gallery.identify(picture(1))


# ---- enrolling


def test_many_photos_of_a_person(gallery):
    photos = [picture(1, seed=n) for n in range(GROUP + 3)]
    answers = gallery.enroll("Anna", iter(photos), external_id="a-1", metadata={"team": "x"})
    assert [answer.face for answer in answers] == list(range(1, GROUP + 4))
    assert len(gallery.faces("a-1")) == GROUP + 3
    assert gallery.person("Anna").metadata == {"team": "x"}
    assert all(answer.already for answer in gallery.enroll("Anna", photos))
    assert [entry.action for entry in gallery.history()] == ["enrol"]


def test_a_broken_photo_does_not_stop_the_others(gallery, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no")
    photos = [picture(1), tmp_path / "broken.jpg", picture(2, 0), picture(3, 2), b""]
    answers = gallery.enroll("Anna", photos, allow=["conflict"])
    found = [[reason.code for reason in answer.reasons] for answer in answers]
    assert found == [[], ["unreadable"], ["no_face"], ["several_faces", "unlike"], ["unreadable"]]
    assert answers[1].source == str(tmp_path / "broken.jpg")
    assert "broken.jpg" in answers[1].to_dict()["why"]
    with pytest.raises(SettingsError, match="allow should be among"):
        gallery.enroll("Anna", picture(1), allow="blur")
    for wrong in ("", "x" * 10_000_000, "a\tb"):
        with pytest.raises(InputError, match="A person's name should be"):
            gallery.enroll(wrong, picture(4))


def test_a_face_that_cannot_be_cropped_is_a_reason_of_its_photo(gallery):
    strange = Faces(np.array([[900, 900, 950, 950]]), None, np.array([0.9]))
    recognizer = Recognizer.from_parts(
        ToyDetector(lambda image: strange if image[0, 0, 0] == 7 else find_faces(image)),
        toy().embedder,
    )
    with Gallery(gallery.store, recognizer=recognizer, rules=LENIENT) as odd:
        answers = odd.enroll("Anna", [picture(1), picture(2, 7), picture(1, seed=3)])
    assert [answer.refused for answer in answers] == [False, True, False]
    assert "should lie in the photo" in answers[1].reasons[0].text


def test_crops_are_kept_only_where_asked():
    for keep in (False, True):
        with Gallery.create("memory://", recognizer=toy(), keep_crops=keep) as gallery:
            gallery.enroll("Anna", picture(1))
            assert (gallery.crop(1) is not None) == gallery.keep_crops == keep


def test_measures_are_kept_and_rules_are_obeyed(gallery):
    strict = Gallery(gallery.store, recognizer=toy(), rules=EnrolmentRules(min_face_size=60))
    (refused,) = strict.enroll("Anna", picture(1))
    assert [reason.code for reason in refused.reasons] == ["too_small"]
    strict.enroll("Anna", picture(1), allow=["too_small"])
    (face,) = strict.faces("Anna")
    assert face.measures["face_size"] == 50 and face.measures["sharpness"] > 23
    assert Gallery(gallery.store, recognizer=toy()).rules == EnrolmentRules()
    other = toy()
    other.detection = "scrfd:123 {}"
    assert Gallery(gallery.store, recognizer=other).rules.min_detection_score is None


# ---- asking


def test_faces_are_named_over_many_photos(gallery):
    for look, name in enumerate(("Anna", "Ben", "Cleo")):
        gallery.enroll(name, [picture(look, seed=1), picture(look, seed=2)])
    photos = [picture(look, seed=9) for look in (2, 0, 1)] + [picture(0, 0)]
    answers = gallery.identify(photos)
    assert [[a.person for a in photo] for photo in answers] == [["Cleo"], ["Anna"], ["Ben"], []]
    alone = gallery.identify(photos[0])[0]
    assert alone.to_dict() == answers[0][0].to_dict()
    assert alone.to_dict()["runner_up"] in ("Anna", "Ben")
    assert alone.fpir == pytest.approx(1 - (1 - 1e-4) ** 6)
    pooled = gallery.identify(photos[0], template=True)[0]
    assert pooled.fpir == pytest.approx(1 - (1 - 1e-4) ** 3) and pooled.person == "Cleo"
    rated = gallery.identify(photos[0], fpir=0.006)[0]
    assert rated.fpir == pytest.approx(0.006)
    assert rated.threshold == pytest.approx(-np.log10(1 - 0.994 ** (1 / 6)) / 10, abs=1e-4)
    with pytest.raises(ImageError):
        gallery.identify([photos[0], b"no"])


def test_only_people_with_some_metadata(gallery):
    for look, name in enumerate(("Anna", "Ben", "Cleo")):
        photos = [picture(look, seed=n) for n in range(look + 1)]
        gallery.enroll(name, photos, metadata={"team": "a" if look else "b"})
    answer = gallery.identify(picture(0, seed=9), where={"team": "a"})[0]
    assert answer.best.person in ("Ben", "Cleo") and answer.person is None
    assert answer.fpir == pytest.approx(1 - (1 - 1e-4) ** 5)
    pooled = gallery.identify(picture(1), where={"team": "a"}, template=True)[0]
    assert pooled.fpir == pytest.approx(1 - (1 - 1e-4) ** 2)
    nobody = gallery.identify(picture(0), where={"team": "c"})[0]
    assert (nobody.reason, nobody.fpir) == ("no_one_enrolled", None)
    assert [found.person for found in gallery.search(picture(0), where={"team": "b"})] == ["Anna"]
    assert [person.name for person in gallery.people({"team": "b"})] == ["Anna"]
    with pytest.raises(SettingsError, match="where should map"):
        gallery.identify(picture(0), where="team")


def test_an_empty_gallery(gallery):
    (answer,) = gallery.identify(picture(0), fpir=0.01)
    assert (answer.person, answer.reason, answer.fpir) == (None, "no_one_enrolled", None)
    assert gallery.people() == [] == gallery.history() == gallery.search(picture(0))
    with pytest.raises(UnknownPersonError, match="Nobody in this gallery"):
        gallery.verify("Anna", picture(0))
    with pytest.raises(InputError, match="nothing to take back"):
        gallery.undo()


def test_verifying_corrects_the_rate_for_the_faces_compared(gallery):
    gallery.enroll("Anna", [picture(1, seed=n) for n in range(5)])
    answer = gallery.verify("Anna", picture(1, seed=9), fmr=1e-2)
    assert answer.match and answer.comparisons == 5
    assert answer.fmr == pytest.approx(1e-2)
    assert answer.threshold == pytest.approx(-np.log10(1 - 0.99 ** (1 / 5)) / 10, abs=1e-4)
    assert gallery.verify("Anna", picture(1), template=True, fmr=1e-2).threshold == pytest.approx(
        0.2, abs=1e-4
    )
    lowest = gallery.verify("Anna", picture(2))
    assert not lowest.match and lowest.fmr == pytest.approx(1e-4, rel=1e-3)
    given = gallery.verify("Anna", picture(1), threshold=0.3)
    assert given.fmr == pytest.approx(1 - (1 - 1e-3) ** 5)
    with pytest.raises(SettingsError, match="fmr should be above 0"):
        gallery.verify("Anna", picture(1), fmr=2)
    with pytest.raises(NoFaceError):
        gallery.verify("Anna", picture(1, 0))
    with pytest.raises(SeveralFacesError):
        gallery.verify("Anna", picture(1, 2))
    assert gallery.verify("Anna", picture(1, 2), select="largest").match
    gallery.delete_faces([face.id for face in gallery.faces("Anna")])
    with pytest.raises(InputError, match="should have an enrolled face"):
        gallery.verify("Anna", picture(1))


@pytest.mark.parametrize(
    "wrong",
    [{"fmr": 1e-3, "threshold": 0.5}, {"fpir": 0.1, "fmr": 0.1}, {"fpir": 2}, {"fmr": 1e-9}],
)
def test_one_rate_at_a_time_and_none_that_the_table_does_not_reach(gallery, wrong):
    with pytest.raises(SettingsError):
        gallery.identify(picture(1), **wrong)


# ---- calibration


def calibration(contract):
    counts = (*(10 ** (5 - step) for step in range(6)), 0)
    table = replace(toy_fmr(), false_matches=counts, dataset="mine")
    rates = tuple(count / table.pairs for count in table.false_matches)
    return Calibration(
        contract=contract,
        model="toy",
        dataset="mine",
        created="2026-01-01",
        detector="toy",
        images=100,
        people=50,
        fmr=table,
        fmr_low=rates,
        fmr_high=rates,
        logistic=Logistic(10.0, -3.0, 0.5),
        held_out={},
        digest="0" * 64,
    )


def test_the_gallery_s_own_calibration_decides(gallery):
    gallery.enroll("Anna", picture(1))
    assert gallery.identify(picture(1), fmr=1e-2)[0].threshold == pytest.approx(0.2, abs=1e-4)
    gallery.keep_calibration(calibration(gallery.space.contract))
    assert gallery.identify(picture(1), fmr=1e-2)[0].threshold == pytest.approx(0.1, abs=1e-4)
    assert gallery.verify("Anna", picture(1)).fmr_source == "1,000,000 pairs of mine"
    gallery.keep_calibration(None)
    assert gallery.calibration is None
    with pytest.raises(ContractError, match="it is of other:1"):
        gallery.keep_calibration(calibration("other:1"))
    own = toy(calibration=calibration(gallery.space.contract))
    assert Gallery(gallery.store, recognizer=own).rates.table.dataset == "mine"
    assert Gallery(gallery.store, recognizer=own).calibration.dataset == "mine"


# ---- files


def test_a_gallery_is_there_the_next_time(tmp_path):
    place = tmp_path / "G.db"
    with Gallery.create(place, recognizer=toy()) as gallery:
        gallery.enroll("Anna", picture(1))
        gallery.rename("Anna", "Ann")
    with Gallery.open(place, recognizer=toy()) as gallery:
        assert gallery.identify(picture(1, seed=5))[0].person == "Ann"
        assert [entry.action for entry in gallery.history()] == ["enrol", "rename"]
        gallery.merge("Ann", gallery.split(1, "B").person.id)
        with gallery.store.read() as view:
            assert len(view.get(Setting, "id").value) == 32
    with pytest.raises(GalleryError):
        gallery.people()


def test_deleting_leaves_no_copy_of_the_index(tmp_path):
    place = tmp_path / "G.db"
    with Gallery.create(place, recognizer=toy()) as gallery:
        gallery.enroll("Anna", [picture(1), picture(1, seed=1)])
        snapshot = snapshot_path(place, gallery.space.contract)
        for erase in (
            lambda: gallery.delete_faces(1),
            lambda: gallery.undo(1) if gallery.history()[0].undo else gallery.delete("Anna"),
        ):
            assert gallery.index.save() and snapshot.exists()
            erase()
            assert not snapshot.exists()
        assert gallery.people() == []


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda g: g.search(picture(1), "x"), SettingsError, "k should be 1 or more .* got 'x'"),
        (lambda g: g.search(picture(1), select={}), SettingsError, "select should be .* got dict"),
        (lambda g: g.verify("Anna", picture(1), select=[]), SettingsError, "got list"),
        (lambda g: g.enroll("Anna", picture(1), allow=7), SettingsError, "allow should be among"),
        (lambda g: g.keep_calibration("x"), InputError, "should be a `Calibration`.* got str"),
        (lambda g: Gallery.create(g.store.place + "2", model=5), SettingsError, "name of an embed"),
    ],
)
def test_what_is_of_another_kind_is_refused_in_a_sentence(tmp_path, ask, error, message):
    with Gallery.create(tmp_path / "G.db", recognizer=toy()) as gallery:
        gallery.enroll("Anna", picture(1))
        with pytest.raises(error, match=message):
            ask(gallery)
        assert gallery.kept_calibration(5) is None
        assert len(gallery.search(picture(1), 10**30)) == 1
