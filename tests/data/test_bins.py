"""Verification sets: what Pythons and NumPys of any age wrote is read, all else is one sentence."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import re
import tracemalloc

import cv2
import numpy as np
import pytest

from facenet.data.bins import MAX_FILE_BYTES, read_bin
from facenet.errors import DataError
from facenet.images import load_image

PROTOCOLS = pytest.mark.parametrize("protocol", range(6))
TRUTH = [True, False, False, True, True, True, False, False, True, False]
JPEG = b"\xff\xd8\xff"


def faces(count=20, length=40):
    """Bytes that begin as a JPEG does, with all that is special in a pickle of any protocol."""
    generator = np.random.default_rng(count)
    special = b"\n\r\\\\x'\"\x00\x80\xff\\u00e9.%"
    return [JPEG + special + generator.bytes(length) for _ in range(count)]


FACES = faces()
KINDS = {
    "bytes": lambda face: face,
    "bytearray": bytearray,
    "row": lambda face: np.array(list(face), np.uint8),
    "column": lambda face: np.array(list(face), np.uint8)[:, None],
    "read-only": lambda face: np.frombuffer(face, np.uint8),
    "every other": lambda face: np.repeat(np.frombuffer(face, np.uint8), 2)[::2],
    "Fortran": lambda face: np.asfortranarray(np.frombuffer(face, np.uint8)[None]),
}
TRUTHS = {
    "bools": list,
    "ints": lambda truth: [int(value) for value in truth],
    "NumPy bools": lambda truth: [np.bool_(value) for value in truth],
    "a NumPy array": np.array,
    "a read-only array": lambda truth: np.frombuffer(bytes(truth), bool),
    "all sorts": lambda truth: tuple(
        [bool, int, np.bool_, np.uint8][n % 4](v) for n, v in enumerate(truth)
    ),
}


def written(tmp_path, content):
    path = tmp_path / "set.bin"
    path.write_bytes(content)
    return path


def check(pairs, expected=FACES, truth=TRUTH):
    assert [picture.source for picture in pairs.pictures] == expected
    assert all(type(picture.source) is bytes for picture in pairs.pictures)
    assert pairs.same.tolist() == truth
    assert pairs.a.tolist() == list(range(0, len(expected), 2))
    assert pairs.b.tolist() == list(range(1, len(expected), 2))


@PROTOCOLS
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_pictures_of_every_kind_and_protocol(tmp_path, protocol, kind):
    content = pickle.dumps(([kind(face) for face in FACES], TRUTH), protocol)
    pairs = read_bin(written(tmp_path, content))
    check(pairs)
    assert [picture.name for picture in pairs.pictures] == [f"{row:04d}" for row in range(20)]
    assert (pairs.dataset, pairs.aligned) == ("set", True)
    assert pairs.digests == {"set.bin": hashlib.sha256(content).hexdigest()}
    assert pairs.fold.tolist() == list(range(10))
    assert all("unbalanced" in note for note in pairs.notes)
    assert {picture.person for picture in pairs.pictures} == {""}


@PROTOCOLS
@pytest.mark.parametrize("kind", TRUTHS.values(), ids=TRUTHS.keys())
def test_truths_of_every_kind_and_protocol(tmp_path, protocol, kind):
    check(read_bin(written(tmp_path, pickle.dumps([tuple(FACES), kind(TRUTH)], protocol))))


@PROTOCOLS
def test_names_of_numpy_1(tmp_path, protocol):
    mixed = [KINDS[name](face) for name, face in zip(["row", "read-only"] * 10, FACES, strict=True)]
    content = pickle.dumps((mixed, np.array(TRUTH)), protocol)
    for new in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        old = new.replace(b"_core", b"core")
        content = content.replace(bytes([len(new)]) + new, bytes([len(old)]) + old)
        content = content.replace(new, old)
    assert b"numpy.core" in content and b"_core" not in content
    check(read_bin(str(written(tmp_path, content))))


PYTHON_2 = [
    b"((lp1\nS'\\xff\\xd8\\xff\\n\\'\"\\\\\\x00z'\np2\nacnumpy.core.multiarray\n_reconstruct\np3\n"
    b"(cnumpy\nndarray\np4\n(I0\ntS'b'\ntRp5\n(I1\n(I7\nI1\ntcnumpy\ndtype\np6\n(S'u1'\nI0\nI1\nt"
    b"Rp7\n(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\xff\\xd8\\xff\\xe0\\r\\n\\xfe'\ntba"
    + b"g2\nag5\na"
    * 9
    + b"(lp8\nI01\naI00\nacnumpy.core.multiarray\nscalar\np9\n(g6\n(S'b1'\nI0\nI1\ntRp10\n(I3\n"
    b"S'|'\nNNNI-1\nI-1\nI0\ntbS'\\x01'\ntRp11\nag9\n(g10\nS'\\x00'\ntRp12\naI1\naI0\naL1L\naI00\na"
    b"I01\naL0L\natp13\n.",
    b"(]q\x01(U\t\xff\xd8\xff\n'\"\\\x00zq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03(cnumpy\n"
    b"ndarray\nq\x04(K\x00tU\x01btRq\x05(K\x01(K\x07K\x01tcnumpy\ndtype\nq\x06(U\x02u1K\x00K\x01t"
    b"Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbI00\nU\x07\xff\xd8\xff\xe0\r\n"
    b"\xfetb"
    + b"h\x02h\x05"
    * 9
    + b"e]q\x08(I01\nI00\ncnumpy.core.multiarray\nscalar\nq\t(h\x06(U\x02b1K\x00K\x01tRq\n(K\x03"
    b"U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbU\x01\x01tRq\x0bh\t(h\nU\x01\x00tRq\x0c"
    b"K\x01K\x00L1L\nI00\nI01\nL0L\netq\r.",
    b"\x80\x02]q\x01(U\t\xff\xd8\xff\n'\"\\\x00zq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03"
    b"cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x07K\x01\x86cnumpy\ndtype\nq\x06"
    b"U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    b"U\x07\xff\xd8\xff\xe0\r\n\xfetb"
    + b"h\x02h\x05"
    * 9
    + b"e]q\x08(\x88\x89cnumpy.core.multiarray\nscalar\nq\th\x06U\x02b1K\x00K\x01\x87Rq\n(K\x03"
    b"U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbU\x01\x01\x86Rq\x0bh\th\nU\x01\x00\x86Rq\x0c"
    b"K\x01K\x00\x8a\x01\x01\x89\x88\x8a\x00e\x86q\r.",
]
"""What cPickle of Python 2.7.18 and NumPy 1.16.6 wrote at protocols 0, 1 and 2."""


@pytest.mark.parametrize("content", PYTHON_2, ids=["0", "1", "2"])
def test_what_python_2_wrote(tmp_path, content):
    expected = [b"\xff\xd8\xff\n'\"\\\x00z", b"\xff\xd8\xff\xe0\r\n\xfe"] * 10
    truth = [True, False, True, False, True, False, True, False, True, False]
    check(read_bin(written(tmp_path, content)), expected, truth)


def by_hand(faces, truth, string):
    """A program of Python 2, protocol 2, whose strings are written by `string`."""
    body = b"".join(string(face) + b"q\x01" for face in faces)
    flags = b"".join(b"\x88" if value else b"\x89" for value in truth)
    return b"\x80\x02](" + body + b"e](" + flags + b"e\x86."


@pytest.mark.parametrize(
    "string",
    [
        lambda face: b"T" + len(face).to_bytes(4, "little") + face,
        lambda face: b"U" + bytes([len(face)]) + face,
        lambda face: b"S" + repr(face)[1:].encode() + b"\n",
    ],
    ids=["BINSTRING", "SHORT_BINSTRING", "STRING"],
)
def test_strings_of_python_2_by_hand(tmp_path, string):
    check(read_bin(written(tmp_path, by_hand(FACES, TRUTH, string))))


def test_the_real_file(data):
    """Ten pairs of LFW: every picture is the one Python's own pickle gives, and decodes."""
    path = data / "small_lfw.bin"
    pairs = read_bin(path)
    with path.open("rb") as file:
        arrays, truth = pickle.load(file, encoding="bytes")
    check(pairs, [array.tobytes() for array in arrays], [bool(value) for value in truth])
    assert pairs.digests == {"small_lfw.bin": hashlib.sha256(path.read_bytes()).hexdigest()}
    for picture, array in zip(pairs.pictures, arrays, strict=True):
        expected = cv2.cvtColor(cv2.imdecode(array, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(load_image(picture.source), expected)
    (note,) = pairs.notes
    assert note.endswith("1 pairs, 1 of them mated; 10 of them lack mated or non-mated pairs.")


def test_folds_and_names_of_a_large_set(tmp_path):
    truth = ([True] * 300 + [False] * 300) * 10
    content = pickle.dumps(([JPEG + b"%d" % row for row in range(12000)], truth), 2)
    pairs = read_bin(written(tmp_path, content))
    assert pairs.fold.tolist() == [pair // 600 for pair in range(6000)]
    assert pairs.notes == ()
    assert [pairs.pictures[row].name for row in (0, 11999)] == ["00000", "11999"]
    assert pairs.pictures[11999].source == JPEG + b"11999"


@pytest.mark.parametrize(
    "start", [JPEG, b"\x89PNG\r\n\x1a\n", b"RIFF....WEBP", b"BM", b"II*\0", b"MM\0*"]
)
def test_formats_that_can_be_decoded_pass_unread(tmp_path, start):
    expected = [start + b"x"] * 20
    check(read_bin(written(tmp_path, pickle.dumps((expected, TRUTH), 4))), expected)


@pytest.mark.parametrize("kind", ["bytes", "row", "read-only", "strings of Python 2"])
def test_pictures_are_in_memory_once(tmp_path, kind):
    large = faces(20, 500_000)
    if kind in KINDS:
        make = KINDS[kind]
        content = pickle.dumps(([make(face) for face in large], TRUTH), 5)
    else:
        content = by_hand(large, TRUTH, lambda face: b"T" + len(face).to_bytes(4, "little") + face)
    path = written(tmp_path, content)
    size = len(content)
    del content
    tracemalloc.start()
    pairs = read_bin(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    check(pairs, large)
    assert peak < 1.3 * size


# ---- what is refused


def refused(tmp_path, content, told):
    path = written(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read_bin(path)
    start = f"{path} should be a verification set of InsightFace (.bin), a pickle of encoded"
    whole = re.escape(start) + f".*; it holds .*{told}.*Download it again, or pack it anew.$"
    assert re.match(whole, str(caught.value)), str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 400


def instead(row, value):
    return [*FACES[:row], value, *FACES[row + 1 :]]


PIXELS = np.zeros((112, 96, 3), np.uint8)
LOOP = [*FACES]
LOOP[0] = LOOP
BAD_SETS = {
    "no set": ({1: 2}, "the pickle opcode EMPTY_DICT, which no verification set needs"),
    "a number": (3, "a number in place of a pair of pictures and truths"),
    "three lists": ((FACES, TRUTH, TRUTH), "a tuple in place of a pair of pictures"),
    "no list of pictures": ((b"abc", TRUTH), "bytes in place of the list of pictures"),
    "no list of truths": ((FACES, "yes"), "text in place of the list of truths"),
    "one picture more": (([*FACES, JPEG], TRUTH), "21 pictures for 10 pairs, not two for each"),
    "one truth less": ((FACES, TRUTH[1:]), "20 pictures for 9 pairs, not two for each"),
    "empty bytes": ((instead(3, b""), TRUTH), "picture 3 without a single byte"),
    "an empty array": ((instead(3, np.array([], np.uint8)), TRUTH), "picture 3 without a single"),
    "no picture": ((instead(7, b"GIF89a...."), TRUTH), r"picture 7 that is no .* b'GIF89a\.\.'"),
    "text": ((instead(0, "\xff\xd8\xff"), TRUTH), "text in place of picture 0"),
    "None": ((instead(0, None), TRUTH), "None in place of picture 0"),
    "a list in a list": ((instead(19, [JPEG]), TRUTH), "a list in place of picture 19"),
    "pixels": (([PIXELS] * 20, TRUTH), r"pixels of the shape \(112, 96, 3\) as .* encoded picture"),
    "grey pixels": ((instead(2, PIXELS[:, :, 0]), TRUTH), r"pixels of the shape \(112, 96\) as"),
    "truths as picture": ((instead(2, np.ones(5, bool)), TRUTH), "of the type b1 as picture 2"),
    "floats": ((instead(2, np.ones(9, np.float32)), TRUTH), "of the type 'f4', not bytes"),
    "objects": (([*map(np.array, [[None]] * 20)], TRUTH), "of the type 'O8', not bytes"),
    "truths of 2": ((FACES, [*TRUTH[1:], 2]), "another number in place of the truth of pair 9"),
    "truths of text": ((FACES, ["yes"] * 10), "text in place of the truth of pair 0"),
    "truths of None": ((FACES, [None] * 10), "None in place of the truth of pair 0"),
    "truths in a table": ((FACES, np.ones((10, 1), bool)), "an array in place of the list"),
    "a list in itself": ((LOOP, TRUTH), "a list that holds itself"),
    "a class": ((FACES, [np.ndarray] * 10), "a name in place of the truth of pair 0"),
    "a foreign class": ((FACES, [random.Random] * 10), "a call of random.Random, which is refused"),
}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("value, told", BAD_SETS.values(), ids=BAD_SETS.keys())
def test_what_is_no_set_is_refused_in_one_sentence(tmp_path, value, told, protocol):
    refused(tmp_path, pickle.dumps(value, protocol), told)


DTYPE = (
    b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
)
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
BUFFER = b"cnumpy._core.numeric\n_frombuffer\n"
BAD_PROGRAMS = {
    "nothing": (b"", "cut short"),
    "text": (b"not a pickle", "the byte b'n' in place|opcode"),
    "a picture": (JPEG + bytes(40), r"the byte b'\\xff' in place of a pickle opcode"),
    "a huge count": (b"\x80\x04](\x8e" + b"\xff" * 7 + b"\x7f", "cut short"),
    "deep lists": (b"]" * 100_000 + b"a" * 99_999 + b".", "nested more than 64 deep"),
    "deep tuples": (b")" + b"\x85" * 100_000 + b".", "nested more than 64 deep"),
    "a memo bomb": (
        b"]" + b"q\x00](h\x00h\x00h\x00e" * 60 + b"]\x86.",
        "3 pictures for 0 pairs",
    ),
    "a bomb of pictures": (
        b"(](]" + b"q\x00](h\x00h\x00e" * 30 + b"h\x00h\x00e](\x88et.",
        "33 pictures for 1 pairs",
    ),
    "another class": (EMPTY.replace(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"), "unusual kind of N"),
    "a size below zero": (
        EMPTY + b"(K\x01J\xff\xff\xff\xff\x85" + DTYPE + b"\x89U\0tb.",
        "impossi",
    ),
    "a huge size": (
        EMPTY + b"(K\x01\x8a\x05\0\0\0\0\x7f\x85" + DTYPE + b"\x89U\0tb.",
        "impossible",
    ),
    "nine axes": (EMPTY + b"(K\x01(" + b"K\x01" * 9 + b"t" + DTYPE + b"\x89U\1atb.", "impossible"),
    "a size of True": (EMPTY + b"(K\x01\x88\x85" + DTYPE + b"\x89U\1atb.", "impossible shape"),
    "missing values": (EMPTY + b"(K\x01K\x07\x85" + DTYPE + b"\x89U\1atb.", "with 1 values"),
    "no type": (EMPTY + b"(K\x01K\x01\x85N\x89U\1atb.", "nonetype in place of the type"),
    "no shape": (EMPTY + b"(K\x01N" + DTYPE + b"\x89U\1atb.", "in place of the shape"),
    "values as text": (EMPTY + b"(K\x01K\x01\x85" + DTYPE + b"\x89X\1\0\0\0atb.", "the values of"),
    "built with less": (EMPTY + b"(K\x01K\x01\x85tb.", "a state that is none of a NumPy array"),
    "built with a list": (EMPTY + b"]b.", "list in place of a state"),
    "a list that is built": (b"])b.", "a state that is none of a NumPy array"),
    "a type of parts": (DTYPE.replace(b"NNN", b"N))") + b".", "a state that is none of a NumPy"),
    "a type without name": (b"cnumpy\ndtype\n)R.", "values of the type None"),
    "a type of types": (b"cnumpy\ndtype\n]\x85R.", "values of the type a list"),
    "a type by a long name": (b"cnumpy\ndtype\nU\xff" + b"x" * 255 + b"\x85R.", "type 'x{40}'"),
    "half a buffer": (BUFFER + b"U\x01a\x85R.", "an unusual kind of NumPy buffer"),
    "half a number": (b"cnumpy.core.multiarray\nscalar\n)R.", "an unusual kind of NumPy number"),
    "a number of two": (
        b"cnumpy.core.multiarray\nscalar\n" + DTYPE + b"U\2ab\x86R.",
        r"shape \(1,\) with 2 values",
    ),
    "an array called": (b"cnumpy\nndarray\n)R.", "an unusual call of numpy.ndarray"),
    "another encoding": (b"c_codecs\nencode\nX\1\0\0\0aX\4\0\0\0zlib\x86R.", "an unusual form"),
    "wide text": (b"c_codecs\nencode\nX\2\0\0\0\xc4\x80X\6\0\0\0latin1\x86R.", "damaged"),
}


@pytest.mark.parametrize("content, told", BAD_PROGRAMS.values(), ids=BAD_PROGRAMS.keys())
def test_hostile_programs_are_refused_in_one_sentence(tmp_path, content, told):
    refused(tmp_path, content, f"({told})")


@PROTOCOLS
def test_a_file_cut_in_the_middle_is_refused(tmp_path, protocol):
    mixed = [KINDS[name](face) for name, face in zip(["row", "bytes"] * 10, FACES, strict=True)]
    content = pickle.dumps((mixed, TRUTH), protocol)
    for length in range(0, len(content), 13):
        refused(tmp_path, content[:length], "(cut short|damaged|place)")


def test_too_few_pairs_for_ten_folds_are_refused(tmp_path):
    path = written(tmp_path, pickle.dumps((FACES[:18], TRUTH[:9]), 4))
    with pytest.raises(DataError, match="10 folds .*; there are 9 pairs. Give more pairs.$"):
        read_bin(path)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    for place, told in (
        (tmp_path / "none.bin", "Expected a verification set .* at .*none.bin; there is none"),
        (tmp_path, "there is something that is no file"),
        ("a\0b", "there is none|Cannot read"),
    ):
        with pytest.raises(DataError, match=told):
            read_bin(place)
    if os.path.isfile("/proc/self/mem"):  # whose first byte cannot be read
        with pytest.raises(DataError, match="Cannot read the .* /proc/self/mem: .*who may read it"):
            read_bin("/proc/self/mem")
    path = tmp_path / "huge.bin"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(DataError, match="at most 4,294,967,296 bytes; it has 4,294,967,297"):
        read_bin(path)


class Command:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@PROTOCOLS
def test_a_call_is_named_and_never_made(tmp_path, protocol):
    marker = tmp_path / "ran"
    for value in (Command(marker), (instead(4, Command(marker)), TRUTH), (FACES, Command(marker))):
        refused(tmp_path, pickle.dumps(value, protocol), r"a call of posix\.system, which is refu")
    refused(tmp_path, b"cbuiltins\neval\nU\x01a\x85R.", r"a call of builtins\.eval, which is refu")
    assert not marker.exists()


def test_damaged_files_are_read_or_refused_and_nothing_else(tmp_path):
    """Thousands of files with changed bytes or a cut end; some carry a call to the shell."""
    marker = tmp_path / "ran"
    mixed = [KINDS[name](face) for name, face in zip(["row", "bytes"] * 10, FACES, strict=True)]
    sets = [(mixed, TRUTH), (FACES, np.array(TRUTH)), (instead(4, Command(marker)), TRUTH)]
    contents = PYTHON_2 * 2 + [pickle.dumps(value, n) for value in sets for n in (0, 2, 4, 5)]
    chance = random.Random(11)
    count = 0
    for _ in range(2500):
        damaged = bytearray(chance.choice(contents))
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.choice(b"\n.()0123RbqKacUX]\x85\xff")
        if chance.random() < 0.2:
            del damaged[chance.randrange(len(damaged)) :]
        try:
            read_bin(written(tmp_path, damaged))
        except DataError:
            count += 1
    assert 1000 < count < 2500
    assert not marker.exists()
