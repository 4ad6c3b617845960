"""Small graphs and engines with the inputs and outputs of YuNet; none has its weights.

`looking` draws its own weights from a seed, `Seer` finds the bright rectangles of a picture as
YuNet finds faces: not those that are too small or too large for it.
"""

import cv2
import numpy as np
from detector_graphs import packed, port
from onnx import helper

STRIDES = (8, 16, 32)
PARTS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
FIVE = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])


def looking(*, seed=0, size=None, batch=1, names="{part}_{stride}", declared=True):
    """One convolution per table, of the stride's own size, with scores all over 0 to 1.

    size: width and height, or None for any. names: of the outputs. declared: widths are.
    """
    random = np.random.default_rng(seed)
    nodes, outputs, constants = [], [], {}
    for part, width in PARTS.items():
        for stride in STRIDES:
            own, name = f"{part}{stride}", names.format(part=part, stride=stride)
            kernel = random.standard_normal((width, 3, stride, stride)) / stride / 160
            if part == "kps":
                kernel *= 2
            constants[f"k{own}"] = kernel.astype(np.float32)
            shift = {"cls": 0.5, "obj": 0.5, "bbox": 0.4, "kps": 0.0}[part]
            constants[f"b{own}"] = np.full(width, shift, np.float32)
            constants[f"s{own}"] = np.array([batch, -1, width], np.int64)
            nodes += [
                helper.make_node(
                    "Conv", ["input", f"k{own}", f"b{own}"], [f"c{own}"], strides=[stride, stride]
                ),
                helper.make_node("Transpose", [f"c{own}"], [f"t{own}"], perm=[0, 2, 3, 1]),
            ]
            if width == 1:
                nodes += [
                    helper.make_node("Reshape", [f"t{own}", f"s{own}"], [f"r{own}"]),
                    helper.make_node("Sigmoid", [f"r{own}"], [name]),
                ]
            else:
                nodes.append(helper.make_node("Reshape", [f"t{own}", f"s{own}"], [name]))
            outputs.append(port(name, [batch, "cells", width if declared else "wide"]))
    sides = list(size[::-1]) if size else ["height", "width"]
    return packed(nodes, [port("input", [batch, 3, *sides])], outputs, constants)


def blank(size):
    """Tables without a face: name -> (1, cells, width)."""
    return {
        f"{part}_{stride}": np.zeros((1, (size[0] // stride) * (size[1] // stride), width), "f4")
        for part, width in PARTS.items()
        for stride in STRIDES
    }


def write_face(tables, size, stride, box, *, score=0.9, landmarks=None):
    """Write one face, in pixels of the picture the network sees, into the cell of its centre."""
    x1, y1, x2, y2 = box
    columns, rows = size[0] // stride, size[1] // stride
    column = min(int((x1 + x2) / 2 // stride), columns - 1)
    row = min(int((y1 + y2) / 2 // stride), rows - 1)
    cell = row * columns + column
    tables[f"cls_{stride}"][0, cell] = tables[f"obj_{stride}"][0, cell] = score
    middle = np.array([(x1 + x2) / 2, (y1 + y2) / 2]) / stride - [column, row]
    tables[f"bbox_{stride}"][0, cell] = [*middle, *np.log(np.array([x2 - x1, y2 - y1]) / stride)]
    if landmarks is not None:
        points = np.asarray(landmarks) / stride - [column, row]
        tables[f"kps_{stride}"][0, cell] = points.ravel()


class Told:
    """An engine of one input shape that gives these tables. shapes: of the pictures it saw."""

    def __init__(self, tables, shape=(1, 3, None, None)):
        self.inputs = {"input": shape} if shape is not None else {}
        self.tables, self.seen = tables, []

    def run(self, feeds):
        (picture,) = feeds.values()
        self.seen.append(picture.copy())
        return self.tables

    def describe(self):
        return {}


class Seer(Told):
    """Finds bright rectangles whose longer side has 20 to 500 pixels, with five points in each."""

    def __init__(self, shape=(1, 3, None, None)):
        super().__init__(None, shape)
        self.shapes = []

    def run(self, feeds):
        (picture,) = feeds.values()
        height, width = picture.shape[2:]
        self.shapes.append((width, height))
        tables = blank((width, height))
        bright = (picture[0].mean(axis=0) > 127).astype(np.uint8)
        for x, y, wide, high, _ in cv2.connectedComponentsWithStats(bright)[2][1:]:
            box = np.array([x, y, x + wide, y + high], float)
            if 20 <= max(wide, high) <= 500:
                stride = STRIDES[int(max(wide, high) > 48) + int(max(wide, high) > 160)]
                points = box[:2] + FIVE * (box[2:] - box[:2])
                write_face(tables, (width, height), stride, box, landmarks=points)
        return tables
