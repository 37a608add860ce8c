import math

import numpy as np
import pytest
import torch

from transfer.adaptation.losses.base import AdaptationLoss
from transfer.adaptation.method_run import new_network
from transfer.adaptation.step_loss import Diverged, StepLoss


class Keeping(AdaptationLoss):
    """Keeps what it is shown; its loss is `scale` times the mean logit of target rows."""

    def __init__(self, scale=1.0, *, strong=False):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))
        self.needs_strong, self.seen = strong, []

    def forward(self, batch):
        self.seen.append(batch)
        return self.scale * batch.logits[batch.target].mean()


@pytest.fixture
def asking(staged):
    """Build a step's loss, and what it is asked about: rows of both sides in turn with their activations."""

    def build(terms=(), *, source=True, **settings):
        stage, *_ = staged(**settings)
        torch.manual_seed(0)
        network = new_network(stage, "standardise", 16)
        domains = stage.domains
        some = zip(stage.source[:6], domains.unlabelled[:6], strict=True)
        rows = np.concatenate([np.array(list(some)).ravel(), domains.labelled[:3]])
        _, activation = next(iter(stage.batches(rows, len(rows), None, 0, 0)))
        return StepLoss(stage, network, list(terms), source=source, split=False), rows, activation

    return build


def by_hand(ask, rows, activation):
    """Return mean cross-entropies of labelled rows, source and target, and the logits: a row at a time, in numpy."""
    stage, network = ask.task, ask.network
    with torch.no_grad():
        pooled = activation if stage.frozen else stage.model.features(activation)
        scaled = network.enter(network.scale_features(pooled, stage.domain[torch.from_numpy(rows)])).double().numpy()
    features = np.empty_like(scaled)
    for side in set(stage.domain.numpy()[rows].tolist()):
        own = [i for i, row in enumerate(rows) if stage.domain[row] == side]
        features[own] = (scaled[own] - scaled[own].mean(0)) / np.sqrt(scaled[own].var(0) + 1e-5)
    weight, bias = (tensor.detach().double().numpy() for tensor in (network.norm.weight, network.norm.bias))
    features = np.maximum(features * weight + bias, 0)
    weight, bias = (t.detach().double().numpy() for t in (network.classifier.weight, network.classifier.bias))
    logits = features @ weight.T + bias
    losses = {False: [], True: []}
    for i, row in enumerate(rows):
        if stage.labels[row] >= 0:
            among = math.log(sum(math.exp(logit) for logit in logits[i]))
            losses[bool(stage.target[row])].append(among - logits[i, stage.labels[row]])
    return losses[False], losses[True], logits


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
@pytest.mark.parametrize("target_labels", [0, 2])
def test_the_loss_is_the_mean_of_each_sides_labelled_rows(asking, policy, target_labels):
    ask, rows, activation = asking(policy=policy, target_labels=target_labels)
    source, target, _ = by_hand(ask, rows, activation)
    assert len(source) == 6
    assert len(target) == min(target_labels, 1) * 3
    expected = np.mean(source) + (np.mean(target) if target else 0.0)
    assert ask(rows, activation, 0.0, None, []).item() == pytest.approx(expected, rel=1e-4)


def test_without_the_source_only_labelled_target_rows_are_learnt(asking):
    ask, rows, activation = asking(source=False, target_labels=2)
    _, target, _ = by_hand(ask, rows, activation)
    assert ask(rows, activation, 0.0, None, []).item() == pytest.approx(np.mean(target), rel=1e-4)
    bare, rows, activation = asking([(1.0, term := Keeping(0.0))], source=False)
    assert bare(rows, activation, 0.0, None, []).item() == 0
    assert (term.seen[0].labels == -1).all()


def test_terms_are_added_by_weight_and_see_unlabelled_target_rows_as_the_target(asking):
    terms = [(0.5, Keeping(2.0)), (3.0, Keeping(-1.0))]
    ask, rows, activation = asking(terms, target_labels=2)
    source, target, logits = by_hand(ask, rows, activation)
    unlabelled = [i for i, row in enumerate(rows) if row in ask.task.domains.unlabelled]
    assert len(unlabelled) == 6
    expected = np.mean(source) + np.mean(target) + (0.5 * 2.0 - 3.0) * logits[unlabelled].mean()
    assert ask(rows, activation, 0.25, None, []).item() == pytest.approx(expected, rel=1e-4)
    (batch,) = terms[0][1].seen
    assert batch.target.nonzero().flatten().tolist() == unlabelled
    assert (batch.labels[batch.target] == -1).all()
    assert batch.progress == 0.25


def test_what_terms_learn_gets_a_gradient_with_the_network_and_the_tail(asking):
    ask, rows, activation = asking([(0.5, Keeping(2.0))], policy="partial:1")
    ask(rows, activation, 0.0, None, []).backward()
    learning = {name for name, p in ask.named_parameters() if p.grad is not None}
    assert "losses.0.scale" in learning
    assert any(name.startswith("network.classifier") for name in learning)
    tail = {f"backbone.{name}" for name, p in ask.task.model.backbone.named_parameters() if p.requires_grad}
    assert tail
    assert {name for name in learning if name.startswith("backbone.")} == tail


@pytest.mark.parametrize("wanted", [[], [False], [False, True]])
def test_harder_versions_are_made_only_where_a_term_asks(asking, wanted):
    ask, rows, activation = asking([(1.0, Keeping(strong=strong)) for strong in wanted])
    ask(rows, activation, 0.0, None, [])
    for term in ask.losses:
        (batch,) = term.seen
        assert (batch.strong is not None) == (True in wanted)
        if batch.strong is not None:
            assert batch.strong.shape == batch.logits.shape
            assert not torch.equal(batch.strong, batch.logits)


def test_class_probabilities_come_by_row(asking):
    ask, rows, activation = asking([(1.0, term := Keeping())])
    q = torch.rand(len(ask.task.labels), len(ask.task.classes))
    ask(rows, activation, 0.0, q, [])
    assert torch.equal(term.seen[0].pseudo, torch.stack([q[row] for row in rows.tolist()]))


def test_answers_that_are_no_numbers_end_it(asking):
    ask, rows, activation = asking()
    with torch.no_grad():
        ask.network.classifier.weight[0, 0] = math.nan
    with pytest.raises(Diverged, match="lower --lr"):
        ask(rows, activation, 0.0, None, [])
