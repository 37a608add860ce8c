from unittest.mock import Mock

import numpy as np
import pytest
import torch

from transfer.adaptation.losses.base import AdaptationLoss
from transfer.adaptation.losses.entropy import InformationMaximisation
from transfer.adaptation.losses.fixmatch import FixMatch
from transfer.adaptation.losses.mcc import MCC
from transfer.adaptation.losses.mmd import DeepCORAL
from transfer.adaptation.losses.pseudo_labels import PseudoLabels
from transfer.adaptation.method_run import new_network
from transfer.adaptation.step_loss import Diverged
from transfer.adaptation.trainer import AdaptationTrainer
from transfer.errors import TransferError


class Spy(AdaptationLoss):
    """Keeps every batch, and asks for nothing."""

    def __init__(self, *, strong=False):
        super().__init__()
        self.needs_strong, self.seen = strong, []

    def forward(self, batch):
        self.seen.append(batch)
        return batch.logits.sum() * 0.0


@pytest.fixture
def course(staged):
    def build(**settings):
        seed = settings.get("seed", 0)
        stage, phase, steps = staged(**settings)
        torch.manual_seed(seed)
        network = new_network(stage, "standardise", 16)
        return AdaptationTrainer(stage, network, phase, steps, seed)

    return build


def watched(course):
    """Return the list that gets each step's rows of the table."""
    rows, batches = [], course.task.batches

    def watch(*args, **how):
        for some, activation in batches(*args, **how):
            rows.append(some)
            yield some, activation

    course.task.batches = watch
    return rows


def ran(generator):
    return list(generator)


def state(course):
    tail = course.task.model.backbone.state_dict()
    return {k: v.clone() for k, v in (course.network.state_dict() | tail).items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
def test_without_terms_the_source_is_learnt(course, policy):
    made = course(policy=policy, epochs=6, steps=10)
    out = ran(made.train([], 6))
    losses = [line["loss"] for line, _ in out]
    assert [line["epoch"] for line, _ in out] == [1, 2, 3, 4, 5, 6]
    assert losses[-1] < 0.5 * losses[0]
    evidence = out[-1][1]
    with torch.no_grad():
        said = made.network.classifier(torch.from_numpy(evidence.source_features)).argmax(1).numpy()
    assert (said == evidence.source_labels).mean() > 0.9
    domains = made.task.domains
    assert len(evidence.target_logits) == len(domains.unlabelled)
    assert (evidence.val_labels == made.task.labels.numpy()[domains.val]).all()
    assert (evidence.source_labels == made.task.labels.numpy()[made.task.source]).all()


def test_each_step_has_both_domains_and_no_target_label(course):
    made, spy = course(steps=7, batch_size=10), Spy()
    rows = watched(made)
    ran(made.train([(1.0, spy)], 2))
    domains, stage = made.task.domains, made.task
    assert len(spy.seen) == len(rows) == 14
    for some, batch in zip(rows, spy.seen, strict=True):
        assert len(some) == 20
        assert np.isin(some[:10], stage.source).all()
        assert np.isin(some[10:], domains.unlabelled).all()
        assert (batch.target.numpy() == np.isin(some, domains.unlabelled)).all()
        assert (batch.labels[batch.target] == -1).all()
        assert (batch.labels.numpy() == np.where(np.isin(some, stage.source), stage.labels.numpy()[some], -1)).all()
        assert batch.strong is None
        assert batch.pseudo is None
    assert np.allclose([batch.progress for batch in spy.seen], np.arange(14) / 14)
    for side in (slice(0, 10), slice(10, 20)):  # each row as often as any other to within one
        counts = np.unique(np.concatenate([some[side] for some in rows[:7]]), return_counts=True)[1]
        assert counts.max() - counts.min() <= 1


def test_labelled_target_rows_are_drawn_and_learnt(course):
    made, spy = course(target_labels=2, steps=4), Spy()
    rows = watched(made)
    ran(made.train([(1.0, spy)], 1))
    domains = made.task.domains
    assert len(domains.labelled) == 6
    for some, batch in zip(rows, spy.seen, strict=True):
        drawn = np.isin(some, domains.labelled)
        assert drawn.sum() == 6
        # an objective for the unlabelled does not see them as such: six rows in every step would outweigh the rest
        assert (batch.target.numpy() == np.isin(some, domains.unlabelled)).all()
        assert (batch.labels.numpy()[drawn] == made.task.labels.numpy()[some[drawn]]).all()
        assert (batch.labels.numpy()[drawn] >= 0).all()
        assert (batch.labels.numpy()[np.isin(some, domains.unlabelled)] == -1).all()
    # they are learnt from even where the source is not
    other = course(target_labels=2, steps=4)
    before = state(other)
    ran(other.train([], 1, source=False))
    assert not same(before, state(other))


def test_where_nothing_is_to_be_learnt_from_only_decay_moves_weights(course):
    made = course(weight_decay=0.0)
    before = {k: v.clone() for k, v in made.network.named_parameters()}
    ran(made.train([(1.0, Spy())], 1, source=False))
    assert same(before, dict(made.network.named_parameters()))


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
def test_source_free_touches_neither_the_classifier_nor_source_labels(course, policy):
    ends = []
    for change in ("none", "labels"):
        made = course(policy=policy, epochs=3)
        ran(made.train([], 1))
        if change == "labels":
            source = torch.from_numpy(np.flatnonzero(~made.task.target.numpy()))
            made.task.labels = made.task.labels.clone()
            made.task.labels[source] = made.task.labels[source].flip(0)
        head = {k: v.clone() for k, v in made.network.classifier.state_dict().items()}
        entered = made.network.enter.weight.clone()
        spy = Spy()
        ran(made.train([(1.0, InformationMaximisation()), (1.0, spy)], 2, source=False, classifier=False))
        assert same(head, made.network.classifier.state_dict())
        assert not torch.equal(entered, made.network.enter.weight)
        assert all(bool((batch.labels == -1).all()) for batch in spy.seen)
        ends.append(state(made))
    assert same(*ends)


def test_source_labels_do_matter_otherwise(course):
    ends = []
    for flip in (False, True):
        made = course()
        if flip:
            made.task.labels = made.task.labels.flip(0).where(~made.task.target, made.task.labels)
        ran(made.train([], 1))
        ends.append(state(made))
    assert not same(*ends)


def test_pseudo_labels_stand_at_their_rows(course):
    made, spy = course(target_labels=1, steps=5, epochs=2), Spy()
    rows, domains = watched(made), made.task.domains
    rng = np.random.default_rng(0)
    given = []

    def pseudo(evidence):
        assert len(evidence.target_logits) == len(domains.unlabelled)
        q = rng.dirichlet(np.ones(3), len(domains.unlabelled))
        given.append(q)
        return q

    ran(made.train([(1.0, spy), (1.0, PseudoLabels())], 2, pseudo=pseudo))
    assert len(given) == 2
    for i, (some, batch) in enumerate(zip(rows, spy.seen, strict=True)):
        wanted = np.zeros((len(some), 3))
        for j, row in enumerate(some):
            if row in domains.unlabelled:
                wanted[j] = given[i // 5][domains.unlabelled.tolist().index(row)]
        assert np.allclose(batch.pseudo.numpy(), wanted, atol=1e-6)
        assert (wanted.sum(1) > 0).sum() == 12


def test_pseudo_labels_are_learnt(course):
    made = course(epochs=5, steps=10)
    wanted = np.eye(3)[(made.task.domains.unlabelled // 8 + 1) % 3]  # each colour under another's name
    *_, (_, evidence) = made.train([(1.0, PseudoLabels())], 5, source=False, pseudo=lambda _: wanted)
    assert (evidence.target_logits.argmax(1) == wanted.argmax(1)).mean() > 0.9


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
def test_the_last_epoch_alone_is_the_same_and_takes_one_look(course, policy):
    ends, looks = [], []
    for last in (False, True):
        made = course(policy=policy, epochs=3)
        q = np.eye(3)[made.task.domains.unlabelled % 3]
        made.evidence = Mock(side_effect=made.evidence)
        told = list(made.train([(1.0, PseudoLabels())], 3, pseudo=q, last=last))
        ends.append(told[-1])
        looks.append((len(told), made.evidence.call_count))
    assert looks == [(3, 3), (1, 1)]
    assert ends[0][0]["loss"] == ends[1][0]["loss"]
    assert np.array_equal(ends[0][1].target_logits, ends[1][1].target_logits)


def test_a_harder_version_is_made_where_it_is_asked_for(course):
    made, spy = course(steps=2), Spy(strong=True)
    ran(made.train([(1.0, spy)], 1))
    for batch in spy.seen:
        assert batch.strong.shape == batch.logits.shape
        assert not torch.allclose(batch.strong, batch.logits)


@pytest.mark.parametrize("clip", [0.0, 5.0])
@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
def test_a_run_that_diverges_says_so_and_offers_nothing(course, policy, clip):
    made = course(policy=policy, lr=1e9, clip=clip, epochs=3)
    seen = []
    epochs = (seen.append(evidence) for _, evidence in made.train([(1.0, MCC())], 3))
    with pytest.raises(Diverged, match="try a lower --lr"):
        ran(epochs)
    assert all(evidence.finite for evidence in seen)


def test_the_phase_says_what_learns_and_how_fast(course):
    made = course(policy="partial:2", lr=0.01)
    backbone = made.task.model.backbone
    before = state(made)
    ran(made.train([], 1))
    after = state(made)
    moved = {backbone.stage_of(name) for name, _ in backbone.network.named_parameters() if _moved(before, after, name)}
    last = len(backbone.stages) - 1
    assert moved == {last - 1, last}
    rates = {round(rate, 6) for _, rate in made.rates}
    assert rates == {0.001, 0.0008}


def _moved(before, after, name):
    (key,) = (key for key in before if key == name or key.endswith(f"network.{name}"))
    return not torch.equal(before[key], after[key])


def test_statistics_of_trained_stages_stay(course):
    made = course(policy="full", augment="none", epochs=1)
    before = {k: v.clone() for k, v in made.task.model.backbone.named_buffers()}
    ran(made.train([], 1))
    assert same(before, dict(made.task.model.backbone.named_buffers()))


def test_the_same_seed_gives_the_same_bits(course):
    ends = [state(made) for made in (course(seed=s) for s in (0, 0, 1)) if ran(made.train([(1.0, MCC())], 2))]
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])


def test_few_source_rows_are_judged_where_there_are_many(course, monkeypatch):
    monkeypatch.setattr("transfer.adaptation.trainer.MAX_SOURCE_EVIDENCE", 7)
    made = course(val=0.0)
    evidence = made.evidence()
    assert evidence.source_features.shape == (7, 16)
    assert len(evidence.val_labels) == 0


def test_a_batch_that_does_not_fit_is_taken_in_parts_to_the_same_end(course, scarce, monkeypatch):
    """With losses that are not sums over rows, CORAL's distances, and with random draws, for a strong version."""
    backward = torch.Tensor.backward

    def went(most, fails=0):
        left = [fails]

        def falling(loss, *args, **how):
            if left[0]:
                left[0] -= 1
                raise MemoryError
            backward(loss, *args, **how)

        with monkeypatch.context() as patch:
            scarce(patch, most)
            patch.setattr(torch.Tensor, "backward", falling)
            made = course(policy="partial:1", steps=3, batch_size=12)
            terms = [(1.0, DeepCORAL()), (1.0, FixMatch(0.3))]
            (line, _), (other, _) = made.train(terms, 2)
        return [line["loss"], other["loss"]], made.task.parts, state(made)

    losses, parts, one = went(99)
    assert parts == 1
    for how, halves in (({"most": 4}, 4), ({"most": 99, "fails": 1}, 2)):
        again, parts, other = went(**how)
        assert parts == halves
        assert again == pytest.approx(losses, rel=1e-4)
        assert all(torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-5) for name in one)
    with pytest.raises(TransferError, match="out of memory on a single image"):
        went(0)
    monkeypatch.setattr("transfer.adaptation.step_loss.StepLoss.forward", Mock(side_effect=MemoryError))
    with pytest.raises(TransferError, match="use a smaller --batch-size"):
        ran(course().train([], 1))
