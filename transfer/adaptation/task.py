"""The task of an adaptation: the images of the domains, and a backbone that turns them into features."""

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from transfer import freeze
from transfer.adaptation.domains import Domains
from transfer.adaptation.resume import ResumeLog
from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.backbones.engines import calibrate
from transfer.backbones.weights import set_tensors
from transfer.config.adapt import AdaptConfig
from transfer.data.images.augment import Augmentation
from transfer.feature_cache import Feed, TrunkCache
from transfer.freeze import FreezePlan, FreezePolicy
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.runtime.device import pick_device
from transfer.runtime.out_of_memory import split_rows
from transfer.training.epoch import AUGMENTATIONS
from transfer.training.setup import Images, new_backbone

EVALUATION_BATCH = 128  # images per batch where a tail is evaluated


class AdaptationTask:
    """The rows of source and target as pooled features of a model, with masked labels.

    The model is frozen for the phase in which it is trained. With `hold_out`, validation rows stay unseen, because the
    rule uses them.

    Attributes
    ----------
    source : ndarray of int64
        Source rows for training, with the validation rows unless these are held out.
    labels : Tensor of int64, shape (N,)
        Of all rows of the table; -1 where unknown or masked.
    domain : Tensor of int64, shape (N,)
        Index among the sources; the target's comes last; -1 for rows of other domains.
    target : Tensor of bool, shape (N,)
    frozen : bool
        Whether the model has no trained tail: its input are pooled features.
    resume_log : ResumeLog
        Where the method that runs on this task saves its position; see :meth:`for_method`.
    parts : int
        Into how many parts batches are divided to fit into memory.
    """

    def __init__(self, domains: Domains, model: TransferModel, feed: Feed, *, hold_out: bool = False) -> None:
        self.domains, self.model, self.feed, self.hold_out = domains, model, feed, hold_out
        self.source = domains.train if hold_out else np.union1d(domains.train, domains.val)
        self.labels = torch.from_numpy(domains.table.object)
        place = np.full(len(domains.table.domains), -1)
        for side, name in enumerate((*domains.sources, domains.target)):
            place[domains.table.domains.index(name)] = side
        self.domain = torch.from_numpy(place[domains.table.domain])
        self.target = self.domain == len(domains.sources)
        self.frozen = model.cut == len(model.backbone.stages)
        used = (domains.train, domains.val, domains.labelled, domains.unlabelled, domains.test)
        self.rows = np.unique(np.concatenate(used))
        self.resume_log, self.parts = ResumeLog(), 1
        self._held: Tensor | None = None
        self._start = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the objects."""
        return self.domains.table.objects

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.backbone.parameters()).device

    @property
    def evaluation_feed(self) -> Feed:
        """The feed with the batch size of evaluation."""
        return self.feed if self.frozen else self.feed.with_batch_size(EVALUATION_BATCH)

    def sides(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return for each source, and last for the target, a mask of its rows among `rows`, bool (len(rows),)."""
        domain = self.domain.numpy()[rows]
        return [domain == side for side in range(len(self.domains.sources) + 1)]

    def evidence(
        self, source: np.ndarray, features: Sequence[np.ndarray], val_logits: np.ndarray, target_logits: np.ndarray
    ) -> CandidateEvidence:
        """Return the evidence of `features` of the rows `source`, the validation, unlabelled and labelled rows."""
        labels, (train, val, target, labelled) = self.labels.numpy(), features
        y, y_val, y_labelled = (labels[rows] for rows in (source, self.domains.val, self.domains.labelled))
        return CandidateEvidence(train, y, val, val_logits, y_val, target, target_logits, labelled, y_labelled)

    def restart(self) -> None:
        """Reset the backbone to its initial weights."""
        set_tensors(self.model.backbone, self._start)

    def moved(self) -> dict[str, Tensor]:
        """Return the backbone's tensors that differ from the initial ones."""
        now = {} if self.frozen else self.model.backbone.state_dict()
        return {name: tensor for name, tensor in now.items() if not torch.equal(tensor, self._start[name])}

    def move(self, moved: dict[str, Tensor]) -> None:
        """Reset the backbone, then set the tensors that :meth:`moved` returned."""
        self.restart()
        set_tensors(self.model.backbone, moved)

    def as_features(self) -> "AdaptationTask":
        """Return this task with no trained tail: its present pooled features are frozen."""
        if self.frozen:
            return self
        held = copy.copy(self)
        held.frozen, held._held = True, self._placed(self.rows, self.pooled(self.rows))
        return held

    def for_method(self, resume_log: ResumeLog) -> "AdaptationTask":
        """Return this task for one method, whose position `resume_log` saves; model and features are shared."""
        if self.frozen:
            self._held_features()  # computed once for all methods
        task = copy.copy(self)
        task.resume_log, task.parts = resume_log, 1
        return task

    def features(self, activation: Tensor, count: int, parts: int = 1) -> Tensor:
        """Return pooled features (count, width) of what :meth:`batches` yields, with gradient where there is a tail.

        With more than one of `parts`, a tail stores only its output; the backward pass recomputes its activations, one
        part at a time (gradient checkpointing, Chen et al. 2016). This saves memory for any loss, sum over rows or not.
        """
        if self.frozen:
            return activation
        if parts > 1:
            split = [activation[part] for part in split_rows(len(activation), parts)]
            pooled = torch.cat([checkpoint(self.model.features, part, use_reentrant=False) for part in split])
        else:
            pooled = self.model.features(activation)
        return self.feed.gather_batch(pooled.float(), count)

    def pooled(self, rows: np.ndarray) -> Tensor:
        """Return the pooled features (len(rows), width) of `rows`, without augmentation, the model in eval mode."""
        if self.frozen:
            return self._held_features()[torch.from_numpy(rows)]
        if not len(rows):
            return torch.zeros(0, self.model.backbone.width, device=self.device)
        self.model.eval()
        with torch.inference_mode():
            batches = self.evaluation_feed.batches(rows, split=True)
            return torch.cat([self.features(activation, len(batch)) for batch, activation in batches])

    def batches(
        self,
        order: np.ndarray,
        size: int,
        augmentation: Augmentation | None,
        seed: int,
        epoch: int,
        first: int = 0,
        *,
        split: bool = False,
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield (rows, activations), `size` rows at a time, in the order of `order`, from batch number `first` on."""
        if self.frozen:
            held = self._held_features()
            for start in range(first * size, len(order), size):
                rows = order[start : start + size]
                yield rows, held[torch.from_numpy(rows)]
            return
        feed = self.feed.with_batch_size(size)
        yield from feed.batches(order, augmentation=augmentation, seed=seed, epoch=epoch, first=first, split=split)

    def _held_features(self) -> Tensor:
        """Return the pooled features by table row; computed once."""
        if self._held is None:
            self._held = self._placed(*self.feed.load_all_views(self.rows))
        return self._held

    def _placed(self, rows: np.ndarray, features: Tensor) -> Tensor:
        held = torch.zeros(len(self.labels), features.shape[1], device=features.device)
        held[torch.from_numpy(rows)] = features.float()
        return held


def prepare_task(
    config: AdaptConfig, domains: Domains, images: Images, cache: TrunkCache, seed: int, *, hold_out: bool = False
) -> tuple[AdaptationTask, FreezePlan]:
    """Return the task of a fresh backbone, its frozen features computed, and the freeze plan."""
    policy, c = FreezePolicy.parse(config.method.policy), config.steps
    backbone = new_backbone(config.backbone, seed, policy, levels=images.choose_levels(domains.seen))
    seen = np.setdiff1d(domains.seen, domains.test)  # calibration needs no test image, even where adapting does
    calibrate(backbone, domains.table.paths[seen], images.inspection.sha256[seen], c.workers)
    # statistics of batches with two domains would fit neither
    plan = freeze.plan(policy, backbone, backbone_lr=c.backbone_lr, layer_decay=c.layer_decay, statistics="frozen")
    heads = Heads([HeadSpec("object", classes=domains.table.objects)], backbone.width)
    model = TransferModel(backbone, heads, cut_precision=config.cache.cut_precision).to(pick_device(c.device))
    model.freeze(plan.phases[-1])
    feed = cache.feed(model, domains.table.paths, images.inspection.sha256, batch_size=c.batch_size, workers=c.workers)
    task = AdaptationTask(domains, model, feed, hold_out=hold_out)
    feed.prepare(task.rows)
    if not task.frozen and AUGMENTATIONS[c.augment]:
        augmented = np.unique(np.concatenate([domains.train, domains.labelled, domains.unlabelled]))
        feed.prepare(augmented, AUGMENTATIONS[c.augment])
    return task, plan
