from dataclasses import asdict

from transfer.report.figures.freeze_plan import stage_rows


def test_the_network_is_drawn_from_its_plan(taught):
    _, plan = taught("lp_ft:1", statistics="frozen")
    policy = {"phases": [asdict(phase) for phase in plan.phases], "heads_parameters": 500}
    rows = stage_rows(policy, 0.01, {"probe"})
    names = [stage.name for stage in plan.phases[0].stages]
    assert [row["name"] for row in rows] == ["heads", *reversed(names)]
    assert [cell["text"] for cell in rows[0]["cells"]] == ["solved", "rate 0.001"]
    assert [cell["kind"] for cell in rows[1]["cells"]] == ["frozen", "trained"]
    assert rows[1]["cells"][1]["text"] == "rate 0.001"
    assert all(cell["text"] == "frozen" for row in rows[2:] for cell in row["cells"])
    assert max(row["width"] for row in rows) == 1.0
    most = max(row["parameters"] for row in rows)
    assert all(abs(row["width"] ** 2 - row["parameters"] / most) < 1e-9 for row in rows)


def test_norms_and_statistics_are_told(taught):
    _, plan = taught("norm_only")
    rows = stage_rows({"phases": [asdict(phase) for phase in plan.phases]}, 0.01)
    says = [row["cells"][0]["text"] for row in rows[1:]]
    assert all(say.startswith("norms, rate") and say.endswith(", statistics updated") for say in says)
    moving = {"name": "s", "train": "none", "rate": 0.0, "statistics": "learning", "parameters": 4, "trained": 0}
    (_, row) = stage_rows({"phases": [{"name": "p", "heads_rate": 1.0, "stages": [moving]}]}, 0.1)
    assert row["cells"][0]["kind"] == "statistics"


def test_an_older_result_has_no_drawing():
    assert stage_rows({"trained_parameters": 3}, 0.1) == []
