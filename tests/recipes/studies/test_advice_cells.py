"""Stored cells: the same advice as when they were stored, and regret and coverage against sums by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from studies.advice_cells import average_regret, evaluate_advice, read_cells
from studies.advice_fit import FineTunedMean, set_constants
from studies.four_cases_study import FourCasesConfig, run_four_cases

from transfer.errors import TransferError


@pytest.fixture(scope="module")
def stored(folder, tmp_path_factory):
    """A run of the study with a bundled network, two seeds."""
    from transfer.config.train import BackboneConfig, DataConfig, LearnConfig, RunConfig, TrainConfig

    out = tmp_path_factory.mktemp("study") / "run"
    learn = LearnConfig(device="cpu", workers=2)
    train = TrainConfig(
        data=DataConfig(), backbone=BackboneConfig("glyphnet"), learn=learn, run=RunConfig(seeds=(0, 1), out=out)
    )
    policies = ("head2toe", "stage_probes", "truncate:1", "truncate:2")
    cases = (f"{folder}@4", str(folder))
    return out, run_four_cases(FourCasesConfig(train, cases=cases, policies=policies))


def records(result, policy):
    return {(r["case"], r["seed"]): r for r in result["records"] if r["policy"] == policy}


def test_restored_evidence_gives_the_advice_that_was_stored(stored):
    out, result = stored
    advice = records(result, "auto")
    cells = read_cells([str(out)])
    assert [(cell.case, cell.seed) for cell in cells] == list(advice)
    for cell in cells:
        before = advice[cell.case, cell.seed]["advice"]["ranked"]
        found = [(c.policy, c.accuracy, c.sd) for c in cell.rate()]
        assert [name for name, *_ in found] == [c["policy"] for c in before]
        assert np.allclose([f[1:] for f in found], [(c["accuracy"], c["sd"]) for c in before], rtol=1e-12)


def test_results_equal_those_of_the_study(stored):
    out, result = stored
    found = evaluate_advice(read_cells([str(out)]))
    for one, cell in zip(found, result["cells"], strict=True):
        assert (one.case, one.advised) == (cell["case"], cell["advised"])
        assert one.accuracy == cell["accuracy"]
        assert one.regret == pytest.approx(cell["regret"])
        assert one.within == cell["within"]
        assert one.against_reference == cell["against_reference"]
        assert len(one.frozen_within) == sum(
            policy in cells.correct
            for cells in read_cells([str(out)])
            if cells.case == one.case
            for policy in (c.policy for c in cells.rate() if c.measured)
        )
        assert one.fine_tuned_within == []
    assert average_regret(found) == pytest.approx(100 * result["summary"]["regret"])


def test_constants_change_the_advice(stored):
    cell = read_cells([str(stored[0])])[0]
    before = {c.policy: c.accuracy for c in cell.rate()}
    with set_constants({f"advice.rule:FINE_TUNING_GAIN[{kind}]": 9.0 for kind in ("similar", "between", "different")}):
        changed = {c.policy: c.accuracy for c in cell.rate()}
    gains = {name: changed[name] - before[name] for name in before}
    assert all((gain > 0) is name.startswith("lp_ft") for name, gain in gains.items())


def test_a_policy_of_known_mean_gain_counts_under_every_seed(stored):
    out, result = stored
    case = result["cells"][0]["case"]
    mean = FineTunedMean("glyphnet", case, "tiny", "full", "other", "between", 24, True, 0.5, 0.75, 10, 1)
    cells = [cell for cell in read_cells([str(out)], [mean]) if cell.case == case]
    probe = records(result, "linear_probe")
    for cell in cells:
        assert cell.find_accuracy("full") == pytest.approx(probe[case, cell.seed]["accuracy"] + 0.25)
        assert cell.find_accuracy("gradual") is None
    (found,) = evaluate_advice(cells)
    best = [0.25 + probe[case, seed]["accuracy"] for seed in (0, 1)]
    assert found.regret == pytest.approx([b - a for a, b in zip(found.accuracy, best, strict=True)])


def test_an_advised_policy_without_a_run_has_no_regret(stored):
    cells = [cell for cell in read_cells([str(stored[0])]) if cell.case == stored[1]["cells"][0]["case"]]
    advised = cells[0].rate()[0].policy
    lacking = [
        replace(
            cell,
            correct={name: value for name, value in cell.correct.items() if name != advised},
            gains={name: value for name, value in cell.gains.items() if name != advised},
        )
        for cell in cells
    ]
    (found,) = evaluate_advice(lacking)
    assert found.accuracy[0] is None
    assert found.against_reference is None
    assert len(found.regret) == len([value for value in found.accuracy if value is not None])


def test_what_is_no_run_of_the_study_is_refused(stored, tmp_path):
    with pytest.raises(TransferError, match="holds no run of the four-cases study"):
        read_cells([str(tmp_path)])
    lines = (stored[0] / "metrics.jsonl").read_text().splitlines()
    old = [json.dumps({k: v for k, v in json.loads(line).items() if k != "held_out"}) for line in lines]
    (tmp_path / "metrics.jsonl").write_text("\n".join(old) + "\n")
    with pytest.raises(TransferError, match="kept no evidence"):
        read_cells([str(tmp_path)])
