"""Tables of the four-cases study, from a result made by hand."""

from typing import Any

from studies.four_cases_text import cells_text, policies_text


def run(backbone: str, case: str, policy: str, *accuracies: float | None) -> list[dict[str, Any]]:
    records = []
    for seed, accuracy in enumerate(accuracies):
        values = {"failed": "it has no norm"} if accuracy is None else {"accuracy": accuracy}
        records.append({"backbone": backbone, "case": case, "policy": policy, "seed": seed} | values)
    return records


def paired(difference: float, low: float, high: float) -> dict[str, Any]:
    return {"difference": difference, "interval": [low, high], "worse": high < 0}


FIRST = {
    "backbone": "a",
    "case": "digits@5",
    "size": ["small", "small"],
    "kind": ["similar", "between"],
    "advised": ["linear_probe", "full"],
    "expected": [0.7, 0.8],
    "within": [True, False],
    "accuracy": [0.5, 0.75],
    "best": ["full", "full"],
    "best_accuracy": [0.75, 0.75],
    "regret": [0.25, 0.0],
    "against_best": paired(-0.125, -0.2, -0.05),
    "against_reference": paired(0.125, -0.01, 0.25),
}
SECOND = FIRST | {"case": "digits", "regret": [0.0, 0.0], "against_best": paired(0, 0, 0), "within": [True, True]}
THIRD = SECOND | {
    "backbone": "b",
    "against_reference": paired(-0.1, -0.2, -0.01),
    "accuracy": [None, 0.5],
    "regret": [],
}
RESULT = {
    "policies": ["linear_probe", "norm_only"],
    "seeds": [0, 1],
    "cells": [FIRST, SECOND, THIRD],
    "summary": {"regret": 0.0625, "worse_than_best": [0], "worse_than_reference": [2]},
    "records": [
        *run("a", "digits@5", "linear_probe", 0.5, 0.75),
        *run("a", "digits", "linear_probe", 0.25, 0.25),
        *run("a", "digits", "norm_only", 0.5, None),
        *run("b", "digits", "linear_probe", 0.875, 0.875),
        *run("b", "digits", "norm_only", None, None),
        {"backbone": "a", "case": "digits", "policy": "auto", "seed": 0, "advice": {}},
    ],
}


def cells(text: str) -> list[list[str]]:
    """Return the cells of a table whose columns are two blanks apart."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_a_table_for_each_backbone() -> None:
    a, b, notes = policies_text(RESULT).split("\n\n")
    assert cells(a) == [
        ["a", "digits@5", "digits"],
        ["linear_probe", "0.625 ± 0.177", "0.250 ± 0.000"],
        ["norm_only", "-", "0.500 (1 of 2)"],
        ["advised", "0.625 ± 0.177", "0.625 ± 0.177"],
    ]
    assert cells(b) == [["b", "digits"], ["linear_probe", "0.875 ± 0.000"], ["norm_only", "-"], ["advised", "0.500"]]
    assert notes.splitlines() == ["note: a, norm_only: it has no norm", "note: b, norm_only: it has no norm"]


def test_a_row_for_each_cell_and_the_verdict() -> None:
    text, verdict = cells_text(RESULT).split("\n\n")
    head, first, second, third = cells(text)
    assert len(head) == len(first) - 1 == 10
    assert first == [
        "a digits@5",
        "small",
        "similar / between",
        "linear_probe / full",
        "0.625 ± 0.177",
        "0.750 (1 of 2)",
        "full",
        "0.750 ± 0.000",
        "+12.5 ± 17.7",
        "-0.125 [-0.200, -0.050]",
        "+0.125 [-0.010, +0.250]",
    ]
    assert second[5] == "0.750 (2 of 2)"
    assert third[8] == "-"
    assert verdict.splitlines() == [
        "mean regret over 2 of 3 cells: +6.25 points",
        "significantly worse than the best: a digits@5",
        "significantly worse than linear_probe: b digits",
        "accuracy within the expected 95 % interval: 5 of 6 runs",
    ]


def test_one_seed_says_that_there_is_no_regret() -> None:
    alone = FIRST | {name: FIRST[name][:1] for name in ("size", "kind", "advised", "expected", "within", "accuracy")}
    alone |= {"best": [], "best_accuracy": [], "regret": [], "against_best": None}
    summary = {"regret": None, "worse_than_best": [], "worse_than_reference": []}
    text, verdict = cells_text({"seeds": [0], "cells": [alone], "summary": summary}).split("\n\n")
    assert cells(text)[1][6:] == ["-", "-", "-", "-", "+0.125 [-0.010, +0.250]"]
    assert verdict.splitlines() == [
        "one seed: regret needs other seeds to choose the best policy by; give --seeds 0,1,2",
        "significantly worse than linear_probe: none",
        "accuracy within the expected 95 % interval: 1 of 1 runs",
    ]
