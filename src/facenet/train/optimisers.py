"""Optimisers by name, and which parameters get which rate and which weight decay.

Those of TensorFlow 1 that facenet's recipes need (adam with an epsilon of 0.1, rmsprop with one of
1.0) are written out here: TensorFlow puts epsilon elsewhere than torch, and at such values torch's
first steps of small gradients are 32 and 1.4 times as long. Checked against TensorFlow itself.

Weight decay is facenet's and InsightFace's: the loss has weight_decay * sum(w^2) / 2 added, whose
gradient, weight_decay * w, joins the gradient before anything else ("coupled"; only adamw takes it
from the weights directly, Loshchilov and Hutter 2019). By default it falls on matrices and kernels
only: shifts and scales have no part in how complex a network is (He et al. 2019, 1812.01187).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from facenet.errors import SettingsError
from facenet.train.backbones.backbone import Backbone
from facenet.train.choosing import chosen
from facenet.train.losses.loss import Loss
from facenet.train.unused import refuse_unused

HEAD = "head"
"""Name of the group of the loss: the class centres."""
UNDECAYED = ".undecayed"
"""Ending of the name of a group without weight decay, where its block has one with."""
ADAGRAD_START = 0.1
"""What TensorFlow's Adagrad counts as gathered before the first step."""

Group = dict[str, Any]


@dataclass(frozen=True, slots=True)
class OptimiserSettings:
    """An optimiser and its options; the learning rate comes from the schedule.

    name: "sgd" (InsightFace), "momentum" (facenet's MOM: SGD with Nesterov's momentum), "adam",
    "adamw", "rmsprop" (torch's), "facenet_adam", "facenet_rmsprop" (TensorFlow's, with facenet's
    epsilons), "adagrad", "adadelta" (both as TensorFlow's).
    momentum: of sgd, momentum and the rmsprops. nesterov: look ahead, of sgd. betas: of the adams.
    rho: of adadelta. decay: of the moving average of the rmsprops. epsilon: None: 1e-8 for adam,
    adamw and rmsprop, 0.1 for facenet_adam, 1.0 for facenet_rmsprop, 0 for adagrad (which begins
    with a sum of 0.1), 1e-6 for adadelta. weight_decay: of kernels and matrices. decay_norms: also
    of biases, PReLU slopes, batch norms and position embeddings. head_weight_decay: of the class
    centres; None: weight_decay, but 0 for adamw, where decay makes their angular step drift.
    rate_factor_head: what the learning rate of the class centres is multiplied by.
    """

    name: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    rho: float = 0.9
    decay: float = 0.9
    epsilon: float | None = None
    weight_decay: float = 5e-4
    decay_norms: bool = False
    head_weight_decay: float | None = None
    rate_factor_head: float = 1.0

    def __post_init__(self) -> None:
        kind = chosen("optimiser.name", self.name, OPTIMISERS)
        uses = {name: each.uses for name, each in OPTIMISERS.items()}
        refuse_unused("optimiser", self, uses, always=_ALWAYS)
        for option in ("momentum", "rho", "decay"):
            _require_share(option, getattr(self, option))
        for beta in self.betas:
            _require_share("betas", beta)
        for option in ("epsilon", "weight_decay", "head_weight_decay"):
            value = getattr(self, option)
            if value is not None and not 0 <= value < math.inf:
                raise SettingsError(
                    f"optimiser.{option} should be 0 or more; got {value}. Correct the value."
                )
        if not 0 < self.rate_factor_head < math.inf:
            raise SettingsError(
                f"optimiser.rate_factor_head should be more than 0; got {self.rate_factor_head}. "
                "Correct the value."
            )
        if self.momentum == 0 and (self.nesterov or kind is OPTIMISERS["momentum"]):
            raise SettingsError(
                "Nesterov's optimiser.momentum should be more than 0; got 0. Choose sgd without "
                "nesterov, or a momentum such as 0.9."
            )

    @property
    def used_epsilon(self) -> float:
        """epsilon, or what stands for it."""
        return OPTIMISERS[self.name].epsilon if self.epsilon is None else self.epsilon


_ALWAYS = ("weight_decay", "decay_norms", "head_weight_decay", "rate_factor_head")


def _require_share(option: str, value: float) -> None:
    if not 0 <= value < 1:
        raise SettingsError(
            f"optimiser.{option} should be 0 or more and less than 1; got {value}. Correct the "
            "value."
        )


# ---- groups


def parameter_groups(
    backbone: Backbone,
    loss: Loss,
    settings: OptimiserSettings,
    rates: Mapping[str, float] | None = None,
) -> list[Group]:
    """What learns, by block of the backbone; the parameters of the loss are the group "head".

    rates: factor of the learning rate by name of a block; 1 for the others. Each group has
    "params", "name" (its block, with ".undecayed" for the part without weight decay where there
    is one with), "factor" (of the learning rate) and "weight_decay". Parameters with
    requires_grad False are left out, and groups without any. Raises SettingsError for a rate of a
    block that there is not or that is not above 0, and for options of the head of a loss that
    has no parameters.
    """
    blocks = backbone.blocks()
    _require_rates(rates or {}, blocks)
    _require_head(loss, settings)
    groups: list[Group] = []
    for name, modules in blocks.items():
        found = [pair for module in modules for pair in module.named_parameters()]
        decays = (settings.weight_decay, settings.weight_decay if settings.decay_norms else 0.0)
        groups += _split(name, found, (rates or {}).get(name, 1.0), decays)
    head = settings.head_weight_decay
    if head is None:
        head = 0.0 if settings.name == "adamw" else settings.weight_decay
    decays = (head, head if settings.decay_norms else 0.0)
    groups += _split(HEAD, loss.named_parameters(), settings.rate_factor_head, decays)
    return groups


def _split(
    name: str,
    parameters: Iterable[tuple[str, nn.Parameter]],
    factor: float,
    decays: tuple[float, float],
) -> Iterator[Group]:
    """At most two groups: what decays, and what does not. decays: of the one and the other."""
    learning = [(key, p) for key, p in parameters if p.requires_grad]
    kernels = [p for key, p in learning if _is_kernel(key, p)]
    others = [p for key, p in learning if not _is_kernel(key, p)]
    if decays[0] == decays[1]:
        kernels, others = [p for _, p in learning], []
    parts = ((name, kernels, decays[0]), (f"{name}{UNDECAYED}", others, decays[1]))
    for title, params, decay in parts:
        if params:
            yield {"params": params, "name": title, "factor": factor, "weight_decay": decay}


def _is_kernel(name: str, parameter: Tensor) -> bool:
    """Whether it is a matrix or a kernel: position embeddings have axes enough, but no `weight`."""
    return parameter.ndim > 1 and name.endswith("weight")


def _require_rates(rates: Mapping[str, float], blocks: Mapping[str, Any]) -> None:
    for name, factor in rates.items():
        chosen("A block with a rate of its own", name, blocks)
        if not 0 < factor < math.inf:
            raise SettingsError(
                f"The rate factor of the block {name} should be more than 0; got {factor}. Freeze "
                "a block that should not learn."
            )


def _require_head(loss: Loss, settings: OptimiserSettings) -> None:
    given = settings.rate_factor_head != 1 or settings.head_weight_decay is not None
    if given and next(loss.parameters(), None) is None:
        raise SettingsError(
            "optimiser.rate_factor_head and head_weight_decay are for the class centres; this "
            "loss has none. Leave them out."
        )


def build_optimiser(settings: OptimiserSettings, groups: Sequence[Group]) -> Optimizer:
    """The optimiser of these groups; its rate is 0 until `set_rate` is called.

    Raises SettingsError when nothing learns.
    """
    if not groups:
        raise SettingsError(
            "At least one parameter should learn; all are frozen. Unfreeze a block, or choose a "
            "loss with class centres."
        )
    return OPTIMISERS[settings.name].build([dict(group) for group in groups], settings)


def set_rate(optimiser: Optimizer, rate: float) -> None:
    """The learning rate of the next step: `rate` times the factor of each group."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]


# ---- TensorFlow's formulas


class TensorFlowAdam(Optimizer):
    """Adam as TensorFlow 1 computes it: epsilon is added to the root before its correction.

    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
    w -= rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon): "epsilon hat" in Kingma and Ba,
    section 2. torch's epsilon is that divided by sqrt(1 - b2^t), 32 times as much in step one.
    """

    def __init__(self, groups: Sequence[Group], settings: OptimiserSettings) -> None:
        super().__init__(groups, {"lr": 0.0})
        self._betas, self._epsilon = settings.betas, settings.used_epsilon

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        first, second = self._betas
        for group, parameter, gradient, memory in _moves(self):
            if not memory:
                memory["step"] = torch.zeros(())
                memory["mean"] = torch.zeros_like(parameter)
                memory["square"] = torch.zeros_like(parameter)
            memory["step"] += 1
            steps = int(memory["step"])
            memory["mean"].lerp_(gradient, 1 - first)
            memory["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
            rate = group["lr"] * math.sqrt(1 - second**steps) / (1 - first**steps)
            root = memory["square"].sqrt().add_(self._epsilon)
            parameter.addcdiv_(memory["mean"], root, value=-rate)


class TensorFlowRmsProp(Optimizer):
    """RMSProp as TensorFlow 1 computes it: epsilon is inside the root, the average begins at 1.

    s = decay s + (1 - decay) g^2, s_0 = 1; b = momentum b + rate g / sqrt(s + epsilon); w -= b.
    torch's begins at 0, adds epsilon to the root and multiplies b, not g, by the rate.
    """

    def __init__(self, groups: Sequence[Group], settings: OptimiserSettings) -> None:
        super().__init__(groups, {"lr": 0.0})
        self._decay, self._momentum = settings.decay, settings.momentum
        self._epsilon = settings.used_epsilon

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group, parameter, gradient, memory in _moves(self):
            if not memory:
                memory["square"] = torch.ones_like(parameter)
                memory["move"] = torch.zeros_like(parameter)
            memory["square"].lerp_(gradient.square(), 1 - self._decay)
            root = memory["square"].add(self._epsilon).sqrt_()
            memory["move"].mul_(self._momentum).addcdiv_(gradient, root, value=group["lr"])
            parameter.sub_(memory["move"])


def _moves(optimiser: Optimizer) -> Iterator[tuple[Group, Tensor, Tensor, dict[str, Tensor]]]:
    """Group, parameter, gradient with its weight decay, and what is remembered of it."""
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
                yield group, parameter, gradient, optimiser.state[parameter]


# ---- by name


@dataclass(frozen=True, slots=True)
class OptimiserKind:
    """An optimiser by name: what builds it, the options it uses, its epsilon, its source."""

    build: Callable[[list[Group], OptimiserSettings], Optimizer]
    uses: frozenset[str]
    epsilon: float
    source: str


def _sgd(groups: list[Group], settings: OptimiserSettings) -> Optimizer:
    nesterov = settings.nesterov or settings.name == "momentum"
    return torch.optim.SGD(groups, 0.0, momentum=settings.momentum, nesterov=nesterov, fused=True)


def _adam(groups: list[Group], settings: OptimiserSettings) -> Optimizer:
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(groups, 0.0, settings.betas, settings.used_epsilon, fused=True)


def _rmsprop(groups: list[Group], settings: OptimiserSettings) -> Optimizer:
    return torch.optim.RMSprop(
        groups, 0.0, settings.decay, settings.used_epsilon, momentum=settings.momentum
    )


def _adagrad(groups: list[Group], settings: OptimiserSettings) -> Optimizer:
    return torch.optim.Adagrad(
        groups, 0.0, initial_accumulator_value=ADAGRAD_START, eps=settings.used_epsilon
    )


def _adadelta(groups: list[Group], settings: OptimiserSettings) -> Optimizer:
    return torch.optim.Adadelta(groups, 0.0, settings.rho, settings.used_epsilon)


_ADAM = frozenset({"betas", "epsilon"})
_RMSPROP = frozenset({"decay", "momentum", "epsilon"})

OPTIMISERS: dict[str, OptimiserKind] = {
    "sgd": OptimiserKind(_sgd, frozenset({"momentum", "nesterov"}), 0.0, "InsightFace"),
    "momentum": OptimiserKind(_sgd, frozenset({"momentum"}), 0.0, "facenet MOM"),
    "adam": OptimiserKind(_adam, _ADAM, 1e-8, "Kingma and Ba 2015, as torch; facenet-pytorch"),
    "adamw": OptimiserKind(_adam, _ADAM, 1e-8, "Loshchilov and Hutter 2019, as torch"),
    "rmsprop": OptimiserKind(_rmsprop, _RMSPROP, 1e-8, "Hinton 2012, as torch"),
    "facenet_adam": OptimiserKind(TensorFlowAdam, _ADAM, 0.1, "facenet ADAM"),
    "facenet_rmsprop": OptimiserKind(TensorFlowRmsProp, _RMSPROP, 1.0, "facenet RMSPROP"),
    "adagrad": OptimiserKind(_adagrad, frozenset({"epsilon"}), 0.0, "facenet ADAGRAD"),
    "adadelta": OptimiserKind(_adadelta, frozenset({"rho", "epsilon"}), 1e-6, "facenet ADADELTA"),
}
