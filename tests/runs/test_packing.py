import copy
import json
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from transfer.config.train import LearnConfig
from transfer.runs.packing import (
    get_optimizer_state,
    get_rng_states,
    load_optimizer_state,
    pack,
    set_rng_states,
    unpack,
)
from transfer.training import optimizers

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers(), st.text()), inner)
    ),
    max_leaves=20,
)


def there_and_back(value: Any) -> Any:
    tensors, record = pack(value)
    return unpack(tensors, json.loads(json.dumps(record)))


@given(PLAIN)
def test_plain_values_come_back(value: Any) -> None:
    assert repr(there_and_back(value)) == repr(value)  # NaN is no equal of itself


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4, 5)])
def test_tensors_come_back_to_the_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.randn(shape) * 3).to(dtype)
    again = there_and_back([tensor, {"x": tensor}])
    for some in (again[0], again[1]["x"]):
        assert some.dtype == dtype
        assert torch.equal(some, tensor)


def test_a_tensor_comes_back_as_it_lay() -> None:
    """Sums are rounded by the order that they are taken in."""
    laid = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    turned, part = torch.randn(4, 6).T, torch.randn(6, 8)[::2, 1:5]
    for tensor, strides in ((laid, laid.stride()), (turned, turned.stride()), (part, (4, 1))):
        again = there_and_back(tensor)
        assert again.stride() == strides
        assert torch.equal(again, tensor)


def test_a_tensor_is_kept_once_however_often_it_comes_and_no_other_takes_its_place() -> None:
    one = torch.ones(3)
    assert len(pack([one, one, {"a": one}])[0]) == 1
    again = there_and_back([np.full(3, i) for i in range(50)])  # each is a tensor for a moment only
    assert [int(array[0]) for array in again] == list(range(50))


def test_arrays_come_back() -> None:
    rng = np.random.default_rng(0)
    for array in (
        np.zeros((2, 0, 3)),
        np.array(3.5),
        rng.integers(9, size=(3, 4))[:, ::2],
        np.array([2**64 - 1], "u8"),
    ):
        again = there_and_back(array)
        assert (again.dtype, again.shape) == (array.dtype, array.shape)
        assert np.array_equal(again, array)
    assert there_and_back(np.float64(0.1)) == 0.1


def test_what_is_unknown_is_not_dropped() -> None:
    with pytest.raises(TypeError, match="cannot save a set"):
        pack({"a": {1, 2}})


def test_generators_go_on_where_they_were() -> None:
    torch.manual_seed(3)
    rng = np.random.default_rng(4)
    torch.randn(3), rng.normal(size=3), rng.integers(5, dtype=np.uint32)
    kept = there_and_back({"torch": get_rng_states(), "numpy": rng.bit_generator.state})
    wanted = torch.randn(5), rng.integers(5, size=7, dtype=np.uint32), rng.normal(size=3)
    torch.manual_seed(0)
    other = np.random.default_rng(0)
    set_rng_states(kept["torch"])
    other.bit_generator.state = kept["numpy"]
    assert torch.equal(torch.randn(5), wanted[0])
    assert np.array_equal(other.integers(5, size=7, dtype=np.uint32), wanted[1])
    assert np.array_equal(other.normal(size=3), wanted[2])


def built(name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    net.to(memory_format=torch.channels_last)
    groups = [
        {"params": [p for p in net.parameters() if (p.ndim > 1) == large], "weight_decay": 0.01 * large, "stage": 0}
        for large in (True, False)
    ]
    return net, optimizers.create_optimizer(groups, LearnConfig(optimizer=name, lr=1e-3))


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        drawn = torch.Generator().manual_seed(number)
        x, y = torch.randn(8, 3, 8, 8, generator=drawn), torch.randint(5, (8,), generator=drawn)

        def ask() -> tuple[torch.Tensor, None]:
            return nn.functional.cross_entropy(net(x), y), None  # noqa: B023

        if isinstance(optimizer, optimizers.LBFGS):
            optimizer.step(ask)
            continue
        for group in optimizer.param_groups:  # as a schedule does
            group["lr"] = 1e-3 * (1 + number)
        optimizer.zero_grad(set_to_none=True)
        ask()[0].backward(create_graph=getattr(optimizer, "is_second_order", False))
        optimizer.step()


def check(name: str) -> None:
    whole, optimizer = built(name)
    steps(whole, optimizer, range(7))
    first, optimizer = built(name)
    steps(first, optimizer, range(3))
    kept = there_and_back([first.state_dict(), get_optimizer_state(optimizer), get_rng_states()])
    torch.rand(5), random.random()
    second, optimizer = built(name)
    second.load_state_dict(kept[0])
    load_optimizer_state(optimizer, kept[1])
    set_rng_states(kept[2])
    steps(second, optimizer, range(3, 7))
    assert math.isfinite(sum(float(p.detach().sum()) for p in second.parameters()))
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other), name


# adahessian and lookahead keep a generator, a count and another optimizer beside their state_dict.
TIMM = ("lookahead_adam", "adahessian", "lamb", "lion", "adafactorbv", "muon", "madgrad")


@pytest.mark.parametrize("name", [*optimizers.TORCH_OPTIMIZERS, *TIMM])
@pytest.mark.filterwarnings("ignore")
def test_an_optimizer_goes_on_to_the_same_bits(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_optimizer_of_timm_does() -> None:
    import timm.optim

    from transfer.errors import TransferError

    for name in map(str, timm.optim.list_optimizers()):
        try:
            built(name)
        except TransferError:  # it needs a GPU
            continue
        check(name)


def test_what_was_loaded_is_not_shared() -> None:
    _, optimizer = built("adam")
    kept = there_and_back(get_optimizer_state(optimizer))
    before = copy.deepcopy(kept)
    load_optimizer_state(optimizer, kept)
    assert repr(before) == repr(kept)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="MPS is here")
def test_generators_of_a_device_that_is_not_here_are_left_out() -> None:
    torch.manual_seed(7)
    states = get_rng_states() | {"mps": torch.zeros(16, dtype=torch.uint8)}
    wanted = torch.rand(3)
    set_rng_states(states)
    assert torch.equal(torch.rand(3), wanted)


def test_a_generator_that_an_optimizer_moved_to_its_device_is_restored_there(device: str) -> None:
    """Adahessian's first step moves it; an optimizer that is restored before has made none."""

    def make() -> tuple[nn.Parameter, Any]:
        weight = nn.Parameter(torch.arange(1.0, 7.0, device=device))
        return weight, optimizers.create_optimizer([{"params": [weight]}], LearnConfig(optimizer="adahessian"))

    def step(weight: nn.Parameter, optimizer: Any) -> None:
        optimizer.zero_grad()
        (weight**4).sum().backward(create_graph=True)
        optimizer.step()

    weight, optimizer = make()
    step(weight, optimizer)
    assert optimizer.generator.device.type == device
    saved, before = there_and_back(get_optimizer_state(optimizer)), weight.detach().clone()
    step(weight, optimizer)
    again, fresh = make()
    again.data.copy_(before)
    load_optimizer_state(fresh, saved)
    assert torch.equal(fresh.generator.get_state(), saved["own"]["generator"])
    step(again, fresh)
    assert torch.equal(again, weight)

    saved["own"]["generator"] = torch.zeros(7, dtype=torch.uint8)  # of another kind of device
    load_optimizer_state(make()[1], saved)
