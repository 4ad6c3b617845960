"""DenseNet for faces against published sizes, layer-by-layer arithmetic and plain formulas."""

from __future__ import annotations

import pytest
import torch
from network_checks import (
    check_blocks,
    check_checkpointed,
    check_drawn,
    counted,
    noise,
    scrambled,
)
from torch import nn
from torch.nn import functional as F

from facenet.errors import ImageError, SettingsError
from facenet.train.backbones import BACKBONES, build_backbone
from facenet.train.backbones.densenet import (
    DenseNet,
    DenseNetSettings,
    DensePlan,
    DenseUnit,
    Transition,
)

STEM = (
    (3 * 64 * 9 + 128 + 64) + (128 + 64 * 64 * 9 + 128 + 64 + 64 * 64 * 9 + 128) + (64 * 64 + 128)
)
"""Convolution, BN, PReLU; BN, convolution, BN, PReLU, convolution, BN; the shortcut and its BN."""
# units, growth, last channels, parameters of torchvision's network for the 1000 classes of ImageNet
PUBLISHED = {
    121: ((6, 12, 24, 16), 32, 1024, 7_978_856),
    161: ((6, 12, 36, 24), 48, 2208, 28_681_000),
    169: ((6, 12, 32, 32), 32, 1664, 14_149_480),
    201: ((6, 12, 48, 32), 32, 1920, 20_013_928),
}


def head(channels: int, size: int = 512) -> int:
    """Parameters of head E on 7 x 7 cells: BN, full connection with bias, BN."""
    return 2 * channels + 49 * channels * size + size + 2 * size


def multiply_adds(units: tuple[int, ...], growth: int) -> int:
    side, channels, width = 112, 64, 2 * growth
    macs = 3 * 64 * 9 * side**2 + 64 * 64 * 9 * side**2
    side = 56
    macs += (64 * 64 * 9 + 64 * 64) * side**2
    for number, count in enumerate(units):
        for _ in range(count):
            macs += (channels * 4 * growth + 4 * growth * growth * 9) * side**2
            channels += growth
        if number < 3:
            width = (width + count * growth) // 2
            macs += channels * width * side**2
            side, channels = side // 2, width
    return macs + channels * 49 * 512


@pytest.mark.parametrize("layers", PUBLISHED)
def test_sizes_are_the_published_ones_with_another_stem_and_head(layers):
    units, growth, channels, published = PUBLISHED[layers]
    with torch.device("meta"):
        network = build_backbone(f"densenet{layers}")
    dense = published - (1000 * channels + 1000) - 2 * channels - (3 * 49 + 2) * 2 * growth
    narrower = 2 * growth - 64  # channels that InsightFace's stem has less than the paper's
    dense -= (6 + 1) * (2 * narrower + narrower * 4 * growth)
    assert counted(network) == (dense + STEM + head(channels), multiply_adds(units, growth))
    assert (network.embedding_size, network.input_size) == (512, 112)
    assert BACKBONES[f"densenet{layers}"].input_size == 112


def test_a_transition_of_161_halves_what_the_paper_counts():
    with torch.device("meta"):
        network = build_backbone("densenet161")
    # 64 + 6 * 48 channels come, half of 96 + 6 * 48 go
    assert network.transition1.conv.weight.shape == (192, 352, 1, 1)


def normed(x, state, name, epsilon=2e-5):
    gain, offset, mean, variance = (
        state[f"{name}.{part}"][:, None, None]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / (variance + epsilon).sqrt() * gain + offset


def test_a_unit_and_a_transition_are_their_formulas():
    torch.manual_seed(4)
    unit = scrambled(DenseUnit(6, 4, 0.2)).double().eval()
    state = unit.state_dict()
    x = noise(2, 6, 5, 4).double()
    new = F.conv2d(normed(x, state, "bn1").clamp(min=0), state["conv1.weight"])
    new = F.conv2d(normed(new, state, "bn2").clamp(min=0), state["conv2.weight"], padding=1)
    assert new.shape[1] == 4
    torch.testing.assert_close(unit(x), torch.cat([x, new], 1))
    transition = scrambled(Transition(6, 3, 0.2)).double().eval()
    state = transition.state_dict()
    y = F.conv2d(normed(x, state, "bn").clamp(min=0), state["conv.weight"])
    y = y[:, :, :4].reshape(2, 3, 2, 2, 2, 2).mean((3, 5))  # the fifth row has no partner
    torch.testing.assert_close(transition(x), y)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    settings = DenseNetSettings(embedding_size=8, input_size=32)
    return scrambled(DenseNet(DensePlan((2, 1, 2, 1), 8), settings))


def test_the_whole_is_its_blocks_in_turn(network):
    stages = [f"{part}{n}" for n in (1, 2, 3) for part in ("stage", "transition")]
    check_blocks(network, ["stem", *stages, "stage4", "embedding"])
    check_checkpointed(network, noise(3, 3, 32, 32))
    images = x = noise(2, 3, 32, 32)
    network.eval()
    for modules in network.blocks().values():
        for module in modules:
            x = module(x)
    assert network(images).shape == (2, 8)
    assert torch.equal(network(images), x)


def test_dropout_and_first_weights_are_insightfaces():
    network = DenseNet(DensePlan((2, 1, 2, 1), 8), DenseNetSettings(embedding_size=8))
    shares = [m.p for m in network.modules() if isinstance(m, nn.Dropout)]
    assert sorted(shares) == [0.2] * 9 + [0.4]  # units, transitions, head
    check_drawn(network, lambda fan_in, fan_out: (2 / fan_in) ** 0.5)
    dry = DenseNet(DensePlan((1, 1, 1, 1), 8), DenseNetSettings(dropout=0, unit_dropout=0))
    assert {m.p for m in dry.modules() if isinstance(m, nn.Dropout)} == {0.0}
    other = DenseNetSettings(embedding_size=8, head="B", dropout=0, input_size=48)
    assert DenseNet(DensePlan((1, 1, 1, 1), 8), other)(noise(2, 3, 48, 48)).shape == (2, 8)


BAD = [
    ({"head": "Z"}, "head should be one of A.*; got 'Z'"),
    ({"head": "G"}, "Head G has no dropout to set; got dropout 0.4. Set it to 0, or take head E"),
    ({"unit_dropout": 1.0}, "unit_dropout should be a share .* below 1; got 1.0"),
    ({"input_size": 100}, "input_size should be a multiple of 16 from 16 .*; got 100"),
    ({"embedding_size": -1}, "embedding_size should be .*; got -1"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        DenseNetSettings(**options)


def test_crops_of_another_size_are_refused(network):
    with pytest.raises(ImageError, match=r"takes crops \(n, 3, 32, 32\); got \(1, 3, 48, 48\)"):
        network(torch.zeros(1, 3, 48, 48))
