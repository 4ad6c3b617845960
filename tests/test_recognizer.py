"""The front door in Python: one photo or many, toy parts and the built-in models."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
from fakes import ToyDetector, ToyEngine, toy_card, toy_faces, toy_fmr
from PIL import Image

import facenet
from facenet.errors import (
    ContractError,
    DataError,
    EngineError,
    ImageError,
    InputError,
    ModelFileError,
    NoFaceError,
    SettingsError,
    SeveralFacesError,
    UnknownModelError,
)
from facenet.faces.embed import BATCH, Embedder
from facenet.gallery.calibrate import decide_threshold
from facenet.recognizer import Recognizer
from facenet.types import Faces

BLACK = np.zeros((80, 90, 3), np.uint8)


def picture(seed, faces=1):
    """Noise of its own; the top left pixel tells the toy how many faces to find."""
    pixels = np.random.default_rng(seed).integers(1, 256, (80, 90, 3)).astype(np.uint8)
    pixels[0, 0] = faces
    return pixels


def find_faces(image):
    """As many faces as the top left pixel says, each smaller than the one before."""
    count = int(image[0, 0, 0])
    boxes = [(8 * n, 5, 8 * n + 40 - 6 * n, 45) for n in range(count)]
    return toy_faces(*boxes) if boxes else Faces.empty()


def toy(**card):
    """A recognizer that finds `find_faces` and embeds by a random projection."""
    card = {"fmr": toy_fmr(), **card}
    engine = ToyEngine()
    return Recognizer.from_parts(
        ToyDetector(find_faces), Embedder(toy_card(**card), engine)
    ), engine


@pytest.fixture
def recognizer():
    return toy()[0]


@pytest.fixture(scope="module")
def real():
    return facenet.Recognizer()


# ---- one photo and many


def test_one_photo_gives_one_faces_and_a_list_a_list(recognizer):
    photos = [picture(seed, faces) for seed, faces in enumerate((1, 0, 3))]
    alone = [recognizer.faces(photo) for photo in photos]
    assert [len(faces) for faces in alone] == [1, 0, 3]
    for many in (photos, tuple(photos), iter(photos), np.stack(photos)):
        together = recognizer.faces(many)
        assert isinstance(together, list)
        for one, other in zip(alone, together, strict=True):
            assert one.contract == other.contract == toy_card().contract
            assert np.array_equal(one.boxes, other.boxes)
            assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert recognizer.faces([]) == []
    for rows, faces in zip(recognizer.embed(photos), alone, strict=True):
        assert rows == pytest.approx(faces.embedding, abs=1e-6)
    assert recognizer.embed(photos[2]).shape == (3, 8)
    assert recognizer.embed(photos[1]).shape == (0, 8)


def test_detection_needs_no_embedder():
    recognizer, engine = toy()
    found = recognizer.detect([picture(0, 2), picture(1, 0)])
    assert [len(faces) for faces in found] == [2, 0]
    assert found[0].embedding is None
    assert engine.calls == 0


def test_faces_of_many_photos_are_embedded_together():
    """40 faces of 20 photos in full batches over all photos, the last one filled up."""
    recognizer, engine = toy()
    photos = [picture(seed, 2) for seed in range(20)]
    found = recognizer.faces(iter(photos))
    assert engine.batches == [BATCH] * -(-40 // BATCH)
    for photo, faces in zip(photos, found, strict=True):
        assert recognizer.faces(photo).embedding == pytest.approx(faces.embedding, abs=1e-6)


def test_a_list_with_a_photo_that_cannot_be_used_raises_its_error(recognizer, tmp_path):
    photos = [picture(1), tmp_path / "none.png", b"broken", picture(2)]
    for ask in (recognizer.detect, recognizer.faces, recognizer.embed):
        with pytest.raises(ImageError, match=r"none\.png"):
            ask(photos)
    assert [t.name for t in threading.enumerate() if t.name.startswith("facenet-")] == []


def test_a_stream_gives_what_a_list_gives_and_goes_on_after_a_broken_photo(recognizer, tmp_path):
    photos = [picture(seed, seed % 4) for seed in range(30)]
    listed = recognizer.faces(photos)
    (tmp_path / "text.png").write_text("no picture")
    seen = list(recognizer.stream([*photos[:20], tmp_path / "text.png", *photos[20:]]))
    assert "text.png" in seen[20].problem and len(seen[20].faces) == 0
    del seen[20]
    assert [answer.faces for answer in seen] == listed
    assert all(answer.size == (90, 80) and answer.image is None for answer in seen)
    found = list(recognizer.stream(photos, embed=False, pixels=True))
    assert [answer.faces for answer in found] == recognizer.detect(photos)
    for answer, photo in zip(found, photos, strict=True):
        assert np.array_equal(answer.image, photo)


def test_a_stream_refuses_what_it_cannot_do(recognizer):
    with pytest.raises(InputError, match="should get a list or iterator of pictures; got ndarray"):
        recognizer.stream(picture(1))
    with pytest.raises(SettingsError, match="color"):
        recognizer.stream([], color="hsv")
    with pytest.raises(SettingsError, match="Reduced decoding is for the detector MTCNN"):
        recognizer.stream([], reduced=True)


def test_a_photo_may_be_anything_that_shows_one(real, examples, tmp_path):
    path = examples / "photos/hopper-rendition.jpg"
    with Image.open(path) as image:
        image.load()
    pixels = facenet.load_image(path)
    expected = real.faces(path)
    for source in (str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), pixels):
        faces = real.faces(source)
        assert np.array_equal(faces.boxes, expected.boxes)
        assert faces.embedding == pytest.approx(expected.embedding, abs=1e-5)
    assert np.array_equal(real.faces(pixels[..., ::-1], color="bgr").boxes, expected.boxes)
    assert real.faces(image).boxes == pytest.approx(expected.boxes, abs=2)
    with pytest.raises(ImageError):
        real.faces(tmp_path / "nosuch.jpg")


def test_vectors_are_of_length_one_and_the_engines_agree(real, examples):
    photo = examples / "photos/group.jpg"
    vectors = real.embed(photo)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    other = facenet.Recognizer(engine="onnxruntime")
    assert np.abs(other.embed(photo) - vectors).max() < 1e-3
    assert np.abs(other.detect(photo).boxes - real.detect(photo).boxes).max() < 0.05


# ---- one face


def test_one_face_is_expected(recognizer):
    with pytest.raises(NoFaceError, match="No face was found in the photo; one is needed"):
        recognizer.face(picture(0, 0))
    with pytest.raises(SeveralFacesError, match="3 faces were found in the photo; one is"):
        recognizer.face(picture(0, 3))
    with pytest.raises(SettingsError, match="select should be one of"):
        recognizer.face(picture(0, 0), select="oldest")
    face = recognizer.face(picture(0, 3), select="largest")
    assert face.embedding == pytest.approx(recognizer.embed(picture(0, 3))[0], abs=1e-6)
    with pytest.raises(SeveralFacesError):
        recognizer.face(picture(0, 3), select="all")


def test_the_message_names_the_photo(real, tmp_path):
    Image.fromarray(BLACK).save(tmp_path / "night.png")
    for source in (tmp_path / "night.png", str(tmp_path / "night.png")):
        with pytest.raises(NoFaceError, match=r"No face was found in .*night\.png;"):
            real.face(source)


# ---- decisions


def test_verify_is_the_product_of_the_vectors(recognizer):
    a, b = picture(1), picture(2)
    product = float(recognizer.embed(a)[0] @ recognizer.embed(b)[0])
    for threshold, match in ((product - 1e-3, True), (product + 1e-3, False)):
        answer = recognizer.verify(a, b, threshold=threshold)
        assert answer.similarity == pytest.approx(product, abs=1e-6)
        assert (answer.match, answer.threshold) == (match, threshold)
    answer = recognizer.verify(a, a)
    assert answer.match and answer.similarity == pytest.approx(1)
    assert answer.threshold == pytest.approx(0.4, abs=1e-6)  # the toy's rate is 10 ** -(10 s)
    assert answer.fmr == pytest.approx(1e-4, rel=1e-3)
    assert recognizer.verify(a, a, fmr=1e-2).threshold == pytest.approx(0.2, abs=1e-6)


def test_a_threshold_needs_a_table_or_a_number():
    recognizer, _ = toy(fmr=None)
    with pytest.raises(SettingsError, match="no table of false-match rates"):
        recognizer.verify(picture(1), picture(2))
    answer = recognizer.verify(picture(1), picture(2), threshold=0.1)
    assert answer.fmr is None
    with pytest.raises(SettingsError, match="either fmr or threshold"):
        recognizer.threshold(fmr=0.1, threshold=0.1)
    given = toy()[0].threshold(fmr=1e-3)
    assert given == decide_threshold(toy_card(fmr=toy_fmr()), fmr=1e-3)


def test_the_threshold_is_settled_before_photos_are_read(recognizer):
    with pytest.raises(SettingsError):
        recognizer.verify("nosuch.jpg", "nosuch.jpg", fmr=5)
    with pytest.raises(SettingsError):
        recognizer.identify("nosuch", "nosuch.jpg", threshold=5)


def test_compare_is_symmetric_and_holds_every_verify(recognizer):
    photos = [picture(seed) for seed in range(4)]
    matrix = recognizer.compare(iter(photos))
    assert matrix.shape == (4, 4)
    assert np.array_equal(matrix, matrix.T)
    for i, a in enumerate(photos):
        for j, b in enumerate(photos):
            similarity = recognizer.verify(a, b).similarity
            assert matrix[i, j] == pytest.approx(similarity, abs=1e-6)
    with pytest.raises(InputError, match="two photos or more; got 1"):
        recognizer.compare("a.jpg")
    with pytest.raises(InputError, match="two photos or more; got 0"):
        recognizer.compare([])


def test_colours_reach_every_question(recognizer):
    a, b = picture(1), picture(2)
    turned = a[..., ::-1].copy()
    assert recognizer.verify(turned, turned, color="bgr").similarity == pytest.approx(1)
    plain, bgr = (
        recognizer.compare(pair, color=c)
        for pair, c in (((a, b), "rgb"), ((turned, b[..., ::-1].copy()), "bgr"))
    )
    assert bgr == pytest.approx(plain, abs=1e-6)
    ((answer,),) = recognizer.identify({"A": turned}, [turned], color="bgr")
    assert answer.similarity == pytest.approx(1)
    with pytest.raises(SettingsError, match="color"):
        recognizer.detect(a, color="hsv")


# ---- people


def test_people_of_a_mapping(recognizer):
    known = {"Ann": picture(1), "Bob": [picture(2), picture(3)], "Cyd": iter([picture(4)])}
    enrolment = recognizer.enrol(known)
    assert enrolment.people.names == ("Ann", "Bob", "Bob", "Cyd")
    assert enrolment.refused == ()
    expected = np.stack([recognizer.embed(picture(seed))[0] for seed in (1, 2, 3, 4)])
    assert enrolment.people.embedding == pytest.approx(expected, abs=1e-6)


def test_photos_that_cannot_be_used_are_refused_with_their_reason(recognizer, tmp_path):
    (tmp_path / "broken.png").write_text("no picture")
    known = {"Ann": [picture(0, 0), tmp_path / "broken.png", picture(1), picture(2, 3)]}
    enrolment = recognizer.enrol(known)
    assert enrolment.people.names == ("Ann",)
    names = [name for name, _ in enrolment.refused]
    assert names == ["the photo", str(tmp_path / "broken.png"), "the photo"]
    reasons = [reason for _, reason in enrolment.refused]
    for reason, part in zip(reasons, ("No face", "broken.png", "3 faces"), strict=True):
        assert part in reason


def test_people_without_a_usable_photo(recognizer, tmp_path):
    with pytest.raises(InputError, match=r"^Bob has no usable photo\. No face was found"):
        recognizer.enrol({"Ann": picture(1), "Bob": picture(0, 0)})
    with pytest.raises(InputError, match=r"^Bob has no usable photo\.$"):
        recognizer.enrol({"Ann": [picture(0, 0), picture(1)], "Bob": []})
    with pytest.raises(InputError, match="at least one"):
        recognizer.enrol({})
    with pytest.raises(DataError, match="no such folder"):
        recognizer.enrol(tmp_path / "nosuch")


def test_identify_by_brute_force(recognizer):
    """Every face of every photo against every vector of every person."""
    known = {"Ann": picture(1), "Bob": [picture(2), picture(3)], "Cyd": picture(4)}
    photos = [picture(1), picture(9, 3), picture(8, 0), picture(3)]
    people = recognizer.enrol(known).people
    answers = recognizer.identify(people, photos, threshold=0.9)
    assert [len(found) for found in answers] == [1, 3, 0, 1]
    for photo, found in zip(photos, answers, strict=True):
        for vector, answer in zip(recognizer.embed(photo), found, strict=True):
            products = [float(vector @ row) for row in people.embedding]
            best = int(np.argmax(products))
            assert answer.best_candidate == people.names[best]
            assert answer.similarity == pytest.approx(products[best], abs=1e-6)
            assert answer.person == (people.names[best] if products[best] >= 0.9 else None)
    assert [answers[0][0].person, answers[3][0].person] == ["Ann", "Bob"]
    one = recognizer.identify(people, photos[1], threshold=0.9)
    assert [answer.best_candidate for answer in one] == [a.best_candidate for a in answers[1]]


def test_people_of_another_model_are_refused(recognizer):
    people = toy(name="other")[0].enrol({"Ann": picture(1)}).people
    with pytest.raises(ContractError, match="one model"):
        recognizer.identify(people, picture(1))


# ---- settings


def test_names_and_settings_are_checked_when_the_recognizer_is_made():
    for wrong, options in (
        (UnknownModelError, {"model": "mobilefacenets"}),
        (UnknownModelError, {"detector": "mtccn"}),
        (ModelFileError, {"model": "mtcnn"}),
        (ModelFileError, {"detector": "mobilefacenet"}),
        (SettingsError, {"engine": "tensorrt"}),
        (SettingsError, {"precision": "fp8"}),
        (SettingsError, {"device": "toaster"}),
        (EngineError, {"device": "cuda", "engine": "openvino"}),
        (TypeError, {"modle": "mobilefacenet"}),
    ):
        with pytest.raises(wrong):
            facenet.Recognizer(**options)


def test_options_reach_the_parts():
    options = facenet.MtcnnSettings(min_face_size=99, exactness="facenet")
    recognizer = facenet.Recognizer(flip=True, detection=options, engine="onnxruntime")
    assert recognizer.detector.settings == options
    assert recognizer.embedder.flip
    assert recognizer.embedder.contract.endswith("+flip")
    assert recognizer.embedder.precision == "fp32"
    assert recognizer.embedder is recognizer.embedder


# ---- the functions of the package


def test_functions_answer_as_the_class_does(real, examples):
    photo, other = examples / "photos/hopper-rendition.jpg", examples / "known/Grace Hopper.jpg"
    assert facenet.detect(photo) == real.detect(photo)
    assert len(facenet.detect([photo, other])) == 2
    assert facenet.embed(photo) == pytest.approx(real.embed(photo), abs=1e-6)
    assert facenet.verify(photo, other).to_dict() == pytest.approx(
        real.verify(photo, other).to_dict(), abs=1e-6
    )
    assert facenet.compare([photo, other]) == pytest.approx(real.compare([photo, other]), abs=1e-6)
    (answer,) = facenet.identify(examples / "known", photo)
    assert answer.person == "Grace Hopper"
    ((answer,),) = facenet.identify({"Hopper": other}, [photo], fmr=1e-5)
    assert answer.person == "Hopper"


def test_functions_take_the_options_of_the_class(examples):
    photo = examples / "photos/hopper-rendition.jpg"
    small = facenet.MtcnnSettings(min_face_size=400)
    assert len(facenet.detect(photo, detection=small)) == 0
    assert len(facenet.detect(photo)) == 1
    flipped = facenet.embed(photo, flip=True)
    assert not np.array_equal(flipped, facenet.embed(photo))
    with pytest.raises(UnknownModelError):
        facenet.detect(photo, detector="nosuch")
    with pytest.raises(TypeError):
        facenet.verify(photo, photo, colour="rgb")


def test_the_package_says_what_it_does_not_have():
    with pytest.raises(AttributeError, match=r"facenet has no 'FaceNet'; its names are in"):
        _ = facenet.FaceNet
    assert dir(facenet) == facenet.__all__
