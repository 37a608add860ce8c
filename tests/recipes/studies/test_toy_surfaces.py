"""Toy surfaces, and what tells optimizers apart on them."""

import numpy as np
import pytest
import torch
from studies.toy_surfaces import SETTINGS, SURFACES, trace_path

from transfer.config.train import LearnConfig

FLOORS = {
    "ravine": [(0.0, 0.0)],
    "saddle": [(0.0, 2**0.5), (0.0, -(2**0.5))],
    "local minimum": [(2.0, 0.0)],
    "noise": [(0.0, 0.0)],
}


def height(name: str, place: np.ndarray) -> float:
    return float(SURFACES[name].height(*torch.from_numpy(np.asarray(place, dtype=float))))


@pytest.mark.parametrize("name", SURFACES)
def test_the_floors_are_where_they_are_said_to_be(name: str) -> None:
    x, y, heights = SURFACES[name].grid(241)
    assert heights.shape == (241, 241)
    row, column = np.unravel_index(heights.argmin(), heights.shape)
    assert min(np.hypot(x[column] - fx, y[row] - fy) for fx, fy in FLOORS[name]) < 0.05
    assert heights[row, column] == pytest.approx(height(name, (x[column], y[row])))


def test_plain_descent_by_hand() -> None:
    place = np.array(SURFACES["ravine"].start)
    places = trace_path(SURFACES["ravine"], LearnConfig(optimizer="sgd", lr=0.01, momentum=0.0), steps=20)
    for step in range(20):
        np.testing.assert_allclose(places[step], place, rtol=1e-12)
        place = place - 0.01 * np.array([place[0], 50 * place[1]])


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("surface", ["ravine", "saddle"])
def test_all_get_down_without_noise(name: str, surface: str) -> None:
    places = trace_path(SURFACES[surface], SETTINGS[name], steps=400)
    assert min(np.hypot(*(places[-1] - floor)) for floor in FLOORS[surface]) < 0.1


def test_in_a_ravine_momentum_is_ahead_of_plain_descent() -> None:
    left = {name: height("ravine", trace_path(SURFACES["ravine"], SETTINGS[name])[-1]) for name in ("sgd", "momentum")}
    assert left["momentum"] < 0.2 * left["sgd"]


def test_at_a_saddle_plain_descent_waits() -> None:
    ends = {name: trace_path(SURFACES["saddle"], SETTINGS[name], steps=60)[-1] for name in ("sgd", "adam", "rmsprop")}
    assert abs(ends["sgd"][1]) < 0.2
    assert min(abs(ends["adam"][1]), abs(ends["rmsprop"][1])) > 1.0


def test_momentum_and_adam_roll_over_the_first_basin() -> None:
    ends = {name: trace_path(SURFACES["local minimum"], SETTINGS[name], steps=300)[-1] for name in SETTINGS}
    assert [name for name, end in ends.items() if end[0] < 0] == ["sgd", "nesterov", "adagrad", "rmsprop"]
    assert ends["momentum"] == pytest.approx([2, 0], abs=0.1)
    assert ends["adam"] == pytest.approx([2, 0], abs=0.1)


def test_noise_is_drawn_from_the_seed_and_costs_lbfgs_its_lead() -> None:
    noisy, still = SURFACES["noise"], SURFACES["ravine"]
    assert (trace_path(noisy, SETTINGS["sgd"], seed=1) == trace_path(noisy, SETTINGS["sgd"], seed=1)).all()
    assert (trace_path(noisy, SETTINGS["sgd"], seed=1) != trace_path(noisy, SETTINGS["sgd"], seed=2)).any()
    assert height("ravine", trace_path(still, SETTINGS["lbfgs"], steps=20)[-1]) < 1e-10
    ends = [height("noise", trace_path(noisy, SETTINGS["lbfgs"], seed=seed)[-1]) for seed in range(10)]
    plain = [height("noise", trace_path(noisy, SETTINGS["sgd"], seed=seed)[-1]) for seed in range(10)]
    assert np.mean(ends) > 2 * np.mean(plain)
