"""What holds weights: models of the store, runs, safetensors, state dicts of facenet-pytorch.

Nothing pickled is executed: `.pt` is read by `facenet.models.convert.torchfile`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from facenet.errors import (
    DataError,
    MissingExtraError,
    ModelFileError,
    SettingsError,
    StorageError,
    UnknownModelError,
)
from facenet.files import written
from facenet.models import disk
from facenet.models.card import ModelCard, card_from_dict
from facenet.models.catalog import find_card
from facenet.models.convert.torchfile import read_state_dict
from facenet.models.importing import LICENCE
from facenet.models.recognising import FACENET_PYTORCH
from facenet.models.store import ModelStore
from facenet.train.backbones import BACKBONES
from facenet.train.backbones.inception_resnet_v1 import FacenetSettings
from facenet.train.checkpoint import STATE
from facenet.train.choosing import chosen, settings_from
from facenet.train.runfolder import BEST, LAST, RUN, read_record

Place: TypeAlias = str | os.PathLike[str]
State: TypeAlias = Mapping[str, Tensor]

HEADER = "facenet"
"""Name of our entry in the header of a safetensors file."""
WEIGHTS, NETWORK = "weights.safetensors", "network.json"
"""Beside the graph of an exported model: the network's own weights, and which network it is."""
TORCH = (".pt", ".pth")
PARALLEL = "module."
"""What torch's DataParallel writes before every name."""
PEER = "inception_resnet_v1"
"""The backbone of facenet-pytorch's state dicts."""
LOGITS = "logits."
"""How the names of facenet-pytorch's class layer begin."""


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """What a model, run or file holds.

    card: None where nothing is told of it. state: tensors by name, or None for graph, an ONNX
    file. network: name and settings of the backbone, where they are told. which: of a run, "best"
    or "last".
    """

    card: ModelCard | None
    state: State | None = None
    graph: Path | None = None
    network: tuple[str, Any] | None = None
    which: str | None = None


def read_weights(model: Place, store: ModelStore) -> Weights:
    """The weights of a name, of a run's folder or of a file; see `weights.load_network`.

    A model that was exported here has its network's own weights beside its graph; they are taken.
    """
    try:
        card = find_card(str(model), kind="embedder", home=store.home)
    except UnknownModelError:
        if not os.path.exists(model):
            raise
        return _read_place(Path(model))
    graph = next(iter(store.files(card).values()))
    kept = store.folder(card) / WEIGHTS
    if not kept.is_file() or disk.sha256_of(kept) != card.source.sha256:
        return Weights(card, graph=graph)
    facts = {**card.to_dict(), **read_record(kept.with_name(NETWORK))}
    return replace(from_facts(facts, read_tensors(kept)[0], kept, card.name), card=card)


def keep_weights(folder: Path, data: bytes, network: tuple[str, Any]) -> None:
    """Put the weights of a network beside its graph, for `read_weights`.

    folder: of the model. data: the safetensors file that the card's source is. network: name and
    settings. Raises StorageError.
    """
    facts = {"backbone": network[0], "backbone_settings": asdict(network[1])}
    part = folder / f"{WEIGHTS}.part"
    disk.write_new(part, data)
    disk.replace(part, folder / WEIGHTS)
    disk.write_text(folder / NETWORK, json.dumps(facts, indent=1))


def _read_place(path: Path) -> Weights:
    if path.is_dir():
        return read_run(path)
    if path.suffix.lower() in TORCH:
        return _read_peer(path)
    state, header = read_tensors(path)
    if HEADER not in header:
        return Weights(None, state)
    try:
        facts = json.loads(header[HEADER])
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path.name[:100]} has a damaged header that does not say what it is. Save it again."
        ) from error
    return from_facts(facts, state, path, path.stem)


def read_run(run: Path, which: str | None = None) -> Weights:
    """The weights of a run of `facenet train`, their digest checked.

    which: "best" or "last"; None: best where there is one. Raises DataError for a folder that is
    no run or holds none yet, SettingsError for another word, DigestError for a damaged file.
    """
    if which not in (None, BEST, LAST):
        raise SettingsError(f"which should be {BEST} or {LAST}; got {str(which)[:40]!r}.")
    if not (run / RUN).is_file():
        raise DataError(
            f"{str(run)[:300]} should be the folder of a run of facenet train, with {RUN} in it; "
            "there is none. Name the folder that --out named."
        )
    names = [which] if which else [BEST, LAST]
    places = [run / f"{name}{ending}" for name in names for ending in ("", ".old")]
    place = next((one for one in places if (one / STATE).is_file()), None)
    if place is None:
        raise DataError(
            f"{str(run)[:300]} should hold the weights {' or '.join(names)}; it holds none yet. "
            "Go on with the run until it saves some, or name the others."
        )
    path = place / "model.safetensors"
    digests = read_record(place / STATE).get("digests")
    digest = digests.get("model") if isinstance(digests, dict) else None
    disk.check_digest(path, str(digest)[:64], "Take the other checkpoint (best or last).")
    found = from_facts(read_record(run / RUN), read_tensors(path)[0], path, run.resolve().name)
    return replace(found, which=place.name.partition(".")[0])


def from_facts(facts: Any, state: State, path: Path, title: str) -> Weights:
    """Weights with what a run.json says of them.

    facts: backbone, backbone_settings, preprocess, licence and training_data; others are left
    alone. title: a name for the card. Raises ModelFileError when they are incomplete, SettingsError
    for a backbone or option that does not exist.
    """
    try:
        kind = chosen("backbone", facts["backbone"], BACKBONES)
        settings: Any = settings_from(
            kind.settings, facts["backbone_settings"], "backbone_settings"
        )
        told = {key: facts[key] for key in ("preprocess", "licence", "training_data")}
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(
            f"{path.name[:100]} should come with backbone, backbone_settings, preprocess, licence "
            f"and training_data; {str(error)[:100]} is missing or of no use."
        ) from error
    card = _card(path, title, {**told, "dimension": int(settings.embedding_size)})
    return Weights(card, state, network=(facts["backbone"], settings))


def _read_peer(path: Path) -> Weights:
    """A state dict of facenet-pytorch, or tensors of another network by name."""
    state = read_torch(path)
    dense = state.get("last_linear.weight")
    if dense is None:
        return Weights(None, state)
    state = {name: values for name, values in state.items() if not name.startswith(LOGITS)}
    told = {
        "preprocess": FACENET_PYTORCH,
        "licence": asdict(LICENCE),
        "training_data": "not stated",
        "dimension": len(dense),
    }
    settings = FacenetSettings(embedding_size=len(dense))
    return Weights(_card(path, path.stem, told), state, network=(PEER, settings))


def _card(path: Path, title: str, told: Mapping[str, Any]) -> ModelCard:
    """The card of a file of one's own."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", title).lstrip("._-")[:100] or "weights"
    digest = disk.sha256_of(path) if path.is_file() else "0" * 64
    size = path.stat().st_size if path.is_file() else 0
    source = {"type": "file", "sha256": digest, "bytes": size, "origin": path.name}
    values = {
        "name": name,
        "kind": "embedder",
        "title": f"weights of {title[:100]}",
        "source": source,
        "files": [{"path": f"{name[:80]}.safetensors", "sha256": digest, "bytes": size}],
    }
    return card_from_dict({**values, **told}, origin=path.name[:100])


def read_torch(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict of torch.save by name. Raises ModelFileError, StorageError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
    try:
        arrays = read_state_dict(data)
    except ModelFileError as error:
        raise ModelFileError(f"{path.name[:100]}: {error}.") from error
    skip = len(PARALLEL) if all(name.startswith(PARALLEL) for name in arrays) else 0
    return {name[skip:]: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name and the header of a safetensors file. Raises ModelFileError, StorageError."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingExtraError(
            "Reading weights needs the extra train: pip install 'facenet[train]'."
        ) from error
    try:
        with safe_open(str(path), "pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise ModelFileError(
            f"{path.name[:100]} should be a safetensors file; it cannot be read as one: "
            f"{' '.join(str(error).split())[:200]}."
        ) from error
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error


def write_tensors(path: Path, state: State, facts: Mapping[str, Any] | None) -> None:
    """Write tensors as safetensors, whole or not at all, with facts in the header.

    Raises StorageError.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise MissingExtraError(
            "Saving weights needs the extra train: pip install 'facenet[train]'."
        ) from error
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    header = None if facts is None else {HEADER: json.dumps(dict(facts))}
    with written(path) as file:
        file.write(save(plain, metadata=header))


def as_plain(card: ModelCard, name: str, settings: Any) -> dict[str, Any]:
    """The facts of a network with a card, as run.json has them."""
    told = card.to_dict()
    return {
        "backbone": name,
        "backbone_settings": asdict(settings),
        **{key: told[key] for key in ("preprocess", "licence", "training_data")},
    }


def without_logits(state: State) -> dict[str, Tensor]:
    """Copies on the CPU, without facenet-pytorch's class layer."""
    return {
        name: tensor.detach().cpu().clone()
        for name, tensor in state.items()
        if not name.startswith(LOGITS)
    }
