"""The crash harness on a small scale, and that it can fail: `scripts/crash` does the rest."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from crashing.disk import SECTOR, Disk, Event, File
from crashing.ledger import Change, Ledger, Verdict

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "crash"
compiled = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None,
    reason="simulated power cuts need Linux and a C compiler (apt-get install gcc libc6-dev)",
)
forked = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL and no fork")


def said(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What `scripts/crash` came to."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )


def crash(*arguments: str) -> tuple[int, str, list[int]]:
    """Exit code, last line, and the numbers in it."""
    answer = said(*arguments)
    last = answer.stdout.splitlines()[-1]
    return answer.returncode, last, [int(number) for number in re.findall(r"\d+", last)]


@forked
def test_killed_programs_lose_nothing_and_leave_nothing_of_the_deleted() -> None:
    answer = said("--kills", "40", "--seed", "1")
    *_, erased, _, line = answer.stdout.splitlines()
    assert (answer.returncode, line) == (0, "40 kills: 0 lost, 0 phantom, 0 repairs")
    looked_after, left = re.fullmatch(
        r"(\d+) deletions looked after: (\d+) left bytes", erased
    ).groups()  # type: ignore[union-attr]
    assert int(looked_after) >= 8
    assert left == "0"


@forked
def test_broken_programs_and_stores_are_found_out() -> None:
    answer = said("--kills", "90", "--negative-control")
    *_, erased, _, line = answer.stdout.splitlines()
    kills, lost, phantom, _ = (int(number) for number in re.findall(r"\d+", line))
    assert answer.returncode == 1
    assert re.fullmatch(r"90 kills: \d+ lost, \d+ phantom, \d+ repairs", line)
    assert re.fullmatch(r"\d+ deletions looked after: [1-9]\d* left bytes", erased)
    assert kills == 90
    assert lost > 0
    assert phantom > 0


@compiled
def test_power_cuts_lose_nothing() -> None:
    code, line, _ = crash("--cuts", "40", "--seed", "1")
    assert (code, line) == (0, "40 cuts: 0 lost, 0 phantom, 0 repairs")


@compiled
def test_a_store_that_does_not_sync_is_found_out() -> None:
    code, _, (cuts, lost, _, repairs) = crash("--cuts", "80", "--negative-control")
    assert (code, cuts) == (1, 80)
    assert lost > 0
    assert repairs > 0


def test_the_ledger_knows_lost_phantom_and_half_changes() -> None:
    ledger = Ledger([{"a": "1"}])
    lines = [
        b'{"begin": 1, "put": {"b": "2"}, "gone": ["a"], "new": []}\n',
        b'{"ack": 1}\n',
        b'{"begin": 2, "put": {"c": "3", "d": "4"}, "gone": [], "new": []}\n',
        b'{"begin": 3, "put": {"z',
    ]
    assert ledger.read(lines) == 1
    assert ledger.judge({"b": "2"}) == Verdict((), ())
    assert ledger.judge({"b": "2", "c": "3", "d": "4"}) == Verdict((), ())
    assert ledger.judge({"a": "1", "b": "2"}).phantom == ("a",)
    assert ledger.judge({}).lost == ("b",)
    assert len(ledger.judge({"b": "2", "c": "3"})) == 1
    assert ledger.judge({"b": "5"}) == Verdict(("b",), ("b",))
    ledger.interrupted()
    ledger.read([b'{"begin": 1, "put": {"e": "5"}, "gone": [], "new": []}\n'])
    assert ledger.judge({"b": "2", "c": "3", "d": "4", "e": "5"}) == Verdict((), ())
    assert ledger.judge({"b": "2", "e": "5"}) == Verdict((), ())
    ledger.settle({"b": "2"})
    assert ledger.judge({"b": "2", "e": "5"}).phantom == ("e",)


def test_a_number_that_is_given_out_twice_is_a_phantom() -> None:
    ledger = Ledger([{}])
    ledger.read([
        b'{"begin": 1, "put": {"face:7": "x"}, "gone": [], "new": [7]}\n',
        b'{"ack": 1}\n',
        b'{"begin": 2, "put": {}, "gone": ["face:7"], "new": []}\n',
        b'{"ack": 2}\n',
        b'{"begin": 3, "put": {"face:7": "y"}, "gone": [], "new": [7]}\n',
    ])  # fmt: skip
    assert ledger.judge({}).phantom == ("number 7 given out twice",)
    assert Change({"k": "v"}, ("o",)).after({"o": "w"}) == {"k": "v"}


def test_a_cut_keeps_what_was_synced_and_any_part_of_the_rest(tmp_path: Path) -> None:
    old, new = b"o" * 4 * SECTOR, b"n" * 4 * SECTOR
    file = File()
    file.since.append((0, old))
    file.sync()
    file.since.append((0, new))
    random = np.random.default_rng(0)
    images = {bytes(file.after_cut(random, 0.3, 0.4)) for _ in range(200)}
    assert {old, new} < images
    for image in images:
        sectors = {image[start : start + SECTOR] for start in range(0, len(image), SECTOR)}
        assert sectors <= {b"o" * SECTOR, b"n" * SECTOR}
    assert len(images) > 10

    disk = Disk()
    for event in (
        Event("c", 1, 0, b"a", ""),
        Event("w", 1, 0, b"data", ""),
        Event("s", 1, 0, b"", ""),
    ):
        disk.take(event)
    seen = set()
    for number in range(30):
        (tmp_path / str(number)).mkdir()
        disk.cut(tmp_path / str(number), random)
        seen.add((tmp_path / str(number) / "a").exists())
    assert seen == {True, False}  # its folder was not synced
    disk.take(Event("d", 9, 0, b"", ""))
    disk.take(Event("r", 0, 0, b"a", "b"))
    disk.cut(tmp_path, random)
    kept = [path for path in (tmp_path / "a", tmp_path / "b") if path.exists()]
    assert [path.read_bytes() for path in kept] == [b"data"]


def test_histories_are_played_and_a_store_that_loses_names_is_found_out() -> None:
    answer = said("--histories", "15", "--seed", "2")
    assert answer.returncode == 0
    assert re.fullmatch(
        r"15 histories: \d+ corrections, \d+ undone, \d+ refused, 0 wrong\n", answer.stdout
    )
    broken = said("--histories", "60", "--negative-control")
    assert broken.returncode == 1
    assert "gave something else back" in broken.stderr
