import numpy as np

from transfer.evaluation.calibration import measure_calibration
from transfer.report.figures.reliability import draw_reliability


def test_the_error_is_said_and_what_is_empty_is_left_out():
    found = measure_calibration(np.array([0.9, 0.9, 0.7, 0.7]), np.array([1.0, 1, 1, 0]))
    svg = draw_reliability("a <head>", found)
    assert "a &lt;head&gt;: expected calibration error 15.0 %" in svg
    assert "nan" not in svg.lower()
