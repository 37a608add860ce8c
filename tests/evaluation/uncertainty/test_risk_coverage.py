import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transfer.evaluation.uncertainty.risk_coverage import CURVE_POINTS, measure_risk_coverage


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80, unique_by=lambda pair: pair[0]))
def test_curve_and_area_are_those_counted_one_by_one(pairs):
    found = measure_risk_coverage(np.array([c for c, _ in pairs]), np.array([ok for _, ok in pairs]))
    ranked = sorted(pairs, reverse=True)
    risks = [sum(not ok for _, ok in ranked[:n]) / n for n in range(1, len(pairs) + 1)]
    assert abs(found["area"] - sum(risks) / len(risks)) < 1e-6
    curve = found["curve"]
    assert len(curve) == min(len(pairs), CURVE_POINTS)
    for coverage, risk, least in curve:
        n = round(coverage * len(pairs))
        assert abs(risk - risks[n - 1]) < 1e-6
        assert abs(least - ranked[n - 1][0]) < 1e-6
    assert curve[-1][0] == 1


def test_no_image_has_no_curve():
    assert measure_risk_coverage(np.empty(0), np.empty(0, bool)) == {}
