"""The mean of several runs' weights, against the mean of their files' tensors."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from transfer.config.commands import EvaluateConfig
from transfer.config.train import TrainConfig
from transfer.errors import TransferError
from transfer.evaluation.averages.soup import average_weights, check_soup_file
from transfer.evaluation.evaluate import evaluate
from transfer.evaluation.predict import predict
from transfer.model import TransferModel
from transfer.runs import checkpoint
from transfer.training.train import train


@pytest.fixture
def trained(config: Callable[..., TrainConfig], tmp_path: Path) -> Callable[..., tuple[Path, ...]]:
    """Return a function that trains runs on one split, in different orders of the images."""

    def run(count: int = 2, **settings: object) -> tuple[Path, ...]:
        folders = tuple(tmp_path / f"run{seed}" for seed in range(count))
        settings = {"policy": "partial:1", "statistics": "learning", "epochs": 2, "report": False, **settings}
        for seed, folder in enumerate(folders):
            train(config(out=folder, seed=seed, split_seed=7, **settings))
        return folders

    return run


@pytest.mark.parametrize("heads", ["dual", "separate"])
def test_the_saved_model_has_the_mean_of_all_tensors(heads: str, trained, tmp_path: Path) -> None:
    runs, file = trained(3, heads=heads), tmp_path / "new" / "soup.safetensors"
    result = evaluate(EvaluateConfig(runs[0], runs[1:], soup=file))
    states = [load_file(run / "model.safetensors") for run in runs]
    found = load_file(file)
    assert found.keys() == states[0].keys()
    for name, tensor in found.items():
        parts = [state[name].double().numpy() for state in states]
        wanted = sum(parts) / 3 if tensor.is_floating_point() else parts[0]
        np.testing.assert_allclose(tensor.numpy(), wanted, rtol=1e-6, atol=1e-9)
    assert any(not torch.equal(states[0][name], states[1][name]) for name in found)
    assert result["notes"][-1] == "the weights of 3 runs are averaged"
    assert "expected_accuracy" not in result
    assert "uncertainty" not in result


def test_it_is_measured_as_the_saved_model_is(trained, folder: Path, tmp_path: Path) -> None:
    runs, file = trained(), tmp_path / "soup.safetensors"
    measured = evaluate(EvaluateConfig(runs[0], runs[1:], data=str(folder), soup=file))["test"]
    assert measured == evaluate(EvaluateConfig(file, data=str(folder)))["test"]
    path = sorted(folder.rglob("*.png"))[0]
    (found,) = predict(checkpoint.load_models(file), [path])
    assert found["object"] in {"blue", "green", "red"}


def test_a_soup_of_a_run_with_itself_is_the_run(trained, tmp_path: Path) -> None:
    (run,) = trained(1)
    file = tmp_path / "soup.safetensors"
    result = evaluate(EvaluateConfig(run, (run,), soup=file))
    assert result["test"] == evaluate(EvaluateConfig(run))["test"]
    for name, tensor in load_file(run / "model.safetensors").items():
        assert torch.equal(load_file(file)[name], tensor)


def test_thresholds_of_labels_are_averaged(trained) -> None:
    members = [checkpoint.load_models(run) for run in trained()]
    for member, value in zip(members, (0.2, 0.5), strict=True):
        specs = member[""].heads.specs
        specs["object"] = replace(specs["object"], thresholds=(value,) * 3)
    soup = average_weights([Path("a"), Path("b")], members)
    assert soup[""].heads.specs["object"].thresholds == pytest.approx((0.35,) * 3)


def test_what_has_no_mean_is_refused(trained, tmp_path: Path) -> None:
    runs, file = trained(), tmp_path / "soup.safetensors"
    names = [Path("first"), Path("second")]

    def refuse(message: str, change: Callable[[TransferModel], None]) -> None:
        members = [checkpoint.load_models(run) for run in runs]
        change(members[1][""])
        with pytest.raises(TransferError, match=f"second and first cannot be averaged: {message}"):
            average_weights(names, members)

    refuse("the backbones are other and test_resnet", lambda m: setattr(m.backbone, "name", "other"))
    refuse("they were not fine-tuned from the same", lambda m: setattr(m.backbone, "weights", "random"))
    wider = replace(checkpoint.load_models(runs[0])[""].backbone.preprocessing, input_size=(3, 64, 64))
    refuse("they read images differently", lambda m: setattr(m.backbone, "preprocessing", wider))
    refuse("heads.* is missing in one, or of another shape", lambda m: m.heads.register_buffer("new", torch.ones(1)))
    members = [checkpoint.load_models(run) for run in runs]
    with pytest.raises(TransferError, match="only one has a network for each head"):
        average_weights(names, [members[0], {"object": members[1][""]}])

    with pytest.raises(TransferError, match="name two or more"):
        EvaluateConfig(runs[0], soup=file)
    with pytest.raises(TransferError, match=r"ends in \.safetensors"):
        evaluate(EvaluateConfig(runs[0], runs[1:], soup=tmp_path / "soup.pt"))
    file.touch()
    with pytest.raises(TransferError, match="exists: name another file"):
        check_soup_file(file)
