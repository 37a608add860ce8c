"""Plots are written whole, with a panel for each part and one legend."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from studies import plots


@pytest.mark.parametrize(("panels", "height"), [(1, 1), (2, 1), (3, 2)])
def test_curves(tmp_path: Path, panels: int, height: int) -> None:
    lines = {f"optimizer {i}": np.linspace(2 + i, 0.1, 5).tolist() for i in range(12)}
    file = tmp_path / "deep" / "curves.png"
    plots.draw_curves(file, {f"panel {k}": lines for k in range(panels)}, x="epoch", y="loss", log=True)
    image = imread(file)
    assert image.shape[0] == pytest.approx(110 * (4.5 * height + 0.8), abs=2)
    assert image.shape[1] == pytest.approx(110 * 6.5 * min(panels, 2), abs=2)
    assert len(list(file.parent.iterdir())) == 1


def test_curves_take_an_axis_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn: given x as they are, epochs from 1, a name under each axis, powers of ten as plain numbers."""
    all_axes = []
    monkeypatch.setattr(plots, "_save", lambda figure, axes_list, path: all_axes.extend(axes_list))
    panels = {"given": {"a": {10: 0.5, 100: 0.7, 1000: 0.9}, "b": {30.5: 0.6}}, "epochs": {"a": [3.0, 2.0]}}
    plots.draw_curves(tmp_path / "curves.png", panels, x=("labels", "epoch"), y="accuracy", log_x=True)
    given, epochs = all_axes
    assert [line.get_xydata().tolist() for line in given.lines] == [[[10, 0.5], [100, 0.7], [1000, 0.9]], [[30.5, 0.6]]]
    assert epochs.lines[0].get_xydata().tolist() == [[1, 3], [2, 2]]
    assert [axes.get_xlabel() for axes in all_axes] == ["labels", "epoch"]
    assert {axes.get_xscale() for axes in all_axes} == {"log"}
    assert {axes.get_yscale() for axes in all_axes} == {"linear"}
    assert given.lines[1].get_marker() == "o"  # a single point is to be seen
    assert [label.get_text() for label in given.get_xticklabels() if label.get_text() in ("10", "100", "1000")]


def test_a_logarithmic_axis_has_plain_numbers() -> None:
    """Powers of ten, twice and five times them have plain names, also on an axis that spans less than a decade."""
    for values, names in (
        ([0.5, 0.03, 0.008], {"0.01", "0.02", "0.05", "0.1"}),
        ([0.5, 0.3, 0.08], {"0.1", "0.2", "0.5"}),
    ):
        figure = plots.draw_curves(None, {"": {"a": values}}, x="stage", y="nats", log=True)
        figure.draw_without_rendering()
        (axes,) = figure.get_axes()
        low, high = axes.get_ylim()
        shown = {tick.label1.get_text() for tick in axes.yaxis.get_major_ticks() if low <= tick.get_loc() <= high}
        assert shown >= names
        assert not any(tick.label1.get_text() for tick in axes.yaxis.get_minor_ticks())


def test_descents_show_the_paths(tmp_path: Path) -> None:
    x = np.linspace(-1, 1, 20)
    grid = (x, x, x[None] ** 2 + x[:, None] ** 2)
    for name, way in (("a", [[-0.9, -0.9], [0.9, 0.9]]), ("b", [[-0.9, 0.9], [-0.9, 0.8]])):
        plots.draw_descents(tmp_path / f"{name}.png", {"bowl": (grid, {"sgd": np.array(way)})})
    a, b = (imread(tmp_path / f"{name}.png")[..., :3] for name in "ab")
    blue = np.array([0x00, 0x72, 0xB2]) / 255
    counts = [int((np.abs(image - blue).max(2) < 0.02).sum()) for image in (a, b)]
    assert counts[0] > 2 * counts[1]


def test_no_two_lines_look_alike() -> None:
    styles = [(style["color"], style["linestyle"]) for style in map(plots._line_style, range(30))]
    assert len(set(styles)) == 30


def test_dots_have_a_row_each_and_whiskers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two series beside each other in a row; the first name is the highest."""
    all_axes = []
    save = plots._save
    monkeypatch.setattr(plots, "_save", lambda *given: all_axes.append(given[1]) or save(*given))
    panels = {"pair": {"a": {"probe": (0.5, 0.4, 0.7), "full": (0.6, 0.6, 0.6)}, "b": {"full": (0.8, 0.7, 0.9)}}}
    figure = plots.draw_dots(None, panels, x="accuracy")
    ((axes,),) = all_axes
    rows = dict(zip([text.get_text() for text in axes.get_yticklabels()], axes.get_yticks(), strict=True))
    assert rows["probe"] > rows["full"]
    a, b = axes.containers
    (x, y), (whisker,) = a[0].get_data(), a[2]
    assert x.tolist() == [0.5, 0.6]
    assert whisker.get_segments()[0][:, 0].tolist() == pytest.approx([0.4, 0.7])
    assert round(y[0]) == rows["probe"]
    assert y[1] != b[0].get_ydata()[0]
    assert figure.get_axes()[0].get_xlabel() == "accuracy"


def test_a_figure_is_written_only_with_a_path(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    panels = {"loss": {"sgd": [2.0, 1.0]}}
    assert plots.draw_curves(None, panels, x="epoch", y="loss").get_axes()
    plots.draw_curves(file, panels, x="epoch", y="loss")
    assert [f.name for f in tmp_path.iterdir()] == ["a.png"]
