import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.report.figures.axes import Axis, draw_axes, draw_curve, left_margin
from transfer.report.figures.svg import Drawing

NUMBERS = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=9).map(lambda values: (values, False))
EPOCHS = st.lists(st.integers(1, 10_000), min_size=1, max_size=9).map(lambda values: (values, True))


@given(NUMBERS | EPOCHS)
def test_all_values_and_some_ticks_lie_on_the_axis(drawn):
    values, whole = drawn
    axis = Axis.around(values, 300, 20, whole=whole)
    assert all(20 - 1e-6 <= axis(value) <= 300 + 1e-6 for value in values)
    assert axis(axis.low) == pytest.approx(300)
    assert axis(axis.high) == pytest.approx(20)
    ticks = axis.ticks()
    assert len(ticks) >= (1 if whole else 3)
    assert len(ticks) < 30
    span = axis.high - axis.low
    for value, text in ticks:
        assert axis.low - 1e-6 * span <= value <= axis.high + 1e-6 * span
        assert not whole or float(text) == round(value)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=9))
def test_a_logarithmic_axis_holds_all_values(values):
    axis = Axis.around(values, 0, 400, log=True)
    assert all(-1e-6 <= axis(value) <= 400 + 1e-6 for value in values)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 10
    for value, text in ticks:
        assert axis.low <= value <= axis.high
        assert float(text) == pytest.approx(value, rel=0.01)


def test_ticks_are_round_and_told_apart():
    assert [text for _, text in Axis(0, 1, 250, 50).ticks()] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    assert [text for _, text in Axis(0.9, 17.3, 0, 400, whole=True).ticks()] == [
        "2",
        "4",
        "6",
        "8",
        "10",
        "12",
        "14",
        "16",
    ]
    assert [text for _, text in Axis(1, 3, 0, 400, whole=True).ticks()] == ["1", "2", "3"]
    texts = [text for _, text in Axis(1.7910001, 1.7910009, 110, 0).ticks()]
    assert len(set(texts)) == len(texts) >= 3  # no offset beside the axis
    assert [text for _, text in Axis(-2e-9, 3e-9, 0, 400).ticks()][:2] == ["-2e-09", "-1e-09"]
    assert [text for _, text in Axis(1e-4, 1e3, 0, 400, log=True).ticks()] == ["0.0001", "0.01", "1", "100"]


@pytest.mark.parametrize("values", [[], [math.nan, math.inf], [3.0, 3.0], [0.0]])
def test_nothing_or_one_value_still_gives_an_axis(values):
    for log in (False, True):
        axis = Axis.around(values, 0, 100, log=log)
        assert axis.low < axis.high
        assert axis.ticks()


def test_a_curve_is_interrupted_where_it_diverged():
    x, y = Axis(0, 4, 0, 400), Axis(0, 10, 100, 0)
    drawing = Drawing("", 400, 100)
    draw_curve(drawing, x, y, [0, 1, 2, 3], [1, 2, math.nan, 4], "#123456")
    assert "M0 90L100 80" in drawing.svg
    assert "M300 60" in drawing.svg
    assert "nan" not in drawing.svg


def test_axes_have_their_names_and_room_for_labels():
    drawing = Drawing("", 400, 100)
    x, y = Axis(0, 4, 50, 400), Axis(0, 1, 80, 0)
    draw_axes(drawing, x, y, xlabel="epoch", ylabel="loss", named=False)
    assert ">epoch<" in drawing.svg
    assert ">loss<" in drawing.svg
    assert ">4<" not in drawing.svg
    assert left_margin(Axis(0, 1e6, 100, 0)) > left_margin(y) > 27
