import json

import pytest
from fakes import toy_card

from facenet.errors import ModelFileError, UnknownModelError
from facenet.models.catalog import catalog, find_card, imported, models_folder, published


def put(home, card, folder=None):
    place = models_folder(home) / (folder or card.name)
    place.mkdir(parents=True)
    (place / "card.json").write_text(json.dumps(card.to_dict()), "utf-8")
    return place


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("mobilefacent", "mobilefacenet"),
        ("MobileFaceNet", "mobilefacenet"),
        ("facenet-casia-webfaces", "facenet-casia-webface"),
        ("facenet_casia_webface", "facenet-casia-webface"),
        ("20180408-102901", "20180408-102900"),
        ("mtcn", "mtcnn"),
        ("MTCNN", "mtcnn"),
    ],
)
def test_a_misspelt_name_brings_the_right_one(home, name, near):
    with pytest.raises(UnknownModelError) as failure:
        find_card(name)
    start = f"There is no model named {name!r}. Did you mean {near}"
    assert str(failure.value).startswith(start)


def test_the_suggestion_is_of_the_kind_that_is_needed(home):
    with pytest.raises(UnknownModelError, match="Did you mean mtcnn") as failure:
        find_card("mtcnnet", kind="detector")
    assert "mobilefacenet" not in str(failure.value)
    with pytest.raises(UnknownModelError, match=r"There is no model.*See `facenet models list`"):
        find_card("mtcnn-", kind="embedder")


@pytest.mark.parametrize("name", ["", "zzz", "../../etc/passwd", "x" * 10_000])
def test_a_name_like_no_other_brings_the_list(home, name):
    with pytest.raises(UnknownModelError, match=r"See `facenet models list`\.$"):
        find_card(name)


def test_an_alias_finds_its_model(home):
    for alias in published()["facenet-casia-webface"].aliases:
        assert find_card(alias, kind="embedder").name == "facenet-casia-webface"


def test_the_wrong_kind_is_refused_with_the_right_ones(home):
    put(home, toy_card())
    with pytest.raises(ModelFileError) as failure:
        find_card("mtcnn", kind="embedder")
    embedders = sorted(c.name for c in catalog(home).values() if c.kind == "embedder")
    assert "toy" in embedders
    message = f"mtcnn is a detector; an embedder is needed: {', '.join(embedders)}."
    assert str(failure.value) == message
    with pytest.raises(ModelFileError, match="toy is an embedder; a detector is needed: mtcnn"):
        find_card("toy", kind="detector")


def test_imported_models_come_after_the_published_ones(home, tmp_path):
    put(home, toy_card(aliases=("plaything",)))
    assert find_card("toy") == find_card("plaything") == toy_card(aliases=("plaything",))
    assert list(catalog()) == [*published(), "toy"]
    assert list(catalog(tmp_path / "another-home")) == list(published())


def test_an_imported_card_never_stands_for_a_published_one(home):
    put(home, toy_card(name="mobilefacenet"))
    put(home, toy_card(name="other", aliases=("mtcnn", "casia-webface")))
    assert catalog()["mobilefacenet"] == find_card("mobilefacenet") == published()["mobilefacenet"]
    assert find_card("mtcnn").kind == "detector"
    assert find_card("casia-webface").name == "facenet-casia-webface"


def test_a_damaged_imported_card_leaves_the_published_models_alone(home):
    (put(home, toy_card()) / "card.json").write_text("{", "utf-8")
    assert find_card("mobilefacenet").name == "mobilefacenet"
    with pytest.raises(ModelFileError, match=r"toy.card\.json should be a model card"):
        find_card("toy")


def test_a_card_in_another_folder_is_refused(home):
    put(home, toy_card(), folder="stray")
    with pytest.raises(ModelFileError, match="should be the card of stray; it is that of toy"):
        imported(home)


def test_the_published_catalogue_cannot_be_changed():
    with pytest.raises(TypeError):
        published()["toy"] = toy_card()
    catalog()["toy"] = toy_card()
    assert "toy" not in catalog()


def test_a_home_that_is_a_file_holds_nothing(tmp_path):
    (tmp_path / "home").write_text("in the way")
    assert imported(tmp_path / "home") == {}
