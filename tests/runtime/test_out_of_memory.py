from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from transfer.config.train import LearnConfig, RegulariseConfig, TrainConfig
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.runtime.out_of_memory import is_out_of_memory, run_in_parts, split_rows
from transfer.training.epoch import TrainingData
from transfer.training.fit import fit
from transfer.training.train import train

CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to ...")


def test_what_is_a_lack_of_memory() -> None:
    assert all(map(is_out_of_memory, (CPU, MemoryError(), torch.OutOfMemoryError("CUDA out of memory"))))
    assert not any(map(is_out_of_memory, (RuntimeError("mat1 and mat2 shapes"), ValueError("not enough memory"))))


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([1, 2]))
def test_parts_are_all_of_it_and_of_one_size(rows: int, parts: int, least: int) -> None:
    slices = split_rows(rows, parts, least)
    sizes = [part.stop - part.start for part in slices]
    assert [i for part in slices for i in range(rows)[part]] == list(range(rows))
    assert len(slices) == max(min(parts, rows // least), 1)
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(least, rows)


@pytest.mark.parametrize("compose", ["dual", "joint"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("most", [1, 3, 5, 99])
def test_gradients_of_parts_add_up(compose: str, weighted: bool, most: int) -> None:
    """Each head's mean is over other rows, as labels are missing here and there."""
    torch.manual_seed(0)
    specs = [HeadSpec("object", "softmax", ("a", "b", "c"), 0.7), HeadSpec("domain", "softmax", ("d", "e"))]
    specs += [HeadSpec("wet", "binary", ("no", "yes")), HeadSpec("size", "regression")]
    heads, x = Heads(specs, 4, compose=compose), torch.randn(11, 4)
    wanted = {"object": torch.randint(-1, 3, (11,)), "domain": torch.randint(-1, 2, (11,))}
    wanted |= {"wet": torch.tensor([-1] * 9 + [0, 1]), "size": torch.tensor([float("nan")] * 4 + [1.0] * 7)}
    weights = {name: torch.rand(11) for name in ("object", "domain", "wet")} if weighted else None

    def take(rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        if len(x[rows]) > most:
            raise CPU
        out = heads(x[rows])
        part = {name: label[rows] for name, label in wanted.items()}
        w = {name: values[rows] for name, values in weights.items()} if weights else None
        loss = heads.loss(out, part, row_weights=w, smoothing=0.1, totals=heads.totals(wanted, weights))
        loss.backward()
        return loss.detach(), {name: values.detach() for name, values in out.items()}

    loss, out, parts = run_in_parts(take, 11, 1, heads.zero_grad)
    assert parts == {1: 16, 3: 4, 5: 4, 99: 1}[most]
    got = [p.grad.clone() for p in heads.parameters() if p.grad is not None]
    heads.zero_grad()
    whole = heads.loss(heads(x), wanted, row_weights=weights, smoothing=0.1)
    whole.backward()
    assert float(loss) == pytest.approx(float(whole.detach()), rel=1e-5)
    for one, p in zip(got, heads.parameters(), strict=True):
        assert torch.allclose(one, p.grad, rtol=1e-4, atol=1e-6)
    for name, values in heads(x).items():
        assert torch.allclose(out[name], values, atol=1e-6)


def test_a_single_image_that_does_not_fit_is_one_line_and_other_errors_are_ours() -> None:
    def take(error: Exception) -> Any:
        def fail(rows: slice) -> Any:
            raise error

        return fail

    with pytest.raises(TransferError, match="out of memory on a single image"):
        run_in_parts(take(CPU), 5, 1, lambda: None)
    with pytest.raises(RuntimeError, match="shapes"):
        run_in_parts(take(RuntimeError("shapes")), 5, 1, lambda: None)


@pytest.mark.parametrize(
    "regularise", [RegulariseConfig(), RegulariseConfig(mixup=0.4), RegulariseConfig(l2_sp=0.1, delta=0.01)]
)
def test_a_fit_in_parts_is_the_fit(
    taught: Callable[..., Any],
    data: TrainingData,
    monkeypatch: pytest.MonkeyPatch,
    scarce: Callable[[pytest.MonkeyPatch, int], None],
    regularise: RegulariseConfig,
) -> None:
    """Where no BatchNorm learns; and up to rounding, which Adam would blow up where a gradient is nearly zero."""
    config = LearnConfig(probe="trained", epochs=1, batch_size=12, workers=1, lr=1e-2, optimizer="sgd")
    config = replace(config, regularise=regularise, balance="loss")
    states = []
    for most in (99, 5):
        with monkeypatch.context() as patch:
            scarce(patch, most)
            model, plan = taught("partial:1", statistics="frozen")
            result = fit(model, plan, data, config, TrunkCache())
            assert result.parts == (4 if most == 5 else 1)
            states.append((model.state_dict(), result.epochs[0]))
    (one, line), (other, told) = states
    assert told["loss"] == pytest.approx(line["loss"], rel=1e-4)
    assert told["train"] == line["train"]
    for name in one:
        assert np.allclose(one[name], other[name], rtol=1e-3, atol=1e-5), name


def test_a_run_says_so(
    config: Callable[..., TrainConfig],
    monkeypatch: pytest.MonkeyPatch,
    scarce: Callable[[pytest.MonkeyPatch, int], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    scarce(monkeypatch, 3)
    result = train(config(policy="partial:1", epochs=1)).result
    assert any("batches of 8 were divided into 4 parts" in note for note in result["notes"])
    assert "out of memory: batches of 8 are processed in 4 parts" in caplog.text
