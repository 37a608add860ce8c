from collections.abc import Iterator

import pytest
import torch

from transfer.errors import TransferError
from transfer.runtime import distributed
from transfer.runtime.device import copy_to_cpu, get_versions, move_to, pick_device


def test_a_device_is_picked_or_refused() -> None:
    assert pick_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(TransferError, match="--device cuda: not available here"):
            pick_device("cuda")


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[int] = []
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(distributed, "get_local_rank", lambda: 1)
    assert pick_device("cuda") == torch.device("cuda")
    assert not current
    monkeypatch.setattr(distributed, "get_local_world_size", lambda: 2)
    assert pick_device("cuda") == torch.device("cuda", 1)
    assert current == [1]
    monkeypatch.setattr(distributed, "get_local_world_size", lambda: 3)
    with pytest.raises(TransferError, match="3 processes but 2 GPUs"):
        pick_device("cuda")


def test_versions_name_what_computed_the_result() -> None:
    assert {"transfer", "torch", "timm", "python"} <= set(get_versions())


class Recorded:
    """Stands for a tensor; records how it is moved."""

    def to(self, device: torch.device, *, non_blocking: bool) -> tuple[str, bool]:
        return device.type, non_blocking


@pytest.mark.parametrize(("kind", "in_background"), [("cpu", False), ("cuda", True), ("mps", False)])
def test_only_a_gpu_copies_in_the_background(kind: str, in_background: bool) -> None:
    assert move_to(Recorded(), torch.device(kind)) == (kind, in_background)  # type: ignore[arg-type]


def test_tensors_are_copied_in_order_and_late_on_a_gpu_only(device: str) -> None:
    """A tensor that is written to after it was yielded shows whether the copy waits for what was queued before it."""
    computed: list[int] = []

    def compute() -> Iterator[tuple[int, torch.Tensor]]:
        for number in range(4):
            computed.append(number)
            yield number, torch.full((3, 50, 50), number, device=device).permute(1, 2, 0)

    ahead = 1 if device == "cuda" else 0
    for place, (number, values) in enumerate(copy_to_cpu(compute())):
        assert number == place
        assert len(computed) == min(place + 1 + ahead, 4)
        assert values.device.type == "cpu"
        assert values.shape == (50, 50, 3)
        assert (values == number).all()
    assert list(copy_to_cpu([])) == []


def test_convolutions_of_a_gpu_have_a_fixed_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    assert pick_device("cpu").type == "cpu"
    assert not torch.backends.cudnn.deterministic
    assert pick_device("auto").type == "cuda"
    assert torch.backends.cudnn.deterministic
