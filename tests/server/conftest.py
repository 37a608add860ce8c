from dataclasses import replace
from shutil import copytree

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


@pytest.fixture(scope="session")
def served_folder(folder, tmp_path_factory):
    """A run on the tiny set, trained once; tests that write into it take :func:`run_folder`, a copy."""
    from transfer.config.shared import BackboneConfig
    from transfer.config.train import DataConfig, RunConfig, TrainConfig
    from transfer.training.train import train

    out = tmp_path_factory.mktemp("served") / "tiny"
    run = RunConfig(out=out)
    train(TrainConfig(DataConfig(str(folder)), BackboneConfig("glyphnet"), run=run))
    return out


@pytest.fixture
def run_folder(served_folder, tmp_path):
    return copytree(served_folder, tmp_path / "run")


@pytest.fixture(scope="session")
def make_service():
    """Build the service of runs with other settings than the defaults."""
    from transfer.config.serving import ServeConfig, ServeLimitsConfig
    from transfer.server.service import PredictionService

    def build(*runs, limits=None, **settings):
        return PredictionService(ServeConfig(runs, device="cpu", limits=ServeLimitsConfig(**limits or {}), **settings))

    return build
