"""Pictures and tables of a search, from its result alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from transfer.report.figures.search import found, landscape, rates, searched


def result(count: int = 30, **settings: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    trials = []
    for i in range(count):
        drawn = {"lr": float(10 ** rng.uniform(-4, 0)), "weight_decay": float(10 ** rng.uniform(-5, 0))} | settings
        accuracy = float(rng.random())
        trials.append(
            {
                "trial": i,
                "stage": "coarse" if i < count * 0.6 else "fine",
                "settings": drawn,
                "val_acc": accuracy,
                "val": {"object": accuracy, "domain": accuracy},
                "epochs": 9,
                "stopped": "halving" if i % 3 else "",
                "seconds": 0.5,
            }
        )
    best = max(trials, key=lambda t: t["val_acc"])
    selection = {"rule": "highest validation accuracy", "trials": count}
    extras = {"importance": {}, "notes": ["look out"], "final": None}
    return {"trials": trials, "best": best, "selection": selection, **extras}


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adamw", "dropout": 0.0, "batch_size": 64}], ids=str)
def test_landscape_has_a_panel_for_the_plane_and_each_setting(tmp_path: Path, settings: dict[str, Any]) -> None:
    landscape(tmp_path / "landscape.png", result(**settings))
    image = imread(tmp_path / "landscape.png")
    panels = 3 + len(settings)
    assert image.shape[0] == pytest.approx(110 * 4.2 * -(-panels // 3), abs=2)
    blue = np.array([0x00, 0x72, 0xB2]) / 255
    assert (np.abs(image[..., :3] - blue).max(2) < 0.25).sum() > 100


def test_landscape_of_one_setting_and_of_one_trial(tmp_path: Path) -> None:
    one = result(1)
    landscape(tmp_path / "a.png", one)
    for trial in one["trials"]:
        del trial["settings"]["weight_decay"]
    landscape(tmp_path / "b.png", one)
    assert imread(tmp_path / "b.png").shape[1] == pytest.approx(110 * 5.2, abs=2)


def test_the_table_has_the_best_first_and_says_how_to_go_on() -> None:
    given = result(hidden="64-32")
    text = searched(given)
    rows = text.split("\n\n")[0].splitlines()
    assert len(rows) == 11
    values = [float(row.split()[1]) for row in rows[1:]]
    assert values == sorted(values, reverse=True)
    assert values[0] == round(given["best"]["val_acc"], 4)
    assert "30 trials in 15.0 s, 20 of them stopped early" in text
    assert "note: look out" in text
    assert f"--lr {given['best']['settings']['lr']:.4g} --weight-decay" in text
    assert "--hidden 64,32" in text
    assert "no test image was looked at" in text


def test_rates_and_what_is_suggested(tmp_path: Path) -> None:
    rate = np.geomspace(1e-5, 1, 30).tolist()
    loss = (2 - np.exp(-((np.log10(rate) + 2) ** 2))).tolist()
    given = {"curve": {"rate": rate, "loss": loss, "smoothed": loss}}
    given |= {"steepest": 3e-3, "minimum_over_ten": 1e-3, "suggestion": 1e-3}
    rates(tmp_path / "rates.png", given)
    image = imread(tmp_path / "rates.png")[..., :3]
    assert (image[..., 0] - image[..., 2] > 0.2).sum() > 200  # two lines of red
    assert found(given).endswith("suggested: --lr 0.001")
