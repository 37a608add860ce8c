"""Where a fit is from step to step, kept, and brought back so that it goes on to the same bits."""

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from transfer.data.splits import Splits
from transfer.errors import TransferError
from transfer.feature_cache.key import fingerprint_weights
from transfer.model import TransferModel
from transfer.runs.packing import get_optimizer_state, get_rng_states, load_optimizer_state, set_rng_states
from transfer.runs.states import PartStates
from transfer.runtime import distributed, signals
from transfer.training.averaging import Average
from transfer.training.epoch import EpochProgress

PhaseChoice = int | dict[str, Any]
"""After how many epochs a phase was best, or, where it was solved, each head's regularisation strength; with selected
features a dict of this ``strength`` and the ``percent`` of them, with several probes a dict of each one's."""

NO_SCORE = (-float("inf"), -float("inf"))


@dataclass
class PhaseBest:
    """The best of a phase: its value on the validation rows (larger is better), how it came about, its weights."""

    value: tuple[float, float]
    chosen: PhaseChoice
    weights: dict[str, Tensor]
    line: int = 0


@dataclass
class FitPosition:
    """Where a fit is between two steps.

    Parameters
    ----------
    best : PhaseBest
        Of the phases that are done.
    here : PhaseBest
        Of this one.
    done : list of PhaseChoice
        For each phase that is done.
    phase : int
        How many are done.
    epochs : int
        How many of this phase are done.
    wait : int
        How many of these since the best one.
    progress : EpochProgress
        Of the epoch that is under way.
    """

    best: PhaseBest
    here: PhaseBest
    done: list[PhaseChoice] = field(default_factory=list)
    phase: int = 0
    epochs: int = 0
    wait: int = 0
    progress: EpochProgress = field(default_factory=EpochProgress)

    def next_phase(self) -> None:
        """Begin with the phase after this one."""
        self.here = PhaseBest(NO_SCORE, 0, self.best.weights)
        self.phase, self.epochs, self.wait = self.phase + 1, 0, 0
        self.progress = EpochProgress(parts=self.progress.parts)

    def next_epoch(self) -> None:
        """Begin with the epoch after this one."""
        self.epochs, self.progress = self.epochs + 1, EpochProgress(parts=self.progress.parts)


class FitCheckpoints:
    """Keeps where the fit of `model` is among the states of its part of the run; without these it does nothing.

    Parameters
    ----------
    moving : list of str
        What of the model's state may move.
    """

    def __init__(self, part: PartStates | None, model: TransferModel, moving: list[str]) -> None:
        self.part, self.model, self.moving = part, model, moving
        self.done = False
        self._carried: dict[str, Any] | None = None

    def finish(self, result: dict[str, Any]) -> None:
        """Keep that the fit is done, what came of it, and its model."""
        if self.part:
            self.part.finish({"result": result, "model": self._weights(), "cut": self.model.cut})

    def go_on(self, place: FitPosition, result: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> bool:
        """Set `place`, `result` and the model to where the fit was last, and tell its lines; return whether it was
        anywhere. Where it was done, ``done`` is True from now on.
        """
        kept = (self.part.outcome() or self.part.load()) if self.part else None
        if kept is None:
            return False
        result.update(kept["result"])
        for line in result["epochs"]:
            tell(line)
        self.model.load_state_dict(kept["model"], strict=False)
        if "place" not in kept:
            self.done, self.model.cut = True, kept["cut"]
            self.model.eval()
            return True
        self._carried, initial = kept, place.best.weights
        for name, value in kept["place"].items():
            setattr(place, name, value)
        best, here = (dict(kept["place"][name]) for name in ("best", "here"))
        place.best = PhaseBest(**best | {"weights": initial if best["weights"] is None else best["weights"]})
        place.here = PhaseBest(**here | {"weights": place.best.weights if here["weights"] is None else here["weights"]})
        place.progress = EpochProgress(**kept["place"]["progress"])
        return True

    def restore(self, optimizer: Optimizer, average: Average) -> None:
        """Set what a phase builds anew to where it was; only the first phase after :meth:`go_on` has been before."""
        if self._carried:
            load_optimizer_state(optimizer, self._carried["optimizer"])
            average.load(self._carried["average"])
            set_rng_states(self._carried["generators"])
            self._carried = None

    def step(self, save: Callable[[], None], *, end: bool = False) -> None:
        """Save after a step if that is due, or at the `end` of an epoch if it costs little; stop here if asked to.

        Raises
        ------
        Stopped
            A signal asked to.
        TransferError
            The state cannot be written.
        """
        if self.part is None:
            return
        asked = distributed.any_rank(signals.stop_requested())  # by a signal that reaches processes in different steps
        if asked or self.part.due or (end and self.part.cheap):
            save()
        if asked:
            signals.raise_stopped()

    def save(self, place: FitPosition, optimizer: Optimizer, average: Average, result: dict[str, Any]) -> None:
        """Keep where the fit is."""
        assert self.part
        best, here = vars(place.best).copy(), vars(place.here).copy()
        if place.here.value == NO_SCORE:
            here["weights"] = None
        if place.best.value == NO_SCORE:  # those that the fit begins with
            best["weights"] = None
        kept = vars(place) | {"best": best, "here": here, "progress": asdict(place.progress)}
        self.part.save(
            {
                "place": kept,
                "result": result,
                "model": self._weights(),
                "optimizer": get_optimizer_state(optimizer),
                "average": average.state(),
                "generators": get_rng_states(),
            }
        )

    def rescue(self, save: Callable[[], None]) -> None:
        """Save because the fit is about to fail, if that can be."""
        if self.part:
            with contextlib.suppress(TransferError):
                save()

    def _weights(self) -> dict[str, Tensor]:
        state = self.model.state_dict()
        return {name: state[name] for name in self.moving}


class RunInputs:
    """What a run learns from, which must be the same when it goes on.

    Parameters
    ----------
    backbone : str
        Its name.
    model : TransferModel
        Before it learns.
    parts : Splits
    paths, digests : ndarray of str, shape (N,)
        Of the images.
    """

    def __init__(
        self, backbone: str, model: TransferModel, parts: Splits, paths: np.ndarray, digests: np.ndarray
    ) -> None:
        self.paths = paths
        raw = bytearray(bytes.fromhex("".join(digests.tolist())))
        self.now: dict[str, Any] = {
            "images": torch.frombuffer(raw, dtype=torch.uint8).reshape(-1, 32),
            f"the weights of {backbone}": fingerprint_weights(model, len(model.backbone.stages)),
            "the split of the images": [part.tolist() for part in (parts.train, parts.val, parts.test)],
        }

    def check(self, before: dict[str, Any]) -> None:
        """See to it that all is as it was.

        Parameters
        ----------
        before : dict
            What ``now`` was.

        Raises
        ------
        TransferError
            It is not; says what.
        """
        mend = "is not as it was when the run began: put it back, or start anew with --overwrite"
        old, new = before["images"], self.now["images"]
        if len(old) != len(new):
            raise TransferError(
                f"--resume: the run began with {len(old)} images, and now there are {len(new)}: put them back, or "
                "start anew with --overwrite"
            )
        other = (old != new).any(1).numpy()
        if other.any():
            more = f" (and {int(other.sum()) - 1} more)" if other.sum() > 1 else ""
            raise TransferError(f"--resume: {self.paths[other][0]}{more} {mend}")
        for name, value in self.now.items():
            if name != "images" and before.get(name) != value:
                raise TransferError(f"--resume: {name} {mend}")
