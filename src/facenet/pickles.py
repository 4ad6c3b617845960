"""Pickle programs, interpreted without ``pickle``: nothing is imported, called or run.

The stack machine below runs a program opcode by opcode (``pickletools`` knows their arguments).
A reader of files gives it `Rules`: the opcodes and the names its files need, and a function of
its own for each name that may be called. All else is refused, and so is a program that is too
long, takes too much memory, nests too deeply or holds itself.
Source: ``pickletools`` and PEP 307, 3154 and 574 (opcodes); ``pickle`` of Python 2 (strings).
"""

from __future__ import annotations

import codecs
import io
import pickletools
import re
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final, TypeVar

MAX_OPCODES: Final = 4_000_000
"""Longest program that is interpreted, in opcodes."""
MAX_MEMO: Final = 1 << 21
"""Values a program may remember, and one more than the highest number it may give them."""
MAX_NAME_BYTES: Final = 1024
"""Longest module or attribute name that is read, in bytes."""
MAX_VALUE_BYTES: Final = 64 << 20
"""Longest run of bytes or text that is read, in bytes of the file."""
MAX_DEPTH: Final = 64
"""Deepest nesting of lists, tuples and dictionaries."""
MEMORY_FREE: Final = 64 << 20
MEMORY_TIMES: Final = 4
"""What is built may take MEMORY_FREE bytes, and as many times the length of the stream."""

BINARY: Final = frozenset(
    {"PROTO", "FRAME", "STOP", "MARK", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"}
    | {"NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"}
    | {"BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE"}
    | {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS"}
    | {"BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"}
)
"""Opcodes of protocols 1 to 5: numbers, strings, tuples, lists, calls and the memo."""
TEXTUAL: Final = frozenset({"INT", "LONG", "STRING", "UNICODE", "LIST", "PUT", "GET"})
"""What protocol 0 has in their place."""
BYTES: Final = frozenset({"SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"})
"""The bytes of protocols 3 to 5; all come as ``bytes``."""
DICTS: Final = frozenset({"EMPTY_DICT", "SETITEM", "SETITEMS"})
"""Dictionaries, whose keys may be text and whole numbers."""

_OPCODES: Final = {info.code: info for info in pickletools.opcodes}
_BAD_ESCAPE: Final = re.compile(rb"\\(?!x[0-9a-fA-F]{2}|['\"abfnrtv])")
_SHORT: Final = 256
"""Bytes and text up to this length are not counted against the memory."""
_OBJECT_BYTES: Final = 200
"""What a container, a record or a remembered value counts, with what is kept about it."""
_T = TypeVar("_T")


class Refused(Exception):
    """What a program holds and may not, as a phrase: whoever reads the file words the error."""


@dataclass(frozen=True, slots=True)
class Name:
    """A global the program asked for, "module.name"; a record only, nothing is imported."""

    name: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What the programs of one kind of file may do.

    kind: what the file holds, in a message. opcodes: the names of those that are run. names: each
    global that may be asked for, and the function that turns its arguments into a record or a new
    empty container, or None where it is never called. build: given a value and its state, what
    BUILD means. persistent: what BINPERSID means, if it is one of `opcodes`. text: a string of
    Python 2 comes as Latin-1 text, not as bytes. The functions raise `Refused`.
    """

    kind: str
    opcodes: frozenset[str]
    names: Mapping[str, Callable[[tuple[Any, ...]], Any] | None]
    build: Callable[[Any, Any], object]
    persistent: Callable[[Any], Any] | None = None
    text: bool = False


def interpret(stream: IO[bytes], rules: Rules) -> Any:
    """The value a program leaves: lists, tuples, dictionaries, numbers, text, bytes, records.

    stream: a file that can seek; it is left behind the program's STOP. A value may be in several
    places of what is returned, but never inside itself.
    Raises Refused for a program that is damaged, cut short or against the rules.
    """
    return _Machine(_Source(stream), rules).run()


def expect(value: object, kind: type[_T], *, what: str) -> _T:
    """``value`` itself where it is a ``kind``; Refused naming ``what`` otherwise."""
    if not isinstance(value, kind):
        raise Refused(f"{type(value).__name__.strip('_').lower()} in place of {what}")
    return value


class _Source:
    """A stream that is never asked for more bytes than it has or a value may have."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        start = stream.tell()
        self.size = self._left = stream.seek(0, io.SEEK_END) - start
        stream.seek(start)

    def read(self, count: int) -> bytes:
        if count > self._left:
            raise Refused("a pickle program that is cut short")
        if count > MAX_VALUE_BYTES:
            raise Refused(f"a value of {count:,} bytes, more than the {MAX_VALUE_BYTES:,} allowed")
        self._left -= count
        return self._stream.read(count)

    def readline(self, limit: int = MAX_VALUE_BYTES) -> bytes:
        line = self._stream.readline(limit)
        self._left -= len(line)
        if not line.endswith(b"\n"):
            raise Refused(f"a line that is cut short or longer than {limit:,} bytes")
        return line


class _Machine:
    """Interprets one program."""

    def __init__(self, source: _Source, rules: Rules) -> None:
        self._source, self._rules = source, rules
        self._steps = {
            code.encode("latin-1"): (_reader(opcode), _ACTIONS[opcode.name])
            for code, opcode in _OPCODES.items()
            if opcode.name in rules.opcodes
        }
        self._room = MEMORY_TIMES * source.size + MEMORY_FREE
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._levels: dict[int, int] = {}
        self._used: set[int] = set()

    def run(self) -> Any:
        try:
            for _ in range(MAX_OPCODES):
                if self._step():
                    return self._pop()
        except (ValueError, IndexError, KeyError, struct.error) as error:
            raise Refused("a damaged or foreign pickle program") from error
        raise Refused(f"a program of more than {MAX_OPCODES} opcodes")

    def _step(self) -> bool:
        """Run the next opcode; True where it ends the program."""
        code = self._source.read(1)
        step = self._steps.get(code)
        if step is None:
            raise self._unknown(code)
        read, act = step
        act(self, read(self._source) if read else None)
        return code == b"."

    def _unknown(self, code: bytes) -> Refused:
        opcode = _OPCODES.get(code.decode("latin-1"))
        if opcode is None:
            return Refused(f"the byte {code!r} in place of a pickle opcode")
        return Refused(f"the pickle opcode {opcode.name}, which no {self._rules.kind} needs")

    # ---- the stack

    def push(self, value: Any) -> None:
        """Push what was not there before."""
        if isinstance(value, bytes | str) and len(value) > _SHORT:
            self._count(sys.getsizeof(value))
        self._stack.append(value)

    def _count(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise Refused("a program that builds many times what the file holds")

    def old_string(self, text: str) -> None:
        """Push a string of Python 2, which ``pickletools`` reads as Latin-1."""
        self.push(text if self._rules.text else text.encode("latin-1"))

    def _pop(self) -> Any:
        self._reachable()
        return self._stack.pop()

    def _top(self) -> Any:
        self._reachable()
        return self._stack[-1]

    def _reachable(self) -> None:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise Refused("a pickle program that runs out of values")

    def _pop_many(self, count: int) -> list[Any]:
        return [self._pop() for _ in range(count)][::-1]

    def _pop_marked(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def mark(self, _: Any) -> None:
        if len(self._marks) >= MAX_DEPTH:
            raise Refused(f"values nested more than {MAX_DEPTH} deep")
        self._marks.append(len(self._stack))

    # ---- containers: a used one does not grow, so that nothing can hold itself

    def contain(self, new: Any, items: Iterable[Any] = ()) -> None:
        """Push a new container that holds these items."""
        self._count(_OBJECT_BYTES)
        self._levels[id(new)] = self._level(items)
        self._used.discard(id(new))
        self._stack.append(new)

    def _level(self, items: Iterable[Any]) -> int:
        """The level of what holds the items, which are used from now on."""
        level = 1
        for item in items:
            if isinstance(item, list | tuple | dict):
                self._used.add(id(item))
                level = max(level, 1 + self._levels[id(item)])
        if level > MAX_DEPTH:
            raise Refused(f"values nested more than {MAX_DEPTH} deep")
        return level

    def _grow(self, kind: type[_T], items: list[Any], *, what: str) -> _T:
        """The container on top, which is about to hold the items too."""
        target = expect(self._top(), kind, what=what)
        level = self._level(items)
        if id(target) in self._used:
            raise Refused(f"{what} that holds itself or grows after its use")
        self._levels[id(target)] = max(level, self._levels[id(target)])
        return target

    def extend(self, items: list[Any]) -> None:
        self._grow(list, items, what="a list").extend(items)

    def set_pairs(self, flat: list[Any]) -> None:
        target = self._grow(dict, flat, what="a dictionary")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            if type(key) not in (str, int):
                raise Refused("a dictionary key that is neither text nor a number")
            target[key] = value

    def tuple_of(self, items: list[Any]) -> None:
        self.contain(tuple(items), items)

    def list_of(self, items: list[Any]) -> None:
        self.contain(items, items)

    # ---- names and calls

    def stack_global(self, _: Any) -> None:
        parts = [expect(part, str, what="a name") for part in self._pop_many(2)]
        if sum(map(len, parts)) > MAX_NAME_BYTES:
            raise Refused(f"a name longer than {MAX_NAME_BYTES:,} characters")
        self.name(".".join(parts))

    def name(self, name: str) -> None:
        if name not in self._rules.names:
            shown = name[:120] if name.isprintable() else repr(name[:120])
            raise Refused(f"a call of {shown}, which is refused")
        self._stack.append(Name(name))

    def reduce(self, _: Any) -> None:
        function, arguments = self._pop_many(2)
        name = expect(function, Name, what="a constructor's name").name
        make = self._rules.names[name]
        if make is None:
            raise Refused(f"an unusual call of {name}")
        made = make(expect(arguments, tuple, what="a constructor's arguments"))
        self._count(_OBJECT_BYTES)
        if isinstance(made, list | dict):
            self.contain(made)
        else:
            self.push(made)

    def build(self, _: Any) -> None:
        state = self._pop()
        self._rules.build(self._top(), state)

    def persistent(self, _: Any) -> None:
        if self._rules.persistent is None:
            raise Refused("a record that lies elsewhere")
        self.push(self._rules.persistent(self._pop()))

    # ---- the memo

    def put(self, index: int) -> None:
        if not 0 <= index < MAX_MEMO:
            raise Refused(f"a memo of more than {MAX_MEMO:,} values")
        self._count(_OBJECT_BYTES)
        self._memo[index] = self._top()

    def get(self, index: int) -> None:
        self._stack.append(self._memo[index])


def _name_lines(source: _Source) -> str:
    """The two lines of a GLOBAL."""
    lines = [source.readline(MAX_NAME_BYTES)[:-1].decode("ascii") for _ in range(2)]
    return ".".join(lines)


def _quoted(source: _Source) -> str:
    """The line of a STRING, the ``repr`` of a string of Python 2, as Latin-1 text."""
    line = source.readline().rstrip()
    quote, content = line[:1], line[1:-1]
    if len(line) < 2 or quote not in (b"'", b'"') or line[-1:] != quote:
        raise Refused("a string without quotes")
    if _BAD_ESCAPE.search(content.replace(rb"\\", b"__")):
        raise Refused("a string with an unknown escape")
    return codecs.escape_decode(content)[0].decode("latin-1")


def _reader(opcode: pickletools.OpcodeInfo) -> Callable[[_Source], Any] | None:
    """What reads the argument of an opcode: ``pickletools``, but where that reads only ASCII."""
    if opcode.name in ("GLOBAL", "STRING"):
        return _name_lines if opcode.name == "GLOBAL" else _quoted
    reader: Callable[[Any], Any] | None = None if opcode.arg is None else opcode.arg.reader
    return reader


_ACTIONS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(
        ("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
        + ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE")
        + ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
        _Machine.push,
    ),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _Machine.old_string),
    "BYTEARRAY8": lambda machine, content: machine.push(bytes(content)),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": _Machine.mark,
    "EMPTY_TUPLE": lambda machine, _: machine.tuple_of([]),
    "TUPLE": lambda machine, _: machine.tuple_of(machine._pop_marked()),
    "TUPLE1": lambda machine, _: machine.tuple_of(machine._pop_many(1)),
    "TUPLE2": lambda machine, _: machine.tuple_of(machine._pop_many(2)),
    "TUPLE3": lambda machine, _: machine.tuple_of(machine._pop_many(3)),
    "EMPTY_LIST": lambda machine, _: machine.contain([]),
    "EMPTY_DICT": lambda machine, _: machine.contain({}),
    "LIST": lambda machine, _: machine.list_of(machine._pop_marked()),
    "APPEND": lambda machine, _: machine.extend(machine._pop_many(1)),
    "APPENDS": lambda machine, _: machine.extend(machine._pop_marked()),
    "SETITEM": lambda machine, _: machine.set_pairs(machine._pop_many(2)),
    "SETITEMS": lambda machine, _: machine.set_pairs(machine._pop_marked()),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": lambda machine, _: machine.put(len(machine._memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
}
