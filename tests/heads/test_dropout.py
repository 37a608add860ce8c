"""Dropout in training, and its mean at inference."""

import pytest
import torch
from torch import nn

from transfer.heads.dropout import DropConnect, Dropout, VanillaDropout, draw_dropout_mask
from transfer.heads.layers import build_mlp

X = torch.linspace(0.5, 2.0, 8)
MANY = 20_000


def averaged(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    return layer.train()(x.expand(MANY, -1)).mean(0).detach()


def test_vanilla_dropout_drops_entries_without_scaling_the_others() -> None:
    torch.manual_seed(0)
    out = VanillaDropout(0.3).train()(X.expand(MANY, -1))
    retained = out != 0
    assert torch.equal(out[retained], X.expand(MANY, -1)[retained])
    assert float(retained.float().mean()) == pytest.approx(0.7, abs=0.005)


def test_vanilla_dropout_scales_down_at_inference() -> None:
    vanilla, inverted = VanillaDropout(0.3), Dropout(0.3)
    assert torch.allclose(vanilla.eval()(X), 0.7 * inverted.eval()(X))
    assert torch.allclose(averaged(vanilla, X), 0.7 * averaged(inverted, X), rtol=0.03)


@pytest.mark.parametrize("layer", [VanillaDropout(0.3), Dropout(0.3)], ids=["vanilla", "inverted"])
def test_the_mean_in_training_equals_the_output_at_inference(layer: nn.Module) -> None:
    assert torch.allclose(averaged(layer, X), layer.eval()(X), rtol=0.03)


def test_both_kinds_agree_after_scaling_the_next_layers_weights() -> None:
    """A network of one kind equals one of the other kind with its next weights times the retained share."""
    torch.manual_seed(0)
    linear = nn.Linear(8, 3, bias=False)
    by_vanilla = linear(averaged(VanillaDropout(0.3), X))
    assert torch.allclose(by_vanilla, 0.7 * linear(averaged(Dropout(0.3), X)), atol=0.03)


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5, 0.9, 0.99999999])
def test_a_mask_has_the_stated_share_and_independent_entries(p: float) -> None:
    torch.manual_seed(0)
    retained, share = draw_dropout_mask(torch.empty(1001, 997), p)
    assert share == pytest.approx(1 - p, abs=2**-16)
    assert float(retained.float().mean()) == pytest.approx(share, abs=0.002)
    for part in (
        retained[:, ::2],
        retained[1::2],
        retained.flatten()[::4],
        retained.flatten()[3::4],
    ):  # of all sixteen-bit words
        assert float(part.float().mean()) == pytest.approx(share, abs=0.004)
    together = (retained[:, :-1] & retained[:, 1:]).float().mean()
    assert float(together) == pytest.approx(share**2, abs=0.003)


def test_inverted_dropout_scales_retained_entries_up() -> None:
    torch.manual_seed(0)
    out = Dropout(0.25).train()(X.expand(MANY, -1))
    assert torch.allclose(out[out != 0], (X / 0.75).expand(MANY, -1)[out != 0])
    assert torch.equal(Dropout(0.25).eval()(X), X)
    assert Dropout(0.5).train()(torch.zeros(3, 0)).shape == (3, 0)


def test_dropconnect_equals_the_linear_layer_on_average_in_training() -> None:
    torch.manual_seed(0)
    layer = DropConnect(8, 3, 0.4)
    outputs = layer.train()(X.expand(MANY, -1))
    expected = X @ layer.weight.T + layer.bias
    assert torch.allclose(outputs.mean(0), expected, atol=0.03)
    assert not torch.allclose(outputs[0], outputs[1])  # a mask for each row
    variance = (0.4 / 0.6) * (X.square() @ layer.weight.square().T)  # of a sum of independent scaled coins
    assert torch.allclose(outputs.var(0), variance, rtol=0.1)


def test_dropconnect_drops_single_weights_but_never_the_bias() -> None:
    """With one input of 1 an output is the bias, or the bias and the weight divided by the retained share."""
    torch.manual_seed(0)
    layer = DropConnect(1, 2, 0.5)
    outputs = (layer.train()(torch.ones(200, 1)) - layer.bias).detach()
    there = outputs / (layer.weight.T / 0.5)
    assert torch.allclose(there, there.round(), atol=1e-5)
    assert {tuple(row) for row in there.abs().round().int().tolist()} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_dropconnect_at_inference_is_bit_identical_to_the_linear_layer() -> None:
    layer = DropConnect(8, 3, 0.4).eval()
    x = torch.randn(5, 8)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_saved_keys_do_not_depend_on_dropout() -> None:
    how = {"activation": "relu", "init": "xavier"}
    plain = build_mlp(8, (4,), 3, dropout=0.0, **how)
    both = build_mlp(8, (4,), 3, dropout=0.2, dropout_kind="vanilla", drop_connect=0.5, **how)
    assert [type(layer) for layer in both] == [VanillaDropout, DropConnect, nn.ReLU, VanillaDropout, DropConnect]
    assert set(both.state_dict()) == set(plain.state_dict())
    assert {layer.p for layer in both if isinstance(layer, DropConnect)} == {0.5}
