"""One softmax over the pairs of domain and object; every loss is recomputed row by row, in plain Python."""

import math
from dataclasses import replace

import pytest
import torch
from object_and_domain_heads import DOMAINS, OBJECTS, SPECS, cross_entropy, draw, make, mean

from transfer.heads.heads import split_by_layer


def test_joint_head_is_one_softmax_over_the_pairs() -> None:
    heads = make(compose="joint")
    x, _, _ = draw()
    assert [name for name, _ in heads.layers.named_children()] == ["head_joint"]
    logits = heads.layers["head_joint"](x)
    assert logits.shape == (len(x), DOMAINS * OBJECTS)
    out = heads(x)
    answers = heads.predictions(out)
    for i, row in enumerate(logits.tolist()):
        total = sum(math.exp(v) for v in row)
        p = [[math.exp(row[d * OBJECTS + o]) / total for o in range(OBJECTS)] for d in range(DOMAINS)]
        assert out["joint"][i].exp().flatten().tolist() == pytest.approx([v for line in p for v in line], rel=1e-5)
        assert answers["object"][i].tolist() == pytest.approx(
            [sum(p[d][o] for d in range(DOMAINS)) for o in range(OBJECTS)], rel=1e-5
        )
        assert answers["domain"][i].tolist() == pytest.approx([sum(line) for line in p], rel=1e-5)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 2.0), (3.0, 0.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_joint_loss(smoothing: float, weights: tuple[float, float]) -> None:
    """An image with one label counts as its head does, one with both as the head that weighs more."""
    specs = [replace(spec, weight=weight) for spec, weight in zip(SPECS, weights, strict=True)]
    heads = make(specs, compose="joint")
    x, objects, domains = draw(24)
    out = heads(x)
    pair, one, two = [], [], []
    for i, (o, d) in enumerate(zip(objects.tolist(), domains.tolist(), strict=True)):
        p = out["joint"][i]
        if o >= 0 and d >= 0:
            pair.append(cross_entropy(p.flatten().tolist(), d * OBJECTS + o, smoothing))
        elif o >= 0:
            one.append(cross_entropy([math.log(sum(p[:, k].exp().tolist())) for k in range(OBJECTS)], o, smoothing))
        elif d >= 0:
            two.append(cross_entropy([math.log(sum(p[k].exp().tolist())) for k in range(DOMAINS)], d, smoothing))
    assert pair
    assert one
    assert two
    loss = heads.loss(out, {"object": objects, "domain": domains}, smoothing=smoothing)
    expected = max(weights) * mean(pair) + weights[0] * mean(one) + weights[1] * mean(two)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_joint_loss_of_one_label_is_minus_the_log_of_its_marginal() -> None:
    heads = make(compose="joint")
    out = heads(draw(1)[0])
    p = out["joint"][0].detach().exp()
    loss = heads.loss(out, {"object": torch.tensor([2]), "domain": torch.tensor([-1])})
    assert loss.item() == pytest.approx(-math.log(sum(p[:, 2].tolist())), rel=1e-5)
    loss = heads.loss(out, {"object": torch.tensor([-1]), "domain": torch.tensor([1])})
    assert loss.item() == pytest.approx(-math.log(sum(p[1].tolist())), rel=1e-5)
    loss = heads.loss(out, {"object": torch.tensor([2]), "domain": torch.tensor([1])})
    assert loss.item() == pytest.approx(-math.log(float(p[1, 2])), rel=1e-5)


def test_joint_needs_both_heads() -> None:
    heads = make(SPECS[:1], compose="joint")
    assert not heads.joint
    assert heads(draw()[0])["object"].shape == (12, OBJECTS)


@pytest.mark.parametrize("compose", ["dual", "joint"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_losses_of_the_parts_of_a_batch_add_up(compose: str, weighted: bool) -> None:
    """Each part is divided by what `totals` counts in the whole batch: rows, or their weights."""
    heads = make(compose=compose)
    x, objects, domains = draw()
    targets = {"object": objects, "domain": domains}
    g = torch.Generator().manual_seed(5)
    weights = {name: torch.rand(len(x), generator=g) + 0.2 for name in targets} if weighted else None
    whole = heads.loss(heads(x), targets, row_weights=weights).item()
    totals, parts = heads.totals(targets, weights), 0.0
    for part in (slice(0, 5), slice(5, 7), slice(7, None)):
        within = {name: values[part] for name, values in weights.items()} if weights else None
        labels = {name: values[part] for name, values in targets.items()}
        parts += heads.loss(heads(x[part]), labels, row_weights=within, totals=totals).item()
    assert parts == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 2.0), (2.0, 0.5), (0.0, 1.0)])
def test_a_layer_alone_weighs_its_heads_as_the_whole_does(weights: tuple[float, float]) -> None:
    """The loss of the part that a joint head's layer feeds is that of all heads, but for a common factor."""
    specs = [replace(spec, weight=weight) for spec, weight in zip(SPECS, weights, strict=True)]
    heads = make(specs, compose="joint")
    x, objects, domains = draw()
    (name, part), *others = split_by_layer(heads).items()
    assert (name, others) == ("joint", [])
    outputs, most = heads.layer_outputs(x)["joint"], max(weights)
    none = torch.full_like(objects, -1)
    for targets in (
        {"object": objects, "domain": domains},
        {"object": objects, "domain": none},
        {"object": none, "domain": domains},
    ):
        whole = heads.loss(heads(x), targets).item()
        assert most * part.loss(part(outputs), targets).item() == pytest.approx(whole, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("weights", [(0.25, 3.0), (0.0, 1.0)])
def test_a_layer_of_one_head_has_no_weight(weights: tuple[float, float]) -> None:
    specs = [replace(spec, weight=weight) for spec, weight in zip(SPECS, weights, strict=True)]
    parts = split_by_layer(make(specs))
    assert list(parts) == ["object", "domain"]
    assert [part.specs[name].weight for name, part in parts.items()] == [1.0, 1.0]
