"""Log lines and notes on the progress of training."""

from collections.abc import Iterable
from typing import Any

from transfer.training.resume import PhaseChoice


def format_epoch(line: dict[str, Any]) -> str:
    """Return an epoch's line as text: loss, then training and validation accuracy of every head."""
    words = [f"{line['network']} " if "network" in line else "", f"{line['phase']:<10} "]
    if "solved" in line:
        # Not the validation accuracy in the line of the same L2 value: that was solved to a coarser tolerance.
        words.append(f"solved to the final tolerance: {describe_choice(line['solved'])}")
    elif "strength" in line:
        share = f"{line['percent']:>3g} % " if "percent" in line else f"{line['on']:<12} " if "on" in line else ""
        words.append(f"{line['head']:<8} {share}L2 {line['strength']:<8.2g}")
    else:
        words.append(f"epoch {line['epoch']:>3}" + (f"/{line['of']}" if "of" in line else ""))
    if "loss" in line:
        words.append(f"  loss {line['loss']:.4f}")
    shown = line | {"cosine": line.get("interference", {}).get("cosine", {})}
    for side in ("train", "val", "cosine"):
        if shown.get(side):
            words.append(f"  {side} " + " ".join(f"{name} {value:.3f}" for name, value in shown[side].items()))
    return "".join([*words, f"  {line['seconds']:.1f} s"])


def describe_choice(chosen: PhaseChoice) -> str:
    """Return a phase's best number of epochs, or its L2 regularisation, as text."""
    if isinstance(chosen, int):
        return f"{chosen} epochs"
    return "L2 " + ", ".join(f"{name} {_format_l2(solved)}" for name, solved in chosen.items())


def _format_l2(solved: Any) -> str:
    if not isinstance(solved, dict):
        return f"{solved:.2g}"
    if "percent" in solved:
        return f"{solved['strength']:.2g} on {solved['percent']:g} %"
    return " and ".join(f"{l2:.2g} on {member}" for member, l2 in solved.items())


def note_divided_batches(parts: Iterable[int], batch: int) -> list[str]:
    """Return a note on batches that did not fit into memory; `parts` has each network's number of parts."""
    most = max(parts)
    if most == 1:
        return []
    return [
        f"out of memory: batches of {batch} were divided into {most} parts and their gradients added up (equal but for "
        "rounding, BatchNorm statistics, and dropout masks)"
    ]
