"""The unlabelled training images of a run: their features, their pseudo-labels, and the record of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transfer import freeze
from transfer.backbones.variants import AllStagesBackbone
from transfer.data.table import ImageTable
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec
from transfer.model import TransferModel
from transfer.runtime import distributed
from transfer.semi_supervised.choose import MOST_NEIGHBOURS, PropagationChoice, choose_settings
from transfer.semi_supervised.knn_graph import NearestNeighbours, find_neighbours
from transfer.semi_supervised.pseudo_labels import PropagatedLabels, propagate_pseudo_labels
from transfer.semi_supervised.seed_probe import scale_features

FEED_BATCH = 64  # images


def find_unlabelled(table: ImageTable, train: np.ndarray, head: str = "object") -> np.ndarray:
    """Return the rows of `train` without a label of `head`; rows of a given val or test split are not among them."""
    return train[~table.targets[head].known[train] & ~np.isin(table.split[train], ["val", "test"])]


def propagates(spec: HeadSpec) -> bool:
    """Return whether labels of a head are propagated: classes, but not the domain, which needs no labelling."""
    return spec.head_kind.has_classes and spec.name != "domain"


def compute_pretrained_features(
    model: TransferModel, cache: TrunkCache, table: ImageTable, digests: np.ndarray, rows: np.ndarray
) -> Tensor:
    """Return the output (N, width) of the whole backbone of `model` for `rows`, with its present weights.

    Of a backbone that gives the features of all stages, those of the last one.
    """
    backbone = model.backbone
    model.freeze(freeze.plan("linear_probe", backbone).phases[0])
    feed = cache.feed(model.eval(), table.paths, digests, batch_size=FEED_BATCH)
    features = feed.load_all_views(rows)[1].float().cpu()
    last = backbone.layout[backbone.stages[-1].name] if isinstance(backbone, AllStagesBackbone) else slice(None)
    return features[:, last]


@dataclass
class UnlabelledImages:
    """Propagates labels among training images, on features that stay as they were before training.

    Parameters
    ----------
    table : ImageTable
    groups : ndarray of int64, shape (N,)
        Images of one group, such as duplicates, are held out together; empty: each image by itself.
    train, val : ndarray of int64
        Rows of the table. Validation images have a part by their labels alone, never as unlabelled ones.
    features : Tensor, shape (train and val, width)
        In the order of the table.
    heads : sequence of str
        The heads whose labels are propagated.
    seed : int
    """

    table: ImageTable
    groups: np.ndarray
    train: np.ndarray
    val: np.ndarray
    features: Tensor
    heads: Sequence[str]
    seed: int = 0
    _neighbours: dict[bytes, NearestNeighbours] = field(default_factory=dict, init=False, repr=False)
    _found: dict[tuple[str, bytes], PropagatedLabels] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.rows = np.union1d(self.train, self.val)
        self.choices = {name: self._choose(name) for name in self.heads}
        self.records = {name: self._describe(name, choice) for name, choice in self.choices.items()}

    @property
    def is_used(self) -> bool:
        """Whether any head takes pseudo-labels."""
        return any(choice.settings for choice in self.choices.values())

    def label(self, train: np.ndarray) -> tuple[ImageTable, dict[str, np.ndarray]]:
        """Return the table with pseudo-labels of the unlabelled rows of `train`, and by head the weights of all rows.

        Labels and images of other rows, such as validation images, have no part in it.
        """
        targets, weights = dict(self.table.targets), {}
        for name, choice in self.choices.items():
            target = targets[name]
            usable = np.union1d(train[target.known[train]], find_unlabelled(self.table, train, name))
            key = name, usable.tobytes()
            found = self._found[key] = self._found.get(key) or self._propagate(name, usable, choice)
            values, each = target.values.copy(), np.ones(len(self.table), np.float32)
            values[usable], each[usable] = found.labels, found.weights
            targets[name], weights[name] = replace(target, values=values), each
            added = ~target.known[usable] & (found.labels >= 0)
            self.records[name] |= {"labelled": int(target.known[usable].sum()), "pseudo_labelled": int(added.sum())}
            if added.any():
                certainty = float(found.weights[added].mean())
                self.records[name] |= {"certainty": round(certainty, 4), "agreement": round(found.agreement, 4)}
        return replace(self.table, targets=targets), weights

    def _describe(self, name: str, choice: PropagationChoice) -> dict[str, Any]:
        unlabelled = len(find_unlabelled(self.table, self.train, name))
        nothing = {"labelled": 0, "pseudo_labelled": 0, "certainty": 0.0, "agreement": 1.0}
        return choice.to_plain() | {"unlabelled": unlabelled} | nothing

    def _choose(self, name: str) -> PropagationChoice:
        target = self.table.targets[name]
        labelled = self.rows[target.known[self.rows]]
        unlabelled = find_unlabelled(self.table, self.train, name)
        if not len(unlabelled) or len(np.unique(target.values[labelled])) < 2:
            return PropagationChoice(None)
        rows = np.union1d(labelled, unlabelled)
        groups = self.groups[rows] if len(self.groups) else None
        x, neighbours = self._scale(rows)
        found = choose_settings(x, target.values[rows], len(target.classes), neighbours, groups, self.seed).to_plain()
        # Processes may differ in the last bits of their features.
        return PropagationChoice.from_plain(distributed.broadcast(found))

    def _propagate(self, name: str, rows: np.ndarray, choice: PropagationChoice) -> PropagatedLabels:
        target = self.table.targets[name]
        if choice.settings is None:
            return PropagatedLabels(target.values[rows], target.known[rows].astype(np.float32), 1.0)
        x, neighbours = self._scale(rows)
        found = propagate_pseudo_labels(x, target.values[rows], len(target.classes), choice, neighbours)
        labels = np.frombuffer(distributed.broadcast_bytes(found.labels.astype(np.int64).tobytes()), np.int64)
        weights = np.frombuffer(distributed.broadcast_bytes(found.weights.tobytes()), np.float32)
        return replace(found, labels=labels, weights=weights)

    def _scale(self, rows: np.ndarray) -> tuple[Tensor, NearestNeighbours]:
        """Return the scaled features of `rows`, and their neighbours, which heads and trials share."""
        x, key = scale_features(self.features[torch.from_numpy(np.searchsorted(self.rows, rows))]), rows.tobytes()
        if key not in self._neighbours:
            self._neighbours[key] = find_neighbours(x.numpy(), MOST_NEIGHBOURS)
        return x, self._neighbours[key]


def describe_record(name: str, record: Mapping[str, Any]) -> str:
    """Return in words how many unlabelled images the head `name` is trained on, and by which labels.

    Examples
    --------
    >>> record = {"weight": 1.0, "pseudo_labelled": 90, "unlabelled": 100, "labelled": 8, "neighbours": 5}
    >>> record |= {"alpha": 0.5, "prior": 1.0, "certainty": 0.62, "agreement": 0.8}
    >>> record |= {"held_out": 8, "probe_accuracy": 0.5, "propagated_accuracy": 0.75, "graph_agreement": 0.7}
    >>> describe_record("object", record)  # doctest: +NORMALIZE_WHITESPACE
    'object is trained on 90 of 100 unlabelled images: labels propagated from 8 images (5 neighbours, alpha 0.5,
    prior 1, weight 0.62 on average), 80 % as the probe predicts; on 8 held-out labels 0.750 correct, the probe 0.500;
    graph and prototypes agree on 70 % of the unlabelled images'
    """
    compared = "there are too few labels"
    if record["graph_agreement"] is not None:
        held_out = "there are too few labels to hold any out"
        if record["held_out"]:
            held_out = (
                f"on {record['held_out']} held-out labels {record['propagated_accuracy']:.3f} correct, "
                f"the probe {record['probe_accuracy']:.3f}"
            )
        agreement = f"{100 * record['graph_agreement']:.0f} % of the unlabelled images"
        compared = f"{held_out}; graph and prototypes agree on {agreement}"
    refined = ", refined by prototypes" if record.get("refined") else ""
    if not record["weight"]:
        what = f"{name} is trained on none of {record['unlabelled']} unlabelled images"
        return f"{what}, as propagated labels are not clearly better: {compared}"
    return (
        f"{name} is trained on {record['pseudo_labelled']} of {record['unlabelled']} unlabelled images: labels "
        f"propagated from {record['labelled']} images ({record['neighbours']} neighbours, "
        f"alpha {record['alpha']:g}, prior {record['prior']:g}{refined}, weight {record['certainty']:.2f} on average), "
        f"{100 * record['agreement']:.0f} % as the probe predicts; {compared}"
    )
