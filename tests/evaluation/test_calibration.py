import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.evaluation.calibration import CALIBRATION_BINS, measure_calibration

predictions = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def naive(pairs):
    """Guo et al. 2017, equations 2 to 4 as written: bins ((m - 1) / M, m / M], the first with its lower end."""
    error, n = 0.0, len(pairs)
    counts = []
    for m in range(1, CALIBRATION_BINS + 1):
        inside = [(p, r) for p, r in pairs if (m - 1 < p * CALIBRATION_BINS <= m) or (m == 1 and p == 0)]
        counts.append(len(inside))
        if inside:
            accuracy = sum(r for _, r in inside) / len(inside)
            confidence = sum(p for p, _ in inside) / len(inside)
            error += len(inside) / n * abs(accuracy - confidence)
    return counts, error


@settings(deadline=None)
@given(predictions)
def test_it_equals_its_definition(pairs):
    found = measure_calibration(np.array([p for p, _ in pairs]), np.array([r for _, r in pairs], dtype=float))
    counts, error = naive(pairs)
    assert found.counts.tolist() == counts
    assert found.error == pytest.approx(error, abs=1e-12)


@settings(deadline=None)
@given(predictions)
def test_bin_means_add_up_to_the_overall_means(pairs):
    found = measure_calibration(np.array([p for p, _ in pairs]), np.array([r for _, r in pairs], dtype=float))
    full = found.counts > 0
    assert np.isnan(found.accuracy[~full]).all()
    assert (found.accuracy[full] * found.counts[full]).sum() == pytest.approx(sum(r for _, r in pairs))
    assert (found.confidence[full] * found.counts[full]).sum() == pytest.approx(sum(p for p, _ in pairs))


def test_without_predictions_the_error_is_zero():
    assert measure_calibration(np.empty(0), np.empty(0)).error == 0.0
