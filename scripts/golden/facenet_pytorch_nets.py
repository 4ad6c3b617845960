"""Golden outputs of the three MTCNN networks of facenet-pytorch 2.6.0 on seeded noise."""

from pathlib import Path

import numpy as np
import torch
from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

TARGET = Path(__file__).resolve().parents[2] / "tests/golden/facenet_pytorch_nets.npz"
SHAPES = {
    "pnet_batch": (2, 3, 25, 37),
    "pnet_cell": (1, 3, 12, 12),
    "rnet": (8, 3, 24, 24),
    "onet": (8, 3, 48, 48),
}
NETS = {"pnet": PNet, "rnet": RNet, "onet": ONet}


def noise(seed, shape):
    """Uniform float32 noise in [-1, 1), N x C x H x W."""
    return np.random.RandomState(seed).uniform(-1, 1, shape).astype(np.float32)


def run(net, inputs):
    """A network's outputs by name: probabilities, regression and, for ONet, points."""
    with torch.no_grad():
        parts = net(torch.from_numpy(inputs))
    regression, rest = parts[0], parts[1:]
    named = {"regression": regression, "probabilities": rest[-1]}
    if len(rest) == 2:
        named["points"] = rest[0]
    return {name: part.numpy() for name, part in named.items()}


def main():
    """Run every network on every input and write the golden file."""
    torch.set_num_threads(1)
    golden = {}
    for seed, (name, shape) in enumerate(SHAPES.items(), start=21):
        inputs = noise(seed, shape)
        golden[f"{name}_input"] = inputs
        for part, value in run(NETS[name.split("_")[0]](), inputs).items():
            golden[f"{name}_{part}"] = value
    golden["versions"] = np.array(
        ["facenet-pytorch 2.6.0", f"torch {torch.__version__}", f"numpy {np.__version__}"]
    )
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(TARGET, **golden)
    for name, value in golden.items():
        print(name, value.dtype, value.shape)
    print(TARGET, TARGET.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
