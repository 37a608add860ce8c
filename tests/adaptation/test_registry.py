import importlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from transfer.adaptation import registry
from transfer.adaptation.adapt import adapt
from transfer.adaptation.closed_form.alignment import ALIGNMENTS
from transfer.adaptation.losses.base import AdaptationLoss, Batch
from transfer.adaptation.losses.mcc import MCC
from transfer.adaptation.registry import (
    FUNCTIONS,
    METHODS,
    REFERENCE,
    Method,
    find_method,
    method_summaries,
    register_method,
)
from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.config.adapt import AdaptConfig, MethodConfig, ShiftConfig, StepsConfig
from transfer.config.shared import BackboneConfig
from transfer.errors import TransferError

WIDTH, CLASSES = 5, 3


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


def test_facts_of_every_method():
    for name, method in METHODS.items():
        assert method.name == name
        assert method.summary
        assert method.align in ALIGNMENTS
        assert method.losses or method.refine or method.fit or method.align != "none" or name == REFERENCE


def test_facts_read_from_the_source_are_those_registered_on_import():
    """And every file that registers a method can be imported alone."""
    for name, method in METHODS.items():
        functions = {field: getattr(method, field) for field in FUNCTIONS if getattr(method, field)}
        for field, lazy in functions.items():
            importlib.import_module(lazy.module)
            registered = registry._IMPORTED[name]
            assert callable(getattr(registered, field))
            assert replace(registered, **functions) == method


def test_names_summaries_and_facts_need_no_torch():
    code = (
        "import sys\nfrom transfer.adaptation.registry import METHODS, method_summaries\n"
        "from transfer.adaptation.selection.validators import rule_summaries\n"
        "assert method_summaries()['mcc'] == 'minimum class confusion (Jin et al. 2020)'\n"
        "assert METHODS['adabn'].moves_batch_norm and METHODS['mcc'].losses and 'circular' in rule_summaries()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_registered_method_is_found(monkeypatch):
    monkeypatch.setattr(registry, "METHODS", dict(METHODS))
    register_method("twice_mcc", "MCC, weighted 2", losses=lambda width, classes, classifier: [(2.0, MCC())])
    assert find_method("twice_mcc").losses(1, 2, None)[0][0] == 2.0
    assert method_summaries()["twice_mcc"] == "MCC, weighted 2"
    register_method("twice_mcc", "replaced, as a notebook's cell does that is run twice")
    assert method_summaries()["twice_mcc"].startswith("replaced")
    with pytest.raises(TransferError, match="'mcc' is built in: register yours under another name"):
        register_method("mcc", "another")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"name": "a,b"}, "a name is letters"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"warmup": 0.5}, "need losses"),
        ({"source_free": True}, "need losses"),
        ({"losses": print, "source_free": True}, "needs warmup"),
        ({"losses": print, "refine": print}, "give one of"),
        ({"pseudo_labels": print}, "need losses"),
    ],
)
def test_facts_that_contradict_each_other_are_refused(facts, message):
    with pytest.raises(TransferError, match=message):
        Method(**{"name": "mine", "summary": "mine"} | facts)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.losses])
def test_losses_take_a_batch_and_give_gradients(name):
    torch.manual_seed(0)
    classifier = nn.Linear(WIDTH, CLASSES)
    terms = METHODS[name].losses(WIDTH, CLASSES, classifier)
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


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.refine or method.pseudo_labels])
def test_refinements_correct_errors_that_the_geometry_shows(name, evidence):
    seen, truth = evidence
    q = (METHODS[name].refine or METHODS[name].pseudo_labels)(seen)
    assert q.shape == (30, CLASSES)
    assert np.allclose(q.sum(1), 1)
    assert (seen.target_logits.argmax(1) != truth).sum() == 3
    assert (q.argmax(1) == truth).all()


def test_an_unknown_name():
    assert find_method("mcc") is METHODS["mcc"]
    with pytest.raises(TransferError, match=r"unknown method 'dan_n' \(did you mean 'dan.*known: auto, .*--plugin"):
        find_method("dan_n")


def test_shot_finds_what_the_source_alone_misses():
    """Digits from fonts to handwriting, the source's images gone: known to be separable, half as many errors left."""
    made = AdaptConfig(
        ShiftConfig("digits", ("printed",), "scanned"),
        MethodConfig(("shot",)),
        BackboneConfig("glyphnet"),
        StepsConfig(device="cpu"),
    )
    result = adapt(made).result
    before, after = (1 - result[part]["object"]["accuracy"] for part in ("source_only", "target"))
    assert after < before / 2
