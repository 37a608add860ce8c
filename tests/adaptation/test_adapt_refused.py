"""What `adapt` refuses, and what it does when a run diverges."""

import math
from dataclasses import replace

import pytest

from transfer.adaptation.adapt import adapt
from transfer.adaptation.losses.mcc import MCC
from transfer.adaptation.registry import METHODS
from transfer.errors import TransferError


def test_one_method_that_diverges_leaves_the_others(config, tiny, monkeypatch):
    broken = replace(METHODS["mcc"], losses=lambda w, k, c: [(math.nan, MCC())])
    monkeypatch.setitem(METHODS, "mcc", broken)
    result = adapt(config(method=("mcc", "standardise")), images=tiny).result
    assert result["selection"]["chosen"] == "standardise"
    assert list(result["selection"]["methods"]) == ["standardise"]
    assert [note for note in result["notes"] if note.startswith("mcc: the loss became NaN")]
    with pytest.raises(TransferError, match="the loss became NaN or infinite before the first epoch ended"):
        adapt(config(method=("mcc",)), images=tiny)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"method": ("target_only",)}, "target_only learns from target labels.*use --target-labels 3"),
        ({"method": ("auto", "coral"), "weight": (0.5,)}, "--weight: auto, coral minimises no loss"),
        ({"policy": "partial:99"}, "partial:99"),
        ({"policy": "truncate:99"}, "of which 4 at most can be dropped"),
        ({"policy": "stage_probes"}, "chosen by the labels of one domain"),
        ({"policy": "head2toe:10"}, "chosen by the labels of one domain need not matter in the other.*truncate:1"),
        ({"policy": "truncate:1+lp_ft"}, "truncate:1[+]lp_ft: adaptation takes one phase"),
        ({"backbone": "nosuch"}, "nosuch"),
        ({"rule": "source_val", "val": 0.0}, "use --val 0.1"),
        ({"rule": "source_val", "val": 0.0, "seeds": (0, 1)}, "use --val 0.1"),
        ({"method": ("mcc", "adabn")}, "adabn moves the statistics of BatchNorm layers"),
    ],
)
def test_what_cannot_be_is_refused_before_a_folder_is_made(config, tiny, tmp_path, settings, says):
    with pytest.raises(TransferError, match=says):
        adapt(config(out=tmp_path / "run", **settings), images=tiny)
    assert not (tmp_path / "run").exists()
    adapt(config(out=tmp_path / "run"), images=tiny)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(TransferError, match=says):
        adapt(config(out=tmp_path / "run", overwrite=True, **settings), images=tiny)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_adabn_without_a_tail_is_refused(config, tiny):
    with pytest.raises(TransferError, match="say --policy partial:2 or full"):
        adapt(config(method=("adabn",)), images=tiny)


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
@pytest.mark.parametrize("method", ["mcc", "bsp", "shot", "auto", "coral"])
def test_a_rate_that_is_far_too_high(config, tiny, method, policy):
    made = config(method=(method,), policy=policy, lr=1e9, clip=0.0)
    if method == "coral" and policy == "linear_probe":  # nothing is trained
        model = adapt(made, images=tiny).models[""]
        assert all(bool(p.isfinite().all()) for p in model.parameters())
        return
    with pytest.raises(TransferError, match="try a lower --lr"):
        adapt(made, images=tiny)


def test_epochs_before_the_loss_broke_may_be_taken(config, tiny, monkeypatch):
    from transfer.adaptation.losses.mcc import MCC

    forward = MCC.forward
    monkeypatch.setattr(MCC, "forward", lambda self, batch: forward(self, batch) / (batch.progress < 0.7))
    run = adapt(config(method=("mcc",), epochs=3, policy="partial:1"), images=tiny)
    assert set(run.result["selection"]["candidates"]) == {"mcc, epoch 1", "mcc, epoch 2"}
    assert "mcc: the loss became NaN or infinite: try a lower --lr" in run.result["notes"]
    assert all(bool(p.isfinite().all()) for p in run.models[""].parameters())


def test_invalid_options_are_refused(config, tiny):
    for how, words in [
        ({"method": ("mc",)}, "unknown method 'mc'"),
        ({"rule": "oracle"}, "no such rule"),
        ({"policy": "gradual"}, "one phase"),
        ({"policy": "scratch"}, "one phase"),
        ({"rule": "source_val", "val": 0.0}, "use --val 0.1"),
        ({"source": ("striped",)}, "is a source too"),
        ({"source": ()}, "--source is missing"),
    ]:
        with pytest.raises(TransferError, match=words):
            adapt(config(**how), images=tiny)
