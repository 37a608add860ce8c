import json
import math
from dataclasses import fields

import numpy as np
import pytest
import torch

from transfer.adaptation.method_run import fit_method
from transfer.adaptation.selection.best_candidate import BestCandidate, format_candidate, hidden_widths
from transfer.adaptation.selection.validators import VALIDATORS
from transfer.errors import TransferError
from transfer.runs.packing import pack, unpack

IM = VALIDATORS["im"].score


def test_the_first_of_equal_scores_is_best_and_nan_is_last(staged):
    stage, phase, steps = staged(epochs=3)
    scores, lines = iter([math.nan, 0.5, 0.5]), []
    choice = BestCandidate(stage, lambda _: next(scores), lines.append)
    fit_method("mcc", choice, phase, steps, bottleneck=16)
    assert choice.candidate.name == "mcc, epoch 2"
    assert [line["score"] for line in lines] == [-math.inf, 0.5, 0.5]


def test_without_candidates_there_is_an_error(staged):
    stage, *_ = staged()
    with pytest.raises(TransferError, match="try a lower --lr"):
        BestCandidate(stage, IM, lambda line: None).candidate  # noqa: B018


@pytest.mark.parametrize("name", ["coral", "mcc"])
@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
def test_a_saved_best_candidate_is_restored(staged, name, policy):
    stage, phase, steps = staged(policy=policy)
    told, again = [], []
    one, other = (BestCandidate(stage, IM, lines.append) for lines in (told, again))
    fit_method(name, one, phase, steps, bottleneck=16)
    tensors, record = pack(one.state())
    other.restore(unpack(tensors, json.loads(json.dumps(record))))
    assert again == told == other.lines
    assert (other.value, other.scores, other.notes) == (one.value, one.scores, one.notes)
    assert (other.candidate.name, other.candidate.line) == (one.candidate.name, one.candidate.line)
    assert other.test_classes.keys() == one.test_classes.keys()
    assert all(np.array_equal(other.test_classes[name], classes) for name, classes in one.test_classes.items())
    assert other.backbone.keys() == one.backbone.keys()
    assert all(torch.equal(other.backbone[name], tensor) for name, tensor in one.backbone.items())
    assert bool(one.backbone) == (policy == "partial:1")
    for field in fields(one.candidate.evidence):
        mine, its = (getattr(some.candidate.evidence, field.name) for some in (one, other))
        assert (its.dtype, its.strides) == (mine.dtype, mine.strides)
        assert np.array_equal(its, mine)
    assert (
        hidden_widths(other.candidate.heads) == hidden_widths(one.candidate.heads) == ((16,) if name == "mcc" else ())
    )
    x = torch.randn(5, stage.model.backbone.width)
    with torch.inference_mode():
        assert torch.equal(other.candidate.heads(x)["object"], one.candidate.heads(x)["object"])


def test_a_best_candidate_without_candidates_is_restored(staged):
    stage, *_ = staged()
    choice = BestCandidate(stage, IM, lambda line: None)
    choice.restore(unpack(*pack(BestCandidate(stage, IM, lambda line: None, notes=["diverged"]).state())))
    assert (choice.best, choice.value, choice.notes) == (None, -math.inf, ["diverged"])


def test_the_log_line_of_a_candidate():
    line = {"candidate": "mcc, epoch 1", "score": 0.25}
    assert format_candidate(line).split("  ")[-1] == "score 0.2500"
    assert format_candidate(line | {"loss": 1.5, "seconds": 2}).endswith("loss 1.5000  score 0.2500  2.0 s")
