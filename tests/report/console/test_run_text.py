from typing import Any

import pytest
from run_results import result

from transfer.report.console.run_text import comparison_text, run_text
from transfer.runs.seeds import merge_seeds, score_text


def test_figure_of_one_seed_has_its_interval() -> None:
    assert score_text(result(), "object") == "0.900 [0.850, 0.950]"
    assert score_text(result(), "object", "macro_f1") == "0.700"


def test_figure_of_several_seeds_has_its_standard_deviation() -> None:
    merged = merge_seeds((0, 1, 2), [result(a) for a in (0.85, 0.9, 0.95)])
    assert score_text(merged, "object") == "0.900 ± 0.050"
    assert score_text(merged, "domain") == "0.950 ± 0.000"


@pytest.mark.parametrize("given", [{}, {"test": {}}, {"test": {"object": {"n": 0}}}])
def test_figure_that_is_missing(given: dict[str, Any]) -> None:
    assert score_text(given, "object") == "-"


def test_one_run() -> None:
    text = run_text(result())
    lines = [line.split() for line in text.splitlines() if line]
    assert lines[0] == ["test", "accuracy", "balanced", "macro-F1", "calibration", "error", "n"]
    assert lines[1] == ["object", "0.900", "[0.850,", "0.950]", "0.800", "0.700", "0.025", "40"]
    assert "\n[ ]: 95 % interval\n\n" in text
    assert lines[4] == ["domain", "object", "domain", "n"]
    assert lines[5] == ["amazon", "0.800", "1.000", "25"]
    assert lines[6][:3] == ["dslr", "-", "0.500"]
    assert "12,345 parameters trained, 6,789,000 frozen (bit-identical)" in text
    assert "12.3 s, of which 5.7 s in the frozen trunk" in text
    assert text.endswith("note: one domain only: no domain head")


def test_one_run_of_several_seeds() -> None:
    merged = merge_seeds((0, 1), [result(0.8), result(0.9)])
    text = run_text(merged)
    assert "0.850 ± 0.071" in text
    assert "24.7 s" in text


def test_one_run_says_what_moved() -> None:
    policy = {"trained_parameters": 1, "frozen_parameters": 2, "frozen_unchanged": False, "moved": ["bn1.running_mean"]}
    assert "frozen (CHANGED: bn1.running_mean)" in run_text(result(policy=policy))


def test_one_run_with_a_regression_head() -> None:
    text = run_text(result(test={"age": {"mae": 1.2345678, "rmse": 2.0, "r2": 0.5, "n": 9}}, per_domain={}))
    assert "age" in text
    assert "R2 0.500" in text
    assert "MAE 1.235" in text


def test_one_run_without_test_images_or_a_policy() -> None:
    assert run_text({"test": {}}) == "no test images"


def test_one_domain_has_no_table_of_domains() -> None:
    one = result()
    one["per_domain"].pop("dslr")
    assert "amazon" not in run_text(one)


def test_compared() -> None:
    compared = {
        "against": "linear_probe",
        "runs": {"linear_probe": result(0.8), "full": result(0.9)},
        "paired": {"full": {"object": {"difference": 0.1, "interval": [-0.02, 0.22], "p": 0.0412}}},
    }
    lines = comparison_text(compared).splitlines()
    assert lines[0].startswith("policy")
    assert lines[0].endswith("object - linear_probe")
    assert lines[1].split() == [
        "linear_probe",
        "0.800",
        "[0.750,",
        "0.850]",
        "0.950",
        "[0.900,",
        "1.000]",
        "12,345",
        "12.3",
        "-",
    ]
    assert lines[2].endswith("+0.100 [-0.020, +0.220] p 0.041")
    assert lines[3:] == ["[ ]: 95 % interval"]
    compared["runs"]["full"] = result(0.9) | {"notes": ["of all", "full: 2 of 9 epochs fit into --minutes"]}
    compared["runs"]["linear_probe"] = result(0.8) | {"notes": ["of all"]}
    lines = comparison_text(compared).splitlines()
    assert lines[4:] == ["", "note: full: full: 2 of 9 epochs fit into --minutes"]
