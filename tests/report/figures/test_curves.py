import re

from transfer.report.figures.curves import _phase_changes, _series, draw_curves

EPOCHS = [
    {"phase": p, "epoch": e, "loss": 1 / e, "train": {"object": 0.5}, "val": {"object": 0.4}, "val_loss": 2.0}
    for e, p in ((1, "a"), (2, "a"), (3, "b"))
]
SOLVED = [
    {"head": "object", "epoch": i, "strength": s, "val": {"object": 0.5}, "val_loss": s}
    for i, s in enumerate((0.1, 1.0))
]


def test_a_figure_for_the_loss_and_for_each_head():
    drawn = draw_curves(EPOCHS)
    assert [("over epochs" in svg) for svg in drawn] == [True, True]
    assert "object: accuracy" in drawn[1]


def test_seeds_are_separate_series():
    lines = [line | {"run": run} for run in ("seed0", "seed1") for line in EPOCHS]
    train, val = _series(lines, ("loss",), ("val", "object"))
    assert train == {run: ([1, 2, 3], [1.0, 0.5, 1 / 3]) for run in ("seed0", "seed1")}
    assert val["seed1"] == ([1, 2, 3], [0.4] * 3)
    assert _series(EPOCHS, ("val", "domain")) == [{}]


def test_where_a_phase_begins():
    assert _phase_changes(EPOCHS) == {2.5}


def test_a_solved_head_is_drawn_over_strengths_and_a_method_by_its_scores():
    (drawn,) = draw_curves([*SOLVED, {"phase": "probe", "epoch": 3, "solved": {"object": 0.1}, "val": {"object": 0.5}}])
    assert "L2 regularisation" in drawn
    assert "mathdefault" not in drawn
    ties = [line | {"val_loss": 1.0, "val": {"object": 0.5}} for line in SOLVED if "strength" in line]
    marked = re.findall(r"M([\d.]+) [\d.]+m-4\.5", draw_curves(ties)[0])
    assert [float(x) > 300 for x in marked] == [True, True]  # the stronger one, on the right, as a run chooses it
    (scores,) = draw_curves([{"candidate": f"mcc, epoch {e}", "score": e} for e in (1, 2)])
    assert "mcc" in scores
    assert draw_curves([{"candidate": "auto", "score": 1.0}]) == []
    assert draw_curves([]) == []
