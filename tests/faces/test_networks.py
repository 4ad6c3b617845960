"""Looking twice, quickly and then exactly, against looking exactly at everything."""

import cv2
import numpy as np
import pytest
from naive_mtcnn import ToyNet, toy_nets

from facenet.faces.compiled import Compiled
from facenet.faces.exactness import EXACTNESS
from facenet.faces.glance import MARGIN, Glances, glances_of
from facenet.faces.mtcnn import Mtcnn, MtcnnSettings
from facenet.faces.networks import (
    CELL,
    CHUNKS,
    FEW,
    MUCH,
    Networks,
    chunks,
    is_quicker,
    squares,
)
from facenet.faces.resample import AreaSampler
from facenet.images import load_image
from facenet.models.loader import load_model

NOISE = 0.9
"""Of the margin: how far off the quick looks of these tests are, at most."""


class Quick:
    """An engine whose scores are off by so much of the margin, and whose other answers are
    useless."""

    def __init__(self, engine, *, net="pnet", noise=NOISE):
        self.engine, self.noise, self.runs = engine, noise * MARGIN.get(net, 0), []
        self.inputs, self.describe = engine.inputs, engine.describe
        self._random = np.random.RandomState(0)

    def run(self, feeds):
        answer = self.engine.run(feeds)
        self.runs.append(len(answer["score"]))
        noise = self._random.uniform(-self.noise, self.noise, answer["score"].shape)
        wrong = {name: np.full_like(values, 7) for name, values in answer.items()}
        return {**wrong, "score": (answer["score"] + noise).astype(np.float32)}


class Noisy(Quick):
    """A glance whose odds are off alike; it judges windows as the engine does.

    judged: how many it was asked for each time.
    """

    def __init__(self, engine, **options):
        super().__init__(engine, **options)
        self.judged = []

    def odds(self, image):
        score = np.clip(self.run({"image": image})["score"], 1e-6, 1 - 1e-6).astype(np.float64)
        return np.log(score / (1 - score)).astype(np.float32)

    def judge(self, windows, sizes):
        self.judged.append(len(windows))
        said = [
            self.engine.run({"image": window[None, :, :height, :width]})
            for window, height, width in zip(windows, *sizes, strict=True)
        ]
        scores, offsets = ([answer[name].ravel() for answer in said] for name in said[0])
        return {"score": np.concatenate(scores), "offset": np.stack(offsets)}


ALWAYS = {"pnet": 0, "rnet": 0}


def quick_nets(nets, **options):
    return {name: Quick(net, net=name, **options) for name, net in nets.items()}


def noisy_glances(nets, **options):
    return Glances(*(Noisy(nets[name], net=name, **options) for name in ("pnet", "rnet")))


def twice(nets, quick):
    """Networks that look quickly at everything."""
    return Networks(nets, lambda: quick, much=ALWAYS, alone=0)


def no_engines():
    raise AssertionError("nobody should ask for the quick engines")


def glancing(nets, glances):
    """Networks that glance at everything."""
    return Networks(nets, no_engines, glances=lambda: glances, alone=0)


def picture(height, width, *, seed):
    coarse = np.random.RandomState(seed).randint(0, 256, (9, 13, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def real(session_home):
    return load_model("mtcnn").engines


@pytest.mark.parametrize("size", [(40, 50), (41, 50), (40, 51), (41, 51), (12, 13), (13, 12)])
@pytest.mark.parametrize("nets", ["toy", "real"])
def test_a_cell_asked_alone_answers_as_in_its_level(size, nets, real):
    engines = toy_nets() if nets == "toy" else real
    levels = np.stack([AreaSampler(picture(80, 100, seed=seed)).level(*size) for seed in (1, 2)])
    whole = engines["pnet"].run({"image": levels})
    cells = np.stack([axis.ravel() for axis in np.indices(whole["score"].shape)])
    cells = cells[:, np.random.RandomState(0).permutation(cells.shape[1])]
    networks = Networks(engines)
    for numbers, rows, columns in (cells, cells[:, cells[0] == 1]):
        ((scores, offsets),) = networks.look([networks.cut(levels, (numbers, rows, columns))])
        np.testing.assert_allclose(scores, whole["score"][numbers, rows, columns], atol=2e-6)
        np.testing.assert_allclose(offsets, whole["offset"][numbers, :, rows, columns], atol=2e-6)


def cells_of(networks, levels, by_column):
    """Numbers, rows, columns, scores and offsets of the cells that reach 0.6, and the width of a
    level."""
    asked = networks.survey(levels, 0.6, by_column=by_column)
    ((scores, offsets),) = networks.look([asked])
    cells = asked.levels, asked.rows, asked.columns, scores, offsets
    return *(values[scores >= 0.6] for values in cells), asked.width


@pytest.mark.parametrize("size", [(61, 81), (60, 81), (15, 99), (99, 15)])
@pytest.mark.parametrize("by_column", [False, True])
def test_cells_of_a_level_are_the_exact_ones(by_column, size):
    seeds = (2, 3, 4)
    levels = np.stack([AreaSampler(picture(80, 100, seed=seed)).level(*size) for seed in seeds])
    expected = cells_of(Networks(toy_nets()), levels, by_column)
    nets = toy_nets()
    quick = quick_nets(nets)
    found = cells_of(twice(nets, quick), levels, by_column)
    assert len(expected[0]) > 15 and set(expected[0]) == {0, 1, 2}
    assert quick["pnet"].runs == [3]
    for mine, theirs in zip(found[:3], expected[:3], strict=True):
        assert np.array_equal(mine, theirs)
    np.testing.assert_allclose(found[3], expected[3], atol=2e-6)
    np.testing.assert_allclose(found[4], expected[4], atol=2e-6)
    assert found[5] == expected[5]


@pytest.mark.parametrize("by_column", [False, True])
def test_cells_of_levels_together_are_those_of_each(by_column):
    levels = np.stack([AreaSampler(picture(80, 100, seed=s)).level(61, 81) for s in (2, 3, 4)])
    networks = Networks(toy_nets())
    together = cells_of(networks, levels, by_column)
    alone = [cells_of(networks, level[None], by_column) for level in levels]
    for axis in range(1, 5):
        assert np.array_equal(together[axis], np.concatenate([cells[axis] for cells in alone]))
    assert np.array_equal(together[0], np.repeat([0, 1, 2], [len(cells[0]) for cells in alone]))


def test_crops_above_the_threshold_are_never_passed_over():
    crops = np.random.RandomState(3).standard_normal((300, 3, 24, 24)).astype(np.float32)
    crops += np.random.RandomState(4).standard_normal((300, 3, 1, 1)).astype(np.float32)
    net = ToyNet("rnet")
    above = net.run({"image": crops})["score"] > 0.7
    assert 20 < above.sum() < 280
    networks = twice(toy_nets(), {"rnet": Quick(net, net="rnet"), "onet": Quick(net)})
    near = networks.near("rnet", crops, 0.7)
    assert networks.looks_quickly("rnet", 300) and not networks.looks_quickly("onet", 300)
    assert np.all(near[above]) and near.sum() < 300


@pytest.mark.parametrize("size", [(61, 81), (60, 81), (15, 99), (99, 15)])
@pytest.mark.parametrize("by_column", [False, True])
def test_cells_that_are_glanced_at_are_the_exact_ones(by_column, size):
    """The glance is asked about the levels, and no engine about more than the cells near by."""
    levels = np.stack([AreaSampler(picture(80, 100, seed=s)).level(*size) for s in (2, 3, 4)])
    expected = cells_of(Networks(toy_nets()), levels, by_column)
    nets, glances = toy_nets(), noisy_glances(toy_nets())
    found = cells_of(glancing(nets, glances), levels, by_column)
    assert len(expected[0]) > 15 and found[5] == expected[5]
    assert glances.pnet.runs == [3] and nets["pnet"].shapes == []
    scores = nets["pnet"].run({"image": levels})["score"]
    near = np.count_nonzero(scores >= 0.6 - 2 * MARGIN["pnet"])
    assert len(expected[0]) < sum(glances.pnet.judged) <= near < scores.size
    for mine, theirs in zip(found[:3], expected[:3], strict=True):
        assert np.array_equal(mine, theirs)
    np.testing.assert_allclose(found[3], expected[3], atol=2e-6)
    np.testing.assert_allclose(found[4], expected[4], atol=2e-6)


def test_crops_that_pass_are_never_glanced_over():
    crops = np.random.RandomState(3).standard_normal((300, 3, 24, 24)).astype(np.float32)
    crops += np.random.RandomState(4).standard_normal((300, 3, 1, 1)).astype(np.float32)
    nets = toy_nets()
    exact = nets["rnet"].run({"image": crops})["score"]
    glances = noisy_glances(nets)
    networks = glancing(nets, glances)
    for threshold in np.quantile(exact, [0.3, 0.5, 0.7, 0.9]):
        near = networks.near("rnet", crops, threshold)
        assert np.all(near[exact > threshold])
        assert not np.any(near[exact < threshold - 2 * MARGIN["rnet"]])
    assert glances.rnet.runs == [300] * 4


def test_few_crops_are_worth_a_glance_and_only_many_a_quick_engine():
    networks = glancing(toy_nets(), noisy_glances(toy_nets()))
    assert networks.looks_quickly("rnet", FEW) and not networks.looks_quickly("rnet", FEW - 1)
    without = Networks(toy_nets(), lambda: quick_nets(toy_nets()))
    assert not without.looks_quickly("rnet", MUCH["rnet"] - 1)
    assert without.looks_quickly("rnet", MUCH["rnet"])


@pytest.mark.parametrize("size", [(12, 12), (11, 11), (40, 31), (31, 40)])
def test_squares_are_cut_alike_by_either(kernels, size):
    """Also where a level ends a pixel too early for the last of them."""
    random = np.random.RandomState(5)
    levels = random.standard_normal((3, 3, *size)).astype(np.float32)
    rows, columns = (random.randint(0, side - CELL + 2, 50) for side in size)
    corners = random.randint(0, 3, 50), rows, columns
    expected = np.zeros((50, 3, CELL, CELL), np.float32)
    for out, number, row, column in zip(expected, *corners, strict=True):
        part = levels[number, :, row : row + CELL, column : column + CELL]
        out[:, : part.shape[1], : part.shape[2]] = part
    assert np.array_equal(squares(levels, corners, lambda: Compiled(kernels)), expected)
    assert np.array_equal(squares(levels, corners, Compiled), expected)
    assert np.array_equal(squares(levels, corners), expected)


def test_crops_are_judged_in_filled_chunks():
    net = ToyNet("onet")
    crops = np.random.RandomState(3).standard_normal((45, 3, 48, 48)).astype(np.float32)
    expected = net.run({"image": crops})
    answer = Networks({"onet": net}).judge("onet", crops)
    assert [shape[0] for shape in net.shapes] == [45, CHUNKS["onet"], 16]
    for name, values in expected.items():
        np.testing.assert_allclose(answer[name], values, atol=1e-6)
    counts = []
    for number in range(1, 34):
        Networks({"onet": net}).judge("onet", crops[:number])
        counts.append(net.shapes[-1][0])
    assert sorted(set(counts)) == [2, 3, 4, 6, 8, 12, 16, 24, 32]


def test_a_whole_level_is_asked_about_where_a_quick_look_leaves_much_of_it():
    level = AreaSampler(picture(80, 100, seed=2)).level(61, 81)[None]
    shapes = {}
    for alone in (0, 1, 1000):
        nets = toy_nets()
        quick = quick_nets(nets)
        networks = Networks(nets, lambda quick=quick: quick, much=ALWAYS, alone=alone)
        found = cells_of(networks, level, False)
        assert len(found[0]) > 15
        shapes[alone] = {shape[-2:] for shape in nets["pnet"].shapes[1:]}
    assert (61, 81) not in shapes[0] | shapes[1] and shapes[1000] == {(61, 81)}


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_thread_gets_crops_and_no_chunk_is_larger_than_allowed(threads):
    for count in (0, 1, 7, 8, 9, 16, 43, 100, 1000):
        parts = chunks(np.arange(count), "onet", threads)
        assert np.array_equal(np.concatenate([[], *parts]), np.arange(count))
        assert all(len(part) <= CHUNKS["onet"] for part in parts)
        if threads > 1 and count >= 8 * (threads + 1):
            assert len(parts) > threads and min(map(len, parts[:-1])) >= 8
        if threads == 1:
            assert len(parts) == -(-count // CHUNKS["onet"])


def test_a_quick_engine_off_by_more_than_the_margin_would_be_noticed():
    """The other tests can fail: with a useless quick engine, cells are lost."""
    level = AreaSampler(picture(80, 100, seed=2)).level(61, 81)[None]
    expected = cells_of(Networks(toy_nets()), level, False)
    nets = toy_nets()
    for networks in (
        twice(nets, quick_nets(nets, noise=5)),
        glancing(nets, noisy_glances(nets, noise=5)),
    ):
        assert len(cells_of(networks, level, False)[0]) < len(expected[0])


@pytest.mark.parametrize("mode", list(EXACTNESS))
def test_the_whole_cascade_finds_the_same_faces(mode, real, examples):
    photo = load_image(examples / "photos/group.jpg")
    row = np.concatenate([photo, photo[:, ::-1]], axis=1)
    photos = [np.concatenate([row, row[::-1]]), photo]
    assert 0.36 * photos[0].shape[0] * photos[0].shape[1] > MUCH["pnet"]
    settings = MtcnnSettings(exactness=mode)
    expected = Mtcnn(real, settings).detect(photos)
    quick = quick_nets(real)
    found = Mtcnn(real, settings, quick=lambda: quick, threads=2).detect(photos)
    assert quick["pnet"].runs and quick["rnet"].runs and not quick["onet"].runs
    assert sum(map(len, found)) >= 12
    assert_alike(found, expected)
    glances = glances_of(real)
    assert (glances.pnet is None) is (glances.rnet is None) is (glances.reason != "")
    if glances.pnet:  # this processor has AMX
        found = Mtcnn(real, settings, glances=lambda: glances, threads=2).detect(photos)
        assert_alike(found, expected)


def assert_alike(found, expected):
    assert [len(faces) for faces in found] == [len(faces) for faces in expected]
    for ours, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.boxes, plain.boxes, atol=1e-2)
        np.testing.assert_allclose(ours.landmarks, plain.landmarks, atol=1e-2)
        np.testing.assert_allclose(ours.detection_score, plain.detection_score, atol=1e-5)


def test_small_pictures_are_looked_at_once(real):
    nothing = [np.zeros((100, 100, 3), np.uint8)]
    assert Mtcnn(real, quick=no_engines).detect(nothing)[0].boxes.size == 0


def test_a_quick_engine_has_to_be_quicker():
    now = [0.0]

    class Timed:
        inputs = {"picture": (1, 3, None, None)}

        def __init__(self, *seconds):
            self.seconds = list(seconds)

        def run(self, feeds):
            assert feeds["picture"].shape == (1, 3, 64, 64)
            now[0] += self.seconds.pop(0)
            return {}

    def quicker(quick, exact):
        return is_quicker(Timed(9, *quick), Timed(9, *exact), side=64, clock=lambda: now[0])

    assert quicker([1, 5, 1], [2, 2, 9])  # the first run and single slow ones do not count
    assert not quicker([2, 2, 2], [2.2, 2.2, 2.2])
    assert not quicker([2, 2, 2], [1, 1, 1])
