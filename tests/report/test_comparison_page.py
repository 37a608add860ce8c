import json

import numpy as np
import pytest

from transfer.evaluation.paired import paired_test
from transfer.report.comparison_page import _test_against, comparison_page
from transfer.report.load import read_saved_run


def compared(*runs):
    return comparison_page([read_saved_run(run) for run in runs], lambda path: "")


def test_differences_are_paired_by_image(made):
    a, b = read_saved_run(made("a", wrong=0.1, seed=1)), read_saved_run(made("b", wrong=0.6, seed=2))
    b.predictions.reverse()  # in whatever order
    b.predictions.pop()
    found = _test_against(b, a, "object")
    by_path = dict(zip(b.correct("object")[1], b.correct("object")[0], strict=True))
    mine = np.array([by_path[path] for path in a.correct("object")[1] if path in by_path])
    theirs = np.array([r for r, path in zip(*a.correct("object"), strict=True) if path in by_path])
    assert found["images"] == 39
    assert found["difference"] == pytest.approx(mine.mean() - theirs.mean())
    assert found["interval"] == pytest.approx(paired_test(mine, theirs)["interval"], abs=0.1)


def test_runs_without_an_image_in_common_are_not_test_against(made):
    a, b = read_saved_run(made("a")), read_saved_run(made("b"))
    for row in b.predictions:
        row["path"] += "other"
    assert _test_against(b, a, "object") is None


def test_names_tell_runs_apart_and_settings_that_differ_are_listed(made):
    from transfer.config.train import LearnConfig, RunConfig, TrainConfig

    one = made("x/run", config=TrainConfig(learn=LearnConfig(lr=0.1), run=RunConfig(out=made("o"))))
    found = compared(one, made("y/run", config=TrainConfig(learn=LearnConfig(lr=0.2))))
    assert [row["name"] for row in found["rows"]] == ["x/run", "y/run"]
    assert found["differ"] == {"learn.lr": ["0.1", "0.2"]}
    assert found["command"] == ""


def test_a_compare_command_is_its_inner_runs_with_folders_or_without(made, tmp_path):
    from transfer.config.serialise import to_dict
    from transfer.config.train import CompareConfig

    folder = made("whole", bare=True)
    inner = made("whole/partial-1")
    runs = {"linear_probe": json.loads((folder / "result.json").read_text())}
    runs["partial:1"] = json.loads((inner / "result.json").read_text())
    policies = CompareConfig(policies=("linear_probe", "partial:1"))
    whole = {"command": "compare", "config": to_dict(policies), "versions": {}, "runs": runs}
    (folder / "result.json").write_text(json.dumps(whole))
    found = compared(folder)
    assert [row["name"] for row in found["rows"]] == ["linear_probe", "partial:1"]
    assert found["command"] == "transfer compare --policies linear_probe,partial:1"
    assert not found["paired"]  # the first has no predictions left
