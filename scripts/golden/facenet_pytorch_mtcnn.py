"""Golden detections of facenet-pytorch 2.6.0's MTCNN: a clip, 1000 LFW files, a group photo.

Pictures are decoded by OpenCV, turned to RGB and detected one at a time. Only numbers are
written: boxes (x1, y1, x2, y2, score), landmarks, faces per picture, and the CRC32 of each
decoded RGB array, so that a reader knows whether its own decoder saw the same pixels.
"""

import argparse
import os
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision
from facenet_pytorch import MTCNN

TARGET = Path(__file__).resolve().parents[2] / "tests/golden/facenet_pytorch_mtcnn.npz"


def lfw_names(data, step=13, count=1000):
    """Relative paths of every 13th LFW file in sorted order, 1000 of them."""
    root = data / "lfw/images"
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.jpg"))
    return names[::step][:count]


def read_rgb(path):
    """An image file as an H x W x 3 uint8 RGB array."""
    return np.ascontiguousarray(cv2.imread(str(path), cv2.IMREAD_COLOR)[:, :, ::-1])


def clip_frames(path):
    """Yield every frame of a clip as an RGB array."""
    clip = cv2.VideoCapture(str(path))
    while True:
        found, frame = clip.read()
        if not found:
            return
        yield np.ascontiguousarray(frame[:, :, ::-1])


def detect(detector, image):
    """Boxes with scores (n x 5) and landmarks (n x 5 x 2), float32, largest first."""
    boxes, scores, points = detector.detect(image, landmarks=True)
    if boxes is None:
        return np.empty((0, 5), np.float32), np.empty((0, 5, 2), np.float32)
    scores = np.asarray(scores, np.float32)[:, None]
    return np.hstack([np.asarray(boxes, np.float32), scores]), np.asarray(points, np.float32)


def detect_all(detector, prefix, images):
    """Flat golden arrays of a sequence of pictures; prints the pace of detection alone."""
    found, crcs, spent = [], [], 0.0
    for image in images:
        crcs.append(zlib.crc32(image.tobytes()))
        start = time.perf_counter()
        found.append(detect(detector, image))
        spent += time.perf_counter() - start
    print(f"{prefix}: {len(found)} pictures, {sum(len(b) for b, _ in found)} faces, ", end="")
    print(f"{spent:.1f} s, {len(found) / spent:.2f} pictures/s")
    return {
        f"{prefix}_boxes": np.concatenate([boxes for boxes, _ in found]),
        f"{prefix}_landmarks": np.concatenate([points for _, points in found]),
        f"{prefix}_counts": np.array([len(boxes) for boxes, _ in found], np.int32),
        f"{prefix}_crc": np.array(crcs, np.uint32),
    }


def main():
    """Detect everything and write the golden file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", default=os.environ.get("FACENET_TEST_DATA"), help="test data folder"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    args = parser.parse_args()
    if not args.data:
        parser.error("give --data, or set FACENET_TEST_DATA to the test data folder")
    torch.set_num_threads(args.threads)
    data = Path(args.data)
    detector = MTCNN(keep_all=True)
    names = lfw_names(data)
    golden = detect_all(detector, "clip", clip_frames(data / "video/faces-1080p.mp4"))
    golden |= detect_all(detector, "lfw", (read_rgb(data / "lfw/images" / n) for n in names))
    golden["lfw_names"] = np.array(names)
    golden |= detect_all(detector, "multiface", [read_rgb(data / "images/multiface.jpg")])
    versions = ["facenet-pytorch 2.6.0"]
    versions += [f"{m.__name__} {m.__version__}" for m in (torch, torchvision, cv2, np)]
    golden["versions"] = np.array(versions)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(TARGET, **golden)
    for name, value in golden.items():
        print(name, value.dtype, value.shape)
    print(TARGET, TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
