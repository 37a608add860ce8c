import math

import numpy as np
import pytest
import torch

from transfer.errors import TransferError
from transfer.heads import HeadSpec, find_head_kind

SPEC = HeadSpec("large", "binary", ("no", "yes"))
KIND = find_head_kind("binary")


def test_losses_are_logistic() -> None:
    logits, target = [0.3, -2.0, 1.5], [1, 0, 0]
    found = KIND.losses(SPEC, torch.tensor(logits), torch.tensor(target), smoothing=0.1, loss="cross_entropy")
    for z, y, loss in zip(logits, target, found.tolist(), strict=True):
        assert loss == pytest.approx(math.log1p(math.exp(-z if y else z)), rel=1e-5)


def test_one_logit_gives_the_probabilities_of_both_classes() -> None:
    assert KIND.outputs(SPEC) == 1
    p = KIND.predictions(SPEC, KIND.shaped(torch.tensor([[0.0], [2.0]])))
    assert p.tolist() == [0.5, pytest.approx(1 / (1 + math.exp(-2)))]
    assert np.allclose(KIND.class_probabilities(np.array([0.2])), [[0.8, 0.2]])
    assert KIND.decide(np.array([0.2, 0.9])).tolist() == [0, 1]


def test_a_column_needs_two_values() -> None:
    target = KIND.read_column("large", ["Yes", "", "no"], str)
    assert (target.values.tolist(), target.classes, target.kind) == ([1, -1, 0], ("no", "yes"), "binary")
    with pytest.raises(TransferError, match="'large' is not binary: it has 3 different values"):
        KIND.read_column("large", ["a", "b", "c"], str)
