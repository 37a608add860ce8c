import numpy as np
import pytest
import torch
from model_states import changed_names, copy_state
from torch import nn

from transfer.adaptation.adapt import adapt
from transfer.adaptation.closed_form.adabn import (
    EVALUATION_BATCH,
    recompute_statistics,
    solve_adabn,
    with_moving_statistics,
)
from transfer.errors import TransferError


def norms(stage, *, tail):
    backbone = stage.model.backbone
    return {
        name: module
        for name, module in backbone.network.named_modules()
        if isinstance(module, nn.BatchNorm2d) and (backbone.stage_of(name) >= stage.model.cut) == tail
    }


def test_statistics_are_those_of_the_rows(staged):
    stage, phase, _ = staged(policy="full", method=("adabn",))
    stage.model.freeze(with_moving_statistics(phase))
    first = next(module for module in stage.model.backbone.network.modules() if isinstance(module, nn.BatchNorm2d))
    seen = []
    hook = first.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().double()))
    rows, momentum = stage.domains.unlabelled, first.momentum
    recompute_statistics(stage, list(norms(stage, tail=True).values()), rows)
    hook.remove()
    x = torch.cat(seen).movedim(1, 0).flatten(1)
    assert len(rows) <= EVALUATION_BATCH, "one batch: no mean over several"
    assert torch.allclose(first.running_mean, x.mean(1).float(), atol=1e-4)
    assert torch.allclose(first.running_var, x.var(1).float(), rtol=1e-3)
    assert first.momentum == momentum
    assert not first.training


def test_a_last_batch_of_one_image_is_left_out(staged, monkeypatch):
    monkeypatch.setattr("transfer.adaptation.closed_form.adabn.EVALUATION_BATCH", 6)
    stage, phase, _ = staged(policy="partial:1", method=("adabn",))
    stage.model.freeze(with_moving_statistics(phase))
    sizes, batches = [], stage.batches

    def watch(order, *args):
        sizes.append(len(order))
        return batches(order, *args)

    monkeypatch.setattr(stage, "batches", watch)
    for count in (12, 13):
        recompute_statistics(stage, list(norms(stage, tail=True).values()), np.arange(count))
    assert sizes == [12, 12]


def test_only_statistics_of_the_tail_move(staged):
    stage, phase, _ = staged(policy="partial:1", method=("adabn",))
    network = stage.model.backbone.network
    before = copy_state(network)
    heads, evidence, notes, accuracy = solve_adabn(stage, phase)
    assert notes == []
    assert 0 <= accuracy <= 1
    moved = changed_names(before, network.state_dict())
    tail = norms(stage, tail=True)
    assert tail
    assert norms(stage, tail=False)
    may = {f"{name}.{what}" for name in tail for what in ("running_mean", "running_var", "num_batches_tracked")}
    assert {f"{name}.running_mean" for name in tail} <= moved <= may
    # the backbone is left as it belongs to the heads
    with torch.inference_mode():
        said = heads(stage.pooled(stage.domains.unlabelled))["object"].numpy()
    assert np.allclose(said, evidence.target_logits, atol=1e-3 * np.abs(said).max())


def test_each_domain_uses_its_own_statistics(staged, three):
    stage, phase, _ = staged(three, source=("plain", "dim"), policy="partial:1", method=("adabn",), rule="source_val")
    evidence = solve_adabn(stage, phase)[1]
    domains, layers = stage.domains, list(norms(stage, tail=True).values())
    stage.model.freeze(with_moving_statistics(phase))
    for name in domains.sources:
        own = domains.table.domain[domains.train] == domains.table.domains.index(name)
        recompute_statistics(stage, layers, domains.train[own])
        assert np.allclose(evidence.source_features[own], stage.pooled(domains.train[own]).numpy(), atol=1e-3)


def test_a_single_target_image_has_no_statistics(staged, tiny):
    one = np.flatnonzero((tiny.table.domain == 0) | (np.arange(48) == 47))
    given = type(tiny)(tiny.table.take(one), tiny.inspection.take(one))
    stage, phase, _ = staged(given, policy="partial:1", method=("adabn",))
    with pytest.raises(TransferError, match="adabn takes statistics of each domain: striped has fewer"):
        solve_adabn(stage, phase)


def test_a_tail_without_batchnorm_is_refused(staged):
    stage, phase, _ = staged(method=("adabn",))
    with pytest.raises(TransferError, match=r"adabn moves the statistics .* say --policy partial:2 or full"):
        solve_adabn(stage, phase)


def test_other_methods_do_not_notice_it(config):
    """Statistics move for adabn alone, whatever else is tried in the same run."""
    alone = adapt(config(policy="partial:1", method=("mcc",), rule="im"))
    beside = adapt(config(policy="partial:1", method=("mcc", "adabn"), rule="im"))
    assert beside.result["policy"]["frozen_unchanged"]
    scores = beside.result["selection"]["candidates"]
    assert {name: scores[name] for name in scores if name != "adabn"} == alone.result["selection"]["candidates"]
