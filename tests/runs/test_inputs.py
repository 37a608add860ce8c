from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from transfer.data.splits import Splits
from transfer.errors import TransferError
from transfer.runs.inputs import RunInputs
from transfer.training.setup import TrainingData


def test_changed_images_weights_or_split_are_refused(taught: Callable[..., Any], data: TrainingData) -> None:
    model, _ = taught()
    parts = Splits(data.train, data.val, np.arange(3))
    paths, digests = data.table.paths, data.digests
    before = RunInputs("net", model, parts, paths, digests).now
    RunInputs("net", model, parts, paths, digests).check(before)
    other = digests.copy()
    other[[4, 7]] = digests[[5, 8]]
    for inputs, message in (
        (RunInputs("net", model, parts, paths, other), f"{paths[4]} \\(and 1 more\\) changed since the run started"),
        (RunInputs("net", model, parts, paths[1:], digests[1:]), "started with 48 images, but there are 47 now"),
        (
            RunInputs("net", taught(seed=1)[0], parts, paths, digests),
            "the weights of net changed since the run started",
        ),
        (RunInputs("net", model, replace(parts, val=parts.test), paths, digests), "the split of the images"),
    ):
        with pytest.raises(TransferError, match=message):
            inputs.check(before)
