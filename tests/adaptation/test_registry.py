import numpy as np
import pytest
import torch
from torch import nn

from transfer.adaptation.adapt import adapt
from transfer.adaptation.closed_form.alignment import KINDS
from transfer.adaptation.losses.base import AdaptationLoss, Batch
from transfer.adaptation.registry import METHODS, find
from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.config.adapt import AdaptConfig, MethodConfig, ShiftConfig, StepsConfig
from transfer.errors import TransferError

WIDTH, CLASSES = 5, 3
BARE = ("source_only", "auto")  # the one does nothing, the other is of its own kind


@pytest.fixture
def evidence():
    """Three groups of rows, each domain's, of which the classifier is right about all but a few."""
    rng = np.random.default_rng(0)
    centres, truth = 4 * np.eye(CLASSES, WIDTH), np.arange(30) % CLASSES
    source, target = (centres[truth] + rng.normal(0, 0.3, (30, WIDTH)) for _ in range(2))
    logits = 3 * np.eye(CLASSES)[truth]
    logits[:3] = logits[[1, 2, 0]]  # these are wrong
    parts = [part.astype(np.float32) for part in (source, source[:0], logits[:0], target, logits)]
    made = CandidateEvidence(parts[0], truth, parts[1], parts[2], truth[:0], parts[3], parts[4])
    return made, truth


def test_what_every_method_says_of_itself():
    for name, method in METHODS.items():
        assert method.about
        assert method.align in KINDS
        assert 0 <= method.warm < 1, name
        assert not method.source_free or method.warm > 0, "source-free: something must have been learnt before"
        assert not (method.build and method.refine)
        assert bool(method.pseudo) <= bool(method.build)
        assert (method.build or method.refine or method.statistics or method.align != "none") or name in BARE


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.build])
def test_losses_take_a_batch_and_give_gradients(name):
    torch.manual_seed(0)
    classifier = nn.Linear(WIDTH, CLASSES)
    terms = METHODS[name].build(WIDTH, CLASSES, classifier)
    features = torch.randn(12, WIDTH, requires_grad=True)
    logits = classifier(features)
    target = torch.arange(12) >= 6
    labels = torch.where(target, -1, torch.arange(12) % CLASSES)
    pseudo = torch.softmax(torch.randn(12, CLASSES), 1) * target[:, None]
    sure = 9 * torch.eye(CLASSES)[torch.arange(12) % CLASSES]
    total = torch.zeros(())
    for weight, term in terms:
        assert weight > 0
        assert isinstance(term, AdaptationLoss)
        # all that a step can carry; fixmatch learns from sure rows alone
        said = logits + sure if name == "fixmatch" else logits
        loss = term(Batch(features, said, labels, target, 0.5, classifier(features + 1), pseudo))
        assert loss.shape == ()
        total = total + weight * loss
    total.backward()
    assert bool(features.grad.isfinite().all())
    assert bool(features.grad[target].any())


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.refine or method.pseudo])
def test_refinements_right_what_the_geometry_can_tell(name, evidence):
    seen, truth = evidence
    q = (METHODS[name].refine or METHODS[name].pseudo)(seen)
    assert q.shape == (30, CLASSES)
    assert np.allclose(q.sum(1), 1)
    assert (seen.target_logits.argmax(1) != truth).sum() == 3
    assert (q.argmax(1) == truth).all()


def test_a_name_that_is_none():
    assert find("mcc") is METHODS["mcc"]
    with pytest.raises(TransferError, match=r"unknown method 'dan_n' \(did you mean 'dan.*known: source_only, "):
        find("dan_n")


def test_shot_finds_what_the_source_alone_misses():
    """Digits from fonts to handwriting, the source's images gone: known to be separable, half as many errors left."""
    made = AdaptConfig(
        ShiftConfig("digits", ("printed",), "scanned"), MethodConfig(("shot",)), steps=StepsConfig(device="cpu")
    )
    result = adapt(made).result
    before, after = (1 - result[part]["object"]["accuracy"] for part in ("source_only", "target"))
    assert after < before / 2
