"""Dual path networks for faces against published sizes, arithmetic and plain formulas."""

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
from torch.nn import functional as F

from facenet.errors import ImageError, SettingsError
from facenet.train.backbones import build_backbone
from facenet.train.backbones.dpn import DpnSettings, DualPath, DualPathNetwork, DualPlan, Part

STEM = (
    (3 * 64 * 9 + 128 + 64) + (128 + 64 * 64 * 9 + 128 + 64 + 64 * 64 * 9 + 128) + (64 * 64 + 128)
)
"""Convolution, BN, PReLU; BN, convolution, BN, PReLU, convolution, BN; the shortcut and its BN."""
# k_R, G, blocks, growth of the seeds' inventory
TABLE = {
    68: (128, 32, (3, 4, 12, 3), (16, 32, 32, 64)),
    92: (96, 32, (3, 4, 20, 3), (16, 32, 24, 128)),
    107: (200, 50, (4, 8, 20, 3), (20, 64, 64, 128)),
    131: (160, 40, (4, 8, 28, 3), (16, 32, 32, 128)),
}
# channels of the 7x7 stem and millions of parameters of the ImageNet networks, 1000 classes
PUBLISHED = {92: (64, 37.67), 107: (128, 86.92), 131: (128, 79.25)}


def by_hand(layers: int, *, stem: int = 64) -> tuple[int, int, int]:
    """Channels at the end, parameters and multiply-adds of conv2 to conv5."""
    narrow, groups, counts, growths = TABLE[layers]
    parameters = macs = 0
    side, channels = 56, stem
    for number, (count, growth) in enumerate(zip(counts, growths, strict=True)):
        width, inside = 256 * 2**number, narrow * 2**number
        for place in range(count):
            after = side // 2 if number and not place else side
            if not place:
                wide = width + 2 * growth
                parameters += 2 * channels + channels * wide
                macs += channels * wide * after**2
            grouped, last = inside * (inside // groups) * 9, inside * (width + growth)
            parameters += 2 * channels + channels * inside + 4 * inside + grouped + last
            macs += channels * inside * side**2 + (grouped + last) * after**2
            channels = (channels if place else width + 2 * growth) + growth
            side = after
    assert side == 7
    return channels, parameters, macs


@pytest.mark.parametrize("layers", TABLE)
def test_sizes_are_those_of_the_table(layers):
    with torch.device("meta"):
        network = build_backbone(f"dpn{layers}")
    channels, parameters, macs = by_hand(layers)
    full = channels * 49 * 512
    parameters += STEM + 2 * channels + full + 512 + 2 * 512
    macs += (3 * 64 * 9 + 64 * 64 * 9) * 112**2 + (64 * 64 * 9 + 64 * 64) * 56**2 + full
    assert counted(network) == (parameters, macs)
    assert (network.embedding_size, network.input_size) == (512, 112)


@pytest.mark.parametrize("layers", PUBLISHED)
def test_the_same_arithmetic_gives_the_published_networks(layers):
    stem, millions = PUBLISHED[layers]
    channels, parameters, _ = by_hand(layers, stem=stem)
    parameters += (3 * 49 + 2) * stem + 2 * channels + 1000 * channels + 1000
    assert round(parameters / 1e6, 2) == millions


@pytest.mark.parametrize("projected", [True, False])
def test_a_block_is_its_formula(projected):
    torch.manual_seed(4)
    part, stride = Part(width=8, narrow=4, groups=2, growth=3), 2 if projected else 1
    block = scrambled(DualPath(14, part, stride=stride, projected=projected)).double().eval()
    state = block.state_dict()

    def conv(name, x, **options):
        gain, offset, mean, variance = (
            state[f"{name}.bn.{part}"][:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        x = ((x - mean) / (variance + 1e-3).sqrt() * gain + offset).clamp(min=0)
        return F.conv2d(x, state[f"{name}.conv.weight"], **options)

    x = noise(2, 14, 6, 6).double()
    residual, dense = torch.split(x, [8, 6], 1)
    if projected:
        residual, dense = torch.split(conv("project", x, stride=2), [8, 6], 1)
    new = conv("c", conv("b", conv("a", x), padding=1, stride=stride, groups=2))
    assert new.shape[1] == 8 + 3
    expected = torch.cat([residual + new[:, :8], dense, new[:, 8:]], 1)
    torch.testing.assert_close(block(x), expected)


PLAN = DualPlan(4, 2, (1, 2, 2, 1), (4, 8, 4, 4))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return scrambled(DualPathNetwork(PLAN, DpnSettings(embedding_size=8, input_size=32)))


def test_the_whole_is_its_blocks_in_turn(network):
    check_blocks(network, ["stem", "conv2", "conv3", "conv4", "conv5", "embedding"])
    check_checkpointed(network, noise(3, 3, 32, 32))
    images = x = noise(2, 3, 32, 32)
    network.eval()
    for modules in network.blocks().values():
        for module in modules:
            x = module(x)
    assert network(images).shape == (2, 8)
    assert torch.equal(network(images), x)
    fresh = DualPathNetwork(PLAN, DpnSettings(embedding_size=8, input_size=32))
    check_drawn(fresh, lambda fan_in, fan_out: (2 / fan_in) ** 0.5)


def test_what_does_not_fit_is_refused(network):
    with pytest.raises(SettingsError, match="Head A has no dropout to set; got dropout 0.4"):
        DpnSettings(head="A")
    with pytest.raises(SettingsError, match="head should be one of A.*; got 'K'"):
        DpnSettings(head="K")
    with pytest.raises(SettingsError, match="input_size should be a multiple of 16 .*; got 8"):
        DpnSettings(input_size=8)
    with pytest.raises(SettingsError, match="Head A gives the 2688 channels .* embedding_size 512"):
        build_backbone("dpn92", DpnSettings(head="A", dropout=0))
    with pytest.raises(ImageError, match=r"takes crops \(n, 3, 32, 32\); got \(1, 3, 32, 16\)"):
        network(torch.zeros(1, 3, 32, 16))
