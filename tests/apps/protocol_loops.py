"""The protocols of verification, one pair at a time."""

from __future__ import annotations

from functools import cache

import numpy as np

from facenet.errors import InputError
from facenet.faces.align import crop_faces
from facenet.images import load_image


def listed(lfw):
    """The pairs of the file: names, paths and truth."""
    images, pairs = lfw
    for line in pairs.read_text().splitlines()[1:]:
        first, i, *rest = line.split("\t")
        second, j = rest[0] if len(rest) == 2 else first, rest[-1]
        paths = [place(images, *side) for side in ((first, i), (second, j))]
        yield (first, second), paths, len(rest) == 1


def place(images, name, number):
    path = images / name / f"{name}_{int(number):04d}.png"
    return path if path.exists() else path.with_suffix(".jpg")


@cache
def sight(recognizer, path):
    """What the network says of the face in a picture and of its mirror image; None without one."""
    try:
        image = load_image(path)
        crops = crop_faces(
            image, recognizer.detector.detect([image])[0], recognizer.embedder.preprocess
        )
    except InputError:
        return None
    pair = [
        recognizer.embedder.outputs(c) for c in (crops, np.ascontiguousarray(crops[:, :, ::-1]))
    ]
    return [rows[0].astype(np.float64) for rows in pair] if len(crops) else None


def unit(row):
    return row / np.sqrt(np.sum(row * row))


def row_of(seen, how):
    """What stands for a picture in a protocol."""
    if how.protocol == "facenet" and how.flip:
        return np.concatenate([unit(seen[0]), unit(seen[1])])
    return unit(seen[0] + seen[1]) if how.mirrors else unit(seen[0])


def apart(one, two, how):
    cosine = float(one @ two) / np.sqrt(float(one @ one) * float(two @ two))
    if how.protocol == "cosine":
        return 1 - cosine
    return np.arccos(cosine) / np.pi if how.distance == "angle" else float(np.sum((one - two) ** 2))


def best_threshold(distances, same, how):
    """The first best step of 0.01; of the protocol cosine the middle of the widest best gap."""
    if how.protocol != "cosine":
        steps = [n / 100 for n in range(400)]
        right = [sum((d < t) == s for d, s in zip(distances, same, strict=True)) for t in steps]
        return steps[right.index(max(right))]
    levels = sorted({d for d in distances if d < np.inf})
    gaps = list(zip([levels[0] - 1e-6, *levels], [*levels, levels[-1] + 1e-6], strict=True))
    right = [
        sum((d <= (low + high) / 2) == s for d, s in zip(distances, same, strict=True))
        for low, high in gaps
    ]
    best = [gap for gap, count in zip(gaps, right, strict=True) if count == max(right)]
    return sum(max(best, key=lambda gap: gap[1] - gap[0])) / 2


def in_loops(lfw, recognizer, how):
    """The protocol, one pair at a time: accuracy per fold, whether each is right."""
    names = list(listed(lfw))
    rows = []
    for _, paths, _ in names:
        seen = [sight(recognizer, path) for path in paths]
        rows.append(None if None in seen else [row_of(one, how) for one in seen])
    same, correct = [truth for _, _, truth in names], []
    folds, size = map(int, lfw[1].read_text().split("\n")[0].split())
    for fold in range(folds):
        own = range(fold * 2 * size, (fold + 1) * 2 * size)
        used = [row for n, row in enumerate(rows) if n not in own and row is not None]
        mean = np.mean([side for row in used for side in row], axis=0) if how.subtract_mean else 0.0
        far = [np.inf if r is None else apart(r[0] - mean, r[1] - mean, how) for r in rows]
        training = [n for n in range(len(rows)) if n not in own]
        limit = best_threshold([far[n] for n in training], [same[n] for n in training], how)
        near = [far[n] <= limit if how.protocol == "cosine" else far[n] < limit for n in own]
        correct += [match == same[n] for match, n in zip(near, own, strict=True)]
    shares = np.array(correct, float).reshape(folds, -1).mean(axis=1)
    return shares, np.array(correct), sum(row is None for row in rows)
