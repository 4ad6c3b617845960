"""Small ONNX graphs with the inputs and outputs of InsightFace's detectors.

No weights of InsightFace are in here: `convolving` draws its own from a seed, `answering` gives
tables that the test wrote, whatever it is shown.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

STRIDES = {6: (8, 16, 32), 9: (8, 16, 32), 10: (8, 16, 32, 64, 128), 15: (8, 16, 32, 64, 128)}
ANCHORS = {6: 2, 9: 2, 10: 1, 15: 1}
WIDTHS = {6: (1, 4), 9: (1, 4, 10), 10: (1, 4), 15: (1, 4, 10)}


def port(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def packed(nodes, inputs, outputs, constants):
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "detector", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def convolving(count, *, seed=0, size=None, batched=False, order=None, declared=None):
    """A detector of `count` outputs: one convolution per table, of the stride's own size.

    size: width and height, or None for any. batched: tables have a leading axis of one.
    order: the outputs in another order. The first tables are scores, as in InsightFace.
    declared: cells are declared as of pictures with this side, whatever the input; the published
    detectors were exported so.
    """
    random = np.random.default_rng(seed)
    nodes, outputs, constants = [], [], {}
    for width in WIDTHS[count]:
        for stride in STRIDES[count]:
            name = f"{width}_{stride}"
            channels = width * ANCHORS[count]
            kernel = random.standard_normal((channels, 3, stride, stride)) / stride
            shift = {1: -1.2, 4: 2.0, 10: 0.0}[width]
            constants[f"k{name}"] = kernel.astype(np.float32)
            constants[f"b{name}"] = np.full(channels, shift, np.float32)
            constants[f"s{name}"] = np.array([1, -1, width] if batched else [-1, width], np.int64)
            inputs = ["input.1", f"k{name}", f"b{name}"]
            nodes += [
                helper.make_node("Conv", inputs, [f"c{name}"], strides=[stride, stride]),
                helper.make_node("Transpose", [f"c{name}"], [f"t{name}"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"t{name}", f"s{name}"], [f"r{name}"]),
                helper.make_node(
                    {1: "Sigmoid", 4: "Abs", 10: "Identity"}[width], [f"r{name}"], [name]
                ),
            ]
            cells = declared and (declared // stride) ** 2 * ANCHORS[count]
            outputs.append(port(name, [1, cells, width] if batched else [cells, width]))
    outputs = [outputs[k] for k in order] if order is not None else outputs
    sides = list(size[::-1]) if size else ["?", "?"]
    return packed(nodes, [port("input.1", [1, 3, *sides])], outputs, constants)


def answering(tables, *, size):
    """A detector of one size that always gives these tables: a list of (cells, width) arrays."""
    names = [f"out{number}" for number in range(len(tables))]
    nodes = [helper.make_node("Identity", [f"in{name}"], [name]) for name in names]
    constants = {f"in{name}": t.astype(np.float32) for name, t in zip(names, tables, strict=True)}
    outputs = [port(name, list(t.shape)) for name, t in zip(names, tables, strict=True)]
    return packed(nodes, [port("input.1", [1, 3, size[1], size[0]])], outputs, constants)


def blank(count, size):
    """Tables without a face for a detector of `count` outputs."""
    return [
        np.zeros(((size[0] // s) * (size[1] // s) * ANCHORS[count], width), np.float32)
        for width in WIDTHS[count]
        for s in STRIDES[count]
    ]


def write_face(tables, count, size, *, cell, score, box, landmarks=None):
    """Write one face, in pixels of the picture the network sees.

    cell: level, column, row, anchor.
    """
    level, column, row, anchor = cell
    levels, stride = len(STRIDES[count]), STRIDES[count][level]
    place = (row * (size[0] // stride) + column) * ANCHORS[count] + anchor
    x, y = column * stride, row * stride
    tables[level][place] = score
    x1, y1, x2, y2 = box
    tables[levels + level][place] = np.array([x - x1, y - y1, x2 - x, y2 - y]) / stride
    if landmarks is not None:
        tables[2 * levels + level][place] = (np.array(landmarks) - [x, y]).ravel() / stride
