"""facenet.pytorch against what facenet-pytorch 2.6.0 gave: scripts/golden/facenet_pytorch_doors.py.

Differences on purpose: dense answers are float32 where facenet-pytorch has object arrays of
numbers, and a list of pictures with and without faces is an answer where it raises ValueError.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facenet.errors import ImageError, InputError, ModelError, SettingsError, StorageError
from facenet.pytorch import (
    MTCNN,
    InceptionResnetV1,
    extract_face,
    fixed_image_standardization,
    prewhiten,
)

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests/golden"
DOORS = json.loads((GOLDEN / "facenet_pytorch_doors.json").read_text())


@pytest.fixture(scope="module")
def inputs():
    """As in the script that made the golden file."""
    photo = Image.open(ROOT / DOORS["photo"]).convert("RGB")
    blank, pixels = Image.new("RGB", photo.size), np.asarray(photo)
    return {
        "photo": photo,
        "blank": blank,
        "two": [photo, photo],
        "half": [photo, blank],
        "none": [blank, blank],
        "array": pixels,
        "arrays": np.stack([pixels, pixels]),
        "tensor": torch.from_numpy(pixels.copy()),
    }


@pytest.fixture(scope="module")
def mtcnn():
    return {keep_all: MTCNN(keep_all=keep_all) for keep_all in (False, True)}


@pytest.fixture
def crops():
    return np.load(GOLDEN / "facenet_pytorch_crops.npz")


def shape(value):
    """A type in words, as the script has it."""
    if isinstance(value, list | tuple):
        return [shape(entry) for entry in value]
    if isinstance(value, np.ndarray):
        if value.dtype == object and value.ndim == 1:
            return ["array", *(shape(entry) for entry in value)]
        return f"array {' x '.join(map(str, value.shape))}"
    if isinstance(value, torch.Tensor):
        return f"tensor {' x '.join(map(str, value.shape))}"
    return "none" if value is None else "number"


@pytest.mark.parametrize("key", DOORS["shapes"])
def test_types_and_shapes_are_facenet_pytorchs(key, inputs, mtcnn):
    verb, name, *keep_all = key.split()
    detector = mtcnn[keep_all == ["True"]]
    if verb == "detect":
        came = detector.detect(inputs[name], landmarks=True)
    else:
        came = detector(inputs[name], return_prob=True)
    if DOORS["shapes"][key] == "ValueError":
        faces, probs = came
        assert shape(faces) == ["tensor 3 x 160 x 160", "none"]
        assert probs[0] == pytest.approx(DOORS["probs"][0]) and probs[1] == [None]
    else:
        assert shape(came) == DOORS["shapes"][key]


def test_boxes_probabilities_and_landmarks_are_facenet_pytorchs(inputs, mtcnn):
    """To 0.01 pixels and 1e-4: the same networks in two runtimes."""
    boxes, probs, points = mtcnn[True].detect(inputs["photo"], landmarks=True)
    assert boxes.dtype == probs.dtype == points.dtype == np.float32
    np.testing.assert_allclose(boxes, DOORS["boxes"], rtol=0, atol=0.01)
    np.testing.assert_allclose(probs, DOORS["probs"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(points, DOORS["landmarks"], rtol=0, atol=0.01)
    surest = MTCNN(select_largest=False, keep_all=True).detect(inputs["photo"])[1]
    np.testing.assert_allclose(surest, DOORS["probs_surest_first"], rtol=0, atol=1e-4)
    boxes[:] = 0  # the caller's own


@pytest.mark.parametrize("kind", ["photo", "array", "tensor"])
def test_crops_are_facenet_pytorchs(kind, inputs):
    """Of the golden boxes. Pillow, OpenCV and torch resize; other versions may round elsewhere."""
    detector = MTCNN(keep_all=True, post_process=False, margin=14)
    got = detector.extract(inputs[kind], np.array(DOORS["boxes"]), None)
    wanted = DOORS[f"crops {kind}"]
    assert got.dtype == torch.float32 and len(got) == len(wanted)
    for face, golden in zip(got, wanted, strict=True):
        pixels = face.permute(1, 2, 0).numpy()
        assert float(pixels.mean()) == pytest.approx(golden["mean"], abs=0.02)
        assert float(pixels.std()) == pytest.approx(golden["std"], abs=0.02)


def test_forward_is_detect_select_extract_and_standardise(inputs, mtcnn, tmp_path):
    photo, detector = inputs["photo"], mtcnn[True]
    faces = detector(photo, save_path=str(tmp_path / "new" / "face.png"))
    boxes, _ = detector.detect(photo)
    for number, box in enumerate(boxes):
        raw = extract_face(photo, box)
        assert torch.equal(faces[number], fixed_image_standardization(raw))
        assert float(raw.min()) >= 0 and float(raw.max()) > 128
        ending = "" if number == 0 else f"_{number + 1}"
        saved = np.asarray(Image.open(tmp_path / "new" / f"face{ending}.png"))
        assert np.array_equal(saved, raw.permute(1, 2, 0).numpy())
    assert len(list((tmp_path / "new").iterdir())) == len(boxes) == 4
    assert torch.equal(mtcnn[False](photo), faces[0])


@pytest.mark.parametrize("kind", ["array", "pil"])
def test_extract_face_is_facenet_pytorchs_on_the_borders_too(kind, crops):
    picture = crops["picture"] if kind == "array" else Image.fromarray(crops["picture"])
    for margin, row in zip(crops["crop_margins"], crops[f"crops_{kind}"], strict=True):
        for box, golden in zip(crops["crop_boxes"], row, strict=True):
            got = extract_face(picture, box, margin=int(margin)).permute(1, 2, 0).numpy()
            assert np.max(np.abs(got - golden)) <= 1  # rounding of other versions
            assert np.mean(np.abs(got - golden)) < 0.02


@pytest.mark.parametrize("method", DOORS["selected"])
def test_selection_is_facenet_pytorchs(method, crops, inputs, mtcnn):
    found = [np.array(DOORS[part]) for part in ("boxes", "probs", "landmarks")]
    box, prob, points = mtcnn[False].select_boxes(*found, inputs["photo"], method=method)
    assert box.tolist() == [DOORS["selected"][method]]
    assert points.shape == (1, 5, 2) and isinstance(prob, float)
    for k in range(3):  # of an array, which facenet-pytorch asks for a width that it has not
        given = (crops[name][k] for name in ("select_boxes", "select_scores", "select_landmarks"))
        one = mtcnn[False].select_boxes(*given, crops["picture"], method=method)
        if np.isnan(crops[f"{method}_score"][k]):
            assert one == (None, None, None)
        elif method != "largest_over_threshold":
            assert np.array_equal(one[0][0], crops[f"{method}_box"][k])
            assert one[1] == crops[f"{method}_score"][k]
            assert np.array_equal(one[2][0], crops[f"{method}_landmarks"][k])
        else:  # facenet-pytorch gives the score and points of another face here
            row = crops["select_boxes"][k].tolist().index(one[0][0].tolist())
            assert np.array_equal(one[0][0], crops[f"{method}_box"][k])
            assert one[1] == crops["select_scores"][k][row]


def test_standardisations_are_facenet_pytorchs(crops):
    for given, fixed, white in zip(
        crops["standard_inputs"], crops["fixed"], crops["prewhiten_torch"], strict=True
    ):
        tensor = torch.from_numpy(given)
        assert np.array_equal(fixed_image_standardization(tensor).numpy(), fixed)
        np.testing.assert_allclose(prewhiten(tensor).numpy(), white, rtol=0, atol=1e-6)


def test_options_may_change_afterwards_and_pictures_may_differ_in_size(inputs):
    detector = MTCNN(keep_all=True)
    small = inputs["photo"].resize((640, 224))
    both = detector.detect([inputs["photo"], small])[0]
    assert [len(boxes) for boxes in both] == [4, len(detector.detect(small)[0])]
    detector.min_face_size = 400
    assert detector.detect(inputs["photo"])[0] is None
    detector.min_face_size, detector.image_size = 20, 96
    assert detector(inputs["photo"]).shape == (4, 3, 96, 96)
    assert MTCNN(selection_method="probability").selection_method == "probability"
    assert not list(detector.parameters()) and detector.eval().to("cpu") is detector


def test_numbers_with_fractions_are_rounded_for_detection(inputs, mtcnn):
    pixels = inputs["array"].astype(np.float32)
    same = mtcnn[True].detect(torch.from_numpy(np.minimum(pixels + 0.25, 255)))[0]
    assert np.array_equal(same, mtcnn[True].detect(inputs["array"])[0])


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (np.full((40, 40, 3), 0.5, np.float32), "0 to 255; the largest of these is 0.5. Multiply"),
        (np.full((40, 40, 3), -1.0), "these go beyond, or are not finite"),
        (torch.full((40, 40, 3), float("nan")), "these go beyond, or are not finite"),
        (torch.zeros((3, 40, 40), dtype=torch.uint8), "It looks channels-first"),
        ("face.jpg", "a PIL image, a NumPy array or a tensor"),
        ([], "should hold one at least; it is empty"),
    ],
)
def test_what_is_no_picture_is_told(picture, words, mtcnn):
    with pytest.raises(ImageError, match=words):
        mtcnn[False](picture)


def test_options_that_make_no_sense_are_told(inputs, mtcnn, tmp_path):
    for options, words in (
        ({"margin": 160}, "margin 0 to less than it; got image_size=160, margin=160"),
        ({"selection_method": "biggest"}, "one of probability, largest"),
        ({"thresholds": [0.6, 0.7]}, "thresholds should be three numbers"),
        ({"factor": 1.5}, "factor should be between 0 and 1"),
        ({"device": "meta"}, "device should be one of cpu"),
    ):
        with pytest.raises(SettingsError, match=words):
            MTCNN(**options)
    with pytest.raises(SettingsError, match="a file for each of the 2 pictures; got 1"):
        mtcnn[False](inputs["two"], save_path=str(tmp_path / "one.png"))
    with pytest.raises(InputError, match="should lie in the photo"):
        extract_face(inputs["photo"], [-90, -90, -10, -10])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="Cannot write"):
        mtcnn[False](inputs["photo"], save_path=tmp_path / "file" / "face.png")


def draw(seed, name, shape, row):
    """As in scripts/golden/facenet_pytorch_inception.py."""
    random = np.random.default_rng([seed, row])
    if name.endswith("running_var"):
        values = random.uniform(0.5, 1.5, shape)
    elif name.endswith(("bn.weight", "last_bn.weight")):
        values = random.uniform(0.7, 1.3, shape)
    elif len(shape) == 1:
        values = random.uniform(-0.2, 0.2, shape)
    else:
        reach = np.sqrt(4.5 / np.prod(shape[1:]))
        values = random.uniform(-reach, reach, shape)
    return torch.from_numpy(values.astype(np.float32))


def test_the_network_is_facenet_pytorchs_by_names_vectors_and_logits():
    golden = np.load(GOLDEN / "facenet_pytorch_inception.npz")
    seed = int(golden["seed"])
    shapes = [tuple(int(s) for s in row if s) for row in golden["shapes"]]
    names = [str(name) for name in golden["names"]]
    state = {
        name: draw(seed, name, size, row)
        for row, (name, size) in enumerate(zip(names, shapes, strict=True))
    }
    network = InceptionResnetV1(classify=True, num_classes=7)
    ours = {n: v for n, v in network.state_dict().items() if "num_batches" not in n}
    assert list(ours) == names and [tuple(v.shape) for v in ours.values()] == shapes
    network.load_state_dict(state, strict=False)
    images = np.random.default_rng(seed).uniform(-1, 1, (2, 3, 160, 160)).astype(np.float32)
    network.eval().classify = False
    with torch.no_grad():
        vectors = network(torch.from_numpy(images))
        network.classify = True
        logits = network(torch.from_numpy(images))
    np.testing.assert_allclose(vectors.numpy(), golden["vectors"], rtol=0, atol=1e-5)
    right = golden["prelogits"] @ state["logits.weight"].numpy().T + state["logits.bias"].numpy()
    np.testing.assert_allclose(logits.numpy(), right, rtol=0, atol=1e-4)
    assert network.last_bn.momentum == 0.1 and network.dropout.p == 0.6
    assert (network.num_classes, network.pretrained, network.device.type) == (7, None, "cpu")


def test_arguments_of_the_network_that_do_nothing_are_told(home):
    for arguments, kind, words in (
        ({"pretrained": "vggface"}, SettingsError, "vggface2, casia-webface or None; got 'vgg"),
        ({"num_classes": 10}, SettingsError, "num_classes makes a class layer, which classify="),
        ({"classify": True}, SettingsError, "pass num_classes"),
        ({"classify": True, "num_classes": 0}, SettingsError, "should be 1 or more; got 0"),
        ({"dropout_prob": 1.0}, SettingsError, "dropout should be"),
        ({"pretrained": "casia-webface", "classify": True}, ModelError, "layer of 10575 people"),
        ({"pretrained": "vggface2"}, ModelError, "`facenet models pull facenet-vggface2`"),
    ):
        with pytest.raises(kind, match=words):
            InceptionResnetV1(**arguments)
    network = InceptionResnetV1()
    network.classify = True
    with pytest.raises(SettingsError, match="built without one"):
        network.eval()(torch.zeros(1, 3, 80, 80))


def test_without_torch_the_extra_is_named():
    code = "import sys; sys.modules['torch'] = None\nimport facenet.pytorch"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MissingExtraError: facenet.pytorch needs the extra train: pip install" in answer.stderr
