"""What a training shows, in words: overfitting, a rate that does not fit, dead units, gradients that vanish."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

Lines = Sequence[Mapping[str, Any]]

MIN_EPOCHS = 6  # epochs from which a course can be read
STALL, GAP = 0.01, 0.15  # validation accuracy that counts as better; training ahead of validation
JUMP, OF_ALL = 1.2, 0.05  # an epoch's loss over the one before, and its rise over the loss at the start
FLAT, STEADY = 0.02, 0.8  # share of the loss that moved; pace of the late half over the early one's
LEARNED = 0.9  # training accuracy from which a loss may rest
DEAD, RATIO = 0.4, 1e-3  # share of a layer's units; gradient at the first layer over that at the last


def find_problems(lines: Lines, layers: Lines = ()) -> list[str]:
    """Return a sentence for each thing that looks wrong, with what to try; none where nothing does.

    Parameters
    ----------
    lines : sequence of mapping
        As in metrics.jsonl: ``epoch``, ``loss``, ``train`` and ``val`` (accuracy by head), ``phase``; with ``run``,
        ``seed`` or ``network`` where there are several courses. Lines of solved phases are passed over.
    layers : sequence of mapping
        For each layer, the first one first: ``layer``, ``gradient`` (its spread) and ``dead`` (fraction of units), as
        :func:`course.layers.layer_statistics` gives them.

    Examples
    --------
    >>> find_problems([{"epoch": i, "loss": 3.43 - 0.001 * i, "train": {"object": 0.05}} for i in range(1, 9)])[0][:44]
    'rate too low: the loss stays flat (3.428 aft'
    """
    courses: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        if "loss" in line and "strength" not in line:
            name = " ".join(f"{key} {line[key]}" for key in ("run", "seed", "network") if key in line)
            courses.setdefault(name, []).append(line)
    said = []
    dead = _dead(layers)
    for name, course in courses.items():
        found = _too_high(course) or _too_low(course, bool(dead))
        found += _overfitting(course)
        said += [f"{name}: {sentence}" if len(courses) > 1 else sentence for sentence in found]
    blocked = dead and layers[0]["gradient"] == 0  # which the dead units explain
    return said + dead + ([] if blocked else _gradients(layers))


def _too_high(course: Lines) -> list[str]:
    losses = [line["loss"] for line in course]
    advice = "a tenth of --lr, --clip 1, or some --warmup"
    broken = next((line for line in course if not math.isfinite(line["loss"])), None)
    if broken:
        return [f"rate too high: the loss became {broken['loss']} in epoch {broken['epoch']}; try {advice}"]
    jumps = [
        now["epoch"]
        for before, now in itertools.pairwise(course)
        if before.get("phase") == now.get("phase")  # what a phase opens may well shake the loss
        and now["loss"] > JUMP * before["loss"]
        and now["loss"] - before["loss"] > OF_ALL * losses[0]
    ]
    if len(jumps) < max(2, len(course) // 20) and not (len(course) >= 2 and losses[-1] > JUMP * losses[0]):
        return []
    where = f"jumps (in epoch {', '.join(map(str, jumps[:3]))}{', …' * (len(jumps) > 3)})" if jumps else "rises"
    return [f"rate too high: the loss {where}, {losses[0]:.3f} at first and {losses[-1]:.3f} at last; try {advice}"]


def _too_low(course: Lines, dead: bool) -> list[str]:
    """Tell a loss that is flat or falls as late as early; the first epoch, which may begin anywhere, does not count."""
    losses = [line["loss"] for line in course][1:]
    learned = min(course[-1].get("train", {}).values(), default=0.0) >= LEARNED
    if len(course) < MIN_EPOCHS or learned or losses[0] <= 0:
        return []
    second, last = course[1]["epoch"], course[-1]["epoch"]
    if max(losses) - min(losses) < FLAT * abs(losses[0]):
        span = f"the loss stays flat ({losses[0]:.3f} after epoch {second}, {losses[-1]:.3f} after {last})"
        if dead:
            return [f"nothing learned: {span}; nothing gets through its dead units"]
        return [f"rate too low: {span}; try ten times the --lr, another activation or initialisation"]
    half = len(losses) // 2
    early, late = losses[0] - losses[half], losses[half] - losses[-1]
    if early > 0 and late >= STEADY * early and losses[-1] > losses[0] / 2:
        return [
            f"rate too low: the loss still falls as steadily as at the start ({losses[0]:.3f} to {losses[-1]:.3f}); "
            "try three times the --lr, or more --epochs"
        ]
    return []


def _overfitting(course: Lines) -> list[str]:
    found = []
    measured = [line for line in course if line.get("train") and line.get("val")]
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
                "stronger --weight-decay or --dropout, fewer trained layers, or to stop there"
            )
    return found


def _dead(layers: Lines) -> list[str]:
    dying = [line for line in layers if line["dead"] >= DEAD]
    if not dying:
        return []
    where = ", ".join(f"{line['dead']:.0%} of {line['layer']}" for line in dying)
    return [
        f"dead units: {where} put out the same whatever the image; try a lower rate, standardised inputs, "
        "He initialisation, leaky_relu, or batch normalisation"
    ]


def _gradients(layers: Lines) -> list[str]:
    if len(layers) < 2:
        return []
    first, last = layers[0], layers[-1]
    sizes = f"{last['gradient']:.1e} at {last['layer']}, {first['gradient']:.1e} at {first['layer']}"
    if first["gradient"] < RATIO * last["gradient"]:
        return [
            f"vanishing gradients: {sizes}; try ReLU instead of sigmoid or tanh, He (for tanh Xavier) initialisation, "
            "batch normalisation, or fewer layers"
        ]
    if first["gradient"] * RATIO > last["gradient"]:
        return [f"exploding gradients: {sizes}; try He or Xavier initialisation, batch normalisation, or --clip 1"]
    return []
