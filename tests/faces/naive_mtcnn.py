"""MTCNN once more, box by box in plain Python, with nets that are small formulas.

Written from the paper and the two systems' conventions, apart from `facenet.faces.mtcnn`: the
tests compare the two. Everything is float64 here but one division, see `cells`.
"""

from dataclasses import dataclass
from math import ceil, floor

import cv2
import numpy as np


class ToyNet:
    """An `Engine` for P-, R- or O-net: smooth formulas of the pixels, so that a rounding error
    in a pixel stays as small in the answer. steps: of the scores between 0 and 1, so that many
    are equal. shapes: of the inputs of every run."""

    def __init__(self, net, *, seed=0, steps=None):
        self.net, self.steps, self.shapes = net, steps, []
        self.side = {"pnet": 12, "rnet": 24, "onet": 48}[net]
        generator = np.random.RandomState(seed)
        values = {"pnet": 5, "rnet": 5, "onet": 15}[net]
        self.weights = generator.standard_normal((values, 3 * 3 * 3)) * 1.5

    @property
    def inputs(self):
        return {"image": (None, 3, *((None, None) if self.net == "pnet" else (self.side,) * 2))}

    def describe(self):
        return {"engine": "toy", "precision": "fp32"}

    def run(self, feeds):
        image = feeds["image"].astype(np.float64)
        self.shapes.append(image.shape)
        raw = self.cells(image) if self.net == "pnet" else np.stack([*map(self.field, image)])
        score = logistic(4 * raw[:, 0])
        answer = {
            "score": np.round(score * self.steps) / self.steps if self.steps else score,
            "offset": 0.2 * np.tanh(raw[:, 1:5]),
            "landmark": logistic(raw[:, 5:]),
        }
        names = list(answer) if self.net == "onet" else list(answer)[:2]
        return {name: answer[name].astype(np.float32) for name in names}

    def cells(self, image):
        """The fields of 12 x 12 pixels at every second pixel, as many as P-net has."""
        rows, columns = (ceil((side - 2) / 2) - 4 for side in image.shape[2:])
        raw = np.empty((len(image), 5, rows, columns))
        for number, row, column in np.ndindex(len(image), rows, columns):
            part = image[number, :, 2 * row : 2 * row + 12, 2 * column : 2 * column + 12]
            raw[number, :, row, column] = self.field(part)
        return raw

    def field(self, part):
        """Weighted means of the nine blocks of a field of view: one number per output."""
        rows, columns = (np.array_split(np.arange(side), 3) for side in part.shape[1:])
        means = [part[:, r][:, :, c].mean(axis=(1, 2)) for r in rows for c in columns]
        return self.weights @ np.concatenate(means)


def logistic(x):
    return 1 / (1 + np.exp(-x))


def toy_nets(steps=None):
    names = ("pnet", "rnet", "onet")
    return {name: ToyNet(name, seed=seed, steps=steps) for seed, name in enumerate(names)}


@dataclass(frozen=True)
class Ties:
    """The order of equal scores. digits: scores are equal when these decimals are (None: all).
    turned, turned_last: the other of two equal ones wins, before and in the last suppression."""

    digits: int | None = None
    turned: bool = False
    turned_last: bool = False

    def ranked(self, rows, *, later, last=False):
        """Rows (box, score, ...), the best first; of equal ones the later, or the earlier."""
        sign = -1 if later != (self.turned_last if last else self.turned) else 1

        def key(number):
            score = rows[number][1]
            return -(score if self.digits is None else round(score, self.digits)), sign * number

        return [rows[number] for number in sorted(range(len(rows)), key=key)]


def detect(image, nets, *, settings, ties=Ties()):
    """(box, score, landmarks) of every face of one picture, the largest first."""
    boxes = proposals(image, nets["pnet"], settings, ties)
    boxes = refined(image, nets["rnet"], boxes, settings, ties)
    faces = output(image, nets["onet"], boxes, settings, ties)
    return sorted(faces, key=lambda face: -area(face[0], 0))


def is_peer(settings):
    """Whether facenet-pytorch's conventions hold, else facenet's."""
    return settings.exactness == "facenet-pytorch"


def proposals(image, net, settings, ties):
    """P-net: (box, score) of the cells of all levels, suppressed twice, moved and squared."""
    peer, found = is_peer(settings), []
    height, width = image.shape[:2]
    level, first = 0, 12 / settings.min_face_size
    scale, side = first, min(height, width) * first
    while side >= 12:
        rows, columns = (floor(n * scale + 1) if peer else ceil(n * scale) for n in (height, width))
        if peer:
            pixels = area_mean(image, rows, columns)
        else:
            pixels = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
        level_cells = cells(net, pixels, scale, settings.thresholds[0], peer)
        found += suppressed(level_cells, 0.5, peer, ties)
        side, level = side * settings.factor, level + 1
        scale = scale * settings.factor if peer else first * settings.factor**level
    moved = []
    for box, score, offset in suppressed(found, 0.7, peer, ties):
        wide, high = box[2] - box[0], box[3] - box[1]
        size = (wide, high, wide, high)
        moved.append(
            (square([v + m * s for v, m, s in zip(box, offset, size, strict=True)]), score)
        )
    return moved


def cells(net, pixels, scale, threshold, peer):
    """(box, score, offset) of every cell that reaches the threshold."""
    answer = net.run({"image": blob(pixels)})
    score, offset = answer["score"][0], answer["offset"][0]
    rows, columns = score.shape
    real = np.float32 if peer else float  # 9 / 0.6 is 15, but 14.999999 in float32
    if peer:
        places = [(row, column) for row in range(rows) for column in range(columns)]
    else:
        places = [(row, column) for column in range(columns) for row in range(rows)]
    places = [place for place in places if score[place] >= threshold]
    found = []
    for row, column in places:
        box = [floor(real(2 * i + e) / real(scale)) for e in (1, 12) for i in (column, row)]
        source = columns - 1 - column if not peer and len(places) == 1 else column
        found.append((box, float(score[row, column]), offset[:, row, source].astype(float)))
    return found


def refined(image, net, boxes, settings, ties):
    """R-net: (box, score) of what passes, suppressed, moved and squared."""
    peer, judged = is_peer(settings), []
    for box, _ in boxes:
        answer = judge(image, net, box, peer)
        if answer and answer["score"][0] > settings.thresholds[1]:
            kept = box if peer else [int(v) for v in box]
            judged.append((kept, float(answer["score"][0]), answer["offset"][0].astype(float)))
    return [
        (square(regressed(box, offset)), score)
        for box, score, offset in suppressed(judged, 0.7, peer, ties)
    ]


def output(image, net, boxes, settings, ties):
    """O-net: (box, score, landmarks) of what passes, moved and suppressed."""
    peer, faces = is_peer(settings), []
    for box, _ in boxes:
        answer = judge(image, net, box, peer)
        if not answer or answer["score"][0] <= settings.thresholds[2]:
            continue
        x1, y1, x2, y2 = box if peer else [int(v) for v in box]
        share = answer["landmark"][0].astype(float)
        points = [
            ((x2 - x1 + 1) * share[i] + x1 - 1, (y2 - y1 + 1) * share[5 + i] + y1 - 1)
            for i in range(5)
        ]
        moved = regressed((x1, y1, x2, y2), answer["offset"][0].astype(float))
        faces.append((moved, float(answer["score"][0]), points))
    kept = []
    for face in ties.ranked(faces, later=True, last=True):
        smaller = [shared(face[0], k[0], 1) / min(area(face[0], 1), area(k[0], 1)) for k in kept]
        if all(share <= 0.7 for share in smaller):
            kept.append(face)
    return kept


def judge(image, net, box, peer):
    """The answer of R- or O-net for one box, None when it holds no pixel of the picture."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (int(v) for v in box)
    left, top, right, bottom = max(x1, 1), max(y1, 1), min(x2, width), min(y2, height)
    if right < left or bottom < top:
        return None
    if peer:
        crop = area_mean(image[top - 1 : bottom, left - 1 : right], net.side, net.side)
    else:
        padded = np.zeros((y2 - y1 + 1, x2 - x1 + 1, 3))
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                padded[y - y1, x - x1] = image[y - 1, x - 1]
        crop = cv2.resize(padded, (net.side, net.side), interpolation=cv2.INTER_AREA)
    return net.run({"image": blob(crop)})


def suppressed(found, threshold, peer, ties):
    """Greedy suppression of rows (box, score, ...); facenet's takes the later of equal scores."""
    pixel = 0 if peer else 1
    kept = []
    for row in ties.ranked(found, later=not peer):
        shares = []
        for other in kept:
            both = shared(row[0], other[0], pixel)
            shares.append(both / (area(row[0], pixel) + area(other[0], pixel) - both))
        if all(share <= threshold for share in shares):
            kept.append(row)
    return kept


def area(box, pixel):
    return (box[2] - box[0] + pixel) * (box[3] - box[1] + pixel)


def shared(a, b, pixel):
    width = min(a[2], b[2]) - max(a[0], b[0]) + pixel
    height = min(a[3], b[3]) - max(a[1], b[1]) + pixel
    return max(width, 0) * max(height, 0)


def regressed(box, offset):
    wide, high = box[2] - box[0] + 1, box[3] - box[1] + 1
    return [v + m * s for v, m, s in zip(box, offset, (wide, high, wide, high), strict=True)]


def square(box):
    side = max(box[2] - box[0], box[3] - box[1])
    left = (box[0] + box[2]) / 2 - side / 2
    top = (box[1] + box[3]) / 2 - side / 2
    return [left, top, left + side, top + side]


def area_mean(part, height, width):
    """Adaptive area mean: each output pixel is the mean of the input pixels it touches."""
    rows, columns = part.shape[:2]
    out = np.empty((height, width, 3))
    for i in range(height):
        top, bottom = floor(i * rows / height), ceil((i + 1) * rows / height)
        for j in range(width):
            left, right = floor(j * columns / width), ceil((j + 1) * columns / width)
            out[i, j] = part[top:bottom, left:right].mean(axis=(0, 1))
    return out


def blob(pixels):
    return ((pixels.astype(np.float64) - 127.5) / 128).transpose(2, 0, 1)[None].astype(np.float32)
