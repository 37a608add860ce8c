"""Where one method's run is, so that a run that was killed or stopped goes on to the same bits."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from transfer.runs.packing import pack, unpack
from transfer.runs.states import PartStates
from transfer.runtime import distributed, signals


@dataclass
class TrainerPosition:
    """How far a call of :meth:`transfer.adaptation.trainer.AdaptationTrainer.learn` has come.

    Parameters
    ----------
    epoch : int
        Epochs that are over.
    step : int
        Steps of the one under way.
    losses : list of float
        Theirs.
    drawn : dict
        The state of the generator from which its rows are drawn.
    q : Tensor, optional
        Its pseudo-labels.
    """

    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    drawn: dict[str, Any] = field(default_factory=dict)
    q: Tensor | None = None


class ResumeLog:
    """What is kept of one method of a run, among the states of its part of the run; without these, nothing.

    A resumed run executes the same code. What is quick, such as a closed form, is computed again; each call of
    `AdaptationTrainer.learn` asks here how far it had come. Kept are the loss weight under way, of its
    calls those that are over (how they left things, and what they said) and the one under way, and the choice so far.
    """

    def __init__(self, part: PartStates | None = None) -> None:
        self.part = part
        self.weight = 0
        self._choice: Callable[[], Any] = dict
        self._calls: list[dict[str, Any]] = []
        self._ahead: list[dict[str, Any]] = []

    def open(self, choice: Callable[[], Any]) -> Any | None:
        """Begin: return the choice that is kept, or None; from now on what `choice` returns is kept with all else."""
        kept = (self.part.outcome() or self.part.load()) if self.part else None
        begun = kept or {"weight": 0, "calls": [], "choice": None}
        self.weight, self._calls, self._ahead, self._choice = begun["weight"], [], begun["calls"], choice
        return begun["choice"]

    def enter(self) -> dict[str, Any] | None:
        """Return what is kept of the call of ``learn`` that begins now, with ``end`` if it is over; None if nothing."""
        kept = self._ahead.pop(0) if self._ahead else None
        if kept and "end" in kept:
            self._calls.append(kept)
        return kept

    def after_step(self, call: Callable[[], dict[str, Any]]) -> None:
        """After a step: keep what `call` returns of the call under way if a state is due or a signal asks to stop.

        Raises
        ------
        Stopped
            A signal has asked to, and all is kept.
        """
        if self.part:
            self._keep(self.part.due, lambda: [*self._calls, call()])

    def after_epoch(self, call: Callable[[], dict[str, Any]]) -> None:
        """After an epoch: the same, and wherever keeping it takes little beside the epoch."""
        if self.part:
            self._keep(self.part.due or self.part.cheap, lambda: [*self._calls, call()])

    def leave(self, call: Callable[[], dict[str, Any]]) -> None:
        """After the last one: the same, `call` returning how the call leaves all, its ``end``, and what it ``said``."""
        if self.part:
            self._calls.append(unpack(*pack(call())))  # as it is now: learning may go on from there
            self._keep(self.part.due or self.part.cheap, lambda: self._calls)

    def finish_weight(self, weights: int) -> None:
        """Go on to the next loss weight; after all `weights` the method is done, and its outcome kept."""
        self.weight, self._calls, self._ahead = self.weight + 1, [], []
        if self.part:
            self._keep(True, list, over=self.weight == weights)

    def _keep(self, due: bool, calls: Callable[[], list[dict[str, Any]]], *, over: bool = False) -> None:
        """Keep what `calls` returns if that is due, or a signal asks any process of the run to stop; then stop here."""
        assert self.part
        asked = distributed.any_rank(signals.stop_requested())
        if due or asked:
            value = {"weight": self.weight, "calls": calls(), "choice": self._choice()}
            (self.part.finish if over else self.part.save)(value)
        if asked:
            signals.raise_stopped()
