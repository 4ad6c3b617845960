"""From a trained network to a model that every command can use: ONNX, a card, a check of both.

The graph goes through `models.importing`, as any ONNX file of one's own does: input float32 (n, 3,
h, w), any n, standardised as the card says; output raw embeddings (n, d).
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from facenet import vectors
from facenet.errors import EngineError, MissingExtraError, ModelFileError, SettingsError
from facenet.models.card import (
    Figure,
    FmrTable,
    Licence,
    ModelCard,
    Preprocess,
    Source,
    check_name,
)
from facenet.models.catalog import CARD, published
from facenet.models.disk import write_text
from facenet.models.engine import EngineSettings, golden_input, open_engine
from facenet.models.importing import import_model
from facenet.models.recognising import Found
from facenet.models.store import ModelStore
from facenet.train.backbones.backbone import Backbone
from facenet.train.checkpoint import packed
from facenet.train.weightfiles import keep_weights
from facenet.train.weights import embedded

FloatArray = NDArray[np.float32]

OPSET = 18
"""Version of ONNX's operators; ONNX Runtime and OpenVINO have had it since 2022."""
PICTURES = 64
"""Inputs that a graph is compared with its network on."""
BATCH = 16
MOST = 1e-4
"""Largest difference of a similarity (cosine) that a graph may make."""
EXPORTER = "torch.onnx"
"""The logger that tells of torchvision's operators, which no network here has."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What the card of an exported network says beside its file.

    name: for `--model`. preprocess: how it was trained to be fed. licence, training_data: of the
    weights. figures: measured results with their origin. fmr: false matches by similarity; None:
    there are no rates, and one decides by a threshold. origin: what the weights are called.
    network: name and settings as `build_backbone` takes them: its weights are then kept beside the
    graph, for more training. Raises SettingsError for a name that is none or that of a published
    model.
    """

    name: str
    preprocess: Preprocess
    licence: Licence
    training_data: str
    figures: tuple[Figure, ...] = ()
    fmr: FmrTable | None = None
    origin: str = "weights in memory"
    network: tuple[str, Any] | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        taken = {n.lower(): c.name for c in published().values() for n in (c.name, *c.aliases)}
        if self.name.lower() in taken:
            raise SettingsError(
                f"{self.name} is a name of the published model {taken[self.name.lower()]}. Choose "
                "another name."
            )


def export_model(
    backbone: Backbone,
    publication: Publication,
    *,
    store: ModelStore | None = None,
    overwrite: bool = False,
) -> ModelCard:
    """Put a network into the model store; `--model NAME` works from then on.

    The model is known by the SHA-256 of its weights, so that another export of the same weights has
    the same vector space. overwrite: replace an imported or exported model of this name. Raises
    SettingsError for a name that is taken, MissingExtraError without onnxscript, ModelFileError
    when the graph cannot be written or does not answer as the network does, StorageError.
    """
    store = store or ModelStore()
    path = store.home / "models" / publication.name / CARD
    if path.exists() and not overwrite:
        raise SettingsError(
            f"There is a model named {publication.name} already. Choose another name, or replace "
            "it with --overwrite."
        )
    graph = onnx_of(backbone, publication.preprocess)
    difference = check_parity(backbone, graph, publication.preprocess)
    network, weights = type(backbone).__name__, packed(backbone.state_dict())
    source = Source(
        "file", hashlib.sha256(weights).hexdigest(), len(weights), publication.origin[:200]
    )
    found = Found(
        kind="embedder",
        title=f"exported from {network}",
        source=source,
        graphs=lambda _: {"": graph},
        licence=publication.licence,
        training_data=publication.training_data,
    )
    preprocess = publication.preprocess
    made = import_model(
        found, name=publication.name, preprocess=preprocess, store=store, overwrite=overwrite
    )
    card = replace(
        made,
        title=f"{network}, {made.dimension} values, exported by facenet",
        figures=publication.figures,
        fmr=publication.fmr,
        notes=_notes(publication, difference),
    )
    with store.locked(card.name):
        if publication.network is not None:
            keep_weights(path.parent, weights, publication.network)
        write_text(path, json.dumps(card.to_dict(), indent=1))
    return card


def onnx_of(backbone: Backbone, preprocess: Preprocess) -> bytes:
    """The ONNX file of a network: `image` (n, 3, h, w) to `embedding` (n, d), any n.

    Written by torch's exporter, which folds normalisations away; what it notes of this machine
    (paths, source lines) is taken out. Raises MissingExtraError without onnxscript, ImageError for
    crops of a size that the network does not take, ModelFileError when torch cannot write it.
    """
    from torch.onnx import OnnxExporterError

    try:
        import onnxscript  # noqa: F401 - torch.onnx needs it
    except ImportError as error:
        raise MissingExtraError(
            "Exporting needs onnxscript, which is not installed: pip install 'facenet[train]'."
        ) from error
    network = copy.deepcopy(backbone).cpu().float().eval()
    images = torch.zeros(2, 3, preprocess.height, preprocess.width)
    embedded(network, images.numpy())  # tells of crops that it does not take
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                network,
                (images,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["embedding"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except OnnxExporterError as error:
        raise ModelFileError(
            f"torch should write {type(backbone).__name__} as ONNX; it cannot: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    assert program is not None
    model = program.model_proto
    _forget_origin(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def check_parity(backbone: Backbone, graph: bytes, preprocess: Preprocess) -> float:
    """The largest difference that a graph makes to a similarity (cosine), on 64 inputs.

    Of all pairs of the inputs, and of each input's two vectors. Raises ModelFileError where it is
    over 1e-4, or where an answer is not finite.
    """
    images = _inputs(preprocess)
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    network = copy.deepcopy(backbone).cpu().float()
    right = np.concatenate([embedded(network, batch) for batch in batches])
    try:
        engine = open_engine(graph, EngineSettings(engine="onnxruntime", device="cpu"))
        name = next(iter(engine.inputs))
        answers = [next(iter(engine.run({name: batch}).values())) for batch in batches]
        got = np.concatenate(answers)
    except EngineError as error:
        raise ModelFileError(f"The exported graph should run; it does not: {error}") from error
    lengths = [np.linalg.norm(rows, axis=1) for rows in (got, right)]
    if got.shape != right.shape or not np.all(np.isfinite(lengths)) or np.min(lengths) <= 0:
        raise ModelFileError(
            f"{type(backbone).__name__} should give finite embeddings that are not zero; it does "
            "not. Export weights from before training went wrong."
        )
    ours, theirs = (vectors.unit(rows).astype(np.float64) for rows in (got, right))
    pairs = np.abs(ours @ ours.T - theirs @ theirs.T)
    difference = max(float(np.max(pairs)), float(np.max(1 - np.sum(ours * theirs, axis=1))))
    if not difference < MOST:
        raise ModelFileError(
            f"The exported graph should give the similarities of the network to {MOST:g}; it "
            f"differs by {difference:.2g}. It is not published; report it with the network's name."
        )
    return difference


def _inputs(preprocess: Preprocess) -> FloatArray:
    """Half smooth, half noise: float32 (64, 3, h, w), as crops standardised."""
    sides = (PICTURES // 2, 3, preprocess.height, preprocess.width)
    noise = np.random.default_rng(0).uniform(-1, 1, sides).astype(np.float32)
    images = np.concatenate([golden_input(sides), noise])
    return (images + 1) * np.float32(127.5) if preprocess.standardise == "none" else images


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to ourselves what torch's exporter says of its own age and of torchvision."""
    logger = logging.getLogger(EXPORTER)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


def _forget_origin(model: Any) -> None:
    """Take out what the exporter notes of the source code: paths of this machine."""
    graph = model.graph
    parts = [model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer]
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")


def _notes(publication: Publication, difference: float) -> str:
    rates = ""
    if publication.fmr is None:
        rates = (
            " There are no false-match rates on this card: decide with a threshold, or measure "
            "with `facenet calibrate`."
        )
    return (
        f"Exported from {publication.origin[:200]}; the graph gives the similarities of the "
        f"network to {max(difference, 0.0):.0e} on {PICTURES} inputs.{rates}"
    )
