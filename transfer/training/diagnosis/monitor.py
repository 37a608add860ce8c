"""Detect problems of a training: overfitting, a wrong learning rate, dead units, vanishing gradients."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from transfer.errors import list_examples

Lines = Sequence[Mapping[str, Any]]

MIN_EPOCHS = 6  # shorter trainings have no trends
STALL = 0.01  # rise of validation accuracy that counts as an improvement
GAP = 0.15  # lead of training over validation accuracy in overfitting
JUMP = 1.2  # an epoch's loss over that of the epoch before
MIN_RISE = 0.05  # its rise as a share of the initial loss
FLAT = 0.02  # change of a flat loss, as a share of it
STEADY = 0.8  # fall of the loss in the late half over that in the early half
FITTED_ACCURACY = 0.9  # training accuracy above which a flat loss is no problem
DEAD = 0.4  # share of a layer's units
GRADIENT_RATIO = 1e-3  # gradient at the first layer over that at the last


def find_problems(lines: Lines, layers: Lines = ()) -> list[str]:
    """Return a sentence for each problem, with what to try.

    Parameters
    ----------
    lines : sequence of mapping
        As in metrics.jsonl: ``epoch``, ``loss``, ``train`` and ``val`` (accuracy by head), ``phase``; with ``run``,
        ``seed`` or ``network`` where there are several trainings. Lines of solved phases are ignored.
    layers : sequence of mapping
        For each layer, the first one first: ``layer``, ``gradient`` (its spread) and ``dead`` (fraction of units), as
        :func:`course.layers.layer_statistics` gives them.

    Examples
    --------
    >>> find_problems([{"epoch": i, "loss": 3.43 - 0.001 * i, "train": {"object": 0.05}} for i in range(1, 9)])[0][:44]
    'rate too low: the loss stays flat (3.428 aft'
    """
    trainings: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        if "loss" in line and "strength" not in line:
            name = " ".join(f"{key} {line[key]}" for key in ("run", "seed", "network") if key in line)
            trainings.setdefault(name, []).append(line)
    sentences = []
    dead = _dead(layers)
    for name, training in trainings.items():
        found = _too_high(training) or _too_low(training, bool(dead))
        found += _overfitting(training)
        sentences += [f"{name}: {sentence}" if len(trainings) > 1 else sentence for sentence in found]
    blocked = dead and layers[0]["gradient"] == 0  # explained by the dead units
    return sentences + dead + ([] if blocked else _gradients(layers))


def _too_high(training: Lines) -> list[str]:
    losses = [line["loss"] for line in training]
    advice = "a tenth of --lr, --clip 1, or some --warmup"
    broken = next((line for line in training if not math.isfinite(line["loss"])), None)
    if broken:
        return [f"rate too high: the loss became {broken['loss']} in epoch {broken['epoch']}; try {advice}"]
    jumps = [
        now["epoch"]
        for before, now in itertools.pairwise(training)
        if before.get("phase") == now.get("phase")  # a new phase may raise the loss
        and now["loss"] > JUMP * before["loss"]
        and now["loss"] - before["loss"] > MIN_RISE * losses[0]
    ]
    if len(jumps) < max(2, len(training) // 20) and not (len(training) >= 2 and losses[-1] > JUMP * losses[0]):
        return []
    where = f"jumps (in epoch {list_examples([*map(str, jumps)], 3)})" if jumps else "rises"
    return [f"rate too high: the loss {where}, {losses[0]:.3f} at first and {losses[-1]:.3f} at last; try {advice}"]


def _too_low(training: Lines, dead: bool) -> list[str]:
    """Detect a loss that is flat, or falls late as fast as early; the first epoch is ignored."""
    losses = [line["loss"] for line in training][1:]
    learned = min(training[-1].get("train", {}).values(), default=0.0) >= FITTED_ACCURACY
    if len(training) < MIN_EPOCHS or learned or losses[0] <= 0:
        return []
    second, last = training[1]["epoch"], training[-1]["epoch"]
    if max(losses) - min(losses) < FLAT * abs(losses[0]):
        span = f"the loss stays flat ({losses[0]:.3f} after epoch {second}, {losses[-1]:.3f} after {last})"
        if dead:
            return [f"nothing learned: {span}; its dead units pass nothing on"]
        return [f"rate too low: {span}; try ten times the --lr, another activation or initialisation"]
    half = len(losses) // 2
    early, late = losses[0] - losses[half], losses[half] - losses[-1]
    if early > 0 and late >= STEADY * early and losses[-1] > losses[0] / 2:
        return [
            f"rate too low: the loss still falls as steadily as at the start ({losses[0]:.3f} to {losses[-1]:.3f}); "
            "try three times the --lr, or more --epochs"
        ]
    return []


def _overfitting(training: Lines) -> list[str]:
    found = []
    measured = [line for line in training if line.get("train") and line.get("val")]
    if len(measured) < MIN_EPOCHS:
        return []
    for head in measured[0]["val"]:
        if not all(head in line["train"] and head in line["val"] for line in measured):
            continue
        train, val = ([line[side][head] for line in measured] for side in ("train", "val"))
        stall = next(i for i, value in enumerate(val) if value >= max(val) - STALL)
        stalled = len(val) - 1 - stall >= max(3, len(val) // 3)
        if stalled and train[-1] - val[-1] >= GAP and train[-1] > train[0]:
            found.append(
                f"overfitting: {head}: validation has not risen since epoch {measured[stall]['epoch']} "
                f"({val[stall]:.3f}, now {val[-1]:.3f}), training is at {train[-1]:.3f}; try more images or --augment, "
                "higher --weight-decay or --dropout, fewer trained layers, or fewer epochs"
            )
    return found


def _dead(layers: Lines) -> list[str]:
    dying = [line for line in layers if line["dead"] >= DEAD]
    if not dying:
        return []
    where = ", ".join(f"{line['dead']:.0%} of {line['layer']}" for line in dying)
    return [
        f"dead units: {where} have a constant output; try a lower rate, standardised inputs, "
        "He initialisation, leaky_relu, or batch normalisation"
    ]


def _gradients(layers: Lines) -> list[str]:
    if len(layers) < 2:
        return []
    first, last = layers[0], layers[-1]
    sizes = f"{last['gradient']:.1e} at {last['layer']}, {first['gradient']:.1e} at {first['layer']}"
    if first["gradient"] < GRADIENT_RATIO * last["gradient"]:
        return [
            f"vanishing gradients: {sizes}; try ReLU instead of sigmoid or tanh, He (for tanh Xavier) initialisation, "
            "batch normalisation, or fewer layers"
        ]
    if first["gradient"] * GRADIENT_RATIO > last["gradient"]:
        return [f"exploding gradients: {sizes}; try He or Xavier initialisation, batch normalisation, or --clip 1"]
    return []
