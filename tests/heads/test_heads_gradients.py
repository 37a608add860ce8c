"""Gradients of heads at shared layers, compared with plain numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from transfer.heads import HeadSpec
from transfer.heads.heads import Heads

OBJECTS, DOMAINS, WIDTH, INPUTS, N = 31, 3, 6, 5, 40


def specs(object_weight: float = 1.0, domain_weight: float = 1.0) -> list[HeadSpec]:
    objects, domains = tuple(map(str, range(OBJECTS))), tuple(map(str, range(DOMAINS)))
    return [
        HeadSpec("object", "softmax", objects, object_weight),
        HeadSpec("domain", "softmax", domains, domain_weight),
    ]


def make(weights: tuple[float, float] = (1.0, 1.0), compose: str = "dual") -> Heads:
    torch.manual_seed(0)
    return Heads(specs(*weights), WIDTH, compose=compose).double()


def draw(unknown: bool = False) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return inputs (N, INPUTS), a shared layer (WIDTH, INPUTS), and labels, some of them unknown."""
    g = torch.Generator().manual_seed(1)
    labels = {"object": torch.randint(OBJECTS, (N,), generator=g), "domain": torch.randint(DOMAINS, (N,), generator=g)}
    if unknown:
        labels["object"][::3] = -1
        labels["domain"][::4] = -1
    x = torch.randn(N, INPUTS, generator=g, dtype=torch.double)
    return x, torch.randn(WIDTH, INPUTS, generator=g, dtype=torch.double, requires_grad=True), labels


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def at_logits(logits: np.ndarray, labels: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    """Softmax minus one-hot over the number of known rows, 0 in the others."""
    classes, known = logits.shape[1], labels >= 0
    wanted = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes
    return (softmax(logits) - wanted) * known[:, None] / known.sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("unknown", [False, True])
def test_gradient_at_the_outputs_is_that_of_each_head(unknown: bool, smoothing: float) -> None:
    """One layer of 34 outputs under the summed loss has the two heads' gradients concatenated."""
    _, _, labels = draw(unknown)
    z = torch.randn(N, OBJECTS + DOMAINS, dtype=torch.double, requires_grad=True)
    out = {"object": z[:, :OBJECTS], "domain": z[:, OBJECTS:]}
    (found,) = torch.autograd.grad(make().loss(out, labels, smoothing=smoothing), z)
    logits = z.detach().numpy()
    one = at_logits(logits[:, :OBJECTS], labels["object"].numpy(), smoothing)
    other = at_logits(logits[:, OBJECTS:], labels["domain"].numpy(), smoothing)
    np.testing.assert_allclose(found.numpy(), np.concatenate([one, other], axis=1), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 2.0), (1.0, 0.0)])
def test_gradient_at_shared_layers_is_the_weighted_sum(weights: tuple[float, float]) -> None:
    x, shared, labels = draw()
    heads = make(weights)
    heads.spread.fill_(2.0)
    (found,) = torch.autograd.grad(heads.loss(heads(x @ shared.T), labels), shared)
    features = x.numpy() @ shared.detach().numpy().T / 2.0
    parts = []
    for name, weight in zip(("object", "domain"), weights, strict=True):
        (w, b) = (p.detach().numpy() for p in heads.layers[f"head_{name}"].parameters())
        back = at_logits(features @ w.T + b, labels[name].numpy()) @ w / 2.0
        parts.append(weight * back.T @ x.numpy())
    np.testing.assert_allclose(found.numpy(), sum(parts), rtol=1e-4, atol=1e-7)
    assert np.abs(parts[0]).max() > 1e-3


def test_a_head_of_zero_weight_has_no_gradient() -> None:
    x, shared, labels = draw()
    found = {}
    for weights in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)):
        heads = make(weights)
        (found[weights],) = torch.autograd.grad(heads.loss(heads(x @ shared.T), labels), shared)
    heads = make()
    for weights, other in (((1.0, 0.0), "domain"), ((0.0, 1.0), "object")):
        none = labels | {other: torch.full((N,), -1)}
        (alone,) = torch.autograd.grad(heads.loss(heads(x @ shared.T), none), shared)
        assert torch.equal(found[weights], alone)
        assert alone.any()
    assert not found[0.0, 0.0].any()


def test_gradient_of_a_joint_head_is_softmax_minus_one_hot_over_pairs() -> None:
    """For a row with one label: softmax minus the softmax conditioned on that label."""
    _, _, labels = draw()
    labels["domain"][N // 2 :] = -1
    heads = make(compose="joint")
    layer = heads.layers["head_joint"]
    logits = torch.randn(N, OBJECTS * DOMAINS, dtype=torch.double, requires_grad=True)
    layer.forward = lambda x: logits  # type: ignore[method-assign]
    (found,) = torch.autograd.grad(heads.loss(heads(torch.zeros(N, WIDTH)), labels), logits)
    p = softmax(logits.detach().numpy())
    objects, domains = labels["object"].numpy(), labels["domain"].numpy()
    for i in range(N):
        pairs = p[i].reshape(DOMAINS, OBJECTS)
        wanted = np.zeros_like(pairs)
        if domains[i] >= 0:
            wanted[domains[i], objects[i]] = 1.0
        else:
            wanted[:, objects[i]] = pairs[:, objects[i]] / pairs[:, objects[i]].sum()
        expected = (pairs - wanted).ravel() / (N // 2)
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=1e-4, atol=1e-7)
