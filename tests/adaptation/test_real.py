"""Real ImageNet weights on real photographs, through the whole of `adapt`."""

from pathlib import Path

import numpy as np
import pytest

from transfer.adaptation.adapt import adapt
from transfer.data.duplicates import inspect_files
from transfer.data.folders import read_folder
from transfer.training.setup import Images

SHARED = Path(__file__).parents[3] / "shared"
EACH = 4

pytestmark = pytest.mark.skipif(
    not (SHARED / "weights").is_dir() or not (SHARED / "data" / "office31").is_dir(),
    reason="needs shared/ with Office-31 and ImageNet weights beside the checkout",
)


def test_a_small_shift(config, monkeypatch):
    """Four images of each of Office-31's classes, dslr -> webcam: the source is nearly right, and auto no worse."""
    made = config(
        data=str(SHARED / "data" / "office31"),
        source=("dslr",),
        target="webcam",
        backbone="mobilenetv2_100",
        method=("auto",),
        bottleneck=128,
        steps=20,
        batch_size=48,
    )
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(SHARED / "weights"))
    table = read_folder(SHARED / "data" / "office31")
    cell = np.where(table.domain == table.domains.index("amazon"), -1, table.domain * 100 + table.object)
    table = table.take(np.concatenate([np.flatnonzero(cell == c)[:EACH] for c in np.unique(cell) if c >= 0]))
    result = adapt(made, images=Images(table, inspect_files(table))).result
    source_only, auto = (result[part]["object"]["accuracy"] for part in ("source_only", "target"))
    assert result["images"]["target"] == 31 * EACH
    assert source_only > 0.8
    assert auto >= source_only - 0.01
