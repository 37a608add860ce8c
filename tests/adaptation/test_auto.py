from dataclasses import replace

import numpy as np
import pytest
import torch
from model_states import changed_names, copy_state

from transfer.adaptation import auto as module
from transfer.adaptation.adapt import adapt, read_domains
from transfer.adaptation.auto import fit_auto
from transfer.adaptation.closed_form.classifier import align_features, solve_classifier
from transfer.adaptation.selection.source_comparison import SourceComparison
from transfer.config.adapt import AdaptConfig, ShiftConfig, StepsConfig
from transfer.config.shared import BackboneConfig
from transfer.feature_cache import TrunkCache
from transfer.training.setup import Images


@pytest.fixture
def decide(monkeypatch):
    """Return a function that has every comparison with source_only favour the adapted predictions, or not."""

    def decide(adapted):
        verdict = SourceComparison(0.5 if adapted else 1.0, 9.0, 9.0)
        assert verdict.convincing == adapted
        monkeypatch.setattr(module, "compare_with_source", lambda *_: verdict)

    return decide


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
@pytest.mark.parametrize("adapted", [True, False])
def test_heads_reproduce_the_evidence(staged, decide, policy, adapted):
    decide(adapted)
    stage, phase, steps = staged(policy=policy)
    heads, evidence, notes, accuracy = fit_auto(stage, phase, steps, 0, 16)
    with torch.inference_mode():
        said = heads(stage.pooled(stage.domains.unlabelled))["object"].numpy()
    assert np.allclose(said, evidence.target_logits, atol=1e-2 * np.abs(said).max())
    assert evidence.finite
    (note,) = notes
    assert note.startswith("auto: ")
    assert ("source_only's classifier stays" in note) == (not adapted)
    assert 0 <= accuracy <= 1


def test_the_accuracy_is_estimated_by_the_agreement_with_the_networks(staged, monkeypatch, decide):
    decide(True)
    stage, phase, steps = staged()
    networks = module._train_networks(stage, align_features(stage, "standardise"), phase, steps, 0, 16)
    networks[:3] = np.roll(networks[:3], 1, axis=1)  # of whom three change their minds
    monkeypatch.setattr(module, "_train_networks", lambda *given: networks)
    _, evidence, _, accuracy = fit_auto(stage, phase, steps, 0, 16)
    pairs = zip(networks.tolist(), evidence.target_logits.tolist(), strict=True)
    same = [a.index(max(a)) == b.index(max(b)) for a, b in pairs]
    assert accuracy == pytest.approx(sum(same) / len(same))
    assert accuracy < 1


@pytest.mark.parametrize("labels", [0, 2])
def test_without_evidence_the_predictions_are_those_of_source_only(staged, decide, labels):
    decide(False)
    stage, phase, steps = staged(target_labels=labels)
    evidence = fit_auto(stage, phase, steps, 0, 16)[1]
    features = align_features(stage, "none")
    assert np.array_equal(
        evidence.target_logits, features.evidence(stage, solve_classifier(stage, features)).target_logits
    )


def test_without_evidence_the_backbone_stays(staged, decide):
    decide(False)
    stage, phase, steps = staged(policy="partial:1")
    before = copy_state(stage.model.backbone)
    fit_auto(stage, phase, steps, 0, 16)
    assert not changed_names(before, stage.model.backbone.state_dict())


def test_the_tail_is_trained_where_adapting_helps(staged, decide):
    decide(True)
    stage, phase, steps = staged(policy="partial:1")
    before = copy_state(stage.model.backbone)
    fit_auto(stage, phase, steps, 0, 16)
    assert changed_names(before, stage.model.backbone.state_dict())


def test_the_seed_decides(staged, decide):
    decide(True)
    ends = []
    for seed in (0, 0, 1):
        stage, phase, steps = staged()
        ends.append(fit_auto(stage, phase, steps, seed, 16)[1].target_logits)
    assert np.array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[0], ends[2])


def test_labels_of_the_target_reach_what_is_refined(staged, monkeypatch, decide):
    decide(True)
    calls = []

    def recorded(features, experts, *, known):
        calls.append((features, known))
        return combine_experts(features, experts, known=known)

    combine_experts = module.combine_experts
    monkeypatch.setattr(module, "combine_experts", recorded)
    stage, phase, steps = staged(policy="partial:1", target_labels=2)
    fit_auto(stage, phase, steps, 0, 16)
    domains = stage.domains
    assert len(calls) == 2  # on frozen features, and on both kinds
    for features, known in calls:
        assert len(features) == len(known) == len(domains.unlabelled) + len(domains.labelled)
        assert (known[: len(domains.unlabelled)] == -1).all()
        assert np.array_equal(known[len(domains.unlabelled) :], stage.labels.numpy()[domains.labelled])


@pytest.fixture(scope="module")
def digits():
    """Return the embedded set, and a function that adapts printed to scanned digits of `rows`."""
    shift, backbone = ShiftConfig("digits", ("printed",), "scanned"), BackboneConfig("glyphnet")
    config = AdaptConfig(shift, backbone=backbone, steps=StepsConfig(device="cpu"))
    images = read_domains(config.shift, TrunkCache(config.cache))

    def run(rows=None, table=images.table):
        rows = np.arange(len(table)) if rows is None else rows
        result = adapt(config, images=Images(table.take(rows), images.inspection.take(rows))).result
        return *(result[part]["object"]["accuracy"] for part in ("source_only", "target")), result["notes"]

    return images.table, run


def test_it_gains_where_the_shift_is_large(digits):
    _, run = digits
    before, after, notes = run()
    assert after > before + 0.15
    assert [note for note in notes if "refined on its geometry" in note]


def test_it_changes_nothing_where_there_is_no_shift(digits):
    """Half of the printed digits, with the rest as their source."""
    table, run = digits
    printed = np.flatnonzero(table.domain == table.domains.index("printed"))
    half = np.random.default_rng(0).permutation(printed)[: len(printed) // 2]
    domain = table.domain.copy()
    domain[half] = table.domains.index("scanned")
    targets = table.targets | {"domain": replace(table.targets["domain"], values=domain)}
    before, after, notes = run(printed, replace(table, targets=targets))
    assert after == before > 0.95
    assert [note for note in notes if "source_only's classifier stays" in note]


def test_it_gains_where_class_shares_differ(digits):
    """All scanned images of five digits, of the others a tenth: to balance classes would lose."""
    table, run = digits
    scanned = table.domain == table.domains.index("scanned")
    keep = np.ones(len(table), bool)
    for k in (0, 1, 5, 8, 9):
        keep[np.flatnonzero(scanned & (table.object == k))[9:]] = False
    before, after, notes = run(np.flatnonzero(keep))
    assert after > before + 0.1
    assert [note for note in notes if "class shares differ strongly" in note]
