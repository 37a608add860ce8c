"""The spread of activations and gradients by layer, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer.runtime.files import atomic_write

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")  # Okabe and Ito's
SHOWN = ("activation", "gradient")


def draw_layers(path: Path, runs: Mapping[str, Mapping[str, Mapping[str, Sequence[dict[str, Any]]]]]) -> None:
    """Write a PNG: two rows for each network (activations, gradients before training), a column for each question.

    Parameters
    ----------
    path : Path
    runs : mapping
        By network, question and setting the results of every seed (see :func:`course.review_study.questions`);
        the first is drawn.
    """
    from matplotlib.figure import Figure

    columns = max(len(questions) for questions in runs.values())
    figure = Figure(figsize=(4.2 * columns, 5.8 * len(runs)), dpi=110, layout="constrained")
    figure.suptitle("Standard deviation by layer, before training", fontsize=14)
    panels = figure.subplots(len(SHOWN) * len(runs), columns, squeeze=False, sharey="row")
    for n, (network, questions) in enumerate(runs.items()):
        for column, (question, settings) in enumerate(questions.items()):
            for row, shown in enumerate(SHOWN):
                panel = panels[len(SHOWN) * n + row][column]
                panel.set_title(f"{network}: {shown}s, {question}", loc="left", fontsize=10)
                _curves(panel, settings, shown)
                panel.legend(frameon=False, fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def _curves(panel: Any, settings: Mapping[str, Sequence[dict[str, Any]]], shown: str) -> None:
    for (setting, seeds), colour in zip(settings.items(), COLOURS, strict=False):
        layers = seeds[0]["layers"]["start"]
        names = [layer["layer"].removeprefix("layer") for layer in layers]
        panel.plot(names, [layer[shown] for layer in layers], "o-", color=colour, label=setting, markersize=4)
    panel.set_yscale("log")
    panel.grid(axis="y", color="0.9")
    panel.spines[["top", "right"]].set_visible(False)
