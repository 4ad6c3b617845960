import errno
import json
import os
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from hashlib import sha256

import pytest
from fakes import toy_card
from toy_models import formula, linear, linear_card
from web import Web

from facenet.errors import (
    DigestError,
    DownloadError,
    EngineError,
    ModelError,
    StorageError,
)
from facenet.models import disk
from facenet.models.card import ModelFile
from facenet.models.catalog import published
from facenet.models.engine import EngineSettings, golden_input, open_engine
from facenet.models.store import ModelStore

BIG = linear(192).SerializeToString()
"""A model of 3.5 MB, more than one step of a download."""
DATA = linear().SerializeToString()

PULL = """
import json, resource, sys
from pathlib import Path
from facenet.errors import FacenetError
from facenet.models.card import card_from_dict
from facenet.models.store import ModelStore

if limit := int(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
card = card_from_dict(json.loads(sys.argv[1]))
print("ready", flush=True)
try:
    fetched = ModelStore(Path(sys.argv[2])).pull(card, lambda *step: print(*step, flush=True))
    print("fetched" if fetched else "was there")
except FacenetError as error:
    print(type(error).__name__, error)
"""


def url_card(web, data=DATA, path="/toy.onnx", name="toy", **source):
    return linear_card(data, name, type="url", url=web.url(path), **source)


def unchecked(card):
    """The card without its golden answer, for files that are no model of its shape."""
    return replace(card, golden={})


def child(card, home, limit=0):
    """A process that pulls; limit: bytes beyond which its files cannot grow.

    That is what a full disk does, without needing a disk.
    """
    return subprocess.Popen(
        [sys.executable, "-c", PULL, json.dumps(card.to_dict()), str(home), str(limit)],
        stdout=subprocess.PIPE,
        text=True,
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def web():
    with Web({"/toy.onnx": DATA, "/big.onnx": BIG}) as server:
        yield server


@pytest.fixture
def store(home):
    return ModelStore()


def works(store, card):
    (path,) = store.files(card).values()
    engine = open_engine(path, EngineSettings(engine="onnxruntime", device="cpu"))
    images = golden_input((2, 3, 16, 16))
    got = engine.run({"image": images})["embedding"]
    return abs(got - formula(images)).max() < 1e-4


def flip(path, place=-1):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


# Pulling


def test_a_model_is_pulled_once(store, web):
    card = url_card(web)
    assert not store.installed(card)
    assert store.pull(card) is True
    assert store.installed(card)
    assert store.pull(card) is False
    assert len(web.log) == 1
    assert works(store, card)
    assert names(store.folder(card)) == ["digests.json", "toy.onnx"]
    assert store.digests(card) == {"toy.onnx": sha256(DATA).hexdigest()}


def test_stores_of_two_homes_do_not_mix(store, web, tmp_path):
    card = url_card(web)
    store.pull(card)
    other = ModelStore(tmp_path / "other")
    assert not other.installed(card)
    sentence = r"toy is not on this machine .*models pull toy` \(0\.1 MB"
    with pytest.raises(ModelError, match=sentence):
        other.files(card)


def test_a_built_in_model_is_always_here(store):
    card = published()["mtcnn"]
    assert store.pull(card) is False
    assert list(store.files(card)) == ["pnet", "rnet", "onet"]
    assert not store.home.joinpath("models").exists()


def test_a_given_file_is_taken_instead_of_the_network(store, web, tmp_path):
    given = tmp_path / "given.onnx"
    given.write_bytes(DATA)
    card = url_card(web)
    assert store.pull(card, given=given) is True
    assert web.log == []
    assert works(store, card)
    assert given.read_bytes() == DATA


def test_a_given_file_that_is_another_is_refused(store, web, tmp_path):
    given = tmp_path / "given.onnx"
    given.write_bytes(DATA[:-1])
    card = url_card(web)
    with pytest.raises(DigestError, match=card.source.sha256):
        store.pull(card, given=given)
    assert names(store.folder(card)) == []
    with pytest.raises(DownloadError, match="No such file"):
        store.pull(card, given=tmp_path / "none")


def test_an_interrupted_installation_goes_on_without_the_network(store, web):
    card = url_card(web)
    store.folder(card).mkdir(parents=True)
    (store.folder(card) / "source.bin").write_bytes(DATA)
    assert store.pull(card) is True
    assert web.log == []
    assert works(store, card)


def test_a_left_over_that_is_not_the_source_is_fetched_over(store, web):
    card = url_card(web)
    store.folder(card).mkdir(parents=True)
    (store.folder(card) / "source.bin").write_bytes(DATA[:-1])
    assert store.pull(card) is True
    assert names(store.folder(card)) == ["digests.json", "toy.onnx"]


def test_a_model_with_another_answer_than_its_card_is_not_installed(store, web):
    card = url_card(web)
    wrong = replace(card.golden["toy"], outputs={"embedding": (1.0,) * 8})
    wrong_card = replace(card, golden={"toy": wrong})
    with pytest.raises(EngineError, match="relative error"):
        store.pull(wrong_card)
    assert names(store.folder(card)) == []
    assert not store.installed(card)


def test_a_file_that_is_no_model_is_not_installed(store):
    with Web({"/toy.onnx": b"<html>"}) as web:
        card = unchecked(url_card(web, b"<html>"))
        with pytest.raises(EngineError, match="could not load"):
            store.pull(card)
    assert names(store.folder(card)) == []


def test_a_graph_of_tensorflow_is_converted_on_the_way(store, web, casia_graph):
    """The wheel's one file, given as it is; the answer on the card was frozen elsewhere."""
    card = published()["facenet-casia-webface"]
    steps = []
    assert store.pull(card, lambda *step: steps.append(step), given=casia_graph) is True
    assert [label for label, _, _ in steps] == [f"convert {card.name} to ONNX"] * 2
    assert names(store.folder(card)) == ["digests.json", f"{card.name}.onnx"]
    (path,) = store.files(card).values()
    assert store.digests(card) == {path.name: sha256(path.read_bytes()).hexdigest()}
    assert store.pull(card) is False


# Checking


def test_a_flipped_byte_does_not_load_and_pull_repairs_it(store, web):
    card = url_card(web)
    store.pull(card)
    path = store.folder(card) / "toy.onnx"
    for place in (0, len(DATA) // 2, -1):
        flip(path, place)
        with pytest.raises(DigestError) as failure:
            store.files(card)
        assert sha256(DATA).hexdigest() in str(failure.value)
        assert sha256(path.read_bytes()).hexdigest() in str(failure.value)
        assert "facenet models pull toy" in str(failure.value)
        assert store.pull(card) is True
        assert works(store, card)
    assert len(web.log) == 4


def test_a_missing_file_is_noticed_and_repaired(store, web):
    card = url_card(web)
    store.pull(card)
    (store.folder(card) / "toy.onnx").unlink()
    with pytest.raises(ModelError, match="not on this machine yet, or not whole"):
        store.files(card)
    assert store.pull(card) is True


@pytest.mark.parametrize("record", ["", "{", "[]", '{"files": {}}', '{"source": 1}', b"\xff"])
def test_a_damaged_record_is_noticed_and_repaired(store, web, record):
    card = url_card(web)
    store.pull(card)
    path = store.folder(card) / "digests.json"
    path.write_bytes(record if isinstance(record, bytes) else record.encode())
    assert not store.installed(card)
    with pytest.raises(ModelError, match="models pull toy"):
        store.files(card)
    assert store.pull(card) is True
    assert works(store, card)


def test_a_converted_file_is_known_by_its_record(store, web):
    """Without a digest on the card, the one written at the installation counts."""
    card = url_card(web)
    card = replace(card, files=(ModelFile("toy.onnx", "", len(DATA)),))
    store.pull(card)
    assert store.digests(card) == {"toy.onnx": sha256(DATA).hexdigest()}
    flip(store.folder(card) / "toy.onnx")
    with pytest.raises(DigestError, match=sha256(DATA).hexdigest()):
        store.files(card)


def test_the_file_of_an_older_edition_of_a_model_is_not_used(store, web):
    """A card of the same name with another source: its contract must not get the old vectors."""
    card = url_card(web)
    store.pull(card)
    newer = linear(seed=1).SerializeToString()
    newer_card = replace(
        card,
        source=replace(card.source, sha256=sha256(newer).hexdigest(), bytes=len(newer)),
        files=(ModelFile("toy.onnx", "", len(newer)),),
        golden={},
    )
    assert not store.installed(newer_card)
    with pytest.raises(ModelError, match="not on this machine yet"):
        store.files(newer_card)
    web.files["/toy.onnx"] = newer
    assert store.pull(newer_card) is True
    assert (store.folder(card) / "toy.onnx").read_bytes() == newer


def test_a_changed_file_of_an_imported_model_says_to_import_it(store):
    card = linear_card(DATA, origin="my-model.onnx")
    with pytest.raises(ModelError, match=r"Import it again .* \(my-model\.onnx\)"):
        store.files(card)
    with pytest.raises(DownloadError, match=r"my-model\.onnx.*cannot be fetched"):
        store.pull(card)


# Two at once, killed, disk full, read-only


def test_two_processes_pull_at_once_with_one_download(home, web):
    card = url_card(web)
    web.gate.clear()
    children = [child(card, home) for _ in range(2)]
    assert [c.stdout.readline() for c in children] == ["ready\n"] * 2
    web.gate.set()
    answers = [c.communicate()[0].splitlines()[-1] for c in children]
    assert sorted(answers) == ["fetched", "was there"]
    assert [c.returncode for c in children] == [0, 0]
    assert len(web.log) == 1
    assert works(ModelStore(), card)


def test_two_threads_pull_at_once_with_one_download(store, web):
    card, answers = url_card(web), []
    threads = [threading.Thread(target=lambda: answers.append(store.pull(card))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False, False, False, True]
    assert len(web.log) == 1


def test_a_killed_pull_goes_on_where_it_stopped(store, home, web):
    card = unchecked(url_card(web, BIG, "/big.onnx"))
    web.before_gate = 2_500_000
    web.gate.clear()
    process = child(card, home)
    done = 0
    while done < 2 * disk.CHUNK:
        words = process.stdout.readline().split()
        done = int(words[-2]) if len(words) == 3 else 0
    process.kill()
    process.communicate()
    folder = store.folder(card)
    (part,) = (path for path in folder.iterdir() if path.name.endswith(".part"))
    kept = part.stat().st_size
    assert done <= kept < len(BIG)
    assert not store.installed(card)
    web.gate.set()
    assert store.pull(card) is True
    assert web.ranges_asked() == [None, f"bytes={kept}-"]
    assert web.log[-1][2] == len(BIG) - kept
    assert (folder / "toy.onnx").read_bytes() == BIG
    assert names(folder) == ["digests.json", "toy.onnx"]


@pytest.mark.parametrize("source", ["url", "zip", "file"])
def test_a_full_disk_is_told_and_leaves_no_model(store, home, web, tmp_path, source):
    """Writing fails while downloading, while unpacking and while copying."""
    card = unchecked(url_card(web, BIG, "/big.onnx"))
    if source == "zip":
        with zipfile.ZipFile(tmp_path / "big.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("big.onnx", bytes(len(BIG)))
        data = (tmp_path / "big.zip").read_bytes()
        web.files["/big.zip"] = data
        digest = sha256(bytes(len(BIG))).hexdigest()
        origin = replace(card.source, sha256=digest, url=web.url("/big.zip"), member="big.onnx")
        card = replace(card, source=origin)
    if source == "file":
        store.folder(card).mkdir(parents=True)
        (store.folder(card) / "source.bin.download").write_bytes(BIG)
    process = child(card, home, limit=1_000_000)
    answer = process.communicate()[0].splitlines()[-1]
    assert answer.startswith("StorageError Cannot write ")
    assert answer.endswith("Free some space or set FACENET_HOME to a folder that can be written.")
    assert os.strerror(errno.EFBIG) in answer
    assert not store.installed(card)
    left = set(names(store.folder(card)))
    assert left <= {"source.bin.download.part"}  # what a download goes on with
    if source != "zip":
        assert store.pull(card) is True
        assert (store.folder(card) / "toy.onnx").read_bytes() == BIG


def test_a_full_disk_at_the_last_step_leaves_no_model(store, web, tmp_path):
    """The record cannot be written: a folder is in its place."""
    card = url_card(web)
    (store.folder(card) / "digests.json").mkdir(parents=True)
    with pytest.raises(StorageError, match="Cannot"):
        store.pull(card)
    (store.folder(card) / "digests.json").rmdir()
    assert not store.installed(card)
    assert store.pull(card) is True
    assert names(store.folder(card)) == ["digests.json", "toy.onnx"]


@pytest.mark.parametrize("place", ["home", "home/models", "home/models/toy"])
def test_a_home_that_cannot_be_written_is_told(web, tmp_path, place):
    card = url_card(web)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text("a file in place of the folder")
    store = ModelStore(tmp_path / "home")
    assert not store.installed(card)
    with pytest.raises(ModelError, match="models pull toy"):
        store.files(card)
    with pytest.raises(StorageError, match="Cannot write .*set FACENET_HOME"):
        store.pull(card)
    assert (tmp_path / place).read_text() == "a file in place of the folder"


def test_a_whole_model_in_a_read_only_home_needs_no_lock(store, web):
    card = url_card(web)
    store.pull(card)
    lock = store.home / "models" / "toy.lock"
    lock.unlink()
    lock.mkdir()  # a lock file cannot be made here
    assert store.pull(card) is False
    assert works(store, card)
    flip(store.folder(card) / "toy.onnx")
    with pytest.raises(StorageError, match=r"Cannot write .*toy\.lock"):
        store.pull(card)


# Small files


def test_a_small_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a" / "b.json"
    disk.write_text(path, "old")
    disk.write_text(path, "new é")
    assert path.read_bytes() == "new é".encode()
    assert names(path.parent) == ["b.json"]
    with pytest.raises(StorageError, match="Cannot write"):
        disk.write_text(path / "c.json", "in a file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").touch()
    with pytest.raises(StorageError, match="Cannot write"):
        disk.write_text(tmp_path / "folder", "over a folder")
    assert names(tmp_path) == ["a", "folder"]


def test_a_file_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path):
    """As the converter writes its model."""
    code = """
import resource, sys
from pathlib import Path
from facenet.errors import StorageError
from facenet.models.disk import write_new, write_text

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write, data in ((write_new, bytes(5000)), (write_text, "x" * 5000)):
    try:
        write(Path(sys.argv[1]) / "new", data)
    except StorageError as error:
        print(error)
"""
    (tmp_path / "folder").mkdir()
    command = [sys.executable, "-c", code, str(tmp_path / "folder")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.count("Cannot write ") == answer.stdout.count("Free some space") == 2
    assert names(tmp_path / "folder") == []


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(StorageError, match="Cannot read .*none"):
        disk.sha256_of(tmp_path / "none")
    path = tmp_path / "file"
    path.write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert disk.sha256_of(path) == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_the_store_of_the_environment_is_the_home(home):
    assert ModelStore().home == home
    assert ModelStore(str(home)).folder(toy_card()) == home / "models" / "toy"
