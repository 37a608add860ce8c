"""Two processes and one, the same global batch: the same metrics."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from transfer.data.images.batches import ImageBatches  # noqa: F401


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# Gradients are added up in another order, and a tail's layers meet other batch sizes: rounding, over eight steps.
@pytest.mark.parametrize(
    ("name", "loss", "weights"),
    [
        ("frozen", 1e-5, 1e-5),
        ("parts", 1e-5, 1e-5),
        ("synced", 1e-4, 1e-3),
        ("features", 0, 0),
        ("adapted", 1e-3, None),
    ],
)
def test_two_processes_give_what_one_gives(ran, name, loss, weights):
    for world in (1, 2):
        assert ran[f"{name} {world}"]["codes"] == [0] * world, ran[f"{name} {world}"]["err"]
    one, two = (ran[""] / f"run {name} {world}" for world in (1, 2))
    for a, b in zip(lines(one), lines(two), strict=True):
        assert a.get("val") == b.get("val")
        assert a.get("train") == b.get("train")
        assert a.get("candidate") == b.get("candidate")
        for key in ("loss", "val_loss", "score"):
            assert a.get(key, 0) == pytest.approx(b.get(key, 0), rel=loss, abs=loss)
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, two)]
    # The calibration error depends on probabilities, and is rounded as losses are; all else on decisions.
    heads = [[*result.get("test", {}).values(), *result.get("target", {}).values()] for result in results]
    errors = [[head.pop("calibration_error", 0.0) for head in each] for each in heads]
    assert errors[0] == pytest.approx(errors[1], rel=loss, abs=loss)
    assert results[0].get("test") == results[1].get("test")
    assert results[0].get("target") == results[1].get("target")
    assert all(result["policy"]["frozen_unchanged"] for result in results)
    if weights is not None:
        mine, theirs = (load_file(folder / "model.safetensors") for folder in (one, two))
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            assert np.allclose(theirs[key], value, rtol=weights, atol=weights), key


def test_the_first_alone_prints_and_writes(ran):
    for name in ("frozen", "adapted"):
        out = ran[f"{name} 2"]
        assert "saved in" in out["out"][0]
        assert not out["out"][1]
        assert not out["err"][1]
        files = {file.name for file in (ran[""] / f"run {name} 2").iterdir()}
        assert files == {file.name for file in (ran[""] / f"run {name} 1").iterdir()}
        assert len(lines(ran[""] / f"run {name} 2")) == len(lines(ran[""] / f"run {name} 1"))


@pytest.mark.parametrize("check", ["extraction", "full"])
def test_in_several(ran, check):
    assert ran[check]["codes"] == [0, 0], ran[check]["err"]
