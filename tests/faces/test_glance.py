"""The quick look in compiled code, against the layers of the networks one by one in NumPy."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from facenet.faces.glance import (
    PNET,
    RNET,
    CropGlance,
    Glance,
    crop_glance_of,
    glance_of,
    log_odds,
    weights_in,
)
from facenet.faces.kernels import KERNELS
from facenet.models.engine import EngineSettings, open_engine
from facenet.models.loader import load_model

ABLE = KERNELS is not None and KERNELS.can_glance()
glancing = pytest.mark.skipif(
    not ABLE, reason="this processor has no AMX, or the system forbids it"
)


def weights(shapes, *, seed):
    random = np.random.default_rng(seed)
    made = {}
    for name, shape in shapes.items():
        spread = 1 / np.sqrt(np.prod(shape[1:])) if name.endswith("weight") else 0.3
        made[name] = (spread * random.standard_normal(shape)).astype(np.float32)
    return made


def rounded(values):
    """The nearest bfloat16, as a float."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    whole = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
    return whole.astype(np.uint32).view(np.float32)


def layer(values, made, number, pool=None, *, cast=rounded):
    """Convolution with PReLU and pooling of (n, c, h, w)."""
    kernel = cast(made[f"conv{number}.weight"])
    windows = sliding_window_view(values, kernel.shape[2:], axis=(2, 3))
    out = np.einsum("nchwyx,ocyx->nohw", windows, kernel, optimize=True)
    out += made[f"conv{number}.bias"][:, None, None]
    out = np.where(out < 0, made[f"prelu{number}.slope"] * out, out)
    if pool:
        out = np.pad(out, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=-np.inf)
        out = sliding_window_view(out, (pool, pool), axis=(2, 3)).max(axis=(4, 5))[:, :, ::2, ::2]
    return cast(out)


def plain_pnet(levels, made, *, cast=rounded):
    """Odds and offsets (n, 5, r, c); the last convolution and the head are never rounded."""
    values = layer(layer(cast(levels), made, 1, 2, cast=cast), made, 2, cast=cast)
    third = {**made, "conv3.weight": cast(made["conv3.weight"])}
    values = layer(values, third, 3, cast=lambda out: out)
    heads = np.einsum("nchw,oc->nohw", values, made["heads.weight"][:, :, 0, 0])
    return heads + made["heads.bias"][:, None, None]


def plain_rnet(crops, made):
    """Odds (n,)."""
    values = layer(layer(rounded(crops), made, 1, 3), made, 2, 3)
    values = layer(values, made, 3).reshape(len(crops), -1)
    values = values @ rounded(made["dense4.weight"]).T + made["dense4.bias"]
    values = np.where(values < 0, made["prelu4.slope"] * values, values)
    return values @ made["heads.weight"][0] + made["heads.bias"][0]


@glancing
@pytest.mark.parametrize(
    "size", [(12, 12), (13, 12), (12, 13), (31, 97), (44, 45), (45, 44), (75, 140), (60, 75)]
)
def test_odds_of_levels_are_those_of_the_layers_one_by_one(size):
    random, made = np.random.default_rng(1), weights(PNET, seed=2)
    levels = random.uniform(-1, 1, (3, 3, *size)).astype(np.float32)
    expected = plain_pnet(levels, made)[:, 0]
    odds = Glance(made, KERNELS).odds(levels)
    assert odds.shape == expected.shape and np.std(expected) > 0.05 * (expected.size > 3)
    # A sum that is added up in another order may round to the other side: one bit of a bfloat16.
    np.testing.assert_allclose(odds, expected, atol=0.02)
    assert np.mean(np.abs(odds - expected)) < 0.003


@glancing
@pytest.mark.parametrize("count", [1, 15, 16, 17, 50])
def test_odds_of_crops_are_those_of_the_layers_one_by_one(count):
    random, made = np.random.default_rng(3), weights(RNET, seed=4)
    crops = random.uniform(-1, 1, (count, 3, 24, 24)).astype(np.float32)
    expected = plain_rnet(crops, made)
    odds = CropGlance(made, KERNELS).odds(crops)
    assert odds.shape == (count,)
    np.testing.assert_allclose(odds, expected, atol=0.02)
    assert count == 1 or np.std(expected) > 0.05


@glancing
@pytest.mark.parametrize("size", [(12, 12), (11, 12), (12, 11), (11, 11)])
def test_windows_are_judged_in_float32(size):
    random, made = np.random.default_rng(5), weights(PNET, seed=6)
    windows = np.zeros((21, 3, 12, 12), np.float32)
    inside = random.uniform(-1, 1, (21, 3, *size)).astype(np.float32)
    windows[:, :, : size[0], : size[1]] = inside
    expected = plain_pnet(inside, made, cast=lambda values: values)[:, :, 0, 0]
    sizes = np.tile(np.array([size], np.uint8).T, 21)
    said = Glance(made, KERNELS).judge(windows, sizes)
    np.testing.assert_allclose(said["score"], 1 / (1 + np.exp(-expected[:, 0])), atol=1e-6)
    np.testing.assert_allclose(said["offset"], expected[:, 1:], atol=2e-6)


@glancing
def test_windows_of_all_sizes_are_judged_together():
    random, made = np.random.default_rng(7), weights(PNET, seed=8)
    windows = random.uniform(-1, 1, (37, 3, 12, 12)).astype(np.float32)
    sizes = random.integers(11, 13, (2, 37)).astype(np.uint8)
    glance = Glance(made, KERNELS)
    together = glance.judge(windows, sizes)
    for row in range(37):
        alone = glance.judge(windows[row : row + 1], sizes[:, row : row + 1])
        assert together["score"][row] == alone["score"][0]
        assert np.array_equal(together["offset"][row], alone["offset"][0])


@glancing
def test_it_stands_for_the_engines_of_mtcnn_and_for_no_others(session_home):
    engines = load_model("mtcnn").engines
    assert glance_of(engines["pnet"]) and crop_glance_of(engines["rnet"])
    assert glance_of(engines["rnet"]) is None and crop_glance_of(engines["pnet"]) is None
    assert glance_of(None) is None and glance_of(engines["pnet"], None) is None

    class Other:
        graph = engines["pnet"].graph

        def run(self, feeds):
            answer = engines["pnet"].run(feeds)
            return {**answer, "offset": answer["offset"] + np.float32(1e-3)}

    assert glance_of(Other()) is None


def test_an_engine_held_to_older_instructions_has_none(session_home):
    graph = load_model("mtcnn").engines["pnet"].graph
    assert graph is not None
    settings = EngineSettings(engine="onnxruntime", instructions="avx2")
    assert open_engine(graph, settings).graph is None
    assert glance_of(open_engine(graph, settings)) is None


def test_weights_are_read_as_onnx_reads_them(session_home):
    import onnx

    for net, shapes in (("pnet", PNET), ("rnet", RNET)):
        data = load_model("mtcnn").engines[net].graph.read_bytes()
        model = onnx.ModelProto.FromString(data)
        expected = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        found = weights_in(data, shapes)
        assert set(found) == set(shapes)
        for name, array in found.items():
            assert np.array_equal(array, expected[name])


def test_what_cannot_be_read_has_no_weights(session_home, tmp_path):
    data = load_model("mtcnn").engines["pnet"].graph.read_bytes()
    assert weights_in(tmp_path / "nowhere.onnx") == {}
    assert weights_in(b"") == {} and weights_in(b"\xff" * 40) == {} and weights_in(b"\x0b") == {}
    random = np.random.default_rng(9)
    for _ in range(300):
        broken = bytearray(data[: random.integers(1, len(data))])
        for at in random.integers(0, min(len(broken), 600), 5):
            broken[at] = random.integers(0, 256)
        assert all(name in PNET for name in weights_in(bytes(broken)))


def test_log_odds():
    assert log_odds(0.5) == 0 and log_odds(0.6) == pytest.approx(np.log(1.5))
    assert log_odds(0) == log_odds(-0.1) == -np.inf
