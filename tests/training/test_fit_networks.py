"""The networks of a run: their choices on validation images, and one network per head."""

import pytest
import torch
from model_states import changed_names

from transfer.errors import TransferError
from transfer.probes.side_by_side import run_beside
from transfer.training import fit_networks
from transfer.training.train import train


def test_separate_heads_are_networks_of_their_own(config):
    """Each is fitted and calibrated."""
    run = train(config(heads="separate"))
    assert set(run.models) == {"object", "domain"}
    assert set(run.result["temperatures"]) == {"object", "domain"}
    assert set(run.result["epochs"]) == set(run.models)


def test_held_out_predictions_beside_the_refit_change_no_bit(config, tmp_path, monkeypatch):
    """The same model, uncertainty and predictions as one after the other."""
    before, besides = torch.get_num_threads(), []

    def watch(job, *, beside):
        besides.append(beside)
        return run_beside(job, beside=beside)

    torch.set_num_threads(2)
    try:
        monkeypatch.setattr(fit_networks, "run_beside", watch)
        together = train(config(policy="linear_probe", out=tmp_path / "together"))
        monkeypatch.setattr(fit_networks, "run_beside", lambda job, **_: run_beside(job, beside=False))
        apart = train(config(policy="linear_probe", out=tmp_path / "apart"))
    finally:
        torch.set_num_threads(before)
    assert besides == [True]
    assert not changed_names(together.models[""].state_dict(), apart.models[""].state_dict())
    for name in ("model.safetensors", "predictions.csv", "uncertainty.safetensors"):
        assert (tmp_path / "together" / name).read_bytes() == (tmp_path / "apart" / name).read_bytes()


def test_the_share_of_wise_ft_is_in_the_result(config, tmp_path):
    """In the result, as a note, and as the validation scores; a second run has the same bits."""
    how = {"policy": "lp_ft:1", "epochs": 4, "average": "wise_ft", "lr": 0.05}
    run = train(config(out=tmp_path / "whole", **how))
    chosen = run.result["interpolated"]["model"]["fine-tune"]
    (note,) = [note for note in run.result["notes"] if "(WiSE-FT)" in note]
    assert f"{chosen['share']:.0%}".replace("%", " %") in note
    assert run.result["validation"] == chosen["val"]
    again = train(config(**how))
    assert not changed_names(run.models[""].state_dict(), again.models[""].state_dict())
    with pytest.raises(TransferError, match="--average wise_ft chooses on validation images, and --refit trains on"):
        train(config(refit=True, **how))
