import numpy as np
import pytest

from transfer.data.target_columns import check_kind, read_target
from transfer.errors import TransferError


def place(row: int) -> str:
    return f"line {row + 2}"


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["0", "1", "", "1"], "binary", [0, 1, -1, 1]),
        (["no", "Yes", ""], "binary", [0, 1, -1]),
        (["1.5", "2", "-3e2"], "regression", [1.5, 2.0, -300.0]),
        (["1_1", "1_2", "2_1"], "softmax", [0, 1, 2]),
        (["1,5", "", "-2", "0,25"], "regression", [1.5, np.nan, -2.0, 0.25]),
        (["1,5", "2.5"], "softmax", [0, 1]),
        (["b", "a", "b", ""], "softmax", [1, 0, 1, -1]),
        (["1", "nan", "2"], "softmax", [0, 2, 1]),
        (["b|a", "b", "", "none"], "multilabel", [[1, 1], [0, 1], [-1, -1], [0, 0]]),
        (["b;a", "b,a"], "softmax", [1, 0]),
    ],
)
def test_without_a_kind_it_is_guessed_from_the_cells(cells, kind, values) -> None:
    target = read_target("column", None, cells, place)
    assert target.kind == kind
    np.testing.assert_array_equal(target.values, values)


def test_unknown_numbers_are_nan() -> None:
    assert np.isnan(read_target("age", "regression", ["3", ""], place).values[1])


def test_errors_name_column_and_line() -> None:
    with pytest.raises(TransferError, match="line 3: age is 'old', not a finite number"):
        read_target("age", "regression", ["3", "old"], place)
    with pytest.raises(TransferError, match="line 3: age is '1,5', not a finite number"):
        read_target("age", "regression", ["2.5", "1,5"], place)
    with pytest.raises(TransferError, match="line 2: age is '1,500': does its comma separate thousands"):
        read_target("age", "regression", ["1,500", "12,000", "3"], place)
    with pytest.raises(TransferError, match="the column 'age' has no value at all"):
        read_target("age", None, ["", ""], place)
    with pytest.raises(
        TransferError, match=r"unknown kind 'regresion' of target 'age' \(did you mean 'regression'\?\)"
    ):
        check_kind("age", "regresion")
