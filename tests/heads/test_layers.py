import pytest
import torch
from torch import nn

from transfer.heads.layers import build_mlp


def make(hidden=(), **settings):
    return build_mlp(20, hidden, 3, **({"activation": "relu", "dropout": 0.0, "init": "xavier"} | settings))


def test_a_linear_head_is_one_layer_without_bias_at_the_start() -> None:
    torch.manual_seed(0)
    (layer,) = make()
    assert isinstance(layer, nn.Linear)
    assert layer.weight.shape == (3, 20)
    assert not layer.bias.any()


def test_saved_keys_are_the_same_with_and_without_dropout() -> None:
    plain, dropped = make((8, 4)), make((8, 4), dropout=0.5, dropout_kind="vanilla")
    assert list(plain.state_dict()) == list(dropped.state_dict())
    assert [type(m).__name__ for m in plain] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert plain(torch.zeros(2, 20)).shape == (2, 3)


@pytest.mark.parametrize(("init", "variance"), [("xavier", 2 / (400 + 300)), ("he", 2 / 400)])
def test_weights_have_the_variance_of_their_initialisation(init, variance) -> None:
    torch.manual_seed(0)
    first = build_mlp(400, (300,), 2, activation="tanh", dropout=0.0, init=init)[0]
    assert first.weight.var().item() == pytest.approx(variance, rel=0.02)
