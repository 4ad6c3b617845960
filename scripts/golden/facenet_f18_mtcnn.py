"""Golden detections of facenet's own MTCNN (April 2018), from the PyPI wheel facenet 1.0.5.

The wheel's align/detect_face.py and det1-3.npy run unchanged on TensorFlow's v1 interface.
Boxes keep facenet's order (score, highest first). Layout as in facenet_pytorch_mtcnn.py.
"""

import argparse
import importlib.util
import os
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import numpy as np
import tensorflow as tf

TARGET = Path(__file__).resolve().parents[2] / "tests/golden/facenet_f18_mtcnn.npz"
FOLDER = "facenet/src/align"
FILES = ("detect_face.py", "det1.npy", "det2.npy", "det3.npy")


def unpack(wheel, folder):
    """The detector's four files, taken out of the wheel into one folder."""
    with zipfile.ZipFile(wheel) as archive:
        for name in FILES:
            (Path(folder) / name).write_bytes(archive.read(f"{FOLDER}/{name}"))


def import_as_v1(path):
    """Import a TensorFlow 1 module while `import tensorflow` means tensorflow.compat.v1."""
    tf.compat.v1.disable_v2_tensorshape()
    spec = importlib.util.spec_from_file_location("facenet_detect_face", path)
    module = importlib.util.module_from_spec(spec)
    modern = sys.modules["tensorflow"]
    sys.modules["tensorflow"] = tf.compat.v1
    try:
        spec.loader.exec_module(module)
    finally:
        sys.modules["tensorflow"] = modern
    return module


def lfw_names(data, step=13, count=1000, thin=10):
    """Every 10th of the 1000 LFW files that facenet_pytorch_mtcnn.py uses."""
    root = data / "lfw/images"
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.jpg"))
    return names[::step][:count][::thin]


def read_rgb(path):
    """An image file as an H x W x 3 uint8 RGB array."""
    return np.ascontiguousarray(cv2.imread(str(path), cv2.IMREAD_COLOR)[:, :, ::-1])


def first_frames(path, count=5):
    """The first frames of a clip as RGB arrays."""
    clip = cv2.VideoCapture(str(path))
    return [np.ascontiguousarray(clip.read()[1][:, :, ::-1]) for _ in range(count)]


def detect(peer, nets, image):
    """Boxes with scores (n x 5) and landmarks (n x 5 x 2), float32."""
    boxes, points = peer.detect_face(image, 20, *nets, (0.6, 0.7, 0.7), 0.709)
    if len(boxes) == 0:
        return np.empty((0, 5), np.float32), np.empty((0, 5, 2), np.float32)
    landmarks = np.stack([points[:5].T, points[5:].T], axis=-1)
    return boxes.astype(np.float32), landmarks.astype(np.float32)


def detect_all(peer, nets, prefix, images):
    """Flat golden arrays of a sequence of pictures; prints the pace of detection alone."""
    start = time.perf_counter()
    found = [detect(peer, nets, image) for image in images]
    spent = time.perf_counter() - start
    print(f"{prefix}: {len(found)} pictures, {sum(len(b) for b, _ in found)} faces, ", end="")
    print(f"{spent:.1f} s, {len(found) / spent:.2f} pictures/s")
    return {
        f"{prefix}_boxes": np.concatenate([boxes for boxes, _ in found]),
        f"{prefix}_landmarks": np.concatenate([points for _, points in found]),
        f"{prefix}_counts": np.array([len(boxes) for boxes, _ in found], np.int32),
        f"{prefix}_crc": np.array([zlib.crc32(image.tobytes()) for image in images], np.uint32),
    }


def run(wheel, data):
    """All golden arrays of the three sets of pictures."""
    names = lfw_names(data)
    sets = {
        "clip": first_frames(data / "video/faces-1080p.mp4"),
        "lfw": [read_rgb(data / "lfw/images" / name) for name in names],
        "multiface": [read_rgb(data / "images/multiface.jpg")],
    }
    golden = {"lfw_names": np.array(names)}
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=1, inter_op_parallelism_threads=1
    )
    with tempfile.TemporaryDirectory() as folder:
        unpack(wheel, folder)
        peer = import_as_v1(Path(folder) / FILES[0])
        with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
            nets = peer.create_mtcnn(session, folder)
            for prefix, images in sets.items():
                golden |= detect_all(peer, nets, prefix, images)
    return golden


def main():
    """Detect everything and write the golden file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", help="facenet-1.0.5-py3-none-any.whl")
    parser.add_argument(
        "--data", default=os.environ.get("FACENET_TEST_DATA"), help="test data folder"
    )
    args = parser.parse_args()
    if not args.data:
        parser.error("give --data, or set FACENET_TEST_DATA to the test data folder")
    golden = run(args.wheel, Path(args.data))
    versions = ["facenet 1.0.5"] + [f"{m.__name__} {m.__version__}" for m in (tf, cv2, np)]
    golden["versions"] = np.array(versions)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(TARGET, **golden)
    for name, value in golden.items():
        print(name, value.dtype, value.shape)
    print(TARGET, TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
