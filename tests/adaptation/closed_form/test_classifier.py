import numpy as np
import pytest
import torch
from torch import nn

from transfer.adaptation.closed_form.alignment import ALIGNMENTS, fit_alignment
from transfer.adaptation.closed_form.classifier import (
    align_features,
    distil,
    fold_alignment,
    predict_test,
    solve_and_estimate,
    solve_classifier,
)
from transfer.adaptation.label_shift import estimate_accuracy
from transfer.adaptation.selection.evidence import CandidateEvidence


def logits(heads, x):
    with torch.inference_mode():
        return heads.eval()(x)["object"].numpy()


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_each_domain_is_mapped_by_all_of_its_rows(staged, kind):
    stage, *_ = staged(target_labels=1, rule="source_val")
    domains, features = stage.domains, align_features(stage, kind)
    source, target = np.union1d(domains.train, domains.val), np.union1d(domains.labelled, domains.unlabelled)
    maps = fit_alignment(kind, stage.pooled(source).numpy(), stage.pooled(target).numpy())
    for side, name, part in (
        (0, "train", "train"),
        (0, "val", "val"),
        (1, "labelled", "labelled"),
        (1, "unlabelled", "target"),
    ):
        wanted = maps[side](stage.pooled(getattr(domains, name)).numpy())
        # principal directions have no sign of their own
        assert np.allclose(np.abs(getattr(features, part)), np.abs(wanted), atol=2e-2 * np.abs(wanted).max())


def test_each_of_several_sources_is_mapped_by_its_own_rows(staged, three):
    stage, *_ = staged(three, source=("plain", "dim"))
    domains, features = stage.domains, align_features(stage, "standardise")
    assert len(features.maps) == 3
    rows, mapped = np.concatenate([domains.train, domains.val]), np.concatenate([features.train, features.val])
    for name in ("plain", "dim"):
        own = domains.table.domain[rows] == domains.table.domains.index(name)
        x = stage.pooled(rows[own]).numpy()
        varies = x.std(0) > 1e-3
        wanted = (x - x.mean(0))[:, varies] / x.std(0)[varies]
        assert np.allclose(mapped[own][:, varies], wanted, atol=1e-2)


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_exported_heads_answer_for_pooled_features_of_the_target(staged, kind):
    stage, *_ = staged()
    features = align_features(stage, kind)
    heads = solve_classifier(stage, features)
    wanted = logits(heads, torch.from_numpy(features.target))
    exported = fold_alignment(heads, features.maps[-1])
    said = logits(exported, stage.pooled(stage.domains.unlabelled))
    assert np.allclose(said, wanted, atol=1e-2 * np.abs(wanted).max())
    assert (said.argmax(1) == wanted.argmax(1)).all()
    assert exported.specs["object"].classes == stage.classes
    assert np.array_equal(features.evidence(stage, heads).target_logits, wanted)


def test_source_rows_are_used_and_held_out_rows_are_not(staged):
    stage, *_ = staged()
    features = align_features(stage, "standardise")
    heads = solve_classifier(stage, features)
    evidence = features.evidence(stage, heads)
    assert (logits(heads, torch.from_numpy(features.train)).argmax(1) == evidence.source_labels).mean() > 0.9
    # what must stay unseen has no part in the weights; its labels choose the strength at most
    ends = []
    for moved in (False, True):
        stage, *_ = staged(rule="source_val", val=0.3)
        features = align_features(stage, "none")
        if moved:
            features.val[:] = 0
            features.val[:, 0] = 1e6
        layer = next(layer for layer in solve_classifier(stage, features).modules() if isinstance(layer, nn.Linear))
        ends.append(layer.weight.detach().abs().max().item())
    assert ends[1] < 100 * ends[0]


def test_labelled_target_rows_are_trained_on(staged):
    stage, *_ = staged(target_labels=3)
    features = align_features(stage, "none")
    labelled = torch.from_numpy(stage.domains.labelled)
    turned = (stage.labels[labelled] + 1) % 3
    stage.labels = stage.labels.clone()
    stage.labels[labelled] = turned
    said = logits(solve_classifier(stage, features), torch.from_numpy(features.labelled)).argmax(1)
    assert (said == turned.numpy()).mean() > 0.9


def test_heads_learn_the_given_target_probabilities(staged):
    stage, *_ = staged(target_labels=1)
    features = align_features(stage, "standardise")
    told = (stage.domains.unlabelled // 8 + 1) % 3
    heads = distil(stage, features, 0.1 + 0.7 * np.eye(3)[told])
    assert (logits(heads, torch.from_numpy(features.target)).argmax(1) == told).mean() > 0.9


@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
def test_test_predictions_are_in_the_order_of_the_test_rows(staged, protocol):
    stage, *_ = staged(protocol=protocol)
    features = align_features(stage, "standardise")
    solved = solve_classifier(stage, features)
    heads, evidence = fold_alignment(solved, features.maps[-1]), features.evidence(stage, solved)
    said = predict_test(stage, heads, evidence)
    wanted = logits(heads, stage.pooled(stage.domains.test))
    assert np.allclose(said, wanted, atol=1e-3 * np.abs(wanted).max())
    assert isinstance(evidence, CandidateEvidence)
    assert len(said) == len(stage.domains.test)


@pytest.mark.parametrize("held_out", [False, True])
def test_the_accuracy_is_estimated_by_heads_that_have_not_seen_the_validation_rows(staged, held_out):
    stage, *_ = staged(val=0.3, **({"rule": "source_val"} if held_out else {}))
    features = align_features(stage, "none")
    estimate = solve_and_estimate(stage, features)[1]
    stage.hold_out = True
    unseen = features.evidence(stage, solve_classifier(stage, features))
    assert estimate == estimate_accuracy(unseen.val_logits, unseen.val_labels, unseen.target_logits)


def test_without_validation_rows_or_a_source_there_is_no_estimate(staged):
    stage, *_ = staged(val=0.0, target_labels=2)
    features = align_features(stage, "none")
    assert solve_and_estimate(stage, features)[1] is None
    stage, *_ = staged(target_labels=2)
    assert solve_and_estimate(stage, align_features(stage, "none"), source=False)[1] is None
