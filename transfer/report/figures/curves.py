"""Learning curves, drawn from the lines of metrics.jsonl."""

import itertools
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from transfer.report.figures.svg import BLUE, INK, ORANGE, svg_figure

Lines = list[dict[str, Any]]
Series = dict[str, tuple[list[float], list[float]]]
"""Epochs and values by the name of a seed or network."""
CURVE_COLOURS = ("#3b8fd1", "#e08a00", "#1fa37a", "#c95fa0", "#b3a11a", "#8a8a8a")


def draw_curves(lines: Lines) -> list[Markup]:
    """Return the figures of training: over epochs, over the L2 regularisation of solved probes, over candidates."""
    trained = [line for line in lines if "epoch" in line and "strength" not in line and "solved" not in line]
    trained = [line for line in trained if "candidate" not in line]
    figures = []
    if trained:
        figures.append(_draw_epochs("loss", "loss", _series(trained, ("loss",), ("val_loss",)), trained))
        for i, head in enumerate(_heads(trained)):
            series = _series(trained, ("train", head), ("val", head))
            figures.append(_draw_epochs(f"accuracy-{i}", f"{head}: accuracy", series, trained))
    by_stage = [probe for line in lines for probe in line.get("solved", {}).values() if isinstance(probe, dict)]
    stages = (None, *(name for probe in by_stage for name in probe))
    solved = [line for line in lines if "strength" in line and "val_loss" in line and line.get("on") in stages]
    heads = dict.fromkeys(line["head"] for line in solved)
    figures += [_draw_regularisation(f"strength-{i}", head, solved) for i, head in enumerate(heads)]
    candidates = [line for line in lines if "candidate" in line and "epoch" in line["candidate"]]
    return [*figures, *([_draw_candidates(candidates)] if candidates else [])]


def _heads(lines: Lines) -> Iterable[str]:
    return dict.fromkeys(head for line in lines for side in ("train", "val") for head in line.get(side, {}))


def _series_name(line: dict[str, Any]) -> str:
    return " ".join(str(line[key]) for key in ("run", "network") if key in line)


def _series(lines: Lines, *paths: tuple[str, ...]) -> list[Series]:
    """Return for each of `paths` (training, validation) the epochs and values of each seed or network."""
    by_path = []
    for path in paths:
        by_name: Series = {}
        for line in lines:
            value: Any = line
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                x, y = by_name.setdefault(_series_name(line), ([], []))
                x.append(line["epoch"])
                y.append(value)
        by_path.append(by_name)
    return by_path


def _draw_epochs(name: str, title: str, series: list[Series], lines: Lines) -> Markup:
    with svg_figure(name, f"{title} over epochs") as (figure, drawn):
        axis = figure.subplots()
        for side, by_name, colour in zip(("training", "validation"), series, (ORANGE, BLUE), strict=True):
            for i, (x, y) in enumerate(by_name.values()):
                label = side if i == 0 else None
                axis.plot(x, y, color=colour, linewidth=1.4, marker="." if len(x) < 15 else None, label=label)
        for epoch in _phase_changes(lines):
            axis.axvline(epoch, color=INK, linewidth=0.6, alpha=0.4, linestyle=":")
        axis.set_title(title)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(color=INK, alpha=0.12, linewidth=0.5)
        axis.legend()
    return drawn.svg


def _phase_changes(lines: Lines) -> set[float]:
    """Return the epochs between which the phase changes."""
    pairs = itertools.pairwise(lines)
    return {now["epoch"] - 0.5 for old, now in pairs if old.get("phase") != now.get("phase") and now["epoch"] > 1}


def _draw_regularisation(name: str, head: str, lines: Lines) -> Markup:
    from matplotlib.ticker import NullFormatter

    label = f"{head}: validation accuracy and loss over L2 regularisation"
    with svg_figure(name, label, height=3.4) as (figure, drawn):
        axes = figure.subplots(2, 1, sharex=True)
        probes: dict[str, Lines] = {}
        for line in lines:
            if line["head"] == head:
                share = f"{line['percent']:g} %" if "percent" in line else line.get("on", "")
                probes.setdefault(f"{_series_name(line)} {share}".strip(), []).append(line)
        for i, (title, probe) in enumerate(probes.items()):
            probe = sorted(probe, key=lambda line: line["strength"])
            x, colour = [line["strength"] for line in probe], CURVE_COLOURS[i % 6] if len(probes) > 1 else BLUE
            best = min(range(len(probe)), key=lambda k: probe[k]["val_loss"])
            for axis, y in zip(
                axes, ([_accuracy(line, head) for line in probe], [line["val_loss"] for line in probe]), strict=True
            ):
                axis.plot(x, y, color=colour, marker=".", linewidth=1.4, label=title or None)
                axis.plot(x[best], y[best], "o", color=colour, markersize=7)
        axes[0].set_title(f"{head}: probe by L2 regularisation, the best marked")
        axes[0].set_ylabel("accuracy")
        axes[1].set_ylabel("loss")
        axes[1].set(xscale="log", xlabel="L2 regularisation")
        axes[1].xaxis.set_major_formatter("{x:g}")
        axes[1].xaxis.set_minor_formatter(NullFormatter())
        for axis in axes:
            axis.grid(color=INK, alpha=0.12, linewidth=0.5)
        if 1 < len(probes) <= 8:
            axes[0].legend()
    return drawn.svg


def _accuracy(line: dict[str, Any], head: str) -> float:
    return next(iter(line["val"].values()), float("nan")) if head not in line["val"] else line["val"][head]


def _draw_candidates(lines: Lines) -> Markup:
    by_name: dict[str, list[float]] = {}
    for line in lines:
        name = f"{line.get('run', '')} {line['candidate'].partition(', epoch')[0]}".strip()
        by_name.setdefault(name, []).append(line["score"])
    label = "score of each candidate, without target labels, over epochs"
    with svg_figure("candidates", label) as (figure, drawn):
        axis = figure.subplots()
        for i, (name, scores) in enumerate(by_name.items()):
            colour = CURVE_COLOURS[i % 6]
            axis.plot(range(1, len(scores) + 1), scores, color=colour, marker=".", linewidth=1.4, label=name)
        axis.set_title("score without target labels (higher is better)")
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(color=INK, alpha=0.12, linewidth=0.5)
        if len(by_name) <= 10:
            axis.legend()
    return drawn.svg
