import pytest

from transfer.errors import TransferError
from transfer.heads import HeadSpec


@pytest.mark.parametrize(
    ("spec", "outputs"),
    [
        (HeadSpec("object", "softmax", ("a", "b", "c")), 3),
        (HeadSpec("large", "binary", ("no", "yes")), 1),
        (HeadSpec("age", "regression"), 1),
    ],
)
def test_the_kind_says_how_many_outputs_a_head_has(spec, outputs) -> None:
    assert spec.outputs == outputs
    assert spec.head_kind.name == spec.kind


def test_a_kind_of_a_plugin_that_is_not_loaded_is_named() -> None:
    with pytest.raises(TransferError, match=r"unknown head kind 'count'.*--plugin"):
        _ = HeadSpec("people", "count").outputs
