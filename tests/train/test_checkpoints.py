"""Checkpoints: exact, whole or not at all, and never a pickle."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys

import pytest
import torch

from facenet.errors import DataError, StorageError
from facenet.train.checkpoint import (
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
)
from facenet.train.optimisers import OptimiserSettings, build_optimiser, set_rate


def tensors():
    made = torch.Generator().manual_seed(0)
    shape = (4, 3, 5, 5)
    return {
        "plain": torch.randn(7, generator=made),
        "last": torch.randn(shape, generator=made).to(memory_format=torch.channels_last),
        "half": torch.randn(3, generator=made).bfloat16(),
        "count": torch.tensor(5),
        "nan": torch.tensor([float("nan"), float("inf")]),
    }


def same(one, other):
    return one.dtype == other.dtype and torch.equal(
        one.contiguous().flatten().view(torch.uint8) if one.ndim else one,
        other.contiguous().flatten().view(torch.uint8) if other.ndim else other,
    )


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    parts = {"model": tensors(), "loss": {"w": torch.ones(2)}}
    save_checkpoint(tmp_path / "last", parts, {"progress": {"step": 3}})
    came, state = load_checkpoint(tmp_path / "last")
    assert state == {"progress": {"step": 3}}
    assert list(came) == ["loss", "model"]
    assert all(same(came["model"][name], value) for name, value in tensors().items())
    files = sorted(path.name for path in (tmp_path / "last").iterdir())
    assert files == ["loss.safetensors", "model.safetensors", "state.json"]


def test_shared_memory_is_saved_twice_and_not_refused(tmp_path):
    one = torch.arange(6.0)
    save_checkpoint(tmp_path / "c", {"m": {"a": one, "b": one[2:4]}}, {})
    came, _ = load_checkpoint(tmp_path / "c")
    assert came["m"]["b"].tolist() == [2, 3]


@pytest.mark.parametrize("moment", ["before", "between"])
def test_a_save_that_was_killed_leaves_the_last_good_one(tmp_path, moment):
    folder = tmp_path / "last"
    save_checkpoint(folder, {"m": {"a": torch.zeros(1)}}, {"step": 1})
    (tmp_path / "last.new").mkdir()
    (tmp_path / "last.new" / "half").write_bytes(b"half")
    if moment == "between":  # the old one is out of the way, the new one not yet in
        folder.rename(tmp_path / "last.old")
    assert load_checkpoint(folder)[1] == {"step": 1}
    save_checkpoint(folder, {"m": {"a": torch.ones(1)}}, {"step": 2})
    assert load_checkpoint(folder)[1] == {"step": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last"]


FULL = """
import resource, signal, sys, torch
from pathlib import Path
from facenet.errors import StorageError
from facenet.train.checkpoint import load_checkpoint, save_checkpoint
folder = Path(sys.argv[1]) / "last"
save_checkpoint(folder, {"m": {"a": torch.zeros(10)}}, {"step": 1})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    save_checkpoint(folder, {"m": {"a": torch.zeros(100_000)}}, {"step": 2})
except StorageError as error:
    print(error)
print(load_checkpoint(folder)[1]["step"])
"""


def test_a_full_disk_leaves_the_last_good_one(tmp_path):
    """The limit of a file's size stands for a full disk: the write fails in the same place."""
    assert resource.RLIMIT_FSIZE is not None and signal.SIGXFSZ is not None
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True
    )
    said, step = ran.stdout.splitlines()
    assert said.startswith(f"Cannot save the checkpoint {tmp_path / 'last'}: ")
    assert "The last one is kept" in said and step == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last"]


def test_a_damaged_file_is_found(tmp_path):
    save_checkpoint(tmp_path / "c", {"m": {"a": torch.zeros(10)}}, {})
    file = tmp_path / "c" / "m.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match="SHA-256 is another. It is damaged"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"digests": 3}'])
def test_a_folder_that_is_no_checkpoint_says_so(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(DataError, match=r"should be a checkpoint with state\.json"):
        load_checkpoint(tmp_path)
    with pytest.raises(DataError, match="should be a checkpoint"):
        load_checkpoint(tmp_path / "nothing")


def test_no_place_to_write_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot save the checkpoint"):
        save_checkpoint(tmp_path / "file" / "last", {"m": {}}, {})


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", ["sgd", "adamw", "rmsprop", "facenet_adam"])
def test_an_optimiser_goes_on_as_if_it_had_not_stopped(kind, order):
    def made():
        start = torch.linspace(-1, 1, 48).view(3, 4, 2, 2).to(memory_format=order)
        weights = torch.nn.Parameter(start)
        group = {"params": [weights], "name": "all", "factor": 1.0, "weight_decay": 0.0}
        optimiser = build_optimiser(OptimiserSettings(name=kind), [group])
        set_rate(optimiser, 0.1)
        return weights, optimiser

    def go(weights, optimiser, steps):
        for _ in range(steps):
            optimiser.zero_grad()
            (weights**4).sum().backward()
            optimiser.step()

    whole, first = made()
    go(whole, first, 7)
    half, second = made()
    go(half, second, 3)
    saved, rest = optimiser_tensors(second)
    saved = {name: value.contiguous().clone() for name, value in saved.items()}  # as files have it
    rest = json.loads(json.dumps(rest))
    again, third = made()
    again.data.copy_(half.data)
    restore_optimiser(third, saved, rest)
    go(again, third, 4)
    assert torch.equal(whole, again)
