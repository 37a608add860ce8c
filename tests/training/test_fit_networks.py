"""The networks of a run: their choices on validation images, and one network per head."""

import pytest
from model_states import changed_names

from transfer.errors import TransferError
from transfer.training.train import train


def test_separate_heads_are_networks_of_their_own(config):
    """Each is fitted and calibrated."""
    run = train(config(heads="separate"))
    assert set(run.models) == {"object", "domain"}
    assert set(run.result["temperatures"]) == {"object", "domain"}
    assert set(run.result["epochs"]) == set(run.models)


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
