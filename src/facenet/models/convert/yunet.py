"""What an ONNX file of YuNet is, seen from its inputs and outputs. Nothing is run here.

Source: `FaceDetectorYN` of OpenCV, which reads the twelve outputs by the names that
ShiqiYu/libfacedetection.train gives them; here their widths tell, so that a graph whose outputs
were renamed or put into another order is known too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from facenet.models.convert.front import picture_port, sides_of

STRIDES: Final = (8, 16, 32)
"""Pixels between the cells of each grid."""
WIDTHS: Final = (1, 1, 4, 10)
"""Values for a cell in the tables of each grid: two scores, a box, five landmarks."""
NAMES: Final = {f"{part}_{s}" for part in ("cls", "obj", "bbox", "kps") for s in STRIDES}
"""Names of the outputs as published."""
TITLE: Final = "YuNet, a detector with five landmarks"


def is_yunet(data: bytes) -> bool:
    """Whether an ONNX file takes one picture and gives the tables of YuNet.

    data: what `plainonnx.check_graph` let pass.
    """
    import onnx

    graph = onnx.ModelProto.FromString(data).graph
    port = picture_port(graph)
    sides = [] if port is None else sides_of(port)
    if len(sides) != 4 or sides[0] not in (None, 1) or sides[1] != 3 or len(graph.output) != 12:
        return False
    widths = Counter((sides_of(output) or [None])[-1] for output in graph.output)
    if None in widths:
        return {output.name for output in graph.output} == NAMES
    return widths == Counter(WIDTHS * len(STRIDES))


def fits_yunet(shapes: Iterable[tuple[int, ...]], size: tuple[int, int]) -> bool:
    """Whether the outputs for a picture of this width and height can be read.

    shapes: of the outputs, such as (cells, 4) or (1, cells, 4), in any order.
    """
    tables = {shape[-2:] for shape in shapes if len(shape) == 2 or shape[:-2] == (1,)}
    if any(side % STRIDES[-1] for side in size):
        return False
    cells = [(size[0] // stride) * (size[1] // stride) for stride in STRIDES]
    return tables == {(count, width) for count in cells for width in WIDTHS}
