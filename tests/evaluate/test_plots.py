"""The figures of a report: read back from the SVG, and what they must not hold."""

from __future__ import annotations

import hashlib
import logging
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
import report_maker as maker

from facenet.errors import InputError
from facenet.evaluate import plots
from facenet.evaluate.svg import SERIES, inline, variable

SVG = "{http://www.w3.org/2000/svg}"
MODELS = (maker.result("first"), maker.result("second", 1))


@pytest.fixture(scope="module")
def drawn():
    return plots.draw(MODELS)


def drawings(found):
    return [drawing for section in found.values() for drawing in section]


def roc(x, y):
    return {"curves": {"roc": {"fmr": x, "tmr": y}}}


def vertices(drawing, colour=0, longest=True):
    """Corners of a line of a colour, in units of the drawing: float64 (n, 2)."""
    stroke = f"stroke: {variable(SERIES[colour])}"
    lines = []
    for path in ElementTree.fromstring(drawing.svg).iter(f"{SVG}path"):
        if stroke in path.get("style", "") and "fill: none" in path.get("style", ""):
            numbers = re.findall(r"-?\d+(?:\.\d+)?", path.get("d"))
            lines.append(np.array(numbers, float).reshape(-1, 2))
    return max(lines, key=len) if longest else lines


def test_every_part_has_its_figure(drawn):
    names = {section: [d.name for d in found] for section, found in drawn.items()}
    assert names == {
        "errors": ["roc", "det"],
        "histograms": ["histogram0", "histogram1"],
        "identification": ["cmc", "fnir", "scaling"],
        "quality": ["discard0n0", "discard0n1", "discard1n0", "discard1n1"],
        "calibration": ["reliability"],
    }
    assert [d.model for d in drawn["quality"]] == [0, 0, 1, 1]
    assert [d.measure for d in drawn["quality"]] == ["detection_score", "vector_length"] * 2


def test_a_figure_is_an_element_for_a_page_and_loads_nothing(drawn):
    seen: set[str] = set()
    for drawing in drawings(drawn):
        root = ElementTree.fromstring(drawing.svg)
        assert root.tag == f"{SVG}svg"
        assert root.get("role") == "img"
        tags = {element.tag.removeprefix(SVG) for element in root.iter()}
        assert tags <= {"svg", "title", "g", "path", "defs", "use", "text", "clipPath", "rect"}
        identifiers = [e.get("id") for e in root.iter() if e.get("id")]
        assert not seen & set(identifiers) and len(set(identifiers)) == len(identifiers)
        seen |= set(identifiers)
        links = re.findall(r'(?:href="|url\()#?([^")]+)', drawing.svg)
        assert set(links) <= set(identifiers)
        assert root.find(f"{SVG}title").text == drawing.title
        assert root.get("aria-labelledby") in identifiers
        assert "http" not in drawing.svg.replace("http://www.w3.org/2000/svg", "")


def test_names_of_the_data_are_not_drawn(drawn):
    other = [{**model, "model": "$x^{<&>\x00", "dataset": "\udcff"} for model in MODELS]
    assert plots.draw(other) == drawn


def test_two_processes_give_the_same_bytes(drawn):
    code = (
        "import hashlib, sys; sys.path.insert(0, 'tests/evaluate'); import report_maker as m\n"
        "from facenet.evaluate import plots\n"
        "found = plots.draw((m.result('first'), m.result('second', 1)))\n"
        "text = ''.join(d.svg for section in found.values() for d in section)\n"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    here = hashlib.sha256("".join(d.svg for d in drawings(drawn)).encode()).hexdigest()
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert (answer.stdout.strip(), answer.stderr) == (here, "")


def test_settings_of_the_user_do_not_show_and_stay(drawn):
    logger = logging.getLogger("matplotlib")
    with matplotlib.rc_context({"font.size": 40, "axes.grid": False, "text.usetex": True}):
        names = [name for name in matplotlib.rcParams if name != "backend"]
        before, level = [matplotlib.rcParams[name] for name in names], logger.level
        assert plots.draw(MODELS) == drawn
        assert [matplotlib.rcParams[name] for name in names] == before
        assert logger.level == level


def test_the_roc_goes_through_its_points_on_a_logarithmic_axis():
    fmr, tmr = [0.001, 0.01, 0.02, 0.5, 1.0], [0.62, 0.71, 0.83, 0.94, 1.0]
    line = vertices(plots.draw([roc(fmr, tmr)])["errors"][0])
    x, y = line[:, 0], line[:, 1]
    places, heights = np.unique(x), np.unique(y)[::-1]  # SVG counts from the top
    assert len(places) == len(heights) == 5
    for seen, true in ((places, np.log10(fmr)), (heights, np.array(tmr))):
        assert np.polyval(np.polyfit(true, seen, 1), true) == pytest.approx(seen, abs=0.02)
    assert len(line) == 9  # steps: between two points the lower rate of true matches holds
    assert all(y[i] == y[i + 1] for i in range(0, 8, 2))


def test_the_det_shows_both_errors_where_both_are_above_zero():
    drawing = plots.draw([roc([0.0, 0.01, 0.1, 1.0], [0.5, 0.9, 0.99, 1.0])])["errors"][1]
    line = np.unique(vertices(drawing), axis=0)
    places = np.unique(line[:, 0])
    assert len(places) == 2  # FMR 0 and FNMR 0 have no place there
    assert np.isfinite(line).all()
    width, height = plots.SIZE
    assert (line >= 0).all() and (line <= (width, height)).all()


def test_intervals_stand_at_the_rate_that_came_about():
    model = roc([0.001, 1.0], [0.5, 1.0])
    model["tar_at_far"] = {
        "1e-2": {"tar": 0.8, "ci": [0.7, 0.9], "far": 0.01},
        "1e-1": {"tar": 0.9, "ci": None, "far": 0.09},
        "1e-3": {"tar": 0.5, "ci": [0.4, 0.6], "far": 0.0},
    }
    lines = vertices(plots.draw([model])["errors"][0], longest=False)
    (bar,) = [line for line in lines if len(line) == 2]
    curve = max(lines, key=len)
    assert bar[0, 0] == bar[1, 0]
    share = (bar[0, 0] - curve[:, 0].min()) / np.ptp(curve[:, 0])
    assert share == pytest.approx(1 / 3, abs=0.001)  # 1e-2 between 1e-3 and 1
    foot, height = curve[:, 1].max(), np.ptp(curve[:, 1])  # of 0.5, and up to 1
    assert (foot - bar[:, 1]) / height == pytest.approx([0.4, 0.8], abs=0.001)


def test_long_curves_are_thinned_and_keep_their_ends():
    fmr, tmr = np.geomspace(1e-6, 1, 40_000), np.linspace(0.2, 1, 40_000)
    for drawing in plots.draw([roc(fmr.tolist(), tmr.tolist())])["errors"]:
        assert len(vertices(drawing)) <= 2 * plots.POINTS
        assert len(drawing.svg) < 25_000
    short = plots.draw([roc([1e-6, 1.0], [0.2, 1.0])])["errors"][0]
    many = plots.draw([roc(fmr.tolist(), tmr.tolist())])["errors"][0]
    for corner in (0, -1):
        assert vertices(many)[corner] == pytest.approx(vertices(short)[corner], abs=0.02)


def test_the_histogram_has_a_step_per_bin_and_a_line_at_the_threshold():
    edges = np.linspace(-1, 1, 9).tolist()
    shown = {"edges": edges, "mated": [0, 0, 0, 0, 1, 10, 100, 0],
             "non_mated": [0, 1000, 100, 10, 1, 0, 0, 0]}  # fmt: skip
    model = {"curves": {"histogram": shown}, "threshold": 0.125}
    (drawing,) = plots.draw([model])["histograms"]
    steps = np.unique(vertices(drawing, 0)[:, 1])
    tens = np.diff(sorted(steps)[-4:])  # of 100, 10, 1 and the floor
    assert tens[0] == pytest.approx(tens[1], abs=0.03)
    texts = [text.text for text in ElementTree.fromstring(drawing.svg).iter(f"{SVG}text")]
    assert "threshold 0.125" in texts


def test_a_histogram_of_many_bins_is_joined_and_loses_no_pair():
    generator = np.random.default_rng(3)
    edges, counts = np.linspace(-1, 1, 1001), generator.integers(0, 9, (2, 1000)).astype(float)
    joined = plots._wider(edges, *counts)
    assert len(joined[0]) - 1 <= plots.POINTS / 2
    assert (joined[0][0], joined[0][-1]) == (-1, 1)
    for before, after in zip(counts, joined[1:], strict=True):
        for row, total in enumerate(after):
            inside = (edges[:-1] >= joined[0][row]) & (edges[:-1] < joined[0][row + 1])
            assert total == before[inside].sum()


def test_numbers_that_are_missing_are_left_out():
    whole = plots.draw([roc([0.001, 0.1, 1.0], [0.5, 0.8, 1.0])])
    holes = roc([0.001, None, 0.1, 0.5, 1.0], [0.5, 0.6, 0.8, float("nan"), 1.0])
    assert plots.draw([holes]) == whole


def test_one_random_level_is_a_line_over_all_shares():
    curve = maker.discards()
    level = {**curve, "random": 0.05, "fraction": curve["discard"]}
    del level["discard"]
    assert plots.draw([{"quality": {"size": level}}]) == plots.draw([{"quality": {"size": curve}}])


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"curves": {}, "identification": {}, "quality": {}, "calibration": {}, "groups": {}},
        {"curves": None, "identification": None, "quality": None, "calibration": None},
        {"curves": {"roc": {"fmr": [], "tmr": []}}, "quality": {"size": {"discard": []}}},
        {"identification": {"cmc_curve": [], "scaling": [], "fnir_curve": {}}},
        roc([0.0, None], [1.0, 0.3]),
    ],
)
def test_what_is_absent_has_no_figure(model):
    assert drawings(plots.draw([model])) == []


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (roc([0.1, 1.0], [1.0]), "2 fmr, 1 tmr"),
        ({"curves": {"histogram": {"edges": [0, 1], "mated": [1], "non_mated": [1, 2]}}},
         "2 edges, 1 mated, 2 non_mated"),
        ({"identification": {"fnir_curve": {"fpir": [0.1]}}}, "1 fpir, 0 fnir"),
    ],
)  # fmt: skip
def test_columns_that_do_not_fit_each_other_are_refused(model, words):
    with pytest.raises(InputError, match=f"should fit each other; got {words}"):
        plots.draw([model])


def test_perfect_and_hopeless_systems_can_be_drawn():
    for tmr in ([1.0, 1.0], [0.0, 0.0]):
        model = roc([0.5, 1.0], tmr) | {"identification": {"cmc_curve": tmr}}
        names = [drawing.name for drawing in drawings(plots.draw([model]))]
        assert names == (["roc", "cmc"] if tmr[0] else ["roc", "det", "cmc"])


def test_twelve_models_have_lines_of_their_own():
    assert len({plots.style(number) for number in range(12)}) == 12
    models = [roc([0.001, 0.1, 1.0], [0.5, 0.6 + 0.02 * n, 1.0]) for n in range(14)]
    svg = plots.draw(models)["errors"][0].svg
    assert svg.count(f"stroke: {variable(SERIES[0])}") == 3


def test_a_colour_that_is_not_the_pages_stays():
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg"><style>*{}</style><g id="x"/>' \
        b'<path id="y" d="M 1.23456 2" style="fill: #123456; font-family: a; stroke: #0067a5"/>' \
        b"</svg>"  # fmt: skip
    assert inline(drawing, "one", "A & B") == (
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="one-title">'
        '<title id="one-title">A &amp; B</title><g /><path d="M 1.23 2" '
        'style="fill: #123456; stroke: var(--s0, #0067a5)" /></svg>'
    )
