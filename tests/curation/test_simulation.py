import json
from pathlib import Path
from shutil import copy

import pytest

from transfer.config.curation import PickConfig, SimulationConfig
from transfer.config.shared import BackboneConfig, ImagesConfig
from transfer.curation.simulation import simulate
from transfer.errors import TransferError
from transfer.report.console.picks_text import simulation_text


def configure(images, n=3, strategies=(), rounds=2, **more):
    simulation = SimulationConfig(simulate=True, strategies=strategies, rounds=rounds, seeds=(0, 1))
    return PickConfig(
        ImagesConfig(str(images)), n=n, backbone=BackboneConfig("glyphnet"), simulation=simulation, **more
    )


def test_strategies_are_compared_with_random_picks(images, tmp_path):
    folder = Path(images.paths[0]).parents[2]
    out = tmp_path / "a.json"
    result = simulate(configure(folder, strategies=("auto", "margin"), out=out))
    assert [*result["curves"]] == ["random", "auto", "margin"]
    assert result["labels"] == [3, 6]
    assert result["classes"] == 3
    assert result["goal"] == result["curves"]["random"]["accuracy"][-1]
    assert json.loads(out.read_text())["curves"] == result["curves"]
    text = simulation_text(result)
    assert text.splitlines()[0].split()[:6] == ["labels", "a", "class", "random", "random", "+"]
    assert f"auto with unlabelled images reaches {result['goal']:.3f}" in text
    assert "means of 2 seeds" in text


def test_the_default_is_the_strategy_and_the_same_seeds_give_the_same_result(images):
    folder = Path(images.paths[0]).parents[2]
    one, two = (simulate(configure(folder, strategy="typiclust", rounds=1)) for _ in range(2))
    assert [*one["curves"]] == ["random", "typiclust"]
    assert one["curves"] == two["curves"]


def test_errors(images, tmp_path):
    folder = Path(images.paths[0]).parents[2]
    with pytest.raises(TransferError, match=r"--n 30 in --rounds 2: only \d+ images can be chosen"):
        simulate(configure(folder, n=30))
    with pytest.raises(TransferError, match="unknown strategy 'autos'"):
        simulate(configure(folder, strategies=("autos",)))
    for i, path in enumerate(images.paths[:4]):
        copy(path, tmp_path / f"{i}.png")
    with pytest.raises(TransferError, match="--simulate needs a set with labels"):
        simulate(configure(tmp_path))
