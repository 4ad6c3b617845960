"""What facenet-pytorch 2.6.0 itself gives for a photo of examples/, one picture and several.

Types and shapes in words, boxes, probabilities and landmarks, and mean and deviation of each crop.
"""

import json
import warnings
from pathlib import Path

import facenet_pytorch as peer
import numpy as np
import PIL
import torch
from PIL import Image

warnings.filterwarnings("ignore")
ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "tests/golden/facenet_pytorch_doors.json"
PHOTO = "examples/photos/group.jpg"
METHODS = ("probability", "largest", "largest_over_threshold", "center_weighted_size")


def shape(value):
    """A type in words: lists by their entries, arrays and tensors by their shapes."""
    if isinstance(value, list | tuple):
        return [shape(entry) for entry in value]
    if isinstance(value, np.ndarray):
        if value.dtype == object and value.ndim == 1 and not np.isscalar(value[0]):
            return ["array", *(shape(entry) for entry in value)]
        return f"array {' x '.join(map(str, value.shape))}"
    if isinstance(value, torch.Tensor):
        return f"tensor {' x '.join(map(str, value.shape))}"
    return "none" if value is None else "number"


def crops(faces):
    """Facts of crops (n, 3, s, s) of whole numbers from 0 to 255."""
    rows = []
    for face in faces:
        pixels = face.permute(1, 2, 0).numpy()
        assert np.array_equal(pixels, np.rint(pixels))
        rows.append({"mean": float(pixels.mean()), "std": float(pixels.std())})
    return rows


def main():
    """Write the golden file."""
    torch.set_num_threads(1)
    photo = Image.open(ROOT / PHOTO).convert("RGB")
    blank = Image.new("RGB", photo.size)
    pixels = np.asarray(photo)
    inputs = {
        "photo": photo,
        "blank": blank,
        "two": [photo, photo],
        "half": [photo, blank],
        "none": [blank, blank],
        "array": pixels,
        "arrays": np.stack([pixels, pixels]),
        "tensor": torch.from_numpy(pixels.copy()),
    }
    golden = {"photo": PHOTO, "shapes": {}}
    for keep_all in (False, True):
        detector = peer.MTCNN(keep_all=keep_all)
        for name, given in inputs.items():
            try:
                came = shape(detector(given, return_prob=True))
            except ValueError:
                came = "ValueError"
            golden["shapes"][f"forward {name} {keep_all}"] = came
            golden["shapes"][f"detect {name}"] = shape(detector.detect(given, landmarks=True))
    detector = peer.MTCNN(keep_all=True, post_process=False, margin=14)
    boxes, probs, points = detector.detect(photo, landmarks=True)
    golden |= {"boxes": boxes.tolist(), "probs": probs.tolist(), "landmarks": points.tolist()}
    surest = peer.MTCNN(select_largest=False, keep_all=True).detect(photo)
    golden["probs_surest_first"] = surest[1].tolist()
    for kind in ("photo", "array", "tensor"):
        golden[f"crops {kind}"] = crops(detector.extract(inputs[kind], boxes, None))
    golden["selected"] = {
        method: detector.select_boxes(boxes, probs, points, photo, method=method)[0][0].tolist()
        for method in METHODS
    }
    golden["versions"] = ["facenet-pytorch 2.6.0"] + [
        f"{module.__name__} {module.__version__}" for module in (torch, np, PIL)
    ]
    TARGET.write_text(json.dumps(golden, indent=None, separators=(",", ":")) + "\n")
    print(TARGET, TARGET.stat().st_size, "bytes", json.dumps(golden["shapes"], indent=1))


if __name__ == "__main__":
    main()
