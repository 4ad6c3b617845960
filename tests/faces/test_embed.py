"""Embedding: standardisation by the formulas and frozen values, batches, flip, contracts."""

from pathlib import Path

import numpy as np
import pytest
from fakes import ToyEngine, toy_card, toy_faces

from facenet.errors import EngineError, InputError, ModelFileError
from facenet.faces.align import crop_faces
from facenet.faces.embed import BATCH, STANDARDISE, Embedder, standardise
from facenet.models.engine import EngineSettings
from facenet.models.loader import load_model
from facenet.types import Faces

GOLDEN = Path(__file__).resolve().parents[1] / "golden/facenet_pytorch_crops.npz"


def noise(*shape, seed=0):
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def photos(counts, *, seed=0):
    """A photo for each count, and that many faces in each, all of them different."""
    images = [noise(60, 80, 3, seed=seed + i) for i in range(len(counts))]
    faces = []
    for count in counts:
        boxes = [(2 + i, 3 + i % 7, 30 + 1.5 * i, 40 + i % 11) for i in range(count)]
        faces.append(toy_faces(*boxes) if boxes else Faces.empty())
    return images, faces


# ---- standardisation


def test_fixed_is_facenet_pytorch_s():
    golden = np.load(GOLDEN)
    assert np.array_equal(STANDARDISE["fixed"](golden["standard_inputs"]), golden["fixed"])


def test_per_image_is_facenet_s_prewhiten():
    golden = np.load(GOLDEN)
    got = STANDARDISE["per_image"](golden["standard_inputs"])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, golden["prewhiten_facenet"], rtol=1e-6, atol=1e-6)
    # The second is constant, the third but for one value: 1 / sqrt(N) bounds the deviation.
    assert np.all(got[1] == 0)
    assert got[2, 1, 2, 3] == pytest.approx((1 - 1 / 60) * np.sqrt(60), rel=1e-6)


def test_per_image_does_not_mix_pictures():
    pixels = noise(4, 9, 8, 3).astype(np.float32)
    together = STANDARDISE["per_image"](pixels)
    for row, alone in zip(together, pixels, strict=True):
        flat = alone.astype(np.float64).ravel()
        expected = (alone - flat.mean()) / flat.std()
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_insightface_spans_minus_one_to_one():
    pixels = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1)
    got = STANDARDISE["insightface"](pixels)
    np.testing.assert_allclose(
        got, (np.arange(256.0).reshape(1, 16, 16, 1) - 127.5) / 127.5, atol=1e-7
    )
    assert got.min() == -1 and got.max() == 1


@pytest.mark.parametrize("name", STANDARDISE)
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_the_network_input_is_planes_in_the_order_of_the_card(name, color):
    crops = noise(2, 16, 16, 3, seed=1)
    card = toy_card(preprocess={"standardise": name, "color": color})
    got = standardise(crops, card.preprocess)
    assert got.dtype == np.float32 and got.shape == (2, 3, 16, 16)
    assert got.flags.c_contiguous
    values = STANDARDISE[name](crops.astype(np.float32))
    for plane, channel in enumerate((0, 1, 2) if color == "rgb" else (2, 1, 0)):
        assert np.array_equal(got[:, plane], values[..., channel])


# ---- the vectors


def expected_rows(engine, crops, preprocess, *, flip=False):
    """One crop at a time, in float64 after the engine."""
    rows = []
    for crop in crops:
        total = engine.run({"image": standardise(crop[None], preprocess)})["embedding"][0]
        if flip:
            mirrored = np.ascontiguousarray(crop[:, ::-1])[None]
            total = total + engine.run({"image": standardise(mirrored, preprocess)})["embedding"][0]
        rows.append(total / np.linalg.norm(total.astype(np.float64)))
    return np.array(rows, np.float64).reshape(len(rows), 8)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    "counts", [(0,), (1,), (4,), (3, 0, 1), (2, 5), (0, 0), (33,), (20, 13), (65,)]
)
def test_faces_get_unit_vectors_in_batches_over_the_photos(counts, flip):
    images, faces = photos(counts)
    engine, card = ToyEngine(), toy_card()
    got = Embedder(card, engine, flip=flip).embed(images, faces)
    total, full = sum(counts), sum(counts) // BATCH
    runs = [BATCH] * full + [total % BATCH] * (total % BATCH > 0)
    assert engine.batches == runs * (1 + flip)
    assert [len(found) for found in got] == list(counts)
    for image, before, after in zip(images, faces, got, strict=True):
        crops = crop_faces(image, before, card.preprocess)
        expected = expected_rows(ToyEngine(), crops, card.preprocess, flip=flip)
        np.testing.assert_allclose(after.embedding, expected, atol=1e-6)
        assert after.contract == card.contract + ("+flip" if flip else "")
        assert after.with_(embedding=None, contract=None) == before
    if total:
        rows = np.concatenate([found.embedding for found in got])
        assert len({row.tobytes() for row in rows}) == total


def test_no_photo_no_answer():
    engine = ToyEngine()
    assert Embedder(toy_card(), engine).embed([], []) == []
    assert Embedder(toy_card(), engine).embed_crops(noise(0, 16, 16, 3)).shape == (0, 8)
    assert engine.calls == 0


def test_faces_and_photos_come_in_pairs():
    images, faces = photos((1, 1))
    with pytest.raises(InputError, match="got 2 images and 1 Faces"):
        Embedder(toy_card(), ToyEngine()).embed(images, faces[:1])


@pytest.mark.parametrize("batch", [1, 4, 8])
@pytest.mark.parametrize("count", [1, 4, 7, 33])
def test_an_engine_of_a_fixed_batch_gets_full_batches(batch, count):
    crops = noise(count, 16, 16, 3)
    engine = ToyEngine(batch=batch)
    got = Embedder(toy_card(), engine).embed_crops(crops)
    assert engine.batches == [batch] * -(-count // batch)
    assert np.array_equal(got, Embedder(toy_card(), ToyEngine()).embed_crops(crops))


def test_rows_do_not_depend_on_the_rows_beside_them():
    crops = noise(40, 16, 16, 3)
    embedder = Embedder(toy_card(), ToyEngine(), flip=True)
    together = embedder.embed_crops(crops)
    assert np.array_equal(together[::-1], embedder.embed_crops(crops[::-1]))
    for row, crop in zip(together, crops, strict=True):
        np.testing.assert_allclose(embedder.embed_crops(crop[None])[0], row, atol=1e-7)


def test_a_mirrored_face_has_the_same_flipped_vector():
    crops = noise(3, 16, 16, 3)
    flipped = Embedder(toy_card(), ToyEngine(), flip=True)
    plain = Embedder(toy_card(), ToyEngine())
    mirrored = crops[:, :, ::-1]
    np.testing.assert_allclose(flipped.embed_crops(crops), flipped.embed_crops(mirrored), atol=1e-6)
    assert np.abs(plain.embed_crops(crops) - plain.embed_crops(mirrored)).max() > 0.1


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_real_network_treats_rows_alike(engine, examples):
    model = load_model("mobilefacenet", settings=EngineSettings(engine=engine))
    embedder = Embedder(model.card, model.engine)
    crops = noise(5, 112, 112, 3)
    together = embedder.embed_crops(crops)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    for row, crop in zip(together, crops, strict=True):
        np.testing.assert_allclose(embedder.embed_crops(crop[None])[0], row, atol=2e-6)
    direct = model.engine.run(
        {next(iter(model.engine.inputs)): standardise(crops, model.card.preprocess)}
    )
    raw = next(iter(direct.values())).astype(np.float64)
    np.testing.assert_allclose(
        together, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6
    )


# ---- what does not fit


def test_an_engine_of_another_dimension_is_refused():
    with pytest.raises(EngineError, match=r"should give 8 values for each of 3 faces; .* \(3, 6\)"):
        Embedder(toy_card(), ToyEngine(6)).embed_crops(noise(3, 16, 16, 3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_refused(value):
    class Broken(ToyEngine):
        def run(self, feeds):
            answer = super().run(feeds)
            answer["embedding"][-1, 2] = value
            return answer

    with pytest.raises(EngineError, match="finite numbers; it gave NaN or infinity"):
        Embedder(toy_card(), Broken()).embed_crops(noise(3, 16, 16, 3))


def test_a_detector_is_no_embedder():
    card = toy_card(kind="detector", preprocess=None, dimension=None)
    with pytest.raises(ModelFileError, match="toy is a detector; an embedder is needed"):
        Embedder(card, ToyEngine())


def test_the_contract_is_the_card_s_and_knows_the_flip():
    plain, flipped = (Embedder(toy_card(), ToyEngine(), flip=flip) for flip in (False, True))
    assert plain.contract == toy_card().contract
    assert flipped.contract == plain.contract + "+flip"
    other = toy_card(preprocess={"standardise": "per_image"})
    assert Embedder(other, ToyEngine()).contract != plain.contract


def test_the_precision_is_the_engine_s():
    assert Embedder(toy_card(), ToyEngine()).precision == "fp32"


def test_a_batch_for_a_fixed_graph_is_filled_up():
    crops = noise(3, 16, 16, 3)
    plain, fixed = (Embedder(toy_card(), ToyEngine(batch=batch)) for batch in (None, 8))
    assert np.array_equal(plain.feed(crops), standardise(crops, toy_card().preprocess))
    assert np.array_equal(fixed.feed(crops), plain.feed(crops)[[0, 1, 2, 0, 1, 2, 0, 1]])


def test_the_arithmetic_tells_8_bit_files_apart():
    class Told(ToyEngine):
        def describe(self):
            return {**super().describe(), "precision": "int8", "weights": "0123"}

    assert Embedder(toy_card(), ToyEngine()).arithmetic == "fp32"
    eight = Embedder(toy_card(), Told())
    assert (eight.precision, eight.arithmetic) == ("int8", "int8 0123")


@pytest.mark.parametrize("name", STANDARDISE)
def test_looking_up_gives_the_formula_for_a_view_and_for_plain_pictures(name):
    """Mirrored rows have steps below zero; of one colour, a picture has no deviation."""
    crops = noise(3, 9, 8, 3)
    crops[1] = 77
    got = standardise(crops[:, :, ::-1], toy_card(preprocess={"standardise": name}).preprocess)
    right = STANDARDISE[name](crops.astype(np.float32))[:, :, ::-1].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(got, right, rtol=1e-6, atol=1e-6)
