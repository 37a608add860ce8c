import json

import pytest

from transfer.report.load import read_saved_run
from transfer.report.run_page import (
    MAX_CLASS_ROWS,
    class_rows,
    config_of,
    domain_rows,
    run_page,
    run_title,
    score_interval,
)


def test_scores_come_with_their_intervals(made):
    run = read_saved_run(made())
    score = score_interval(run, "object", "accuracy")
    assert score["low"] <= score["value"] <= score["high"]
    assert score_interval(run, "object", "r2") is None
    assert score_interval(run, "angle", "r2") is None


def test_calibration_is_of_the_predictions(made):
    run = read_saved_run(made())
    found = run_page(run)
    answers = list(run.labelled_predictions("domain"))
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
    run = read_saved_run(made(command="adapt", target=target, per_class_change=changes, config=AdaptConfig(shift)))
    found = run_page(run)
    assert found["title"] == "office31: amazon, dslr → webcam · net"
    assert [name for name, _ in found["gains"]["gained"]] == ["c0"]
    assert [name for name, _ in found["gains"]["lost"]] == ["c2"]
    assert [head["name"] for head in found["heads"]] == ["object"]
    assert found["command"].startswith("transfer adapt office31 --source amazon,dslr --target webcam")


def test_a_config_of_another_version_is_shown_as_it_is(made):
    folder = made()
    result = json.loads((folder / "result.json").read_text())
    result["config"]["learn"]["new"] = [1, 2]
    (folder / "result.json").write_text(json.dumps(result))
    run = read_saved_run(folder)
    assert config_of(run) is None
    found = run_page(run)
    assert found["command"] == ""
    assert ("new", "1, 2", False) in found["settings"]
    assert run_title(run) == "digits · net · partial:1"
    for path in ("/home/me/my images/", "C:\\me\\my images"):
        result["config"]["data"]["data"] = path
        (folder / "result.json").write_text(json.dumps(result))
        assert run_title(read_saved_run(folder)) == "my images · net · partial:1"


def test_the_worst_class_comes_first_and_of_many_only_the_ends():
    some = {"per_class": {f"c{i}": {"recall": i / 100, "n": 7, "precision": None} for i in range(100)}}
    some["per_class"] |= {"only called": {"recall": None, "precision": 0.0, "n": 0}}
    first, more = class_rows(some)
    shares = [row["share"] for row in first]
    assert len(first) + len(more) == 100
    assert len(first) < MAX_CLASS_ROWS
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 0.99)
    assert min(row["share"] for row in more) > shares[MAX_CLASS_ROWS // 2 - 1]
    few, none = class_rows({"per_class": {"a": {"recall": 1.0, "n": 2}, "b": {"recall": 0.5, "n": 2}}})
    assert [row["name"] for row in few] == ["b", "a"]
    assert none == []
    assert class_rows({"r2": 1.0}) == ([], [])


def test_domains_by_head():
    found = domain_rows(
        {"dslr": {"object": {"accuracy": 0.5, "n": 4}, "domain": {"n": 0}, "angle": {"r2": 1.0, "n": 4}}}
    )
    (row,) = found["object"]
    assert (row["name"], row["share"], row["n"]) == ("dslr", 0.5, 4)
    assert set(found) == {"object"}
