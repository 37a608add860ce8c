"""Greedy soups, against the recipe of the paper written out on the files of the runs."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from transfer.config.commands import EvaluateConfig
from transfer.config.train import TrainConfig
from transfer.errors import TransferError
from transfer.evaluation.averages.greedy_soup import choose_greedily
from transfer.evaluation.evaluate import evaluate
from transfer.evaluation.predict import predict
from transfer.runs import checkpoint
from transfer.training.train import train

scores = st.integers(0, 100).map(lambda percent: percent / 100)  # equal ones are common, as on few validation images


@given(alone=st.lists(scores, min_size=1, max_size=6), seed=st.integers(0, 99))
def test_a_member_stays_where_the_average_is_no_worse(alone: list[float], seed: int) -> None:
    rng, together = np.random.default_rng(seed), {}

    def measure(members: Sequence[int]) -> float:
        return together.setdefault(tuple(members), float(rng.integers(100)) / 100)

    choice = choose_greedily(alone, measure)
    order = sorted(range(len(alone)), key=lambda i: (-alone[i], i))
    soup, best = [order[0]], alone[order[0]]
    for i in order[1:]:
        if together[(*soup, i)] >= best:
            best = together[(*soup, i)]
            soup.append(i)
    assert choice.chosen == tuple(soup)
    assert choice.score == best >= max(alone)
    assert len(together) == len(alone) - 1


@pytest.fixture
def trained(config: Callable[..., TrainConfig], tmp_path: Path) -> Callable[..., list[Path]]:
    """Return a function that trains one run for each learning rate, on one split."""

    def run(*rates: float, **settings: object) -> list[Path]:
        folders = [tmp_path / f"run{number}" for number in range(len(rates))]
        settings = {"policy": "partial:1", "statistics": "learning", "epochs": 2, "val": 0.3, **settings}
        for number, (folder, lr) in enumerate(zip(folders, rates, strict=True)):
            settings = {"split_seed": 7, **settings}
            train(config(out=folder, seed=number, lr=lr, report=False, **settings))
        return folders

    return run


def measure_validation(file: Path, run: Path) -> float:
    """Return the mean accuracy of both heads of a model on the validation images of `run`."""
    with (run / "images.csv").open(newline="") as opened:
        lines = [line for line in csv.DictReader(opened) if line["split"] == "val"]
    found = list(predict(checkpoint.load_models(file), [Path(line["path"]) for line in lines]))
    right = [
        answer[head] == line[head] for answer, line in zip(found, lines, strict=True) for head in ("object", "domain")
    ]
    return sum(right) / len(right)


def test_the_soup_is_that_of_the_recipe(trained, tmp_path: Path) -> None:
    runs, file = trained(0.003, 0.3, 0.01), tmp_path / "soup.safetensors"
    result = evaluate(EvaluateConfig(runs[0], tuple(runs[1:]), soup=file, soup_kind="greedy"))
    alone = {str(run): measure_validation(run, run) for run in runs}
    assert result["soup"]["validation_alone"] == pytest.approx(alone, abs=1e-6)
    assert len(set(alone.values())) > 1

    def average(names: Sequence[str]) -> Path:
        made = tmp_path / "made"
        evaluate(
            EvaluateConfig(
                Path(names[0]), tuple(map(Path, names[1:])), soup=made / f"{len(list(tmp_path.rglob('*')))}.safetensors"
            )
        )
        return max(made.iterdir(), key=lambda path: int(path.stem))

    order = sorted(alone, key=lambda name: -alone[name])
    chosen, best = order[:1], alone[order[0]]
    for name in order[1:]:
        score = measure_validation(average([*chosen, name]), runs[0])
        if score >= best:
            chosen, best = [*chosen, name], score
    assert result["soup"]["runs"] == chosen
    assert result["soup"]["validation"] == pytest.approx(best, abs=1e-6)
    states = [load_file(Path(name) / "model.safetensors") for name in chosen]
    for name, tensor in load_file(file).items():
        if tensor.is_floating_point():
            wanted = sum(state[name].double() for state in states) / len(states)
            torch.testing.assert_close(tensor.double(), wanted, rtol=1e-6, atol=1e-9)
    assert result["test"] == evaluate(EvaluateConfig(file, data=str(runs[0] / "images.csv")))["test"]


def test_a_run_that_no_average_reaches_stays_alone(trained, tmp_path: Path) -> None:
    runs, file = trained(0.01, 0.01, epochs=4), tmp_path / "soup.safetensors"
    models = checkpoint.load_models(runs[1])
    with torch.no_grad():  # heads that say the opposite of the other run's, ten times as loud
        for parameter in models[""].heads.parameters():
            parameter.mul_(-10)
    checkpoint.save_models(runs[1] / "model.safetensors", models, checkpoint.load_head_config(runs[1]))
    result = evaluate(EvaluateConfig(runs[0], (runs[1],), soup=file, soup_kind="greedy"))
    first = load_file(runs[0] / "model.safetensors")
    assert result["soup"]["runs"] == [str(runs[0])]
    assert all(torch.equal(tensor, first[name]) for name, tensor in load_file(file).items())
    assert f"as good on validation images as {runs[0]} alone" in result["notes"][-1]


def test_runs_that_cannot_choose_are_refused(trained, tmp_path: Path) -> None:
    def refuse(runs: Sequence[Path], message: str) -> None:
        file = tmp_path / "soup.safetensors"
        with pytest.raises(TransferError, match=message):
            evaluate(EvaluateConfig(runs[0], tuple(runs[1:]), soup=file, soup_kind="greedy"))
        assert not file.exists()

    runs = trained(0.01, 0.01, epochs=1)
    with pytest.raises(TransferError, match="--soup-kind needs --soup"):
        evaluate(EvaluateConfig(runs[0], (runs[1],), soup_kind="greedy"))
    record = runs[1] / "result.json"
    changed = json.loads(record.read_text())
    changed["config"]["learn"]["refit"] = True
    record.write_text(json.dumps(changed))
    refuse(runs, "run1 was refitted on them: train it with --no-refit")
    images = runs[1] / "images.csv"
    images.write_text(images.read_text().replace(",val,", ",train,"))
    refuse(runs, "run1 has others than .*run0: train them on one split")
    (runs[0] / "images.csv").write_text(images.read_text())
    refuse(runs, "run0 has none: take --soup-kind uniform")


def test_a_solved_probe_is_refitted(trained, tmp_path: Path) -> None:
    runs = trained(0.01, 0.01, policy="linear_probe", statistics="frozen", epochs=1)
    with pytest.raises(TransferError, match="run0 was refitted"):
        evaluate(EvaluateConfig(runs[0], (runs[1],), soup=tmp_path / "a.safetensors", soup_kind="greedy"))
