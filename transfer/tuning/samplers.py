"""Which settings a search tries next: drawn at random, coarse then fine; from a grid; or where Optuna expects most.

Random draws beat a grid of as many trials where few settings matter: of n trials each has n different values of the
setting that does, of a grid with two settings only the square root of n (Bergstra and Bengio 2012).

The trial of a number depends on the seed and the trials before it alone, so that a search goes on where it stopped.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from transfer.config.commands import SearchConfig
from transfer.tuning.space import Choice, Range, Settings, Space, grid, narrowed

Record = dict[str, Any]
"""A trial, as in metrics.jsonl."""
ENOUGH = 20  # trials, for saying what matters
GOOD, FEWEST = 0.1, 3  # the fine trials are drawn around this share of the coarse ones, around no fewer than these


class Proposals:
    """The trials of a search, one after the other.

    Attributes
    ----------
    total : int
        How many there are.
    """

    def __init__(self, space: Space, config: SearchConfig) -> None:
        self.space, self.sampler, self.seed = space, config.sampler, config.train.run.seed
        self.grid: list[Settings] = []
        self.total = config.trials
        if config.sampler == "grid":
            points = grid(space, config.trials)  # in drawn order, so that halving sees all of the space early on
            self.grid = [points[i] for i in np.random.default_rng(self.seed).permutation(len(points))]
            self.total = len(points)
        share = config.fine if config.sampler == "random" else 0.0
        self.coarse = self.total - round(share * self.total)
        self._study: Study | None = None

    def next(self, records: Sequence[Record]) -> tuple[str, Settings]:
        """Return the stage (coarse or fine) and settings of the trial after `records`."""
        number = len(records)
        if self.grid:
            return "coarse", self.grid[number]
        if self.sampler == "tpe":
            self._study = self._study or Study(self.space)
            return "coarse", self._study.ask(records, (self.seed, number))
        rng = np.random.default_rng((self.seed, number))
        if number < self.coarse:
            return "coarse", drawn(self.space, rng)
        first = ranked(records[: self.coarse])
        good = first[: max(math.ceil(GOOD * len(first)), FEWEST)]
        return "fine", drawn(narrowed(self.space, [record["settings"] for record in good]) if good else self.space, rng)


def drawn(space: Space, rng: np.random.Generator) -> Settings:
    """Return settings drawn from `space`: log-uniform, uniform, or each option as likely."""
    return {name: parameter.at(rng.random()) for name, parameter in space.items()}


def ranked(records: Sequence[Record]) -> list[Record]:
    """Return `records`, the best on the validation images first; of equals the earlier."""
    return sorted(records, key=lambda record: -record["val_acc"])


class Study:
    """Optuna's: a tree-structured Parzen estimator (Bergstra et al. 2011), and which settings matter.

    Its own storages on disk unpickle or want a database; ours is the list of trials, told to it anew.
    """

    def __init__(self, space: Space) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.told = space, 0
        self.study = optuna.create_study(direction="maximize")
        self.spread = {name: _distribution(parameter) for name, parameter in space.items()}

    def tell(self, records: Sequence[Record]) -> None:
        """Let it know of those of `records` that it does not know of yet."""
        from optuna.trial import create_trial

        for record in records[self.told :]:
            self.study.add_trial(
                create_trial(params=record["settings"], distributions=self.spread, value=record["val_acc"])
            )
        self.told = len(records)

    def ask(self, records: Sequence[Record], seed: tuple[int, int]) -> Settings:
        """Return the settings that promise most after `records`, drawn from `seed`."""
        import optuna

        self.tell(records)
        self.study.sampler = optuna.samplers.TPESampler(seed=int(np.random.SeedSequence(seed).generate_state(1)[0]))
        trial = self.study.ask(self.spread)
        self.study.tell(trial, state=optuna.trial.TrialState.FAIL)  # its result is told later, as all others
        return trial.params

    def importance(self, records: Sequence[Record]) -> dict[str, float]:
        """Return how much each setting has to do with being among the best (PED-ANOVA, Watanabe et al. 2023).

        Shares of 1, the largest first; empty where there are too few trials, or all alike.
        """
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

        self.tell(records)
        if len(records) < ENOUGH or len(self.space) < 2 or len({record["val_acc"] for record in records}) < 2:
            return {}
        found = get_param_importances(self.study, evaluator=PedAnovaImportanceEvaluator())
        return {name: round(float(share), 4) for name, share in found.items()}


def _distribution(parameter: Range | Choice) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.options)
    if parameter.whole:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
