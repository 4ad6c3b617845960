"""MobileFaceNet against its layer table, arcface_torch's names and plain formulas."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from facenet.errors import ImageError, SettingsError
from facenet.train.backbones.counting import count_macs, count_parameters
from facenet.train.backbones.mobilefacenet import (
    Bottleneck,
    GlobalDepthwise,
    MobileFaceNetSettings,
    build_mobilefacenet,
)

# training-evaluation.md 2.2: inner width, width, how often, stride; x2 doubles all but the inner.
BOTTLENECKS = (
    (128, 64, 1, 2),
    (128, 64, 4, 1),
    (256, 128, 1, 2),
    (256, 128, 6, 1),
    (512, 128, 1, 2),
    (256, 128, 2, 1),
)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def convolutions(scale: int) -> Iterator[tuple[int, int, int, int, int, bool]]:
    """Channels, width, kernel, groups, side of the output, whether a PReLU follows."""
    side, channels = 56, 64 * scale
    yield 3, channels, 3, 1, side, True
    yield channels, channels, 3, 64, side, True
    for inner, narrow, times, stride in BOTTLENECKS:
        for _ in range(times):
            width = narrow * scale
            yield channels, inner, 1, 1, side, True
            side //= stride
            yield inner, inner, 3, inner, side, True
            yield inner, width, 1, 1, side, False
            channels = width
    yield channels, 512, 1, 1, side, True
    yield 512, 512, 7, 512, 1, False


def by_hand(scale: int, embedding: int) -> tuple[int, int]:
    """Parameters and multiply-adds, summed layer by layer."""
    parameters, macs = 512 * embedding + 2 * embedding, 512 * embedding
    for channels, width, kernel, groups, side, activated in convolutions(scale):
        weights = channels // groups * width * kernel * kernel
        parameters += weights + (3 if activated else 2) * width
        macs += weights * side * side
    return parameters, macs


# Scale, embedding size, then the table: millions of parameters and of multiply-adds.
TABLE = [(1, 128, 1.00, 221), (1, 512, 1.20, 221), (2, 512, 2.06, 438)]


@pytest.mark.parametrize("scale,embedding,millions,mega", TABLE)
def test_sizes_are_those_of_the_table(
    scale: int, embedding: int, millions: float, mega: int
) -> None:
    with torch.device("meta"):
        network = build_mobilefacenet(scale, MobileFaceNetSettings(embedding_size=embedding))
    parameters, macs = count_parameters(network), count_macs(network)
    assert (parameters, macs) == by_hand(scale, embedding)
    assert (round(parameters / 1e6, 2), round(macs / 1e6)) == (millions, mega)


def norm_names(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (width,)
    yield f"{name}.num_batches_tracked", ()


def conv_places() -> Iterator[str]:
    """Where arcface_torch keeps each of the convolutions, in order."""
    yield from ("layers.0", "layers.1")
    for layer, (_, _, times, stride) in enumerate(BOTTLENECKS, 2):
        for number in range(times):
            block = f"layers.{layer}" if stride == 2 else f"layers.{layer}.layers.{number}"
            yield from (f"{block}.layers.{part}" for part in range(3))
    yield from ("conv_sep", "features.layers.0")


def arcface_torch_names(scale: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The state dict of arcface_torch's network: names, shapes and order."""
    for place, conv in zip(conv_places(), convolutions(scale), strict=True):
        channels, width, kernel, groups, _, activated = conv
        yield f"{place}.layers.0.weight", (width, channels // groups, kernel, kernel)
        yield from norm_names(f"{place}.layers.1", width)
        if activated:
            yield f"{place}.layers.2.weight", (width,)
    yield "features.layers.2.weight", (512, 512)
    yield from norm_names("features.layers.3", 512)


@pytest.mark.parametrize("scale", [1, 2])
def test_names_and_shapes_are_those_of_arcface_torch(scale: int) -> None:
    with torch.device("meta"):
        network = build_mobilefacenet(scale)
    got = [(name, tuple(value.shape)) for name, value in network.state_dict().items()]
    assert got == list(arcface_torch_names(scale))


def scrambled(network: torch.nn.Module) -> torch.nn.Module:
    """Numbers in every weight and statistic, so that no layer is the identity."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                shift = 0.1 if name.endswith("running_var") else -0.4
                value.copy_(torch.rand(value.shape, generator=generator) + shift)
    return network.double().eval()


def conv_block(x: Tensor, state: dict[str, Tensor], place: str, **options: int) -> Tensor:
    """Convolution, BatchNorm and, where it has a slope, PReLU, as plain formulas."""
    x = F.conv2d(x, state[f"{place}.layers.0.weight"], **options)
    mean, var, gain, offset = (
        state[f"{place}.layers.1.{part}"][None, :, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    x = (x - mean) / (var + 1e-5).sqrt() * gain + offset
    slope = state.get(f"{place}.layers.2.weight")
    return x if slope is None else torch.where(x > 0, x, x * slope[None, :, None, None])


@pytest.mark.parametrize("residual,stride", [(False, 2), (True, 1)])
def test_a_bottleneck_is_its_formula(residual: bool, stride: int) -> None:
    block = scrambled(Bottleneck(8, 8, 12, stride=stride, residual=residual))
    state, x = block.state_dict(), drawn(2, 8, 6, 6).double()
    out = conv_block(x, state, "layers.0")
    out = conv_block(out, state, "layers.1", stride=stride, padding=1, groups=12)
    out = conv_block(out, state, "layers.2")
    torch.testing.assert_close(block(x), x + out if residual else out)


def test_the_head_weighs_each_place() -> None:
    head = scrambled(GlobalDepthwise(3, 5))
    state, x = head.state_dict(), drawn(2, 512, 3, 3).double()
    weighed = (x * state["layers.0.layers.0.weight"][None, :, 0]).sum(dim=(2, 3))
    norm = torch.nn.BatchNorm2d(512).double().eval()
    norm.load_state_dict({k[18:]: v for k, v in state.items() if k.startswith("layers.0.layers.1")})
    raw = norm(weighed[:, :, None, None]).flatten(1) @ state["layers.2.weight"].T
    spread = (state["layers.3.running_var"] + 1e-5).sqrt()
    raw = (raw - state["layers.3.running_mean"]) / spread
    torch.testing.assert_close(head(x), raw * state["layers.3.weight"] + state["layers.3.bias"])


def test_the_whole_is_its_parts_in_turn_and_ends_in_full_precision() -> None:
    network = build_mobilefacenet(2, MobileFaceNetSettings(embedding_size=16, input_size=48)).eval()
    x = images = drawn(2, 3, 48, 48)
    for modules in network.blocks().values():
        for module in modules:
            x = module(x)
    assert torch.equal(network(images), x)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(images)
    assert (half.shape, half.dtype) == ((2, 16), torch.float32)
    assert float(torch.cosine_similarity(half, x).min().detach()) > 0.98


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SettingsError, match="multiple of 16 from 32 .*; got 100"):
        MobileFaceNetSettings(input_size=100)
    with pytest.raises(SettingsError, match="embedding_size should be between 1 and 8192; got -1"):
        MobileFaceNetSettings(embedding_size=-1)
    with pytest.raises(ImageError, match=r"takes crops \(n, 3, 112, 112\); got \(1, 1, 112, 112\)"):
        build_mobilefacenet()(torch.zeros(1, 1, 112, 112))
