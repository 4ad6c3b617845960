"""Optimisers against loops in NumPy and TensorFlow's numbers; which parameter is in which group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facenet.errors import SettingsError
from facenet.train.backbones.backbone import Backbone
from facenet.train.losses.loss import ClassLoss, Loss
from facenet.train.optimisers import (
    OPTIMISERS,
    OptimiserSettings,
    build_optimiser,
    parameter_groups,
    set_rate,
)

START, SLOPE = np.array([1.0, -2.0, 0.5]), np.array([0.3, 2.0, -1.0])
RATES = (0.1, 0.1, 0.05, 0.05)
"""Of four steps: that of the rate between two shows where an optimiser multiplies by it."""
DECAY = 0.01

TENSORFLOW = {
    "facenet_adam": [
        [1.0179113866199543, -1.9386480428759592, 0.5321001572037871],
        [1.0414102212369456, -1.869782883317115, 0.5724382820874939],
        [1.055021053389858, -1.833452014568907, 0.5952599680277384],
        [1.0700502420101135, -1.7958964579145795, 0.620020860988167],
    ],
    "facenet_rmsprop": [
        [1.0494422349726447, -1.7612240459509, 0.602592308276538],
        [1.1429072055165241, -1.3630926035469395, 0.8009854225417876],
        [1.2507606032662015, -0.934219026141382, 1.0366864458246792],
        [1.370629382492601, -0.4947927334497747, 1.310187968915814],
    ],
    "adagrad": [
        [1.0909075917883053, -1.9001978209997266, 0.5978352649130652],
        [1.156627624083993, -1.8310145540067835, 0.6699763465322679],
        [1.1834895753708325, -1.8031302008948524, 0.7000727845701396],
        [1.206913382617427, -1.7790003564670505, 0.7261949467045489],
    ],
    "adadelta": [
        [1.0003162244069512, -1.9996837723348222, 0.5003162270204863],
        [1.0006406418786868, -1.9993593490565669, 0.5006407012579939],
        [1.0008056542017667, -1.9991943321204997, 0.5008057796833579],
        [1.0009728454746158, -1.9990271352313753, 0.500973059023642],
    ],
    "momentum": [
        [1.1310999983549117, -1.0462000119686126, 0.7840499964356422],
        [1.3103682039424562, -0.05003625633910147, 1.2426247901145293],
        [1.4182273957570017, 0.3631630562712862, 1.5809228754312574],
        [1.541813505498342, 0.7111706637783917, 2.0287180057861156],
    ],
}
"""Weights after each step by `tf.compat.v1.train` of TensorFlow 2.21 with facenet's options, of the
loss sum(SLOPE w^2 / 2 - w) + DECAY * tf.nn.l2_loss(w); adam's powers of beta are float32 there."""

Vector = NDArray[np.float64]
Step = Callable[[Vector, Vector, float, int], Vector]


def slope(weights: Vector) -> Vector:
    return SLOPE * weights - 1


def trained(settings: OptimiserSettings, steps: int = 4, resume_at: int = -1) -> list[Vector]:
    """Weights after each step; at `resume_at` a new optimiser goes on from the old one's state."""
    weights = nn.Parameter(torch.tensor(START))
    group = {"params": [weights], "name": "w", "factor": 0.5, "weight_decay": DECAY}
    optimiser = build_optimiser(settings, [group])
    found = []
    for number in range(steps):
        if number == resume_at:
            state = optimiser.state_dict()
            optimiser = build_optimiser(settings, [group])
            optimiser.load_state_dict(state)
        weights.grad = torch.tensor(slope(weights.detach().numpy()))
        set_rate(optimiser, 2 * RATES[number])
        optimiser.step()
        found.append(weights.detach().numpy().copy())
    return found


def sgd(nesterov: bool) -> Step:
    memory = np.zeros(3)

    def step(w: Vector, g: Vector, rate: float, number: int) -> Vector:
        nonlocal memory
        g = g + DECAY * w
        memory = 0.9 * memory + g
        return w - rate * (g + 0.9 * memory if nesterov else memory)

    return step


def adam(epsilon: float, *, decoupled: bool = False, tensorflow: bool = False) -> Step:
    mean, square = np.zeros(3), np.zeros(3)

    def step(w: Vector, g: Vector, rate: float, number: int) -> Vector:
        nonlocal mean, square
        if decoupled:
            w = w * (1 - rate * DECAY)
        else:
            g = g + DECAY * w
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g * g
        first, second = 1 - 0.9**number, 1 - 0.999**number
        if tensorflow:
            return w - rate * np.sqrt(second) / first * mean / (np.sqrt(square) + epsilon)
        return w - rate * (mean / first) / (np.sqrt(square / second) + epsilon)

    return step


def rmsprop(epsilon: float, *, tensorflow: bool = False) -> Step:
    square, move = np.ones(3) if tensorflow else np.zeros(3), np.zeros(3)

    def step(w: Vector, g: Vector, rate: float, number: int) -> Vector:
        nonlocal square, move
        g = g + DECAY * w
        square = 0.9 * square + 0.1 * g * g
        if tensorflow:
            move = 0.9 * move + rate * g / np.sqrt(square + epsilon)
            return w - move
        move = 0.9 * move + g / (np.sqrt(square) + epsilon)
        return w - rate * move

    return step


def adagrad() -> Step:
    total = np.full(3, 0.1)

    def step(w: Vector, g: Vector, rate: float, number: int) -> Vector:
        nonlocal total
        g = g + DECAY * w
        total = total + g * g
        return w - rate * g / np.sqrt(total)

    return step


def adadelta() -> Step:
    square, moved = np.zeros(3), np.zeros(3)

    def step(w: Vector, g: Vector, rate: float, number: int) -> Vector:
        nonlocal square, moved
        g = g + DECAY * w
        square = 0.9 * square + 0.1 * g * g
        move = np.sqrt(moved + 1e-6) / np.sqrt(square + 1e-6) * g
        moved = 0.9 * moved + 0.1 * move * move
        return w - rate * move

    return step


FORMULAS: dict[str, Callable[[], Step]] = {
    "sgd": lambda: sgd(False),
    "momentum": lambda: sgd(True),
    "adam": lambda: adam(1e-8),
    "adamw": lambda: adam(1e-8, decoupled=True),
    "rmsprop": lambda: rmsprop(1e-8),
    "facenet_adam": lambda: adam(0.1, tensorflow=True),
    "facenet_rmsprop": lambda: rmsprop(1.0, tensorflow=True),
    "adagrad": adagrad,
    "adadelta": adadelta,
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_is_its_formula(name: str) -> None:
    step, weights = FORMULAS[name](), START
    for number, found in enumerate(trained(OptimiserSettings(name))):
        weights = step(weights, slope(weights), RATES[number], number + 1)
        np.testing.assert_allclose(found, weights, rtol=1e-12)


@pytest.mark.parametrize("name", TENSORFLOW)
def test_facenets_optimisers_are_those_of_tensorflow(name: str) -> None:
    np.testing.assert_allclose(trained(OptimiserSettings(name)), TENSORFLOW[name], atol=2e-6)


def test_torchs_formulas_would_not_do_for_facenets_epsilons() -> None:
    """Of a small gradient, the first step: 1 / sqrt(1 - 0.999) and sqrt(0.9 + 1) times as long."""

    def first(name: str, epsilon: float) -> float:
        weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        group = {"params": [weight], "name": "w", "factor": 1.0, "weight_decay": 0.0}
        optimiser = build_optimiser(OptimiserSettings(name, epsilon=epsilon), [group])
        weight.grad = torch.full((1,), -1e-6, dtype=torch.float64)
        set_rate(optimiser, 1.0)
        optimiser.step()
        return weight.item()

    adams = first("adam", 0.1) / first("facenet_adam", 0.1)
    rmsprops = first("rmsprop", 1.0) / first("facenet_rmsprop", 1.0)
    assert (adams, rmsprops) == pytest.approx((0.001**-0.5, 1.9**0.5), rel=1e-3)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_restored_optimiser_goes_on_to_the_same_bits(name: str) -> None:
    settings = OptimiserSettings(name)
    np.testing.assert_array_equal(trained(settings), trained(settings, resume_at=2))


def test_options_reach_the_optimiser() -> None:
    def end(**options: object) -> Vector:
        return trained(OptimiserSettings(**options))[-1]  # type: ignore[arg-type]

    np.testing.assert_array_equal(end(name="sgd", nesterov=True), end(name="momentum"))
    for name, options in {
        "sgd": {"momentum": 0.5},
        "facenet_adam": {"betas": (0.5, 0.9)},
        "adadelta": {"rho": 0.5},
        "rmsprop": {"decay": 0.5},
        "facenet_rmsprop": {"decay": 0.5, "momentum": 0.0},
        "adagrad": {"epsilon": 0.5},
    }.items():
        assert (end(name=name, **options) != end(name=name)).all(), name


# ---- groups


class Small(Backbone):
    """A stem with a norm, a middle, a position embedding of three axes, an output."""

    embedding_size, input_size = 4, 8

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.PReLU(2))
        self.middle = nn.ParameterDict({"position": torch.zeros(1, 5, 2)})
        self.attention = nn.MultiheadAttention(2, 1)
        self.output = nn.Linear(2, 4)

    def forward(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def blocks(self) -> dict[str, tuple[nn.Module, ...]]:
        return {
            "stem": (self.stem,),
            "middle": (self.middle, self.attention),
            "embedding": (self.output,),
        }


class Centres(ClassLoss):
    def __init__(self) -> None:
        super().__init__(3, 4)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError


class NoCentres(Loss):
    def forward(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError


def described(
    backbone: Backbone, settings: OptimiserSettings, **rates: float
) -> dict[str, tuple[set[str], float, float]]:
    """Names of parameters, factor and weight decay by group; each parameter is in one at most."""
    loss = Centres()
    names = {id(p): name for name, p in backbone.named_parameters()}
    names |= {id(p): name for name, p in loss.named_parameters()}
    groups = parameter_groups(backbone, loss, settings, rates)
    found = [names[id(p)] for group in groups for p in group["params"]]
    assert len(found) == len(set(found))
    assert set(found) == {n for n, p in backbone.named_parameters() if p.requires_grad} | {
        "weight",
        "bias",
    }
    return {
        group["name"]: (
            {names[id(p)] for p in group["params"]},
            group["factor"],
            group["weight_decay"],
        )
        for group in groups
    }


def test_only_kernels_decay_and_blocks_have_their_rates() -> None:
    groups = described(Small(), OptimiserSettings(rate_factor_head=10.0), stem=0.25)
    norms = {"stem.0.bias", "stem.1.weight", "stem.1.bias", "stem.2.weight"}
    attention = {"attention.in_proj_weight", "attention.out_proj.weight"}
    shifts = {"middle.position", "attention.in_proj_bias", "attention.out_proj.bias"}
    assert groups == {
        "stem": ({"stem.0.weight"}, 0.25, 5e-4),
        "stem.undecayed": (norms, 0.25, 0.0),
        "middle": (attention, 1.0, 5e-4),
        "middle.undecayed": (shifts, 1.0, 0.0),
        "embedding": ({"output.weight"}, 1.0, 5e-4),
        "embedding.undecayed": ({"output.bias"}, 1.0, 0.0),
        "head": ({"weight"}, 10.0, 5e-4),
        "head.undecayed": ({"bias"}, 10.0, 0.0),
    }


def test_what_is_frozen_is_left_out_and_norms_decay_when_asked() -> None:
    backbone = Small()
    backbone.stem.requires_grad_(False)
    backbone.output.bias.requires_grad_(False)
    groups = described(backbone, OptimiserSettings(decay_norms=True, head_weight_decay=0.1))
    assert list(groups) == ["middle", "embedding", "head"]
    assert groups["embedding"] == ({"output.weight"}, 1.0, 5e-4)
    assert groups["head"] == ({"weight", "bias"}, 1.0, 0.1)
    assert described(backbone, OptimiserSettings("adamw"))["head"][2] == 0.0
    assert described(backbone, OptimiserSettings("adamw", head_weight_decay=0.1))["head"][2] == 0.1


def test_the_rate_of_a_group_is_the_rate_times_its_factor() -> None:
    groups = parameter_groups(Small(), Centres(), OptimiserSettings(), {"stem": 0.25})
    optimiser = build_optimiser(OptimiserSettings(), groups)
    set_rate(optimiser, 0.2)
    rates = {group["name"]: group["lr"] for group in optimiser.param_groups}
    assert (rates["stem"], rates["stem.undecayed"], rates["head"]) == (0.05, 0.05, 0.2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "adm"}, "should be one of sgd, .* Did you mean adam"),
        ({"name": "adam", "momentum": 0.5}, "momentum is for sgd, momentum, rmsprop, .* is adam"),
        ({"name": "sgd", "epsilon": 0.1}, "epsilon is for adam, .*Leave it out"),
        ({"name": "momentum", "nesterov": True}, "nesterov is for sgd; optimiser.name is momentum"),
        ({"name": "adagrad", "rho": 0.5}, "rho is for adadelta"),
        ({"momentum": 1.0}, "momentum should be 0 or more and less than 1; got 1.0"),
        ({"name": "adam", "betas": (0.9, float("nan"))}, "betas should be 0 or more"),
        ({"weight_decay": -1.0}, "weight_decay should be 0 or more; got -1.0"),
        ({"rate_factor_head": 0.0}, "rate_factor_head should be more than 0"),
        ({"nesterov": True, "momentum": 0.0}, "momentum should be more than 0; got 0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        OptimiserSettings(**options)  # type: ignore[arg-type]


def test_groups_that_cannot_be_are_refused() -> None:
    settings = OptimiserSettings()
    with pytest.raises(SettingsError, match="stem, middle, embedding; got 'stam'.*mean stem"):
        parameter_groups(Small(), Centres(), settings, {"stam": 0.5})
    with pytest.raises(SettingsError, match="block stem should be more than 0; got 0"):
        parameter_groups(Small(), Centres(), settings, {"stem": 0})
    with pytest.raises(SettingsError, match="this loss has none. Leave them out"):
        parameter_groups(Small(), NoCentres(), replace(settings, rate_factor_head=2.0))
    backbone = Small().requires_grad_(False)
    with pytest.raises(SettingsError, match="all are frozen. Unfreeze a block"):
        build_optimiser(settings, parameter_groups(backbone, NoCentres(), settings))
