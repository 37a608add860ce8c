from typing import Any

import numpy as np
import pytest

from transfer.data.splits import Splits
from transfer.data.table import ImageTable, make_softmax_target

CLASSES = 3


@pytest.fixture
def coloured() -> Any:
    """60 images of 8 x 8: the object is the colour, the domain the brightness."""
    from course.pixels import PixelSet

    rng = np.random.default_rng(0)
    objects, domains = np.arange(60) % CLASSES, (np.arange(60) // CLASSES) % 2
    pixels = rng.integers(0, 60, (60, 3, 8, 8))
    pixels[np.arange(60), objects] += 90
    pixels += (90 * domains)[:, None, None, None]
    empty = np.full(60, "")
    targets = {
        "object": make_softmax_target([f"colour{i}" for i in objects]),
        "domain": make_softmax_target([("dark", "light")[i] for i in domains]),
    }
    table = ImageTable(np.array([f"/{i}.png" for i in range(60)]), targets, empty, empty, "coloured")
    rows = np.random.default_rng(1).permutation(60)
    parts = Splits(*(np.sort(part) for part in (rows[:40], rows[40:48], rows[48:])))
    return PixelSet(table, pixels.astype(np.uint8), parts)
