import itertools
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from transfer.cli.arguments import parse
from transfer.config.checked import from_dict
from transfer.config.commands import SearchConfig
from transfer.config.train import RunConfig, TrainConfig
from transfer.errors import TransferError
from transfer.report.command_line import command_line
from transfer.training.train import train
from transfer.tuning import search as module
from transfer.tuning.search import search, trial_line
from transfer.tuning.space import apply_settings
from transfer.tuning.trial import TrialRunner

LINE = re.compile(r"val_acc: \d\.\d{6}, lr: \d\.\d{6}e[+-]\d\d, reg: \d\.\d{6}e[+-]\d\d, (\w+: \S+, )*\(\d+ / \d+\)")


@pytest.fixture
def quick(config):
    def make(out: Path | None = None, *, train: dict | None = None, resume=False, **settings) -> SearchConfig:
        inner = config(**({"probe": "trained", "epochs": 3, "out": out, "resume": resume} | (train or {})))
        return SearchConfig(**({"train": inner, "trials": 8, "space": ("lr", "weight_decay")} | settings))

    return make


def plain(records: list[dict]) -> list[dict]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_line_is_shaped_as_always(quick, caplog):
    config = quick()
    record = {"trial": 0, "val_acc": 0.527, "settings": {"lr": 5.349517e-04, "weight_decay": 4.097824e-01}}
    line = trial_line(apply_settings(config.train, record["settings"]), record, 100)
    assert line == "val_acc: 0.527000, lr: 5.349517e-04, reg: 4.097824e-01, (0 / 100)"
    with caplog.at_level("INFO", "transfer"):
        search(quick(space=("lr", "batch_size=4,8", "optimizer=adamw,sgd", "dropout=0:0.5"), trials=6))
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("val_acc")]
    assert len(lines) == 6
    assert all(LINE.fullmatch(line) for line in lines)
    assert [line.rpartition("(")[2] for line in lines] == [f"{i} / 6)" for i in range(6)]
    assert "batch_size: " in lines[0]
    assert "optimizer: " in lines[0]


def test_the_recommended_run_is_the_final_one(quick, caplog):
    caplog.set_level("INFO")
    space = ("lr=1e-3:1e-1", "optimizer=sgd,adamw", "momentum=0:0.9")
    result = search(quick(train={"layer_decay": 0.3}, space=space, trials=4, final=True))
    assert "--layer-decay: no effect, because the whole backbone stays frozen" in caplog.messages
    found, settings = from_dict(TrainConfig, result["recommended"]), result["best"]["settings"]
    assert found.learn.probe == "trained"
    assert found.learn.optimizer == settings["optimizer"]
    assert found.learn.lr == pytest.approx(settings["lr"], rel=1e-3)
    assert found.learn.momentum == pytest.approx(settings["momentum"] if found.learn.optimizer == "sgd" else 0.9, 1e-3)
    assert found.policy.layer_decay == 0.8
    assert found.run.out == RunConfig().out
    parsed = parse(shlex.split(command_line(found))[1:]).config
    assert replace(parsed, run=replace(parsed.run, out=None)) == found  # the command line saves every run
    repeated, final = train(found).result, result["final"]
    assert repeated["test"]["object"]["n"] == final["test"]["object"]["n"]
    assert repeated["config"]["data"] == final["config"]["data"]
    probe = result["solved_probe"]
    assert probe["val"].keys() == {"object", "domain"}
    assert probe["val_acc"] == pytest.approx(sum(probe["val"].values()) / 2)


def test_settings_without_effect_are_not_searched(quick):
    with pytest.raises(TransferError, match="--space momentum: there is nothing to search, because --optimizer adamw"):
        search(quick(space=("lr", "momentum=0:0.9")))
    with pytest.raises(TransferError, match=r"--space layer_decay: .* the whole backbone stays frozen"):
        search(quick(space=("lr", "layer_decay=0.5:1")))
    with pytest.raises(TransferError, match=r"--space lr: .* line search"):
        search(quick(train={"optimizer": "lbfgs", "batch_size": 0}, space=("lr", "weight_decay")))


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_killed_search_resumes_to_the_same_trials(quick, tmp_path, sampler, monkeypatch):
    whole = search(quick(tmp_path / "whole", sampler=sampler))
    trial, count = TrialRunner.run_trial, itertools.count(1)

    def dying(self, *args):
        if next(count) > 5:
            raise KeyboardInterrupt
        return trial(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(TrialRunner, "run_trial", dying)
        with pytest.raises(KeyboardInterrupt):
            search(quick(tmp_path / "killed", sampler=sampler))
    assert len(lines_of(tmp_path / "killed")) == 5
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"trial": 5, "sta')
    again = search(quick(tmp_path / "killed", sampler=sampler, resume=True))
    assert plain(again["trials"]) == plain(whole["trials"])


def test_a_half_written_line_is_done_again(quick, tmp_path):
    whole = search(quick(tmp_path / "whole"))
    search(quick(tmp_path / "killed"))
    lines = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines(keepends=True)
    for kept in (0, 6):
        (tmp_path / "killed" / "metrics.jsonl").write_text("".join(lines[:kept]) + lines[kept][:30])
        again = search(quick(tmp_path / "killed", resume=True))
        assert plain(again["trials"]) == plain(whole["trials"])
        assert plain(lines_of(tmp_path / "killed")) == plain(whole["trials"])
        assert again["best"]["trial"] == whole["best"]["trial"]


def test_resuming_another_search_is_refused(quick, tmp_path):
    out = tmp_path / "a"
    search(quick(out, trials=3))
    with pytest.raises(TransferError, match="has another trials"):
        search(quick(out, trials=4, resume=True))
    with pytest.raises(TransferError, match="has another batch_size"):
        search(quick(out, trials=3, resume=True, train={"batch_size": 16}))
    with pytest.raises(TransferError, match="already holds a run"):
        search(quick(out, trials=3))
    with pytest.raises(TransferError, match="needs the folder of the run"):
        search(quick(trials=3, resume=True))
    assert len(search(quick(tmp_path / "new", trials=3, resume=True))["trials"]) == 3


def test_the_result_and_the_run_folder(quick, tmp_path):
    result = search(quick(tmp_path / "a", sampler="grid", halving=1, trials=9))
    saved = json.loads((tmp_path / "a" / "result.json").read_text())
    assert saved == result
    assert len(result["trials"]) == 9
    assert result["best"]["val_acc"] == max(record["val_acc"] for record in result["trials"])
    assert {record["epochs"] for record in result["trials"]} == {3}
    assert result["test"] == {}
    assert result["final"] is None
    assert "test images are not used" in result["selection"]["rule"]


def test_test_labels_change_nothing_before_the_end(quick, monkeypatch):
    """Every label of a test image is swapped after the split: all trials stay as they are."""
    honest = search(quick())
    split = __import__("transfer.tuning.trial", fromlist=["split_images"]).split_images

    def swapping(images, *args):
        parts = split(images, *args)
        for target in images.table.targets.values():
            target.values[parts.test] = (target.values[parts.test] + 1) % len(target.classes)
        return parts

    monkeypatch.setattr("transfer.tuning.trial.split_images", swapping)
    assert plain(search(quick())["trials"]) == plain(honest["trials"])


def test_the_best_is_trained_once_and_tested(quick, tmp_path):
    config = quick(tmp_path / "a", final=True, trials=4)
    result = search(config)
    assert (tmp_path / "a" / "final" / "model.safetensors").exists()
    one = apply_settings(config.train, result["best"]["settings"])
    alone = train(replace(one, run=replace(one.run, out=None))).result
    assert result["test"] == result["final"]["test"] == alone["test"]
    assert result["final"]["config"]["learn"]["lr"] == result["best"]["settings"]["lr"]
    again = search(quick(tmp_path / "a", final=True, trials=4, resume=True))
    assert plain(again["trials"]) == plain(result["trials"])


def test_nothing_is_decoded_twice(quick, monkeypatch):
    search(quick(trials=1))

    def refuse(*args, **kwargs):
        raise AssertionError("decoded again")

    monkeypatch.setattr("transfer.feature_cache.feed.ImageBatches", refuse)
    assert len(search(quick(trials=6))["trials"]) == 6


def test_solved_policies_can_be_searched_overlay(quick):
    policies = ["linear_probe", "truncate:1", "head2toe:20"]
    space = (f"policy={','.join(policies)}",)
    result = search(quick(train={"probe": "solved"}, space=space, trials=3, sampler="grid"))
    assert {record["settings"]["policy"] for record in result["trials"]} == set(policies)
    assert all(record["val_acc"] > 0.5 for record in result["trials"])


def test_a_best_at_the_end_of_its_range_is_noted(quick):
    result = search(quick(space=("lr=1e-6:2e-6",), trials=2, sampler="grid"))
    assert any("lies at the boundary of 1e-06:2e-06" in note for note in result["notes"])


MISTAKES = {
    "another seed's split": ({"train": {"seeds": (0, 1)}}, "--seeds: a search takes a single --seed"),
    "nothing to search": ({"train": {"probe": "solved"}}, "set --probe trained"),
    "trained, what is solved": (
        {"space": ("policy=linear_probe,head2toe",)},
        "head2toe is always solved.*--probe solved",
    ),
    "unknown optimizer": ({"space": ("optimizer=adamw,adamx",)}, "unknown optimizer 'adamx'"),
    "unknown policy": ({"space": ("policy=linear_prob",)}, "did you mean 'linear_probe'"),
    "a value out of range": ({"space": ("lr=0:1",)}, "--lr 0.0: it must be above 0"),
    "no validation": ({"train": {"val": 0.0}}, "chooses by validation accuracy"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_said_before_the_first_trial(quick, case, monkeypatch):
    settings, says = MISTAKES[case]
    monkeypatch.setattr(TrialRunner, "run_trial", lambda *args: pytest.fail("a trial started"))
    with pytest.raises(TransferError, match=says):
        search(quick(**settings))
    assert module.SELECTION_RULE


def test_no_trial_begins_that_does_not_fit_into_the_minutes(quick, tmp_path):
    limited = quick(tmp_path / "a", train={"minutes": 1e-6}, trials=4, final=True)
    result = search(limited)
    assert len(result["trials"]) == 1
    assert "1 of 4 trials fit into --minutes" in result["notes"]
    assert result["recommended"]["learn"]["minutes"] is None
    assert result["config"]["train"]["learn"]["minutes"] == 1e-6
    assert any("1 of 3 epochs fit into --minutes" in note for note in result["final"]["notes"])
    more = search(quick(tmp_path / "a", trials=4, final=True, resume=True))
    assert len(more["trials"]) == 4
    assert plain(more["trials"][:1]) == plain(result["trials"])
