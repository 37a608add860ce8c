import numpy as np
import pytest
import torch

from transfer.heads import HeadSpec, find_head_kind

SPEC = HeadSpec("object", "softmax", ("a", "b", "c"))
KIND = find_head_kind("softmax")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_are_cross_entropies_with_smoothed_labels(smoothing) -> None:
    logits, target = np.random.default_rng(0).normal(size=(5, 3)), np.array([0, 2, 1, 1, 0])
    found = KIND.losses(SPEC, torch.tensor(logits), torch.tensor(target), smoothing=smoothing, loss="cross_entropy")
    for row, loss in enumerate(found.tolist()):
        p = np.exp(logits[row]) / np.exp(logits[row]).sum()
        wanted = np.full(3, smoothing / 3)
        wanted[target[row]] += 1 - smoothing
        assert loss == pytest.approx(-(wanted * np.log(p)).sum())


def test_hinge_losses_count_the_best_wrong_class() -> None:
    logits = torch.tensor([[2.0, 0.5, 1.5], [0.0, 3.0, 0.0]])
    found = KIND.losses(SPEC, logits, torch.tensor([0, 1]), smoothing=0.0, loss="hinge")
    assert found.tolist() == [pytest.approx(1 + 1.5 - 2.0), 0.0]


def test_predictions_are_probabilities_and_the_largest_is_decided() -> None:
    logits = torch.tensor([[0.0, 1.0, 0.0], [4.0, 0.0, 0.0]])
    p = KIND.predictions(SPEC, logits)
    assert torch.allclose(p.sum(1), torch.ones(2))
    assert KIND.decide(p).tolist() == [1, 0]
    assert KIND.correct_rows(logits, torch.tensor([1, 2])).tolist() == [True, False]
