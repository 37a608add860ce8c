import numpy as np
import pytest

from transfer.advice.evidence import MAX_PROBE_IMAGES, AdviceEvidence, TransferabilityScores
from transfer.advice.similarity import Similarity
from transfer.advice.transferability.crossval import CrossValidation
from transfer.advice.transferability.noise import LabelNoise
from transfer.advice.transferability.size import SetSize


@pytest.fixture
def evidence():
    """Return a function that makes evidence of `images`, with probes of given accuracies and different errors."""

    def make(images=100, each=10.0, kind="similar", accuracy=None, **changes):
        accuracy = accuracy or {"linear_probe": 0.9, "truncate:1": 0.8, "head2toe": 0.9}
        accuracy = {"stage_probes": accuracy["linear_probe"]} | accuracy
        accuracy["stage_probes"] = accuracy.pop("stage_probes")  # the last, as the mean of the others
        sampled = min(images, MAX_PROBE_IMAGES)
        labels = np.arange(sampled) % 2
        probes = {}
        for number, (policy, share) in enumerate(accuracy.items()):
            wrong = np.roll(np.arange(sampled) >= round(share * sampled), number * sampled // 7)
            predictions = np.where(wrong, 1 - labels, labels)
            p = np.full((sampled, 2), 0.5)
            probes[policy] = CrossValidation(
                predictions, p, labels, share, (share - 0.01, share + 0.01), 3 * (1 - share), 0.01
            )
        facts = {
            "images": images,
            "labelled": images,
            "classes": 2,
            "fewest": 5,
            "median": each,
            "most": 10,
            "imbalance": 2.0,
            "effective_classes": 2.0,
            "copies": 0,
            "near_copies": 0,
            "distinct": images,
            "small_classes": (),
        }
        none = np.array([], np.int64)
        return AdviceEvidence(
            SetSize(**(facts | changes.pop("size", {}))),
            changes.pop(
                "similarity",
                Similarity({"similar": 0.9, "between": 0.5, "different": 0.1}[kind], kind, {"top": 0.1}, 0.4),
            ),
            probes,
            {"top": 0.9},
            TransferabilityScores(0.5, 0.5, 0.5, 0.5),
            changes.pop("noise", LabelNoise(0, 0.0, none, none)),
            labels,
            (3, 5, 8, 8, 16),
            **changes,
        )

    return make
