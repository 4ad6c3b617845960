"""What every backbone is asked for, and weights in which no layer is the identity."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from checkpoint_maker import seeded
from torch import Tensor, nn

from facenet.models.convert.facenet_checkpoint import layer_names
from facenet.train.backbones.backbone import Backbone
from facenet.train.backbones.counting import count_macs, count_parameters
from facenet.train.backbones.inception_resnet_v1 import FacenetBackbone

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
PARTS = ("names", "shapes", "prelogits")
Count = tuple[int, int]
"""Parameters and multiply-adds."""


def noise(*shape: int, seed: int = 3) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def scrambled(network: nn.Module) -> nn.Module:
    """Gains, offsets and statistics away from 1 and 0; kernels not too small."""
    random = np.random.default_rng(7)
    for name, value in network.state_dict().items():
        if value.ndim == 1:
            low = 0.5 if name.endswith(("running_var", "weight")) else -0.3
            drawn = random.uniform(low, low + 0.7, tuple(value.shape))
            value.copy_(torch.from_numpy(drawn))
        elif value.ndim:
            value.mul_(1.7)
    return network


def check_blocks(network: Backbone, names: list[str]) -> None:
    """blocks() has these names, and every parameter is in exactly one of them."""
    blocks = network.blocks()
    assert list(blocks) == names
    held = [id(p) for modules in blocks.values() for m in modules for p in m.parameters()]
    assert sorted(held) == sorted(id(p) for p in network.parameters())


def check_checkpointed(plain: Backbone, images: Tensor) -> None:
    """With less memory embeddings, gradients and running statistics are the same, bit for bit."""
    results = []
    for checkpointed in (False, True):
        network = copy.deepcopy(plain).train()
        network.checkpointed = checkpointed
        torch.manual_seed(1)  # of dropout
        embeddings = network(images)
        (embeddings * noise(*embeddings.shape)).sum().backward()
        grads = [p.grad for p in network.parameters() if p.requires_grad]
        assert all(grad is not None and grad.any() for grad in grads)
        results.append([embeddings, *grads, *network.buffers()])
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def check_drawn(network: Backbone, reach_of: Callable[[int, int], float]) -> None:
    """Kernels and full connections are uniform within reach_of(fan in, fan out); biases are 0."""
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        weight = module.weight.detach()
        cells = weight[0, 0].numel()
        reach = reach_of(weight.shape[1] * cells, weight.shape[0] * cells)
        assert float(weight.abs().max()) <= reach * 1.000001
        if weight.numel() > 10_000:  # the deviation is known to about one part in 200 then
            assert abs(float(weight.std()) / (reach / 3**0.5) - 1) < 0.03
        assert module.bias is None or not module.bias.any()


def check_graph(network: FacenetBackbone, graph: bytes, side: int) -> None:
    """The ONNX graph of the same weights gives the same embedding of noise to 1e-5."""
    images = noise(2, 3, side, side)
    session = onnxruntime.InferenceSession(graph)
    expected = session.run(["embedding"], {"image": images.numpy()})[0]
    check_embeddings(network, images, expected)


def tensorflow_network(name: str) -> tuple[dict[str, np.ndarray], Tensor, np.ndarray]:
    """What TensorFlow ran: weights by layer, the two pictures (2, 3, 160, 160), the embeddings."""
    with np.load(GOLDEN / "tensorflow_networks.npz") as file:
        names, sizes, expected = (file[f"{name}_{part}"] for part in PARTS)
    shapes = {n: tuple(map(int, s.split())) for n, s in zip(names.tolist(), sizes, strict=True)}
    layers = layer_names(shapes, name)
    weights = {layer: seeded(variable, shapes[variable]) for variable, layer in layers.items()}
    images = np.random.default_rng(5).standard_normal((2, 160, 160, 3), np.float32)
    return weights, torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), expected


def check_embeddings(network: Backbone, images: Tensor, expected: np.ndarray) -> None:
    """Embeddings to 1e-5 of the largest value, of pictures whose embeddings differ."""
    with torch.no_grad():
        got = network.eval()(images).numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.abs(expected[0] - expected[-1]).max() > 1e-3 * np.abs(expected).max()


def counted(network: Backbone) -> Count:
    return count_parameters(network), count_macs(network)


class ByHand:
    """Layers summed one by one: parameters and multiply-adds of a picture."""

    def __init__(self, side: int) -> None:
        self.side, self.channels = side, 3
        self.parameters = self.macs = 0

    def conv(
        self,
        width: int,
        high: int = 1,
        wide: int = 0,
        *,
        stride: int = 1,
        pad: bool = True,
        norm: bool = True,
        groups: int = 1,
    ) -> ByHand:
        """A convolution with a normalisation (gain and offset), or with a bias."""
        cells = high * (wide or high)
        kernel = cells * (self.channels // groups) * width
        self.side = -(-self.side // stride) if pad else (self.side - high) // stride + 1
        self.parameters += kernel + (2 * width if norm else width)
        self.macs += kernel * self.side**2
        self.channels = width
        return self

    def pool(self, window: int = 3) -> ByHand:
        self.side = (self.side - window) // 2 + 1
        return self

    def branches(self, *branches: Callable[[ByHand], object], keep: bool = False) -> ByHand:
        """Each branch is a function of a ByHand that starts here; keep: the input is joined too."""
        side, channels = self.side, self.channels
        joined = channels if keep else 0
        for branch in branches:
            self.side, self.channels = side, channels
            branch(self)
            joined += self.channels
        self.channels = joined
        return self

    def bottleneck(self, size: int) -> Count:
        """A full connection without bias on the mean, and its normalisation."""
        full = self.channels * size
        return self.parameters + full + 2 * size, self.macs + full
