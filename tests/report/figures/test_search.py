"""Figures of a search, from its result alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from transfer.report.figures.search import draw_landscape, draw_range_test


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adamw", "dropout": 0.0, "batch_size": 64}], ids=str)
def test_landscape_has_a_panel_for_the_plane_and_each_setting(
    tmp_path: Path, search_result: Any, settings: dict[str, Any]
) -> None:
    draw_landscape(tmp_path / "landscape.png", search_result(**settings))
    image = imread(tmp_path / "landscape.png")
    panels = 3 + len(settings)
    assert image.shape[0] == pytest.approx(110 * 4.2 * -(-panels // 3), abs=2)
    blue = np.array([0x00, 0x72, 0xB2]) / 255
    assert (np.abs(image[..., :3] - blue).max(2) < 0.25).sum() > 100


def test_landscape_of_one_setting_and_of_one_trial(tmp_path: Path, search_result: Any) -> None:
    one = search_result(1)
    draw_landscape(tmp_path / "a.png", one)
    for trial in one["trials"]:
        del trial["settings"]["weight_decay"]
    draw_landscape(tmp_path / "b.png", one)
    assert imread(tmp_path / "b.png").shape[1] == pytest.approx(110 * 5.2, abs=2)


def test_range_test_draws_loss_and_suggested_rates(tmp_path: Path) -> None:
    rate = np.geomspace(1e-5, 1, 30).tolist()
    loss = (2 - np.exp(-((np.log10(rate) + 2) ** 2))).tolist()
    given = {"curve": {"rate": rate, "loss": loss, "smoothed": loss}}
    given |= {"steepest": 3e-3, "minimum_over_ten": 1e-3, "suggestion": 1e-3}
    draw_range_test(tmp_path / "rates.png", given)
    image = imread(tmp_path / "rates.png")[..., :3]
    assert (image[..., 0] - image[..., 2] > 0.2).sum() > 200  # two lines of red
