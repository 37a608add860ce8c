"""Learning curves, drawn from the lines of metrics.jsonl."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup

from transfer.report.figures.axes import Axis, draw_axes, draw_curve, left_margin
from transfer.report.figures.svg import BLUE, COLOURS, ORANGE, WIDTH, Drawing

Lines = list[dict[str, Any]]
Series = dict[str, tuple[list[float], list[float]]]
"""Epochs and values by the name of a seed or network."""
MAX_LEGEND = 10  # series with a name


def draw_curves(lines: Lines, scores: Mapping[str, str] | None = None) -> list[Markup]:
    """Return the figures of training: over epochs, over the L2 regularisation of solved probes, over candidates.

    `scores` names by head a main score that is not the accuracy.
    """
    scores = scores or {}
    trained = [line for line in lines if "epoch" in line and "strength" not in line and "solved" not in line]
    trained = [line for line in trained if "candidate" not in line]
    figures = []
    if trained:
        figures.append(_draw_epochs("loss", _series(trained, ("loss",), ("val_loss",)), trained))
        for head in _heads(trained):
            series = _series(trained, ("train", head), ("val", head))
            figures.append(_draw_epochs(f"{head}: {scores.get(head, 'accuracy')}", series, trained))
    by_stage = [probe for line in lines for probe in line.get("solved", {}).values() if isinstance(probe, dict)]
    stages = (None, *(name for probe in by_stage for name in probe))
    solved = [line for line in lines if "strength" in line and "val_loss" in line and line.get("on") in stages]
    heads = dict.fromkeys(line["head"] for line in solved)
    figures += [_draw_regularisation(head, solved, scores.get(head, "accuracy")) for head in heads]
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


def _draw_epochs(title: str, series: list[Series], lines: Lines) -> Markup:
    drawing = Drawing(f"{title} over epochs", WIDTH, 290)
    curves = [
        (colour, x, y) for by_name, colour in zip(series, (ORANGE, BLUE), strict=True) for x, y in by_name.values()
    ]
    vertical = Axis.around(itertools.chain.from_iterable(y for *_, y in curves), 250, 45)
    epochs = [line["epoch"] for line in lines]
    horizontal = Axis.around(epochs, left_margin(vertical), WIDTH - 16, whole=True)
    drawing.text(horizontal.start, 9, title, size=13)
    named = [("circle", ORANGE, "training"), ("circle", BLUE, "validation")]
    drawing.legend([entry for entry, shown in zip(named, series, strict=True) if shown], horizontal.start, 20, WIDTH)
    draw_axes(drawing, horizontal, vertical, xlabel="epoch")
    for colour, x, y in curves:
        draw_curve(drawing, horizontal, vertical, x, y, colour, dots=len(x) < 15)
    for pixel in map(horizontal, _phase_changes(lines)):
        drawing.line(pixel, 250, pixel, 45, stroke_opacity=0.5, stroke_dasharray="2 3")
    return drawing.svg


def _phase_changes(lines: Lines) -> set[float]:
    """Return the epochs between which the phase changes."""
    pairs = itertools.pairwise(lines)
    return {now["epoch"] - 0.5 for old, now in pairs if old.get("phase") != now.get("phase") and now["epoch"] > 1}


def _draw_regularisation(head: str, lines: Lines, score: str) -> Markup:
    drawing = Drawing(f"{head}: validation {score} and loss over L2 regularisation", WIDTH)
    probes: dict[str, Lines] = {}
    for line in lines:
        if line["head"] == head:
            share = f"{line['percent']:g} %" if "percent" in line else line.get("on", "")
            probes.setdefault(f"{_series_name(line)} {share}".strip(), []).append(line)
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(probes))]
    named = [("circle", colour, name) for colour, name in zip(colours, probes, strict=True)]
    top = drawing.legend(named, 20, 20, WIDTH - 20) + 6 if 1 < len(named) <= MAX_LEGEND else 24
    mine = [line for probe in probes.values() for line in probe]
    values = {score: lambda line: _accuracy(line, head), "loss": lambda line: line["val_loss"]}
    axes = {
        name: Axis.around(map(value, mine), top + 110 + 120 * i, top + 120 * i)
        for i, (name, value) in enumerate(values.items())
    }
    x = Axis.around((line["strength"] for line in mine), left_margin(*axes.values()), WIDTH - 16, log=True)
    drawing.text(x.start, 9, f"{head}: probe by L2 regularisation, the best marked", size=13)
    for name, y in axes.items():
        last = name == "loss"
        draw_axes(drawing, x, y, ylabel=name, xlabel="L2 regularisation" if last else "", named=last)
        for colour, probe in zip(colours, probes.values(), strict=True):
            probe = sorted(probe, key=lambda line: line["strength"])
            draw_curve(drawing, x, y, [line["strength"] for line in probe], list(map(values[name], probe)), colour)
            best = min(probe, key=lambda line: (line["val_loss"], -line["strength"]))  # as the choice of the run
            drawing.markers([(x(best["strength"]), y(values[name](best)))], r=4.5, fill=colour)
    drawing.height = axes["loss"].start + 38
    return drawing.svg


def _accuracy(line: dict[str, Any], head: str) -> float:
    return next(iter(line["val"].values()), float("nan")) if head not in line["val"] else line["val"][head]


def _draw_candidates(lines: Lines) -> Markup:
    by_name: dict[str, list[float]] = {}
    for line in lines:
        name = f"{line.get('run', '')} {line['candidate'].partition(', epoch')[0]}".strip()
        by_name.setdefault(name, []).append(line["score"])
    drawing = Drawing("score of each candidate, without target labels, over epochs", WIDTH)
    named = [("circle", COLOURS[i % len(COLOURS)], name) for i, name in enumerate(by_name)]
    top = drawing.legend(named, 20, 20, WIDTH - 20) + 6 if len(named) <= MAX_LEGEND else 24
    y = Axis.around(itertools.chain.from_iterable(by_name.values()), top + 200, top)
    x = Axis.around(range(1, max(map(len, by_name.values())) + 1), left_margin(y), WIDTH - 16, whole=True)
    drawing.text(x.start, 9, "score without target labels (higher is better)", size=13)
    draw_axes(drawing, x, y, xlabel="epoch")
    for (_, colour, _), scores in zip(named, by_name.values(), strict=True):
        draw_curve(drawing, x, y, range(1, len(scores) + 1), scores, colour)
    drawing.height = y.start + 38
    return drawing.svg
