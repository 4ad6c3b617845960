import shutil
import struct
from pathlib import Path

import checkpoint_maker as maker
import numpy as np
import pytest
from checkpoint_maker import seeded
from graph_maker import block, number, varint

from facenet.errors import ModelFileError, StorageError
from facenet.models.convert import checkpoint, sstable
from facenet.models.convert.checkpoint import read_checkpoint
from facenet.models.convert.checkpoint_files import find_checkpoint, is_checkpoint
from facenet.models.convert.crc32c import CHUNK, LANE, crc32c, unmasked

GOLDEN = Path(__file__).resolve().parents[1] / "golden/tensorflow_checkpoints.npz"
NEWEST = "model-20170512-110547.ckpt-250"


@pytest.fixture
def genuine(tmp_path):
    """The files TensorFlow itself wrote."""
    with np.load(GOLDEN) as files:
        for name in files.files:
            if "/" in name:
                path = tmp_path / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(files[name].tobytes())
    return tmp_path


ARRAYS = {
    "a/weights": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "a/weights/Adam": np.ones((2, 3, 4), np.float32),
    "b": np.arange(5, dtype=np.int64),
    "c": np.linspace(0, 1, 7).astype(np.float16),
    "d": np.float64(3.5).reshape(()),
    "e/long/name/that/shares/its/beginning": np.zeros((1, 1), np.int32),
    "e/long/name/that/shares/its/end": np.full((2,), -7, np.int32),
}


def read_all(prefix):
    found = read_checkpoint(prefix)
    return found.read(found.variables)


# The checksum


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_the_checksum_has_the_values_of_rfc_3720(data, expected):
    assert crc32c(data) == maker.crc32c(data) == expected
    assert unmasked(maker.masked(expected)) == expected


@pytest.mark.parametrize("size", [LANE - 1, LANE, LANE + 1, 3 * LANE + 7, 70_001, CHUNK + 3])
def test_the_checksum_is_that_of_one_byte_after_the_other(size):
    data = np.random.default_rng(size).bytes(size)
    assert crc32c(data) == maker.crc32c(data)


# What TensorFlow wrote


def test_every_variable_of_a_genuine_checkpoint_is_read(genuine):
    found = read_checkpoint(find_checkpoint(genuine / "model"))
    assert found.prefix == genuine / "model" / NEWEST
    shapes = {name: variable.shape for name, variable in found.variables.items()}
    assert shapes == {
        "a/biases": (4,),
        "a/weights": (3, 5, 2, 4),
        "b/weights": (70, 9),
        "double": (3,),
        "global_step": (),
        "half": (6, 2),
        "scalar": (),
        "text": (2,),
    }
    arrays = found.read(name for name in shapes if name != "text")
    for name in ("a/weights", "a/biases", "b/weights"):
        assert arrays[name].dtype == np.float32
        np.testing.assert_array_equal(arrays[name], seeded(name, shapes[name]))
    assert (arrays["half"] == seeded("half", (6, 2)).astype(np.float16)).all()
    assert (arrays["double"] == seeded("double", (3,)).astype(np.float64)).all()
    assert (arrays["scalar"][()], arrays["global_step"][()]) == (2.5, 1234567890123)
    assert not arrays["half"].flags.writeable
    with pytest.raises(ModelFileError, match="'text' of the TensorFlow type 7"):
        found.read(["text"])


def test_two_data_files_and_a_variable_in_pieces(genuine):
    arrays = read_all(find_checkpoint(genuine / "two"))
    np.testing.assert_array_equal(arrays["a"], seeded("a", (4, 3)))
    np.testing.assert_array_equal(arrays["b"], seeded("b", (2,)))
    parted = read_checkpoint(find_checkpoint(genuine / "parted"))
    np.testing.assert_array_equal(parted.read(["whole"])["whole"], seeded("whole", (3,)))
    with pytest.raises(ModelFileError, match="'parted' in pieces .* does not partition it"):
        parted.read(["parted"])


def test_the_first_format_is_refused_with_the_way_out(genuine):
    folder = genuine / "first"
    for path in (folder, folder / "model-1.ckpt-3"):
        assert is_checkpoint(path)
        with pytest.raises(ModelFileError, match=r"first format, one file; .*write_version=2"):
            find_checkpoint(path)
    (folder / "model-1.ckpt-3").rename(folder / "x.index")
    with pytest.raises(ModelFileError, match="the header of another format"):
        read_checkpoint(folder / "x")


# Which checkpoint a path means


def test_a_folder_means_what_facenet_would_load(genuine):
    folder = genuine / "model"
    text = (folder / "checkpoint").read_text()
    (folder / "checkpoint").write_text(text.replace("ckpt-250", "ckpt-90", 1))
    assert find_checkpoint(folder).name.endswith("ckpt-90")
    elsewhere = 'model_checkpoint_path: "C:\\\\gone\\\\model-20170512-110547.ckpt-250"\n'
    (folder / "checkpoint").write_text(elsewhere)
    assert find_checkpoint(folder).name == NEWEST
    (folder / "checkpoint").unlink()
    assert find_checkpoint(folder).name == NEWEST  # 250, though "90" sorts behind it
    (folder / "model-20170512-110547.meta").touch()
    assert find_checkpoint(folder).name == NEWEST


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001", ".meta"])
def test_a_prefix_and_each_of_its_files(genuine, ending):
    path = genuine / "model" / (NEWEST + ending)
    path.with_name(NEWEST + ".meta").touch()
    assert is_checkpoint(path)
    assert find_checkpoint(path).name == NEWEST


def test_a_beginning_that_only_one_checkpoint_has(genuine):
    path = genuine / "model/model-20170512-110547.ckpt-2"
    assert is_checkpoint(path)
    assert find_checkpoint(path).name == NEWEST


def test_other_paths_are_no_checkpoints(genuine):
    (genuine / "empty").mkdir()
    (genuine / "file").write_bytes(b"x")
    for name in ("empty", "file", "nothing", "no/such/folder"):
        assert not is_checkpoint(genuine / name)


def ambiguous(folder):
    return folder / "model-2017"


def missing(folder):
    return folder / "model-2018"


def two_metas(folder):
    for name in ("b.meta", "a.meta"):
        (folder / name).touch()
    return folder


def stale(folder):
    (folder / f"{NEWEST}.index").unlink()
    return folder


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


def two_models(folder):
    (folder / "checkpoint").unlink()
    (folder / "model-20180402-114759.ckpt-250.index").touch()
    return folder


def two_others(folder):
    (empty(folder) / "x.index").touch()
    (folder / "y.index").touch()
    return folder


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            ambiguous,
            "expected 'model-2017' to be the prefix of one TensorFlow checkpoint .*, but 2 are "
            "there .'model-20170512-110547.ckpt-250', 'model-20170512-110547.ckpt-90'.; give the "
            "whole prefix, or the folder",
        ),
        (missing, "'model-2018' to be the prefix of one .* but there is none"),
        (two_metas, "one model, but it has 2 .meta files .'a.meta', 'b.meta'.; give the prefix"),
        (stale, "which the file 'checkpoint' of 'model' names, but there is no .index file"),
        (empty, "the folder 'model' to hold a TensorFlow checkpoint .* but there is none"),
        (two_models, "2 are there .*110547.ckpt-250', 'model-20180402-114759.ckpt-250'"),
        (two_others, "2 are there .'x', 'y'.; give the prefix"),
    ],
)
def test_a_path_that_is_not_one_checkpoint_is_refused_in_one_sentence(genuine, path, message):
    with pytest.raises(ModelFileError, match=message) as raised:
        find_checkpoint(path(genuine / "model"))
    assert "\n" not in str(raised.value)


# Damage


def test_a_checkpoint_written_by_hand_is_read(tmp_path):
    arrays = read_all(maker.write(tmp_path, "x", ARRAYS))
    assert list(arrays) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(arrays[name], array)


def test_only_what_is_asked_for_is_read(tmp_path):
    prefix = maker.write(tmp_path, "x", ARRAYS)
    data = tmp_path / "x.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    found = read_checkpoint(prefix)
    assert found.read(["b"])["b"].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ModelFileError, match="its/end' whose checksum does not fit"):
        found.read(["e/long/name/that/shares/its/end"])
    data.write_bytes(content[:-1])
    with pytest.raises(ModelFileError, match=f"beyond the {len(content) - 1} bytes"):
        found.read(["e/long/name/that/shares/its/end"])
    with pytest.raises(ModelFileError, match="no variable 'f'"):
        found.read(["f"])
    data.unlink()
    for make in (lambda: None, data.mkdir):
        make()
        with pytest.raises(ModelFileError, match="no file 'x.data-00000-of-00001' beside it"):
            found.read(["b"])


VALUES = np.arange(6, dtype=np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": (7,)}, r"'v' with 24 bytes for the shape \(7,\)"),
        ({"sizes": (1 << 40, 1 << 40)}, "'v' with 24 bytes for the shape"),
        ({"sizes": (0, 1 << 62), "size": 0}, "'v' with 0 bytes for the shape"),
        ({"size": 1 << 63, "sizes": (1 << 61,)}, "'v' beyond the 24 bytes"),
        ({"dtype": 14}, "'v' of the TensorFlow type 14"),
        ({"crc": 0}, "'v' whose checksum does not fit"),
        ({"shard": 1}, "a variable in data file 1 of 1"),
        ({"sizes": (-1,)}, "a shape that is unknown"),
        ({"sizes": (1,) * 9}, "too many axes"),
        ({"extra": block(7, b"")}, "'v' in pieces"),
        ({"extra": number(2, 4)}, "a field of the wire type 0 in place of 2"),
        ({"extra": number(6, 4)}, "a field of the wire type 0 in place of 5"),
        ({"extra": b"\x0f"}, "the wire type 7"),
    ],
)
def test_an_entry_that_lies_is_refused(tmp_path, change, message):
    prefix = maker.write(tmp_path, "x", {"v": VALUES}, change={"v": change})
    with pytest.raises(ModelFileError, match=f"'x' to be a TensorFlow checkpoint .*{message}"):
        read_all(prefix)


def test_one_place_under_many_names_does_not_multiply(tmp_path):
    names = [f"v{k}" for k in range(9)]
    maker.write(tmp_path, "x", {"v": VALUES})
    pairs = [maker.header()] + [(name.encode(), maker.entry(VALUES, 0)) for name in names]
    (tmp_path / "x.index").write_bytes(maker.table(pairs))
    found = read_checkpoint(tmp_path / "x")
    assert found.read(["v5"])["v5"].tolist() == VALUES.tolist()
    with pytest.raises(ModelFileError, match="'v1' in bytes that other variables have"):
        found.read(names)


PAIRS = [maker.header(), (b"v", maker.entry(VALUES, 0))]


def overlapping():
    content = maker.entries(PAIRS)
    handle = varint(0) + varint(len(content))
    return maker.finished(maker.stored(content), [(b"a", handle), (b"b", handle)])


def block_of(content):
    handle = varint(0) + varint(len(content))
    return maker.finished(maker.stored(content), [(b"a", handle)])


def many(count):
    pairs = [maker.header()] + [(b"%06d" % k, b"") for k in range(count)]
    return maker.table(pairs, per_block=1000)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a table without its end"),
        (maker.table(PAIRS)[:-1], "a table without its end"),
        (maker.table(PAIRS)[3:], "a block whose checksum|a block outside"),
        (maker.table(PAIRS, kind=1), "compressed blocks"),
        (maker.table([*PAIRS, PAIRS[1]]), "keys that are not in order"),
        (maker.table(PAIRS[1:]), "a variable in data file 0 of 0"),
        (maker.table([maker.header(shards=0)]), "0 data files"),
        (maker.table([maker.header(shards=1 << 40)]), "1099511627776 data files"),
        (maker.table([maker.header(order=1)]), "a big-endian machine"),
        (maker.table([(b"\0v", b"")]), "no header"),
        (maker.table([maker.header(), (b"\xff", PAIRS[1][1])]), "a name that is no text"),
        (maker.table([maker.header(), (b"k" * 1025, b"")]), "a key that is too long"),
        (overlapping(), "blocks that overlap"),
        (block_of(b""), "a block that is cut short"),
        (block_of(struct.pack("<II", 0, 1)), "a block without entries"),
        (block_of(struct.pack("<I", 1 << 30)), "shorter than its list of restarts"),
        (block_of(b"\x05\x01\x00k" + bytes(4)), "has no beginning"),
        (block_of(b"\x00\x01\x7fk" + bytes(4)), "an entry that is cut short"),
        (block_of(b"\x00\x01\xff" + bytes(4)), "a number that is cut short"),
        (many(sstable.MAX_ENTRIES), "more than 20000 entries"),
    ],
)
def test_a_damaged_index_is_refused_in_one_sentence(tmp_path, data, message):
    (tmp_path / "x.index").write_bytes(data)
    with pytest.raises(ModelFileError, match=message) as raised:
        read_checkpoint(tmp_path / "x")
    assert len(str(raised.value)) < 400
    assert "copy all files of the checkpoint again" in str(raised.value)


def test_an_index_that_is_no_index_at_all(tmp_path):
    with pytest.raises(ModelFileError, match="no file 'x.index'"):
        read_checkpoint(tmp_path / "x")
    with (tmp_path / "x.index").open("wb") as file:
        file.truncate(checkpoint.MAX_INDEX_BYTES + 1)
    with pytest.raises(ModelFileError, match="an index of more than 16777216 bytes"):
        read_checkpoint(tmp_path / "x")
    (tmp_path / "y.index").mkdir()
    with pytest.raises(ModelFileError, match="no file 'y.index'"):
        read_checkpoint(tmp_path / "y")
    for name in ("z" * 300, "z\0"):  # names that no disk takes
        assert not is_checkpoint(tmp_path / name)
        with pytest.raises(ModelFileError, match="there is none"):
            find_checkpoint(tmp_path / name)


@pytest.mark.skipif(not Path("/proc/self/mem").is_file(), reason="needs a file that fails to read")
def test_a_disk_that_does_not_answer_is_one_sentence(tmp_path):
    (tmp_path / "x.index").symlink_to("/proc/self/mem")
    with pytest.raises(StorageError, match=r"Cannot read .*x.index: Input/output error\."):
        read_checkpoint(tmp_path / "x")
    with pytest.raises(StorageError, match="Cannot read"):
        find_checkpoint(Path("/proc/self/mem"))


def test_a_checkpoint_file_that_says_nothing_decides_nothing(genuine):
    folder = genuine / "model"
    for text in (b"", b"\xff" * 99, b'model_checkpoint_path: "', b'model_checkpoint_path: "/"'):
        (folder / "checkpoint").write_bytes(text)
        assert find_checkpoint(folder).name == NEWEST


def damaged(random, content):
    """A few bytes changed, and perhaps some cut off or put in."""
    content = bytearray(content)
    for _ in range(random.integers(1, 4)):
        content[random.integers(len(content))] = random.integers(256)
    if random.random() < 0.3:
        del content[random.integers(len(content)) :]
    if random.random() < 0.2:
        place = random.integers(len(content) + 1)
        content[place:place] = random.bytes(random.integers(1, 20))
    return bytes(content)


@pytest.mark.parametrize("deep", [False, True])
def test_damaged_files_never_raise_anything_else(tmp_path, deep):
    """deep: with checksums that fit, so that the damage reaches the entries."""
    random = np.random.default_rng(8)
    prefix = maker.write(tmp_path, "x", ARRAYS)
    index, data = tmp_path / "x.index", tmp_path / "x.data-00000-of-00001"
    whole = index.read_bytes(), data.read_bytes()
    found = read_checkpoint(prefix)
    pairs = [maker.header()] + [
        (name.encode(), maker.entry(ARRAYS[name], found.variables[name].offset))
        for name in sorted(ARRAYS)
    ]
    refused = 0
    for _ in range(250):
        if deep and random.random() < 0.5:
            index.write_bytes(block_of(damaged(random, maker.entries(pairs))))
        elif deep:
            chosen = random.integers(len(pairs))
            changed = [
                (key, damaged(random, value) if k == chosen else value)
                for k, (key, value) in enumerate(pairs)
            ]
            index.write_bytes(maker.table(changed))
        else:
            index.write_bytes(damaged(random, whole[0]))
            data.write_bytes(damaged(random, whole[1]) if random.random() < 0.5 else whole[1])
        try:
            read_all(prefix)
        except ModelFileError as error:
            refused += 1
            assert len(str(error)) < 600
    assert refused > 150
