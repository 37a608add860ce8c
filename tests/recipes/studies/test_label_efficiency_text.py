"""Tables and plot of the label-efficiency study, from records made by hand."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import label_efficiency_text
from studies.label_efficiency_text import (
    average_curves,
    draw_label_efficiency,
    find_first_x,
    labels_and_time_text,
    starts_text,
)


def record(policy: str, labels: int, accuracy: float, course: dict[float, float], seed: int = 0) -> dict[str, Any]:
    drawn = {"seconds": list(course), "object": list(course.values())}
    known = {"policy": policy, "labels": labels, "seed": seed, "images": 10 * (labels or 50)}
    return known | {"object": accuracy, "course": drawn}


# At the end of scratch: 0.5. The probe has that after 2 s of 4 s, full after 8 s, lp_ft never.
RECORDS = [
    *(record("scratch", labels, a, {4.0: 0.5, 5.0: 0.4, 20.0: 0.5}) for labels, a in ((1, 0.1), (5, 0.4), (0, 0.75))),
    *(record("linear_probe", labels, a, {2.0: 0.6}) for labels, a in ((1, 0.4), (5, 0.6), (0, 0.8))),
    *(record("full", labels, a, {1.0: 0.2, 8.0: 0.5}) for labels, a in ((1, 0.3), (5, 0.6), (0, 0.9))),
    *(record("lp_ft", labels, a, {2.5: 0.3, 9.0: 0.4}) for labels, a in ((1, 0.45), (5, 0.65), (0, 0.85))),
]


def cells(text: str) -> list[list[str]]:
    """Return the cells of a table whose columns are two blanks apart."""
    return [[cell for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_accuracy_by_labels_and_seconds_until_it_is_as_scratch_ends() -> None:
    assert [[cell.strip() for cell in row] for row in cells(labels_and_time_text({"runs": RECORDS}))] == [
        ["object, labels per class and domain", "1", "5", "all", "seconds", "as scratch", "times"],
        ["scratch", "0.100", "0.400", "0.750", "20.0", "4.0", "1.0"],
        ["linear_probe", "0.400", "0.600", "0.800", "2.0", "2.0", "2.0"],
        ["full", "0.300", "0.600", "0.900", "8.0", "8.0", "0.5"],
        ["lp_ft", "0.450", "0.650", "0.850", "9.0", "-", "-"],
        ["scratch equals the probe at", "5", "all", "never"],
    ]


def test_several_seeds() -> None:
    more = [
        record("scratch", 0, 0.5, {2.0: 0.9}, seed=1),
        record("scratch", 0, 0.7, {2.0: 0.3, 6.0: 0.5}, seed=2),
        record("full", 0, 0.6, {4.0: 0.8}, seed=1),  # never as good as scratch under this seed
        record("full", 0, 0.8, {1.0: 0.6}, seed=2),
    ]
    runs = [run for run in RECORDS if run["labels"] == 0 and run["policy"] in ("scratch", "full")]
    text = labels_and_time_text({"runs": [*runs, *more]})
    scratch, full = cells(text)[1:]
    assert scratch[1].strip() == "0.650 ± 0.132"
    assert scratch[3].strip() == "4.0 ± 2.0"
    assert full[3].strip() == "4.5 ± 4.9"  # 8 and 1
    assert full[4].strip() == "3.2 ± 3.9 (2 of 3)"  # 4 / 8 and 6 / 1


def test_nothing_to_validate_on_is_no_time() -> None:
    runs = [record("scratch", 1, 0.1, {}), record("full", 1, 0.5, {})]
    assert [[cell.strip() for cell in row] for row in cells(labels_and_time_text({"runs": runs}))[1:]] == [
        ["scratch", "0.100", "-", "-", "-"],
        ["full", "0.500", "-", "-", "-"],
    ]


def test_orders_of_opening_are_paired_with_lp_ft() -> None:
    bottom = [record("gradual:bottom_up", labels, a, {}) for labels, a in ((1, 0.4), (5, 0.65), (0, 0.95))]
    assert [[cell.strip() for cell in row] for row in cells(starts_text({"runs": [*RECORDS, *bottom]}))[1:]] == [
        ["heads first, then all layers (lp_ft)", "0.450", "0.650", "0.850"],
        ["random heads (full)", "-0.150", "-0.050", "+0.050"],
        ["lowest layers first (gradual:bottom_up)", "-0.050", "+0.000", "+0.100"],
    ]
    seeds = [record(policy, 0, a, {}, seed=1) for policy, a in (("scratch", 0.5), ("lp_ft", 0.75), ("full", 0.9))]
    both = [run for run in [*RECORDS, *seeds] if run["labels"] == 0 and run["policy"] != "linear_probe"]
    assert "+0.100 ± 0.071" in starts_text({"runs": both})  # 0.05 and 0.15
    assert "lp_ft was not run" in starts_text({"runs": RECORDS[:6]})


def test_both_panels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(
        label_efficiency_text, "draw_curves", lambda path, panels, **more: drawn.update(panels=panels, **more)
    )
    draw_label_efficiency(tmp_path / "curves.png", {"runs": RECORDS})
    data, pace = drawn["panels"].values()
    assert data["full"] == {10: 0.3, 50: 0.6, 500: 0.9}
    assert pace["full"] == {1.0: 0.2, 8.0: 0.5}
    assert drawn["x"] == ("labelled images", "seconds")
    monkeypatch.undo()
    for name, runs in (("all", RECORDS), ("without validation", [record("scratch", 1, 0.1, {})])):
        draw_label_efficiency(tmp_path / name / "curves.png", {"runs": runs})
        assert (tmp_path / name / "curves.png").stat().st_size > 5000


POINTS = st.lists(st.tuples(st.integers(0, 99), st.floats(0, 1)), max_size=9).map(dict)


@given(curve=POINTS, level=st.floats(0, 1))
def test_first_x_is_the_least_that_reaches_the_level(curve: dict[float, float], level: float) -> None:
    found = find_first_x(curve, level)
    for x in sorted(curve):
        if curve[x] >= level:
            assert found == x
            return
    assert found is None


@given(curve=POINTS)
def test_the_mean_of_a_curve_and_itself_is_itself(curve: dict[float, float]) -> None:
    assert average_curves([curve, curve]) == pytest.approx(curve)
