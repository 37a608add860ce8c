"""The tables of advice on stored cells; each constant at half and at double."""

from pathlib import Path

import numpy as np
import pytest
from commands import run_script
from studies.advice_cells import AdvisedCell, average_regret, evaluate_advice
from studies.advice_constants import (
    CONSTANTS,
    coverage_text,
    leave_out_text,
    measure_sensitivity,
    regret_text,
    sensitivity_text,
    vary_values,
)
from studies.constants import read_value, set_constant

from transfer.advice.evidence import AdviceEvidence, TransferabilityScores
from transfer.advice.requirements import NetworkLayout
from transfer.advice.similarity import Similarity
from transfer.advice.transferability.crossval import CrossValidation
from transfer.advice.transferability.noise import LabelNoise
from transfer.advice.transferability.size import SetSize

LAYOUT = NetworkLayout((10, 20, 30), (1, 2, 3))
FINE_TUNING = next(constant for constant in CONSTANTS if constant.name == "FINE_TUNING_GAIN")


def make_cell(backbone, case, seed, images, tested, probe=0.8, fine_tuned=0.9):
    """Return a cell where all probes are alike and fine-tuning reaches `fine_tuned` on the test images."""
    rng = np.random.default_rng(seed)
    wrong = (np.arange(images) >= probe * images).astype(np.int64)
    none = np.array([], np.int64)
    held_out = CrossValidation(wrong, np.empty((images, 0)), none, probe, (0.7, 0.9), 0.5, 0.01)
    evidence = AdviceEvidence(
        SetSize(images, images, 2, 5, images / 2, images // 2, 1.0, 2.0, 0, 0, images, ()),
        Similarity(0.5, "between", {}, None),
        dict.fromkeys(("linear_probe", "truncate:1", "head2toe", "stage_probes"), held_out),
        {"low": 0.5, "top": 0.9},
        TransferabilityScores(0.0, None, None, None),
        LabelNoise(0, 0.0, none, none),
        np.zeros(images, np.int64),
        (3, 5, 8),
    )
    reached = dict.fromkeys(("linear_probe", "head2toe", "stage_probes"), probe) | {"lp_ft": fine_tuned}
    correct = {name: (rng.permutation(tested) < share * tested).astype(int) for name, share in reached.items()}
    paths = np.array([f"{case}/{i}" for i in range(tested)])
    return AdvisedCell(backbone, case, seed, evidence, LAYOUT, paths, correct, {})


@pytest.fixture
def cells():
    return [
        make_cell(name, case, seed, images, 200)
        for name in ("a", "b")
        for case, images in (("set@9", 90), ("set", 2000))
        for seed in (0, 1)
    ]


@pytest.mark.parametrize("constant", CONSTANTS, ids=lambda constant: constant.name)
def test_every_constant_is_where_the_list_says_and_comes_back(constant):
    before = read_value(constant.place)
    half, double = vary_values(before, constant.unit)
    assert type(half) is type(double) is type(before)
    assert half != before != double
    with set_constant(constant.place, double):
        assert read_value(constant.place) == double
    assert read_value(constant.place) == before


def test_the_change_is_that_of_advice_under_the_other_value(cells):
    """Fine-tuning reaches ten points more: where half its gain is expected, it is no longer advised."""
    before = evaluate_advice(cells)
    ((row),) = measure_sensitivity(cells, [FINE_TUNING])
    for name, value in zip(("half", "double"), vary_values(read_value(FINE_TUNING.place), "share"), strict=True):
        with set_constant(FINE_TUNING.place, value):
            after = evaluate_advice(cells)
        assert row[name]["value"] == value
        assert row[name]["regret"] == pytest.approx(average_regret(after) - average_regret(before))
        pairs = [(a, b) for x, y in zip(before, after, strict=True) for a, b in zip(x.advised, y.advised, strict=True)]
        assert row[name]["advised"] == sum(a != b for a, b in pairs)
        held = [inside for result in after for inside in result.within]
        assert row[name]["within"] == pytest.approx(np.mean(held))
    no_gain = dict.fromkeys(("similar", "between", "different"), 0.0)
    with set_constant(FINE_TUNING.place, no_gain):
        found = evaluate_advice(cells)
    assert {policy for result in found for policy in result.advised} == {"stage_probes"}
    assert average_regret(found) == pytest.approx(10.0)
    text = sensitivity_text([row])
    assert text.splitlines()[-1].split()[0] == "FINE_TUNING_GAIN"


def test_the_table_of_regret_names_each_set_and_what_is_behind_the_probe(cells):
    worse = [make_cell("a", "worse", seed, 2000, 400, fine_tuned=0.6) for seed in (0, 1)]
    results = evaluate_advice([*cells, *worse])
    lines = regret_text(results).splitlines()
    assert [line.split()[:2] for line in lines[1:6]] == [
        ["a", "set@9"],
        ["a", "set"],
        ["b", "set@9"],
        ["b", "set"],
        ["a", "worse"],
    ]
    with set_constant(FINE_TUNING.place, dict.fromkeys(("similar", "between", "different"), 1.0)):
        (result,) = evaluate_advice(worse)
        assert result.advised == ["lp_ft", "lp_ft"]
        assert regret_text([result]).splitlines()[1].split()[-1] == "behind"
        assert result.within == [False, False]


def test_coverage_is_counted_by_labels(cells):
    results = evaluate_advice(cells)
    rows = [line.split("  ") for line in coverage_text(cells, results).splitlines()[1:]]
    held = [len(result.frozen_within) for result in results]
    assert sum(held) == 3 * len(cells)  # three of the measured policies ran
    assert rows[0][0].strip() == "all"
    words = [[word.strip() for word in row if word.strip()] for row in rows]
    counts = [row[-2].split(" of ")[1] for row in words]
    assert counts == ["8", "4", "4"]  # lp_ft ran in each cell; half of them have under 200 labels
    few = [cell.rate()[0] for cell in cells if cell.case == "set@9"]
    assert float(words[1][-1]) == pytest.approx(100 * np.median([(c.interval[1] - c.accuracy) for c in few]), abs=0.06)
    assert float(words[1][-1]) > float(words[2][-1])


def test_what_is_left_out_is_advised_with_the_fit_to_the_others(cells):
    place = "advice.rule:FINE_TUNING_GAIN"
    fits = {"a": {place: dict.fromkeys(("similar", "between", "different"), 0.0)}, "c": {}}
    text = leave_out_text(cells, fits, "backbone")
    (row,) = [line for line in text.splitlines()[1:] if line]
    assert row.split()[0] == "a"  # there are no cells of c
    with set_constant(place, fits["a"][place]):
        fitted = average_regret(evaluate_advice([cell for cell in cells if cell.backbone == "a"]))
    assert f"{fitted:+.2f}" in row.split()
    (row,) = leave_out_text(cells, {"set": {}}, "images").splitlines()[1:]
    assert row.split()[-1] == "0"  # both cases are of its images; the same constants advise the same


def test_the_recipe_is_short_and_prints_the_tables(folder, tmp_path):
    recipes = Path(__file__).parents[3] / "recipes"
    script = recipes / "advice_constants.py"
    assert len(script.read_text().splitlines()) <= 50
    alone = run_script(tmp_path, script)
    assert alone.returncode == 0, alone.stderr
    assert "as it is" in alone.stdout
    argv = ["--data", str(folder), "--backbone", "glyphnet", "--device", "cpu", "--out", "run", "--seeds", "0,1"]
    study = run_script(tmp_path, recipes / "four_cases.py", *argv, "--policies", "head2toe,stage_probes")
    assert study.returncode == 0, study.stderr
    done = run_script(tmp_path, script, "--runs", "run", "--constants", "LOSS_WEIGHT,MAX_CHANCE_SD")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[-2:]] == ["LOSS_WEIGHT", "MAX_CHANCE_SD"]
    assert "mean regret: " in done.stdout
