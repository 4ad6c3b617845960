"""Checkpoints: everything that training needs to go on to the same bits; nothing pickled.

A checkpoint is a folder: `model.safetensors` (the backbone as it is validated and exported),
`raw.safetensors` (as it is trained, where that differs), `loss.safetensors`,
`optimiser.safetensors`, `average.safetensors` and `state.json` with the SHA-256 of each. It is
written beside the old one and takes its place when all is on the disk, so that a full disk or a
power cut leaves the last good one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from facenet.errors import DataError, StorageError

STATE = "state.json"
OLD, NEW = ".old", ".new"

Tensors = Mapping[str, Tensor]


def save_checkpoint(folder: Path, parts: Mapping[str, Tensors], state: Mapping[str, Any]) -> None:
    """Write parts (name -> tensors by name) and a JSON state as the checkpoint `folder`.

    Raises StorageError when the disk is full or cannot be written; the old checkpoint stays then.
    """
    new, old = _beside(folder, NEW), _beside(folder, OLD)
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        if old.exists() and not folder.exists():
            old.rename(folder)  # a save was killed between its two renames
        digests = {name: _write_part(new / f"{name}.safetensors", parts[name]) for name in parts}
        whole = {**state, "digests": digests}
        _write(new / STATE, json.dumps(whole, indent=1, sort_keys=True).encode())
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        _sync_folder(folder.parent)
    except OSError as error:
        raise StorageError(
            f"Cannot save the checkpoint {folder}: {error.strerror or error}. The last one is "
            "kept; free some space and go on with `facenet train --resume`."
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def has_checkpoint(folder: Path) -> bool:
    """Whether there is one, also when the last save was killed between its two renames."""
    return folder.exists() or _beside(folder, OLD).exists()


def load_checkpoint(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Parts and state of a checkpoint, its digests checked.

    Raises DataError when there is none, or when a file is not what was written.
    """
    place = folder if folder.exists() else _beside(folder, OLD)
    try:
        state = json.loads((place / STATE).read_text("utf-8"))
        digests = dict(state.pop("digests"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{folder} should be a checkpoint with {STATE}; {error}. Name a run of facenet train."
        ) from error
    return {
        name: _read_part(place / f"{name}.safetensors", digests[name]) for name in digests
    }, state


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(folder.name + ending)


def _write_part(path: Path, tensors: Tensors) -> str:
    """Write one file; gives its SHA-256."""
    data = packed(tensors)
    _write(path, data)
    return hashlib.sha256(data).hexdigest()


def packed(tensors: Tensors) -> bytes:
    """Tensors by name as the bytes of a safetensors file.

    Tensors that share memory are written once each, in the plain order of memory.
    """
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    data: bytes = save(plain)
    return data


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read_part(path: Path, digest: str) -> dict[str, Tensor]:
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise DataError(
                f"{path} should be as the checkpoint recorded it; its SHA-256 is another. It is "
                "damaged: go on from another checkpoint (best or last)."
            )
        return dict(load(data))
    except (OSError, SafetensorError) as error:
        raise DataError(f"Cannot read {path} of the checkpoint: {error}.") from error


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What an optimiser remembers: tensors by "parameter.name", and the rest as JSON."""
    tensors: dict[str, Tensor] = {}
    rest: dict[str, Any] = {}
    for number, memory in optimiser.state_dict()["state"].items():
        for key, value in memory.items():
            place = tensors if isinstance(value, Tensor) else rest
            place[f"{number}.{key}"] = value
    return tensors, rest


def restore_optimiser(
    optimiser: torch.optim.Optimizer, tensors: Tensors, rest: Mapping[str, Any]
) -> None:
    """Give an optimiser its memory back; its groups are those it was built with."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in (*tensors.items(), *rest.items()):
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            _reorder(optimiser.state.get(parameter, {}), parameter)


def _reorder(memory: dict[str, Any], parameter: Tensor) -> None:
    """Bring what is remembered of a parameter into its order in memory (channels last, say): steps
    in one pass go through both as they lie there, and a file keeps the plain order."""
    for key, value in memory.items():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            memory[key] = torch.empty_like(parameter).copy_(value)
