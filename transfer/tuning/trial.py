"""A trial of a search: an ordinary fit, judged on the validation images, on data that all trials share."""

import math
import time
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from torch import Tensor

from transfer.backbones.backbone import Backbone
from transfer.config.train import HeadConfig, TrainConfig
from transfer.data.splits import mask_labels
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePolicy
from transfer.heads.heads import HeadSpec
from transfer.runtime.device import pick_device
from transfer.training.epoch import TrainingData
from transfer.training.fit import fit
from transfer.training.setup import Images, head_specs, new_backbone, new_model, split_images

GoOn = Callable[[int, float], bool]
"""Told the epochs done and the best validation score so far; returns whether to train on."""


class _Enough(Exception):
    """A trial is stopped early."""


class Bench:
    """What all trials share: split, features, backbone. The labels of the test images are masked here (law 3)."""

    def __init__(self, config: TrainConfig, images: Images, cache: TrunkCache) -> None:
        data, seed = config.data, config.run.seed
        self.parts = split_images(images, data, seed)
        table = mask_labels(images.table, self.parts.test, keep=())
        self.data = TrainingData(table, images.inspection.sha256, self.parts.train, self.parts.val)
        self.seed, self.cache = seed, cache
        self.device = pick_device(config.learn.device)
        self._backbones: dict[tuple[bool, bool, int], tuple[Backbone, dict[str, Tensor]]] = {}

    def networks(self, config: HeadConfig) -> dict[str, list[HeadSpec]]:
        """Return the heads to learn for each network."""
        return head_specs(self.data.table, self.parts, config)[0]

    def trial(self, config: TrainConfig, go_on: GoOn) -> dict[str, Any]:
        """Fit as `config` says, for as long as `go_on` says; return ``val_acc``, ``val`` by head, ``epochs``,
        ``stopped`` (why, if early) and ``seconds``.

        ``val_acc`` is the score of the best epoch: the mean accuracy over the heads, by which a run chooses its
        epoch too; 0 where the loss was never finite. Separate networks are trained to the end.
        """
        began = time.perf_counter()
        networks = self.networks(config.heads)
        val: dict[str, float] = {}
        epochs, stopped = 0, ""
        for specs in networks.values():
            best, reached = (-math.inf, -math.inf), {spec.name: 0.0 for spec in specs if spec.weight}

            def look(line: dict[str, Any]) -> None:
                nonlocal best, reached, epochs
                if "val" not in line or "head" in line:  # a head's strength on the way to a solution
                    return
                epochs = line["epoch"]
                counted = {name: line["val"][name] for name in reached}
                value = fmean(counted.values()) if counted else 0.0, -line["val_loss"]
                if value > best:
                    best, reached = value, counted
                if len(networks) == 1 and not go_on(epochs, best[0]):
                    raise _Enough

            backbone = self._backbone(config)
            model, plan = new_model(config, specs, self.seed, self.device, backbone)
            try:
                end = fit(model, plan, self.data, config.learn, self.cache, seed=self.seed, on_epoch=look).stopped
            except _Enough:
                end = "halving"
            stopped = stopped or end
            val |= reached
        seconds = round(time.perf_counter() - began, 3)
        return {"val_acc": fmean(val.values()), "val": val, "epochs": epochs, "stopped": stopped, "seconds": seconds}

    def _backbone(self, config: TrainConfig) -> Backbone | None:
        """Return the backbone with the weights that it starts from, read once; none where a trial needs its own."""
        if config.learn.regularise.co_tuning:  # which keeps the original classifier
            return None
        policy = FreezePolicy.parse(config.policy.policy)
        key = policy.from_scratch, policy.all_stages, policy.dropped  # policies that agree start from the same network
        if key not in self._backbones:
            backbone = new_backbone(config.backbone, self.seed, policy).to(self.device)
            start = {name: tensor.clone() for name, tensor in backbone.network.state_dict().items()}
            self._backbones[key] = backbone, start
        backbone, start = self._backbones[key]
        backbone.network.load_state_dict(start)
        return backbone


class Halving:
    """Successive halving, asynchronous (Li et al. 2020): at each rung only the best of those there so far go on.

    Rungs lie at 1 / `keep`, 1 / `keep` ** 2, ... of the epochs. A trial goes on from a rung if it is among the best
    1 / `keep` of all that came to it before, itself included.

    Parameters
    ----------
    keep : int
        One in so many goes on; 1 lets all.
    """

    def __init__(self, epochs: int, keep: int) -> None:
        self.keep, self.rungs = keep, rungs(epochs, keep)

    def watch(self, earlier: Sequence[dict[str, Any]]) -> tuple[GoOn, list[float]]:
        """Return what to ask after each epoch of a trial after the `earlier` ones, and its scores at the rungs."""
        scores: list[float] = []

        def go_on(epoch: int, score: float) -> bool:
            if epoch not in self.rungs[len(scores) :]:
                return True
            here = len(scores)
            scores.append(score)
            others = [record["rungs"][here] for record in earlier if len(record["rungs"]) > here]
            return survives(score, others, self.keep)

        return go_on, scores


def rungs(epochs: int, keep: int) -> list[int]:
    """Return after which epochs trials are compared.

    Examples
    --------
    >>> rungs(9, 3), rungs(30, 3), rungs(30, 1)
    ([1, 3], [1, 3, 10], [])
    """
    places: set[int] = set()
    length = epochs / keep
    while keep > 1 and round(length) >= 1:
        places.add(round(length))
        length /= keep
    return sorted(place for place in places if place < epochs)


def survives(score: float, others: Sequence[float], keep: int) -> bool:
    """Return whether `score` is among the best 1 / `keep`, rounded up, of itself and the `others`."""
    return sum(other > score for other in others) < math.ceil((len(others) + 1) / keep)
