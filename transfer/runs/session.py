"""One run of a command: its folder, resumable states, seeds, log lines, timing and the header of its result."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Generic, Self, TypeVar

import torch

from transfer.backbones.backbone import Backbone
from transfer.config.adapt import AdaptConfig
from transfer.config.serialise import to_dict
from transfer.config.train import HeadConfig, TrainConfig
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePlan
from transfer.runs import checkpoint
from transfer.runs.folder import RunFolder
from transfer.runs.states import Inputs, PartStates, RunStates
from transfer.runtime import distributed
from transfer.runtime.device import get_versions
from transfer.runtime.signals import defer_stop_signals

Config = TypeVar("Config", bound=TrainConfig | AdaptConfig)
Run = TypeVar("Run")
OnLine = Callable[[dict[str, Any]], None]

log = logging.getLogger(__name__)


class RunSession(Generic[Config]):
    """One run of ``train`` or ``adapt``, around their four steps: prepare, fit, evaluate, record.

    Use it as a context manager: leaving it releases the run folder to other processes. The first process of several
    alone opens the folder; in the others `folder` is None. A folder that cannot be used raises a TransferError, see
    :class:`~transfer.runs.folder.RunFolder`. A `cache` may be shared between runs; by default it is new, as `config`
    says. `on_line` receives each line of metrics.jsonl.

    Attributes
    ----------
    folder : RunFolder or None
    finished : dict or None
        The result of a resumed run that is already finished, the same in all processes.
    lines : list of dict
        The lines logged so far.
    """

    def __init__(
        self, command: str, config: Config, *, cache: TrunkCache | None = None, on_line: OnLine = lambda line: None
    ) -> None:
        run, folder = config.run, None
        if run.out and distributed.is_rank_zero():
            how: Any = {"overwrite": run.overwrite, "resume": run.resume, "tensorboard": run.tensorboard}
            folder = RunFolder(run.out, to_dict(config), later=True, **how)
        self._set(command, config, folder, cache or TrunkCache(config.cache), on_line)
        if self.finished:
            log.info("the run in %s is already finished", run.out)

    def _set(self, command: str, config: Config, folder: RunFolder | None, cache: TrunkCache, on_line: OnLine) -> None:
        self.config: Any = config  # a Config; mypy does not follow dataclasses.replace of a type variable
        self.command, self.folder, self.cache, self.on_line = command, folder, cache, on_line
        self.finished: dict[str, Any] | None = distributed.broadcast(folder.finished_result if folder else None)
        self.lines: list[dict[str, Any]] = []
        self._outcome: PartStates | None = None
        self._began, self._trunk_before = time.perf_counter(), cache.seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self.folder:
            self.folder.release()

    def defer_stop_signals(self) -> AbstractContextManager[None]:
        """Return a context in which SIGINT and SIGTERM let a run with a folder save its state before it stops."""
        return defer_stop_signals() if self.config.run.out else nullcontext()

    # Seeds

    def run_seeds(self, run_seed: Callable[[Self], Run], load_seed: Callable[[Self], Run | None]) -> list[Run]:
        """Return what `run_seed` returns for each seed's session; `load_seed` is tried first where it is finished."""
        runs = []
        for session in self._seeds():
            loaded = load_seed(session) if session.finished else None
            runs.append(run_seed(session) if loaded is None else loaded)
        return runs

    def _seeds(self) -> Iterator[Self]:
        """Yield the session of each seed: this run's own where there is one seed, else that of an inner run folder."""
        run = self.config.run
        seeds: tuple[int, ...] = run.seeds or (run.seed,)
        for number, seed in enumerate(seeds):
            session = type(self).__new__(type(self))
            if len(seeds) == 1:
                config = replace(self.config, run=replace(run, seed=seed))
                session._set(self.command, config, self.folder, self.cache, self.on_line)
                yield session
                return
            log.info("seed %d", seed)
            name = f"seed{seed}"
            out, shown = run.out / name if run.out else None, run.report and seed == seeds[0]
            config = replace(self.config, run=replace(run, seed=seed, seeds=(), out=out, report=shown))
            folder = self.folder.inner(name, to_dict(config)) if self.folder else None
            session._set(self.command, config, folder, self.cache, partial(self._on_seed_line, seed))
            session._outcome = self.states.part(number) if self.states else None
            yield session

    def _on_seed_line(self, seed: int, line: dict[str, Any]) -> None:
        self.on_line({"seed": seed} | line)

    def load_outcome(self) -> Any | None:
        """Return what :meth:`save_outcome` saved of this seed, in all processes; None where nothing is saved."""
        return self._outcome.outcome() if self._outcome else None

    def save_outcome(self, outcome: Any) -> None:
        """Save what the result over all seeds needs of this seed beside its result.json."""
        if self._outcome:
            self._outcome.finish(outcome)

    def finish_seeds(self, merged: dict[str, Any]) -> dict[str, Any]:
        """Write the result over several seeds, `merged`, with the lines of all and the model of the first; return it.

        The result of a run that was already finished is returned as it is.
        """
        if self.folder and not self.finished:
            self.folder.merge_inner_runs([self.folder.path / f"seed{seed}" for seed in self.config.run.seeds])
            self.folder.write_result(merged)
        return self.finished or merged

    # States, log lines, result

    @cached_property
    def states(self) -> RunStates | None:
        """The resumable states of the run; None where it has no folder. All processes ask for them together."""
        run, folder = self.config.run, self.folder
        if not run.out:
            return None
        resumed = distributed.broadcast(bool(folder and folder.resumed))
        return RunStates(run.out, run.checkpoint_minutes, begin=folder.start if folder else None, resumed=resumed)

    def begin(self, find_inputs: Callable[[], Inputs]) -> None:
        """Record the inputs of the run, or raise unless a resumed run has the same, and clear its log lines.

        `find_inputs` is called only where the run has a folder.
        """
        if self.states:
            self.states.of(find_inputs())
        if self.folder:
            self.folder.reset_metrics()

    def log_line(self, line: dict[str, Any], text: str) -> None:
        """Append `line` to metrics.jsonl, and show it as `text`."""
        log.info("%s", text)
        if self.folder:
            self.folder.append_metrics(line)
        self.lines.append(line)
        self.on_line(line)

    def load_models(self, device: torch.device | str = "cpu") -> checkpoint.Models:
        """Return the models of a finished run."""
        assert self.config.run.out
        return checkpoint.load_models(self.config.run.out, device)

    def save_models(self, models: checkpoint.Models, heads: HeadConfig, name: str = "model.safetensors") -> None:
        """Write models to the run folder, if there is one."""
        if self.folder:
            self.folder.start()
            checkpoint.save_models(self.folder.path / name, models, heads)

    def result_header(
        self,
        backbone: Backbone,
        plans: Sequence[FreezePlan],
        *,
        heads_parameters: int,
        moved: Sequence[str],
        **facts: Any,
    ) -> dict[str, Any]:
        """Return the start of a result: command, config, versions, seconds until now, backbone and policy.

        `plans` has one entry per network, `heads_parameters` counts the trained parameters of all heads, and `moved`
        names the frozen tensors that changed; there must be none. `facts` on the policy are added.
        """
        trunk, total = self.cache.seconds - self._trunk_before, time.perf_counter() - self._began
        return {
            "command": self.command,
            "config": to_dict(self.config),
            "versions": get_versions(),
            "seconds": {"total": round(total, 3), "trunk": round(trunk, 3), "train": round(total - trunk, 3)},
            "backbone": {
                "name": backbone.name,
                "weights": backbone.weights,
                "licence": backbone.licence,
                "width": backbone.width,
            },
            "policy": {
                "name": str(plans[0].policy),
                "trained_parameters": sum(plan.trained_parameters for plan in plans) + heads_parameters,
                "frozen_parameters": sum(plan.frozen_parameters for plan in plans),
                "frozen_unchanged": not moved,
                "moved": list(moved),
                **facts,
                "heads_parameters": heads_parameters,
                "phases": to_dict(plans[0].phases),
            },
        }
