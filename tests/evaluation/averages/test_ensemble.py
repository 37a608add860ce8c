"""Ensembles of snapshots and of runs."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from model_states import changed_names, copy_state
from safetensors.torch import load_file

from transfer.config.commands import EvaluateConfig
from transfer.config.train import TrainConfig, ViewConfig
from transfer.errors import TransferError
from transfer.evaluation.averages import ensemble
from transfer.evaluation.averages.tta import predict_views
from transfer.evaluation.calibration import measure_calibration
from transfer.evaluation.evaluate import evaluate
from transfer.runs import checkpoint
from transfer.training.train import train


def probabilities(run: Path, paths: np.ndarray) -> dict[str, np.ndarray]:
    """Return the probabilities of all classes, computed for one image after the other."""
    from transfer.data.images.batches import ImageBatches

    (model,) = checkpoint.load_models(run).values()
    parts = [model.predict(images) for _, images in ImageBatches(paths, model.backbone.preprocessing, batch_size=1)]
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def test_average_predictions() -> None:
    rng = np.random.default_rng(0)
    members = [{"object": rng.dirichlet(np.ones(4), 5), "age": rng.normal(size=5)} for _ in range(3)]
    together = ensemble.average_predictions(members)
    assert together["object"].sum(1) == pytest.approx(np.ones(5))
    for name in members[0]:
        np.testing.assert_allclose(together[name], sum(member[name] for member in members) / 3)


def test_several_runs_are_evaluated_as_an_ensemble(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    runs = tuple(tmp_path / str(seed) for seed in range(3))
    for seed, run in enumerate(runs):
        tested = train(config(out=run, seed=seed, split_seed=7, policy="partial:1", epochs=2)).tests[0][0]
    result = evaluate(EvaluateConfig(runs[0], runs[1:]))
    expected = np.mean([probabilities(run, tested.paths)["object"] for run in runs], axis=0)
    right = expected.argmax(1) == tested.object
    assert result["test"]["object"]["n"] == len(tested)
    assert result["test"]["object"]["accuracy"] == pytest.approx(right.mean())
    error = measure_calibration(expected.max(1), right).error  # of the mean of the runs' calibrated probabilities
    assert result["test"]["object"]["calibration_error"] == pytest.approx(error, abs=1e-5)


def test_a_run_in_an_ensemble_with_itself_is_unchanged(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    train(config(out=tmp_path / "a"))
    assert (
        evaluate(EvaluateConfig(tmp_path / "a", (tmp_path / "a",)))["test"]
        == (evaluate(EvaluateConfig(tmp_path / "a"))["test"])
    )


def test_runs_of_different_splits_are_refused(config: Callable[..., TrainConfig], folder: Path, tmp_path: Path) -> None:
    """One may have been trained on the other's test images."""
    for seed in (0, 1):
        train(config(out=tmp_path / str(seed), seed=seed))
    with pytest.raises(TransferError, match="--split-seed"):
        evaluate(EvaluateConfig(tmp_path / "0", (tmp_path / "1",)))
    assert evaluate(EvaluateConfig(tmp_path / "0", (tmp_path / "1",), data=str(folder)))["test"]["object"]["n"] == 48


def test_runs_of_different_classes_are_refused(
    config: Callable[..., TrainConfig], folder: Path, tmp_path: Path
) -> None:
    train(config(out=tmp_path / "a"))
    train(config(out=tmp_path / "b", data=str(folder / "plain")))
    with pytest.raises(TransferError, match="they differ in the head domain"):
        evaluate(EvaluateConfig(tmp_path / "a", (tmp_path / "b",), data=str(folder)))


@pytest.mark.parametrize("heads", ["dual", "separate"])
def test_snapshots_are_saved_and_evaluated_as_an_ensemble(
    config: Callable[..., TrainConfig], tmp_path: Path, heads: str
) -> None:
    out = tmp_path / "run"
    run = train(config(out=out, policy="partial:1", epochs=4, cycles=2, heads=heads, lr=0.01))
    files = sorted(out.glob("snapshot*.safetensors"))
    assert [file.name for file in files] == ["snapshot1.safetensors", "snapshot2.safetensors"]
    said = json.loads((out / "result.json").read_text())["snapshots"]
    assert said["n"] == 2
    first, second = (load_file(file) for file in files)
    assert any(not torch.equal(first[name], tensor) for name, tensor in second.items())  # of two cycles
    again = evaluate(EvaluateConfig(files[0], tuple(files[1:])))
    assert again["test"]["object"]["accuracy"] == pytest.approx(said["test"]["object"]["accuracy"])
    # What the run itself predictions with is still the best epoch's.
    alone = evaluate(EvaluateConfig(out))
    assert alone["test"]["object"]["accuracy"] == run.result["test"]["object"]["accuracy"]
    assert run.result["policy"]["frozen_unchanged"]
    once_more = config(out=out, policy="partial:1", overwrite=True)
    train(once_more)
    assert not list(out.glob("snapshot*"))


@pytest.mark.parametrize("heads", ["dual", "separate"])
def test_snapshots_are_calibrated(config: Callable[..., TrainConfig], tmp_path: Path, heads: str) -> None:
    """The run's temperatures divide the outputs of each head of each snapshot, and change nothing else."""
    settings = {"policy": "partial:1", "epochs": 4, "cycles": 2, "heads": heads, "report": False}
    calibrated = train(config(out=tmp_path / "calibrated", **settings)).result["temperatures"]
    train(config(out=tmp_path / "plain", calibrate=False, **settings))
    assert set(calibrated) == {"object", "domain"}
    for name in ("snapshot1.safetensors", "snapshot2.safetensors"):
        plain, folded = (load_file(tmp_path / run / name) for run in ("plain", "calibrated"))
        assert plain.keys() == folded.keys()
        for key, tensor in plain.items():
            (temperature,) = [t for head, t in calibrated.items() if f"head_{head}." in key] or [1.0]
            torch.testing.assert_close(folded[key].double() * temperature, tensor.double(), rtol=1e-3, atol=1e-5)


def test_snapshots_restore_the_models_weights(config: Callable[..., TrainConfig]) -> None:
    models = train(config(policy="partial:1", epochs=1)).models
    before = copy_state(models[""])
    moved = {name: tensor + 1 for name, tensor in before.items() if name.startswith("heads.layers")}
    for member in ensemble.load_snapshots(models, {"": [moved, moved]}):
        assert all(torch.equal(member[""].state_dict()[name], tensor) for name, tensor in moved.items())
    assert not changed_names(before, models[""].state_dict())


def test_a_split_seed_of_its_own(config: Callable[..., TrainConfig]) -> None:
    tested = [
        set(train(dataclasses.replace(config(seed=seed, split_seed=split, epochs=1))).tests[0][0].paths)
        for seed, split in ((0, 3), (1, 3), (3, None), (1, None))
    ]
    assert tested[0] == tested[1] == tested[2] != tested[3]


def test_views_and_averages_from_train_and_evaluate(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    """Evaluating the saved run with the same views gives the result of training; frozen layers are unchanged."""
    out = tmp_path / "run"
    view = ViewConfig(10, (24, 32))
    one = dataclasses.replace(config(out=out, policy="partial:1", average="ema", split_seed=1), view=view)
    run = train(one)
    assert run.result["policy"]["frozen_unchanged"]
    assert evaluate(EvaluateConfig(out, view=view))["test"] == run.result["test"]
    table, predictions = run.tests[0]
    np.testing.assert_allclose(
        predictions["object"], predict_views(run.models[""], table.paths, view)["object"], atol=1e-6
    )
