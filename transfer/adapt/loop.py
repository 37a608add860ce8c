"""The loop that minimises an objective beside the source's labels, on kept features or through a trained tail."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from transfer import freeze
from transfer.adapt.config import StepsConfig
from transfer.adapt.judge.evidence import Evidence
from transfer.adapt.network import Network
from transfer.adapt.objectives.objective import Batch, Objective
from transfer.adapt.stage import Stage
from transfer.errors import TransferError
from transfer.freeze import Phase
from transfer.learn.epoch import AUGMENTATIONS
from transfer.parallel.rows import averaged, own_draws

STRONG_DROPOUT = 0.5  # of pooled features, where a harder version of an image is asked for
JUDGED = 2048  # source rows at most that a rule gets to see

Terms = Sequence[tuple[float, Objective]]
Pseudo = Callable[[Evidence], np.ndarray]


class Diverged(TransferError):
    """The loss, or what the network answers, became NaN or infinite."""

    def __init__(self) -> None:
        super().__init__("the loss became NaN or infinite: try a lower --lr")


class Course:
    """Trains a network, and the tail below it, on the rows of one stage.

    Parameters
    ----------
    stage : Stage
        Images, rows, and the backbone as the phase freezes it.
    network : Network
    phase : Phase
        Which stages learn, how fast.
    config : StepsConfig
    seed : int
    """

    def __init__(self, stage: Stage, network: Network, phase: Phase, config: StepsConfig, seed: int) -> None:
        self.stage, self.network, self.config, self.seed = stage, network, config, seed
        backbone = stage.model.backbone
        tail = {} if stage.frozen else freeze.learning(backbone, phase)
        self.rates = [(p, config.lr * phase.stages[backbone.stage_of(name)].rate) for name, p in tail.items()]
        self.rng = np.random.default_rng(seed)
        self.epoch = 0

    @property
    def split(self) -> bool:
        """Whether each process has its own rows of a batch alone: those of a tail, which frozen features lack."""
        return self.stage.feed.split and not self.stage.frozen

    def learn(
        self,
        terms: Terms,
        epochs: int,
        *,
        source: bool = True,
        classifier: bool = True,
        pseudo: Pseudo | np.ndarray | None = None,
        last: bool = False,
    ) -> Iterator[tuple[dict[str, Any], Evidence]]:
        """Yield each epoch's line and evidence, network and tail being as they then are.

        Parameters
        ----------
        terms : sequence of (float, Objective)
            What is minimised beside the cross-entropy of labelled rows, each with its weight.
        source : bool
            Whether source labels are learnt from; without, only the target is seen (source-free).
        classifier : bool
            Whether the classifier learns.
        pseudo : callable or ndarray of shape (unlabelled, classes), optional
            Target rows' class probabilities, or what gives them from the evidence before each epoch.
        last : bool
            Yield the last epoch alone: to judge each takes a pass over all images.

        Raises
        ------
        Diverged
            The epochs before were sound; network and tail no longer are.
        """
        own = [p for _, term in terms for p in term.parameters()]
        head = [p for name, p in self.network.named_parameters() if classifier or not name.startswith("classifier")]
        groups: list[dict[str, Any]] = [{"params": [*head, *own], "top": self.config.lr}]
        groups += [{"params": [p], "top": rate} for p, rate in self.rates]
        c = self.config
        asking = _Asking(self, terms, source)
        ask = averaged(asking) if self.split else asking
        optimizer = torch.optim.SGD(
            groups, lr=c.lr, momentum=c.momentum, nesterov=c.momentum > 0, weight_decay=c.weight_decay
        )
        total, evidence = epochs * c.steps, None
        q = self._placed(pseudo) if isinstance(pseudo, np.ndarray) else None
        for count in range(epochs):
            began = time.perf_counter()
            if callable(pseudo):
                q = self._placed(pseudo(evidence or self.evidence()))
            losses = []
            steps = tqdm(self._batches(), total=c.steps, desc="adapting", unit="step", disable=None, leave=False)
            for step, (rows, activation) in enumerate(steps):
                progress = (count * c.steps + step) / total
                for group in optimizer.param_groups:
                    group["lr"] = group["top"] * (1 + 10 * progress) ** -0.75
                loss = ask(rows, activation, progress, q, [self.seed, self.epoch, step])
                if not bool(loss.isfinite()):
                    raise Diverged
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                if c.clip:
                    nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], c.clip)
                optimizer.step()
                losses.append(float(loss.detach()))
            self.epoch += 1
            if last and count + 1 < epochs:
                continue
            evidence = self.evidence()
            if not evidence.finite:
                raise Diverged
            line = {
                "epoch": self.epoch,
                "loss": round(float(np.mean(losses)), 5),
                "seconds": round(time.perf_counter() - began, 3),
            }
            yield line, evidence

    def _batches(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield an epoch's steps: rows of the source, as many of the target, and labelled ones of the target."""
        stage, c = self.stage, self.config
        size = c.batch_size if stage.frozen else max(c.batch_size // 2, 1)
        sides = [stage.source, stage.pair.unlabelled]
        sizes = [size, size]
        if len(stage.pair.labelled):
            sides.append(stage.pair.labelled)
            sizes.append(min(size, max(2, len(stage.pair.labelled))))
        drawn = [_endless(side, size * c.steps, self.rng) for side, size in zip(sides, sizes, strict=True)]
        order = np.concatenate(
            [d[i * n : (i + 1) * n] for i in range(c.steps) for d, n in zip(drawn, sizes, strict=True)]
        )
        augmentation = None if stage.frozen else AUGMENTATIONS[c.augment]
        return stage.batches(order, sum(sizes), augmentation, self.seed, self.epoch, split=True)

    def evidence(self) -> Evidence:
        """Return what rules may see of the network as it is; its norm's statistics are settled on the way."""
        stage, pair = self.stage, self.stage.pair
        self.network.eval()
        source = stage.source
        if len(source) > JUDGED:
            source = np.sort(np.random.default_rng(self.seed).choice(source, JUDGED, replace=False))
        rows = np.concatenate([source, pair.val, pair.unlabelled, pair.labelled])
        pooled, domain = stage.pooled(rows), stage.domain[torch.from_numpy(rows)]
        with torch.inference_mode():
            domain = domain.to(pooled.device)
            learnt = torch.ones(len(rows), dtype=torch.bool, device=pooled.device)
            learnt[len(source) : len(source) + len(pair.val)] = False
            self.network.settle(pooled[learnt], domain[learnt])
            features = self.network(pooled, domain)
            logits = self.network.classifier(features)
        cuts = np.cumsum([len(source), len(pair.val), len(pair.unlabelled)])
        parts = [np.split(x.cpu().numpy(), cuts) for x in (features, logits)]
        labels = stage.labels.numpy()
        return Evidence(
            parts[0][0],
            labels[source],
            parts[0][1],
            parts[1][1],
            labels[pair.val],
            parts[0][2],
            parts[1][2],
            parts[0][3],
            labels[pair.labelled],
        )

    def _placed(self, q: np.ndarray) -> Tensor:
        """Return class probabilities (table rows, classes) with `q` at the unlabelled target rows, zero elsewhere."""
        placed = torch.zeros(len(self.stage.labels), q.shape[1])
        placed[torch.from_numpy(self.stage.pair.unlabelled)] = torch.from_numpy(q).float()
        return placed


class _Asking(nn.Module):
    """A step's loss as a module, in whose backward pass DDP can average gradients.

    The tail runs over this process's own rows; network and objectives see the features of all rows in every process, as
    few objectives are sums over rows.
    """

    def __init__(self, course: Course, terms: Terms, source: bool) -> None:
        super().__init__()
        self.stage, self.network, self.source, self.split = course.stage, course.network, source, course.split
        self.backbone = nn.ModuleList() if course.stage.frozen else course.stage.model.backbone
        self.weights, self.terms = [weight for weight, _ in terms], nn.ModuleList(term for _, term in terms)

    def forward(
        self, rows: np.ndarray, activation: Tensor, progress: float, q: Tensor | None, key: list[int]
    ) -> Tensor:
        """Return the loss of a step on `rows` of the table.

        Parameters
        ----------
        activation : Tensor
            Of the rows that are this process's own.
        progress : float
            In [0, 1].
        q : Tensor, optional
            Class probabilities of all rows of the table.
        key : list of int
            What random draws within the tail are seeded by, where each process has its own.
        """
        stage, network = self.stage, self.network
        network.train()
        if not stage.frozen:
            stage.model.train()
        domain = stage.domain[torch.from_numpy(rows)].to(activation.device)
        target = stage.target[torch.from_numpy(rows)].to(activation.device)
        labels = stage.labels[torch.from_numpy(rows)].to(activation.device)
        with own_draws(activation.device, *key) if self.split else nullcontext():
            pooled = stage.features(activation, len(rows))
        features = network(pooled, domain)
        logits = network.classifier(features)
        if not bool(logits.isfinite().all()):
            raise Diverged
        strong = None
        if any(term.needs_strong for term in self.terms):
            strong = network.classifier(network(F.dropout(pooled, STRONG_DROPOUT), domain))
        batch = Batch(
            features,
            logits,
            labels if self.source else torch.where(target, labels, -1),
            target & (labels < 0),  # the few labelled rows, met in every step, would outweigh all others
            progress,
            strong,
            q[torch.from_numpy(rows)].to(activation.device) if q is not None else None,
        )
        loss = logits.sum() * 0.0
        for side in (~target, target):
            known = side & (batch.labels >= 0)
            if bool(known.any()):
                loss = loss + F.cross_entropy(logits[known], batch.labels[known])
        for weight, term in zip(self.weights, self.terms, strict=True):
            loss = loss + weight * term(batch)
        return loss


def _endless(rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return `size` of `rows`, in random order, each as often as any other to within one."""
    return np.concatenate([rng.permutation(rows) for _ in range(-(-size // max(len(rows), 1)))])[:size]
