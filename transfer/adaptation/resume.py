"""The position of one adaptation method, saved so that a resumed run ends with the same bits."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from transfer.runs.packing import pack, unpack
from transfer.runs.states import PartStates
from transfer.runtime import distributed, signals


@dataclass
class TrainerPosition:
    """The position within a call of :meth:`transfer.adaptation.trainer.AdaptationTrainer.train`."""

    epoch: int = 0  # finished epochs
    step: int = 0  # finished steps of the present epoch
    losses: list[float] = field(default_factory=list)  # of these steps
    drawn: dict[str, Any] = field(default_factory=dict)  # state of the generator that draws the epoch's rows
    q: Tensor | None = None  # pseudo-labels of the epoch


class ResumeLog:
    """Saves the position of one method among the states of its part of the run; without states it does nothing.

    A resumed run executes the same code again. Quick steps, such as closed forms, are computed again. Each call of
    `AdaptationTrainer.train` asks this log for its saved position. Saved are the present loss weight, its finished
    calls (their final states and outputs), the unfinished call, and the best candidate so far.
    """

    def __init__(self, part: PartStates | None = None) -> None:
        self.part = part
        self.weight = 0  # number of finished loss weights
        self._choice: Callable[[], Any] = dict
        self._calls: list[dict[str, Any]] = []
        self._ahead: list[dict[str, Any]] = []

    def open(self, choice: Callable[[], Any]) -> Any | None:
        """Return the saved best candidate, or None; from now on save what `choice` returns with every state."""
        saved = (self.part.outcome() or self.part.load()) if self.part else None
        state = saved or {"weight": 0, "calls": [], "choice": None}
        self.weight, self._calls, self._ahead, self._choice = state["weight"], [], state["calls"], choice
        return state["choice"]

    def enter(self) -> dict[str, Any] | None:
        """Return the saved state of the call of ``train`` that starts now, with ``end`` if it finished, or None."""
        saved = self._ahead.pop(0) if self._ahead else None
        if saved and "end" in saved:
            self._calls.append(saved)
        return saved

    def after_step(self, call: Callable[[], dict[str, Any]]) -> None:
        """Save what `call` returns of the present call, if a state is due or a stop was requested.

        Raises
        ------
        StoppedBySignal
            After saving.
        """
        if self.part:
            self._save(self.part.due, lambda: [*self._calls, call()])

    def after_epoch(self, call: Callable[[], dict[str, Any]]) -> None:
        """Save as after a step, and also if saving is cheap compared with the epoch."""
        if self.part:
            self._save(self.part.due or self.part.cheap, lambda: [*self._calls, call()])

    def leave(self, call: Callable[[], dict[str, Any]]) -> None:
        """Save as after an epoch; `call` returns the call's final state, ``end``, and its output, ``said``."""
        if self.part:
            self._calls.append(unpack(*pack(call())))  # a copy: later training changes the tensors
            self._save(self.part.due or self.part.cheap, lambda: self._calls)

    def finish_weight(self, weights: int) -> None:
        """Move to the next loss weight; after all `weights` the method is finished, and its outcome is saved."""
        self.weight, self._calls, self._ahead = self.weight + 1, [], []
        if self.part:
            self._save(True, list, finished=self.weight == weights)

    def _save(self, due: bool, calls: Callable[[], list[dict[str, Any]]], *, finished: bool = False) -> None:
        """Save what `calls` returns if a state is due or a stop was requested in any process; then stop."""
        assert self.part
        stop = distributed.any_rank(signals.stop_requested())
        if due or stop:
            value = {"weight": self.weight, "calls": calls(), "choice": self._choice()}
            (self.part.finish if finished else self.part.save)(value)
        if stop:
            signals.raise_stopped()
