import numpy as np
import pytest
import torch
from torch import nn

from transfer.config.train import HeadConfig
from transfer.formats.plain_heads import extract_plain_heads
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.runs.checkpoint import build_heads

SPECS = [
    HeadSpec("object", "softmax", ("a", "b", "c")),
    HeadSpec("domain", "softmax", ("d", "e")),
    HeadSpec("odd", "binary", ("no", "yes")),
    HeadSpec("a.ge", "regression", centre=40.0, spread=7.0),
]


def made(config: HeadConfig) -> Heads:
    torch.manual_seed(1)
    heads = build_heads(SPECS, 6, config).eval()
    heads.scale_to(3 + 2 * torch.randn(20, 6))
    for layer in heads.modules():
        if isinstance(layer, nn.Linear):
            layer.bias.data.normal_()
    return heads


@pytest.mark.parametrize(
    "config",
    [
        HeadConfig(),
        HeadConfig(drop_connect=0.2),
        HeadConfig(hidden=(5, 4), dropout=0.3, dropout_kind="vanilla", activation="tanh"),
        HeadConfig(hidden=(5,), dropout=0.3, activation="elu"),
        HeadConfig(heads="joint", hidden=(5,)),
    ],
)
def test_plain_layers_on_raw_features_give_the_same_predictions(config):
    heads, features = made(config), torch.randn(9, 6)
    with torch.no_grad():
        out = heads(features)
        predictions = heads.predictions(out)
    for name, head in extract_plain_heads(heads).items():
        x = features.numpy()
        for i, (weight, bias) in enumerate(head.layers):
            x = x @ weight.numpy().T + bias.numpy()
            if i < len(head.layers) - 1:
                x = getattr(nn, head.activation)()(torch.from_numpy(x)).numpy()
        if name == "joint":
            wanted = out["joint"].flatten(1).exp().numpy()
            x = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        elif name == "a.ge":
            wanted = predictions[name][:, None].numpy()
        else:
            wanted = out[name].reshape(9, -1).numpy()
        np.testing.assert_allclose(x, wanted, rtol=2e-5, atol=2e-5)


def test_a_joint_head_replaces_both():
    assert list(extract_plain_heads(made(HeadConfig(heads="joint")))) == ["joint", "odd", "a.ge"]
    assert list(extract_plain_heads(made(HeadConfig()))) == ["object", "domain", "odd", "a.ge"]
