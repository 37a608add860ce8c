"""The position of a fit, saved from step to step, so that a resumed fit ends with the same bits."""

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from transfer.backbones.weights import set_tensors
from transfer.errors import TransferError
from transfer.evaluation.uncertainty.record import HeldOut
from transfer.model import TransferModel
from transfer.runs.packing import (
    get_optimizer_state,
    get_rng_states,
    load_optimizer_state,
    set_rng_states,
    shallow_dict,
)
from transfer.runs.states import PartStates
from transfer.runtime import distributed, signals
from transfer.training.averaging import WeightAverage
from transfer.training.epoch import EpochProgress

PhaseChoice = int | dict[str, Any]
"""After how many epochs a phase was best. Of a solved phase, each head's L2 regularisation; with selected features a
dict of this ``strength`` and the ``percent`` of them, with several probes a dict of each one's."""

NO_SCORE = (-float("inf"), -float("inf"))


@dataclass
class FitResult:
    """The outcome of a fit."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    """A line per epoch (in a solved phase: per head and L2 regularisation), as in metrics.jsonl."""
    best: list[PhaseChoice] = field(default_factory=list)  # for each phase up to the one with the best weights
    moved: tuple[str, ...] = ()  # names of frozen tensors that changed; there must be none
    optimizer_bytes: int = 0  # size of the optimizer's state; 0 where every phase was solved
    snapshots: list[dict[str, Tensor]] = field(default_factory=list)
    """With several cycles: all tensors that may change, at the end of each cycle of the last trained phase."""
    stopped: str = ""  # why training stopped early with an error, if it did
    temperatures: dict[str, float] = field(default_factory=dict)  # by head, folded into the model
    held_out: HeldOut | None = None  # predictions for images that the heads were not trained on
    shortened: list[str] = field(default_factory=list)  # a sentence for each phase that a time limit shortened
    parts: int = 1  # into which batches were divided at last to fit into memory
    interpolated: dict[str, dict[str, Any]] = field(default_factory=dict)
    """With ``wise_ft`` by phase: how far the used weights are from those before it to those of its best epoch, as
    ``share``, and the validation scores of the heads there, as ``val``."""

    @property
    def refit_choices(self) -> list[PhaseChoice]:
        """The choices that a refit repeats: for each phase in `best` its L2 regularisation, or all of its epochs.

        The number of epochs up to the best one may be small by chance, so a refit runs them all.
        """
        lengths = Counter(line["phase"] for line in self.epochs).values()
        return [n if isinstance(best, int) else best for n, best in zip(lengths, self.best, strict=False)]


@dataclass
class PhaseBest:
    """The best epoch or solution of a phase."""

    value: tuple[float, float]  # score on the validation rows, larger is better
    choice: PhaseChoice
    weights: dict[str, Tensor]
    epoch: int = 0  # the number of its line, from 1 over all phases


@dataclass
class FitPosition:
    """The position of a fit between two steps."""

    best: PhaseBest  # of the finished phases
    current: PhaseBest  # of the present phase
    choices: list[PhaseChoice] = field(default_factory=list)  # of each finished phase
    phase: int = 0  # number of finished phases
    epochs: int = 0  # finished epochs of the present phase
    wait: int = 0  # how many of these came after the best one
    progress: EpochProgress = field(default_factory=EpochProgress)  # within the present epoch

    def next_phase(self) -> None:
        """Move to the start of the next phase."""
        self.current = PhaseBest(NO_SCORE, 0, self.best.weights)
        self.phase, self.epochs, self.wait = self.phase + 1, 0, 0
        self.progress = EpochProgress(parts=self.progress.parts)

    def next_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epochs, self.progress = self.epochs + 1, EpochProgress(parts=self.progress.parts)

    def state(self) -> dict[str, Any]:
        """Return the position as plain values; initial weights, which a resumed fit has anyway, are left out."""
        saved = shallow_dict(self) | {"progress": shallow_dict(self.progress)}
        for name in ("best", "current"):
            saved[name] = shallow_dict(getattr(self, name))
            if getattr(self, name).value == NO_SCORE:
                saved[name]["weights"] = None
        return saved

    @classmethod
    def from_state(cls, saved: dict[str, Any], initial: dict[str, Tensor]) -> "FitPosition":
        """Return the position whose :meth:`state` is `saved`, of a fit that starts from the weights `initial`."""
        best, current = dict(saved["best"]), dict(saved["current"])
        best["weights"] = initial if best["weights"] is None else best["weights"]
        current["weights"] = best["weights"] if current["weights"] is None else current["weights"]
        rest = {"best": PhaseBest(**best), "current": PhaseBest(**current)}
        return cls(**saved | rest | {"progress": EpochProgress(**saved["progress"])})


class FitCheckpoints:
    """Saves the position of a fit among the states of its part of the run; without states it does nothing.

    `moving` has the names of the tensors of `model` that may change.
    """

    def __init__(self, part: PartStates | None, model: TransferModel, moving: list[str]) -> None:
        self.part, self.model, self.moving = part, model, moving
        self._saved: dict[str, Any] | None = None

    def load(self, initial: dict[str, Tensor]) -> tuple[FitResult, FitPosition | None] | None:
        """Restore the model of an earlier fit that starts from the weights `initial`; None where there was none.

        Return its result, and its position if it was interrupted.
        """
        saved = (self.part.outcome() or self.part.load()) if self.part else None
        if saved is None:
            return None
        result = FitResult(**saved["result"])
        set_tensors(self.model, saved["model"])
        if "position" not in saved:
            self.model.cut = saved["cut"]
            self.model.eval()
            return result, None
        self._saved = saved
        return result, FitPosition.from_state(saved["position"], initial)

    def restore(self, optimizer: Optimizer, average: WeightAverage) -> None:
        """Restore optimizer, average and random generators of the phase in which :meth:`load` found the fit, once."""
        if self._saved:
            load_optimizer_state(optimizer, self._saved["optimizer"])
            average.load(self._saved["average"])
            set_rng_states(self._saved["generators"])
            self._saved = None

    def step(self, save: Callable[[], None], *, end: bool = False) -> None:
        """Save after a step if a state is due, or at the `end` of an epoch if it is cheap.

        If a signal requested a stop, save and raise StoppedBySignal. A state that cannot be written is a TransferError.
        """
        if self.part is None:
            return
        stop = distributed.any_rank(signals.stop_requested())  # the signal may reach processes in different steps
        if stop or self.part.due or (end and self.part.cheap):
            save()
        if stop:
            signals.raise_stopped()

    def save(self, position: FitPosition, optimizer: Optimizer, average: WeightAverage, result: FitResult) -> None:
        """Save the position of the fit with all that it needs to continue."""
        assert self.part
        self.part.save(
            {
                "position": position.state(),
                "result": shallow_dict(result),
                "model": self._weights(),
                "optimizer": get_optimizer_state(optimizer),
                "average": average.state(),
                "generators": get_rng_states(),
            }
        )

    def rescue(self, save: Callable[[], None]) -> None:
        """Save, if possible, because the fit is about to fail."""
        if self.part:
            with contextlib.suppress(TransferError):
                save()

    def finish(self, result: FitResult) -> None:
        """Save the result and the model of a finished fit."""
        if self.part:
            self.part.finish({"result": shallow_dict(result), "model": self._weights(), "cut": self.model.cut})

    def all_finite(self) -> bool:
        """Return whether no weight that may change is infinite or NaN."""
        return all(bool(tensor.isfinite().all()) for tensor in self._weights().values())

    def copy_weights(self) -> dict[str, Tensor]:
        """Return a copy of the tensors that may change, by name."""
        return {name: tensor.clone() for name, tensor in self._weights().items()}

    def _weights(self) -> dict[str, Tensor]:
        state = self.model.state_dict()
        return {name: state[name] for name in self.moving}
