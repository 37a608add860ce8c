import dataclasses
import math
import subprocess
import sys

import pytest

from transfer.config.train import (
    CacheConfig,
    DataConfig,
    HeadConfig,
    LearnConfig,
    PolicyConfig,
    RegulariseConfig,
    RunConfig,
    TrainConfig,
    ViewConfig,
)
from transfer.errors import TransferError


def test_configs_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        LearnConfig().epochs = 3  # type: ignore[misc]


WITHOUT_TORCH = [
    "transfer",
    "transfer.cli.main",
    "transfer.config.train",
    "transfer.config.commands",
    "transfer.errors",
    "transfer.runtime.files",
    "transfer.freeze",
]
WITHOUT_TORCH += [
    "transfer.data.table",
    "transfer.data.folders",
    "transfer.runs.seeds",
    "transfer.report.console.run_text",
]
WITHOUT_TORCH += ["transfer.report.page"]


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_no_torch_until_it_is_needed(module: str) -> None:
    code = f"import sys, {module}; sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_needs_torch_is_still_at_hand() -> None:
    import transfer

    for _ in range(2):  # also once all that they come from is loaded: no package has the name of a function
        for name in transfer.__all__:
            assert callable(getattr(transfer, name)), name
    with pytest.raises(AttributeError, match="zebra"):
        transfer.zebra  # noqa: B018


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LearnConfig(batch_size=-1), "--batch-size -1: it must be 0 or more"),
        (lambda: LearnConfig(epochs=0), "--epochs 0: it must be 1 or more"),
        (lambda: LearnConfig(workers=-3), "--workers -3: it must be 1 or more"),
        (lambda: LearnConfig(lr=math.nan), "--lr nan: it must be above 0"),
        (lambda: LearnConfig(label_smoothing=1.0), "--label-smoothing 1.0: it must be from 0 to below 1"),
        (lambda: LearnConfig(ema_decay=1.0), "--ema-decay 1.0: it must be from 0 to below 1"),
        (lambda: LearnConfig(cycles=0), "--cycles 0: it must be 1 or more"),
        (lambda: ViewConfig(test_sizes=(224, 0)), "--test-sizes 0: it must be from 1 to 4096"),
        (lambda: DataConfig(split_seed=-1), "--split-seed -1: it must be 0 or more"),
        (lambda: HeadConfig(hidden=(8, 0)), "--hidden 0: it must be 1 or more"),
        (lambda: HeadConfig(dropout=1.5), "--dropout 1.5: it must be from 0 to below 1"),
        (lambda: HeadConfig(drop_connect=1.0), "--drop-connect 1.0: it must be from 0 to below 1"),
        (lambda: RegulariseConfig(l1=-1), "--l1 -1: it must be 0 or more"),
        (lambda: RegulariseConfig(co_tuning=math.nan), "--co-tuning nan: it must be 0 or more"),
        (lambda: RegulariseConfig(stochastic_depth=1.0), "--stochastic-depth 1.0: it must be from 0 to below 1"),
        (lambda: PolicyConfig(layer_decay=-1), "--layer-decay -1: it must be 0 or more"),
        (lambda: DataConfig(shots=0), "--shots 0: it must be 1 or more"),
        (lambda: DataConfig(test=1.0), "--test 1.0: it must be from 0 to below 1"),
        (lambda: RunConfig(seeds=(0, -1)), "--seeds -1: it must be 0 or more"),
        (lambda: CacheConfig(cache_gb=math.inf), "--cache-gb inf: it must be above 0"),
        (lambda: CacheConfig(views=-1), "--views -1: it must be 0 or more"),
        (lambda: TrainConfig(cache=CacheConfig(views=2)), "--views 2 caches augmented views: add --augment"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make, message: str) -> None:
    with pytest.raises(TransferError) as refused:
        make()
    assert str(refused.value).startswith(message)
