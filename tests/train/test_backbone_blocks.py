"""What every backbone holds to: blocks part its parameters, checkpointing changes no number."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from facenet.errors import SettingsError
from facenet.train.backbones import BACKBONES, build_backbone
from facenet.train.backbones.backbone import Backbone
from facenet.train.backbones.iresnet import IResNet, IResNetSettings
from facenet.train.backbones.mobilefacenet import MobileFaceNetSettings, build_mobilefacenet
from facenet.train.backbones.mobilenet import (
    MobileNetSettings,
    build_mobilenet_v1,
    build_mobilenet_v2,
)
from facenet.train.backbones.vit import ViTSettings, build_vit


@pytest.mark.parametrize("name", BACKBONES)
def test_blocks_hold_every_parameter_once(name: str) -> None:
    with torch.device("meta"):
        network = build_backbone(name)
    blocks = network.blocks()
    assert list(blocks)[-1] == "embedding"
    held = [id(p) for modules in blocks.values() for m in modules for p in m.parameters()]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in network.parameters()}
    assert all(any(True for m in modules for _ in m.parameters()) for modules in blocks.values())
    assert network.input_size == BACKBONES[name].input_size
    assert network.embedding_size == BACKBONES[name].settings().embedding_size


def small(name: str) -> Backbone:
    if name == "iresnet":
        return IResNet((2, 1, 1, 1), IResNetSettings(embedding_size=8, input_size=32, dropout=0.3))
    if name == "mobilefacenet":
        return build_mobilefacenet(1, MobileFaceNetSettings(embedding_size=8, input_size=32))
    if name == "vit":
        return build_vit(
            ViTSettings(
                8, 20, patch=4, width=12, depth=3, drop_path=0.3, heads=3, masked_tokens=0.2
            )
        )
    settings = MobileNetSettings(embedding_size=8, input_size=32)
    return build_mobilenet_v1(settings) if name == "v1" else build_mobilenet_v2(settings)


class Calls(nn.Module):
    """Counts how often a block runs."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block, self.count = block, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return self.block(x)


@pytest.mark.parametrize("name", ["iresnet", "mobilefacenet", "v1", "v2", "vit"])
def test_checkpointing_gives_the_same_outputs_and_gradients(name: str) -> None:
    outputs, gradients, calls = [], [], []
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = small(name)
        images = torch.randn(4, 3, network.input_size, network.input_size)
        for checkpointed in (False, True):
            run = copy.deepcopy(network).train()
            run.checkpointed = checkpointed
            counted = counted_block(run)
            torch.manual_seed(6)
            outputs.append(run(images))
            (outputs[-1] * torch.arange(8.0)).sum().backward()
            gradients.append([p.grad for p in run.parameters() if p.requires_grad])
            calls.append(counted.count)
    assert calls == [1, 2]
    assert torch.equal(*outputs)
    assert all(torch.equal(kept, again) for kept, again in zip(*gradients, strict=True))
    assert all(gradient is not None for gradient in gradients[0])


def counted_block(network: Backbone) -> Calls:
    """Wraps the first repeated block of the network."""
    holder = next(
        module
        for name, module in network.named_modules()
        if name in ("layer1", "layers.3.layers", "stages.1", "encoder")
    )
    holder[0] = Calls(holder[0])
    return holder[0]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="got 'iresnet5'. Did you mean iresnet50?"):
        build_backbone("iresnet5")
