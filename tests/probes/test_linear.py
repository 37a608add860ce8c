"""Solutions are compared with scikit-learn's, on features scaled here by the formula."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from transfer.errors import TransferError
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.probes import lbfgs, linear
from transfer.probes.lbfgs import DEFAULT_PROBE_L2

WIDTH, L2 = 12, 0.05
OBJECT = HeadSpec("object", classes=("a", "b", "c", "d"))
DOMAIN = HeadSpec("domain", classes=("x", "y", "z"))
SIZE = HeadSpec("size", "regression", centre=3.0, spread=2.0)
SHARP = HeadSpec("sharp", "binary", ("no", "yes"))

Rows = tuple[Tensor, dict[str, Tensor]]


@pytest.fixture(autouse=True)
def exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solve with small tolerances, so that the problems are compared."""
    monkeypatch.setattr(lbfgs, "COARSE_TOLERANCE", 1e-4)
    monkeypatch.setattr(lbfgs, "FINE_TOLERANCE", 1e-4)


def draw(n: int = 240, seed: int = 0, width: int = WIDTH) -> Rows:
    """Return features of very different deviations, and targets that depend on them."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, width, generator=g)
    mixed = x @ torch.randn(width, 9, generator=torch.Generator().manual_seed(1)) / width**0.5
    mixed += 0.5 * torch.randn(n, 9, generator=g)
    targets = {
        "object": mixed[:, :4].argmax(1),
        "domain": mixed[:, 4:7].argmax(1),
        "size": 3 + 2 * mixed[:, 7],
        "sharp": (mixed[:, 8] > 0).long(),
    }
    return x * torch.linspace(0.3, 3, width) + torch.linspace(-2, 5, width), targets


def make(*specs: HeadSpec, width: int = WIDTH, **options: Any) -> Heads:
    return Heads(specs or (OBJECT, DOMAIN), width, **options)


def scaled(x: Tensor) -> np.ndarray:
    z = x.double().numpy()
    spread = z.std(0)
    return (z - z.mean(0)) / np.sqrt(spread * spread.mean())


def logistic(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return scikit-learn's probabilities under the same penalty."""
    total = len(x) if weights is None else weights.sum()
    model = LogisticRegression(C=1 / (L2 * total), tol=1e-8, max_iter=5000)
    return model.fit(x, y, sample_weight=weights).predict_proba(x)


def answers(heads: Heads, x: Tensor) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {name: answer.numpy() for name, answer in heads.predictions(heads.eval()(x)).items()}


def at(heads: Heads, rows: Rows, **options: Any) -> dict[str, float]:
    names = [*heads.specs, "joint"]
    return linear.solve_linear_probe(heads, rows, fixed_l2=dict.fromkeys(names, L2), **options)


@pytest.mark.parametrize("width", [WIDTH, 300])
@pytest.mark.parametrize("weighted", [False, True])
def test_softmax_heads_are_multinomial_logistic_regressions(width: int, weighted: bool) -> None:
    x, targets = draw(width=width)
    heads = make(width=width)
    g = torch.Generator().manual_seed(3)
    weights = {name: torch.rand(len(x), generator=g) + 0.1 for name in heads.specs} if weighted else {}
    assert at(heads, (x, targets), row_weights=weights) == {"object": L2, "domain": L2}
    for name, got in answers(heads, x).items():
        each = weights[name].double().numpy() if weighted else None
        np.testing.assert_allclose(got, logistic(scaled(x), targets[name].numpy(), each), atol=1e-3)


def test_a_binary_head_is_a_logistic_regression() -> None:
    """A logit has one vector of weights where a softmax over two classes has two: scikit-learn has only the latter."""
    x, targets = draw()
    heads = make(SHARP)
    at(heads, (x, targets))
    np.testing.assert_allclose(
        answers(heads, x)["sharp"], logistic(scaled(x), targets["sharp"].numpy())[:, 1], atol=1e-3
    )


def test_a_regression_head_is_a_ridge_regression() -> None:
    x, targets = draw()
    heads = make(SIZE)
    at(heads, (x, targets))
    y = (targets["size"].double().numpy() - 3) / 2
    ridge = Ridge(alpha=L2 * len(x) / 2, tol=1e-10).fit(scaled(x), y)
    np.testing.assert_allclose(answers(heads, x)["size"], 3 + 2 * ridge.predict(scaled(x)), atol=2e-3)


def test_a_joint_head_is_a_logistic_regression_over_pairs() -> None:
    x, targets = draw(400)
    heads = make(compose="joint")
    assert at(heads, (x, targets)) == {"joint": L2}
    pairs = targets["domain"] * 4 + targets["object"]
    assert len(pairs.unique()) == 12
    p = logistic(scaled(x), pairs.numpy()).reshape(-1, 3, 4)
    got = answers(heads, x)
    np.testing.assert_allclose(got["object"], p.sum(1), atol=1e-3)
    np.testing.assert_allclose(got["domain"], p.sum(2), atol=1e-3)


@pytest.mark.parametrize("compose", ["dual", "joint"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradient_of_the_heads_loss_is_zero(compose: str, smoothing: float) -> None:
    """With labels of either kind missing, and weights: each layer minimises loss plus penalty."""
    x, targets = draw()
    targets["object"][::3] = -1
    targets["domain"][::4] = -1
    targets["size"][::5] = torch.nan
    heads = make(OBJECT, DOMAIN, SIZE, SHARP, compose=compose)
    weights = {"object": torch.linspace(0.2, 2, len(x))}
    at(heads, (x, targets), smoothing=smoothing, row_weights=weights)
    loss = heads.loss(heads(x), targets, smoothing=smoothing, row_weights=weights)
    spread = x.std(0, correction=0)
    for layers in heads.layers.values():
        inner = layers[-1].weight / heads.spread * (spread * spread.mean()).sqrt()
        loss = loss + L2 / 2 * inner.square().sum()
    loss.backward()
    for parameter in heads.parameters():
        assert parameter.abs().max() > 1e-2
        assert parameter.grad is not None
        assert parameter.grad.abs().max() < 2e-4


@pytest.mark.parametrize("compose", ["dual", "joint"])
def test_rows_without_a_label_do_not_count(compose: str) -> None:
    x, targets = draw()
    heads, fewer = make(compose=compose), make(compose=compose)
    at(heads, (torch.cat([x, x]), {k: torch.cat([v, torch.full_like(v, -1)]) for k, v in targets.items()}))
    at(fewer, (x, targets))
    for name, got in answers(heads, x).items():
        np.testing.assert_allclose(got, answers(fewer, x)[name], atol=1e-3)


def test_a_head_without_a_label_is_left_at_zero() -> None:
    x, targets = draw()
    targets["domain"][:] = -1
    heads = make()
    assert linear.solve_linear_probe(heads, (x, targets), (x, targets)).keys() == {"object"}
    assert np.allclose(answers(heads, x)["domain"], 1 / 3)


def test_without_a_validation_label_l2_is_the_default() -> None:
    x, targets = draw()
    val = x, targets | {"domain": torch.full_like(targets["domain"], -1)}
    assert linear.solve_linear_probe(make(), (x, targets), val)["domain"] == DEFAULT_PROBE_L2
    default = dict.fromkeys(("object", "domain"), DEFAULT_PROBE_L2)
    assert linear.solve_linear_probe(make(), (x, targets)) == default
    empty = x[:0], {name: target[:0] for name, target in targets.items()}
    assert linear.solve_linear_probe(make(), (x, targets), empty) == dict.fromkeys(
        ("object", "domain"), DEFAULT_PROBE_L2
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_class_without_a_row_is_never_predicted(smoothing: float) -> None:
    x, targets = draw()
    targets["object"][targets["object"] == 2] = 0
    targets["sharp"][:] = 1
    heads = make(OBJECT, SHARP)
    at(heads, (x, targets), smoothing=smoothing)
    got = answers(heads, x)
    assert all(np.isfinite(p).all() for p in got.values())
    assert 2 not in got["object"].argmax(1)
    assert got["sharp"].min() > 0.9


def test_l2_has_the_least_validation_loss() -> None:
    lines: list[dict[str, Any]] = []
    heads = make(OBJECT, SIZE)
    chosen = linear.solve_linear_probe(heads, draw(80), draw(200, seed=5), on_line=lines.append)
    for name, l2 in chosen.items():
        tried = {line["strength"]: line["val_loss"] for line in lines if line["head"] == name}
        assert len(tried) >= 3
        assert l2 == min(tried, key=tried.__getitem__)
        assert min(tried) < l2 < max(tried)
    x, targets = draw(200, seed=5)
    with torch.no_grad():
        right = (heads(x)["object"].argmax(1) == targets["object"]).float().mean()
    (line,) = [line for line in lines if line["head"] == "object" and line["strength"] == chosen["object"]]
    assert line["val"] == {"object": pytest.approx(right.item(), abs=0.011)}
    assert line.keys() == {"head", "strength", "loss", "val", "val_loss", "iterations", "seconds"}


def test_random_labels_choose_a_large_l2() -> None:
    g = torch.Generator().manual_seed(0)
    x, val = torch.randn(60, WIDTH, generator=g), torch.randn(60, WIDTH, generator=g)
    y = torch.randint(4, (120,), generator=g)
    assert linear.solve_linear_probe(make(OBJECT), (x, {"object": y[:60]}), (val, {"object": y[60:]}))["object"] >= 1


@pytest.mark.parametrize("compose", ["dual", "joint"])
def test_the_path_to_an_l2_value_does_not_matter(compose: str) -> None:
    train = draw(100)
    warm, cold = make(compose=compose), make(compose=compose)
    chosen = linear.solve_linear_probe(warm, train, draw(200, seed=5))
    assert linear.solve_linear_probe(cold, train, fixed_l2=chosen) == chosen
    for name, got in answers(warm, train[0]).items():
        np.testing.assert_allclose(got, answers(cold, train[0])[name], atol=1e-3)


def test_the_seed_does_not_matter() -> None:
    states = []
    for seed in range(2):
        torch.manual_seed(seed)
        heads = make(OBJECT, DOMAIN, SIZE, SHARP, dropout=0.5)
        linear.solve_linear_probe(heads, draw(100), draw(100, seed=5), smoothing=0.1)
        states.append(heads.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_loss_weights_of_single_heads_do_not_matter() -> None:
    a, b = make(OBJECT), make(HeadSpec("object", classes=OBJECT.classes, weight=0.0))
    at(a, draw())
    at(b, draw())
    assert torch.equal(a(draw()[0])["object"], b(draw()[0])["object"])


def test_constant_features_are_ignored() -> None:
    x, targets = draw()
    x[:, 3], x[:, 5] = 0.0, 123.456
    heads, without = make(OBJECT), make(OBJECT, width=WIDTH - 2)
    left = [i for i in range(WIDTH) if i not in (3, 5)]
    at(heads, (x, targets))
    new = x.clone()
    new[:, 3], new[:, 5] = 1e3, -1e3
    assert torch.equal(heads(new)["object"], heads(x)["object"])
    at(without, (x[:, left], targets))  # but for the mean spread, in which constants are zeros: a weaker penalty
    agree = heads(x)["object"].argmax(1) == without(x[:, left])["object"].argmax(1)
    assert agree.float().mean() > 0.98


def test_every_view_is_a_row() -> None:
    x, targets = draw()
    once, twice = make(), make()
    at(once, (x, targets))
    at(twice, (x.repeat(2, 1), {name: target.repeat(2) for name, target in targets.items()}))
    for name, got in answers(once, x).items():
        np.testing.assert_allclose(got, answers(twice, x)[name], atol=1e-3)


def test_features_of_inference_and_half_precision() -> None:
    with torch.inference_mode():
        x, targets = draw()
        x = x.half()
    heads = make()
    at(heads, (x, targets))
    assert (answers(heads, x)["object"].argmax(1) == targets["object"].numpy()).mean() > 0.6


@settings(max_examples=15, deadline=None)
@given(
    scale=st.floats(1e-3, 1e3),
    shift=st.lists(st.floats(-20, 20), min_size=WIDTH, max_size=WIDTH),
    order=st.permutations(range(WIDTH)),
)
def test_scale_shift_and_order_of_features_do_not_matter(scale: float, shift: list[float], order: list[int]) -> None:
    x, targets = draw()
    other = (scale * (x + torch.tensor(shift)))[:, order]
    heads, moved = make(), make()
    at(heads, (x, targets))
    at(moved, (other, targets))
    for name, got in answers(heads, x).items():
        np.testing.assert_allclose(got, answers(moved, other)[name], atol=2e-3)


@pytest.mark.parametrize("side", ["training", "validation"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_non_finite_features_are_refused(side: str, value: float) -> None:
    bad = draw()
    bad[0][7, 2] = bad[0][9, 1] = value
    train, val = (bad, draw()) if side == "training" else (draw(), bad)
    with pytest.raises(TransferError, match=f"2 of 240 {side} images are NaN or infinite .*number 7"):
        linear.solve_linear_probe(make(), train, val)


def test_is_linear() -> None:
    assert linear.is_linear(make())
    assert linear.is_linear(make(compose="joint", dropout=0.5))
    assert not linear.is_linear(make(hidden=(5,)))


def test_blocks_have_their_share_of_the_variance():
    rng = np.random.default_rng(0)
    spreads = np.array([1.0, 2.0, 0.1, 0.1, 0.4, 50.0])
    x = torch.from_numpy(rng.normal(3.0, spreads, (200, 6))).float()
    labels = {"object": torch.from_numpy(np.arange(200) % 2)}
    specs = [HeadSpec("object", "softmax", ("a", "b"))]
    blocks = ((slice(0, 2), 0.25), (slice(2, 6), 0.75))
    (layer,) = linear.layer_problems(Heads(specs, 6), (x, labels), blocks=blocks)
    (plain,) = linear.layer_problems(Heads(specs, 6), (x, labels))
    variance = layer.train.x.var(0, unbiased=False)
    assert variance[:2].sum().item() == pytest.approx(1.5, rel=1e-4)
    assert variance[2:].sum().item() == pytest.approx(4.5, rel=1e-4)
    assert plain.train.x.var(0, unbiased=False).sum().item() == pytest.approx(6.0, rel=1e-4)
    for block, _ in blocks:
        ratio = layer.train.x[:, block] / plain.train.x[:, block]
        assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio))


def test_selected_features_are_the_same_for_training_and_validation() -> None:
    x, targets = draw()
    rows = x, {"object": targets["object"]}
    (layer,) = linear.layer_problems(make(OBJECT), rows, rows)
    columns = torch.tensor([0, 3, 7])
    selected = layer.select(columns, 2.5)
    assert selected.val is not None
    for part in (selected.train, selected.val):
        torch.testing.assert_close(part.x, layer.train.x[:, columns] * 2.5)
    assert layer.select(None) is layer


@pytest.mark.parametrize("compose", ["dual", "joint"])
def test_another_device_finds_the_same_probe(compose: str, device: str) -> None:
    """Rows may be on the CPU."""
    train, val = draw(), draw(seed=2)
    expected, found = make(compose=compose), make(compose=compose).to(device)
    chosen = [linear.solve_linear_probe(heads, train, val) for heads in (expected, found)]
    assert chosen[0] == chosen[1]
    wanted, got = answers(expected, val[0]), answers(found.cpu(), val[0])
    for name, values in wanted.items():
        assert (got[name].argmax(1) == values.argmax(1)).all()
        np.testing.assert_allclose(got[name], values, atol=2e-3)
