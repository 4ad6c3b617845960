"""SqueezeNet in torch against TensorFlow, ONNX and plain formulas."""

from __future__ import annotations

import pytest
import torch
from network_checks import (
    ByHand,
    check_blocks,
    check_checkpointed,
    check_drawn,
    check_embeddings,
    check_graph,
    counted,
    noise,
    scrambled,
    tensorflow_network,
)
from torch.nn import functional as F

from facenet.errors import ImageError
from facenet.models.convert.squeezenet import squeezenet
from facenet.train.backbones import build_backbone
from facenet.train.backbones.facenet_weights import graph_weights, load_graph_weights
from facenet.train.backbones.inception_resnet_v1 import FacenetSettings
from facenet.train.backbones.squeezenet import Fire, SqueezeNet, same_padded


@pytest.fixture(scope="module")
def network():
    """A small embedding, every gain and statistic away from where it starts."""
    torch.manual_seed(0)
    return scrambled(SqueezeNet(FacenetSettings(embedding_size=16)))


def test_weights_of_a_checkpoint_of_facenet_give_tensorflows_embeddings():
    weights, images, expected = tensorflow_network("squeezenet")
    network = SqueezeNet(FacenetSettings(embedding_size=128))
    load_graph_weights(network, weights)
    check_embeddings(network, images, expected)


@pytest.mark.parametrize("side", [25, 80, 161])
def test_the_onnx_graph_of_the_same_weights_gives_the_same(network, side):
    check_graph(network, squeezenet(graph_weights(network), size=side), side)


def test_the_padding_puts_the_odd_row_and_column_behind():
    x = noise(1, 2, 6, 9)
    got = same_padded(x, side=7, stride=2)
    expected = torch.zeros(1, 2, 11, 15)  # 3 and 5 windows of 7, two apart
    expected[:, :, 2:8, 3:12] = x
    assert torch.equal(got, expected)


def by_hand(size):
    """The table of the seeds' inventory, spelled out."""
    net = ByHand(160).conv(96, 7, stride=2).pool()
    for window, narrow in ((2, (16, 16, 32)), (3, (32, 48, 48, 64)), (0, (64,))):
        for squeezed in narrow:
            wide = 4 * squeezed
            net.conv(squeezed).branches(lambda b, w=wide: b.conv(w), lambda b, w=wide: b.conv(w, 3))
        if window:
            net.pool(window)
    return net.conv(1000, norm=False).bottleneck(size)


def test_sizes_are_those_of_the_table():
    with torch.device("meta"):
        network = build_backbone("squeezenet")
    assert counted(network) == by_hand(512)
    assert (network.embedding_size, network.input_size) == (512, 160)


def test_blocks_part_the_network_and_checkpointing_changes_no_gradient(network):
    fires = [f"fire{number}" for number in range(2, 10)]
    check_blocks(network, ["stem", *fires, "conv10", "embedding"])
    check_checkpointed(network, noise(4, 3, 48, 48))


def test_a_fire_module_is_its_formula():
    torch.manual_seed(4)
    module = scrambled(Fire(8, 4, FacenetSettings())).double().eval()
    state = module.state_dict()

    def unit(name, x, padding):
        x = F.conv2d(x, state[f"{name}.conv.weight"], padding=padding)
        gain, offset, mean, variance = (
            state[f"{name}.bn.{part}"][:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return ((x - mean) / (variance + 0.001).sqrt() * gain + offset).clamp(min=0)

    x = noise(2, 8, 5, 5).double()
    narrow = unit("squeeze", x, 0)
    expected = torch.cat([unit("expand_1x1", narrow, 0), unit("expand_3x3", narrow, 1)], 1)
    assert expected.shape == (2, 32, 5, 5)
    torch.testing.assert_close(module(x), expected)


def test_dropout_stands_in_front_of_the_last_convolution_and_weights_are_xaviers():
    network = SqueezeNet(FacenetSettings(embedding_size=8, dropout=0.5)).train()
    check_drawn(network, lambda fan_in, fan_out: (6 / (fan_in + fan_out)) ** 0.5)
    seen = []
    network.fire9.register_forward_hook(lambda module, given, made: seen.append(made))
    network.conv10.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    network(noise(2, 3, 64, 64))
    before, after = seen
    kept = after != 0
    torch.testing.assert_close(after[kept], before[kept] * 2)
    # about 4,000 values: the standard error of the dropped share is 0.008
    assert abs(float(kept[before > 0].float().mean()) - 0.5) < 0.05


def test_half_precision_ends_in_full_precision(network):
    images = noise(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    network.eval()
    with torch.no_grad():
        exact = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            got = network(images)
    assert got.dtype == torch.float32
    assert float((got - exact).abs().max() / exact.abs().max()) < 0.05


def test_crops_that_are_too_small_are_refused(network):
    with pytest.raises(ImageError, match=r"SqueezeNet takes crops .* at least 25 x 25 pixels; got"):
        network(torch.zeros(1, 3, 24, 24))
