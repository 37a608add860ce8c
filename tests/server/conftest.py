from dataclasses import replace

import numpy as np
import pytest
from wrong_labels import WRONG

from transfer.curation.features import DataSetFeatures
from transfer.data.corrections import CorrectionFile
from transfer.data.duplicates import inspect_files
from transfer.server.review import Review


@pytest.fixture
def reviewed(images):
    """The tiny set with three wrong labels, and features that tell the true classes apart."""
    rng = np.random.default_rng(0)
    truth = images.object.copy()
    features = (np.eye(3, 16)[truth] * 3 + rng.normal(0, 0.3, (len(truth), 16))).astype(np.float32)
    labels = truth.copy()
    labels[WRONG] = (labels[WRONG] + 1) % 3
    target = replace(images.targets["object"], values=labels)
    table = replace(images, targets=images.targets | {"object": target})
    inspection = inspect_files(table)
    apart = np.arange(len(table), dtype=np.uint64) * np.uint64(0x0101010101)  # no near-duplicates
    return DataSetFeatures(table, replace(inspection, phash=apart * np.uint64(0x9E3779B97F4A7C15)), features)


@pytest.fixture
def review(reviewed, tmp_path):
    return Review(reviewed, CorrectionFile(tmp_path / "review/labels.csv"))
