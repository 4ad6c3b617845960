"""Pickle programs: read as Python's own pickle reads them, bounded, and never run."""

from __future__ import annotations

import ast
import io
import os
import pickle
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import facenet
from facenet.pickles import (
    BINARY,
    BYTES,
    DICTS,
    MAX_DEPTH,
    MAX_MEMO,
    MAX_NAME_BYTES,
    MAX_VALUE_BYTES,
    TEXTUAL,
    Name,
    Refused,
    Rules,
    expect,
    interpret,
)


class Record:
    """What `made.record` builds of its arguments; BUILD gives it a state."""

    def __init__(self, arguments):
        self.arguments, self.state = arguments, None


def encoded(arguments):
    """What _codecs.encode and bytes give, as Python 3 writes bytes before protocol 3."""
    if arguments[1:] not in ((), ("latin1",)):
        raise Refused("another encoding")
    return expect(arguments[0], str, what="text").encode("latin-1") if arguments else b""


ALL = BINARY | TEXTUAL | BYTES | DICTS | {"BINFLOAT"}
NAMES = {
    "_codecs.encode": encoded,
    "__builtin__.bytes": encoded,
    "made.record": Record,
    "made.dict": lambda _: {},
    "made.constant": None,
}


def give_state(target, state):
    expect(target, Record, what="a record").state = state


RULES = Rules("test", ALL, NAMES, give_state)
LATIN = Rules("test", ALL, NAMES, give_state, text=True)


def run(program: bytes, rules: Rules = RULES):
    return interpret(io.BytesIO(program), rules)


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.binary(max_size=300)
    | st.floats(allow_nan=False)
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=4)
    ),
    max_leaves=25,
)


@given(VALUES, st.integers(1, 5))
@settings(max_examples=300, deadline=None)
def test_what_python_wrote_is_what_python_would_read(value, protocol):
    program = pickle.dumps(value, protocol)
    assert run(program) == pickle.loads(program) == value


@given(st.lists(LEAVES.filter(lambda leaf: not isinstance(leaf, float)), max_size=9))
@settings(max_examples=100, deadline=None)
def test_protocol_0_too(values):
    assert run(pickle.dumps((values, tuple(values)), 0)) == (values, tuple(values))


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_strings_of_python_2_are_bytes_or_latin_text(content):
    """Its repr of a string is that of bytes, without the b."""
    programs = [b"S" + repr(content)[1:].encode() + b"\n."]
    programs += [b"T" + len(content).to_bytes(4, "little") + content + b"."]
    programs += [b"U" + bytes([len(content)]) + content + b"."]
    for program in programs:
        assert run(program) == content
        assert run(program, LATIN) == content.decode("latin-1")


@pytest.mark.parametrize(
    "line",
    [r"abc", r"'", r"", r"'abc", r"abc'", r""""abc'""", r"'\q'", r"'\x4'", r"'\\\'", r"'\1'"],
)
def test_strings_that_no_python_wrote_are_refused(line):
    with pytest.raises(Refused, match="string|damaged"):
        run(b"S" + line.encode() + b"\n.")


def test_programs_are_read_one_after_the_other():
    stream = io.BytesIO(pickle.dumps([1, "a"], 2) + pickle.dumps({"b": 2}, 4) + b"rest")
    assert interpret(stream, RULES) == [1, "a"]
    assert interpret(stream, RULES) == {"b": 2}
    assert stream.read() == b"rest"


def test_names_are_records_calls_go_to_the_table_and_build_gives_a_state():
    made = run(b"cmade\nrecord\nq\x00(K\x01h\x00cmade\nconstant\ntRq\x07(K\x05tbh\x07\x86.")
    assert isinstance(made[0], Record)
    assert made[0] is made[1]
    assert made[0].arguments == (1, Name("made.record"), Name("made.constant"))
    assert made[0].state == (5,)
    assert run(b"cmade\ndict\n)RX\x01\x00\x00\x00aK\x01s.") == {"a": 1}
    assert run(b"\x8c\x04made\x8c\x08constant\x93.") == Name("made.constant")


def test_a_persistent_record_is_what_the_rules_make_of_it():
    program = b"(K\x01K\x02tQ."
    with_it = Rules("test", ALL | {"BINPERSID"}, {}, give_state, lambda parts: list(parts))
    assert run(program, with_it) == [1, 2]
    with pytest.raises(Refused, match="lies elsewhere"):
        run(program, Rules("test", ALL | {"BINPERSID"}, {}, give_state))


def test_expect_names_what_came():
    assert expect(3, int, what="a number") == 3
    with pytest.raises(Refused, match="^list in place of a number$"):
        expect([], int, what="a number")


BAD = {
    "cut short": (b"", "cut short"),
    "no stop": (b"]", "cut short"),
    "text cut short": (b"X\x05\x00\x00\x00ab", "cut short"),
    "a count of 2 GiB": (b"B\xff\xff\xff\x7f.", "cut short"),
    "a count of 9 EB": (b"\x8e" + b"\xff" * 7 + b"\x7f.", "cut short"),
    "a count of 18 EB": (b"\x8e" + b"\xff" * 8 + b".", "damaged"),
    "a line without end": (b"I12", "cut short or longer"),
    "an opcode that is none": (b"\xf0.", r"the byte b'\xf0' in place of a pickle opcode"),
    "a new object": (b"cmade\nrecord\n)\x81.", "the pickle opcode NEWOBJ, which no test needs"),
    "an instance": (b"(imade\nrecord\n.", "opcode INST, which no test needs"),
    "an extension": (b"\x82\x01.", "opcode EXT1, which no test needs"),
    "a buffer elsewhere": (b"\x97.", "opcode NEXT_BUFFER, which no test needs"),
    "a foreign name": (b"cos\nsystem\n.", "a call of os.system, which is refused"),
    "a foreign name on the stack": (b"\x8c\x02os\x8c\x06system\x93.", "a call of os.system"),
    "a name for a terminal": (b"c\x1b[2J\nx\n.", r"a call of '\\x1b\[2J.x', which is refused"),
    "a name that is a list": (b"]\x8c\x06system\x93.", "list in place of a name"),
    "a name without end": (b"c" + b"a" * 2000 + b"\n.", f"longer than {MAX_NAME_BYTES:,} bytes"),
    "a long name on the stack": (
        b"X\xff\xff\x00\x00" + b"a" * 65535 + b"\x8c\x01b\x93.",
        f"a name longer than {MAX_NAME_BYTES:,}",
    ),
    "a constant called": (b"cmade\nconstant\n)R.", "an unusual call of made.constant"),
    "a number called": (b"K\x01)R.", "int in place of a constructor's name"),
    "arguments in a list": (b"cmade\nrecord\n]R.", "list in place of a constructor's arguments"),
    "an unknown memo": (b"h\x07.", "damaged"),
    "a memo far away": (b"]r\xff\xff\xff\xff.", f"a memo of more than {MAX_MEMO:,} values"),
    "a memo before the first": (b"]p-1\n.", "a memo of more than"),
    "an endless number": (b"I" + b"9" * 5000 + b"\n.", "damaged"),
    "values below a mark": (b"](\x85.", "runs out of values"),
    "an append below a mark": (b"](K\x01a.", "runs out of values"),
    "a list as key": (b"}]K\x01s.", "neither text nor a number"),
    "marks": (b"(" * 5000 + b"t" * 5000 + b".", f"nested more than {MAX_DEPTH} deep"),
    "marks without a use": (b"(" * 100 + b"N.", f"nested more than {MAX_DEPTH} deep"),
    "tuples": (b")" + b"\x85" * 5000 + b".", f"nested more than {MAX_DEPTH} deep"),
    "lists": (b"]" * 5000 + b"a" * 4999 + b".", f"nested more than {MAX_DEPTH} deep"),
    "dictionaries": (b"}K\x01" * 100 + b"}" + b"s" * 100 + b".", f"more than {MAX_DEPTH} deep"),
    "a list in itself": (b"]q\x00h\x00a.", "a list that holds itself"),
    "a list in its tuple": (b"]q\x00h\x00\x85a.", "a list that holds itself"),
    "a dictionary in itself": (b"}q\x00K\x01h\x00s.", "a dictionary that holds itself"),
    "a list that grows after use": (b"]q\x00\x85h\x00K\x01a\x86.", "grows after its use"),
}


@pytest.mark.parametrize("program, told", BAD.values(), ids=BAD.keys())
def test_what_is_against_the_rules_is_refused(program, told):
    with pytest.raises(Refused, match=re.escape(told) if "byte b" in told else told):
        run(program)
    with pytest.raises(Refused):
        run(b"\x80\x02K\x01" + program)


def test_nesting_is_allowed_up_to_the_bound():
    for depth, allowed in ((MAX_DEPTH - 1, True), (MAX_DEPTH, False)):
        for program in (b")" + b"\x85" * depth + b".", b"]" * (depth + 1) + b"a" * depth + b"."):
            if allowed:
                assert str(run(program)).count("(") + str(run(program)).count("[") == MAX_DEPTH
            else:
                with pytest.raises(Refused, match="deep"):
                    run(program)


def test_a_memo_bomb_stays_small():
    """Sixty lists that each hold the one before twice: 2**60 leaves, but only sixty lists."""
    program = b"]q\x00" + b"".join(
        b"](h%bh%be" % (bytes([n]), bytes([n])) + b"q" + bytes([n + 1]) for n in range(60)
    )
    value = run(program + b".")
    for _ in range(60):
        assert value[0] is value[1]
        value = value[0]
    assert value == []


def test_memory_is_bounded_by_what_the_file_holds():
    text = b"X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20) + b"q\x01"
    call = b"c_codecs\nencode\nq\x00h\x01\x8c\x06latin1\x86q\x02R"
    again = b"h\x00h\x02R"
    assert run(text + call + again * 9 + b".") == b"a" * (1 << 20)
    with pytest.raises(Refused, match="builds many times what the file holds"):
        run(text + call + again * 100 + b".")
    for many in (b"]", b"}", b"K\x01\x85", b"h\x00\x94", b"h\x00h\x01R"):
        with pytest.raises(Refused, match="builds many times what the file holds"):
            run(b"cmade\nrecord\nq\x00)q\x01" + many * 450_000 + b".")


def test_one_value_is_bounded(tmp_path):
    path = tmp_path / "large"
    count = MAX_VALUE_BYTES + 1
    with path.open("wb") as file:
        file.write(b"B" + count.to_bytes(4, "little"))
        file.truncate(count + 100)
    with path.open("rb") as file, pytest.raises(Refused, match=f"a value of {count:,} bytes"):
        interpret(file, RULES)


class Command:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, function, marker):
        self.function, self.marker = function, marker

    def __reduce__(self):
        if self.function is os.system:
            return os.system, (f"touch {self.marker}",)
        return eval, (f"open({str(self.marker)!r}, 'w')",)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [os.system, eval], ids=["os.system", "eval"])
def test_a_call_in_a_program_is_named_and_never_made(tmp_path, protocol, function):
    marker = tmp_path / "ran"
    command = Command(function, marker)
    for value in (command, [command], ([b"a", command], {"a": command})):
        with pytest.raises(Refused, match=r"a call of \S+\.(system|eval), which is refused"):
            run(pickle.dumps(value, protocol))
    assert not marker.exists()
    if protocol == 2 and function is eval:  # the file would have come, had it been run
        pickle.loads(pickle.dumps(command, protocol)).close()
        assert marker.exists()


def test_damaged_programs_are_read_or_refused_and_nothing_else(tmp_path):
    marker = tmp_path / "ran"
    value = ([b"\xff\xd8" * 20, "text", (1, True), {"a": 3}], [Command(eval, marker)])
    programs = [pickle.dumps(part, n) for part in (value, value[0]) for n in range(6)]
    chance = random.Random(5)
    refused = 0
    for _ in range(4000):
        damaged = bytearray(chance.choice(programs))
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        del damaged[chance.choice([len(damaged), chance.randrange(len(damaged))]) :]
        try:
            run(bytes(damaged))
        except Refused:
            refused += 1
    assert 2000 < refused < 4000
    assert not marker.exists()


def test_there_is_one_interpreter_and_no_pickle_in_the_package():
    imports = {}
    for path in Path(facenet.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                imports.setdefault(name.split(".")[0], set()).add(path.name)
    assert imports["pickletools"] == {"pickles.py"}
    assert not {"pickle", "_pickle", "cPickle", "shelve", "marshal", "dill"} & set(imports)
