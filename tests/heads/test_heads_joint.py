"""One softmax over the pairs of domain and object; every loss is recomputed row by row, in plain Python."""

import math

import pytest
import torch
from object_and_domain_heads import DOMAINS, OBJECTS, SPECS, cross_entropy, draw, make, mean


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


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_joint_loss(smoothing: float) -> None:
    heads = make(compose="joint")
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
    assert loss.item() == pytest.approx(mean(pair) + mean(one) + mean(two), rel=1e-5)


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
