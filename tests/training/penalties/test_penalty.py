import pytest
import torch
from torch import nn

from transfer.training.penalties.penalty import capture_outputs


def test_outputs_are_captured_with_their_gradients() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    with capture_outputs(network, ["0", "2"]) as seen:
        out = network(x)
    assert set(seen) == {"0", "2"}
    assert seen["2"] is out
    assert torch.equal(seen["0"], network[0](x))
    (slope,) = torch.autograd.grad(out.sum(), seen["0"])
    assert slope.shape == (5, 4)
    seen.clear()
    network(x)
    assert not seen


def test_hooks_are_removed_after_an_error() -> None:
    network = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(ZeroDivisionError), capture_outputs(network, ["0"]) as seen:
        raise ZeroDivisionError
    network(torch.randn(1, 3))
    assert not seen
