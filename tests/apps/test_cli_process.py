"""The command as a process: start-up, pipes, signals, full disks, names that are no text."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from shell import blank, copy, process, refused, tree

import facenet

HEAVY = ("torch", "onnxruntime", "openvino", "onnx", "matplotlib", "sklearn", "cv2")
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"


def test_the_version_by_every_door():
    for command in (
        ["-m", "facenet", "--version"],
        ["-c", "import facenet; print(facenet.__version__)"],
    ):
        answer = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=True
        )
        assert (answer.stdout, answer.stderr) == (f"{facenet.__version__}\n", "")


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import facenet", (*HEAVY, "numpy", "typer", "rich", "json")),
        ("from facenet.apps.cli import main", (*HEAVY, "numpy", "typer")),
        ("from facenet.apps.cli.program import app", (*HEAVY, "numpy", "rich")),
        ("import facenet.recognizer", HEAVY),
    ],
)
def test_what_an_import_brings_along(statement, unwanted):
    code = f"{statement}; import sys; print([m for m in {unwanted} if m in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"


def test_help_brings_nothing_heavy_along():
    code = f"""import sys
from facenet.apps.cli import main
sys.argv = ["facenet", "--help"]
try:
    main()
except SystemExit as end:
    assert end.code == 0
print([m for m in {(*HEAVY, "numpy", "rich")} if m in sys.modules])"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.startswith("Usage: facenet ")
    assert answer.stdout.endswith("[]\n")


def test_quiet_where_nobody_watches(examples):
    """No progress, no log lines of a runtime: stdout has the answer and stderr nothing."""
    ran = process("identify", examples / "known", examples / "photos", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert len(ran.json) == 7


def test_progress_on_a_terminal_goes_to_stderr(examples):
    terminal, theirs = os.openpty()
    command = [sys.executable, "-m", "facenet", "detect", examples / "photos", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs) as child:
        os.close(theirs)
        shown = b"".join(iter(lambda: read_terminal(terminal), b"")).decode()
        assert len(json.load(child.stdout)) == 7
    os.close(terminal)
    assert child.returncode == 0
    assert "photos" in shown
    assert "/4" in shown


def read_terminal(terminal):
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the other side is closed
        return b""


def test_a_reader_who_leaves_early_is_no_error(examples):
    """More output than a pipe holds, read by nobody: no traceback, the code of SIGPIPE."""
    photos = [examples / "photos/hopper-rendition.jpg"] * 3
    code = "import sys; sys.argv[0] = 'facenet'; from facenet.apps.cli import main; main()"
    command = [sys.executable, "-c", code, "detect", *photos, "--json"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdout.close()
    said = child.stderr.read().decode()
    child.stderr.close()
    assert (child.wait(), said) == (141, "")


def test_answers_that_cannot_be_written(examples):
    if not os.path.exists("/dev/full"):
        pytest.fail("this test wants /dev/full")
    photo = examples / "photos/hopper-rendition.jpg"
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "facenet", "detect", str(photo)]
        child = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    said = "facenet: Cannot write the answer: No space left on device.\n"
    assert (child.returncode, child.stderr.decode()) == (2, said)


def test_a_full_disk_leaves_nothing_behind(examples, tmp_path):
    """A limit on the size of files stands for the disk."""
    photo = examples / "photos/hopper-rendition.jpg"
    kept = tmp_path / "kept.npz"
    kept.write_bytes(b"of an earlier day")
    for command in (
        ("embed", examples / "photos", "--out", kept),
        ("detect", photo, "--draw", tmp_path / "drawn"),
        ("align", photo.parent, tmp_path / "crops", "--workers", "1"),
    ):
        ran = process(*command, before=LIMITED)
        assert (ran.code, ran.out) == (2, "")
        assert ran.sentence.startswith("Cannot write ")
    assert kept.read_bytes() == b"of an earlier day"
    left = {name for name in tree(tmp_path) if not name.endswith((".json", ".txt"))}
    assert left == {"kept.npz"}


def test_align_goes_on_after_a_full_disk(examples, tmp_path):
    photos, crops, whole = examples / "photos", tmp_path / "crops", tmp_path / "whole"
    align = ("align", photos, "--workers", "1", "--size", "64", "--margin", "8")
    assert process(*align, crops, before=LIMITED).code == 2
    assert process(*align, crops).code == 0
    assert process(*align, whole).code == 0
    assert tree(crops) == tree(whole)


def test_names_that_are_no_text(examples, tmp_path):
    """A file name of bytes that are no UTF-8 is taken, and comes back the same."""
    raw = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(raw)
    photo = os.fsdecode(raw + b"/Ren\xe9.jpg")
    data = (examples / "photos/hopper-rendition.jpg").read_bytes()
    with open(photo, "wb") as file:
        file.write(data)
    ran = process("detect", photo, "--json", "--draw", tmp_path / "drawn")
    assert (ran.code, ran.err) == (0, "")
    assert os.fsencode(ran.json[0]["photo"]) == raw + b"/Ren\xe9.jpg"
    assert os.path.exists(os.fsencode(tmp_path / "drawn") + b"/Ren\xe9.jpg")

    ran = process("identify", os.fsdecode(raw), photo, "--draw", tmp_path / "drawn")
    assert (ran.code, ran.err) == (0, "")
    (row,) = csv.DictReader(io.StringIO(ran.out))
    assert row["person"] == "Ren\\udce9"
    assert row["photo"].endswith("/caf\\udce9/Ren\\udce9.jpg")

    ran = process("embed", photo, "--out", tmp_path / "v.npz")
    assert ran.code == 0
    (name,) = np.load(tmp_path / "v.npz")["photos"].tolist()
    assert os.fsencode(name) == raw + b"/Ren\xe9.jpg"

    blank(tmp_path / "caf\udce9/no face.png")
    for _ in range(2):
        ran = process("align", os.fsdecode(raw), tmp_path / "crops", "--workers", "1")
        assert ran.code == 0
    assert (tmp_path / "crops/bounding_boxes.txt").read_bytes().startswith(b"Ren\xe9.png ")
    assert "2 done before" in ran.out


def test_output_in_an_encoding_that_cannot_say_it(examples, tmp_path):
    photo = copy(examples / "photos/hopper-rendition.jpg", tmp_path / "李.jpg")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ran = process("detect", photo, env=environment)
    assert (ran.code, ran.err) == (0, "")
    assert "\\u674e.jpg" in ran.out


def test_a_missing_extra_is_named(examples):
    """OpenVINO hidden from the import system, as where it is not installed."""
    hidden = "sys.modules['openvino'] = None"
    photo = examples / "photos/hopper-rendition.jpg"
    ran = process("detect", photo, "--engine", "openvino", before=hidden)
    assert (ran.code, ran.out) == (2, "")
    assert 'pip install "facenet[openvino]"' in ran.sentence
    assert process("detect", photo, before=hidden).code == 0


def test_the_same_refusal_in_a_process_as_inside():
    ran = process("detect", "nosuch.jpg")
    assert (ran.code, ran.out, ran.sentence) == (2, "", refused("detect", "nosuch.jpg"))
