"""MobileNet v1 and v2 against layer-by-layer arithmetic and plain formulas."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from facenet.errors import ImageError, SettingsError
from facenet.train.backbones.counting import count_macs, count_parameters
from facenet.train.backbones.mobilenet import (
    InvertedBottleneck,
    MobileNetSettings,
    build_mobilenet_v1,
    build_mobilenet_v2,
)

BUILDERS = {"v1": build_mobilenet_v1, "v2": build_mobilenet_v2}


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def v1_layers() -> Iterator[tuple[int, int, int, int, int]]:
    """Channels, width, kernel, groups, side of the output of each convolution."""
    side = 112
    yield 3, 32, 3, 1, side
    channels = 32
    for width in (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024):
        if width > channels > 32:
            side //= 2
        yield channels, channels, 3, channels, side
        yield channels, width, 1, 1, side
        channels = width


def v2_layers() -> Iterator[tuple[int, int, int, int, int]]:
    """The same for v2, from the table t, c, n, s of seed-inventory.md 1.6."""
    side, channels = 112, 32
    yield 3, 32, 3, 1, side
    table = "1,16,1,1; 6,24,2,2; 6,32,3,2; 6,64,4,1; 6,96,3,2; 6,160,3,2; 6,320,1,1"
    for row in table.split(";"):
        t, width, count, stride = map(int, row.split(","))
        for number in range(count):
            if t > 1:
                yield channels, t * channels, 1, 1, side
            side //= stride if number == 0 else 1
            yield t * channels, t * channels, 3, t * channels, side
            yield t * channels, width, 1, 1, side
            channels = width
    yield channels, 1280, 1, 1, side


@pytest.mark.parametrize("version", BUILDERS)
def test_sizes_are_those_of_the_layers(version: str) -> None:
    with torch.device("meta"):
        network = BUILDERS[version]()
    layers = list(v1_layers() if version == "v1" else v2_layers())
    last = layers[-1][1]
    full = 7 * 7 * last * 512
    parameters, macs = 2 * last + full + 512 + 2 * 512, full
    for channels, width, kernel, groups, side in layers:
        weights = channels // groups * width * kernel * kernel
        parameters += weights + (3 if version == "v1" else 2) * width  # v1 has a slope each
        macs += weights * side * side
    assert (count_parameters(network), count_macs(network)) == (parameters, macs)
    # The layers before the head, known from the papers: 3.2 M and 2.2 M parameters.
    before = sum(p.numel() for name, p in network.named_parameters() if "head." not in name)
    assert round(before / 1e6, 1) == {"v1": 3.2, "v2": 2.2}[version]


def test_only_v1_keeps_its_gains() -> None:
    with torch.device("meta"):
        v1, v2 = build_mobilenet_v1(), build_mobilenet_v2()
    for network, kept in ((v1, 27), (v2, 0)):
        fixed = [name for name, p in network.named_parameters() if not p.requires_grad]
        assert len(fixed) == kept + 1
        assert "head.features.weight" in fixed


def settled(network: torch.nn.Module) -> torch.nn.Module:
    """Statistics and offsets away from 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith(("running_mean", "running_var", "bias")):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return network.eval()


def conv_norm(x: Tensor, state: dict[str, Tensor], place: str, **options: int) -> Tensor:
    """Convolution and BatchNorm as plain formulas."""
    x = F.conv2d(x, state[f"{place}.0.weight"], **options)
    mean, var, gain, offset = (
        state[f"{place}.1.{part}"][None, :, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * gain + offset


@pytest.mark.parametrize(
    "channels,width,expansion,stride", [(8, 8, 6, 1), (8, 8, 6, 2), (8, 12, 6, 1), (8, 8, 1, 1)]
)
def test_an_inverted_bottleneck_is_its_formula(
    channels: int, width: int, expansion: int, stride: int
) -> None:
    block = settled(InvertedBottleneck(channels, width, expansion=expansion, stride=stride))
    state, out = block.state_dict(), (x := drawn(2, channels, 6, 6))
    places = iter(("layers.0", "layers.1", "layers.2"))
    if expansion > 1:
        out = conv_norm(out, state, next(places)).clamp(min=0)
    inner = channels * expansion
    out = conv_norm(out, state, next(places), stride=stride, padding=1, groups=inner).clamp(min=0)
    out = conv_norm(out, state, next(places))
    shortcut = stride == 1 and channels == width
    torch.testing.assert_close(block(x), x + out if shortcut else out, atol=1e-5, rtol=1e-5)


def test_a_separable_block_is_its_formula() -> None:
    small = MobileNetSettings(embedding_size=4, head="C", input_size=32)
    block = settled(build_mobilenet_v1(small).stages[1][0])
    state, x = block.state_dict(), drawn(2, 64, 8, 8)
    out = F.prelu(conv_norm(x, state, "0", stride=2, padding=1, groups=64), state["0.2.weight"])
    out = F.prelu(conv_norm(out, state, "1"), state["1.2.weight"])
    torch.testing.assert_close(block(x), out, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("version", BUILDERS)
def test_the_whole_is_its_parts_in_turn(version: str) -> None:
    settings = MobileNetSettings(embedding_size=16, head="CX", input_size=32)
    network = BUILDERS[version](settings).eval()
    x = images = drawn(2, 3, 32, 32)
    for modules in network.blocks().values():
        for module in modules:
            x = module(x)
    assert x.shape == (2, 16)
    assert torch.equal(network(images), x)


def test_dropout_is_insightfaces_unless_set() -> None:
    for dropout, share in ((None, 0.4), (0.0, 0.0), (0.2, 0.2)):
        with torch.device("meta"):
            network = build_mobilenet_v2(MobileNetSettings(dropout=dropout))
        assert network.get_submodule("head.dropout").p == share


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SettingsError, match="head should be one of A.*got 'GDC'"):
        MobileNetSettings(head="GDC")
    with pytest.raises(SettingsError, match="Head J has no dropout to set; got dropout 0.4"):
        MobileNetSettings(head="J", dropout=0.4)
    with pytest.raises(SettingsError, match="dropout should be a share .* got -0.1"):
        MobileNetSettings(dropout=-0.1)
    with pytest.raises(SettingsError, match="multiple of 16 from 32 .*; got 120"):
        MobileNetSettings(input_size=120)
    with pytest.raises(ImageError, match=r"takes crops \(n, 3, 32, 32\); got \(3, 32, 32\)"):
        build_mobilenet_v2(MobileNetSettings(head="H", input_size=32))(torch.zeros(3, 32, 32))
