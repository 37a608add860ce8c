import numpy as np
import pytest
import torch

from transfer.adapt import auto as module
from transfer.adapt.auto import auto
from transfer.adapt.solve import aligned, solve


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
@pytest.mark.parametrize("near", [0.0, 1.1])
def test_heads_answer_as_the_evidence_says(staged, monkeypatch, policy, near):
    """Whether the shift is found to be small (always, never) or not."""
    monkeypatch.setattr(module, "NEAR", near)
    stage, phase, steps = staged(policy=policy)
    heads, evidence, notes = auto(stage, phase, steps, 0, 16)
    with torch.inference_mode():
        said = heads(stage.pooled(stage.pair.unlabelled))["object"].numpy()
    assert np.allclose(said, evidence.target_logits, atol=1e-2 * np.abs(said).max())
    assert evidence.finite
    (note,) = notes
    assert note.startswith("auto: ")
    assert ("small shift" in note) == (near == 0.0)


@pytest.mark.parametrize("labels", [0, 2])
def test_a_small_shift_is_answered_as_source_only_answers(staged, monkeypatch, labels):
    monkeypatch.setattr(module, "NEAR", 0.0)
    stage, phase, steps = staged(target_labels=labels)
    _, evidence, _ = auto(stage, phase, steps, 0, 16)
    features = aligned(stage, "none")
    assert np.array_equal(evidence.target_logits, features.evidence(stage, solve(stage, features)).target_logits)


def test_a_small_shift_leaves_the_backbone_alone(staged, monkeypatch):
    monkeypatch.setattr(module, "NEAR", 0.0)
    stage, phase, steps = staged(policy="partial:1")
    before = {name: tensor.clone() for name, tensor in stage.model.backbone.state_dict().items()}
    auto(stage, phase, steps, 0, 16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in stage.model.backbone.state_dict().items())


def test_the_tail_learns_where_the_shift_is_large(staged, monkeypatch):
    monkeypatch.setattr(module, "NEAR", 1.1)
    stage, phase, steps = staged(policy="partial:1")
    before = {name: tensor.clone() for name, tensor in stage.model.backbone.state_dict().items()}
    auto(stage, phase, steps, 0, 16)
    assert not all(torch.equal(tensor, before[name]) for name, tensor in stage.model.backbone.state_dict().items())


def test_the_seed_decides(staged, monkeypatch):
    monkeypatch.setattr(module, "NEAR", 1.1)
    ends = []
    for seed in (0, 0, 1):
        stage, phase, steps = staged()
        ends.append(auto(stage, phase, steps, seed, 16)[1].target_logits)
    assert np.array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[0], ends[2])


def test_labels_of_the_target_reach_what_is_refined(staged, monkeypatch):
    monkeypatch.setattr(module, "NEAR", 1.1)
    asked = []

    def watched(features, experts, *, known):
        asked.append((features, known))
        return combine(features, experts, known=known)

    combine = module.combine
    monkeypatch.setattr(module, "combine", watched)
    stage, phase, steps = staged(policy="partial:1", target_labels=2)
    auto(stage, phase, steps, 0, 16)
    pair = stage.pair
    assert len(asked) == 2  # on frozen features, and on both kinds
    for features, known in asked:
        assert len(features) == len(known) == len(pair.unlabelled) + len(pair.labelled)
        assert (known[: len(pair.unlabelled)] == -1).all()
        assert np.array_equal(known[len(pair.unlabelled) :], stage.labels.numpy()[pair.labelled])
