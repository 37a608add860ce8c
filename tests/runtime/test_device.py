import pytest
import torch

from transfer.errors import TransferError
from transfer.runtime.device import get_versions, pick_device


def test_a_device_is_picked_or_refused() -> None:
    assert pick_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(TransferError, match="--device cuda: not available here"):
            pick_device("cuda")


def test_versions_name_what_computed_the_result() -> None:
    assert {"transfer", "torch", "timm", "python"} <= set(get_versions())
