"""Averaged weights against the plain recursion; swapped in and out bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facenet.errors import ModelFileError, SettingsError
from facenet.train.averaging import Average


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.PReLU(3))


def moved(module: nn.Module, seed: int) -> None:
    """What a step of training does to a network."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
    module(torch.randn(2, 2, 4, 4))


def bits(state: dict[str, Tensor]) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in state.items()}


@pytest.mark.parametrize("warm", [True, False])
def test_the_average_is_the_recursion(warm: bool) -> None:
    module = network()
    average = Average(module, 0.75, warm=warm)
    wanted = {n: p.detach().numpy().astype(np.float64) for n, p in module.named_parameters()}
    shares = []
    for step in range(30):
        moved(module, step)
        average.update(step)
        kept = min(0.75, (1 + step) / (10 + step)) if warm else 0.75
        shares.append(kept)
        for name, value in module.named_parameters():
            wanted[name] = kept * wanted[name] + (1 - kept) * value.detach().numpy()
    assert (shares[0], shares[-1]) == (0.1 if warm else 0.75, 0.75)
    found = average.state_dict()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name].numpy(), value, rtol=1e-5, atol=1e-6)


def test_statistics_of_norms_are_those_of_the_last_step() -> None:
    module = network()
    average = Average(module)
    for step in range(3):
        moved(module, step)
        average.update(step)
    found, last = average.state_dict(), module.state_dict()
    assert list(found) == list(last)
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(found[name], last[name])
    assert found["1.num_batches_tracked"].item() == 3
    assert not torch.equal(found["0.weight"], last["0.weight"])


def test_frozen_weights_are_their_own_average() -> None:
    module = network()
    average = Average(module)
    before = bits(module.state_dict())
    for step in range(5):
        average.update(step)
    assert bits(average.state_dict()) == before


def test_half_precision_is_averaged_in_full() -> None:
    module = nn.Linear(2, 2, bias=False).to(torch.bfloat16)
    nn.init.ones_(module.weight)
    average = Average(module, 0.999, warm=False)
    nn.init.zeros_(module.weight)
    for step in range(3):
        average.update(step)
    weight = average.state_dict()["weight"]
    assert weight.dtype == torch.float32
    assert weight[0, 0].item() == pytest.approx(0.999**3, rel=1e-6)  # bfloat16 would stay at 1
    with average.applied(module):
        assert module.weight.dtype == torch.bfloat16


def test_the_average_is_swapped_in_and_out_bit_for_bit() -> None:
    module = network().to(memory_format=torch.channels_last)
    average = Average(module, 0.5, warm=False)
    moved(module, 1)
    average.update(0)
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] = float("nan")
        module[0].weight[0, 0, 0, 1] = -0.0
    own, averaged = bits(module.state_dict()), bits(average.state_dict())
    strides, place = module[0].weight.stride(), module[0].weight.data_ptr()
    with average.applied(module) as inside:
        assert inside is module
        assert bits(module.state_dict()) == averaged
    assert bits(module.state_dict()) == own
    with pytest.raises(KeyboardInterrupt), average.applied(module):
        module(torch.randn(2, 2, 4, 4))  # moves the statistics of the norm
        raise KeyboardInterrupt
    assert bits(module.state_dict()) == own
    assert bits(average.state_dict()) == averaged
    assert (module[0].weight.stride(), module[0].weight.data_ptr()) == (strides, place)


def test_a_restored_average_goes_on_to_the_same_bits() -> None:
    module = network()
    average = Average(module)
    for step in range(4):
        moved(module, step)
        average.update(step)
    saved = {name: value.clone() for name, value in average.state_dict().items()}
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    moved(module, 9)
    average.update(4)
    again = network()
    again.load_state_dict(weights)
    restored = Average(again)
    restored.load_state_dict(saved)
    moved(again, 9)
    restored.update(4)
    assert bits(restored.state_dict()) == bits(average.state_dict())


def test_another_network_and_a_wrong_decay_are_refused() -> None:
    average = Average(network())
    other = nn.Sequential(nn.Conv2d(2, 4, 2), nn.BatchNorm2d(4), nn.PReLU(4))
    with pytest.raises(
        ModelFileError, match=r"0\.weight has the shape \(3, 2, 2, 2\) here and \(4"
    ):
        average.load_state_dict(other.state_dict())
    with (
        pytest.raises(ModelFileError, match=r"1\.weight has the shape \(3,\) here and none"),
        average.applied(nn.Sequential(nn.Conv2d(2, 3, 2))),
    ):
        raise AssertionError("not reached")
    for decay in (1.0, -0.1, float("nan")):
        with pytest.raises(SettingsError, match="0 or more and less than 1"):
            Average(network(), decay)
