"""The start of every run: images, split, heads, and a model with its freeze plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from transfer import backbones, freeze
from transfer.advice.transferability.folds import assign_folds
from transfer.backbones.backbone import Backbone
from transfer.config.train import BackboneConfig, DataConfig, LearnConfig, TrainConfig
from transfer.data.conflicts import drop_conflicts
from transfer.data.duplicates import Inspection, drop_bad_images, inspect_files
from transfer.data.images.depths import measure_depths
from transfer.data.images.levels import Levels, choose_levels, describe_levels
from transfer.data.sets.load import load_table
from transfer.data.splits import Splits, mask_labels, split
from transfer.data.table import ImageTable, make_softmax_target
from transfer.data.unlabelled import REST, add_unlabelled_domain, add_unlabelled_folder
from transfer.disk_cache import DiskCache
from transfer.errors import TransferError, did_you_mean
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePlan, FreezePolicy
from transfer.heads import HeadSpec
from transfer.heads.trained_classes import drop_untrained_classes
from transfer.model import TransferModel
from transfer.runs.checkpoint import build_heads
from transfer.runs.facts import FactLog
from transfer.runtime import distributed
from transfer.semi_supervised.unlabelled_images import (
    UnlabelledImages,
    compute_pretrained_features,
    find_unlabelled,
    propagates,
)
from transfer.training.warm_start.guard import Guard

# Dropout of a trained probe, against overfitting on fixed features. Office-31, mobilenetv2_100, six seeds: 0.884, 0.875
# without.
PROBE_DROPOUT = 0.5


@dataclass(frozen=True)
class TrainingData:
    """A table, the sha256 of its images, and its training and validation rows.

    Rows with the same number in `groups` (N,), such as duplicates, are held out together.
    """

    table: ImageTable
    digests: np.ndarray
    train: np.ndarray
    val: np.ndarray
    extra: np.ndarray = field(default_factory=lambda: np.array([], np.int64))  # of train, for --unlabelled alone
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)  # by head, of all rows: of pseudo-labels below 1
    groups: np.ndarray = field(default_factory=lambda: np.array([], np.int64))  # empty: each row by itself
    warm: bool = False  # whether the model starts from a finished one, whose scaling of the features its heads need
    guard: Guard | None = None  # of a warm start: which epochs count

    def draw_folds(self, seed: int) -> np.ndarray:
        """Return the fold in which each training and validation row is held out, int64 (N,); -1 for other rows.

        All of them are -1 if these rows are of one group.
        """
        rows, folds = np.union1d(self.train, self.val), np.full(len(self.table), -1)
        groups = (self.groups if len(self.groups) else np.arange(len(self.table)))[rows]
        if len(np.unique(groups)) > 1:
            labels = np.unique(self.table.object[rows], axis=0, return_inverse=True)[1].ravel()  # unknown is one too
            folds[rows] = assign_folds(labels, groups, seed=seed)
        return folds

    def with_pseudo_labels(self, unlabelled: UnlabelledImages | None) -> "TrainingData":
        """Return the data in which the training rows of `unlabelled` have pseudo-labels; unchanged for None.

        Where no head takes any, the `extra` rows are left out: the data is that of a run without ``--unlabelled``.
        """
        if unlabelled is None:
            return self
        if not unlabelled.is_used:
            return replace(self, train=np.setdiff1d(self.train, self.extra))
        table, weights = unlabelled.label(self.train)
        return replace(self, table=table, weights=weights)


@dataclass(frozen=True)
class Images:
    """A table, the inspection of its files, and their depths; `facts` logs what runs on them start from.

    Without `depths` (:func:`~transfer.data.images.depths.measure_depths`) no image is a deep one.
    """

    table: ImageTable
    inspection: Inspection
    depths: np.ndarray | None = field(default=None, repr=False)
    facts: FactLog = field(default_factory=FactLog, repr=False, compare=False)

    def of(self, objects: Sequence[str]) -> "Images":
        """Return the images of the given `objects`, as a set without any other; raise if there is no such object."""
        for name in objects:
            if name not in self.table.objects:
                raise TransferError(f"{self.table.name}: no object {name!r}{did_you_mean(name, self.table.objects)}")
        names = np.array([*self.table.objects, ""])[self.table.object]  # -1 is the last
        rows = np.isin(names, objects)
        table = self.table.take(rows)
        targets = table.targets | {"object": make_softmax_target(names[rows].tolist())}
        depths = None if self.depths is None else self.depths[rows]
        return Images(replace(table, targets=targets), self.inspection.take(rows), depths)

    def choose_levels(self, rows: np.ndarray) -> Levels:
        """Return the levels of deep images for a run that trains on `rows`; no other image has a part in them.

        The range of values is nearly a property of the files, but a test image that is brighter than any training
        image would still show in the preprocessing, and new images must be read by what was recorded before them.
        """
        return () if self.depths is None else choose_levels(self.depths[rows])

    def describe_levels(self, rows: np.ndarray) -> tuple[dict[str, str], list[str]]:
        """Return how deep images among `rows` are read, as a fact for the log, and what is odd about it, as notes."""
        if self.depths is None:
            return {}, []
        lines = list(describe_levels(self.depths[rows], self.choose_levels(rows)))
        notes = [note for line, odd in lines for note in (line, *odd)]
        return ({"pixels": "; ".join(line for line, _ in lines)} if lines else {}), notes

    def note_added_levels(self, splits: Splits) -> list[str]:
        """Return notes on deep images that ``--unlabelled`` adds, where the levels of the others do not suit them."""
        if self.depths is None or not len(splits.added):
            return []
        found = describe_levels(self.depths[splits.added], self.choose_levels(splits.plain_train))
        return [f"images of --unlabelled: {note}" for _, odd in found for note in odd]

    def hide(self, rows: np.ndarray) -> "Images":
        """Return the images with the labels of `rows` unknown, except for the domain."""
        return replace(self, table=mask_labels(self.table, rows)) if len(rows) else self


def read_images(
    config: DataConfig,
    disk_cache: DiskCache | None = None,
    *,
    unlabelled: Mapping[str, Path] | None = None,
    hidden: str = "",
) -> Images:
    """Return the images that `config` names, inspected: bad ones refused or skipped, without conflicting labels.

    `disk_cache` caches the inspection. `unlabelled` has folders of images without labels, by the domain's name, and
    `hidden` is the domain whose labels must not affect training (see `transfer.data.conflicts.drop_conflicts`) and
    which needs no class folders. No images, bad ones under ``refuse``, or fewer than two objects raise a TransferError.
    """
    with distributed.local_rank_zero_first():
        table = load_table(
            config.data,
            config.data_root,
            config.targets,
            labels=config.labels,
            skip_bad=config.on_bad_image == "skip",
            flat_domain=hidden,
            corrections=config.corrections,
        )
        for domain, folder in (unlabelled or {}).items():
            table = add_unlabelled_domain(table, folder, domain)
        table = add_unlabelled_folder(table, config.unlabelled)
        table, inspection = drop_bad_images(table, inspect_files(table, disk_cache=disk_cache), config.on_bad_image)
        table, inspection = drop_conflicts(table, inspection, hidden)
    present = np.unique(table.object[table.object >= 0])
    if len(present) < 2:
        only = f"only {table.objects[present[0]]!r}" if len(present) else "none"
        what = "objects" if table.has_objects else "sets of labels"
        raise TransferError(f"{table.name}: learning needs at least two {what}, found {only}")
    return Images(table, inspection, measure_depths(table.paths, inspection.sha256, disk_cache))


def split_images(images: Images, config: DataConfig, seed: int) -> Splits:
    """Return how `config` splits `images`; the random seed is ``split_seed``, by default `seed`."""
    return split(
        images.table,
        images.inspection,
        test=config.test,
        val=config.val,
        shots=config.shots,
        seed=seed if config.split_seed is None else config.split_seed,
        keep_near_duplicates_together=config.keep_near_duplicates_together,
        keep_rest=config.unlabelled == REST,
        added=images.table.added,
    )


def drop_untrained(table: ImageTable, splits: Splits) -> ImageTable:
    """Return `table` without the classes that have no training image: images of these are unlabelled.

    Raises
    ------
    TransferError
        Of several objects fewer than two have training images.
    """
    targets = {name: drop_untrained_classes(target, splits.train) for name, target in table.targets.items()}
    if len(targets["object"].classes) < max(1, min(2, len(table.objects))):
        only = "".join(f"only {name!r}" for name in targets["object"].classes) or "none"
        raise TransferError(f"{table.name}: training needs at least two objects with training images, found {only}")
    return replace(table, targets=targets)


def new_backbone(
    config: BackboneConfig,
    seed: int,
    policy: FreezePolicy | None = None,
    *,
    classifier: bool | Literal["any"] = False,
    levels: Levels = (),
) -> Backbone:
    """Return the backbone that `config` names, reshaped for `policy`; `seed` draws random weights.

    With `classifier` it keeps its original one (see :func:`transfer.backbones.load`). It reads deep images by `levels`.
    """
    policy = policy or FreezePolicy.parse("linear_probe")
    whole = backbones.load(
        config.backbone,
        weights=config.weights,
        random_init=config.random_init or policy.from_scratch,
        seed=seed,
        classifier=classifier,
        image_size=config.image_size,
    )
    if config.crop == "border":
        whole.preprocessing = whole.preprocessing.with_border()
    whole.engine = config.engine
    whole.preprocessing = replace(whole.preprocessing, levels=levels)
    return freeze.reshape_backbone(whole, policy)


def new_model(
    config: TrainConfig,
    specs: list[HeadSpec],
    seed: int,
    device: torch.device,
    backbone: Backbone | None = None,
    levels: Levels = (),
) -> tuple[TransferModel, FreezePlan]:
    """Return a fresh model and its plan; `seed` draws the heads, and random backbones.

    A `backbone` that is there already is taken as it is: :func:`transfer.freeze.reshape_backbone` for the policy. It
    reads deep images by `levels`.
    """
    policy = FreezePolicy.parse(config.policy.policy)
    original = config.learn.regularise.co_tuning > 0
    backbone = backbone or new_backbone(config.backbone, seed, policy, classifier=original)
    backbone.preprocessing, backbone.engine = replace(backbone.preprocessing, levels=levels), config.backbone.engine
    plan = freeze.plan(
        policy,
        backbone,
        backbone_lr=config.policy.backbone_lr,
        layer_decay=config.policy.layer_decay,
        statistics=config.policy.statistics,
    )
    heads = config.heads
    trained = heads.hidden or config.learn.probe == "trained"
    fixed = config.learn.optimizer == "lbfgs"  # L-BFGS needs the same loss at each evaluation
    if heads.dropout is None and not plan.trained_parameters and trained and not fixed:
        heads = replace(heads, dropout=PROBE_DROPOUT)
    torch.manual_seed(seed)
    model = TransferModel(backbone, build_heads(specs, backbone.width, heads), cut_precision=config.cache.cut_precision)
    return model.to(device), plan


def find_unlabelled_images(
    model: TransferModel, plan: FreezePlan, data: TrainingData, config: TrainConfig, cache: TrunkCache
) -> UnlabelledImages | None:
    """Return the unlabelled training images of an untrained `model`, with the chosen settings of label propagation.

    None without ``--unlabelled``, and for a network of the domain head alone. No head has labels propagated on features
    of random weights.
    """
    heads = [name for name, spec in model.heads.specs.items() if propagates(spec)]
    if not config.data.unlabelled or not heads:
        return None
    heads = [name for name in heads if len(find_unlabelled(data.table, data.train, name))]
    rows, features = np.union1d(data.train, data.val), torch.empty(0)
    if plan.policy.from_scratch or (model.backbone.weights == "random" and not data.warm):
        heads = []
    if heads:
        features = compute_pretrained_features(model, cache, data.table, data.digests, rows)
    return UnlabelledImages(data.table, data.groups, data.train, data.val, features, heads, config.run.seed)


def refuse_zero_loss(model: TransferModel, config: LearnConfig) -> None:
    """Raise a TransferError if no head of a `model` that is trained in steps has a loss to learn from."""
    if not any(spec.weight for spec in model.heads.specs.values()) and not config.regularise.co_tuning:
        names = ", ".join(model.heads.specs)
        raise TransferError(f"--loss-weights: {names} has weight 0, so nothing can be learned: give a weight above 0")
