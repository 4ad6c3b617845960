"""Backbones with weights: of models, runs, safetensors and facenet-pytorch, in both directions.

A graph of the model store is read by its structure (`onnxlayers`, `unfolding`) and the network that
comes of it is compared with the graph; what has names is loaded by its names, the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facenet import vectors
from facenet.errors import ModelFileError, SettingsError
from facenet.models.card import ModelCard
from facenet.models.engine import EngineSettings, golden_input, open_engine
from facenet.models.store import ModelStore
from facenet.train.backbones import BACKBONES, build_backbone
from facenet.train.backbones.backbone import Backbone, BackboneKind
from facenet.train.backbones.inception_resnet_v1 import InceptionResnetV1
from facenet.train.onnxlayers import Layer, read_layers
from facenet.train.unfolding import BLANK, weights_for
from facenet.train.weightfiles import (
    TORCH,
    Place,
    State,
    Weights,
    as_plain,
    from_facts,
    read_tensors,
    read_torch,
    read_weights,
    without_logits,
    write_tensors,
)

AGREES = 1e-5
"""Largest 1 - cosine of a network's vectors and those of the graph it was read from."""
LIKELY = ("mobilefacenet_tf", "inception_resnet_v1")
"""Networks of published models, which a graph is compared with first, and with their values: for
the others torch loads what it needs to build networks without, which takes it seconds."""
COUNTERS = ".num_batches_tracked"
"""How long a normalisation was trained; files of others may lack it."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A network with its weights, in evaluation mode.

    name, settings: as `build_backbone` takes them. card: how it is fed, what may be done with it.
    """

    name: str
    settings: Any
    backbone: Backbone
    card: ModelCard

    def facts(self) -> dict[str, Any]:
        """What `save_weights` writes beside the weights."""
        return as_plain(self.card, self.name, self.settings)


def load_network(model: Place, *, store: ModelStore | None = None) -> Loaded:
    """A network with weights; which one it is, is found out.

    model: name of an embedder, folder of a run (its best weights, else the last), .safetensors of
    `save_weights`, or .pt of facenet-pytorch. A model's normalisations are often folded away in its
    graph: before training with moving statistics call `unfolding.settle_statistics`. Raises
    UnknownModelError for another name, ModelError for a model that was not fetched, ModelFileError
    for what is no network of `BACKBONES`.
    """
    return make_network(read_weights(model, store or ModelStore()), str(model))


def make_network(found: Weights, origin: str) -> Loaded:
    """The network of what was read. origin: what a message calls it. Raises ModelFileError."""
    network = found.network
    if found.card is not None and found.graph is not None:
        network = _network_of(read_layers(found.graph.read_bytes()), found.card)
    if found.card is None or network is None:
        raise ModelFileError(
            f"{origin[:200]} should tell which network its weights are of, as the files of "
            "save_weights do; it does not. Build the network and use load_weights."
        )
    backbone = build_backbone(*network)
    _fill(backbone, found, origin)
    return Loaded(*network, backbone.eval(), found.card)


def load_backbone(model: Place, *, store: ModelStore | None = None) -> tuple[Backbone, ModelCard]:
    """The network of `load_network` and its card; raises as it does."""
    loaded = load_network(model, store=store)
    return loaded.backbone, loaded.card


def load_into(backbone: Backbone, model: Place, *, store: ModelStore | None = None) -> None:
    """Give a network the weights of what `load_network` takes, or of a file of tensors by name.

    Raises ModelFileError when they are of another network; it is then unchanged.
    """
    _fill(backbone, read_weights(model, store or ModelStore()), str(model))


def save_weights(backbone: nn.Module, path: Place, facts: Mapping[str, Any] | None = None) -> None:
    """Write the weights as safetensors; `load_weights` gives back the same bits.

    facts: as `Loaded.facts` or a run.json has them, so that `load_network` needs no more than the
    file. Raises ModelFileError for facts that are incomplete, StorageError.
    """
    if facts is not None:
        from_facts(facts, {}, Path(path), Path(path).stem)
    write_tensors(Path(path), backbone.state_dict(), facts)


def load_weights(module: nn.Module, path: Place) -> None:
    """Give a module the weights of a file, the same bits, by their names.

    path: .safetensors, or a state dict of torch.save (.pt), read without running it. Raises
    ModelFileError when they are of another network; it is then unchanged.
    """
    place = Path(path)
    state = read_torch(place) if place.suffix.lower() in TORCH else read_tensors(place)[0]
    _load_state(module, state, place.name)


def to_facenet_pytorch(backbone: Backbone) -> dict[str, Tensor]:
    """The state dict that facenet-pytorch's InceptionResnetV1 loads, without a class layer.

    Copies on the CPU, the same bits. Raises SettingsError for a network it does not know.
    """
    if not isinstance(backbone, InceptionResnetV1) or backbone.embedding_size != 512:
        raise SettingsError(
            "facenet-pytorch knows Inception-ResNet-v1 with 512 values; got "
            f"{type(backbone).__name__} with {backbone.embedding_size}. Use save_weights."
        )
    return without_logits(backbone.state_dict())


def _fill(backbone: Backbone, found: Weights, origin: str) -> None:
    """The weights into the network. Raises ModelFileError when they do not fit."""
    if found.graph is None:
        _load_state(backbone, found.state or {}, origin)
        return
    try:
        arrays = weights_for(backbone, read_layers(found.graph.read_bytes()))
    except ModelFileError as error:
        raise ModelFileError(
            f"{origin[:200]} should have the layers of {type(backbone).__name__}; {error}. Take "
            "the network that load_network finds."
        ) from error
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    state = {name: torch.from_numpy(values) for name, values in arrays.items()}
    backbone.load_state_dict(state, strict=False)
    if not _agrees(backbone, found.graph):
        backbone.load_state_dict(before)
        raise ModelFileError(
            f"{origin[:200]} has the layers of {type(backbone).__name__} and computes something "
            "else: its graph does more, such as standardising. That is not supported."
        )


def _agrees(backbone: Backbone, graph: Path) -> bool:
    """Whether a network and a graph give the same vectors for the known input."""
    engine = open_engine(graph, EngineSettings(engine="onnxruntime", device="cpu"))
    name, shape = next(iter(engine.inputs.items()))
    side = backbone.input_size
    images = golden_input((shape[0] or 2, 3, shape[2] or side, shape[3] or side))
    right = next(iter(engine.run({name: images}).values()))
    got = embedded(backbone, images)
    if got.shape != right.shape:
        return False
    cosines = np.sum(vectors.unit(got) * vectors.unit(right), axis=1)
    return bool(np.all(1 - cosines <= AGREES))


def embedded(backbone: Backbone, images: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
    """Raw embeddings of crops, float32 (n, 3, h, w) -> (n, d), in evaluation mode."""
    training = [module for module in backbone.modules() if module.training]
    device = next(backbone.parameters()).device
    try:
        with torch.no_grad():
            answer = backbone.eval()(torch.from_numpy(images).to(device))
    finally:
        for module in training:
            module.training = True
    return answer.cpu().numpy()


def _load_state(module: nn.Module, state: State, origin: str) -> None:
    """Tensors by name, of which none is missing, too many, or of another shape."""
    wanted = module.state_dict()
    needed = {name for name in wanted if not name.endswith(COUNTERS)}
    lacking, more = sorted(needed - state.keys()), sorted(state.keys() - wanted.keys())
    wrong = [n for n in wanted.keys() & state.keys() if wanted[n].shape != state[n].shape]
    problem = None
    if lacking:
        problem = f"{lacking[0][:80]} and {len(lacking) - 1} more are missing"
    elif more:
        problem = f"{more[0][:80]} and {len(more) - 1} more are not in the network"
    elif wrong:
        name = min(wrong)
        came, want = (" x ".join(map(str, one[name].shape)) for one in (state, wanted))
        problem = f"{name[:80]} is {came}, not {want}"
    if problem:
        raise ModelFileError(
            f"{origin[:200]} should hold the weights of {type(module).__name__}; {problem}. They "
            "are of another network: build that one, with its embedding_size and other options."
        )
    module.load_state_dict(dict(state), strict=False)


def _network_of(layers: Sequence[Layer], card: ModelCard) -> tuple[str, Any]:
    """Name and settings of the backbone that a graph is one of. Raises ModelFileError."""
    reasons = []
    products = sum(layer.kind in ("conv", "dense") for layer in layers)
    for name in dict.fromkeys((*LIKELY, *BACKBONES)):
        kind = BACKBONES[name]
        settings = _settings(kind, card)
        if settings is None:
            continue
        with nullcontext() if name in LIKELY else BLANK:
            blank = kind.build(settings)
        if sum(isinstance(m, nn.Conv2d | nn.Linear) for m in blank.modules()) != products:
            continue
        try:
            weights_for(blank, layers)
        except ModelFileError as error:
            reasons.append(f"{name}: {error}")
            continue
        return name, settings
    why = f" ({'; '.join(reasons)[:300]})" if reasons else ""
    raise ModelFileError(
        f"{card.name} should be one of the networks that can be trained here; its graph is none of "
        f"them{why}. Take mobilefacenet, a facenet model or an iResNet of InsightFace."
    )


def _settings(kind: BackboneKind, card: ModelCard) -> Any:
    """The settings of a kind for the input and output of a card; None where they do not fit."""
    known = {field.name for field in fields(kind.settings)}
    side = card.preprocess.width if card.preprocess else kind.input_size
    told = {"embedding_size": int(card.dimension or 0), "input_size": side}
    try:
        return kind.settings(**{key: told[key] for key in told if key in known})
    except SettingsError:
        return None
