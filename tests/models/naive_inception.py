"""Inception-ResNet-v1 written down once more, in NumPy and float64, and Keras files of it.

The network runs as it was trained: kernel, then batch normalisation, then ReLU; the scale of a
residual block is applied to its result. Weights are drawn where they are used, so the layers and
their shapes are spelled out here and taken from nowhere. Source: facenet's own
`inception_resnet_v1.py`, as in the table of Szegedy et al. (2016).
"""

import io

import h5py
import numpy as np


def convolve(x, kernel, stride=1, pad=(0, 0)):
    """x (n, h, w, in), kernel (h, w, in, out); pad: rows and columns of zeros on each side."""
    x = np.pad(x, ((0, 0), (pad[0], pad[0]), (pad[1], pad[1]), (0, 0)))
    high, wide = kernel.shape[:2]
    rows, columns = (x.shape[1] - high) // stride + 1, (x.shape[2] - wide) // stride + 1
    return sum(
        x[:, i : i + rows * stride : stride, j : j + columns * stride : stride][:, :rows, :columns]
        @ kernel[i, j].astype(np.float64)
        for i in range(high)
        for j in range(wide)
    )


def largest(x):
    """The largest of 3 x 3, stride 2, unpadded."""
    rows = (x.shape[1] - 3) // 2 + 1
    parts = [x[:, i : i + 2 * rows : 2, j : j + 2 * rows : 2] for i in range(3) for j in range(3)]
    return np.max([part[:, :rows, :rows] for part in parts], axis=0)


class Naive:
    """weights: what was drawn, LAYER/VARIABLE -> float32 array."""

    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)
        self.weights = {}

    def draw(self, name, *shape, scale=1.0, shift=0.0):
        values = self.random.standard_normal(shape, np.float32) * np.float32(scale)
        self.weights[name] = values + np.float32(shift)
        return self.weights[name].astype(np.float64)

    def normalise(self, name, x):
        width = x.shape[-1]
        beta = self.draw(f"{name}_BatchNorm/beta", width, scale=0.1)
        mean = self.draw(f"{name}_BatchNorm/moving_mean", width, scale=0.1)
        variance = self.draw(f"{name}_BatchNorm/moving_variance", width, scale=0.02, shift=0.2)
        return (x - mean) / np.sqrt(variance + 0.001) + beta

    def unit(self, name, x, width, high=1, wide=1, stride=1, same=True):
        scale = 0.6 / np.sqrt(high * wide * x.shape[-1])
        kernel = self.draw(f"{name}/kernel", high, wide, x.shape[-1], width, scale=scale)
        x = convolve(x, kernel, stride, (high // 2, wide // 2) if same else (0, 0))
        return np.maximum(self.normalise(name, x), 0)

    def widen(self, name, x, branches, scale):
        joined = np.concatenate(branches, axis=-1)
        wide = x.shape[-1]
        kernel = self.draw(f"{name}_Conv2d_1x1/kernel", 1, 1, joined.shape[-1], wide, scale=0.1)
        bias = self.draw(f"{name}_Conv2d_1x1/bias", wide, scale=0.1)
        return x + scale * (joined @ kernel[0, 0] + bias)

    def block35(self, name, x):
        b0 = self.unit(f"{name}_Branch_0_Conv2d_1x1", x, 32)
        b1 = self.unit(f"{name}_Branch_1_Conv2d_0a_1x1", x, 32)
        b1 = self.unit(f"{name}_Branch_1_Conv2d_0b_3x3", b1, 32, 3, 3)
        b2 = self.unit(f"{name}_Branch_2_Conv2d_0a_1x1", x, 32)
        b2 = self.unit(f"{name}_Branch_2_Conv2d_0b_3x3", b2, 32, 3, 3)
        b2 = self.unit(f"{name}_Branch_2_Conv2d_0c_3x3", b2, 32, 3, 3)
        return np.maximum(self.widen(name, x, [b0, b1, b2], 0.17), 0)

    def mixed_6a(self, x):
        b0 = self.unit("Mixed_6a_Branch_0_Conv2d_1a_3x3", x, 384, 3, 3, 2, False)
        b1 = self.unit("Mixed_6a_Branch_1_Conv2d_0a_1x1", x, 192)
        b1 = self.unit("Mixed_6a_Branch_1_Conv2d_0b_3x3", b1, 192, 3, 3)
        b1 = self.unit("Mixed_6a_Branch_1_Conv2d_1a_3x3", b1, 256, 3, 3, 2, False)
        return np.concatenate([b0, b1, largest(x)], axis=-1)

    def block17(self, name, x):
        b0 = self.unit(f"{name}_Branch_0_Conv2d_1x1", x, 128)
        b1 = self.unit(f"{name}_Branch_1_Conv2d_0a_1x1", x, 128)
        b1 = self.unit(f"{name}_Branch_1_Conv2d_0b_1x7", b1, 128, 1, 7)
        b1 = self.unit(f"{name}_Branch_1_Conv2d_0c_7x1", b1, 128, 7, 1)
        return np.maximum(self.widen(name, x, [b0, b1], 0.1), 0)

    def mixed_7a(self, x):
        b0 = self.unit("Mixed_7a_Branch_0_Conv2d_0a_1x1", x, 256)
        b0 = self.unit("Mixed_7a_Branch_0_Conv2d_1a_3x3", b0, 384, 3, 3, 2, False)
        b1 = self.unit("Mixed_7a_Branch_1_Conv2d_0a_1x1", x, 256)
        b1 = self.unit("Mixed_7a_Branch_1_Conv2d_1a_3x3", b1, 256, 3, 3, 2, False)
        b2 = self.unit("Mixed_7a_Branch_2_Conv2d_0a_1x1", x, 256)
        b2 = self.unit("Mixed_7a_Branch_2_Conv2d_0b_3x3", b2, 256, 3, 3)
        b2 = self.unit("Mixed_7a_Branch_2_Conv2d_1a_3x3", b2, 256, 3, 3, 2, False)
        return np.concatenate([b0, b1, b2, largest(x)], axis=-1)

    def block8(self, name, x, scale):
        b0 = self.unit(f"{name}_Branch_0_Conv2d_1x1", x, 192)
        b1 = self.unit(f"{name}_Branch_1_Conv2d_0a_1x1", x, 192)
        b1 = self.unit(f"{name}_Branch_1_Conv2d_0b_1x3", b1, 192, 1, 3)
        b1 = self.unit(f"{name}_Branch_1_Conv2d_0c_3x1", b1, 192, 3, 1)
        return self.widen(name, x, [b0, b1], scale)

    def run(self, x, dimension):
        """x (n, 160, 160, 3) -> (n, dimension)."""
        x = self.unit("Conv2d_1a_3x3", x.astype(np.float64), 32, 3, 3, 2, False)
        x = self.unit("Conv2d_2a_3x3", x, 32, 3, 3, 1, False)
        x = largest(self.unit("Conv2d_2b_3x3", x, 64, 3, 3))
        x = self.unit("Conv2d_3b_1x1", x, 80)
        x = self.unit("Conv2d_4a_3x3", x, 192, 3, 3, 1, False)
        x = self.unit("Conv2d_4b_3x3", x, 256, 3, 3, 2, False)
        for number in range(1, 6):
            x = self.block35(f"Block35_{number}", x)
        x = self.mixed_6a(x)
        for number in range(1, 11):
            x = self.block17(f"Block17_{number}", x)
        x = self.mixed_7a(x)
        for number in range(1, 6):
            x = np.maximum(self.block8(f"Block8_{number}", x, 0.2), 0)
        x = self.block8("Block8_6", x, 1.0).mean(axis=(1, 2))
        dense = self.draw("Bottleneck/kernel", 1792, dimension, scale=0.02)
        return self.normalise("Bottleneck", x @ dense)


def keras_file(weights, *, whole=True, change=None):
    """The bytes of a Keras 2 file with these arrays.

    whole: with the group `model_weights` of a whole model and an attribute nobody should read.
    change: called with the group of the layers before the file is closed.
    """
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        top = file.create_group("model_weights") if whole else file
        top.create_group("Dropout")
        for name, values in weights.items():
            layer, variable = name.split("/")
            top.require_group(layer).require_group(layer).create_dataset(
                f"{variable}:0", data=values
            )
        if whole:
            file.attrs["model_config"] = b"\x80\x04cos\nsystem\n"
        if change:
            change(top)
    return stream.getvalue()
