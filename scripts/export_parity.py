"""Export every backbone of `facenet.train` from random weights, and print how the graphs answer.

    python scripts/export_parity.py [NAME ...]

One line per backbone: what its graph is like, how long the export took, and parity, the largest
difference that the graph makes to a similarity of 64 inputs, as `facenet export` measures it before
it publishes. The normalisations have moved half way to the statistics of random pictures, so that
folding them away is part of what is measured. (Those statistics alone are no fair test: random
weights tell pictures hardly apart, a normalisation then divides by next to nothing, and what comes
out is rounding, of torch as much as of the graph.) The exit code is 1 when one cannot be exported.
"""

from __future__ import annotations

import sys
import time

import onnx
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from facenet.errors import FacenetError
from facenet.models.card import Preprocess
from facenet.train.backbones import BACKBONES, build_backbone
from facenet.train.backbones.backbone import Backbone
from facenet.train.export import check_parity, onnx_of

PICTURES = 4
"""That the statistics are of."""


def lived_in(name: str) -> Backbone:
    """A backbone with random weights, whose normalisations have statistics and gains of use."""
    torch.manual_seed(0)
    backbone = build_backbone(name)
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 0.5
            if module.affine and module.weight.requires_grad:
                torch.nn.init.uniform_(module.weight, 0.8, 1.2)
            if module.affine:
                torch.nn.init.normal_(module.bias, 0, 0.1)
    side = backbone.input_size
    with torch.no_grad():
        backbone.train()(torch.rand(PICTURES, 3, side, side) * 2 - 1)
    return backbone.eval()


def exported(name: str) -> str:
    """A line of the table. Raises FacenetError where the export fails."""
    backbone = lived_in(name)
    side = backbone.input_size
    preprocess = Preprocess(side, side, "similarity", "fixed")
    begun = time.perf_counter()
    graph = onnx_of(backbone, preprocess)
    seconds = time.perf_counter() - begun
    parity = check_parity(backbone, graph, preprocess)
    kinds = [node.op_type for node in onnx.load_from_string(graph).graph.node]
    return (
        f"{name:22} {side:4} {backbone.embedding_size:5} {len(kinds):6} "
        f"{len(graph) / 1e6:9.1f} {seconds:8.1f} {max(parity, 0.0):9.1e} "
        f"{kinds.count('BatchNormalization'):6}"
    )


def main(names: list[str]) -> int:
    """Print the table; the exit code."""
    print("backbone               side     d  nodes        MB  seconds    parity  norms")
    failed = 0
    for name in names or list(BACKBONES):
        try:
            print(exported(name), flush=True)
        except FacenetError as error:
            failed += 1
            print(f"{name:22} {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
