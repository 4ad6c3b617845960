"""What happened in a training run: RUN/metrics.jsonl, a JSON object per line, and TensorBoard.

A line is written whole or not at all: one that a kill or a full disk cut is taken away again. JSON
has no NaN: such a value is null, and the key "not_finite" of its line says what it was.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from facenet.errors import DataError, InputError, MissingExtraError, StorageError
from facenet.files import written

METRICS = "metrics.jsonl"
"""Name of the file in the folder of a run."""
EVENTS = "tensorboard"
"""Folder of TensorBoard's files in the folder of a run."""
NOT_FINITE = "not_finite"
"""Key of a line that says which values were no numbers, and what: "nan", "inf" or "-inf"."""
MAX_LINE = 1_000_000
"""Most bytes of a line."""
MAX_STEP = 2**63
"""Steps are below this."""

Line = dict[str, Any]


class Journal:
    """The journal of the run in a folder; new lines go behind those that are there.

    A last line that was cut is removed. tensorboard: write the numbers for TensorBoard too, to
    `folder/tensorboard`. Raises MissingExtraError where tensorboard is asked for and not
    installed, StorageError where the folder cannot be written.
    """

    def __init__(self, folder: Path, tensorboard: bool = True) -> None:
        if tensorboard and find_spec("tensorboard") is None:
            raise MissingExtraError(
                "Training writes for TensorBoard, which is not installed. Install it with "
                '`pip install "facenet[train]"`, or train without it.'
            )
        self.path = folder / METRICS
        self._events = _Events(folder / EVENTS) if tensorboard else None
        self._file = self._opened()

    def step(
        self, step: int, *, epoch: float, loss: float, lr: float, images_per_s: float, **more: Any
    ) -> None:
        """Write down a step. lr: learning rate. more: other plain values by name.

        Raises StorageError when the disk is full; InputError for values that are not plain.
        """
        line = {"step": step, "epoch": epoch, "loss": loss, "lr": lr, "images_per_s": images_per_s}
        self._add({**line, **more}, "train")

    def validation(self, step: int, name: str, *, accuracy: float, **more: Any) -> None:
        """Write down a validation on the set of this name, the key "set". Raises as `step`."""
        self._add({"step": step, "set": name, "accuracy": accuracy, **more}, f"validation/{name}")

    def truncate_after(self, step: int) -> None:
        """Forget everything after this step, before training goes on from there.

        TensorBoard is told to forget it too. Raises StorageError, and DataError for a file that
        holds something else than lines of JSON.
        """
        self.close()
        kept = [data for data, line in _lines(self.path) if line["step"] <= step]
        with written(self.path) as file:
            file.writelines(line + b"\n" for line in kept)
        self._file = self._opened()
        if self._events is not None:
            self._events.purge_after = step

    def close(self) -> None:
        """Close the files. Nothing can be written afterwards."""
        self._file.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _opened(self) -> _EndOfFile:
        """The file, opened behind its last whole line."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = _EndOfFile(self.path)
            file.cut_torn_line()
            return file
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _add(self, values: Mapping[str, Any], tag: str) -> None:
        line = _line(values)
        data = (json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode(
            "utf-8", "backslashreplace"
        )
        if len(data) > MAX_LINE:
            raise InputError(
                f"A line of {METRICS} should have at most {MAX_LINE:,} bytes; this one has "
                f"{len(data):,}. Write lists to a file of their own."
            )
        try:
            self._file.write(data)
            if self._events is not None:
                self._events.add(int(line["step"]), tag, values)
        except OSError as error:
            raise _unwritable(self.path, error) from error


def read_metrics(path: Path) -> list[Line]:
    """The lines of a run's metrics.jsonl, in order, each with a whole number "step".

    None where the file is missing or empty; a last line that was cut is left out. Raises
    DataError with the number of a line that is something else.
    """
    return [line for _, line in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[bytes, Line]]:
    """The whole lines of a file, without their ends and parsed; nothing where there is none."""
    number = 0
    try:
        with path.open("rb") as file:
            while data := file.readline(MAX_LINE + 1):
                number += 1
                if data.endswith(b"\n"):
                    yield data[:-1], _parsed(data[:-1], path, number)
                elif len(data) > MAX_LINE:
                    raise DataError(
                        f"{path} should have lines of at most {MAX_LINE:,} bytes; one is longer. "
                        "It is no journal of a training run."
                    )
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}. Check the path.") from error


def _parsed(data: bytes, path: Path, number: int) -> Line:
    try:
        line = json.loads(data, parse_constant=_refuse)
        step = line.get("step") if isinstance(line, dict) else None
        if type(step) is int and 0 <= step < MAX_STEP:
            return dict(line)
    except (ValueError, RecursionError):
        pass
    raise DataError(
        f"Line {number} of {path} should be a JSON object with a step from 0 on; got "
        f"{data[:60].decode('utf-8', 'replace')!r}. Remove the line, or the file."
    )


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


def _line(values: Mapping[str, Any]) -> Line:
    """Values that JSON can hold; what was not finite under its own key."""
    if NOT_FINITE in values:
        raise InputError(
            f"The key {NOT_FINITE} of a line of {METRICS} is written by the journal itself. "
            "Choose another name."
        )
    lost: dict[str, str] = {}
    line = {name: _plain(value, name, lost) for name, value in values.items()}
    return {**line, NOT_FINITE: lost} if lost else line


def _plain(value: Any, where: str, lost: dict[str, str]) -> Any:
    if getattr(value, "ndim", None) == 0:
        value = value.item()  # a number of NumPy or torch
    if isinstance(value, float):
        if not math.isfinite(value):
            lost[where] = str(float(value))
            return None
        return float(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}", lost) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{row}]", lost) for row, item in enumerate(value)]
    raise InputError(
        f"A line of {METRICS} should hold plain values (numbers, texts, lists, records); "
        f"{where[:80]} is of the type {type(value).__name__}. Make a number or a text of it."
    )


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"Cannot write {str(path)[-300:]}: {error.strerror or error}. Free some space or choose "
        "another place, and go on with `facenet train --resume`."
    )


class _EndOfFile:
    """A file that grows at its end, by all of the data or by nothing."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b", buffering=0)

    def write(self, data: bytes) -> None:
        """Write all of the data, or raise OSError and leave the file as it was."""
        before = self._size()
        try:
            done = 0
            while done < len(data):
                done += self._file.write(data[done:]) or 0
        except OSError:
            with suppress(OSError):  # a device has no end to put back
                self._file.truncate(before)
            raise

    def cut_torn_line(self) -> None:
        """Remove what is behind the last line end, looked for from the end of the file."""
        size = end = self._size()
        while end > 0:
            begin = max(0, end - 65536)
            self._file.seek(begin)
            found = self._file.read(end - begin).rfind(b"\n")
            end = begin if found < 0 else begin + found + 1
            if found >= 0:
                break
        if end < size:
            self._file.truncate(end)

    def close(self) -> None:
        self._file.close()

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size


class _Events:
    """Files that TensorBoard reads: records of protocol buffers, by tensorboard's own classes.

    torch.utils.tensorboard writes the same ones from a thread of its own, whose failures appear
    as tracebacks; here a full disk is an OSError where the number is written.
    """

    def __init__(self, folder: Path) -> None:
        self.purge_after: int | None = None
        self._folder = folder
        self._records: Any = None

    def add(self, step: int, tag: str, values: Mapping[str, Any]) -> None:
        """Write the numbers among the values, each under `tag/name`."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        numbers = {
            name: float(value)
            for name, value in values.items()
            if name != "step" and not isinstance(value, bool) and _is_number(value)
        }
        place = tag.encode("utf-8", "replace").decode()
        found = [
            Summary.Value(tag=f"{place}/{name}", simple_value=numbers[name]) for name in numbers
        ]
        self._write(step=step, summary=Summary(value=found))

    def close(self) -> None:
        if self._records is not None:
            self._records.close()
            self._records = None

    def _write(self, **values: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        if self._records is None:
            self._records = self._opened()
            self._write(file_version="brain.Event:2")
            if self.purge_after is not None:
                start = SessionLog(status=SessionLog.START)
                self._write(step=self.purge_after + 1, session_log=start)
        self._records.write(Event(wall_time=time.time(), **values).SerializeToString())

    def _opened(self) -> Any:
        """A new file in the folder; its name begins with the time, by which they are ordered."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns():019d}.{socket.gethostname()}.{os.getpid()}"
        return RecordWriter(_EndOfFile(self._folder / name))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or getattr(value, "ndim", None) == 0
