import numpy as np
import pytest

from transfer.adaptation.adapt import adapt


def test_several_seeds_are_one_result(config, tiny, tmp_path):
    out = tmp_path / "run"
    run = adapt(config(method=("mcc",), seeds=(0, 3), out=out), images=tiny)
    result = run.result
    each = [one["target"]["object"]["accuracy"] for one in result["seeds"]]
    assert [one["seed"] for one in result["seeds"]] == [0, 3]
    assert result["target"]["object"]["accuracy"] == pytest.approx(np.mean(each))
    assert result["sd"]["target"]["object"]["accuracy"] == pytest.approx(np.std(each, ddof=1))
    assert "accuracy" in result["sd"]["source_only"]["object"]
    assert len(result["selection"]["chosen"]) == 2
    assert result["selection"]["oracle_accuracy"] == pytest.approx(
        np.mean([one["selection"]["oracle_accuracy"] for one in result["seeds"]])
    )
    alone = adapt(config(method=("mcc",), seed=3, out=tmp_path / "alone"), images=tiny)
    assert each[1] == alone.result["target"]["object"]["accuracy"]
    model = "model.safetensors"
    assert (out / "seed3" / model).read_bytes() == (tmp_path / "alone" / model).read_bytes()
    assert (out / model).read_bytes() == (out / "seed0" / model).read_bytes()
    assert len(run.tests) == 2
