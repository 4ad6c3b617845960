"""InsightFace's output heads: their layers, their arithmetic, their precision, their refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from facenet.errors import ImageError, SettingsError
from facenet.train.backbones.heads import HEADS, build_head, check_crops

N, C, S, D = 3, 6, 2, 6

# Each head as its layers, in InsightFace's words; X adds a dropout of 0.2 after pooling.
LAYERS = {
    "A": "bn prelu gap",
    "B": "bn prelu gap fc",
    "C": "bn prelu gap fc bn1",
    "D": "bn prelu gap fc bn1 prelu1",
    "E": "bn dropout fc bn1",
    "F": "bn dropout fc",
    "G": "bn fc",
    "H": "fc",
    "I": "bn fc bn1",
    "J": "fc bn1",
    "AX": "bn prelu gap drop0.2",
    "BX": "bn prelu gap drop0.2 fc",
    "CX": "bn prelu gap drop0.2 fc bn1",
    "DX": "bn prelu gap drop0.2 fc bn1 prelu1",
}


def unsettled(head: nn.Module) -> nn.Module:
    """The head with numbers in every weight and statistic, so that no layer is the identity."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in head.state_dict().items():
            if value.is_floating_point() and not name.startswith("features.weight"):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.1)
    return head.eval()


def by_hand(words: str, state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The head in evaluation mode as plain formulas."""
    for word in words.split():
        if word == "bn":
            mean, var, gain, offset = (
                state[f"bn2.{part}"][None, :, None, None]
                for part in ("running_mean", "running_var", "weight", "bias")
            )
            x = (x - mean) / (var + 1e-5).sqrt() * gain + offset
        elif word == "prelu":
            x = torch.where(x > 0, x, x * state["prelu2.weight"][None, :, None, None])
        elif word == "gap":
            x = x.mean(dim=(2, 3))
        elif word == "fc":
            x = x.reshape(len(x), -1) @ state["fc.weight"].T + state["fc.bias"]
        elif word == "bn1":
            spread = (state["features.running_var"] + 1e-5).sqrt()
            x = (x - state["features.running_mean"]) / spread + state["features.bias"]
        elif word == "prelu1":
            x = torch.where(x > 0, x, x * state["prelu3.weight"])
    return x


def test_every_head_is_listed() -> None:
    assert set(HEADS) == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_each_head_computes_its_layers(name: str) -> None:
    head = unsettled(build_head(name, C, S, D))
    x = torch.randn(N, C, S, S, generator=torch.Generator().manual_seed(4))
    got = head(x)
    assert got.shape == (N, D)
    torch.testing.assert_close(got, by_hand(LAYERS[name], head.state_dict(), x))
    words = LAYERS[name].split()
    shares = [layer.p for layer in head.children() if isinstance(layer, nn.Dropout)]
    assert shares == [0.4] * ("dropout" in words) + [0.2] * ("drop0.2" in words)
    fixed = [key for key, p in head.named_parameters() if not p.requires_grad]
    assert fixed == (["features.weight"] if "bn1" in words else [])
    if fixed:
        assert torch.equal(head.state_dict()["features.weight"], torch.ones(D))


def test_dropout_is_of_e_and_f_alone() -> None:
    for name in ("E", "F", "G", "BX"):
        head = build_head(name, C, S, D, dropout=0.7)
        shares = [layer.p for layer in head.children() if isinstance(layer, nn.Dropout)]
        assert shares == {"E": [0.7], "F": [0.7], "G": [], "BX": [0.2]}[name]


@pytest.mark.parametrize("name", [*"AEFIJ", "DX"])
def test_half_precision_stops_before_the_full_connection(name: str) -> None:
    head = unsettled(build_head(name, C, S, D))
    x = torch.randn(N, C, S, S, generator=torch.Generator().manual_seed(5))
    full = head(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = head(x)
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16
        rounded = head(x.bfloat16())
    if "prelu2" not in dict(head.named_children()):  # autocast rounds what PReLU reads
        assert torch.equal(half, full)
    assert half.dtype == torch.float32
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=0.1, rtol=0.05)
    torch.testing.assert_close(rounded, full, atol=0.1, rtol=0.05)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"head should be one of A, B.*got 'Q'"):
        build_head("Q", C, S, D)
    with pytest.raises(SettingsError, match="Head A gives the 6 channels.*embedding_size 7"):
        build_head("A", C, S, 7)
    with pytest.raises(SettingsError, match="embedding_size should be between 1 and 8192; got 0"):
        build_head("E", C, S, 0)
    with pytest.raises(SettingsError, match="dropout should be a share .* got 1.0"):
        build_head("E", C, S, D, dropout=1.0)
    with pytest.raises(ImageError, match=r"crops \(n, 3, 112, 112\); got \(2, 3, 112, 96\)"):
        check_crops(torch.zeros(2, 3, 112, 96), 112)
