"""Co-Tuning: the original classifier's predictions stay those that belong to each new class."""

import torch
from torch import Tensor, nn

from transfer.errors import TransferError
from transfer.training.penalties.penalty import Penalty, PenaltyInputs
from transfer.training.penalties.pretrained import PretrainedCopy


class CoTuning(Penalty):
    """``strength`` times the mean cross-entropy between the original classifier's predictions on the current features
    and its mean prediction for the row's object before training (You et al. 2020, "Co-Tuning for transfer learning").

    The paper also fine-tunes that classifier, after calibrating it; here it is frozen and not calibrated. It maps
    pooled features (N, width) to logits (N, S) of the original classes; `relation` (objects, S) is the result of
    :func:`class_relation`.
    """

    def __init__(self, classifier: nn.Module, relation: Tensor, strength: float) -> None:
        self.classifier, self.relation, self.strength = classifier, relation, strength

    def __call__(self, step: PenaltyInputs) -> Tensor:
        """Return the term for a step."""
        log_p = self.classifier(step.features.float()).log_softmax(1)
        total = log_p.new_zeros(())
        for labels in step.labels:
            objects = labels.wanted["object"]
            rows = objects >= 0
            if bool(rows.any()):
                losses = -(self.relation[objects[rows]] * log_p[rows]).sum(1)
                total = total + labels.share * losses.mean()
        return self.strength * total


def find_original_classifier(pretrained: PretrainedCopy) -> nn.Module:
    """Return the original classifier, frozen; raise TransferError if the backbone has none."""
    backbone = pretrained.model.backbone
    if backbone.classifier is None:
        raise TransferError(f"--co-tuning: {backbone.name} ({backbone.weights}) has no original classifier")
    return backbone.classifier.eval().requires_grad_(False)


@torch.no_grad()
def class_relation(pretrained: PretrainedCopy, original: nn.Module, objects: int) -> Tensor:
    """Return p(original class | object), (objects, S): the mean probabilities over an object's training rows.

    The paper's direct approach (its algorithm 1). The row of an object without images is zero.
    """
    rows, features = pretrained.pooled()
    p = original(features).softmax(1)
    labels = pretrained.labels["object"][rows].to(p.device)
    by_object = [p[labels == number] for number in range(objects)]
    return torch.stack([rows.mean(0) if len(rows) else p.new_zeros(p.shape[1]) for rows in by_object])
