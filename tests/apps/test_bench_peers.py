"""What other systems are made to do: their packages are stand-ins, written as small modules."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from shell import blank

from facenet.apps.jobs.benching.link import Link, peer_command

TORCH = """
import numpy as np
from contextlib import nullcontext as no_grad
class Tensor:
    def __init__(self, a): self.a = np.asarray(a)
    def permute(self, *axes): return Tensor(self.a.transpose(axes))
    def float(self): return Tensor(self.a.astype("float32"))
    def __sub__(self, x): return Tensor(self.a - x)
    def __truediv__(self, x): return Tensor(self.a / x)
    def numpy(self): return self.a
    def __len__(self): return len(self.a)
    def __iter__(self): return map(Tensor, self.a)
from_numpy = Tensor
def stack(rows): return Tensor(np.stack([row.a for row in rows]))
def set_num_threads(n): print("threads", n)
"""
FACENET_PYTORCH = """
import numpy as np, torch
class MTCNN:
    def __init__(self, *, image_size, margin, keep_all): self.side = image_size
    def detect(self, image):
        return (np.ones((2, 4)) if image.max() else None), None
    def __call__(self, image):
        count = np.asarray(image).shape[1] // 10
        return torch.Tensor(np.ones((count, 3, self.side, self.side))) if count else None
class InceptionResnetV1:
    def __init__(self, *, pretrained): assert pretrained is None
    def eval(self): return self
    def __call__(self, crops):
        assert crops.a.shape[1:] == (3, 160, 160) and len(crops) <= 16, crops.a.shape
        assert abs(crops.a).max() <= 1
        return torch.Tensor(np.ones((len(crops), 512), "float32"))
"""
INSIGHTFACE = """
from types import SimpleNamespace
import numpy as np
class FaceAnalysis:
    def __init__(self, *, name, root, allowed_modules, providers):
        print("find model:", name)
        face = SimpleNamespace(normed_embedding=np.ones(512, "float32"))
        self.found = [face, face]
        self.det_model = SimpleNamespace(detect=lambda frame: (np.ones((3, 5)), None))
    def prepare(self, *, ctx_id): pass
    def get(self, picture): return self.found
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder with the packages, before the others on the path of processes started here."""
    folder = tmp_path / "site"
    (folder / "insightface").mkdir(parents=True)
    (folder / "torch.py").write_text(TORCH)
    (folder / "facenet_pytorch.py").write_text(FACENET_PYTORCH)
    (folder / "insightface" / "__init__.py").write_text("")
    (folder / "insightface" / "app.py").write_text(INSIGHTFACE)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


@pytest.fixture
def peer():
    """Opens peers in this Python, and ends them."""
    opened = []

    def start(name):
        opened.append(Link(name, peer_command(name, sys.executable), threads=1))
        return opened[-1]

    yield start
    for link in opened:
        link.close()


@pytest.fixture
def frames(tmp_path):
    path = tmp_path / "frames.npy"
    rows = np.zeros((3, 30, 40, 3), np.uint8)
    rows[1:] = 9
    np.save(path, rows)
    return {"job": "detect", "frames": str(path), "together": False}


def ran(link, task, part=None):
    ready = link.ask({"prepare": task})
    assert list(ready) == ["ready"], ready
    answer = link.ask({"run": part})
    assert answer["seconds"] > 0
    return ready["ready"], answer


def test_facenet_pytorch(site, peer, frames, examples, tmp_path):
    link = peer("facenet-pytorch")
    facts, answer = ran(link, frames)
    assert (answer["items"], answer["faces"], facts["notes"]) == (3, 4, [])
    crops = tmp_path / "crops.npy"
    np.save(crops, np.full((20, 160, 160, 3), 255, np.uint8))
    facts, answer = ran(link, {"job": "embed", "crops": str(crops), "batch": 16})
    assert answer["items"] == 20
    assert "random weights" in facts["notes"][0]

    photos = examples / "photos"
    (tmp_path / "no.jpg").write_bytes(b"none")
    group, broken = str(photos / "group.jpg"), str(tmp_path / "no.jpg")  # 1280 wide: 128 faces
    _, answer = ran(link, {"job": "pipeline"}, [group, broken])
    assert (answer["items"], answer["faces"]) == (2, 128)
    small = blank(tmp_path / "small.png", (120, 20))
    _, answer = ran(link, {"job": "latency", "photo": str(small), "people": 7})
    assert (answer["items"], answer["faces"]) == (1, 12)


def test_insightface_needs_weights_that_are_here(site, peer, frames, examples, tmp_path):
    missing = peer("insightface").ask({"prepare": frames})["missing"]
    assert "there are no weights of it in" in missing
    pack = tmp_path / ".insightface" / "models" / "buffalo_s"
    pack.mkdir(parents=True)
    (pack / "net.onnx").touch()
    link = peer("insightface")
    facts, answer = ran(link, frames)
    assert facts["notes"] == ["insightface ran with buffalo_s."]
    assert (answer["items"], answer["faces"]) == (3, 9)
    group = str(examples / "photos/group.jpg")
    _, answer = ran(link, {"job": "pipeline"}, [group, str(tmp_path / "nothing.jpg")])
    assert (answer["items"], answer["faces"]) == (2, 2)
    _, answer = ran(link, {"job": "latency", "photo": group, "people": 5})
    assert answer["faces"] == 2
    assert "nothing to compare with in embed" in link.ask({"prepare": {"job": "embed"}})["missing"]


def test_opencv_says_what_it_cannot_run(peer, frames, tmp_path):
    link = peer("opencv")
    model = tmp_path / "none.onnx"
    model.write_bytes(b"no graph")
    task = {**frames, "model": str(model), "score": 0.7}
    assert "opencv cannot run YuNet" in link.ask({"prepare": task})["missing"]
    assert "nothing to compare with in embed" in link.ask({"prepare": {"job": "embed"}})["missing"]


def test_opencv_runs_its_yunet(peer, frames, data):
    model = data / "models" / "face_detection_yunet_2026may.onnx"
    facts, answer = ran(peer("opencv"), {**frames, "model": str(model), "score": 0.7})
    assert (answer["items"], answer["faces"]) == (3, 0)
    assert facts["versions"]["opencv"]


def test_a_package_that_is_not_installed_is_named(peer):
    for name in ("facenet-pytorch", "insightface"):
        missing = peer(name).ask({"prepare": {"job": "hello"}})["missing"]
        assert missing.startswith(f"{name} cannot be imported by {sys.executable}")
        assert missing.endswith("so it was not measured.")
    assert peer("opencv").ask({"prepare": {"job": "hello"}}) == {"ready": {}}
