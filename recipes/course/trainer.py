"""Train a network on pixels for both labels: one output layer, with a softmax over each head's part of it."""

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import trange

from course import progress
from course.config import ScratchConfig
from course.layers import layer_statistics
from course.networks import build
from course.pixels import PixelSet, compute_scaling
from transfer.config.serialise import to_dict
from transfer.errors import TransferError
from transfer.heads import metrics
from transfer.runtime.device import pick_device
from transfer.training.diagnosis import monitor

HEADS = ("domain", "object")
LOG_INTERVAL = 10  # epochs between log lines
MAX_LOGGED_VAL_IMAGES = 100  # for the validation accuracy of a log line
MAX_LAYER_STATISTICS_IMAGES = 128
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}

log = logging.getLogger(f"transfer.{__name__}")  # printed as the command's own log lines are


def train_from_scratch(
    config: ScratchConfig, data: PixelSet, *, name: str = "", seed: int = 0, examples: int = 3
) -> dict[str, Any]:
    """Train a network and evaluate it on the test images after the last epoch.

    Parameters
    ----------
    config : ScratchConfig
    data : PixelSet
    name : str
        Name in the log lines (default: the network's sizes).
    seed : int
        Random seed of the initial weights and of the order of images; both are the same for every optimizer.
    examples : int
        Number of test images whose predictions are logged.

    Returns
    -------
    dict
        ``test``: metrics of each head; ``epochs``: a record each; ``layers``: statistics of the layers at the
        ``start`` and the ``end``; ``monitor``: warnings that follow from these; ``seconds`` of training, in total and
        per epoch; ``config``, ``seed``, ``parameters``.

    Raises
    ------
    TransferError
        No training images, or no label with two classes.
    """
    name = name or f"{config.network.network} {list(config.network.hidden)}"
    sizes = {head: len(data.table.targets[head].classes) for head in HEADS}
    sizes = {head: size for head, size in sizes.items() if size > 1}
    if not sizes or not len(data.parts.train):
        raise TransferError(f"{data.table.name}: no training images of two or more classes")
    device = pick_device(config.device)
    torch.manual_seed(seed)
    network = build(config.network, config.side, sum(sizes.values())).to(device)
    trainer = _Trainer(config, data, network, sizes, device, seed)
    layers = {"start": trainer.measure_layers()}
    log.info("%s", progress.started(name))
    start = last = time.perf_counter()
    lines: list[dict[str, Any]] = []
    for number in trange(1, config.epochs + 1, desc=name, unit="epoch", disable=None, leave=False):
        lines.append(trainer.run_epoch(number))
        if number % LOG_INTERVAL == 0 or number == config.epochs:
            now, line = time.perf_counter(), lines[-1]
            accuracy = trainer.accuracy(trainer.rng.permutation(data.parts.val)[:MAX_LOGGED_VAL_IMAGES])
            log.info("%s", progress.epoch(number, line["loss"], line["train"], accuracy, now - last, now - start))
            last = now
    total = time.perf_counter() - start
    log.info("%s", progress.ended(name, total))
    layers["end"] = trainer.measure_layers()
    seconds = sum(line["seconds"] for line in lines)
    return {
        "config": to_dict(config),
        "seed": seed,
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": {"train": round(seconds, 3), "epoch": round(seconds / config.epochs, 4)},
        "test": trainer.test(name, examples),
        "epochs": lines,
        "layers": layers,
        "monitor": monitor.find_problems(lines, layers["end"]),
    }


def compute_loss(logits: Tensor, labels: Mapping[str, Tensor], sizes: Mapping[str, int]) -> Tensor:
    """Return the sum over heads of the mean cross-entropy of the images whose label is known (not -1).

    Parameters
    ----------
    logits : Tensor, shape (B, sum of sizes)
    labels : mapping of str to Tensor of int64, shape (B,)
    sizes : mapping of str to int
        Number of classes of each head, in the order of their logits.
    """
    total = logits.new_zeros(())
    for label, part in _split_by_head(logits, labels, sizes):
        known = (label >= 0).sum().clamp_min(1)
        total = total + F.cross_entropy(part, label, ignore_index=-1, reduction="sum") / known
    return total


def _split_by_head(
    logits: Tensor, labels: Mapping[str, Tensor], sizes: Mapping[str, int]
) -> list[tuple[Tensor, Tensor]]:
    """Return each head's labels and its part of the logits."""
    return list(zip([labels[head] for head in sizes], logits.split(list(sizes.values()), 1), strict=True))


def split_into_batches(order: Tensor, size: int) -> list[Tensor]:
    """Return `order` (N,) in batches of `size`; a single last row joins the batch before, as batch norm needs two.

    Examples
    --------
    >>> [len(batch) for batch in split_into_batches(torch.arange(7), 3)]
    [3, 4]
    """
    parts = list(order.split(size))
    if size > 1 and len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


class _Trainer:
    """The network, data and optimizer of one training run."""

    def __init__(
        self,
        config: ScratchConfig,
        data: PixelSet,
        network: nn.Sequential,
        sizes: dict[str, int],
        device: torch.device,
        seed: int,
    ) -> None:
        self.config, self.data, self.network, self.sizes = config, data, network, sizes
        self.device = device
        pixels = torch.from_numpy(data.pixels)
        self.offset, self.scale = (part.to(device) for part in compute_scaling(pixels, data.parts.train, config.inputs))
        self.pixels = pixels.to(device)
        self.labels = {head: torch.from_numpy(data.table.targets[head].values).to(device) for head in sizes}
        self.rng = np.random.default_rng(seed)
        self.optimizer = OPTIMIZERS[config.optimizer](network.parameters(), lr=config.lr, fused=True)

    def run_epoch(self, number: int) -> dict[str, Any]:
        """Train on every image once; return the epoch's record, with the training accuracies before each step."""
        started = time.perf_counter()
        self.network.train()
        train = self.data.parts.train
        total = torch.zeros((), device=self.device)
        correct = torch.zeros(len(self.sizes), device=self.device)
        order = self._rows(self.rng.permutation(train))
        for batch in split_into_batches(order, self.config.batch_size):
            logits = self.network(self._images(batch))
            labels = {head: label[batch] for head, label in self.labels.items()}
            cost = compute_loss(logits, labels, self.sizes)
            self.optimizer.zero_grad(set_to_none=True)
            cost.backward()
            self.optimizer.step()
            total += cost.detach() * len(batch)
            correct += self._count_correct(logits.detach(), labels)
        labelled = {head: max(int((self.labels[head][order] >= 0).sum()), 1) for head in self.sizes}
        accuracy = {
            head: round(float(count) / labelled[head], 6) for head, count in zip(self.sizes, correct, strict=True)
        }
        seconds = round(time.perf_counter() - started, 4)
        val = self.accuracy(self.data.parts.val)
        line = {"phase": "scratch", "epoch": number, "loss": float(total) / len(train), "rate": self.config.lr}
        return line | {"train": accuracy, "seconds": seconds} | ({"val": val} if val else {})

    def accuracy(self, rows: np.ndarray) -> dict[str, float]:
        """Return each head's accuracy on `rows`; empty without rows."""
        if not len(rows):
            return {}
        true = {head: self.data.table.targets[head].values[rows] for head in self.sizes}
        probabilities = self.probabilities(rows)
        return {head: round(float(np.mean(probabilities[head].argmax(1) == true[head])), 6) for head in self.sizes}

    @torch.inference_mode()
    def probabilities(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return each head's probabilities (n, classes) for `rows`."""
        self.network.eval()
        logits = torch.cat([self.network(self._images(batch)) for batch in self._rows(rows).split(128)])
        parts = logits.float().split(list(self.sizes.values()), 1)
        return {head: part.softmax(1).cpu().numpy() for head, part in zip(self.sizes, parts, strict=True)}

    def test(self, name: str, examples: int) -> dict[str, Any]:
        """Return each head's metrics on the test images, and log them with examples."""
        rows, started = self.data.parts.test, time.perf_counter()
        if not len(rows):
            return {}
        probabilities, test = self.probabilities(rows), {}
        for head, values in probabilities.items():
            target = self.data.table.targets[head]
            test[head] = metrics.classification_metrics(target.values[rows], values.argmax(1), target.classes)
        accuracy = {head: r["accuracy"] for head, r in test.items() if "accuracy" in r}
        log.info("%s\n", progress.report(name, accuracy, time.perf_counter() - started))
        chosen = self.rng.permutation(len(rows))[:examples]
        for head in reversed(self.sizes) if examples else ():  # objects first
            target = self.data.table.targets[head]
            lines = progress.examples(probabilities[head][chosen], target.values[rows[chosen]], target.classes)
            log.info("%s\n%s\n", head, "\n".join(lines))
        return test

    def measure_layers(self) -> list[dict[str, Any]]:
        """Return the layers' statistics on a sample of training images."""
        train, count = self.data.parts.train, MAX_LAYER_STATISTICS_IMAGES
        rows = self._rows(train[:: max(1, len(train) // count)][:count])
        labels = {head: label[rows] for head, label in self.labels.items()}
        return layer_statistics(
            self.network, self._images(rows), lambda logits: compute_loss(logits, labels, self.sizes)
        )

    def _rows(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self.device)

    def _images(self, rows: Tensor) -> Tensor:
        return (self.pixels[rows].float() - self.offset) / self.scale

    def _count_correct(self, logits: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        hits = [(part.argmax(1) == label).sum() for label, part in _split_by_head(logits, labels, self.sizes)]
        return torch.stack(hits).float()
