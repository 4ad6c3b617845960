"""Inception-ResNet-v1 in torch against facenet-pytorch, TensorFlow, ONNX and plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from network_checks import (
    GOLDEN,
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

from facenet.errors import ImageError, ModelFileError, SettingsError
from facenet.models.convert.inception_resnet_v1 import BLOCK8, BLOCK35, inception_resnet_v1
from facenet.models.convert.keras import convert_keras, read_keras_weights
from facenet.train.backbones import build_backbone
from facenet.train.backbones.facenet_weights import graph_weights, load_graph_weights
from facenet.train.backbones.inception_resnet_v1 import (
    FacenetSettings,
    InceptionResnetV1,
    Residual,
)


@pytest.fixture(scope="module")
def network():
    """A small embedding, every gain and statistic away from where it starts."""
    torch.manual_seed(0)
    return scrambled(InceptionResnetV1(FacenetSettings(embedding_size=16)))


def draw(seed, name, shape, row):
    """As in scripts/golden/facenet_pytorch_inception.py, which ran facenet-pytorch with these."""
    random = np.random.default_rng([seed, row])
    if name.endswith("running_var"):
        values = random.uniform(0.5, 1.5, shape)
    elif name.endswith(("bn.weight", "last_bn.weight")):
        values = random.uniform(0.7, 1.3, shape)
    elif len(shape) == 1:
        values = random.uniform(-0.2, 0.2, shape)
    else:
        reach = np.sqrt(4.5 / np.prod(shape[1:]))
        values = random.uniform(-reach, reach, shape)
    return torch.from_numpy(values.astype(np.float32))


def test_state_dicts_of_facenet_pytorch_load_strictly_and_give_its_embeddings():
    golden = np.load(GOLDEN / "facenet_pytorch_inception.npz")
    seed = int(golden["seed"])
    rows = enumerate(zip(golden["names"].tolist(), golden["shapes"], strict=True))
    state = {
        name: draw(seed, name, tuple(side for side in shape if side), row)
        for row, (name, shape) in rows
        if not name.startswith("logits")
    }
    network = build_backbone("inception_resnet_v1").eval()
    ours = network.state_dict()
    counters = [name for name in ours if name.endswith("num_batches_tracked")]
    assert len(counters) == 112  # of the published files, which the golden names leave out
    assert [name for name in ours if name not in counters] == list(state)  # its order too
    network.load_state_dict(state | {name: torch.tensor(9) for name in counters}, strict=True)
    images = np.random.default_rng(seed).uniform(-1, 1, (2, 3, 160, 160)).astype(np.float32)
    check_embeddings(network, torch.from_numpy(images), golden["prelogits"])


def test_weights_of_a_checkpoint_of_facenet_give_tensorflows_embeddings():
    weights, images, expected = tensorflow_network("inception_resnet_v1")
    network = InceptionResnetV1(FacenetSettings(embedding_size=512))
    load_graph_weights(network, weights)
    check_embeddings(network, images, expected)
    back = graph_weights(network)
    assert back.keys() == weights.keys()
    assert all(np.array_equal(back[name], weights[name]) for name in weights)


def test_the_onnx_graph_of_the_same_weights_gives_the_same(network):
    weights = graph_weights(network)
    check_graph(network, inception_resnet_v1(weights, size=75), 75)
    other = InceptionResnetV1(FacenetSettings(embedding_size=16))
    load_graph_weights(other, weights)  # the gains are inside the kernels now
    assert all(bool((m.bn.weight == 1).all()) for m in other.modules() if hasattr(m, "bn"))
    images = noise(2, 3, 80, 80)
    with torch.no_grad():
        check_embeddings(network, images, other.eval()(images).numpy())


def test_published_weights_give_the_embedding_of_the_card(msceleb_file):
    data = msceleb_file.read_bytes()
    network = build_backbone("inception_resnet_v1", FacenetSettings(embedding_size=128))
    load_graph_weights(network, read_keras_weights(data))
    check_graph(network, convert_keras(data), 160)


def by_hand(size):
    """The table of the seeds' inventory, spelled out."""
    net = ByHand(160)
    net.conv(32, 3, stride=2, pad=False).conv(32, 3, pad=False).conv(64, 3).pool()
    net.conv(80).conv(192, 3, pad=False).conv(256, 3, stride=2, pad=False)
    for _ in range(5):
        net.branches(
            lambda b: b.conv(32),
            lambda b: b.conv(32).conv(32, 3),
            lambda b: b.conv(32).conv(32, 3).conv(32, 3),
        ).conv(256, norm=False)
    net.branches(
        lambda b: b.conv(384, 3, stride=2, pad=False),
        lambda b: b.conv(192).conv(192, 3).conv(256, 3, stride=2, pad=False),
        keep=True,
    )
    for _ in range(10):
        net.branches(
            lambda b: b.conv(128), lambda b: b.conv(128).conv(128, 1, 7).conv(128, 7, 1)
        ).conv(896, norm=False)
    net.branches(
        lambda b: b.conv(256).conv(384, 3, stride=2, pad=False),
        lambda b: b.conv(256).conv(256, 3, stride=2, pad=False),
        lambda b: b.conv(256).conv(256, 3).conv(256, 3, stride=2, pad=False),
        keep=True,
    )
    for _ in range(6):
        net.branches(
            lambda b: b.conv(192), lambda b: b.conv(192).conv(192, 1, 3).conv(192, 3, 1)
        ).conv(1792, norm=False)
    return net.bottleneck(size)


def test_sizes_are_those_of_the_tables():
    with torch.device("meta"):
        network = build_backbone("inception_resnet_v1")
    parameters, macs = counted(network)
    assert (parameters, macs) == by_hand(512)
    assert parameters == 23_482_624
    assert round(macs / 1e9, 2) == 1.42
    assert (network.embedding_size, network.input_size) == (512, 160)


def test_blocks_part_the_network_and_checkpointing_changes_no_gradient(network):
    middle = ["repeat_1", "mixed_6a", "repeat_2", "mixed_7a", "repeat_3", "block8"]
    check_blocks(network, ["stem", *middle, "embedding"])
    check_checkpointed(network, noise(2, 3, 75, 75))


@pytest.mark.parametrize(
    ("block", "channels", "last"), [(BLOCK35, 256, False), (BLOCK8, 1792, True)]
)
def test_a_residual_block_is_its_formula(block, channels, last):
    torch.manual_seed(4)
    module = scrambled(Residual(channels, block, FacenetSettings(), last=last)).double().eval()
    state = module.state_dict()

    def unit(name, x):
        kernel = state[f"{name}.conv.weight"]
        x = F.conv2d(x, kernel, padding=(kernel.shape[2] // 2, kernel.shape[3] // 2))
        gain, offset, mean, variance = (
            state[f"{name}.bn.{part}"][:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return ((x - mean) / (variance + 0.001).sqrt() * gain + offset).clamp(min=0)

    x = noise(2, channels, 4, 4).double()
    ends = [unit("branch0", x), unit("branch1.1", unit("branch1.0", x))]
    if last:
        ends[1] = unit("branch1.2", ends[1])
    else:
        ends.append(unit("branch2.2", unit("branch2.1", unit("branch2.0", x))))
    up = F.conv2d(torch.cat(ends, 1), state["conv2d.weight"], state["conv2d.bias"])
    expected = x + up if last else (x + 0.17 * up).clamp(min=0)
    torch.testing.assert_close(module(x.clone()), expected)
    assert bool((expected < 0).any()) == last


def test_options_do_what_they_say():
    plain = InceptionResnetV1(FacenetSettings())
    norms = [m for m in plain.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 112
    assert {(norm.eps, norm.momentum) for norm in norms} == {(0.001, 0.005)}
    assert not any(norm.weight.requires_grad for norm in norms)
    assert all(norm.bias.requires_grad and bool((norm.weight == 1).all()) for norm in norms)
    check_drawn(plain, lambda fan_in, fan_out: (6 / (fan_in + fan_out)) ** 0.5)
    settings = FacenetSettings(embedding_size=8, dropout=0.6, bn_momentum=0.1, gamma=True)
    other = InceptionResnetV1(settings)
    assert all(parameter.requires_grad for parameter in other.parameters())
    assert {m.momentum for m in other.modules() if hasattr(m, "momentum")} == {0.1}
    seen = []
    other.last_linear.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    other(noise(4, 3, 75, 75))
    # 4 * 1792 values: the standard error of the dropped share is 0.006
    assert abs(float((seen[0] == 0).float().mean()) - 0.6) < 0.03


BAD = [
    ({"embedding_size": 0}, "embedding_size should be .*; got 0"),
    ({"dropout": 1.0}, "dropout should be .*; got 1.0"),
    ({"bn_momentum": 0.0}, "bn_momentum should be a share above 0 and at most 1; got 0.0"),
    ({"bn_momentum": float("nan")}, "got nan. 0.005 is facenet's"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        FacenetSettings(**options)


def test_crops_that_are_too_small_are_refused(network):
    for shape in ((1, 3, 74, 160), (1, 1, 160, 160), (3, 160, 160)):
        with pytest.raises(ImageError, match=r"Inception-ResNet-v1 takes crops .* 75 x 75 pixels"):
            network(torch.zeros(shape))


def test_weights_of_another_network_are_refused_and_nothing_changes(network):
    weights = graph_weights(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    name, bias = "Mixed_7a_Branch_2_Conv2d_1a_3x3/kernel", "Block8_6_Conv2d_1x1/bias"
    cases = [
        ({k: v for k, v in weights.items() if k != bias}, f"'{bias}' is missing"),
        (weights | {name: weights[name][:1]}, "expected .* to fit a tensor .256, 256, 3, 3."),
        (weights | {bias: weights[bias] * np.nan}, f"expected finite weights, .* '{bias}' are not"),
        (weights | {"Block8_7/kernel": weights[bias]}, "but there is also 'Block8_7/kernel'"),
    ]
    for case, message in cases:
        with pytest.raises(ModelFileError, match=message):
            load_graph_weights(network, case)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
