"""Genuine TensorFlow checkpoints, and facenet's networks run by TensorFlow itself.

Three files are written. `tensorflow_checkpoints.npz`: small checkpoints, file by file, as bytes.
`tensorflow_networks.npz`: for each network of facenet the names and shapes of its variables and
what it makes of noise, with weights drawn by `seeded`, so that a test can draw them again.
`tensorflow_frozen.npz`: the same networks as facenet's freeze_graph writes them, in the form of
2017 (batch normalisation written out) or of 2018 (fused), with a queue before the picture; the
constants of the weights are taken out and the rest is compressed. Environment: see README.md here.
"""

import argparse
import lzma
import os
import tempfile
import types
import zipfile
import zlib
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_ops

ops.Tensor, control_flow_ops.cond = tf.Tensor, tf.cond  # where tf_slim 1.1 looks for them
import tf_slim as slim  # noqa: E402

tf.disable_v2_behavior()
TARGET = Path(__file__).resolve().parents[2] / "tests/golden"
SCOPES = {
    "inception_resnet_v1": "InceptionResnetV1",
    "inception_resnet_v2": "InceptionResnetV2",
    "squeezenet": "squeezenet",
}
DIMENSIONS = {"inception_resnet_v1": 512, "inception_resnet_v2": 128, "squeezenet": 128}
FROZEN = (
    ("inception_resnet_v1", "2017"),
    ("inception_resnet_v1", "2018"),
    ("inception_resnet_v2", "2018"),
    ("squeezenet", "2017"),
    ("squeezenet", "2018"),
)
CLASSES = 7
IMAGES_SEED = 5


def seeded(name, shape):
    """The values of a variable: they depend on its name only."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    values = random.standard_normal(shape, np.float32)
    if name.endswith("moving_variance"):
        return np.float32(0.5) + np.abs(values)
    scale = np.sqrt(2 / np.prod(shape[:-1])) if name.endswith("weights") else 0.1
    return values * np.float32(scale)


def noise():
    """Two pictures, N x 160 x 160 x 3."""
    return np.random.default_rng(IMAGES_SEED).standard_normal((2, 160, 160, 3), np.float32)


def facenet_module(wheel, name, replace=()):
    """A module of the facenet wheel, run on today's TensorFlow."""
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"facenet/src/{name}.py").decode().replace("\r\n", "\n")
    text = text.replace("import tensorflow.contrib.slim as slim", "import tf_slim as slim")
    text = text.replace("import tensorflow as tf", "import tensorflow.compat.v1 as tf")
    for old, new in replace:
        assert old in text, old
        text = text.replace(old, new)
    module = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
    return module


def build(wheel, name, *, fused):
    """The training graph up to the embeddings, a queue in front, variables set."""
    queue = tf.FIFOQueue(10, tf.float32, (160, 160, 3), name="input_queue")
    batch_size = tf.placeholder(tf.int32, name="batch_size")
    phase_train = tf.placeholder(tf.bool, name="phase_train")
    image_batch = tf.identity(queue.dequeue_up_to(batch_size), "image_batch")
    image_batch.set_shape((None, 160, 160, 3))
    images = tf.identity(image_batch, "input")
    network = facenet_module(wheel, f"models/{name}")
    with slim.arg_scope([slim.batch_norm], fused=fused):
        prelogits, _ = network.inference(
            images, 0.8, phase_train=phase_train, bottleneck_layer_size=DIMENSIONS[name]
        )
    slim.fully_connected(prelogits, CLASSES, activation_fn=None, scope="Logits")
    tf.nn.l2_normalize(prelogits, 1, 1e-10, name="embeddings")
    session = tf.Session(
        config=tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    )
    places = {v.initializer.inputs[1]: v for v in tf.trainable_variables()}
    values = {place: seeded(v.op.name, v.shape.as_list()) for place, v in places.items()}
    session.run([v.initializer for v in places.values()], values)
    return session, prelogits


def run_network(wheel, name):
    """Names, shapes and prelogits of a network."""
    with tf.Graph().as_default():
        session, prelogits = build(wheel, name, fused=True)
        feed = {"input:0": noise(), "phase_train:0": False}
        outputs = session.run(prelogits, feed)
        variables = tf.trainable_variables()
    shapes = [" ".join(map(str, v.shape.as_list())) for v in variables]
    return {
        f"{name}_names": np.array([v.op.name for v in variables]),
        f"{name}_shapes": np.array(shapes),
        f"{name}_prelogits": outputs,
    }


def freeze(wheel, name, *, fused):
    """A graph frozen by facenet's own function, without the weights, and TensorFlow's result."""
    # facenet's list of variables to freeze knows Inception-ResNet-v1 only
    wider = ("startswith('InceptionResnetV1')", f"startswith('{SCOPES[name]}')")
    tools = facenet_module(
        wheel,
        "freeze_graph",
        [wider, ("import facenet\n", ""), ("from six.moves import xrange", "xrange = range")]
        + [("from tensorflow.python.framework import graph_util", "")]
        + [("graph_util.convert", "tf.graph_util.convert")],
    )
    with tf.Graph().as_default():
        session, _ = build(wheel, name, fused=fused)
        graph = tools.freeze_graph_def(session, session.graph.as_graph_def(), "embeddings")
        names = {v.op.name for v in tf.trainable_variables()}
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(graph, name="")
        outputs = session.run("embeddings:0", {"input:0": noise(), "phase_train:0": False})
    kept = [node for node in graph.node if node.name not in names]
    del graph.node[:]
    graph.node.extend(kept)
    return lzma.compress(graph.SerializeToString(deterministic=True), preset=9), outputs


def small_variables():
    """Variables of each kind the reader knows, and some it does not."""
    for name, shape in (("a/weights", (3, 5, 2, 4)), ("a/biases", (4,)), ("b/weights", (70, 9))):
        tf.get_variable(name, initializer=seeded(name, shape))
    tf.get_variable("half", initializer=seeded("half", (6, 2)).astype(np.float16))
    tf.get_variable("double", initializer=seeded("double", (3,)).astype(np.float64))
    tf.get_variable("scalar", initializer=np.float32(2.5))
    tf.get_variable("global_step", initializer=np.int64(1234567890123), trainable=False)
    tf.get_variable("text", initializer=tf.constant(["one", "two"]))


def saved(saver, session, folder, name, step=None):
    """Save once; the files of it."""
    saver.save(session, str(folder / name), global_step=step, write_meta_graph=False)


def small_checkpoints(folder):
    """Checkpoints with one and two data files, with a divided variable, of the first format."""
    with tf.Graph().as_default():
        small_variables()
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            saver = tf.train.Saver(max_to_keep=3)
            saved(saver, session, folder / "model", "model-20170512-110547.ckpt", 90)
            saved(saver, session, folder / "model", "model-20170512-110547.ckpt", 250)
            old = tf.train.Saver([v for v in tf.global_variables() if v.op.name == "a/biases"])
            old = tf.train.Saver(old._var_list, write_version=tf.train.SaverDef.V1)
            saved(old, session, folder / "first", "model-1.ckpt", 3)
    with tf.Graph().as_default():
        with tf.device("/cpu:0"):
            tf.get_variable("a", initializer=seeded("a", (4, 3)))
        with tf.device("/cpu:1"):
            tf.get_variable("b", initializer=seeded("b", (2,)))
        with tf.Session(config=tf.ConfigProto(device_count={"CPU": 2})) as session:
            session.run(tf.global_variables_initializer())
            saved(tf.train.Saver(sharded=True), session, folder / "two", "two")
    with tf.Graph().as_default():
        rows = tf.fixed_size_partitioner(2)
        tf.get_variable(
            "parted", initializer=tf.zeros_initializer(), shape=(6, 2), partitioner=rows
        )
        tf.get_variable("whole", initializer=seeded("whole", (3,)))
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            saved(tf.train.Saver(), session, folder / "parted", "parted")
    return {
        path.relative_to(folder).as_posix(): np.frombuffer(path.read_bytes(), np.uint8)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write(name, golden):
    """One golden file, with the versions it was made by."""
    golden["versions"] = np.array([f"tensorflow {tf.__version__}", f"numpy {np.__version__}"])
    np.savez_compressed(TARGET / name, **golden)
    print(name, (TARGET / name).stat().st_size, "bytes")


def main():
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", help="facenet-1.0.5-py3-none-any.whl, facenet of 2018")
    wheel = parser.parse_args().wheel
    with tempfile.TemporaryDirectory() as folder:
        for name in ("model", "first", "two", "parted"):
            (Path(folder) / name).mkdir()
        write("tensorflow_checkpoints.npz", small_checkpoints(Path(folder)))
    networks, frozen = {}, {}
    for name in SCOPES:
        networks |= run_network(wheel, name)
    for name, form in FROZEN:
        graph, outputs = freeze(wheel, name, fused=form == "2018")
        frozen[f"{name}_{form}_graph"] = np.frombuffer(graph, np.uint8)
        frozen[f"{name}_{form}_embeddings"] = outputs
        print(name, form, len(graph), "bytes, embeddings", outputs[:, :3].tolist())
    write("tensorflow_networks.npz", networks)
    write("tensorflow_frozen.npz", frozen)


if __name__ == "__main__":
    main()
