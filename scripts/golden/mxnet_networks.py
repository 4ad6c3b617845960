"""Genuine files of MXNet 1.9.1, small networks with random weights, and what MXNet makes of them.

Two networks with the layers of InsightFace's: `lresnet` (LResNet-IR with squeeze and excitation,
ended by `E`: BatchNorm, Dropout, dense, BatchNorm) and `mobile` (depth-wise convolutions, ended
by a global depth-wise one). Both begin with (x - 127.5) * 0.0078125, as the published files do.
"""

import json
import tempfile
from pathlib import Path

import mxnet as mx
import numpy as np

TARGET = Path(__file__).resolve().parents[2] / "tests/golden/mxnet_networks.npz"
SEED, SIDE = 2018, 112


def unit(name, data, width, stride, *, match):
    """BatchNorm, convolution, BatchNorm, PReLU, convolution, BatchNorm, SE; plus the way round."""
    sym = mx.sym
    top = sym.BatchNorm(data, fix_gamma=False, eps=2e-5, momentum=0.9, name=f"{name}_bn1")
    top = sym.Convolution(
        top, num_filter=width, kernel=(3, 3), pad=(1, 1), no_bias=True, name=f"{name}_conv1"
    )
    top = sym.BatchNorm(top, fix_gamma=False, eps=2e-5, name=f"{name}_bn2")
    top = sym.LeakyReLU(top, act_type="prelu", name=f"{name}_relu1")
    top = sym.Convolution(
        top,
        num_filter=width,
        kernel=(3, 3),
        stride=(stride, stride),
        pad=(1, 1),
        no_bias=True,
        name=f"{name}_conv2",
    )
    top = sym.BatchNorm(top, fix_gamma=False, eps=2e-5, name=f"{name}_bn3")
    gate = sym.Pooling(
        top, global_pool=True, kernel=(7, 7), pool_type="avg", name=f"{name}_se_pool1"
    )
    gate = sym.Convolution(gate, num_filter=2, kernel=(1, 1), name=f"{name}_se_conv1")
    gate = sym.Activation(gate, act_type="relu", name=f"{name}_se_relu1")
    gate = sym.Convolution(gate, num_filter=width, kernel=(1, 1), name=f"{name}_se_conv2")
    gate = sym.Activation(gate, act_type="sigmoid", name=f"{name}_se_sigmoid")
    top = sym.broadcast_mul(top, gate)
    if not match:
        data = sym.Convolution(
            data,
            num_filter=width,
            kernel=(1, 1),
            stride=(stride, stride),
            no_bias=True,
            name=f"{name}_conv1sc",
        )
        data = sym.BatchNorm(data, fix_gamma=False, eps=2e-5, name=f"{name}_sc")
    return top + data


def start():
    """The input, standardised inside the graph."""
    data = mx.sym.identity(mx.sym.Variable("data"), name="id")
    return (data - 127.5) * 0.0078125


def lresnet(dimension=24):
    """Four stages of one or two units."""
    sym = mx.sym
    top = sym.Convolution(
        start(), num_filter=6, kernel=(3, 3), pad=(1, 1), no_bias=True, name="conv0"
    )
    top = sym.BatchNorm(top, fix_gamma=False, eps=2e-5, name="bn0")
    top = sym.LeakyReLU(top, act_type="prelu", name="relu0")
    for stage, width in enumerate((6, 8, 8, 10), start=1):
        top = unit(f"stage{stage}_unit1", top, width, 2, match=False)
    top = unit("stage4_unit2", top, 10, 1, match=True)
    top = sym.BatchNorm(top, fix_gamma=False, eps=2e-5, name="bn1")
    top = sym.Dropout(top, p=0.4)
    top = sym.FullyConnected(top, num_hidden=dimension, name="pre_fc1")
    return sym.BatchNorm(top, fix_gamma=True, eps=2e-5, name="fc1")


def mobile(dimension=20):
    """Plain, depth-wise and global depth-wise convolutions, max pooling, and other activations."""
    sym = mx.sym
    top = sym.Convolution(
        start(), num_filter=8, kernel=(3, 3), stride=(2, 2), pad=(1, 1), no_bias=True, name="conv_1"
    )
    top = sym.BatchNorm(top, fix_gamma=True, name="conv_1_bn")
    top = sym.LeakyReLU(top, act_type="leaky", slope=0.1, name="conv_1_relu")
    top = sym.Pooling(top, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="max", name="pool")
    top = sym.Convolution(
        top,
        num_filter=8,
        num_group=8,
        kernel=(3, 3),
        dilate=(2, 2),
        pad=(2, 2),
        name="conv_2_dw",
    )
    top = sym.Activation(top, act_type="tanh", name="tanh")
    top = sym.Pooling(top, kernel=(2, 2), stride=(2, 2), pool_type="avg", name="half")
    top = sym.Convolution(top, num_filter=12, kernel=(1, 1), no_bias=True, name="conv_3")
    top = sym.Convolution(
        top, num_filter=12, num_group=12, kernel=(14, 14), no_bias=True, name="conv_6dw"
    )
    top = sym.Flatten(top)
    return sym.FullyConnected(top, num_hidden=dimension, no_bias=True, name="fc1")


def drawn(symbol, random):
    """Weights and statistics of a network by name."""
    shapes, _, states = symbol.infer_shape(data=(2, 3, SIDE, SIDE))
    made = {}
    for name, shape in [
        *zip(symbol.list_arguments(), shapes, strict=True),
        *zip(symbol.list_auxiliary_states(), states, strict=True),
    ]:
        if name == "data":
            continue
        if name.endswith(("_var", "_gamma")):
            values = random.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            values = random.uniform(-0.2, 0.4, shape)
        else:
            reach = np.sqrt(4 / np.prod(shape[1:]))
            values = random.uniform(-reach, reach, shape)
        made[name] = mx.nd.array(values.astype(np.float32))
    return made


def main():
    """Save both networks with MXNet, run them, and write files and answers."""
    random = np.random.default_rng(SEED)
    images = random.integers(0, 256, (2, 3, SIDE, SIDE)).astype(np.uint8)
    golden = {"seed": np.array(SEED)}  # the images are the first that come of it
    for name, symbol in (("lresnet", lresnet()), ("mobile", mobile())):
        weights = drawn(symbol, random)
        executor = symbol.simple_bind(mx.cpu(), data=images.shape, grad_req="null")
        states = set(symbol.list_auxiliary_states())
        executor.copy_params_from(
            {k: v for k, v in weights.items() if k not in states},
            {k: v for k, v in weights.items() if k in states},
        )
        (answer,) = executor.forward(is_train=False, data=mx.nd.array(images.astype(np.float32)))
        with tempfile.TemporaryDirectory() as folder:
            arguments = {k: v for k, v in weights.items() if k not in states}
            aux = {k: v for k, v in weights.items() if k in states}
            mx.model.save_checkpoint(f"{folder}/m", 0, symbol, arguments, aux)
            golden[f"{name}_symbol"] = np.frombuffer(
                Path(folder, "m-symbol.json").read_bytes(), np.uint8
            )
            golden[f"{name}_params"] = np.frombuffer(
                Path(folder, "m-0000.params").read_bytes(), np.uint8
            )
        golden[f"{name}_output"] = answer.asnumpy()
        ops = {n["op"] for n in json.loads(symbol.tojson())["nodes"]}
        print(name, sorted(ops), answer.shape, float(answer.asnumpy().std()))
    golden["versions"] = np.array([f"mxnet {mx.__version__}", f"numpy {np.__version__}"])
    np.savez_compressed(TARGET, **golden)
    print(TARGET, TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
