"""The small vision transformer against its sizes and a plain NumPy account of its parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from facenet.errors import ImageError, SettingsError
from facenet.train.backbones.counting import count_macs, count_parameters
from facenet.train.backbones.vit import (
    Attention,
    Block,
    DropPath,
    Patches,
    TokenMask,
    ViTSettings,
    build_vit,
)

SMALL = ViTSettings(embedding_size=8, input_size=20, patch=9, width=12, depth=2, heads=3)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def plain(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


def test_sizes_are_those_of_vit_t() -> None:
    t, w, d, depth = 12 * 12, 256, 512, 12
    with torch.device("meta"):
        network = build_vit()
    block = 2 * 2 * w + 3 * w * w + w * w + w + 2 * 4 * w * w + 4 * w + w
    patches, head = 3 * 81 * w + w + t * w, t * w * w + 2 * w + w * d + 2 * d
    assert count_parameters(network) == patches + depth * block + 2 * w + head
    macs = t * 3 * 81 * w + depth * (t * 12 * w * w + 2 * t * t * w) + t * w * w + w * d
    assert count_macs(network) == macs
    # The table of training-evaluation.md 2.1: 19.1 M and 1.51 G, which is 0.005 G more.
    assert round(count_parameters(network) / 1e6, 1) == 19.1
    assert macs / 1e9 == pytest.approx(1.51, abs=0.006)


def test_patches_are_read_row_by_row_and_the_border_is_not() -> None:
    patches = Patches(SMALL)
    images = drawn(2, 3, 20, 20)
    state, got = plain(patches), patches(images).detach().numpy()
    pixels = images.double().numpy()
    assert got.shape == (2, SMALL.tokens, 12) == (2, 4, 12)
    for place in range(4):
        y, x = place // 2 * 9, place % 2 * 9
        token = np.einsum("nchw,ochw->no", pixels[:, :, y : y + 9, x : x + 9], state["proj.weight"])
        want = token + state["proj.bias"] + state["places"][0, place]
        np.testing.assert_allclose(got[:, place], want, atol=1e-5)


def attention_by_hand(x: np.ndarray, state: dict[str, np.ndarray], heads: int) -> np.ndarray:
    """Each picture and head alone."""
    t, w = x.shape[1:]
    size, out = w // heads, np.zeros_like(x)
    for row, tokens in enumerate(x):
        q, k, v = np.split(tokens @ state["qkv.weight"].T, 3, axis=1)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = np.exp(q[:, part] @ k[:, part].T / np.sqrt(size))
            out[row, :, part] = scores / scores.sum(axis=1, keepdims=True) @ v[:, part]
    assert out.shape[1] == t
    return out @ state["proj.weight"].T + state["proj.bias"]


def normed(x: np.ndarray, gain: np.ndarray, offset: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5) * gain + offset


def test_a_block_is_its_formula() -> None:
    block = Block(SMALL, 0.5).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(drawn(*parameter.shape))
    state, x = plain(block), drawn(2, 5, 12).double().numpy()
    attention = {name[5:]: value for name, value in state.items() if name.startswith("attn.")}
    seen = normed(x, state["norm1.weight"], state["norm1.bias"])
    want = x + attention_by_hand(seen, attention, 3)
    inner = normed(want, state["norm2.weight"], state["norm2.bias"])
    inner = np.clip(inner @ state["mlp.0.weight"].T + state["mlp.0.bias"], 0, 6)
    want = want + inner @ state["mlp.2.weight"].T + state["mlp.2.bias"]
    got = block.double()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(got, want, atol=1e-9)


class Softmaxes(TorchDispatchMode):
    """Notes the type of the result of each softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.types: list[torch.dtype] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if "softmax" in str(func):
            self.types.append(result.dtype)
        return result


def test_softmax_is_in_full_precision_whatever_the_weights_are() -> None:
    for kind, exact in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        attention, x = Attention(12, 3).to(kind), drawn(1, 4, 12).to(kind)
        with Softmaxes() as seen:
            assert attention(x).dtype == kind
        assert seen.types == [exact]
    with torch.autocast("cpu", torch.bfloat16), Softmaxes() as seen:
        got = build_vit(SMALL).eval()(drawn(2, 3, 20, 20))
    assert seen.types == [torch.float32] * 2
    assert got.dtype == torch.float32


def test_a_dropped_path_is_zero_and_the_mean_stays() -> None:
    drop = DropPath(0.25)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        out = drop(torch.ones(4000, 2, 3))
    factors = out[:, 0, 0]
    assert torch.equal(out, factors[:, None, None].expand_as(out))
    torch.testing.assert_close(factors.unique(), torch.tensor([0.0, 4 / 3]))
    assert float(factors.mean()) == pytest.approx(1.0, abs=4 * (1 / 3 / 4000) ** 0.5)
    assert torch.equal(drop.eval()(out), out)
    shares = [block.drop_path.share for block in build_vit(SMALL).encoder]
    assert shares == [0.0, 0.05]


def test_left_out_tokens_come_back_as_the_learned_one() -> None:
    mask, tokens = TokenMask(12, 0.3), drawn(6, 10, 12)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kept, places = mask.leave_out(tokens)
    whole = mask.put_back(kept, places, 10)
    assert kept.shape == (6, 7, 12)
    for row in range(6):
        chosen = set(places[row].tolist())
        assert len(chosen) == 7
        for place in range(10):
            want = tokens[row, place] if place in chosen else mask.token[0, 0]
            assert torch.equal(whole[row, place], want)
    assert len({tuple(row.sort().values.tolist()) for row in places}) > 1


def test_masking_changes_training_alone_and_reaches_the_learned_token() -> None:
    settings = ViTSettings(
        embedding_size=8, input_size=20, patch=4, width=12, depth=1, heads=3, masked_tokens=0.5
    )
    network, images = build_vit(settings), drawn(3, 3, 20, 20)
    whole = dict(network.state_dict())
    network.eval()
    unmasked = build_vit(ViTSettings(**{**_fields(settings), "masked_tokens": 0.0})).eval()
    del whole["mask.token"]
    unmasked.load_state_dict(whole)
    assert torch.equal(network(images), unmasked(images))
    weights = drawn(3, 8)
    (network.train()(images) * weights).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.mask is not None and bool(network.mask.token.grad.any())


def _fields(settings: ViTSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in ViTSettings.__dataclass_fields__}


def test_the_whole_is_its_parts_in_turn() -> None:
    network = build_vit(SMALL).eval()
    x = images = drawn(2, 3, 20, 20)
    *parts, (norm, feature) = network.blocks().values()
    for (module,) in parts:
        x = module(x)
    assert torch.equal(network(images), feature(norm(x).flatten(1)))


@pytest.mark.parametrize(
    "options,words",
    [
        ({"patch": 113}, "patch should be between 1 and 112; got 113"),
        ({"heads": 7}, "width should be a multiple of heads; got 256 and 7"),
        ({"heads": 0}, "heads should be between 1 and 256; got 0"),
        ({"depth": 101}, "depth should be between 1 and 100; got 101"),
        ({"drop_path": 1.0}, "drop_path should be a share .* got 1.0"),
        ({"masked_tokens": -0.5}, "masked_tokens should be a share .* got -0.5"),
        ({"input_size": 8}, "input_size should be a multiple of 1 from 16 .* got 8"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        ViTSettings(**options)


def test_crops_of_another_size_are_refused() -> None:
    with pytest.raises(ImageError, match=r"takes crops \(n, 3, 20, 20\); got \(1, 3, 21, 20\)"):
        build_vit(SMALL)(torch.zeros(1, 3, 21, 20))
