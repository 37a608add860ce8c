import pytest
import torch

from transfer.adapt.alignment import KINDS, align
from transfer.adapt.network import DomainNorm, Network

SOURCE, TARGET, WIDTH = 40, 30, 6


def features(seed=0):
    """Return pooled features of both domains, target rows among source rows, and which are of the target."""
    g = torch.Generator().manual_seed(seed)
    target = torch.arange(SOURCE + TARGET).roll(11) >= SOURCE
    x = torch.randn(SOURCE + TARGET, WIDTH, generator=g) @ torch.randn(WIDTH, WIDTH, generator=g)
    return torch.where(target[:, None], 3 * x + 5, x), target


def network(kind):
    """Return a network whose norm's scale and shift have been learnt."""
    x, target = features()
    torch.manual_seed(1)
    made = Network(align(kind, x[~target].numpy(), x[target].numpy(), size=4), ("a", "b", "c"), 7)
    with torch.no_grad():
        made.norm.weight.uniform_(0.5, 2)
        made.norm.bias.normal_()
        made.enter.bias.normal_()
        made.classifier.bias.normal_()
    return made


def by_hand(x, target, weight, bias):
    """Normalise row by row, feature by feature, with plain numbers."""
    out = torch.zeros_like(x)
    for i in range(len(x)):
        own = [j for j in range(len(x)) if target[j] == target[i]]
        for f in range(x.shape[1]):
            values = [float(x[j, f]) for j in own]
            mean = sum(values) / len(values)
            variance = sum((v - mean) ** 2 for v in values) / len(values) if len(values) > 1 else 1.0
            out[i, f] = (float(x[i, f]) - mean) / (variance + 1e-5) ** 0.5 * float(weight[f]) + float(bias[f])
    return out


@pytest.mark.parametrize("rows", [slice(0, 12), slice(0, 2), slice(0, 70)])
def test_the_norm_against_the_loop(rows):
    x, target = (part[rows] for part in features())
    norm = DomainNorm(WIDTH)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    wanted = by_hand(x, target, norm.weight.detach(), norm.bias.detach())
    assert torch.allclose(norm(x, target), wanted, atol=1e-4)
    norm.settle(x, target)
    norm.eval()
    assert torch.allclose(norm(x, target), wanted, atol=1e-4)
    # settled statistics are the domain's, whatever is in the batch
    assert torch.allclose(torch.cat([norm(x[[i]], target[[i]]) for i in range(len(x))]), wanted, atol=1e-4)


def test_one_row_of_a_domain_is_its_own_mean():
    x, target = torch.tensor([[1.0], [3.0], [9.0]]), torch.tensor([False, False, True])
    norm = DomainNorm(1)
    assert torch.allclose(norm(x, target), torch.tensor([[-1.0], [1.0], [0.0]]), atol=1e-4)
    norm.settle(x, target)
    norm.eval()
    assert torch.allclose(norm(x + 1, target), torch.tensor([[0.0], [2.0], [1.0]]), atol=1e-4)


def test_gradients_reach_both_domains_and_no_domain_sees_the_other():
    x, target = features()
    x = x.requires_grad_()
    norm = DomainNorm(WIDTH)
    (norm(x, target)[target] ** 3).sum().backward()
    assert bool(x.grad[target].any(1).all())
    assert not bool(x.grad[~target].any())


def test_a_domain_that_is_not_there_keeps_its_statistics():
    x, target = features()
    norm = DomainNorm(WIDTH)
    norm.settle(x, target)
    before = norm.mean.clone(), norm.deviation.clone()
    norm.settle(2 * x[target], target[target])
    assert torch.equal(norm.mean[0], before[0][0])
    assert torch.equal(norm.deviation[0], before[1][0])
    assert torch.allclose(norm.mean[1], 2 * before[0][1])


@pytest.mark.parametrize("kind", KINDS)
def test_exported_heads_answer_as_the_network_does_on_target_rows(kind):
    made, (x, target) = network(kind), features()
    made.settle(x, target)
    made.eval()
    with torch.no_grad():
        wanted = made.classifier(made(x, target))
        heads = made.heads().eval()
        said = heads(x)["object"]
    assert heads.specs["object"].classes == ("a", "b", "c")
    assert torch.allclose(said[target], wanted[target], atol=1e-3)
    assert not torch.allclose(said[~target], wanted[~target], atol=0.1)  # the source has a norm of its own


@pytest.mark.parametrize("kind", KINDS)
def test_each_domain_has_its_scaling(kind):
    made, (x, target) = network(kind), features()
    scaled = made.scaled(x, target)
    for i, side in enumerate(target.long().tolist()):
        assert torch.allclose(scaled[i], made.scalings[side].tensor(x[[i]])[0])
    if kind == "standardise":
        for side in (~target, target):
            assert torch.allclose(scaled[side].mean(0), torch.zeros(WIDTH), atol=1e-4)
            assert torch.allclose(scaled[side].std(0, unbiased=False), torch.ones(WIDTH), atol=1e-4)
