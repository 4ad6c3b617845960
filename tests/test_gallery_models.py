"""A gallery over a change of model: whose rates decide, and what is no longer true."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fakes import toy_fmr
from test_galleries import LENIENT, WIDTH, calibration, picture, toy

from facenet.errors import ContractError, InputError, SettingsError
from facenet.galleries import Gallery
from facenet.gallery import upgrade
from facenet.gallery.records import EnrolledFace, Setting
from facenet.gallery.register import CALIBRATION
from facenet.recognizer import Recognizer

OTHER = {"source": replace(toy().embedder.card.source, sha256="1" * 64)}


@pytest.fixture
def gallery():
    with Gallery.create("memory://toy", recognizer=toy()) as made:
        yield Gallery(made.store, recognizer=toy(), rules=LENIENT)


def switched(gallery, *, leave=False):
    """The gallery after a change to another model."""
    card = toy(**OTHER).embedder.card
    upgrade.begin(gallery.store, card.contract, card.name, WIDTH, "fp32")
    if not leave:
        with gallery.store.read() as view:
            faces = view.vectors(gallery.space.contract)
        rows = dict(zip(faces.ids.tolist(), faces.rows, strict=True))
        with gallery.store.write() as draft:
            draft.put_vectors(card.contract, rows)
    upgrade.switch(gallery.store, card.contract, leave=leave)
    return Gallery(gallery.store, recognizer=toy(**OTHER), rules=LENIENT)


def test_a_calibration_is_of_one_model_and_comes_back_with_it(gallery):
    gallery.enroll("Anna", picture(1))
    first = gallery.space.contract
    gallery.keep_calibration(calibration(first))
    other = switched(gallery)
    assert other.calibration is None
    assert other.judging().table == other.rates.table == toy_fmr()
    assert other.identify(picture(1), fmr=1e-2)[0].threshold == pytest.approx(0.2, abs=1e-4)
    assert other.verify("Anna", picture(1)).fmr_source == "1,000,000 pairs of toy"
    other.keep_calibration(calibration(other.space.contract))
    assert other.identify(picture(1), fmr=1e-2)[0].threshold == pytest.approx(0.1, abs=1e-4)
    other.keep_calibration(None)
    upgrade.roll_back(gallery.store)
    assert gallery.calibration.contract == first
    assert gallery.judging().table.dataset == "mine"
    assert gallery.judging().fallback == toy_fmr(), "where one's own small table does not reach"
    stray = json.dumps(calibration("other:1").to_dict())
    with gallery.store.write() as draft:
        draft.put(Setting(CALIBRATION + first, stray))
    assert gallery.calibration is None


def test_what_a_recognizer_was_told_wins_over_what_is_kept(gallery):
    contract = gallery.space.contract
    gallery.keep_calibration(calibration(contract))
    mine = replace(calibration(contract), dataset="other")
    chosen = Gallery(gallery.store, recognizer=toy(calibration=mine))
    assert chosen.calibration == mine
    card = toy()
    card.rates_chosen = True
    assert Gallery(gallery.store, recognizer=card).calibration is None
    assert Gallery(gallery.store, recognizer=toy()).calibration.dataset == "mine"
    assert [Recognizer(calibration=c).rates_chosen for c in ("auto", "card", "x.json")] == [
        False,
        True,
        True,
    ]
    wrong = Gallery(gallery.store, recognizer=toy(calibration=calibration("other:1")))
    for attempt in (lambda: wrong.judging(), lambda: wrong.rates.table):
        with pytest.raises(ContractError, match="of the model in use, toy:.* it is of other:1"):
            attempt()


def test_a_question_does_not_outlive_its_model(gallery):
    gallery.enroll("Anna", picture(1))
    question = gallery.question(fmr=1e-2)
    other = switched(gallery)
    (sighting,) = other.look(picture(1))
    with pytest.raises(ContractError, match="made for the model toy:.*Make the question again"):
        other.answer(sighting.faces, question)
    with pytest.raises(ContractError, match="Make the question again"):
        other.answer(sighting.faces[[]], question)
    assert other.answer(sighting.faces, other.question(fmr=1e-2))[0].person == "Anna"


def test_a_face_that_was_left_behind_comes_back_with_its_photo(gallery):
    gallery.enroll("Anna", [picture(1), picture(1, seed=1)])
    gallery.enroll("Ben", picture(2, 2), allow=["several_faces"])
    other = switched(gallery, leave=True)
    assert len(other.enroll("Eve", picture(5))) == 1
    assert other.identify(picture(1))[0].person is None
    before = other.history()
    answers = other.enroll("Anna", [picture(1), picture(1)])
    assert [answer.already for answer in answers] == [True, True]
    (ben,) = other.enroll("Ben", picture(2, 2), allow=["several_faces"])
    assert ben.already and other.history() == before
    assert other.identify(picture(1))[0].person == "Anna"
    with gallery.store.read() as view:
        lacking = [face.id for face in upgrade.missing(view, other.space.contract)]
        assert lacking == [2] and view.count(EnrolledFace) == 4


@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        (lambda g: g.enroll(None, picture(1)), InputError),
        (lambda g: g.enroll(7, picture(1)), InputError),
        (lambda g: g.enroll("Bo", picture(1), metadata=[1]), InputError),
        (lambda g: g.enroll("Bo", picture(1), external_id=7), InputError),
        (lambda g: g.add("Bo", metadata="x"), InputError),
        (lambda g: g.describe("Anna", [1]), InputError),
        (lambda g: g.describe("Anna", None), InputError),
        (lambda g: g.rename("Anna", None), InputError),
        (lambda g: g.move(1.5, "Anna"), InputError),
        (lambda g: g.delete_faces(None), InputError),
        (lambda g: g.identify(picture(1), fmr="x"), SettingsError),
        (lambda g: g.identify(picture(1), fpir=[1]), SettingsError),
        (lambda g: g.verify("Anna", picture(1), threshold="0.5"), SettingsError),
    ],
)
def test_what_is_of_another_kind_is_refused_in_a_sentence(gallery, attempt, error):
    gallery.enroll("Anna", picture(1))
    with pytest.raises(error) as caught:
        attempt(gallery)
    assert "should" in str(caught.value) and len(str(caught.value)) < 300
    assert [person.name for person in gallery.people()] == ["Anna"]
