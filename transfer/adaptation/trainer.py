"""The loop that minimises an objective beside the source's labels, on kept features or through a trained tail."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from transfer import freeze
from transfer.adaptation.network import AdaptationNetwork
from transfer.adaptation.resume import TrainerPosition
from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.adaptation.step import Diverged, StepLoss, Terms
from transfer.adaptation.task import AdaptationTask
from transfer.config.adapt import StepsConfig
from transfer.errors import TransferError
from transfer.freeze import Phase
from transfer.runs.packing import generators, load_optimizer_state, optimizer_state, set_generators
from transfer.runtime.distributed.batches import wrap_ddp
from transfer.runtime.out_of_memory import halve_until_fits, is_out_of_memory
from transfer.training.epoch import AUGMENTATIONS

RECOMPUTED = "the tail's activations recomputed"  # what becomes of a batch's parts
JUDGED = 2048  # source rows at most that a rule gets to see

Pseudo = Callable[[CandidateEvidence], np.ndarray]


class AdaptationTrainer:
    """Trains a network, and the tail below it, on the rows of one stage.

    Parameters
    ----------
    stage : AdaptationTask
        Images, rows, and the backbone as the phase freezes it.
    network : AdaptationNetwork
    phase : Phase
        Which stages learn, how fast.
    config : StepsConfig
    seed : int
    """

    def __init__(
        self, stage: AdaptationTask, network: AdaptationNetwork, phase: Phase, config: StepsConfig, seed: int
    ) -> None:
        self.stage, self.network, self.config, self.seed = stage, network, config, seed
        backbone = stage.model.backbone
        tail = {} if stage.frozen else freeze.find_trained_parameters(backbone, phase)
        self.rates = [(p, config.lr * phase.stages[backbone.stage_of(name)].rate) for name, p in tail.items()]
        self.rng = np.random.default_rng(seed)
        self.epoch = 0

    @property
    def split(self) -> bool:
        """Whether each process has its own rows of a batch alone: those of a tail, which frozen features lack."""
        return self.stage.feed.splits_batches and not self.stage.frozen

    def learn(
        self,
        terms: Terms,
        epochs: int,
        *,
        source: bool = True,
        classifier: bool = True,
        pseudo: Pseudo | np.ndarray | None = None,
        last: bool = False,
    ) -> Iterator[tuple[dict[str, Any], CandidateEvidence]]:
        """Yield each epoch's line and evidence, network and tail being as they then are.

        Parameters
        ----------
        terms : sequence of (float, AdaptationLoss)
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
        journal, c, place = self.stage.journal, self.config, TrainerPosition()
        kept = journal.enter()
        if kept and "end" in kept:
            self._go_on(kept["end"])
            for line, seen in kept["said"]:
                yield line, CandidateEvidence(**seen)
            return
        optimizer = self._optimizer(terms, classifier)
        if kept:
            place = TrainerPosition(**kept["place"])
            load_optimizer_state(optimizer, kept["optimizer"])
            for (_, term), state in zip(terms, kept["terms"], strict=True):
                term.load_state_dict(state)
            self._go_on(kept["course"])
        asking = StepLoss(self.stage, self.network, terms, source=source, split=self.split)
        ask = wrap_ddp(asking) if self.split else asking

        def call() -> dict[str, Any]:
            learnt = [term.state_dict() for _, term in terms]
            course, stepped = self._state(), optimizer_state(optimizer)
            return {"place": vars(place), "course": course, "optimizer": stepped, "terms": learnt}

        total, evidence, said = epochs * c.steps, None, []
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        while place.epoch < epochs:
            began = time.perf_counter()
            if not place.step:
                q = pseudo(evidence or self.evidence()) if callable(pseudo) else pseudo
                place.q = None if q is None else self._placed(q)
                place.drawn = dict(self.rng.bit_generator.state)
            self.rng.bit_generator.state = place.drawn
            rest, shown = self._batches(place.step), {"desc": "adapting", "unit": "step", "leave": False}
            steps = tqdm(rest, total=c.steps, initial=place.step, disable=None, **shown)
            for rows, activation in steps:
                progress = (place.epoch * c.steps + place.step) / total
                for group in optimizer.param_groups:
                    group["lr"] = group["top"] * (1 + 10 * progress) ** -0.75
                loss = self._slope(ask, optimizer, rows, activation, progress, place)
                if c.clip:
                    nn.utils.clip_grad_norm_(parameters, c.clip)
                optimizer.step()
                place.losses.append(loss)
                place.step += 1
                journal.step(call)
            self.epoch += 1
            mean, place = round(float(np.mean(place.losses)), 5), TrainerPosition(place.epoch + 1)
            if not last or place.epoch == epochs:
                evidence = self.evidence()
                if not evidence.finite:
                    raise Diverged
                line = {"epoch": self.epoch, "loss": mean, "seconds": round(time.perf_counter() - began, 3)}
                said = [(line, asdict(evidence))] if last else []
                yield line, evidence
            if place.epoch < epochs:
                journal.epoch(call)
        journal.leave(lambda: {"end": self._state(), "said": said})

    def _slope(
        self,
        ask: nn.Module,
        optimizer: torch.optim.Optimizer,
        rows: np.ndarray,
        activation: Tensor,
        progress: float,
        place: TrainerPosition,
    ) -> float:
        """Leave the gradient of a step's loss, which is returned, in the parameters of `optimizer`."""

        def attempt() -> float:
            loss = ask(rows, activation, progress, place.q, [self.seed, self.epoch, place.step])
            if not bool(loss.isfinite()):
                raise Diverged
            loss.backward()
            return float(loss.detach())

        clear = partial(optimizer.zero_grad, set_to_none=True)
        if self.split or self.stage.frozen:
            clear()
            try:
                return attempt()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                # There is no tail to part; or it is this process alone, and the others do not wait.
                raise TransferError("out of memory: take a smaller --batch-size") from None
        drawn = generators()

        def again(parts: int) -> float:
            if parts > self.stage.parts:
                self.stage.parts = parts
                set_generators(drawn)
            return attempt()

        return halve_until_fits(again, len(activation), self.stage.parts, clear, RECOMPUTED)[0]

    def _optimizer(self, terms: Terms, classifier: bool) -> torch.optim.Optimizer:
        c = self.config
        own = [p for _, term in terms for p in term.parameters()]
        head = [p for name, p in self.network.named_parameters() if classifier or not name.startswith("classifier")]
        groups: list[dict[str, Any]] = [{"params": [*head, *own], "top": c.lr}]
        groups += [{"params": [p], "top": rate} for p, rate in self.rates]
        return torch.optim.SGD(
            groups, lr=c.lr, momentum=c.momentum, nesterov=c.momentum > 0, weight_decay=c.weight_decay
        )

    def _state(self) -> dict[str, Any]:
        """Return what is carried from call to call, random generators with it."""
        return {
            "network": self.network.state_dict(),
            "tail": self.stage.moved(),
            "epoch": self.epoch,
            "rng": self.rng.bit_generator.state,
            "generators": generators(),
        }

    def _go_on(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.stage.move(state["tail"])
        self.epoch, self.rng.bit_generator.state = state["epoch"], state["rng"]
        set_generators(state["generators"])

    def _batches(self, first: int) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield an epoch's steps from `first` on: source rows, as many of the target, labelled ones of the target."""
        stage, c = self.stage, self.config
        size = c.batch_size if stage.frozen else max(c.batch_size // 2, 1)
        sides = [stage.source, stage.domains.unlabelled]
        sizes = [size, size]
        if len(stage.domains.labelled):
            sides.append(stage.domains.labelled)
            sizes.append(min(size, max(2, len(stage.domains.labelled))))
        drawn = [_endless(side, size * c.steps, self.rng) for side, size in zip(sides, sizes, strict=True)]
        order = np.concatenate(
            [d[i * n : (i + 1) * n] for i in range(c.steps) for d, n in zip(drawn, sizes, strict=True)]
        )
        augmentation = None if stage.frozen else AUGMENTATIONS[c.augment]
        return stage.batches(order, sum(sizes), augmentation, self.seed, self.epoch, first, split=True)

    def evidence(self) -> CandidateEvidence:
        """Return what rules may see of the network as it is; its norm's statistics are settled on the way."""
        stage, domains = self.stage, self.stage.domains
        self.network.eval()
        source = stage.source
        if len(source) > JUDGED:
            source = np.sort(np.random.default_rng(self.seed).choice(source, JUDGED, replace=False))
        rows = np.concatenate([source, domains.val, domains.unlabelled, domains.labelled])
        pooled, domain = stage.pooled(rows), stage.domain[torch.from_numpy(rows)]
        with torch.inference_mode():
            domain = domain.to(pooled.device)
            learnt = torch.ones(len(rows), dtype=torch.bool, device=pooled.device)
            learnt[len(source) : len(source) + len(domains.val)] = False
            self.network.set_statistics(pooled[learnt], domain[learnt])
            features = self.network(pooled, domain)
            logits = self.network.classifier(features)
        cuts = np.cumsum([len(source), len(domains.val), len(domains.unlabelled)])
        parts = [np.split(x.cpu().numpy(), cuts) for x in (features, logits)]
        labels = stage.labels.numpy()
        return CandidateEvidence(
            parts[0][0],
            labels[source],
            parts[0][1],
            parts[1][1],
            labels[domains.val],
            parts[0][2],
            parts[1][2],
            parts[0][3],
            labels[domains.labelled],
        )

    def _placed(self, q: np.ndarray) -> Tensor:
        """Return class probabilities (table rows, classes) with `q` at the unlabelled target rows, zero elsewhere."""
        placed = torch.zeros(len(self.stage.labels), q.shape[1])
        placed[torch.from_numpy(self.stage.domains.unlabelled)] = torch.from_numpy(q).float()
        return placed


def _endless(rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return `size` of `rows`, in random order, each as often as any other to within one."""
    return np.concatenate([rng.permutation(rows) for _ in range(-(-size // max(len(rows), 1)))])[:size]
