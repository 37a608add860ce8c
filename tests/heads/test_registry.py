import pytest

from transfer.errors import TransferError
from transfer.heads.kind import ClassHeadKind, HeadKind
from transfer.heads.registry import find_head_kind, head_summaries, register_head, score_labels


def test_built_in_kinds_have_a_summary() -> None:
    summaries = head_summaries()
    assert {"softmax", "binary", "regression"} <= set(summaries)
    assert all(summaries.values())


def test_an_unknown_kind_has_a_suggestion() -> None:
    with pytest.raises(TransferError, match=r"unknown head kind 'softmx' \(did you mean 'softmax'\?\).*--plugin"):
        find_head_kind("softmx")


def test_a_name_is_taken_once() -> None:
    class Other(HeadKind):
        name = "softmax"

    with pytest.raises(TransferError, match="there is a head kind 'softmax' already"):
        register_head(Other)
    assert type(find_head_kind("softmax")).__name__ == "SoftmaxHead"


def test_a_kind_must_define_its_loss_and_its_predictions() -> None:
    class Unfinished(ClassHeadKind):
        name = "unfinished"

    with pytest.raises(TransferError, match=r"Unfinished: define losses\(\) and predictions\(\)"):
        register_head(Unfinished)
    assert "unfinished" not in head_summaries()


@pytest.mark.parametrize("wrong", ["", "two words", "a,b", "a:b"])
def test_a_name_must_fit_into_an_option(wrong) -> None:
    with pytest.raises(TransferError, match="give the head kind a name"):
        register_head(type("Wrong", (HeadKind,), {"name": wrong}))


def test_scores_have_names_in_words() -> None:
    assert score_labels()["balanced_accuracy"] == "balanced accuracy"
    assert score_labels()["mae"] == "mean absolute error"
