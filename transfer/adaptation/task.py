"""Where adaptation happens: the images of a pair, and a backbone that turns them into features."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from transfer import freeze
from transfer.adaptation.domains import Domains
from transfer.adaptation.resume import ResumeLog
from transfer.config.adapt import AdaptConfig
from transfer.data.images.batches import Augmentation
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
    """The rows of a pair as a model's pooled features, with masked labels.

    Parameters
    ----------
    domains : Domains
    model : TransferModel
        Frozen as it is to be trained.
    feed : Feed
        Of `model`, for the pair's table.
    hold_out : bool
        Whether the pair's validation rows must stay unseen, as the rule will judge by them.

    Attributes
    ----------
    source : ndarray of int64
        Source rows to learn from: with the validation rows unless these are held out.
    labels : Tensor of int64, shape (N,)
        Of all rows of the table; -1 where unknown or masked.
    domain : Tensor of int64, shape (N,)
        Place among the pair's sources, the target being the last; -1 of rows that are of none.
    target : Tensor of bool, shape (N,)
    frozen : bool
        Whether the model has no tail: what is fed to it are the pooled features.
    resume_log : ResumeLog
        Where the method that runs on this task saves its position; see :meth:`for_method`.
    parts : int
        In how many parts steps take their batches, for want of memory.
    """

    def __init__(self, domains: Domains, model: TransferModel, feed: Feed, *, hold_out: bool = False) -> None:
        self.domains, self.model, self.feed, self.hold_out = domains, model, feed, hold_out
        self.source = domains.train if hold_out else np.union1d(domains.train, domains.val)
        self.labels = torch.from_numpy(domains.table.object)
        place = np.full(len(domains.table.domains), -1)
        place[[domains.table.domains.index(name) for name in (*domains.sources, domains.target)]] = range(
            len(domains.sources) + 1
        )
        self.domain = torch.from_numpy(place[domains.table.domain])
        self.target = self.domain == len(domains.sources)
        self.frozen = model.cut == len(model.backbone.stages)
        self.rows = np.unique(
            np.concatenate([domains.train, domains.val, domains.labelled, domains.unlabelled, domains.test])
        )
        self.resume_log, self.parts = ResumeLog(), 1
        self._held: Tensor | None = None
        self._start = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the objects to learn."""
        return self.domains.table.objects

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.model.backbone.parameters()).device

    @property
    def evaluation_feed(self) -> Feed:
        """The feed whose batches are as large as evaluation has them."""
        return self.feed if self.frozen else self.feed.with_batch_size(EVALUATION_BATCH)

    def sides(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return for each source, and last for the target, which of `rows` are its own, bool (len(rows),)."""
        domain = self.domain.numpy()[rows]
        return [domain == side for side in range(len(self.domains.sources) + 1)]

    def restart(self) -> None:
        """Give the backbone the weights it had at first."""
        self.model.backbone.load_state_dict(self._start)

    def moved(self) -> dict[str, Tensor]:
        """Return the backbone's tensors that are not as they were at first."""
        now = {} if self.frozen else self.model.backbone.state_dict()
        return {name: tensor for name, tensor in now.items() if not torch.equal(tensor, self._start[name])}

    def move(self, moved: dict[str, Tensor]) -> None:
        """Give the backbone the tensors that :meth:`moved` returned, and else those that it had at first."""
        self.restart()
        self.model.backbone.load_state_dict(moved, strict=False)

    def as_features(self) -> "AdaptationTask":
        """Return this stage with nothing to train below the heads: its pooled features as they are now."""
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

        Of a tail in more than one of `parts` only what it puts out is kept, and all else computed anew for its gradient
        (Chen et al. 2016), one part at a time: a loss need not be a sum over rows for its batch to take less memory.
        """
        if self.frozen:
            return activation
        if parts > 1:
            some = [activation[part] for part in split_rows(len(activation), parts)]
            pooled = torch.cat([checkpoint(self.model.features, part, use_reentrant=False) for part in some])
        else:
            pooled = self.model.features(activation)
        return self.feed.gather_batch(pooled.float(), count)

    def pooled(self, rows: np.ndarray) -> Tensor:
        """Return the pooled features (len(rows), width) of `rows`, images as they are, the model in eval mode."""
        if self.frozen:
            return self._held_features()[torch.from_numpy(rows)]
        if not len(rows):
            return torch.zeros(0, self.model.backbone.width, device=self.device)
        self.model.eval()
        with torch.inference_mode():
            batches = self.evaluation_feed.batches(rows, split=True)
            return torch.cat([self.features(activation, len(some)) for some, activation in batches])

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
        """Return the pooled features of all rows, by their place in the table; computed once."""
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
    """Return the pair's images before a fresh backbone, what stays frozen computed, and the plan of what learns."""
    policy, c = FreezePolicy.parse(config.method.policy), config.steps
    backbone = new_backbone(config.backbone, seed, policy)
    plan = freeze.plan(
        policy,
        backbone,
        backbone_lr=c.backbone_lr,
        layer_decay=c.layer_decay,
        statistics="frozen",  # those of batches from two domains would be neither's
    )
    heads = Heads([HeadSpec("object", classes=domains.table.objects)], backbone.width)
    model = TransferModel(backbone, heads, cut_precision=config.cache.cut_precision).to(pick_device(c.device))
    model.freeze(plan.phases[-1])
    feed = cache.feed(model, domains.table.paths, images.inspection.sha256, batch_size=c.batch_size, workers=c.workers)
    stage = AdaptationTask(domains, model, feed, hold_out=hold_out)
    feed.prepare(stage.rows)
    if not stage.frozen and AUGMENTATIONS[c.augment]:
        feed.prepare(
            np.union1d(np.union1d(domains.train, domains.labelled), domains.unlabelled), AUGMENTATIONS[c.augment]
        )
    return stage, plan
