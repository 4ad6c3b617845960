"""Inception-ResNet-v2 in torch against TensorFlow, ONNX and plain formulas."""

from __future__ import annotations

import pytest
import torch
from network_checks import (
    ByHand,
    check_blocks,
    check_checkpointed,
    check_embeddings,
    check_graph,
    counted,
    noise,
    scrambled,
    tensorflow_network,
)
from torch.nn import functional as F

from facenet.errors import ImageError, ModelFileError
from facenet.models.convert.inception_resnet_v2 import inception_resnet_v2
from facenet.train.backbones import build_backbone
from facenet.train.backbones.facenet_weights import graph_weights, load_graph_weights
from facenet.train.backbones.inception_resnet_v1 import FacenetSettings
from facenet.train.backbones.inception_resnet_v2 import InceptionResnetV2, Mixed5b


@pytest.fixture(scope="module")
def network():
    """A small embedding, every gain and statistic away from where it starts."""
    torch.manual_seed(0)
    return scrambled(InceptionResnetV2(FacenetSettings(embedding_size=16)))


def test_weights_of_a_checkpoint_of_facenet_give_tensorflows_embeddings():
    weights, images, expected = tensorflow_network("inception_resnet_v2")
    network = InceptionResnetV2(FacenetSettings(embedding_size=128))
    load_graph_weights(network, weights)
    check_embeddings(network, images, expected)


def test_the_onnx_graph_of_the_same_weights_gives_the_same(network):
    weights = graph_weights(network)
    check_graph(network, inception_resnet_v2(weights, size=75), 75)
    with pytest.raises(ModelFileError, match="weights of InceptionResnetV2, but .* is missing"):
        load_graph_weights(network, {n: v for n, v in weights.items() if "Mixed_5b" not in n})


def by_hand(size):
    """The table of the seeds' inventory, spelled out."""
    net = ByHand(160)
    net.conv(32, 3, stride=2, pad=False).conv(32, 3, pad=False).conv(64, 3).pool()
    net.conv(80).conv(192, 3, pad=False).pool()
    net.branches(
        lambda b: b.conv(96),
        lambda b: b.conv(48).conv(64, 5),
        lambda b: b.conv(64).conv(96, 3).conv(96, 3),
        lambda b: b.conv(64),
    )
    for _ in range(10):
        net.branches(
            lambda b: b.conv(32),
            lambda b: b.conv(32).conv(32, 3),
            lambda b: b.conv(32).conv(48, 3).conv(64, 3),
        ).conv(320, norm=False)
    net.branches(
        lambda b: b.conv(384, 3, stride=2, pad=False),
        lambda b: b.conv(256).conv(256, 3).conv(384, 3, stride=2, pad=False),
        keep=True,
    )
    for _ in range(20):
        net.branches(
            lambda b: b.conv(192), lambda b: b.conv(128).conv(160, 1, 7).conv(192, 7, 1)
        ).conv(1088, norm=False)
    net.branches(
        lambda b: b.conv(256).conv(384, 3, stride=2, pad=False),
        lambda b: b.conv(256).conv(288, 3, stride=2, pad=False),
        lambda b: b.conv(256).conv(288, 3).conv(320, 3, stride=2, pad=False),
        keep=True,
    )
    for _ in range(10):
        net.branches(
            lambda b: b.conv(192), lambda b: b.conv(192).conv(224, 1, 3).conv(256, 3, 1)
        ).conv(2080, norm=False)
    return net.conv(1536).bottleneck(size)


def test_sizes_are_those_of_the_table():
    with torch.device("meta"):
        network = build_backbone("inception_resnet_v2")
    assert counted(network) == by_hand(512)
    assert (network.embedding_size, network.input_size) == (512, 160)


def test_blocks_part_the_network_and_checkpointing_changes_no_gradient(network):
    middle = ["mixed_5b", "repeat_1", "mixed_6a", "repeat_2", "mixed_7a", "repeat_3", "block8"]
    check_blocks(network, ["stem", *middle, "conv2d_7b", "embedding"])
    check_checkpointed(network, noise(2, 3, 75, 75))


def test_the_pooled_branch_of_mixed_5b_is_a_mean_of_the_cells_there_are():
    torch.manual_seed(4)
    module = Mixed5b(192, FacenetSettings()).eval()
    x = noise(1, 192, 4, 5)
    mean = torch.empty_like(x)
    for row in range(4):
        for column in range(5):
            cells = x[:, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            mean[:, :, row, column] = cells.mean((2, 3))
    expected = F.conv2d(mean, module.branch3.conv.weight).clamp(min=0) / 1.001**0.5
    torch.testing.assert_close(module(x)[:, -64:], expected)
    assert module(x).shape == (1, 320, 4, 5)


def test_crops_that_are_too_small_are_refused(network):
    with pytest.raises(ImageError, match=r"Inception-ResNet-v2 takes crops .* 75 x 75 pixels; got"):
        network(torch.zeros(1, 3, 160, 74))
