"""Plot of the standard deviation of activations and gradients by layer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer.runtime.files import atomic_write

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")  # Okabe and Ito (2008)
QUANTITIES = ("activation", "gradient")


def draw_layers(path: Path, runs: Mapping[str, Mapping[str, Mapping[str, Sequence[dict[str, Any]]]]]) -> None:
    """Write a PNG: two rows for each network (activations, gradients before training), a column for each question.

    Parameters
    ----------
    path : Path
    runs : mapping
        By network, question and setting the results of every seed (see :func:`course.review_study.run_review_study`);
        only the first seed is drawn.
    """
    from matplotlib.figure import Figure

    columns = max(len(questions) for questions in runs.values())
    figure = Figure(figsize=(4.2 * columns, 5.8 * len(runs)), dpi=110, layout="constrained")
    figure.suptitle("Standard deviation by layer, before training", fontsize=14)
    panels = figure.subplots(len(QUANTITIES) * len(runs), columns, squeeze=False, sharey="row")
    for n, (network, questions) in enumerate(runs.items()):
        for column, (question, settings) in enumerate(questions.items()):
            for row, quantity in enumerate(QUANTITIES):
                panel = panels[len(QUANTITIES) * n + row][column]
                panel.set_title(f"{network}: {quantity}s, {question}", loc="left", fontsize=10)
                _draw_curves(panel, settings, quantity)
                panel.legend(frameon=False, fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def _draw_curves(panel: Any, settings: Mapping[str, Sequence[dict[str, Any]]], quantity: str) -> None:
    for (setting, seeds), colour in zip(settings.items(), COLOURS, strict=False):
        layers = seeds[0]["layers"]["start"]
        names = [layer["layer"].removeprefix("layer") for layer in layers]
        panel.plot(names, [layer[quantity] for layer in layers], "o-", color=colour, label=setting, markersize=4)
    panel.set_yscale("log")
    panel.grid(axis="y", color="0.9")
    panel.spines[["top", "right"]].set_visible(False)
