"""The journal of a run: whole lines whatever happens, forgotten on resume, read by TensorBoard."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from facenet.errors import DataError, InputError, StorageError
from facenet.train.journal import MAX_LINE, METRICS, Journal, read_metrics

ROW = {"epoch": 0.5, "loss": 2.5, "lr": 0.1, "images_per_s": 90.0}


def journal(folder: Path) -> Journal:
    return Journal(folder, tensorboard=False)


def steps(folder: Path) -> list[int]:
    return [line["step"] for line in read_metrics(folder / METRICS)]


def test_lines_of_steps_and_validations(tmp_path: Path) -> None:
    with journal(tmp_path / "new" / "run") as book:
        book.step(10, **ROW, positive_cosine=np.float32(0.5), norm=torch.tensor(3.0), skipped=1)
        book.validation(10, "LFW \u2028 \udc80", accuracy=0.75, accuracy_ci=(0.5, 1), pairs=6000)
    text = (tmp_path / "new" / "run" / METRICS).read_bytes()
    assert text.count(b"\n") == 2 and text.endswith(b"\n")
    first, second = read_metrics(tmp_path / "new" / "run" / METRICS)
    assert list(first) == ["step", "epoch", "loss", "lr", "images_per_s", *list(first)[5:]]
    assert first == {"step": 10, **ROW, "positive_cosine": 0.5, "norm": 3.0, "skipped": 1}
    assert second == {
        "step": 10, "set": "LFW \u2028 \udc80", "accuracy": 0.75, "accuracy_ci": [0.5, 1],
        "pairs": 6000,
    }  # fmt: skip


def test_what_is_not_finite_is_null_and_said(tmp_path: Path) -> None:
    with journal(tmp_path) as book:
        row = {**ROW, "loss": math.nan, "norms": {"head": -math.inf, "stem": 1.0}}
        book.step(1, **row, gradient=torch.tensor(math.inf), ends=[0.0, np.float64("nan")])
    text = (tmp_path / METRICS).read_text()
    assert "NaN" not in text and "Infinity" not in text
    (line,) = read_metrics(tmp_path / METRICS)
    assert (line["loss"], line["gradient"], line["ends"]) == (None, None, [0.0, None])
    assert line["norms"] == {"head": None, "stem": 1.0}
    lost = {"loss": "nan", "norms.head": "-inf", "gradient": "inf", "ends[1]": "nan"}
    assert line["not_finite"] == lost


def test_values_that_are_not_plain_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with journal(tmp_path) as book:
        with pytest.raises(InputError, match=r"a\.b is of the type set. Make a number"):
            book.step(1, **ROW, a={"b": {1}})
        with pytest.raises(InputError, match="x is of the type ndarray"):
            book.step(1, **ROW, x=np.zeros(2))
        with pytest.raises(InputError, match="not_finite .* is written by the journal itself"):
            book.step(1, **ROW, not_finite=1)
        with pytest.raises(InputError, match="at most 1,000,000 bytes"):
            book.step(1, **ROW, x="x" * MAX_LINE)
        book.step(1, **ROW)
    assert steps(tmp_path) == [1]


@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b"\0" * 70_000, b'{"step": 3}'])
def test_a_torn_last_line_is_left_out_and_cut_on_opening(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / METRICS
    with journal(tmp_path) as book:
        for step in (1, 2):
            book.step(step, **ROW)
    path.write_bytes(path.read_bytes() + torn)
    assert steps(tmp_path) == [1, 2]
    with journal(tmp_path) as book:
        book.step(3, **ROW)
    assert steps(tmp_path) == [1, 2, 3]
    path.write_bytes(torn)
    journal(tmp_path).close()
    assert path.read_bytes() == b""


def test_a_killed_run_leaves_whole_lines(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from itertools import count; import sys\n"
        "from facenet.train.journal import Journal\n"
        "book = Journal(Path(sys.argv[1]), tensorboard=False)\n"
        "for step in count(1):\n"
        "    book.step(step, epoch=0, loss=1.0, lr=0.1, images_per_s=1.0, more='x' * 5000)\n"
        "    if step == 20: print('under way', flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"under way\n"
        run.send_signal(signal.SIGKILL)
    found = steps(tmp_path)
    assert found == list(range(1, len(found) + 1)) and len(found) >= 20
    with journal(tmp_path) as book:
        book.truncate_after(15)
        book.step(16, **ROW)
    assert steps(tmp_path) == list(range(1, 17))


def test_what_came_after_a_checkpoint_is_forgotten(tmp_path: Path) -> None:
    with journal(tmp_path) as book:
        book.truncate_after(0)
        for step in (1, 2, 3):
            book.step(step, **ROW)
            book.validation(step, "lfw", accuracy=0.5)
        before = (tmp_path / METRICS).read_bytes().splitlines(keepends=True)
        book.truncate_after(2)
        book.step(3, **{**ROW, "loss": 9.0})
    after = (tmp_path / METRICS).read_bytes().splitlines(keepends=True)
    assert after[:4] == before[:4]
    assert [json.loads(line)["step"] for line in after[4:]] == [3]


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / METRICS).symlink_to("/dev/full")
    book = journal(tmp_path)
    with pytest.raises(StorageError, match="No space left on device. Free some space.*--resume"):
        book.step(1, **ROW)
    book.close()


def test_half_a_line_on_a_full_disk_is_taken_back(tmp_path: Path) -> None:
    """A limit on the size of files lets the first part of a line through, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with journal(tmp_path) as book:
        book.step(1, **ROW)
        size = (tmp_path / METRICS).stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))
        try:
            with pytest.raises(StorageError, match="Cannot write .*metrics.jsonl: File too large"):
                book.step(2, **ROW)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (tmp_path / METRICS).stat().st_size == size
        book.step(3, **ROW)
    assert steps(tmp_path) == [1, 3]


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="Cannot write .*file/metrics.jsonl"):
        journal(tmp_path / "file")


@pytest.mark.parametrize(
    "bad",
    [b"nonsense", b"[1]", b'{"loss": 1}', b'{"step": 1.5}', b'{"step": true}', b'{"step": -1}',
     b'{"step": 1, "loss": NaN}', b"\xff", b'{"step": 9' + b"9" * 30 + b"}", b"[" * 100_000, b""],
)  # fmt: skip
def test_lines_of_something_else_are_named(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / METRICS
    path.write_bytes(b'{"step": 1}\n' + bad + b"\n")
    with pytest.raises(
        DataError, match="Line 2 of .*should be a JSON object with a step"
    ) as raised:
        read_metrics(path)
    assert len(str(raised.value)) < 500
    with journal(tmp_path) as book, pytest.raises(DataError, match="Line 2 of"):
        book.truncate_after(1)


def test_files_that_are_no_journals(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "none") == []
    (tmp_path / "endless").write_bytes(b"x" * (MAX_LINE + 2))
    with pytest.raises(DataError, match="one is longer. It is no journal"):
        read_metrics(tmp_path / "endless")
    with pytest.raises(DataError, match="Is a directory"):
        read_metrics(tmp_path)


def test_tensorboard_reads_what_was_written_and_forgets_what_was_purged(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Journal(tmp_path) as book:
        for step in (1, 2, 3):
            book.step(step, **{**ROW, "loss": float(step)}, note="words", flag=True)
        book.validation(3, "lfw \udc80", accuracy=0.75)
    with Journal(tmp_path) as book:
        book.truncate_after(2)
        book.step(3, **{**ROW, "loss": math.nan})
        book.step(4, **{**ROW, "loss": 8.0})
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    names = {f"train/{key}" for key in ROW} | {"validation/lfw ?/accuracy"}
    assert set(board.Tags()["scalars"]) == names
    loss = [(event.step, event.value) for event in board.Scalars("train/loss")]
    assert [step for step, _ in loss] == [1, 2, 3, 4]
    assert [value for _, value in loss[:2]] == [1.0, 2.0]
    assert math.isnan(loss[2][1]) and loss[3][1] == 8.0
    assert board.Scalars("validation/lfw ?/accuracy") == []
    assert steps(tmp_path) == [1, 2, 3, 4]


def test_a_full_disk_for_tensorboard_is_one_sentence(tmp_path: Path) -> None:
    book = Journal(tmp_path)
    (tmp_path / "tensorboard").write_bytes(b"")  # a file in the place of its folder
    with pytest.raises(StorageError, match="Cannot write"):
        book.step(1, **ROW)
    book.close()


def test_without_tensorboard_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['tensorboard'] = None\n"
        "from pathlib import Path\n"
        "from facenet.errors import MissingExtraError\n"
        "from facenet.train.journal import Journal\n"
        "folder = Path(sys.argv[1])\n"
        "try: Journal(folder)\n"
        "except MissingExtraError as error: print(error)\n"
        "with Journal(folder, tensorboard=False) as book:\n"
        "    book.step(1, epoch=0, loss=1.0, lr=0.1, images_per_s=1.0)\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 'pip install "facenet[train]"' in answer.stdout
    assert steps(tmp_path) == [1]
    assert os.listdir(tmp_path) == [METRICS]
