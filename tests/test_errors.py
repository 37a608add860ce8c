import pytest

from transfer.errors import TransferError, did_you_mean

KNOWN = ["linear_probe", "partial", "full", "norm_only"]


@pytest.mark.parametrize(
    ("typed", "meant"), [("linear-probe", "linear_probe"), ("FULL", "full"), ("normonly", "norm_only")]
)
def test_near_names_are_offered(typed: str, meant: str) -> None:
    assert did_you_mean(typed, KNOWN) == f" (did you mean {meant!r}?)"


def test_nothing_is_offered_when_nothing_is_near() -> None:
    assert did_you_mean("zebra", KNOWN) == ""
    assert did_you_mean("full", []) == ""


def test_no_more_names_than_asked_for() -> None:
    known = [f"resnet{i}" for i in range(10, 20)]
    assert did_you_mean("resnet1", known, limit=2).count("resnet") == 2


def test_names_keep_their_own_letters() -> None:
    assert (
        did_you_mean("resnet50.imagenet1k_v1", ["resnet50.IMAGENET1K_V1"])
        == " (did you mean 'resnet50.IMAGENET1K_V1'?)"
    )


def test_it_is_an_ordinary_exception() -> None:
    with pytest.raises(TransferError, match="what to do"):
        raise TransferError("what is wrong, where, what to do")
