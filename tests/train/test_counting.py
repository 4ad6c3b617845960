"""Counting: each kind of layer against brute force, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from facenet.train.backbones.backbone import Backbone
from facenet.train.backbones.counting import CountsItself, count_macs, count_parameters


class Products(nn.Module):
    """Multiplies its input by itself, and says so."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x

    def extra_macs(self, x: Tensor) -> int:
        return x[0].numel()


class Tiny(Backbone):
    """Every kind of layer that counts and some that do not; one of them runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding_size, self.input_size = 5, 9
        self.conv = nn.Conv2d(3, 4, (3, 2), stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.products = Products()
        self.flat = nn.Sequential(nn.PReLU(4), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.full = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.conv(images))
        x = self.products(self.grouped(self.grouped(x)))
        return self.full(self.flat(x))

    def blocks(self) -> dict[str, tuple[nn.Module, ...]]:
        return {"all": tuple(self.children())}


def brute_force(side: int) -> int:
    """Counts each output value's products, place by place."""
    rows, columns = (side + 2 - 3) // 2 + 1, (side + 2 - 2) // 2 + 1
    macs = 0
    for _ in range(rows * columns):
        macs += 4 * 3 * 3 * 2  # each output channel: 3 inputs, 3 x 2 places
        macs += 2 * (4 * 2 * 9)  # twice: each output channel reads its group of 2
        macs += 4  # the product of each value with itself
    return macs + 5 * 16


@pytest.mark.parametrize("side", [9, 12])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_macs_are_those_counted_place_by_place(side: int, device: str) -> None:
    with torch.device(device):
        network = Tiny()
    assert count_macs(network, side) == brute_force(side)
    assert count_macs(network) == brute_force(9)
    assert isinstance(network.products, CountsItself)


def test_parameters_are_counted_once_fixed_or_not() -> None:
    network = Tiny()
    want = 4 * 3 * 6 + 2 * 4 + (4 * 2 * 9 + 4) + 4 + (16 * 5 + 5)
    assert count_parameters(network) == want
    network.norm.weight.requires_grad_(False)
    network.again = network.full
    assert count_parameters(network) == want


def test_counting_leaves_the_network_as_it_was() -> None:
    network = Tiny().train()
    network.norm.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count_macs(network)
    assert network.training and network.conv.training and not network.norm.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(not module._forward_hooks for module in network.modules())
    with pytest.raises(RuntimeError, match="size|padd|Kernel|kernel"):
        count_macs(network, -5)
    assert network.training and all(not module._forward_hooks for module in network.modules())
