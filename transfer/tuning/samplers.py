"""Which settings a search tries next: random (coarse, then fine), a grid, or Optuna's TPE.

Random search beats a grid of the same size when few settings matter: n random trials try n values of each setting, a
grid over two settings only the square root of n (Bergstra and Bengio 2012).

A trial depends only on its number, the seed and the trials before it, so that a search can be resumed.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from transfer.config.commands import SearchConfig
from transfer.tuning.space import Options, Range, Settings, Space, grid, narrow_space

Record = dict[str, Any]
"""A trial, as in metrics.jsonl."""
MIN_TRIALS_FOR_IMPORTANCE = 20
# Fine trials are sampled around the best coarse trials: this share of them, and at least this number.
GOOD_SHARE, MIN_GOOD_TRIALS = 0.1, 3


class Proposals:
    """The trials of a search, one after the other; their number is `total`."""

    def __init__(self, space: Space, config: SearchConfig) -> None:
        self.space, self.sampler, self.seed = space, config.sampler, config.train.run.seed
        self.grid: list[Settings] = []
        self.total = config.trials
        if config.sampler == "grid":
            points = grid(space, config.trials)  # shuffled, so that halving sees the whole space early
            self.grid = [points[i] for i in np.random.default_rng(self.seed).permutation(len(points))]
            self.total = len(points)
        share = config.fine if config.sampler == "random" else 0.0
        self.coarse = self.total - round(share * self.total)
        self._study: TrialStudy | None = None

    def next(self, records: Sequence[Record]) -> tuple[str, Settings]:
        """Return the stage (coarse or fine) and settings of the trial after `records`."""
        number = len(records)
        if self.grid:
            return "coarse", self.grid[number]
        if self.sampler == "tpe":
            self._study = self._study or TrialStudy(self.space)
            return "coarse", self._study.ask(records, (self.seed, number))
        rng = np.random.default_rng((self.seed, number))
        if number < self.coarse:
            return "coarse", sample_settings(self.space, rng)
        coarse = rank_trials(records[: self.coarse])
        good = [record["settings"] for record in coarse[: max(math.ceil(GOOD_SHARE * len(coarse)), MIN_GOOD_TRIALS)]]
        return "fine", sample_settings(narrow_space(self.space, good) if good else self.space, rng)


def sample_settings(space: Space, rng: np.random.Generator) -> Settings:
    """Return settings sampled from `space`: log-uniform, uniform, or one of the options."""
    return {name: parameter.at(rng.random()) for name, parameter in space.items()}


def rank_trials(records: Sequence[Record]) -> list[Record]:
    """Return `records` by decreasing validation accuracy; ties keep their order."""
    return sorted(records, key=lambda record: -record["val_acc"])


class TrialStudy:
    """An Optuna study: tree-structured Parzen estimator (Bergstra et al. 2011) and importance of settings.

    Optuna's storages unpickle files or need a database, so the study is rebuilt from the list of trials instead.
    """

    def __init__(self, space: Space) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.added = space, 0
        self.study = optuna.create_study(direction="maximize")
        self.distributions = {name: _distribution(parameter) for name, parameter in space.items()}

    def add(self, records: Sequence[Record]) -> None:
        """Add new finished trials to the Optuna study."""
        from optuna.trial import create_trial

        for record in records[self.added :]:
            settings, value = record["settings"], record["val_acc"]
            self.study.add_trial(create_trial(params=settings, distributions=self.distributions, value=value))
        self.added = len(records)

    def ask(self, records: Sequence[Record], seed: tuple[int, int]) -> Settings:
        """Return the settings that TPE proposes after `records`, sampled with `seed`."""
        import optuna

        self.add(records)
        self.study.sampler = optuna.samplers.TPESampler(seed=int(np.random.SeedSequence(seed).generate_state(1)[0]))
        trial = self.study.ask(self.distributions)
        self.study.tell(trial, state=optuna.trial.TrialState.FAIL)  # the finished trial is added later by `add`
        return trial.params

    def importance(self, records: Sequence[Record]) -> dict[str, float]:
        """Return the importance of each setting for being among the best trials (PED-ANOVA, Watanabe et al. 2023).

        Shares that sum to 1, largest first; empty if there are too few trials or all have the same accuracy.
        """
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

        self.add(records)
        accuracies = {record["val_acc"] for record in records}
        if len(records) < MIN_TRIALS_FOR_IMPORTANCE or len(self.space) < 2 or len(accuracies) < 2:
            return {}
        found = get_param_importances(self.study, evaluator=PedAnovaImportanceEvaluator())
        return {name: round(float(share), 4) for name, share in found.items()}


def _distribution(parameter: Range | Options) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, Options):
        return CategoricalDistribution(parameter.options)
    if parameter.whole:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
