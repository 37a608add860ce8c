"""Settings of quick fits, and their outcome in a form that tests compare."""

from dataclasses import replace

import numpy as np

from transfer.config.train import LearnConfig
from transfer.evaluation.predictions import evaluate_predictions, predict_rows, target_tensors
from transfer.feature_cache import TrunkCache
from transfer.model import TransferModel
from transfer.training.epoch import TrainingData

QUICK = LearnConfig(probe="trained", epochs=4, batch_size=8, workers=1, lr=1e-3, label_smoothing=0.0)
LEARN = replace(QUICK, epochs=10, lr=3e-3)
ABLE = "resnet10t"  # a random network that can learn the tiny set under any policy


def measured(model: TransferModel, data: TrainingData, rows: np.ndarray) -> tuple[dict[str, float], float]:
    """Return accuracy by head, and the loss, on `rows`."""
    feed = TrunkCache().feed(model, data.table.paths, data.digests, batch_size=64, workers=1)
    predictions, loss = predict_rows(model, feed, rows, target_tensors(data.table, model))
    report = evaluate_predictions(data.table.take(rows), predictions)
    return {name: of_head["accuracy"] for name, of_head in report.items()}, loss
