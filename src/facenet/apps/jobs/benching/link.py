"""A system that is measured in a process of its own, and what becomes of one that fails.

The process runs `worker` (other systems, in their own Python) or `ours`. Whatever it does, ending,
hanging or printing something else than an answer, becomes a sentence and never an exception: a
measurement of facenet does not fail because a peer does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from facenet.apps.jobs.peers import worker

OURS = "facenet"
"""The name of ourselves among the systems."""
PLAIN = "a plain loop"
"""A second process of ours that trains as tutorials do."""
PATIENCE = 1800.0
"""Seconds after which a system that does not answer counts as hung."""
LONGEST = 1 << 20
"""Characters of a line at most."""
OURS_COMMAND = (sys.executable, "-P", "-m", "facenet.apps.jobs.benching.ours")
"""What measures facenet, without the number of threads."""

Answer = Mapping[str, Any]


class System(Protocol):
    """Something that is measured. An answer that holds `missing` says why there is no other."""

    def ask(self, request: Mapping[str, Any]) -> Answer:
        """Send a request of `worker`, wait for the answer."""
        ...

    def close(self) -> None:
        """End it."""
        ...


Opening = Callable[[str, int], System]
"""From the name of a system and a number of threads to the system."""


def peer_command(name: str, python: str) -> tuple[str, ...]:
    """What runs a peer, without the number of threads. python: its interpreter."""
    return (python, "-W", "ignore", str(Path(worker.__file__).resolve()), name)


class Link:
    """A process that answers requests, a line of JSON each.

    name: for messages. command: the process. threads: how many it may keep busy.
    patience: seconds it has for an answer.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, threads: int = 1, patience: float = PATIENCE
    ) -> None:
        self._name, self._patience = name, patience
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._end = ""
        self._process: subprocess.Popen[str] | None = None
        try:
            self._process = subprocess.Popen(
                [*command, str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self._said, encoding="utf-8", errors="replace",
                env=_environment(command[0], threads),
            )  # fmt: skip
        except OSError as error:
            self._end = f"{name} could not be started: {error.strerror or error}."
            return
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def ask(self, request: Mapping[str, Any]) -> Answer:
        """The answer; `missing` with a sentence from then on when there is no proper one."""
        process = self._process
        if self._end or process is None or process.stdin is None:
            return {"missing": self._end}
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except OSError:
            return self._failed(self._ending())
        try:
            line = self._lines.get(timeout=self._patience)
        except Empty:
            return self._failed(f"{self._name} gave no answer within {self._patience:g} seconds.")
        return self._understood(line) if line else self._failed(self._ending())

    def close(self) -> None:
        """End the process."""
        self._end = self._end or f"{self._name} was ended."
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                try:
                    pipe.close()  # type: ignore[union-attr]
                except OSError:  # what was not yet written
                    continue
        self._said.close()

    def _read(self, process: subprocess.Popen[str]) -> None:
        """Lines as they come; "" at the end, or where one is too long."""
        line = "?"
        while line and process.stdout is not None:
            try:
                line = process.stdout.readline(LONGEST)
            except (OSError, ValueError):  # closed meanwhile
                line = ""
            self._lines.put(line)

    def _understood(self, line: str) -> Answer:
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict) and _proper(answer):
            return answer
        shown = " ".join(line.split())[:80]
        return self._failed(
            f'{self._name} should answer with a line of JSON; it printed "{shown}". Is the '
            "Python that was given one?"
        )

    def _failed(self, why: str) -> Answer:
        self._end = why
        return {"missing": why}

    def _ending(self) -> str:
        """How the process ended, with the last line that it said."""
        process = self._process
        assert process is not None
        try:
            code: int | str = process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            code = "its pipes closed"
        self._said.seek(0)
        last = (self._said.read(LONGEST).strip().splitlines() or [""])[-1]
        said = f": {' '.join(last.split())[:200]}" if last else ""
        return f"{self._name} ended with {code} while it was measured{said}."


def _environment(python: str, threads: int) -> dict[str, str]:
    """That of this process, with what is told to libraries that compute; another Python looks
    for its modules in its own places."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if python == sys.executable:
        kept["PYTHONPATH"] = os.pathsep.join(place for place in sys.path if place)
    return {**kept, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def _proper(answer: Mapping[str, Any]) -> bool:
    """Whether an answer is one of those of `worker`."""
    if "missing" in answer:
        return isinstance(answer["missing"], str)
    if "ready" in answer:
        return isinstance(answer["ready"], dict)
    numbers = [answer.get("seconds"), answer.get("items")]
    return all(isinstance(n, int | float) and 0 <= n < 1e12 for n in numbers)
