"""A network learns both labels from pixels: one output layer, a softmax over its part for each head."""

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange

from course import progress
from course.config import ScratchConfig
from course.layers import layer_statistics
from course.networks import build
from course.pixels import PixelSet, scale
from transfer.config.serialise import to_dict
from transfer.errors import TransferError
from transfer.heads import metrics
from transfer.runtime.device import pick_device
from transfer.training import monitor

HEADS = ("domain", "object")
EVERY, VALIDATED, LOOKED_AT = 10, 100, 128  # epochs between lines; validation images of a line; images of the layers
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}

log = logging.getLogger(f"transfer.{__name__}")  # printed as the lines of the command are


def learn(config: ScratchConfig, data: PixelSet, *, name: str = "", seed: int = 0, examples: int = 3) -> dict[str, Any]:
    """Teach a network and test it as it is after the last epoch.

    Parameters
    ----------
    config : ScratchConfig
    data : PixelSet
    name : str
        In the progress lines (default: the network's sizes).
    seed : int
        Of the weights and of the order of images, both the same for every optimizer.
    examples : int
        Test images whose answers are told.

    Returns
    -------
    dict
        ``test``: each head's report; ``epochs``: a line each; ``layers``: statistics of the layers at the ``start`` and
        the ``end``; ``monitor``: what these show, in words; ``seconds`` of training, in all and for an epoch;
        ``config``, ``seed``, ``parameters``.

    Raises
    ------
    TransferError
        There is nothing to learn.
    """
    name = name or f"{config.network.network} {list(config.network.hidden)}"
    sizes = {head: len(data.table.targets[head].classes) for head in HEADS}
    sizes = {head: size for head, size in sizes.items() if size > 1}
    if not sizes or not len(data.parts.train):
        raise TransferError(f"{data.table.name}: no training images with two classes to tell apart")
    device = pick_device(config.device)
    torch.manual_seed(seed)
    network = build(config.network, config.side, sum(sizes.values())).to(device)
    course = _Course(config, data, network, sizes, device, seed)
    layers = {"start": course.layers()}
    log.info("%s", progress.started(name))
    began = last = time.perf_counter()
    lines: list[dict[str, Any]] = []
    for number in trange(1, config.epochs + 1, desc=name, unit="epoch", disable=None, leave=False):
        lines.append(course.epoch(number))
        if number % EVERY == 0 or number == config.epochs:
            now, line = time.perf_counter(), lines[-1]
            shown = course.accuracy(course.rng.permutation(data.parts.val)[:VALIDATED])
            log.info("%s", progress.epoch(number, line["loss"], line["train"], shown, now - last, now - began))
            last = now
    total = time.perf_counter() - began
    log.info("%s", progress.ended(name, total))
    layers["end"] = course.layers()
    spent = sum(line["seconds"] for line in lines)
    return {
        "config": to_dict(config),
        "seed": seed,
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": {"train": round(spent, 3), "epoch": round(spent / config.epochs, 4)},
        "test": course.test(name, examples),
        "epochs": lines,
        "layers": layers,
        "monitor": monitor.watch(lines, layers["end"]),
    }


def loss(logits: Tensor, labels: Mapping[str, Tensor], sizes: Mapping[str, int]) -> Tensor:
    """Return the sum over heads of the mean cross-entropy of those images whose label is known (not -1).

    Parameters
    ----------
    logits : Tensor, shape (B, sum of sizes)
    labels : mapping of str to Tensor of int64, shape (B,)
    sizes : mapping of str to int
        Classes of each head, in the order in which they share the logits.
    """
    total = logits.new_zeros(())
    for label, part in _heads(logits, labels, sizes):
        known = (label >= 0).sum().clamp_min(1)
        total = total + F.cross_entropy(part, label, ignore_index=-1, reduction="sum") / known
    return total


def _heads(logits: Tensor, labels: Mapping[str, Tensor], sizes: Mapping[str, int]) -> list[tuple[Tensor, Tensor]]:
    """Return each head's labels and its part of the logits."""
    return list(zip([labels[head] for head in sizes], logits.split(list(sizes.values()), 1), strict=True))


def batches(order: Tensor, size: int) -> list[Tensor]:
    """Return `order` (N,) in batches of `size`; a single row at the end joins those before, having no variance to norm.

    Examples
    --------
    >>> [len(batch) for batch in batches(torch.arange(7), 3)]
    [3, 4]
    """
    parts = list(order.split(size))
    if size > 1 and len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


class _Course:
    """What the epochs of one training share."""

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
        self.less, self.over = (part.to(device) for part in scale(pixels, data.parts.train, config.inputs))
        self.pixels = pixels.to(device)
        self.labels = {head: torch.from_numpy(data.table.targets[head].values).to(device) for head in sizes}
        self.rng = np.random.default_rng(seed)
        self.optimizer = OPTIMIZERS[config.optimizer](network.parameters(), lr=config.lr, fused=True)

    def epoch(self, number: int) -> dict[str, Any]:
        """See every training image once; return the epoch's line, accuracies being those before each step."""
        began = time.perf_counter()
        self.network.train()
        train = self.data.parts.train
        total = torch.zeros((), device=self.device)
        right = torch.zeros(len(self.sizes), device=self.device)
        order = self._rows(self.rng.permutation(train))
        for batch in batches(order, self.config.batch_size):
            logits = self.network(self._images(batch))
            labels = {head: label[batch] for head, label in self.labels.items()}
            cost = loss(logits, labels, self.sizes)
            self.optimizer.zero_grad(set_to_none=True)
            cost.backward()
            self.optimizer.step()
            total += cost.detach() * len(batch)
            right += self._right(logits.detach(), labels)
        seen = {head: max(int((self.labels[head][order] >= 0).sum()), 1) for head in self.sizes}
        accuracy = {head: round(float(r) / seen[head], 6) for head, r in zip(self.sizes, right, strict=True)}
        seconds = round(time.perf_counter() - began, 4)
        val = self.accuracy(self.data.parts.val)
        line = {"phase": "scratch", "epoch": number, "loss": float(total) / len(train), "rate": self.config.lr}
        return line | {"train": accuracy, "seconds": seconds} | ({"val": val} if val else {})

    def accuracy(self, rows: np.ndarray) -> dict[str, float]:
        """Return each head's accuracy on `rows`; nothing where there are none."""
        if not len(rows):
            return {}
        true = {head: self.data.table.targets[head].values[rows] for head in self.sizes}
        found = self.probabilities(rows)
        return {head: round(float(np.mean(found[head].argmax(1) == true[head])), 6) for head in self.sizes}

    @torch.inference_mode()
    def probabilities(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return each head's probabilities (n, classes) for `rows`."""
        self.network.eval()
        logits = torch.cat([self.network(self._images(batch)) for batch in self._rows(rows).split(128)])
        parts = logits.float().split(list(self.sizes.values()), 1)
        return {head: part.softmax(1).cpu().numpy() for head, part in zip(self.sizes, parts, strict=True)}

    def test(self, name: str, examples: int) -> dict[str, Any]:
        """Return each head's report on the test images."""
        rows, began = self.data.parts.test, time.perf_counter()
        if not len(rows):
            return {}
        probabilities, test = self.probabilities(rows), {}
        for head, values in probabilities.items():
            target = self.data.table.targets[head]
            test[head] = metrics.classification_metrics(target.values[rows], values.argmax(1), target.classes)
        accuracy = {head: r["accuracy"] for head, r in test.items() if "accuracy" in r}
        log.info("%s\n", progress.report(name, accuracy, time.perf_counter() - began))
        some = self.rng.permutation(len(rows))[:examples]
        for head in reversed(self.sizes) if examples else ():  # objects first
            target = self.data.table.targets[head]
            shown = progress.examples(probabilities[head][some], target.values[rows[some]], target.classes)
            log.info("%s\n%s\n", head, "\n".join(shown))
        return test

    def layers(self) -> list[dict[str, Any]]:
        """Return the layers' statistics on some training images."""
        some = self._rows(self.data.parts.train[:: max(1, len(self.data.parts.train) // LOOKED_AT)][:LOOKED_AT])
        labels = {head: label[some] for head, label in self.labels.items()}
        return layer_statistics(self.network, self._images(some), lambda logits: loss(logits, labels, self.sizes))

    def _rows(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self.device)

    def _images(self, rows: Tensor) -> Tensor:
        return (self.pixels[rows].float() - self.less) / self.over

    def _right(self, logits: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        hits = [(part.argmax(1) == label).sum() for label, part in _heads(logits, labels, self.sizes)]
        return torch.stack(hits).float()
