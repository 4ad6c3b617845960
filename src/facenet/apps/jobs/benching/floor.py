"""The floor under MTCNN's time: the operations of its P-net over the speed of the processor.

P-net sees every pixel of the pyramid, and nothing that finds the same boxes can leave it out:
3x3 convolutions of 3 to 10, 10 to 16 and 16 to 32 channels with a halving after the first, then
five values a cell (Zhang et al. 2016). The speed is that of one large convolution in the same
runtime, which reaches about what the processor has; P-net with its few channels does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from facenet.faces.mtcnn import MtcnnSettings
from facenet.faces.networks import CELL
from facenet.types import FloatArray

CHANNELS = (3, 10, 16, 32)
"""Channels of P-net's picture and of its three layers."""
HEADS = 5
"""Values of a cell: one of the score, which is enough, and four of the box."""


@dataclass(frozen=True, slots=True)
class Probe:
    """The convolution that tells the speed: 3x3, as many channels out as in, a square picture."""

    channels: int
    side: int
    repeats: int


PROBE = Probe(channels=256, side=56, repeats=4)


def pnet_work(size: tuple[int, int], settings: MtcnnSettings | None = None) -> float:
    """Operations of P-net over the pyramid of a picture of width and height `size`.

    A multiplication and an addition count as two.
    """
    settings = settings or MtcnnSettings()
    scale, total = CELL / settings.min_face_size, 0.0
    while min(size) * scale >= CELL:
        total += _level_work(*(int(side * scale + 1) for side in size))
        scale *= settings.factor
    return total


def _level_work(width: int, height: int) -> float:
    picture, first, second, third = CHANNELS
    w, h = width - 2, height - 2
    total = w * h * first * picture * 9
    w, h = ceil(w / 2) - 2, ceil(h / 2) - 2
    total += w * h * second * first * 9
    w, h = w - 2, h - 2
    total += w * h * third * (second * 9 + HEADS)
    return 2.0 * total


def probe_work(probe: Probe = PROBE) -> float:
    """Operations of the probe's convolution."""
    return 2.0 * 9 * probe.channels**2 * probe.side**2


def probe_graph(probe: Probe = PROBE) -> bytes:
    """Its ONNX file: image (1, C, S, S) -> answer, of the same shape."""
    from facenet.models.convert.onnxgraph import GraphWriter

    writer = GraphWriter("probe")
    channels, shape = probe.channels, (1, probe.channels, probe.side, probe.side)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((channels, channels, 3, 3)) / channels
    writer.constant("weights", weights)
    writer.node("Conv", ["image", "weights"], outputs="answer", pads=[1, 1, 1, 1])
    return writer.to_bytes({"image": shape}, {"answer": shape})


def probe_feed(probe: Probe = PROBE) -> dict[str, FloatArray]:
    """What the probe is fed: float32 (1, C, S, S)."""
    rng = np.random.default_rng(1)
    shape = (1, probe.channels, probe.side, probe.side)
    return {"image": rng.standard_normal(shape, dtype=np.float32)}
