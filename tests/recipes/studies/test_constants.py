from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from commands import run_script
from studies.constants import CONSTANTS, SensitivityConfig, read_value, run_sensitivity, sensitivity_text, set_constant

from transfer.adaptation import auto
from transfer.adaptation.adapt import adapt
from transfer.adaptation.losses.mcc import MCC
from transfer.adaptation.refinement.product_of_experts import combine_experts
from transfer.adaptation.selection import source_comparison

FAST = ("EXPERT", "NEAR", "combine_experts(neighbours)")


@pytest.fixture
def config(adapt_config):
    return SensitivityConfig(adapt_config(), cases=("equal",), pairs=("plain:striped",), constants=FAST)


@pytest.mark.parametrize("constant", CONSTANTS, ids=lambda constant: constant.name)
def test_every_constant_is_where_the_list_says_and_comes_back(constant):
    before = read_value(constant.place)
    assert before > 0
    with set_constant(constant.place, 2 * before):
        assert read_value(constant.place) == 2 * before
    assert read_value(constant.place) == before


def test_no_constant_is_listed_twice():
    assert len({constant.name for constant in CONSTANTS}) == len(CONSTANTS)


def test_what_uses_a_constant_sees_its_other_value():
    with set_constant("adaptation.losses.mcc:MCC.__init__(temperature)", 7.0):
        assert MCC().temperature == 7.0
    assert MCC().temperature == 2.5
    with set_constant("adaptation.auto:UNBALANCED[rounds]", 9):
        assert auto.UNBALANCED["rounds"] == 9
    with set_constant("adaptation.selection.source_comparison:NEAR", 0.5):
        assert not source_comparison.SourceComparison(0.6, 9.0, 9.0).convincing
    rng = np.random.default_rng(0)
    rows, logits = rng.normal(size=(30, 4)), rng.normal(size=(30, 3))
    expected = combine_experts(rows, [(1.0, logits)], neighbours=2)
    with set_constant("adaptation.refinement.product_of_experts:combine_experts(neighbours)", 2):
        found = combine_experts(rows, [(1.0, logits)])
    assert np.array_equal(found, expected)
    assert not np.array_equal(combine_experts(rows, [(1.0, logits)]), expected)


def test_the_change_is_that_of_two_whole_runs(config, tiny, monkeypatch):
    """Reused results change nothing; `auto` is made to adapt, and values are extreme, as the images are easy."""
    monkeypatch.setattr(source_comparison.SourceComparison, "convincing", True)
    monkeypatch.setattr("studies.constants.read_domains", lambda *_: tiny)
    values = {0.25: (-1.0, 5.0), 2.5: (0.01, 50.0)}  # of EXPERT and of the temperature
    monkeypatch.setattr("studies.constants.vary", lambda value, unit: values[value])
    rows = run_sensitivity(replace(config, constants=("EXPERT", "MCC.__init__(temperature)")))
    assert [row["constant"] for row in rows] == ["MCC.__init__(temperature)", "EXPERT"]  # as in the list of constants
    assert rows[1]["half"] < 0
    base = replace(config.adapt, method=replace(config.adapt.method, method=("auto",)))

    def accuracy():
        return 100 * adapt(base, images=tiny).result["target"]["object"]["accuracy"]

    before = accuracy()
    places = ("adaptation.losses.mcc:MCC.__init__(temperature)", "adaptation.auto:EXPERT")
    for row, place, pair in zip(rows, places, (values[2.5], values[0.25]), strict=True):
        assert row["accuracy"] == pytest.approx(before)
        for name, value in zip(("half", "double"), pair, strict=True):
            with set_constant(place, value):
                assert row[name] == pytest.approx(accuracy() - before)


def test_networks_are_trained_again_only_where_the_constant_changes_them(config, tiny, monkeypatch):
    trained, train = [], auto._train_networks
    monkeypatch.setattr(auto, "_train_networks", lambda *args: trained.append(auto.NETWORKS) or train(*args))
    monkeypatch.setattr("studies.constants.read_domains", lambda *_: tiny)
    run_sensitivity(config)
    assert trained == [3]
    run_sensitivity(replace(config, constants=("NETWORKS", *FAST)))
    assert trained == [3, 3, 2, 6]


def test_the_table_has_mean_least_and_most():
    rows = [
        {"case": "equal", "pair": "a -> b", "seed": seed, "constant": "NEAR", "half": half, "double": double}
        for seed, (half, double) in enumerate([(-1.0, 0.0), (2.0, -0.5), (0.5, 0.5)])
    ]
    last = sensitivity_text(rows).splitlines()[-1]
    means = fmean([-1.0, 2.0, 0.5]), fmean([0.0, -0.5, 0.5])
    assert last.split()[:3] == ["NEAR", "0.9", "share"]
    assert "0.45, 0.95" in last
    assert last.split("  ")[-2:] == [f"{means[0]:+.1f} [-1.0, +2.0]", f"{means[1]:+.1f} [-0.5, +0.5]"]


def test_the_recipe_is_short_and_prints_the_table(images, tmp_path):
    script = Path(__file__).parents[3] / "recipes" / "constants.py"
    assert len(script.read_text().splitlines()) <= 50
    argv = ["--data", str(Path(str(images.paths[0])).parents[2]), "--backbone", "glyphnet", "--epochs", "1"]
    argv += ["--steps", "2", "--device", "cpu", "--cases", "half", "--constants", "EXPERT,MIN_VOTES"]
    done = run_script(tmp_path, script, *argv)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[-3:]] == ["constant", "EXPERT", "MIN_VOTES"]
