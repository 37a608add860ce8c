import json

import pytest

from transfer.report.load import read
from transfer.report.run_page import config_of, contents, figure, title


def test_scores_come_with_their_intervals(made):
    run = read(made())
    score = figure(run, "object", "accuracy")
    assert score["low"] <= score["value"] <= score["high"]
    assert figure(run, "object", "r2") is None
    assert figure(run, "angle", "r2") is None


def test_calibration_is_of_the_predictions(made):
    run = read(made())
    found = contents(run)
    answers = list(run.answers("domain"))
    head = next(head for head in found["heads"] if head["name"] == "domain")
    assert head["calibration"] == pytest.approx(abs(0.9 - 1.0))  # all right, all 90 % sure
    assert len(answers) == 40


def test_gains_and_losses_of_an_adapted_run_come_from_its_result(made):
    from transfer.config.adapt import AdaptConfig, ShiftConfig

    changes = {
        f"c{i}": {"source_only": 0.5, "adapted": 0.5 + c, "change": c, "n": 4} for i, c in enumerate((0.2, 0, -0.3))
    }
    plain = json.loads((made("plain") / "result.json").read_text())
    target = {"object": plain["test"]["object"]}
    shift = ShiftConfig("office31", source=("amazon", "dslr"), target="webcam")
    run = read(made(command="adapt", target=target, per_class_change=changes, config=AdaptConfig(shift)))
    found = contents(run)
    assert found["title"] == "office31: amazon, dslr → webcam · net"
    assert [name for name, _ in found["gains"]["gained"]] == ["c0"]
    assert [name for name, _ in found["gains"]["lost"]] == ["c2"]
    assert [head["name"] for head in found["heads"]] == ["object"]
    assert found["command"].startswith("transfer adapt --data office31 --source amazon,dslr --target webcam")


def test_a_config_of_another_version_is_shown_as_it_is(made):
    folder = made()
    result = json.loads((folder / "result.json").read_text())
    result["config"]["learn"]["new"] = [1, 2]
    (folder / "result.json").write_text(json.dumps(result))
    run = read(folder)
    assert config_of(run) is None
    found = contents(run)
    assert found["command"] == ""
    assert ("new", "1, 2", False) in found["settings"]
    assert title(run) == "digits · net · partial:1"
