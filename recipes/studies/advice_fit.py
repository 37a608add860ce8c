"""Fit what the advice expects of fine-tuning to measured means, and check the fit on networks and sets left out."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from studies.constants import read_value, set_constant
from transfer.advice import rule
from transfer.report.console.tables import text_table

MEANS = Path(__file__).with_name("fine_tuned.csv")
# Constants of expected gains that are fitted, by place below `transfer`. Each has a normal prior, mean and standard
# deviation, which decides where the rows do not.
FITTED: dict[str, tuple[float, float]] = {
    "advice.rule:FINE_TUNING_GAIN[similar]": (0.5, 0.25),
    "advice.rule:FINE_TUNING_GAIN[between]": (0.5, 0.25),
    "advice.rule:FINE_TUNING_GAIN[different]": (0.5, 0.25),
    "advice.rule:UNNORMALISED_GAIN": (0.5, 0.25),
    "advice.rule:LAST_THIRD_GAIN": (0.5, 0.25),
    "advice.rule:HALF_FIXABLE_IMAGES": (500.0, 250.0),
}
WIDTH = "advice.rule:PRIOR_SD_FINE_TUNING"  # fitted to what is left then
WIDTHS = np.linspace(0.02, 0.5, 49)  # that are tried
BETWEEN_SETS_SD = 0.01  # of a gain in accuracy, between sets; keeps large test sets from deciding alone


@dataclass(frozen=True)
class FineTunedMean:
    """Mean accuracy of a policy that fine-tunes, and of the linear probe, on one set."""

    backbone: str
    case: str
    images: str  # the set whose images these are: that of `case`, also where they are altered or fewer
    policy: str
    part: str  # of the stages: all or the last third, as advised policies train; or "other"
    kind: str  # similarity, as `Similarity.kind`
    labelled: int
    normalised: bool  # whether the network has normalisation layers
    probe: float
    accuracy: float
    tested: int  # test images of one seed
    seeds: int

    @property
    def gain(self) -> float:
        """Accuracy above that of the linear probe."""
        return self.accuracy - self.probe

    @property
    def sampling_variance(self) -> float:
        """Variance of the gain between samples of test images.

        Half as many images as the probe classifies wrongly, and at least one, are taken to differ between the policies.
        """
        return max((1 - self.probe) / 2, 1 / self.tested) / (self.tested * self.seeds)


def read_means(path: Path = MEANS) -> list[FineTunedMean]:
    """Return the rows of a table of means, one for each network, set and policy."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            FineTunedMean(
                **{name: row[name] for name in ("backbone", "case", "images", "policy", "part", "kind")},
                **{name: int(row[name]) for name in ("labelled", "tested", "seeds")},
                normalised=row["normalised"] == "yes",
                probe=float(row["probe"]),
                accuracy=float(row["accuracy"]),
            )
            for row in csv.DictReader(file)
        ]


def expect_gain(mean: FineTunedMean) -> float:
    """Return the gain over the probe that the present constants expect of a policy that is advised."""
    share = rule.FINE_TUNING_GAIN[mean.kind] * (1.0 if mean.normalised else rule.UNNORMALISED_GAIN)  # type: ignore[index]
    share *= rule.LAST_THIRD_GAIN if mean.part == "third" else 1.0
    return share * rule.estimate_fixable_errors(mean.labelled, 1 - mean.probe)


@contextmanager
def set_constants(values: Mapping[str, float]) -> Any:
    """Give several constants other values within the context."""
    with ExitStack() as stack:
        for place, value in values.items():
            stack.enter_context(set_constant(place, value))
        yield


def fit_gains(means: Iterable[FineTunedMean]) -> dict[str, float]:
    """Return the constants, by place, whose expected gains are nearest to those of `means`.

    Least squares, weighted by the variance of each gain, with a normal prior for each constant. The width of the
    expectation is fitted afterwards.
    """
    rows = [mean for mean in means if mean.part != "other"]
    deviations = np.array([np.sqrt(mean.sampling_variance + BETWEEN_SETS_SD**2) for mean in rows])
    prior, prior_sd = np.transpose(list(FITTED.values()))

    def residuals(values: np.ndarray) -> np.ndarray:
        with set_constants(dict(zip(FITTED, (values * prior).tolist(), strict=True))):
            errors = np.array([expect_gain(mean) - mean.gain for mean in rows]) / deviations
        return np.append(errors, (values - 1) * prior / prior_sd)

    found = least_squares(residuals, np.ones(len(prior)), bounds=(0.0, np.inf))
    fit = dict(zip(FITTED, (found.x * prior).tolist(), strict=True))
    with set_constants(fit):
        return fit | {WIDTH: fit_width(rows)}


def fit_width(means: Sequence[FineTunedMean]) -> float:
    """Return the width under which the gains of `means` are most likely, by expectations under the present constants.

    The distance of a gain from its expectation is normal, with the variance of test images and that of the width.
    """
    distances = np.array([mean.gain - expect_gain(mean) for mean in means])
    sampling = np.array([mean.sampling_variance for mean in means])
    shares = np.array([rule.estimate_fixable_errors(np.inf, 1 - mean.probe) for mean in means])

    def log_likelihood(width: float) -> float:
        variance = (width * shares + rule.MIN_PRIOR_SD) ** 2 + sampling
        return -float((np.log(variance) + distances**2 / variance).sum())

    return float(max(WIDTHS, key=log_likelihood))


def measure_error(means: Sequence[FineTunedMean], expect: Callable[[FineTunedMean], float] = expect_gain) -> float:
    """Return the root mean square of expected less reached gain, in points."""
    return 100 * float(np.sqrt(fmean((expect(mean) - mean.gain) ** 2 for mean in means)))


def leave_one_out(means: Sequence[FineTunedMean], name: str) -> dict[str, dict[str, float]]:
    """Return for each network or set (`name` is the field) the constants fitted to all others."""
    groups = dict.fromkeys(getattr(mean, name) for mean in means)
    return {group: fit_gains(mean for mean in means if getattr(mean, name) != group) for group in groups}


def fit_text(means: Sequence[FineTunedMean]) -> str:
    """Return a table: the constants as they are, fitted to all rows, and to all but a network or a set.

    Errors of the expected gain are those on the rows left out: if nothing is expected, with the constants as they are,
    and with the fit to the others.
    """
    rows = [mean for mean in means if mean.part != "other"]
    fits = [("none", "backbone", fit_gains(rows))]
    fits += [(group, name, fit) for name in ("backbone", "images") for group, fit in leave_one_out(rows, name).items()]
    places = [*FITTED, WIDTH]
    cells = [["as it is", "", *(f"{read_value(place):.2f}" for place in places)] + [""] * 4]
    for group, name, fit in fits:
        left = [mean for mean in rows if group in ("none", getattr(mean, name))]
        with set_constants(fit):
            fitted = measure_error(left)
        errors = [measure_error(left, lambda _: 0.0), measure_error(left), fitted]
        bias = 100 * fmean(expect_gain(mean) - mean.gain for mean in left)
        numbers = [f"{value:.2f}" for value in [*fit.values(), *errors]]
        cells.append([group, str(len(left)), *numbers, f"{bias:+.2f}"])
    names = [place.partition(":")[2] for place in places]
    return text_table(["left out", "rows", *names, "error, 0 expected", "as it is", "fitted", "bias as it is"], cells)
