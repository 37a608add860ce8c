import pytest
import torch

from transfer.adaptation.closed_form.alignment import ALIGNMENTS, fit_alignment
from transfer.adaptation.network import AdaptationNetwork, DomainNorm

SOURCE, OTHER, TARGET, WIDTH = 25, 15, 30, 6
DOMAINS = range(3)  # two sources and the target


def features(seed=0):
    """Return pooled features of three domains, their rows mixed, and each row's domain."""
    g = torch.Generator().manual_seed(seed)
    domain = torch.tensor([0] * SOURCE + [1] * OTHER + [2] * TARGET)[torch.randperm(70, generator=g)]
    x = torch.randn(70, WIDTH, generator=g) @ torch.randn(WIDTH, WIDTH, generator=g)
    return torch.tensor([1.0, 0.5, 3.0])[domain][:, None] * x + torch.tensor([0.0, -2.0, 5.0])[domain][:, None], domain


def network(kind):
    """Return a network whose norm's scale and shift have been learnt."""
    x, domain = features()
    torch.manual_seed(1)
    made = AdaptationNetwork(
        fit_alignment(kind, *(x[domain == i].numpy() for i in DOMAINS), size=4), ("a", "b", "c"), 7
    )
    with torch.no_grad():
        made.norm.weight.uniform_(0.5, 2)
        made.norm.bias.normal_()
        made.enter.bias.normal_()
        made.classifier.bias.normal_()
    return made


def by_hand(x, domain, weight, bias):
    """Normalise row by row, feature by feature, with plain numbers."""
    out = torch.zeros_like(x)
    for i in range(len(x)):
        own = [j for j in range(len(x)) if domain[j] == domain[i]]
        for f in range(x.shape[1]):
            values = [float(x[j, f]) for j in own]
            mean = sum(values) / len(values)
            variance = sum((v - mean) ** 2 for v in values) / len(values) if len(values) > 1 else 1.0
            out[i, f] = (float(x[i, f]) - mean) / (variance + 1e-5) ** 0.5 * float(weight[f]) + float(bias[f])
    return out


@pytest.mark.parametrize("rows", [slice(0, 12), slice(0, 2), slice(0, 70)])
def test_the_norm_against_the_loop(rows):
    x, domain = (part[rows] for part in features())
    norm = DomainNorm(WIDTH, len(DOMAINS))
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    wanted = by_hand(x, domain, norm.weight.detach(), norm.bias.detach())
    assert torch.allclose(norm(x, domain), wanted, atol=1e-4)
    norm.set_statistics(x, domain)
    norm.eval()
    assert torch.allclose(norm(x, domain), wanted, atol=1e-4)
    # settled statistics are the domain's, whatever is in the batch
    assert torch.allclose(torch.cat([norm(x[[i]], domain[[i]]) for i in range(len(x))]), wanted, atol=1e-4)


def test_one_row_of_a_domain_is_its_own_mean():
    x, domain = torch.tensor([[1.0], [3.0], [9.0]]), torch.tensor([0, 0, 1])
    norm = DomainNorm(1)
    assert torch.allclose(norm(x, domain), torch.tensor([[-1.0], [1.0], [0.0]]), atol=1e-4)
    norm.set_statistics(x, domain)
    norm.eval()
    assert torch.allclose(norm(x + 1, domain), torch.tensor([[0.0], [2.0], [1.0]]), atol=1e-4)


def test_gradients_reach_all_of_a_domain_and_no_domain_sees_another():
    x, domain = features()
    x = x.requires_grad_()
    norm = DomainNorm(WIDTH, len(DOMAINS))
    (norm(x, domain)[domain == 1] ** 3).sum().backward()
    assert bool(x.grad[domain == 1].any(1).all())
    assert not bool(x.grad[domain != 1].any())


def test_statistics_of_an_absent_domain_are_unchanged():
    x, domain = features()
    norm = DomainNorm(WIDTH, len(DOMAINS))
    norm.set_statistics(x, domain)
    before = norm.mean.clone(), norm.deviation.clone()
    norm.set_statistics(2 * x[domain == 1], domain[domain == 1])
    assert torch.equal(norm.mean[[0, 2]], before[0][[0, 2]])
    assert torch.equal(norm.deviation[[0, 2]], before[1][[0, 2]])
    assert torch.allclose(norm.mean[1], 2 * before[0][1])


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_exported_heads_answer_as_the_network_does_on_target_rows(kind):
    made, (x, domain) = network(kind), features()
    made.set_statistics(x, domain)
    made.eval()
    with torch.no_grad():
        wanted = made.classifier(made(x, domain))
        heads = made.heads().eval()
        said = heads(x)["object"]
    assert heads.specs["object"].classes == ("a", "b", "c")
    target = domain == DOMAINS[-1]
    assert torch.allclose(said[target], wanted[target], atol=1e-3)
    for source in DOMAINS[:-1]:  # these have norms of their own
        assert not torch.allclose(said[domain == source], wanted[domain == source], atol=0.1)


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_each_domain_has_its_scaling(kind):
    made, (x, domain) = network(kind), features()
    scaled = made.scale_features(x, domain)
    for i, side in enumerate(domain.tolist()):
        assert torch.allclose(scaled[i], made.scalings[side].tensor(x[[i]])[0])
    if kind == "standardise":
        for side in DOMAINS:
            assert torch.allclose(scaled[domain == side].mean(0), torch.zeros(WIDTH), atol=1e-4)
            assert torch.allclose(scaled[domain == side].std(0, unbiased=False), torch.ones(WIDTH), atol=1e-4)
