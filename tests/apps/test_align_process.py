"""Aligning with several processes: Ctrl-C, a kill and a dead worker leave nothing that hurts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shell import process, tree

SMALL = ("--size", "64", "--margin", "8")


@pytest.fixture(scope="module")
def many(examples, tmp_path_factory):
    """Forty pictures of five people."""
    root = tmp_path_factory.mktemp("many") / "in"
    for number in range(40):
        folder = root / f"person {number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(examples / "photos/hopper-rendition.jpg", folder / f"{number:02d}.jpg")
    return root


@pytest.fixture(scope="module")
def whole(many, tmp_path_factory):
    """What an uninterrupted run makes of them."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert process("align", many, out, *SMALL, "--workers", "1").code == 0
    return tree(out)


def start(many: Path, out: Path) -> subprocess.Popen:
    """An aligner with two workers in a session of its own, as a terminal would have it."""
    command = [sys.executable, "-m", "facenet", "align", many, out, *SMALL, "--workers", "2"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def wait_for(count: int, out: Path, child: subprocess.Popen) -> None:
    """Until so many crops are there."""
    while len(list(out.rglob("*.png"))) < count:
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)


def session(leader: int) -> list[str]:
    """Command lines of the processes of a session that are alive."""
    alive = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(") ", 1)[1].split()
            if int(fields[3]) == leader and fields[0] not in "ZX":
                alive.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:  # gone meanwhile
            continue
    return alive


def wait_for_the_end_of(leader: int) -> None:
    """Until no process of a session is left; a worker that stays hangs the test."""
    while session(leader):
        time.sleep(0.02)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_is_quiet_and_the_next_run_goes_on(times, many, whole, tmp_path):
    out = tmp_path / "out"
    child = start(many, out)
    wait_for(3, out, child)
    for _ in range(times):  # the terminal sends it to every process of the session
        os.killpg(child.pid, signal.SIGINT)
        time.sleep(0.05)
    printed, said = child.communicate()
    assert (child.returncode, printed, said) == (130, b"", b"facenet: stopped.\n")
    wait_for_the_end_of(child.pid)
    made = {name for name in tree(out) if name.endswith(".png")}
    assert 3 <= len(made) < 40
    assert not [name for name in tree(out) if name.endswith(".part")]
    ran = process("align", many, out, *SMALL, "--workers", "1", "--json")
    assert (ran.code, ran.json["skipped"]) == (0, len(made))
    assert tree(out) == whole


def test_a_kill_leaves_no_orphan_and_the_next_run_goes_on(many, whole, tmp_path):
    out = tmp_path / "out"
    child = start(many, out)
    wait_for(3, out, child)
    child.kill()
    child.communicate()
    wait_for_the_end_of(child.pid)
    assert len(tree(out)) < len(whole)
    with (out / "bounding_boxes.txt").open("ab") as file:
        file.write(b"person 0/00.png 1 2")  # as a torn write would leave it
    (out / "person 0/05.png.4711.part").write_bytes(b"half a crop")
    assert process("align", many, out, *SMALL, "--workers", "2").code == 0
    assert tree(out) == whole


def test_a_worker_that_dies_is_told_in_a_sentence(many, tmp_path):
    out = tmp_path / "out"
    child = start(many, out)
    wait_for(3, out, child)
    workers = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    spawned = [p for p in workers if "spawn_main" in Path(f"/proc/{p}/cmdline").read_text()]
    assert len(spawned) == 2
    os.kill(int(spawned[0]), signal.SIGKILL)
    printed, said = child.communicate()
    assert (child.returncode, printed) == (2, b"")
    assert said.startswith(b"facenet: A worker process was killed")
    assert said.count(b"\n") == 1
    wait_for_the_end_of(child.pid)
