"""Co-Tuning: the original classifier keeps answering, as it did for each of the new classes."""

import torch
from torch import Tensor, nn

from transfer.errors import TransferError
from transfer.training.penalties.penalty import Penalty, PenaltyInputs
from transfer.training.penalties.pretrained import PretrainedCopy


class CoTuning(Penalty):
    """``strength`` times the mean cross-entropy of the original classifier's answers, on the features as they are now,
    to what it answers on the whole for a row's object (You et al. 2020, "Co-Tuning for transfer learning").

    The paper fine-tunes that classifier too, and calibrates it first; here it stays as it was.

    Parameters
    ----------
    classifier : Module
        Pooled features (N, width) to logits of the original classes (N, S).
    relation : Tensor, shape (objects, S)
        See :func:`relation`.
    """

    def __init__(self, classifier: nn.Module, relation: Tensor, strength: float) -> None:
        self.classifier, self.relation, self.strength = classifier, relation, strength

    def __call__(self, step: PenaltyInputs) -> Tensor:
        """Return the term for a step."""
        answers = self.classifier(step.features.float()).log_softmax(1)
        total = answers.new_zeros(())
        for labels in step.labels:
            objects = labels.wanted["object"]
            rows = objects >= 0
            if bool(rows.any()):
                each = -(self.relation[objects[rows]] * answers[rows]).sum(1)
                total = total + labels.share * each.mean()
        return self.strength * total


def classifier(start: PretrainedCopy) -> nn.Module:
    """Return the original classifier, frozen.

    Raises
    ------
    TransferError
        The backbone came without one.
    """
    backbone = start.model.backbone
    if backbone.classifier is None:
        raise TransferError(f"--co-tuning: {backbone.name} ({backbone.weights}) has no original classifier")
    return backbone.classifier.eval().requires_grad_(False)


@torch.no_grad()
def relation(start: PretrainedCopy, original: nn.Module, objects: int) -> Tensor:
    """Return p(original class | object), (objects, S): the mean probabilities over an object's training rows.

    The paper's direct way (its algorithm 1). A row of an object without images is zero.
    """
    rows, features = start.pooled()
    answers = original(features).softmax(1)
    wanted = start.labels["object"][rows].to(answers.device)
    each = [answers[wanted == number] for number in range(objects)]
    return torch.stack([some.mean(0) if len(some) else answers.new_zeros(answers.shape[1]) for some in each])
