from pathlib import Path

import matplotlib.figure
import pytest
from course.chart import COLOURS, draw_layers
from PIL import Image


def runs_of(settings=3, last=0.0):
    def run(scale):
        layers = [{"layer": f"layer{i}", "activation": scale * 10.0**-i, "gradient": scale * 10.0**i} for i in range(4)]
        layers[-1]["activation"] = last
        return [{"layers": {"start": layers, "end": []}}]

    return {"mlp": {"activation": {f"s{i}": run(i + 1) for i in range(settings)}, "inputs": {"raw": run(1)}}}


def test_a_row_of_panels_for_activations_and_one_for_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    subplots = matplotlib.figure.Figure.subplots
    monkeypatch.setattr(
        matplotlib.figure.Figure, "subplots", lambda self, *a, **k: figures.append(self) or subplots(self, *a, **k)
    )
    draw_layers(tmp_path / "layers.png", runs_of())
    panels = figures[0].axes
    assert [panel.get_title(loc="left") for panel in panels] == [
        "mlp: activations, activation",
        "mlp: activations, inputs",
        "mlp: gradients, activation",
        "mlp: gradients, inputs",
    ]
    assert [line.get_label() for line in panels[0].lines] == ["s0", "s1", "s2"]
    assert panels[2].lines[1].get_ydata().tolist() == pytest.approx([2.0, 20.0, 200.0, 2000.0])
    assert {panel.get_yscale() for panel in panels} == {"log"}


def test_it_is_a_picture_even_where_a_spread_is_zero_or_no_number(tmp_path: Path) -> None:
    for last in (0.0, float("nan")):
        draw_layers(tmp_path / "layers.png", runs_of(last=last) | {"cnn": runs_of()["mlp"]})
        with Image.open(tmp_path / "layers.png") as image:
            assert min(image.size) > 500
    assert [path.name for path in tmp_path.iterdir()] == ["layers.png"]


def test_there_are_colours_for_every_setting() -> None:
    from course.review_study import QUESTIONS

    assert len(COLOURS) >= max(map(len, QUESTIONS.values()))
