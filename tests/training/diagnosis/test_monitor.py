import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.training.diagnosis.monitor import find_problems

EPOCHS = 30


def lines_of(losses, train=(), val=(), **more):
    lines = [
        {"phase": "full", "epoch": i + 1, "loss": float(loss), "rate": 0.1} | more for i, loss in enumerate(losses)
    ]
    for side, values in (("train", train), ("val", val)):
        for line, value in zip(lines, values, strict=False):
            line[side] = {"object": float(value)}
    return lines


def decay(first, last, pace=5.0):
    return last + (first - last) * np.exp(-pace * np.linspace(0, 1, EPOCHS))


def layers_of(gradients, dead=None):
    dead = [0.1] * len(gradients) if dead is None else dead
    return [
        {"layer": f"layer{i + 1}", "activation": 1.0, "gradient": g, "dead": d}
        for i, (g, d) in enumerate(zip(gradients, dead, strict=True))
    ]


HEALTHY = lines_of(decay(3.4, 0.2), decay(0.1, 0.97), decay(0.1, 0.9))


def kinds(said):
    return [sentence.split(":")[0] for sentence in said]


def test_a_training_that_goes_well_is_met_with_silence() -> None:
    assert find_problems(HEALTHY, layers_of([0.02, 0.05, 0.1])) == []


@pytest.mark.parametrize("noise", [0.01, 0.05])
@pytest.mark.parametrize("seed", range(5))
def test_so_is_one_with_noise(noise: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    losses = decay(3.4, 0.2) * np.exp(noise * rng.normal(size=EPOCHS))
    train, val = (decay(0.1, last) + noise / 5 * rng.normal(size=EPOCHS) for last in (0.95, 0.88))
    assert find_problems(lines_of(losses, train, val)) == []


def test_training_rises_and_validation_stalls() -> None:
    val = np.minimum(decay(0.1, 0.62, 12.0), 0.55)
    said = find_problems(lines_of(decay(3.4, 0.05), decay(0.1, 0.99), val))
    stall = int(np.argmax(val >= 0.54)) + 1
    assert kinds(said) == ["overfitting"]
    assert f"object: validation has not risen since epoch {stall} ({val[stall - 1]:.3f}, now 0.550)" in said[0]
    assert "training is at" in said[0]
    assert "--weight-decay" in said[0]


def test_validation_that_falls_is_overfitting_too_and_one_that_still_rises_is_not() -> None:
    train = decay(0.1, 0.99)
    falling = np.r_[np.linspace(0.2, 0.7, 10), np.linspace(0.69, 0.5, 20)]
    rising = np.linspace(0.2, 0.7, EPOCHS)
    assert kinds(find_problems(lines_of(decay(3.4, 0.05), train, falling))) == ["overfitting"]
    assert find_problems(lines_of(decay(3.4, 0.05), train, rising)) == []


def test_training_that_stands_still_with_validation_is_not_overfitting() -> None:
    said = find_problems(lines_of(decay(3.4, 2.9), np.full(EPOCHS, 0.3), np.full(EPOCHS, 0.25)))
    assert "overfitting" not in kinds(said)


def test_only_the_head_that_overfits_is_named() -> None:
    lines = lines_of(decay(3.4, 0.05), decay(0.1, 0.99), np.full(EPOCHS, 0.5))
    for line, good in zip(lines, decay(0.3, 0.98), strict=True):
        line["train"]["domain"] = line["val"]["domain"] = float(good)
    said = find_problems(lines)
    assert len(said) == 1
    assert said[0].startswith("overfitting: object")


def test_a_loss_that_jumps() -> None:
    losses = decay(3.4, 1.5)
    losses[[7, 15, 22]] = 4.0, 6.0, 5.0
    (said,) = find_problems(lines_of(losses, decay(0.1, 0.5), decay(0.1, 0.5)))
    assert said.startswith("rate too high: the loss jumps (in epoch 8, 16, 23), 3.400 at first")
    assert "--lr" in said


def test_one_jump_is_an_accident_and_a_small_one_near_zero_is_nothing() -> None:
    losses = decay(3.4, 0.2)
    losses[10] = 3.0
    assert find_problems(lines_of(losses, decay(0.1, 0.97), decay(0.1, 0.9))) == []
    losses = decay(3.4, 0.01, 20.0)
    losses[12::3] *= 3
    assert find_problems(lines_of(losses, decay(0.1, 0.97), decay(0.1, 0.9))) == []


def test_a_loss_that_only_rises() -> None:
    (said,) = find_problems(lines_of(np.linspace(3.4, 9.0, EPOCHS), np.full(EPOCHS, 0.05)))
    assert said.startswith("rate too high: the loss rises, 3.400 at first and 9.000 at last")


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_loss_that_is_no_number(broken: float) -> None:
    (said,) = find_problems(lines_of([3.4, 2.0, broken]))
    assert said.startswith(f"rate too high: the loss became {broken} in epoch 3")


def test_what_a_new_phase_opens_may_shake_the_loss() -> None:
    losses = np.r_[decay(3.4, 1.0)[:10], decay(3.0, 0.9)[:10], decay(2.8, 0.2)[:10]]
    train = np.r_[[decay(0.1, 0.95)[:10]] * 3].ravel()
    lines = lines_of(losses, train, train)
    assert kinds(find_problems(lines)) == ["rate too high"]
    for i, line in enumerate(lines):
        line["phase"] = f"phase {i // 10}"
    assert find_problems(lines) == []


def test_a_flat_loss() -> None:
    (said,) = find_problems(lines_of(np.r_[900.0, np.linspace(3.43, 3.40, EPOCHS - 1)], np.full(EPOCHS, 0.05)))
    assert said.startswith("rate too low: the loss stays flat (3.430 after epoch 2, 3.400 after 30)")
    assert "ten times the --lr" in said


def test_a_flat_loss_is_fine_where_all_is_learned_and_not_the_rate_s_fault_where_units_are_dead() -> None:
    flat = np.full(EPOCHS, 0.51)
    assert find_problems(lines_of(flat, np.full(EPOCHS, 0.99), np.full(EPOCHS, 0.95))) == []
    said = find_problems(lines_of(flat, np.full(EPOCHS, 0.05)), layers_of([0.0, 0.0, 0.1], [1.0, 0.2, 0.0]))
    assert kinds(said) == ["nothing learned", "dead units"]
    assert "dead units" in said[0]
    assert "100% of layer1 have a constant output" in said[1]


def test_a_loss_that_falls_as_steadily_at_the_end_as_at_the_start() -> None:
    (said,) = find_problems(lines_of(np.linspace(3.4, 2.6, EPOCHS), np.linspace(0.05, 0.3, EPOCHS)))
    assert said.startswith("rate too low: the loss still falls as steadily as at the start (3.372 to 2.600)")
    assert "--epochs" in said


def test_dead_units_are_named_by_layer_with_what_to_try() -> None:
    (said,) = find_problems(HEALTHY, layers_of([0.1, 0.1, 0.1], [0.39, 0.4, 0.875]))
    assert said.startswith("dead units: 40% of layer2, 88% of layer3 have a constant output")
    assert "leaky_relu" in said


def test_gradients_that_vanish_or_explode() -> None:
    assert find_problems(HEALTHY, layers_of([2e-3, 0.1, 1.0])) == []
    (said,) = find_problems(HEALTHY, layers_of([1e-5, 1e-3, 0.1]))
    assert said.startswith("vanishing gradients: 1.0e-01 at layer3, 1.0e-05 at layer1; try ReLU")
    (said,) = find_problems(HEALTHY, layers_of([200.0, 1.0, 0.1]))
    assert said.startswith("exploding gradients: 1.0e-01 at layer3, 2.0e+02 at layer1")
    assert find_problems(HEALTHY, layers_of([math.nan, math.nan])) == []


def test_each_course_is_read_by_itself() -> None:
    bad = lines_of(np.linspace(3.4, 9.0, EPOCHS), run="seed1", network="object")
    good = [line | {"run": "seed0"} for line in HEALTHY]
    (said,) = find_problems([line for pair in zip(good, bad, strict=True) for line in pair])
    assert said.startswith("run seed1 network object: rate too high")


def test_what_is_solved_or_too_short_to_read_is_passed_over() -> None:
    solved = [{"phase": "probe", "epoch": 1, "head": "object", "strength": 1.0, "loss": 9.0}] * EPOCHS
    assert find_problems([*solved, {"phase": "probe", "epoch": 2, "solved": {"object": 1.0}}]) == []
    assert find_problems(lines_of([3.4] * 5, [0.1] * 5, [0.1] * 5)) == []
    assert find_problems([]) == []


@given(st.lists(st.floats(allow_nan=True), max_size=12), st.lists(st.floats(0, 1), min_size=12, max_size=12))
def test_no_curve_breaks_it(losses: list[float], accuracies: list[float]) -> None:
    said = find_problems(lines_of(losses, accuracies, accuracies[::-1]), layers_of(accuracies, accuracies))
    assert all(isinstance(sentence, str) and "\n" not in sentence for sentence in said)
