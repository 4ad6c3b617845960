"""The quick look in compiled code, against the layers of the networks one by one in NumPy."""

from functools import partial

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from facenet.faces.compiled import Compiled, compiled
from facenet.faces.glance import (
    MARGIN,
    NETS,
    PNET,
    RNET,
    TRIED,
    CropGlance,
    Glance,
    glances_of,
    log_odds,
    weights_in,
)
from facenet.models.engine import EngineSettings, open_engine
from facenet.models.loader import load_model
from facenet.models.selfcheck import Verdict

KERNELS = compiled().kernels
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


class Plain:
    """Kernels that glance on any processor: the layers one by one, with these weights."""

    def __init__(self, pnet, rnet, *, able=True):
        self.pnet, self.rnet, self.can_glance = pnet, rnet, lambda: able

    def glance(self, levels, tiles, values):
        return plain_pnet(levels, self.pnet)[:, 0]

    def judge(self, windows, sizes, exact):
        assert np.all(sizes == 12)
        return plain_pnet(windows, self.pnet, cast=lambda values: values)[:, :, 0, 0]

    def glance_crops(self, crops, tiles, values):
        return plain_rnet(crops, self.rnet)


class Off:
    """An engine, some of whose answers are off: where `when` says so of the input."""

    def __init__(self, engine, name, by, when=lambda image: True):
        self.engine, self.graph = engine, engine.graph
        self.name, self.by, self.when = name, by, when

    def run(self, feeds):
        answer = self.engine.run(feeds)
        by = np.float32(self.by if self.when(feeds["image"]) else 0)
        return {**answer, self.name: answer[self.name] + by}


def works(part):
    assert part == "glance"
    return Verdict(True, "works")


@pytest.fixture(scope="module")
def engines(session_home):
    return load_model("mtcnn").engines


@pytest.fixture
def looking(engines):
    """`glances_of` of the engines, some of them in the place of MTCNN's, on any processor."""
    kernels = Plain(*(weights_in(engines[net].graph, shapes) for net, shapes in NETS.items()))

    def look(**others):
        find = partial(Compiled, kernels)
        return glances_of({**engines, **others}, find=find, attempt=works)

    return look


def test_it_stands_for_the_engines_of_mtcnn(looking, engines):
    glances = looking()
    assert glances.pnet and glances.rnet and glances.reason == ""
    for others in ({"pnet": engines["rnet"]}, {"rnet": engines["pnet"]}):
        none = looking(**others)
        assert (none.pnet, none.rnet) == (None, None)
        assert none.reason.startswith("its networks are others")


def test_the_processor_s_own_glances_stand_for_them_where_there_are_some(engines):
    glances = glances_of(engines)
    assert (glances.pnet is not None, glances.rnet is not None) == (ABLE, ABLE), glances.reason
    assert (glances.reason == "") is ABLE


@pytest.mark.parametrize("sign", [1, -1])
def test_scores_of_half_the_margin_and_more_are_refused_by_net(looking, engines, sign):
    """A glance of P-net is off by 0.015 itself, in the level that is tried."""

    def level(image):
        return image.shape[2:] == TRIED

    half = {net: sign * margin / 2 for net, margin in MARGIN.items()}
    for by, refused in ((0.6, False), (1.4, True)):
        pnet = Off(engines["pnet"], "score", by * half["pnet"], level)
        rnet = Off(engines["rnet"], "score", by * half["rnet"])
        glances = looking(pnet=pnet)
        assert glances.rnet and (glances.pnet is None) is refused
        assert glances.reason.startswith("what it says for P-net is off by 0.") is refused
        glances = looking(rnet=rnet)
        assert glances.pnet and (glances.rnet is None) is refused
        assert glances.reason.startswith("what it says for R-net is off by 0.0") is refused


@pytest.mark.parametrize(("name", "by"), [("offset", 1e-3), ("score", 1e-3), ("score", np.nan)])
def test_windows_have_to_be_judged_exactly(looking, engines, name, by):
    glances = looking(pnet=Off(engines["pnet"], name, by, lambda image: len(image) > 1))
    assert glances.pnet is None and glances.rnet
    assert glances.reason.startswith("what it says for P-net of windows is off by ")
    assert glances.reason.endswith("at most 1e-05 is right")


def test_what_did_not_pass_its_trial_is_not_used(engines):
    def crashed(part):
        return Verdict(False, "crashed with SIGILL")

    def never(part):
        raise AssertionError("nothing should be tried")

    def reason(kernels, attempt, why="", engines=engines):
        glances = glances_of(engines, find=partial(Compiled, kernels, why), attempt=attempt)
        assert (glances.pnet, glances.rnet) == (None, None)
        return glances.reason

    assert reason(Plain(0, 0), crashed) == "when it was tried, it crashed with SIGILL"
    assert reason(Plain(0, 0, able=False), never).startswith("this processor has no AMX")
    assert reason(None, never, "it was not built") == "it was not built"
    silent = {net: object() for net in engines}
    assert reason(Plain(0, 0), never, engines=silent).startswith("its networks are others, or not")


def test_an_engine_held_to_older_instructions_has_none(engines):
    settings = EngineSettings(engine="onnxruntime", instructions="avx2")
    held = {net: open_engine(engine.graph, settings) for net, engine in engines.items()}
    assert {engine.graph for engine in held.values()} == {None}
    assert glances_of(held).pnet is None


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
