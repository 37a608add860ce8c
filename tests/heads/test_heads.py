"""Heads and their losses, each recomputed row by row in plain Python."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from object_and_domain_heads import DOMAINS, OBJECTS, SPECS, WIDTH, cross_entropy, draw, make, mean
from torch import nn

from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.heads.layers import build_mlp


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_dual_loss_is_the_sum_of_both_cross_entropies(smoothing: float) -> None:
    heads = make()
    x, objects, domains = draw()
    out = heads(x)
    each = []
    for name, labels in (("object", objects), ("domain", domains)):
        rows = [i for i in range(len(x)) if labels[i] >= 0]
        each.append(mean([cross_entropy(out[name][i].tolist(), int(labels[i]), smoothing) for i in rows]))
    loss = heads.loss(out, {"object": objects, "domain": domains}, smoothing=smoothing)
    assert loss.item() == pytest.approx(sum(each), rel=1e-5)


def test_loss_weights() -> None:
    heads = make(
        (
            HeadSpec("object", classes=("a", "b", "c", "d"), weight=0.3),
            HeadSpec("domain", classes=("x", "y", "z"), weight=2.0),
        )
    )
    x, objects, domains = draw()
    out = heads(x)
    none = torch.full_like(objects, -1)
    one = heads.loss(out, {"object": objects, "domain": none}).item()
    two = heads.loss(out, {"object": none, "domain": domains}).item()
    plain = mean([cross_entropy(out["object"][i].tolist(), int(t)) for i, t in enumerate(objects) if t >= 0])
    assert one == pytest.approx(0.3 * plain, rel=1e-5)
    assert heads.loss(out, {"object": objects, "domain": domains}).item() == pytest.approx(one + two, rel=1e-5)


@pytest.mark.parametrize("compose", ["dual", "joint"])
def test_rows_without_any_label_have_no_loss(compose: str) -> None:
    heads = make(compose=compose)
    x, _, _ = draw()
    none = torch.full((len(x),), -1)
    loss = heads.loss(heads(x), {"object": none, "domain": none})
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in heads.parameters())


@pytest.mark.parametrize("compose", ["dual", "joint"])
def test_features_of_unlabelled_rows_do_not_change_the_loss(compose: str) -> None:
    heads = make(compose=compose)
    x, objects, domains = draw()
    unlabelled = (objects < 0) & (domains < 0)
    assert unlabelled.any()
    other = torch.where(unlabelled[:, None], 100 * torch.ones_like(x), x)
    targets = {"object": objects, "domain": domains}
    assert torch.equal(heads.loss(heads(x), targets), heads.loss(heads(other), targets))


def test_row_weights_give_a_weighted_mean() -> None:
    heads = make()
    x, objects, domains = draw()
    out = heads(x)
    w = torch.linspace(0.1, 3.0, len(x))
    rows = [i for i in range(len(x)) if objects[i] >= 0]
    expected = mean(
        [cross_entropy(out["object"][i].tolist(), int(objects[i])) for i in rows], [float(w[i]) for i in rows]
    )
    expected += mean([cross_entropy(out["domain"][i].tolist(), int(t)) for i, t in enumerate(domains) if t >= 0])
    loss = heads.loss(out, {"object": objects, "domain": domains}, row_weights={"object": w})
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_class_weights_as_row_weights_equal_torchs() -> None:
    heads = make(SPECS[:1])
    x, objects, _ = draw()
    class_weights = torch.tensor([0.2, 1.0, 5.0, 2.0])
    out = heads(x)
    expected = nn.functional.cross_entropy(out["object"], objects, weight=class_weights, ignore_index=-1)
    loss = heads.loss(out, {"object": objects}, row_weights={"object": class_weights[objects]})
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_binary_head() -> None:
    heads = make((HeadSpec("glossy", "binary", ("no", "yes")),))
    x = draw(5)[0]
    target = [1, 0, -1, 1, -1]
    out = heads(x)
    assert out["glossy"].shape == (5,)
    p = [1 / (1 + math.exp(-v)) for v in out["glossy"].tolist()]
    expected = mean([-math.log(q if t else 1 - q) for q, t in zip(p, target, strict=True) if t >= 0])
    assert heads.loss(out, {"glossy": torch.tensor(target)}).item() == pytest.approx(expected, rel=1e-5)
    assert heads.predictions(out)["glossy"].tolist() == pytest.approx(p, rel=1e-5)


def test_regression_head_is_trained_on_standardised_values_and_predicts_in_their_unit() -> None:
    heads = make((HeadSpec("age", "regression", centre=40.0, spread=8.0),))
    x = draw(4)[0]
    target = [30.0, math.nan, 50.0, 41.0]
    out = heads(x)
    assert out["age"].shape == (4,)
    raw = heads.layers["head_age"](x)[:, 0].tolist()
    expected = mean([(y - (t - 40) / 8) ** 2 for y, t in zip(raw, target, strict=True) if not math.isnan(t)])
    loss = heads.loss(out, {"age": torch.tensor(target, dtype=torch.float64)})
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert heads.predictions(out)["age"].tolist() == pytest.approx([40 + 8 * y for y in raw], rel=1e-5)


@pytest.mark.parametrize("compose", ["dual", "joint"])
def test_further_heads_beside_object_and_domain(compose: str) -> None:
    heads = make((*SPECS, HeadSpec("age", "regression"), HeadSpec("glossy", "binary", ("no", "yes"))), compose=compose)
    x, objects, domains = draw()
    out = heads(x)
    both = {"object": objects, "domain": domains}
    nothing = {"age": torch.full((12,), math.nan), "glossy": torch.full((12,), -1)}
    some = {"age": torch.ones(12), "glossy": torch.ones(12, dtype=torch.int64)}
    assert set(heads.predictions(out)) == {"object", "domain", "age", "glossy"}
    none = {name: torch.full((12,), -1) for name in both}
    parts = heads.loss(out, both | nothing).item(), heads.loss(out, none | some).item()
    assert parts[1] > 0
    assert heads.loss(out, both | some).item() == pytest.approx(sum(parts), rel=1e-5)


@pytest.mark.parametrize("name", ["class.of.age", "keys", "items", "update", "a b", "größe"])
def test_a_head_can_have_any_name(name: str) -> None:
    assert make((HeadSpec(name, classes=("a", "b")),))(draw()[0])[name].shape == (12, 2)


def test_names_that_differ_by_a_dot_are_two_heads() -> None:
    names = ("a.b", "a_b", "a%2Eb")
    heads = make(tuple(HeadSpec(name, classes=("x",) * n) for n, name in enumerate(names, 2)))
    out = heads(draw()[0])
    assert [out[name].shape[1] for name in names] == [2, 3, 4]


def kinds(net: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in net]


def test_linear_and_mlp() -> None:
    def build(hidden: tuple[int, ...], **options) -> nn.Sequential:
        return build_mlp(10, hidden, 3, **{"activation": "relu", "dropout": 0.0, "init": "xavier"} | options)

    assert kinds(build(())) == ["Linear"]
    assert kinds(build((8, 7))) == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert [tuple(p.weight.shape) for p in build((8, 7))[::2]] == [(8, 10), (7, 8), (3, 7)]
    assert kinds(build((8,), activation="gelu", dropout=0.5)) == ["Dropout", "Linear", "GELU", "Dropout", "Linear"]
    assert build((8,), dropout=0.25)[0].p == 0.25
    for name, layer in (("tanh", nn.Tanh), ("elu", nn.ELU)):
        assert isinstance(build((8,), activation=name)[1], layer)


def test_an_mlp_equals_its_layers_in_sequence() -> None:
    heads = make(SPECS[:1], hidden=(5,), activation="tanh")
    x = draw()[0]
    first, _, last = heads.layers["head_object"]
    expected = (x @ first.weight.T + first.bias).tanh() @ last.weight.T + last.bias
    assert torch.allclose(heads(x)["object"], expected, atol=1e-6)


def test_dropout_acts_in_training_only() -> None:
    heads = make(dropout=0.5)
    x = draw()[0]
    heads.train()
    assert not torch.equal(heads(x)["object"], heads(x)["object"])
    heads.eval()
    assert torch.equal(heads(x)["object"], heads(x)["object"])


@pytest.mark.parametrize(
    ("init", "expected"),
    [("xavier", [math.sqrt(2 / 1400), math.sqrt(2 / 1300)]), ("he", [math.sqrt(2 / 600), math.sqrt(2 / 800)])],
)
def test_standard_deviations_of_initial_weights(init: str, expected: list[float]) -> None:
    torch.manual_seed(0)
    net = build_mlp(600, (800,), 500, activation="relu", dropout=0.0, init=init)
    for layer, sd in zip((net[0], net[2]), expected, strict=True):
        weights = layer.weight.detach()
        assert float(weights.std()) == pytest.approx(sd, rel=0.01)
        assert abs(float(weights.mean())) < 0.01 * sd
        assert float(weights.abs().max()) > 3 * sd  # normal, not uniform
        assert not layer.bias.any()


def test_initial_weights_depend_on_the_seed() -> None:
    one, same, another = make(seed=1), make(seed=1), make(seed=2)
    assert torch.equal(one.layers["head_object"][0].weight, same.layers["head_object"][0].weight)
    assert not torch.equal(one.layers["head_object"][0].weight, another.layers["head_object"][0].weight)


def test_scale_to() -> None:
    heads = make()
    x = 50 + 7 * torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(0)) * torch.arange(1, WIDTH + 1)
    heads.scale_to(x)
    rows = x.tolist()
    centre = [mean([row[j] for row in rows]) for j in range(WIDTH)]
    spread = math.sqrt(mean([(row[j] - centre[j]) ** 2 for row in rows for j in range(WIDTH)]))
    assert heads.centre.tolist() == pytest.approx(centre, rel=1e-4)
    assert float(heads.spread) == pytest.approx(spread, rel=1e-4)
    layer = heads.layers["head_object"][0]
    expected = (x - torch.tensor(centre)) / spread @ layer.weight.T + layer.bias
    assert torch.allclose(heads(x)["object"], expected, atol=1e-4)


def test_scale_to_constant_features() -> None:
    heads = make()
    heads.scale_to(torch.full((5, WIDTH), 3.0))
    assert heads(torch.full((2, WIDTH), 3.0))["object"].isfinite().all()


def test_scaling_is_saved_and_not_trained() -> None:
    heads = make()
    assert {"centre", "spread"} <= set(heads.state_dict())
    assert not {"centre", "spread"} & {name for name, _ in heads.named_parameters()}


def test_half_precision_features_are_converted_to_float32() -> None:
    assert make()(draw()[0].half())["object"].dtype == torch.float32


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), weights=st.tuples(st.floats(0.1, 3), st.floats(0.1, 3)))
def test_gradient_at_dual_outputs_is_that_of_each_head(seed: int, weights: tuple[float, float]) -> None:
    """Two heads in one module equal two separate heads."""
    g = torch.Generator().manual_seed(seed)
    objects, domains = torch.randint(-1, OBJECTS, (8,), generator=g), torch.randint(-1, DOMAINS, (8,), generator=g)
    logits = torch.randn(8, OBJECTS + DOMAINS, generator=g, requires_grad=True)
    specs = [HeadSpec(s.name, classes=s.classes, weight=w) for s, w in zip(SPECS, weights, strict=True)]
    heads = Heads(specs, WIDTH)
    out = {"object": logits[:, :OBJECTS], "domain": logits[:, OBJECTS:]}
    heads.loss(out, {"object": objects, "domain": domains}).backward()
    parts = []
    for spec, labels, some in zip(specs, (objects, domains), logits.detach().split([OBJECTS, DOMAINS], 1), strict=True):
        gradient = torch.zeros_like(some)
        rows = [i for i in range(8) if labels[i] >= 0]
        for i in rows:
            p = some[i].softmax(0)
            p[labels[i]] -= 1  # the softmax's gradient: probability less truth
            gradient[i] = spec.weight * p / len(rows)
        parts.append(gradient)
    assert logits.grad is not None
    assert torch.allclose(logits.grad, torch.cat(parts, 1), atol=1e-6)
