import json

import pytest

from transfer.config.train import RunConfig, TrainConfig
from transfer.errors import TransferError
from transfer.runs.session import RunSession


def test_without_a_folder_lines_are_still_collected():
    lines = []
    with RunSession("train", TrainConfig(), on_line=lines.append) as session:
        assert (session.folder, session.states, session.finished) == (None, None, None)
        session.begin(lambda: pytest.fail("nothing is saved"))
        session.log_line({"epoch": 1}, "epoch 1")
        assert session.lines == lines == [{"epoch": 1}]


def test_each_seed_has_its_own_session_folder_and_lines(tmp_path):
    lines, out = [], tmp_path / "run"

    def run_seed(session):
        session.log_line({"epoch": 1}, "epoch 1")
        return session.config.run

    with RunSession("train", TrainConfig(run=RunConfig(out=out, seeds=(3, 5))), on_line=lines.append) as session:
        runs = session.run_seeds(run_seed, lambda one: pytest.fail("no seed is finished"))
    assert [(run.seed, run.seeds, run.out, run.report) for run in runs] == [
        (3, (), out / "seed3", True),
        (5, (), out / "seed5", False),
    ]
    assert lines == [{"seed": 3, "epoch": 1}, {"seed": 5, "epoch": 1}]
    assert json.loads((out / "seed5" / "metrics.jsonl").read_text()) == {"epoch": 1}
    assert json.loads((out / "seed5" / "config.json").read_text())["run"]["seed"] == 5


def test_one_seed_uses_the_folder_of_the_run_itself(tmp_path):
    with RunSession("train", TrainConfig(run=RunConfig(out=tmp_path / "run", seeds=(7,)))) as session:
        (one,) = session.run_seeds(lambda each: each, lambda each: None)
    assert one.folder is session.folder
    assert one.config.run.seed == 7
    assert one.load_outcome() is None


def test_a_finished_run_is_loaded_and_not_run_again(tmp_path):
    config = TrainConfig(run=RunConfig(out=tmp_path / "run"))
    with RunSession("train", config) as session:
        session.folder.start()
        (session.folder.path / "result.json").write_text('{"test": 1}')
    with pytest.raises(TransferError, match="already holds a run"):
        RunSession("train", config)
    resumed = TrainConfig(run=RunConfig(out=tmp_path / "run", resume=True))
    with RunSession("train", resumed) as session:
        assert session.finished == {"test": 1}
        assert session.run_seeds(lambda one: pytest.fail("is finished"), lambda one: one.finished) == [{"test": 1}]


def test_an_outcome_is_saved_for_the_result_over_seeds(tmp_path):
    with RunSession("adapt", TrainConfig(run=RunConfig(out=tmp_path / "run", seeds=(0, 1)))) as session:
        session.run_seeds(lambda one: one.save_outcome({"seed": one.config.run.seed}) or 0, lambda one: None)
    config = TrainConfig(run=RunConfig(out=tmp_path / "run", seeds=(0, 1), resume=True))
    with RunSession("adapt", config) as session:
        assert session.run_seeds(lambda one: one.load_outcome(), lambda one: None) == [{"seed": 0}, {"seed": 1}]
