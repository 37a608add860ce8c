"""The training loop of adaptation methods, on frozen features or through a trained tail."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from transfer import freeze
from transfer.adaptation.network import AdaptationNetwork
from transfer.adaptation.resume import TrainerPosition
from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.adaptation.step_loss import Diverged, StepLoss, WeightedLosses
from transfer.adaptation.task import AdaptationTask
from transfer.config.adapt import StepsConfig
from transfer.errors import TransferError
from transfer.freeze import Phase
from transfer.runs.packing import (
    get_optimizer_state,
    get_rng_states,
    load_optimizer_state,
    set_rng_states,
    shallow_dict,
)
from transfer.runtime.distributed.batches import wrap_ddp
from transfer.runtime.out_of_memory import halve_until_fits, is_out_of_memory
from transfer.training.epoch import AUGMENTATIONS

RECOMPUTED = "the tail's activations recomputed"  # ends the note on out-of-memory batches
MAX_SOURCE_EVIDENCE = 2048  # source rows that validators see at most

PseudoLabelling = Callable[[CandidateEvidence], np.ndarray]


class AdaptationTrainer:
    """Trains a network, and the tail below it, on the rows of one task; `phase` has the trained stages and rates."""

    def __init__(
        self, task: AdaptationTask, network: AdaptationNetwork, phase: Phase, config: StepsConfig, seed: int
    ) -> None:
        self.task, self.network, self.config, self.seed = task, network, config, seed
        backbone = task.model.backbone
        tail = {} if task.frozen else freeze.find_trained_parameters(backbone, phase)
        self.rates = [(p, config.lr * phase.stages[backbone.stage_of(name)].rate) for name, p in tail.items()]
        self.rng = np.random.default_rng(seed)
        self.epoch = 0

    @property
    def split(self) -> bool:
        """Whether each process has only its own rows of a batch: where a tail has yet to process them."""
        return self.task.feed.splits_batches and not self.task.frozen

    def train(
        self,
        losses: WeightedLosses,
        epochs: int,
        *,
        source: bool = True,
        classifier: bool = True,
        pseudo: PseudoLabelling | np.ndarray | None = None,
        last: bool = False,
    ) -> Iterator[tuple[dict[str, Any], CandidateEvidence]]:
        """Yield each epoch's line and evidence; network and tail have the weights of that epoch.

        Parameters
        ----------
        losses : sequence of (float, AdaptationLoss)
            Minimised beside the cross-entropy of labelled rows, each with its weight.
        source : bool
            Whether source labels are used; without, only the target is seen (source-free).
        classifier : bool
            Whether the classifier is trained.
        pseudo : callable or ndarray of shape (unlabelled, classes), optional
            Class probabilities of target rows, or a function that derives them from the evidence before each epoch.
        last : bool
            Yield the last epoch alone: evidence takes a pass over all images.

        Raises
        ------
        Diverged
            A loss or an output is no longer finite. Epochs that were yielded before are sound.
        """
        log, config, position = self.task.resume_log, self.config, TrainerPosition()
        saved = log.enter()
        if saved and "end" in saved:
            self._restore(saved["end"])
            for line, evidence in saved["said"]:
                yield line, CandidateEvidence(**evidence)
            return
        optimizer = self._optimizer(losses, classifier)
        if saved:
            position = self._resume(saved, optimizer, losses)
        step_loss = StepLoss(self.task, self.network, losses, source=source, split=self.split)
        compute_loss = wrap_ddp(step_loss) if self.split else step_loss

        def state() -> dict[str, Any]:
            terms, optimizer_now = [loss.state_dict() for _, loss in losses], get_optimizer_state(optimizer)
            place = shallow_dict(position)
            return {"place": place, "course": self._state(), "optimizer": optimizer_now, "terms": terms}

        latest, said = None, []
        while position.epoch < epochs:
            start = time.perf_counter()
            if not position.step:
                q = pseudo(latest or self.evidence()) if callable(pseudo) else pseudo
                position.q = None if q is None else self._by_table_row(q)
                position.drawn = dict(self.rng.bit_generator.state)
            self._run_epoch(compute_loss, optimizer, position, epochs * config.steps, lambda: log.after_step(state))
            self.epoch += 1
            mean, position = round(float(np.mean(position.losses)), 5), TrainerPosition(position.epoch + 1)
            if not last or position.epoch == epochs:
                latest = self.evidence()
                if not latest.finite:
                    raise Diverged
                line = {"epoch": self.epoch, "loss": mean, "seconds": round(time.perf_counter() - start, 3)}
                said = [(line, asdict(latest))] if last else []
                yield line, latest
            if position.epoch < epochs:
                log.after_epoch(state)
        log.leave(lambda: {"end": self._state(), "said": said})

    def _run_epoch(
        self,
        compute_loss: nn.Module,
        optimizer: torch.optim.Optimizer,
        position: TrainerPosition,
        total: int,
        after_step: Callable[[], None],
    ) -> None:
        """Run the steps that are left of an epoch; `total` steps are the whole training, by which rates decay."""
        config = self.config
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.rng.bit_generator.state = position.drawn
        batches, shown = self._batches(position.step), {"desc": "adapting", "unit": "step", "leave": False}
        for rows, activation in tqdm(batches, total=config.steps, initial=position.step, disable=None, **shown):
            progress = (position.epoch * config.steps + position.step) / total
            for group in optimizer.param_groups:
                group["lr"] = group["top"] * (1 + 10 * progress) ** -0.75
            loss = self._compute_gradient(compute_loss, optimizer, rows, activation, progress, position)
            if config.clip:
                nn.utils.clip_grad_norm_(parameters, config.clip)
            optimizer.step()
            position.losses.append(loss)
            position.step += 1
            after_step()

    def _compute_gradient(
        self,
        compute_loss: nn.Module,
        optimizer: torch.optim.Optimizer,
        rows: np.ndarray,
        activation: Tensor,
        progress: float,
        position: TrainerPosition,
    ) -> float:
        """Set the gradients of a step's loss in the parameters of `optimizer`; return the loss."""

        def attempt() -> float:
            loss = compute_loss(rows, activation, progress, position.q, [self.seed, self.epoch, position.step])
            if not bool(loss.isfinite()):
                raise Diverged
            loss.backward()
            return float(loss.detach())

        clear = partial(optimizer.zero_grad, set_to_none=True)
        if self.split or self.task.frozen:
            clear()
            try:
                return attempt()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                # Either there is no tail to process in parts, or other processes do not wait for this one's retry.
                raise TransferError("out of memory: use a smaller --batch-size") from None
        rng = get_rng_states()

        def attempt_in_parts(parts: int) -> float:
            if parts > self.task.parts:
                self.task.parts = parts
                set_rng_states(rng)
            return attempt()

        return halve_until_fits(attempt_in_parts, len(activation), self.task.parts, clear, RECOMPUTED)[0]

    def _optimizer(self, losses: WeightedLosses, classifier: bool) -> torch.optim.Optimizer:
        c = self.config
        extra = [p for _, loss in losses for p in loss.parameters()]
        head = [p for name, p in self.network.named_parameters() if classifier or not name.startswith("classifier")]
        groups: list[dict[str, Any]] = [{"params": [*head, *extra], "top": c.lr}]
        groups += [{"params": [p], "top": rate} for p, rate in self.rates]
        nesterov = c.momentum > 0
        fused = self.task.device.type in ("cpu", "cuda")
        return torch.optim.SGD(groups, c.lr, c.momentum, weight_decay=c.weight_decay, nesterov=nesterov, fused=fused)

    def _state(self) -> dict[str, Any]:
        """Return what is carried from one call of :meth:`train` to the next, with the random generators."""
        return {
            "network": self.network.state_dict(),
            "tail": self.task.moved(),
            "epoch": self.epoch,
            "rng": self.rng.bit_generator.state,
            "generators": get_rng_states(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.task.move(state["tail"])
        self.epoch, self.rng.bit_generator.state = state["epoch"], state["rng"]
        set_rng_states(state["generators"])

    def _resume(
        self, saved: dict[str, Any], optimizer: torch.optim.Optimizer, losses: WeightedLosses
    ) -> TrainerPosition:
        """Restore a call of :meth:`train` that was not finished; return its position."""
        load_optimizer_state(optimizer, saved["optimizer"])
        for (_, loss), state in zip(losses, saved["terms"], strict=True):
            loss.load_state_dict(state)
        self._restore(saved["course"])
        return TrainerPosition(**saved["place"])

    def _batches(self, first: int) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield an epoch's batches from number `first` on: source rows, as many target rows, labelled target rows."""
        task, config = self.task, self.config
        size = config.batch_size if task.frozen else max(config.batch_size // 2, 1)
        labelled = task.domains.labelled
        sides, sizes = [task.source, task.domains.unlabelled], [size, size]
        if len(labelled):
            sides, sizes = [*sides, labelled], [*sizes, min(size, max(2, len(labelled)))]
        drawn = [_repeat_shuffled(side, size * config.steps, self.rng) for side, size in zip(sides, sizes, strict=True)]
        order = np.concatenate(
            [d[i * n : (i + 1) * n] for i in range(config.steps) for d, n in zip(drawn, sizes, strict=True)]
        )
        augmentation = None if task.frozen else AUGMENTATIONS[config.augment]
        return task.batches(order, sum(sizes), augmentation, self.seed, self.epoch, first, split=True)

    def evidence(self) -> CandidateEvidence:
        """Return what validators may see of the present network, after setting the statistics of its norm layer."""
        task, domains = self.task, self.task.domains
        self.network.eval()
        source = task.source
        if len(source) > MAX_SOURCE_EVIDENCE:
            source = np.sort(np.random.default_rng(self.seed).choice(source, MAX_SOURCE_EVIDENCE, replace=False))
        rows = np.concatenate([source, domains.val, domains.unlabelled, domains.labelled])
        pooled, domain = task.pooled(rows), task.domain[torch.from_numpy(rows)]
        with torch.inference_mode():
            domain = domain.to(pooled.device)
            trained = torch.ones(len(rows), dtype=torch.bool, device=pooled.device)
            trained[len(source) : len(source) + len(domains.val)] = False
            self.network.set_statistics(pooled[trained], domain[trained])
            features = self.network(pooled, domain)
            logits = self.network.classifier(features)
        cuts = np.cumsum([len(source), len(domains.val), len(domains.unlabelled)])
        parts, (_, val, target, _) = (np.split(x.cpu().numpy(), cuts) for x in (features, logits))
        return task.evidence(source, parts, val, target)

    def _by_table_row(self, q: np.ndarray) -> Tensor:
        """Return class probabilities (table rows, classes) with `q` at the unlabelled target rows, zero elsewhere."""
        placed = torch.zeros(len(self.task.labels), q.shape[1])
        placed[torch.from_numpy(self.task.domains.unlabelled)] = torch.from_numpy(q).float()
        return placed


def _repeat_shuffled(rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return `size` of `rows` in random order, each as often as any other to within one."""
    return np.concatenate([rng.permutation(rows) for _ in range(-(-size // max(len(rows), 1)))])[:size]
