"""Golden crops, face selection and standardisation of facenet-pytorch 2.6.0.

Everything runs on synthetic pictures and boxes, which are stored beside the results.
"""

from pathlib import Path

import cv2
import facenet_pytorch as peer
import numpy as np
import PIL
import PIL.Image
import torch

TARGET = Path(__file__).resolve().parents[2] / "tests/golden/facenet_pytorch_crops.npz"
MARGINS = (0, 14, 44)
METHODS = ("largest", "probability", "center_weighted_size", "largest_over_threshold")
# x1, y1, x2, y2 in a 320 x 240 picture; quarters, so float32 holds them exactly.
BOXES = np.array(
    [
        [100.25, 60.5, 180.75, 160.25],  # inside, about 1 : 1.25
        [30.0, 40.0, 190.0, 200.0],  # whole pixels, exactly 160 x 160
        [40.5, 100.0, 140.5, 130.75],  # wide
        [200.25, 20.75, 231.0, 140.5],  # tall
        [150.5, 110.25, 171.75, 134.5],  # small: enlarged about 7 times
        [-20.5, 50.0, 60.25, 140.0],  # over the left border
        [120.0, -15.25, 200.5, 80.75],  # over the top border
        [260.75, 90.5, 340.25, 190.0],  # over the right border
        [80.0, 170.25, 170.5, 260.5],  # over the bottom border
        [-30.0, -40.0, 45.75, 50.25],  # over the top left corner
        [270.5, 190.75, 360.25, 290.0],  # over the bottom right corner
        [-10.25, -10.5, 330.5, 250.75],  # over all four: the whole picture
    ]
)
# Three sets of five faces: a pick for each rule; a large face of low score; no score above 0.9.
SELECT_BOXES = np.array(
    [
        [
            [5, 5, 125, 115],
            [140, 90, 200, 160],
            [10, 150, 40, 190],
            [250, 20, 310, 100],
            [90, 130, 130, 175],
        ],
        [
            [0, 0, 150, 150],
            [200, 20, 240, 70],
            [20, 160, 100, 235],
            [150, 100, 180, 140],
            [260, 160, 300, 220],
        ],
        [
            [10, 10, 60, 70],
            [100, 60, 220, 200],
            [240, 30, 300, 100],
            [20, 140, 90, 230],
            [230, 150, 310, 235],
        ],
    ],
    np.float64,
)
SELECT_SCORES = np.array(
    [
        [0.86, 0.95, 0.999, 0.97, 0.91],
        [0.72, 0.93, 0.96, 0.99, 0.985],
        [0.9, 0.85, 0.75, 0.82, 0.78],
    ]
)


def banded_picture(seed=31, height=240, width=320, step=32):
    """An H x W x 3 uint8 RGB picture: smooth noise in bands, so it has edges and packs small."""
    coarse = np.random.RandomState(seed).randint(0, 256, (6, 8, 3)).astype(np.float32)
    full = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return (np.rint(full).astype(np.uint8) // step) * np.uint8(step) + np.uint8(step // 2)


def crops(picture):
    """extract_face for margin x box, from an array and from a PIL image: M x B x 160 x 160 x 3."""
    sources = {"array": picture, "pil": PIL.Image.fromarray(picture)}
    golden = {"picture": picture, "crop_boxes": BOXES, "crop_margins": np.array(MARGINS)}
    for name, source in sources.items():
        faces = [
            [peer.extract_face(source, box, image_size=160, margin=margin) for box in BOXES]
            for margin in MARGINS
        ]
        stacked = torch.stack([torch.stack(row) for row in faces]).permute(0, 1, 3, 4, 2)
        golden[f"crops_{name}"] = stacked.numpy().astype(np.uint8)
        assert np.array_equal(golden[f"crops_{name}"], stacked.numpy())
    return golden


def selections(picture):
    """select_boxes under each rule; NaN stands where the peer returns None."""
    image = PIL.Image.fromarray(picture)
    points = np.arange(3 * 5 * 10, dtype=np.float64).reshape(3, 5, 5, 2)
    detector = peer.MTCNN(keep_all=True)
    golden = {
        "select_boxes": SELECT_BOXES,
        "select_scores": SELECT_SCORES,
        "select_landmarks": points,
    }
    for method in METHODS:
        box, score, landmark = (
            np.full((3, 4), np.nan),
            np.full(3, np.nan),
            np.full((3, 5, 2), np.nan),
        )
        for k in range(3):
            got = detector.select_boxes(
                SELECT_BOXES[k], SELECT_SCORES[k], points[k], image, method=method
            )
            if got[0] is not None:
                box[k], score[k], landmark[k] = got[0][0], got[1], got[2][0]
        golden |= {f"{method}_box": box, f"{method}_score": score, f"{method}_landmarks": landmark}
    return golden


def facenet_prewhiten(values):
    """facenet's own rule in float64: population deviation, at least 1 / sqrt(count)."""
    values = values.astype(np.float64)
    return (values - values.mean()) / max(values.std(), 1.0 / np.sqrt(values.size))


def standardisations():
    """Both standardisations of three 3 x 4 x 5 arrays: noise, constant, one value off by one."""
    noise = np.random.RandomState(32).randint(0, 256, (3, 4, 5))
    flat, almost = np.full((3, 4, 5), 77), np.full((3, 4, 5), 77)
    almost[1, 2, 3] = 78
    inputs = np.stack([noise, flat, almost]).astype(np.float32)
    tensors = [torch.from_numpy(values) for values in inputs]
    return {
        "standard_inputs": inputs,
        "fixed": torch.stack([peer.fixed_image_standardization(t) for t in tensors]).numpy(),
        "prewhiten_torch": torch.stack([peer.prewhiten(t) for t in tensors]).numpy(),
        "prewhiten_facenet": np.stack([facenet_prewhiten(values) for values in inputs]),
    }


def main():
    """Write the golden file."""
    torch.set_num_threads(1)
    picture = banded_picture()
    golden = crops(picture) | selections(picture) | standardisations()
    versions = ["facenet-pytorch 2.6.0"] + [
        f"{m.__name__} {m.__version__}" for m in (torch, cv2, PIL, np)
    ]
    golden["versions"] = np.array(versions)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(TARGET, **golden)
    for name, value in golden.items():
        print(name, value.dtype, value.shape)
    for method in METHODS:
        print(method, golden[f"{method}_box"].tolist(), golden[f"{method}_score"].tolist())
    print(TARGET, TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
