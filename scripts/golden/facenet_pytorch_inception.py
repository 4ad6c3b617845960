"""Golden vectors of facenet-pytorch's InceptionResnetV1 with weights drawn from a seed.

The weights are not stored: tests/models/test_convert_facenet_pytorch.py repeats `draw` below, which
gives the same values for the names and shapes in the golden file.
"""

from pathlib import Path

import numpy as np
import torch
from facenet_pytorch import InceptionResnetV1

TARGET = Path(__file__).resolve().parents[2] / "tests/golden/facenet_pytorch_inception.npz"
SEED, CLASSES = 20180402, 7


def draw(name, shape, row):
    """One tensor: float32, by the number of its row among the names."""
    random = np.random.default_rng([SEED, row])
    if name.endswith("running_var"):
        values = random.uniform(0.5, 1.5, shape)
    elif name.endswith(("bn.weight", "last_bn.weight")):
        values = random.uniform(0.7, 1.3, shape)
    elif len(shape) == 1:
        values = random.uniform(-0.2, 0.2, shape)
    else:
        reach = np.sqrt(4.5 / np.prod(shape[1:]))
        values = random.uniform(-reach, reach, shape)
    return values.astype(np.float32)


def main():
    """Draw the weights, run the network, write names, shapes and answers."""
    torch.set_num_threads(1)
    net = InceptionResnetV1(classify=True, num_classes=CLASSES).eval()
    entries = [
        (name, tuple(tensor.shape))
        for name, tensor in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    ]
    state = {name: torch.from_numpy(draw(name, s, k)) for k, (name, s) in enumerate(entries)}
    print(net.load_state_dict(state, strict=False))
    net.classify = False
    prelogits = []
    net.last_bn.register_forward_hook(lambda module, given, made: prelogits.append(made))
    images = np.random.default_rng(SEED).uniform(-1, 1, (2, 3, 160, 160)).astype(np.float32)
    with torch.no_grad():
        vectors = net(torch.from_numpy(images)).numpy()
    shapes = np.zeros((len(entries), 4), np.int32)
    for row, (_, shape) in enumerate(entries):
        shapes[row, : len(shape)] = shape
    golden = {
        "seed": np.array(SEED),
        "names": np.array([name for name, _ in entries]),
        "shapes": shapes,
        "prelogits": prelogits[0].numpy(),
        "vectors": vectors,
        "versions": np.array(
            ["facenet-pytorch 2.6.0", f"torch {torch.__version__}", f"numpy {np.__version__}"]
        ),
    }
    np.savez_compressed(TARGET, **golden)
    for name, value in golden.items():
        print(name, value.dtype, value.shape)
    print(f"prelogits: mean {prelogits[0].mean():.4f}, deviation {prelogits[0].std():.4f}")
    print("cosine of the two", float(vectors[0] @ vectors[1]))
    print(TARGET, TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
