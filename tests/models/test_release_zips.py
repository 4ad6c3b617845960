"""facenet's release zips: cards, download from a server of this machine, files that are brought.

The genuine zips cannot be had here. These have their form: a folder with a frozen graph, whose
nodes TensorFlow wrote (batch normalisation written out, phase_train, a queue) and whose weights
are drawn from a seed.
"""

import hashlib
import json
import lzma
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from fakes import toy_card
from graph_maker import const
from shell import process, refused, run
from test_convert_networks import GOLDEN, check, variables
from web import Web

import facenet
from facenet.errors import DigestError, DownloadError, ModelFileError
from facenet.models import sources
from facenet.models.card import MAX_SOURCE, Licence, ModelCard, ModelFile, Preprocess, Source
from facenet.models.catalog import published
from facenet.models.download import fetch_url
from facenet.models.store import ModelStore

STAMP = "20990101-000000"
MEMBER = f"{STAMP}/{STAMP}.pb"
PAGE = b"\n<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>"
RELEASES = {
    "facenet-casia-webface": (
        "20180408-102900",
        "2a32a4d6b797b0e35e065c674dfa2d60e9eb2372aa10728bd0b221abe12490ac",
        "272568219fa6505371ceed76dca6b3925ef69b54962709cf76f763e9d8bf4cfb",
        ("fixed", 512, 0.9905),
    ),
    "facenet-vggface2": (
        "20180402-114759",
        "669f37d3954b72b53121ff0638ca5bb8b14309bfe4767fe6bd851eee75f1f0de",
        "bf2c12f31880aaa865fa5a9c168dcbd619f7a40b1633f6446d416fac2421ab99",
        ("fixed", 512, 0.9965),
    ),
    "facenet-msceleb-20170512-tf": (
        "20170512-110547",
        "24a020c3d7794a590d834c4963f8a7c59819b8950a54fcb08e10b2a253ab0a30",
        "8bdc3aed34e577113a656b8e5d0274346f8967fa7f0f9d6f3fdcd9608a29b9e4",
        ("per_image", 128, 0.992),
    ),
    "facenet-casia-20170511": (
        "20170511-185253",
        "0dd66caa1e9b7a7c91424bca150a66da193c4e626e75bfa50ff406180a09c7e9",
        "71fb49617aee7b007b66ed1e4474e749212ed9872ff3b47c25ee997c8262baa4",
        ("per_image", 128, 0.987),
    ),
}


@pytest.mark.parametrize("name", RELEASES)
def test_the_cards_say_what_the_reference_says(home, name):
    stamp, archive, graph, (how, dimension, figure) = RELEASES[name]
    card = published()[name]
    source = next(s for s in (card.source, *card.source.alternatives) if s.type == "url")
    assert (source.archive, source.sha256, source.bytes) == (archive, graph, 0)
    assert source.member == f"{stamp}/{stamp}.pb"
    assert source.url.startswith("https://github.com/faustomorales/keras-facenet/releases/")
    assert source.url.endswith(f"/{stamp}.zip")
    assert card.preprocess == Preprocess(160, 160, "margin_original", how, 32, "rgb")
    assert card.dimension == dimension
    assert figure in [f.value for f in card.figures if "published" in f.origin]
    if name != "facenet-casia-webface":
        assert all("not re-measured" in f.origin for f in card.figures)
        (row,) = (row for row in run("models", "list", "--json").json if row["name"] == name)
        assert (row["installed"], row["commercial"]) == (False, True)
        said = refused("verify", "a.jpg", "b.jpg", "--model", name)
        assert f"`facenet models pull {name}` (9" in said


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def graph():
    """A frozen SqueezeNet in the form of 2018; its embeddings are stored beside it."""
    with np.load(GOLDEN / "tensorflow_frozen.npz") as file:
        stripped = lzma.decompress(file["squeezenet_2018_graph"].tobytes())
    values = variables("squeezenet", classes=False).items()
    return stripped + b"".join(const(name, value) for name, value in values)


def zipped(path, data, member=MEMBER):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{STAMP}/model-{STAMP}.meta", b"not looked at")
        archive.writestr(member, data)
    return path


@pytest.fixture
def release(tmp_path, graph):
    """The bytes of a release zip."""
    return zipped(tmp_path / f"{STAMP}.zip", graph).read_bytes()


def a_card(url, release, graph, **source):
    origin = {
        "type": "url",
        "sha256": sha256(graph),
        "bytes": 0,
        "url": url,
        "member": MEMBER,
        "convert": "tensorflow",
        "archive": sha256(release),
    }
    return ModelCard(
        name="release",
        kind="embedder",
        title="a network like facenet's",
        source=Source(**(origin | source)),
        files=(ModelFile("release.onnx", "", 3_000_000),),
        licence=Licence("MIT", "MIT", commercial=True),
        training_data="noise",
        preprocess=Preprocess(160, 160, "margin_original", "fixed", 32),
        dimension=128,
    )


def shelve(home, card):
    """Put a card into the catalogue of a home, its model not fetched."""
    folder = home / "models" / card.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.json").write_text(json.dumps(card.to_dict()))
    return card


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def installed():
    return {row["name"]: row["installed"] for row in run("models", "list", "--json").json}


def test_a_release_is_pulled_from_its_url_and_used(home, tmp_path, release, graph, examples):
    with Web({f"/{STAMP}.zip": release}, cuts=[100_000]) as web:
        shelve(home, a_card(web.url(f"/{STAMP}.zip"), release, graph))
        assert installed()["release"] is False
        assert run("models", "pull", "release", "--json").json["fetched"] is True
        assert web.ranges_asked() == [None, "bytes=100000-"]
    assert installed()["release"] is True
    assert names(home / "models/release") == ["card.json", "digests.json", "release.onnx"]
    with np.load(GOLDEN / "tensorflow_frozen.npz") as file:
        check(
            (home / "models/release/release.onnx").read_bytes(), file["squeezenet_2018_embeddings"]
        )
    photo, out = examples / "photos/hopper-rendition.jpg", tmp_path / "v.npz"
    assert run("embed", photo, "--model", "release", "--out", out).code == 0
    assert np.load(out)["embeddings"].shape == (1, 128)


@pytest.mark.parametrize("form", ["zip", "graph", "folder", "from"])
def test_a_release_that_is_brought_is_known(home, tmp_path, release, graph, form):
    card = shelve(home, a_card("http://127.0.0.1:9/x.zip", release, graph))
    (tmp_path / "graph.pb").write_bytes(graph)
    folder = tmp_path / STAMP
    folder.mkdir()
    (folder / f"{STAMP}.pb").write_bytes(graph)
    (folder / f"model-{STAMP}.meta").write_bytes(b"not looked at")
    file = {"zip": f"{STAMP}.zip", "graph": "graph.pb", "folder": STAMP, "from": f"{STAMP}.zip"}
    given = tmp_path / file[form]
    if form == "from":
        ran = run("models", "pull", "release", "--from", given)
    else:
        ran = run("models", "import", given)
        assert ran.out == f"release: imported, 128 values, contract {card.contract}\n"
    assert ran.code == 0
    assert ModelStore().files(card)


def test_a_published_file_may_get_a_name_and_a_feeding_of_its_own(home, tmp_path, release, graph):
    card = shelve(home, a_card("http://127.0.0.1:9/x.zip", release, graph))
    given = tmp_path / f"{STAMP}.zip"
    said = refused("models", "import", given, "--crop", "margin_output")
    assert "is the published model release, whose card says how it is fed" in said
    assert "should be a model of the kind detector" in refused(
        "models", "import", given, "--kind", "detector"
    )
    assert run("models", "import", given, "--name", "mine").err == ""
    mine = facenet.find_card("mine")
    assert (mine.preprocess, mine.licence, mine.training_data) == (
        card.preprocess,
        card.licence,
        "noise",
    )
    assert run("models", "import", given, "--name", "other", "--margin", 44).code == 0
    assert facenet.find_card("other").preprocess == replace(card.preprocess, margin=44)
    assert not installed()["release"]
    assert names(home) == ["models"]


# What is wrong with a source


@pytest.mark.parametrize("archive", [True, False])
def test_a_page_in_place_of_the_file_is_told(home, release, graph, archive):
    digest = {} if archive else {"archive": None}
    with Web({"/drive": PAGE}) as web:
        shelve(home, a_card(web.url("/drive"), release, graph, **digest))
        said = refused("models", "pull", "release")
        assert said == (
            f"{web.url('/drive')} should serve the file of a model; it serves a web page. "
            "Get the file elsewhere and give it with `--file`."
        )
    assert names(home / "models/release") == ["card.json"]


def test_a_page_in_place_of_a_plain_file_is_told(tmp_path):
    card = toy_card(source=Source("url", "0" * 64, len(PAGE) + 1, url="http://x"))
    with Web({"/drive": PAGE}, length=False) as web, pytest.raises(DownloadError) as failure:
        page = replace(card.source, url=web.url("/drive"), bytes=len(PAGE))
        sources.fetch(replace(card, source=page), tmp_path / "m")
    assert "it serves a web page" in str(failure.value)
    assert names(tmp_path) == []


def test_another_zip_is_not_opened(home, tmp_path, release, graph):
    other = zipped(tmp_path / "other.zip", graph[:-1]).read_bytes()
    with Web({"/x.zip": other}) as web:
        card = a_card(web.url("/x.zip"), release, graph)
        with pytest.raises(DigestError, match=f"{sha256(release)}; it has {sha256(other)}"):
            ModelStore().pull(card)
        loose = replace(card, source=replace(card.source, archive=None))
        with pytest.raises(DigestError, match=rf"{sha256(graph)} \(at most 400,000,000 bytes\)"):
            ModelStore().pull(loose)


def test_a_member_without_a_known_size_is_bounded(tmp_path, release, graph):
    data = bytearray(release)
    place = data.rindex(b"PK\1\2") + 24
    assert struct.unpack_from("<I", data, place) == (len(graph),)
    struct.pack_into("<I", data, place, MAX_SOURCE + 1)
    (tmp_path / "x.zip").write_bytes(data)
    source = a_card("http://x", release, graph).source
    with pytest.raises(ModelFileError, match="at most 400,000,000 bytes; it says 400,000,001"):
        sources.unpack(tmp_path / "x.zip", source, tmp_path / "m")
    assert sources.holds(tmp_path / "x.zip", source) is False


def test_an_endless_archive_is_stopped(tmp_path):
    with (
        Web({"/x": bytes(5000)}, length=False) as web,
        pytest.raises(DownloadError, match="should have at most 1,000 bytes; it has 5,000 or more"),
    ):
        fetch_url(web.url("/x"), tmp_path / "m", limit=1000)
    assert names(tmp_path) == []


def test_a_disk_that_fills_during_the_conversion_is_told(home, tmp_path, graph, examples):
    """A file of its own cannot grow beyond 1 MB there, which is what a full disk does."""
    (tmp_path / "own.pb").write_bytes(graph)
    limit = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (1_000_000, 1_000_000))"
    told = ("--name", "own", "--crop", "margin_original", "--standardise", "fixed")
    ran = process("models", "import", tmp_path / "own.pb", *told, before=limit)
    assert (ran.code, ran.out) == (2, "")
    assert ran.sentence.startswith("Cannot write ")
    assert "Free some space or set FACENET_HOME" in ran.sentence
    assert names(home / "models") == ["own.lock"]
    assert run("models", "import", tmp_path / "own.pb", *told, "--margin", 32).code == 0
    photo, out = examples / "photos/hopper-rendition.jpg", tmp_path / "v.npz"
    assert run("embed", photo, "--model", "own", "--out", out).code == 0
    assert np.load(out)["embeddings"].shape == (1, 128)


# Alternatives


def test_where_a_source_does_not_deliver_its_alternative_does(home, tmp_path, release, graph):
    with Web({"/b.zip": release}) as web:
        second = a_card(web.url("/b.zip"), release, graph).source
        gone = replace(second, url=web.url("/a.zip"), sha256="1" * 64, alternatives=(second,))
        card = replace(a_card("http://x", release, graph), source=gone)
        part = home / "models/release/source.bin.download.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"what came of the first one")
        assert ModelStore().pull(card) is True
        assert [path for path, _, _ in web.log] == ["/a.zip", "/b.zip"]
        assert web.ranges_asked()[1] is None  # nothing of the first is mixed in
    assert ModelStore().files(card)
    nowhere = replace(gone, alternatives=(replace(second, url="ftp://x"),))
    with Web({}) as web, pytest.raises(DownloadError, match=r"/a\.zip answered 404"):
        lost = replace(nowhere, url=web.url("/a.zip"))
        sources.fetch(replace(card, source=lost), tmp_path / "m")


def test_a_file_of_an_alternative_stands_for_the_model(home, tmp_path, release, graph):
    other = a_card("http://127.0.0.1:9/b.zip", release, graph).source
    source = replace(other, sha256="1" * 64, archive="2" * 64, member="a", alternatives=(other,))
    card = shelve(home, replace(a_card("http://x", release, graph), source=source))
    (tmp_path / "graph.pb").write_bytes(graph)
    for given in (tmp_path / f"{STAMP}.zip", tmp_path / "graph.pb"):
        assert run("models", "import", given).out.endswith(f"{card.contract}\n")
        assert ModelStore().installed(card)
        (home / "models/release/digests.json").unlink()
    (tmp_path / "graph.pb").write_bytes(graph[:-1])
    with pytest.raises(DigestError, match="should have the SHA-256 1111"):
        ModelStore().pull(card, given=tmp_path / "graph.pb")


def test_alternatives_are_checked_with_the_card(release, graph):
    source = a_card("http://x", release, graph).source
    for other in (replace(source, convert=None), replace(source, alternatives=(source,))):
        with pytest.raises(ModelFileError, match="alternatives of a source should be converted as"):
            replace(source, alternatives=(other,))
    with pytest.raises(ModelFileError, match="url should have bytes; it does not"):
        replace(source, member=None)
    card = a_card("http://x", release, graph, alternatives=(source,))
    assert facenet.models.card.card_from_dict(card.to_dict()) == card
    wrong = card.to_dict()
    wrong["source"]["alternatives"][0]["bytes"] = "many"
    with pytest.raises(ModelFileError, match="Source.bytes should be int"):
        facenet.models.card.card_from_dict(wrong)
