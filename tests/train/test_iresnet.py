"""iResNet against layer-by-layer arithmetic, arcface_torch's names and plain formulas."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from facenet.errors import ImageError, SettingsError
from facenet.train.backbones.counting import count_macs, count_parameters
from facenet.train.backbones.iresnet import (
    IResNet,
    IResNetSettings,
    ResidualBlock,
    build_iresnet,
)

# training-evaluation.md 2.1: blocks, parameters in millions, multiply-adds in thousand millions.
TABLE = {
    18: ((2, 2, 2, 2), 24.03, 2.61),
    34: ((3, 4, 6, 3), 34.14, 4.46),
    50: ((3, 4, 14, 3), 43.59, 6.31),
    100: ((3, 13, 30, 3), 65.16, 12.09),
    200: ((6, 26, 60, 6), 118.8, 23.42),
}


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def by_hand(depths: tuple[int, ...], *, embedding: int = 512, side: int = 112) -> tuple[int, int]:
    """Parameters and multiply-adds, summed layer by layer."""
    parameters = 3 * 64 * 9 + 2 * 64 + 64
    macs = 3 * 64 * 9 * side * side
    channels = 64
    for width, depth in zip((64, 128, 256, 512), depths, strict=True):
        for number in range(depth):
            before, after = side, side // 2 if number == 0 else side
            convolutions = channels * width * 9, width * width * 9
            parameters += 2 * channels + sum(convolutions) + 2 * width + width + 2 * width
            macs += convolutions[0] * before**2 + convolutions[1] * after**2
            if number == 0:
                parameters += channels * width + 2 * width
                macs += channels * width * after**2
            side, channels = after, width
    full = 512 * side * side * embedding
    return parameters + 2 * 512 + full + embedding + 2 * embedding, macs + full


@pytest.mark.parametrize("depth", TABLE)
def test_sizes_are_those_of_the_table(depth: int) -> None:
    blocks, millions, thousand_millions = TABLE[depth]
    with torch.device("meta"):
        network = build_iresnet(depth)
    parameters, macs = count_parameters(network), count_macs(network)
    assert (parameters, macs) == by_hand(blocks)
    assert round(parameters / 1e6, 1 if depth == 200 else 2) == millions
    assert round(macs / 1e9, 2) == thousand_millions


def test_squeeze_and_excitation_adds_two_small_layers_a_block() -> None:
    with torch.device("meta"):
        plain, se = (build_iresnet(18, IResNetSettings(se=flag)) for flag in (False, True))
    squeezed = [2 * w * (w // 16) for w in (64, 128, 256, 512) for _ in range(2)]
    learned = [w + 2 * (w // 16) for w in (64, 128, 256, 512) for _ in range(2)]
    assert count_macs(se) - count_macs(plain) == sum(squeezed)
    assert count_parameters(se) - count_parameters(plain) == sum(squeezed) + sum(learned)


def norm_names(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (width,)
    yield f"{name}.num_batches_tracked", ()


def arcface_torch_names(depths: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The state dict of arcface_torch's network: names, shapes and order."""
    yield "conv1.weight", (64, 3, 3, 3)
    yield from norm_names("bn1", 64)
    yield "prelu.weight", (64,)
    channels = 64
    for stage, (width, depth) in enumerate(zip((64, 128, 256, 512), depths, strict=True), 1):
        for number in range(depth):
            block = f"layer{stage}.{number}"
            yield from norm_names(f"{block}.bn1", channels)
            yield f"{block}.conv1.weight", (width, channels, 3, 3)
            yield from norm_names(f"{block}.bn2", width)
            yield f"{block}.prelu.weight", (width,)
            yield f"{block}.conv2.weight", (width, width, 3, 3)
            yield from norm_names(f"{block}.bn3", width)
            if number == 0:
                yield f"{block}.downsample.0.weight", (width, channels, 1, 1)
                yield from norm_names(f"{block}.downsample.1", width)
            channels = width
    yield from norm_names("bn2", 512)
    yield from (("fc.weight", (512, 25088)), ("fc.bias", (512,)))
    yield from norm_names("features", 512)


@pytest.mark.parametrize("depth", [18, 100])
def test_names_and_shapes_are_those_of_arcface_torch(depth: int) -> None:
    with torch.device("meta"):
        network = build_iresnet(depth)
    got = [(name, tuple(value.shape)) for name, value in network.state_dict().items()]
    assert got == list(arcface_torch_names(TABLE[depth][0]))


def scrambled(network: torch.nn.Module) -> torch.nn.Module:
    """Numbers in every weight and statistic, so that no layer is the identity."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) * 0.5 + 0.1)
    return network


def normed(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    mean, var, gain, offset = (
        state[f"{name}.{part}"][None, :, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * gain + offset


@pytest.mark.parametrize("stride,channels", [(2, 16), (1, 32)])
@pytest.mark.parametrize("se", [False, True])
def test_a_block_is_its_formula(stride: int, channels: int, se: bool) -> None:
    block = scrambled(ResidualBlock(channels, 32, stride=stride, se=se)).double().eval()
    state = block.state_dict()
    x = drawn(2, channels, 6, 6).double() - 1
    out = F.conv2d(normed(x, state, "bn1"), state["conv1.weight"], padding=1)
    out = normed(out, state, "bn2") - 8  # on both sides of the PReLU's corner
    state["bn2.bias"] -= 8
    out = torch.where(out > 0, out, out * state["prelu.weight"][None, :, None, None])
    out = normed(F.conv2d(out, state["conv2.weight"], stride=stride, padding=1), state, "bn3")
    if se:
        squeezed = out.mean(dim=(2, 3)) @ state["se.conv1.weight"][:, :, 0, 0].T
        squeezed = F.prelu(squeezed + state["se.conv1.bias"], state["se.prelu.weight"])
        factors = squeezed @ state["se.conv2.weight"][:, :, 0, 0].T + state["se.conv2.bias"]
        out = out * torch.sigmoid(factors)[:, :, None, None]
    shortcut = x
    if stride == 2:
        narrowed = torch.einsum(
            "nchw,oc->nohw", x[:, :, ::2, ::2], state["downsample.0.weight"][:, :, 0, 0]
        )
        shortcut = normed(narrowed, state, "downsample.1")
    torch.testing.assert_close(block(x), out + shortcut)


def test_the_whole_is_its_parts_in_turn() -> None:
    settings = IResNetSettings(embedding_size=8, input_size=32, dropout=0.3)
    network = scrambled(IResNet((1, 2, 1, 1), settings)).eval()
    assert (network.embedding_size, network.input_size) == (8, 32)
    x = images = drawn(2, 3, 32, 32)
    for modules in network.blocks().values():
        for module in modules:
            x = module(x)
    got = network(images)
    assert got.dtype == torch.float32
    assert torch.equal(got, x)


def test_every_head_fits_and_starts_as_it_says() -> None:
    x = drawn(2, 3, 32, 32)
    for head, size in (("A", 512), ("DX", 8), ("G", 8), ("J", 8)):
        settings = IResNetSettings(embedding_size=size, head=head, input_size=32, zero_init=True)
        network = IResNet((1, 1, 1, 1), settings)
        assert network(x).shape == (2, size)
    block = network.layer2[0]
    assert not block.bn3.weight.any()
    assert block.bn2.weight.all()
    # 9 * 512 * 512 draws: the standard error of their deviation is 0.1 / sqrt(2 n) = 5e-5.
    assert float(network.layer4[0].conv2.weight.detach().std()) == pytest.approx(0.1, abs=3e-4)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SettingsError, match="depth should be one of 18, .*200; got '101'"):
        build_iresnet(101)
    with pytest.raises(SettingsError, match="head should be one of A.*got 'e'"):
        IResNetSettings(head="e")
    with pytest.raises(SettingsError, match="Head G has no dropout to set; got dropout 0.4"):
        IResNetSettings(head="G", dropout=0.4)
    for size in (100, 16, 10**9):
        with pytest.raises(SettingsError, match=f"multiple of 16 from 32 .*; got {size}"):
            IResNetSettings(input_size=size)
    small = IResNet((1, 1, 1, 1), IResNetSettings(embedding_size=4, input_size=32))
    with pytest.raises(ImageError, match=r"takes crops \(n, 3, 32, 32\); got \(1, 3, 48, 48\)"):
        small(torch.zeros(1, 3, 48, 48))
