import numpy as np
import pytest
import torch
from model_states import changed_names, copy_state

from transfer.adaptation.method_run import fit_method, new_network
from transfer.adaptation.registry import METHODS
from transfer.adaptation.selection.best_candidate import BestCandidate, CandidateModel
from transfer.adaptation.selection.validators import VALIDATORS

IM = VALIDATORS["im"].score


def chosen(stage, phase, steps, name, *, score=IM, **how):
    lines = []
    choice = BestCandidate(stage, score, lines.append)
    fit_method(name, choice, phase, steps, bottleneck=16, **how)
    return choice, lines


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
@pytest.mark.parametrize("name", ["standardise", "growing", "mcc", "adda", "shot"])
def test_a_candidates_heads_answer_as_its_evidence_says(staged, name, policy):
    stage, phase, steps = staged(policy=policy, epochs=3)
    choice, lines = chosen(stage, phase, steps, name)
    method = METHODS[name]
    epochs = 3 - max(round(3 * method.warmup), method.warmup > 0) if method.losses else 1
    assert len(lines) == len(choice.scores) == len(choice.test_classes) == epochs
    if choice.backbone:
        stage.model.backbone.load_state_dict(choice.backbone, strict=False)
    with torch.inference_mode():
        said = choice.candidate.heads.eval()(stage.pooled(stage.domains.unlabelled))["object"].numpy()
    assert np.allclose(said, choice.candidate.evidence.target_logits, atol=1e-2 * np.abs(said).max())
    assert (choice.test_classes[choice.candidate.name] == said.argmax(1)).mean() > 0.95
    assert choice.scores[choice.candidate.name] == max(choice.scores.values())
    assert bool(choice.backbone) == (policy != "linear_probe")


def test_the_backbone_kept_is_the_taken_epochs(staged):
    stage, phase, steps = staged(policy="partial:1", epochs=3)
    kept, scores = [], iter([1.0, 3.0, 2.0])

    def score(_):
        kept.append(copy_state(stage.model.backbone))
        return next(scores)

    choice, _ = chosen(stage, phase, steps, "mcc", score=score)
    assert choice.candidate.name == "mcc, epoch 2"
    same = [not changed_names(choice.backbone, state) for state in kept]
    assert same == [False, True, False]


def test_weights_are_tried_each_from_the_start(staged):
    stage, phase, steps = staged(policy="partial:1")
    both, _ = chosen(stage, phase, steps, "mcc", weights=(0.5, 2.0))
    alone, _ = chosen(stage, phase, steps, "mcc", weights=(2.0,))
    assert set(both.scores) == {f"mcc x {w}, epoch {e}" for w in ("0.5", "2") for e in (1, 2)}
    for epoch in (1, 2):
        assert both.scores[f"mcc x 2, epoch {epoch}"] == alone.scores[f"mcc, epoch {epoch}"]
    assert both.scores["mcc x 0.5, epoch 2"] != both.scores["mcc x 2, epoch 2"]


def test_no_weight_of_a_diverged_run_is_kept(staged):
    stage, phase, steps = staged(lr=1e9, clip=0.0)
    choice, lines = chosen(stage, phase, steps, "mcc")
    assert choice.best is None
    assert lines == []
    assert choice.notes == ["mcc: the loss became NaN or infinite: try a lower --lr"]


@pytest.mark.parametrize(("name", "policy"), [("auto", "linear_probe"), ("coral", "partial:1")])
def test_what_has_no_epochs_of_its_own_may_diverge_too(staged, name, policy):
    stage, phase, steps = staged(policy=policy, lr=1e9, clip=0.0)
    choice, _ = chosen(stage, phase, steps, name)
    assert choice.best is None
    assert choice.notes == [f"{name}: the loss became NaN or infinite: try a lower --lr"]


def test_the_source_is_learnt_before_it_is_left_however_few_the_epochs(staged):
    """One epoch of a source-free method is one of the source's labels and one without."""
    stage, phase, steps = staged(epochs=1, steps=40)
    choice, (line,) = chosen(stage, phase, steps, "shot")
    assert line["candidate"] == "shot, epoch 2"
    evidence = choice.candidate.evidence
    network_says = np.linalg.lstsq(evidence.target_features, evidence.target_logits, rcond=None)[0]
    assert ((evidence.source_features @ network_says).argmax(1) == evidence.source_labels).mean() > 0.9


@pytest.mark.parametrize("kind", ["none", "standardise", "coral", "subspace"])
def test_a_network_is_scaled_by_both_domains(staged, kind):
    stage, *_ = staged()
    network = new_network(stage, kind, 16)
    rows = torch.arange(48)
    target = stage.target[rows]
    scaled = network.scale_features(stage.pooled(rows.numpy()), target)
    assert scaled.shape == (48, network.scalings[0].size)
    if kind == "standardise":
        for side in (target, ~target):
            assert torch.allclose(scaled[side].mean(0), torch.zeros(scaled.shape[1]), atol=1e-3)
    assert isinstance(CandidateModel("a", None, network.heads()).line, dict)


def test_target_labels_alone_ignore_the_source(staged):
    said = []
    for turned in (False, True):
        stage, phase, steps = staged(target_labels=2)
        stage.labels = stage.labels.clone()
        if turned:
            stage.labels[torch.from_numpy(stage.source)] = 0
        choice = BestCandidate(stage, lambda evidence: 0.0, lambda line: None)
        fit_method("target_only", choice, phase, steps)
        said.append(choice.candidate.evidence.target_logits)
    assert np.array_equal(*said)


def test_a_lack_of_memory_is_noted(staged, scarce, monkeypatch):
    scarce(monkeypatch, 3)
    stage, phase, steps = staged(policy="partial:1", batch_size=8)
    choice, lines = chosen(stage, phase, steps, "mcc")
    assert len(lines) == 2
    (note,) = choice.notes
    assert note == "mcc: out of memory: steps process the tail in 4 parts, the tail's activations recomputed"
    again, _ = chosen(stage, phase, steps, "source_only")
    assert [said.partition(":")[0] for said in again.notes] == ["source_only"]  # each method its own
