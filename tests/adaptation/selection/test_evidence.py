import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from transfer.adaptation.selection.evidence import CandidateEvidence, entropy, log_softmax, softmax, unit_rows

LOGITS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(-200, 200, width=32)
)


def evidence(**changed: np.ndarray) -> CandidateEvidence:
    parts = {
        "source_features": np.zeros((6, 4), np.float32),
        "source_labels": np.zeros(6, np.int64),
        "val_features": np.zeros((3, 4), np.float32),
        "val_logits": np.zeros((3, 2), np.float32),
        "val_labels": np.zeros(3, np.int64),
        "target_features": np.zeros((5, 4), np.float32),
        "target_logits": np.zeros((5, 2), np.float32),
    }
    return CandidateEvidence(**(parts | changed))


@given(logits=LOGITS)
def test_softmax_and_entropy_by_a_loop(logits: np.ndarray) -> None:
    p, h = softmax(logits), entropy(logits)
    for row, probabilities, uncertainty in zip(logits.astype(float), p, h, strict=True):
        powers = [math.exp(x - max(row)) for x in row]
        true = [power / sum(powers) for power in powers]
        assert probabilities == pytest.approx(true, abs=1e-12)
        assert uncertainty == pytest.approx(-sum(q * math.log(q) for q in true if q > 0), abs=1e-9)
    assert (h >= 0).all()
    assert (h <= math.log(logits.shape[1]) + 1e-9).all()


def test_log_softmax_holds_where_the_softmax_is_zero() -> None:
    assert log_softmax(np.array([[0.0, 5000.0]], np.float32)).tolist() == [[-5000.0, 0.0]]


def test_unit_rows_have_length_one_and_zeros_stay() -> None:
    rows = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 0.0]])


def test_no_field_of_it_is_a_target_label() -> None:
    names = {field.name for field in dataclasses.fields(CandidateEvidence)}
    assert {name for name in names if name.startswith("target")} == {"target_features", "target_logits"}


@pytest.mark.parametrize(
    "changed",
    [
        {"source_labels": np.zeros(5, np.int64)},
        {"val_labels": np.zeros(2, np.int64)},
        {"val_logits": np.zeros((3, 3), np.float32)},
        {"target_features": np.zeros((5, 3), np.float32)},
        {"target_features": np.zeros((0, 4), np.float32), "target_logits": np.zeros((0, 2), np.float32)},
    ],
)
def test_shapes_that_do_not_fit_are_refused(changed: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="inconsistent shapes"):
        evidence(**changed)


@pytest.mark.parametrize("part", ["source_features", "val_features", "val_logits", "target_features", "target_logits"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_none_is_noticed_in_every_part(part: str, value: float) -> None:
    assert evidence().finite
    broken = getattr(evidence(), part).copy()
    broken[-1, -1] = value
    assert not evidence(**{part: broken}).finite


def test_evidence_may_have_no_held_out_rows() -> None:
    empty = evidence(
        val_features=np.zeros((0, 4), np.float32),
        val_logits=np.zeros((0, 2), np.float32),
        val_labels=np.zeros(0, np.int64),
    )
    assert empty.finite
    assert empty.classes == 2


def test_labelled_target_rows_come_last_and_certain():
    none = evidence()
    features, q, known = none.target_with_labelled()
    assert (features.shape, q.shape, known.tolist()) == ((5, 4), (5, 2), [-1] * 5)
    some = evidence(labelled_features=np.ones((2, 4), np.float32), labelled_labels=np.array([1, 0]))
    features, q, known = some.target_with_labelled()
    assert known.tolist() == [-1] * 5 + [1, 0]
    assert q[5:].tolist() == [[0, 1], [1, 0]]
    assert features[5:].all()
    with pytest.raises(ValueError, match="inconsistent shapes"):
        evidence(labelled_features=np.ones((2, 3), np.float32), labelled_labels=np.array([1, 0]))
