import re

import pytest

from transfer.report.figures.intervals import draw_intervals


def test_each_value_lies_on_its_interval():
    svg = draw_intervals(
        "a <head>", [("one", 50.0, (40.0, 60.0)), ("two", 99.5, None), ("x" * 40, 70.0, (60.0, 100.0))]
    )
    assert "a &lt;head&gt;" in svg
    assert "x" * 25 + "…" in svg
    dots = [float(x) for x in re.findall(r'd="M([\d.]+) ', svg)]
    lines = re.findall(r'x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)" y2="[\d.]+" stroke="#3b8fd1"', svg)
    (left, right), (low, _) = (tuple(map(float, ends)) for ends in lines)
    assert (left + right) / 2 == pytest.approx(dots[0], abs=0.02)
    assert right == pytest.approx(low, abs=0.02)  # both are 60
    assert dots[0] < dots[2] < dots[1]
    assert ">100<" in svg
    assert ">105<" not in svg  # no accuracy is above 100 %
