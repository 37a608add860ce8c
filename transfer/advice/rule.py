"""From evidence to advice, in pure functions, as BiT's HyperRule goes by data set size (Kolesnikov et al. 2020).

Policies with a frozen backbone are measured by cross-validation. Fine-tuning is expected from the number of images,
their similarity to the pretraining data and the errors of a linear probe. Expectations start from the four classical
cases: small and similar, train the last linear layer; small and different, also use features of earlier stages; large
and similar, fine-tune the last stages; large and different, fine-tune all. Each measurement then counts by its
precision: little with thirty images, nearly alone with thousands (the mean of a normal prior and a normal likelihood).
The best of several estimates is in part the luckiest: unless a policy leads clearly, the mean of several probes is
advised.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf, sqrt
from typing import Literal

import numpy as np

from transfer.advice.costs import TrainingCosts, count_last_third
from transfer.advice.evidence import AdviceEvidence
from transfer.advice.reasons import explain_advice
from transfer.advice.requirements import (
    FINE_TUNING,
    HEAD2TOE,
    LINEAR_PROBE,
    STAGE_PROBES,
    NetworkLayout,
    RatedPolicy,
    RunRequirements,
    compute_required_lead,
)
from transfer.advice.similarity import Kind
from transfer.advice.transferability.crossval import CrossValidation
from transfer.advice.transferability.size import classify_size
from transfer.freeze import FreezePolicy
from transfer.heads.metrics import Z_95, wilson_interval

# Expected reductions, as a share of the linear probe's errors. Fitted to 278 simulated samples: see README.md.
EXPECTED_REDUCTION: dict[str, dict[Kind, float]] = {
    HEAD2TOE: {"similar": 0.0, "between": 0.08, "different": 0.20},
    STAGE_PROBES: {"similar": 0.0, "between": 0.05, "different": 0.05},
}
REDUCTION_WITHOUT_LAYERS = -0.40  # if all layers were dropped; for fewer, in proportion
# Share of the fixable errors (see `estimate_fixable_errors`) that fine-tuning all stages fixes. Fitted to altered
# versions of Office-31's amazon and of flowers: see README.md.
FINE_TUNING_GAIN: dict[Kind, float] = {"similar": 0.20, "between": 0.50, "different": 0.50}
LAST_THIRD_GAIN = 0.6  # share of that gain if only the last third of the stages is fine-tuned
UNNORMALISED_GAIN = 0.5  # share of that gain for a network without normalisation layers
# Standard deviations between data sets: of the reductions of policies that are then measured; and of fine-tuning, as a
# share of the errors that any number of images could fix. With few images the gain is small but no more certain.
PRIOR_SD_MEASURED, PRIOR_SD_FINE_TUNING = 0.30, 0.10
MIN_PRIOR_SD = 0.003  # of an expected accuracy, 0.3 percentage points
LOSS_WEIGHT = 0.75  # of the measured gain, by loss; the rest by accuracy, which moves in steps of one image
HALF_FIXABLE_IMAGES = 300  # with as many images fine-tuning reaches half of the fixable errors
MAX_CHANCE_SD = 4.0  # standard deviations of a measurement that chance explains
MIN_LEAD_OVER_STAGE_PROBES = 0.005  # 0.5 percentage points: a single probe must lead the mean by more
FINE_TUNING_STEPS, FINE_TUNING_BATCH = 400, 32  # about as many steps, of as many images
MIN_EPOCHS, MAX_EPOCHS = 6, 60


@dataclass(frozen=True)
class Advice:
    """The advised policy, the alternatives and the reasons."""

    size: Literal["small", "large"]
    known: bool  # whether the network has a measure of similarity
    kind: Kind  # similarity of the images to the pretraining data
    best: RatedPolicy
    runner_up: RatedPolicy
    settings: dict[str, object]  # options of `transfer train` for the advised policy, by name
    ranked: tuple[RatedPolicy, ...]  # all, best first
    reasons: tuple[str, ...]  # sentences

    @property
    def case(self) -> str:
        """Which of the four cases it is, in words."""
        kind = "between similar and different" if self.kind == "between" else self.kind
        return f"{self.size} and {kind if self.known else 'of unknown similarity'}"


def derive_advice(
    evidence: AdviceEvidence, costs: TrainingCosts, network: NetworkLayout, requirements: RunRequirements
) -> Advice:
    """Return the advice that follows from `evidence` for a run with these `requirements`."""
    ranked, frozen = rank_policies(rate_policies(evidence, costs, network, requirements), requirements)
    size = classify_size(evidence.size.labelled, evidence.size.median)
    return Advice(
        size,
        evidence.similarity.known,
        evidence.similarity.kind,
        ranked[0],
        ranked[1],
        make_train_settings(ranked[0]),
        ranked,
        tuple(explain_advice(evidence, size, ranked, frozen, requirements)),
    )


def rank_policies(
    rated: Iterable[RatedPolicy], requirements: RunRequirements
) -> tuple[tuple[RatedPolicy, ...], RatedPolicy]:
    """Return the policies that a run can use, the advised one first, and the best one without fine-tuning."""
    possible = (c for c in rated if requirements.solves_heads or not FreezePolicy.parse(c.policy).all_stages)
    ranked = sorted(possible, key=lambda c: c.accuracy, reverse=True)
    frozen = prefer_stage_probes(next(c for c in ranked if c.measured), ranked)
    fine_tuned = next(c for c in ranked if not c.measured)
    lead = fine_tuned.accuracy - frozen.accuracy
    leads = fine_tuned is ranked[0] and lead > compute_required_lead(fine_tuned, frozen)
    best = fine_tuned if requirements.fine_tuning_options or leads else frozen
    ranked.remove(best)
    return (best, *ranked), frozen


def prefer_stage_probes(best: RatedPolicy, others: Iterable[RatedPolicy]) -> RatedPolicy:
    """Return `best`, or the mean of several probes among `others` unless `best` leads it clearly."""
    mean = {c.policy: c for c in others}.get(STAGE_PROBES, best)
    return best if best.accuracy - mean.accuracy > MIN_LEAD_OVER_STAGE_PROBES else mean


def make_train_settings(candidate: RatedPolicy) -> dict[str, object]:
    """Return the options of `transfer train` for a policy, by name."""
    return {"policy": candidate.policy} | (make_fine_tuning_settings(candidate.epochs) if candidate.epochs else {})


def make_fine_tuning_settings(epochs: int) -> dict[str, object]:
    """Return settings that suit every policy that trains the backbone, by config field."""
    return {"epochs": epochs, "batch_size": FINE_TUNING_BATCH, "refit": True}


def choose_epochs(images: int) -> int:
    """Return the number of epochs that makes about ``FINE_TUNING_STEPS`` steps, within bounds.

    Examples
    --------
    >>> choose_epochs(30), choose_epochs(720), choose_epochs(100_000)
    (60, 18, 6)
    """
    return int(np.clip(round(FINE_TUNING_STEPS * FINE_TUNING_BATCH / images), MIN_EPOCHS, MAX_EPOCHS))


def rate_policies(
    evidence: AdviceEvidence, costs: TrainingCosts, network: NetworkLayout, requirements: RunRequirements
) -> list[RatedPolicy]:
    """Return every policy with its expected accuracy and its costs."""
    seconds = requirements.frozen_passes * costs.look
    heads_seconds = requirements.uncached_epochs * (evidence.size.labelled * costs.look)
    measured = [
        _rate_probe(policy, probe, evidence, network, seconds + heads_seconds)
        for policy, probe in evidence.probes.items()
    ]
    frozen = max(measured, key=lambda c: c.accuracy)
    return [*measured, *_rate_fine_tuning(frozen, evidence, costs, network, requirements)]


def _rate_probe(
    policy: str, measured: CrossValidation, evidence: AdviceEvidence, network: NetworkLayout, seconds: float
) -> RatedPolicy:
    """Return a policy with a frozen backbone, rated by prior expectation and cross-validation."""
    probe, remaining, widths = evidence.probes[LINEAR_PROBE], evidence.remaining_errors, evidence.widths
    facts, error, stages = FreezePolicy.parse(policy), 1 - probe.accuracy, len(network.parameters)
    reduction = EXPECTED_REDUCTION.get(policy, {}).get(evidence.similarity.kind, 0.0)
    if facts.dropped:
        reduction = REDUCTION_WITHOUT_LAYERS
        reduction *= sum(network.layers[stages - facts.dropped :]) / sum(network.layers)
    counted, sd = measure_gain(*(p.predictions == evidence.labels for p in (measured, probe)))
    gain = (1 - LOSS_WEIGHT) * counted + LOSS_WEIGHT * error * (1 - measured.loss / probe.loss)
    gain, sd = combine_normals(reduction * error, PRIOR_SD_MEASURED * error + MIN_PRIOR_SD, gain, sd)
    # Deviation of the probe's own accuracy: not zero where it made no error on a few images.
    own = max(abs(probe.accuracy - end) for end in wilson_interval(probe.accuracy, len(evidence.labels))) / Z_95
    accuracy = 1 - remaining * (1 - _clip_fraction(probe.accuracy + gain))
    extrapolated = (1 - remaining) * error / 2
    width = sum(widths) if facts.all_stages else widths[stages - 1 - facts.dropped]
    return RatedPolicy(
        policy,
        accuracy,
        sqrt(own**2 + sd**2 + extrapolated**2),
        True,
        0,
        (width + 1) * evidence.size.classes,
        0,
        seconds,
        sd,
    )


def _rate_fine_tuning(
    frozen: RatedPolicy,
    evidence: AdviceEvidence,
    costs: TrainingCosts,
    network: NetworkLayout,
    requirements: RunRequirements,
) -> Iterator[RatedPolicy]:
    """Yield fine-tuning of the last third of the stages and of all, rated from `frozen`, the best frozen policy."""
    n, stages = evidence.size.labelled, len(network.parameters)
    error = evidence.remaining_errors * (1 - evidence.probes[LINEAR_PROBE].accuracy)
    fixable = estimate_fixable_errors(n, error)
    gain_sd = PRIOR_SD_FINE_TUNING * estimate_fixable_errors(inf, error) + MIN_PRIOR_SD
    gain = FINE_TUNING_GAIN[evidence.similarity.kind] * (1.0 if network.normalised else UNNORMALISED_GAIN)
    for top, share in {count_last_third(stages): LAST_THIRD_GAIN * gain, stages: gain}.items():
        epochs = choose_epochs(n)
        trained = requirements.networks * sum(network.parameters[stages - top :])
        # Half of the epochs fine-tune, and refitting repeats them. The probe before also passes its uncached views.
        seconds = requirements.frozen_passes * costs.look
        seconds += epochs * n * costs.learn[top - 1] * requirements.networks
        if requirements.uncached_epochs:
            seconds += epochs * (n * costs.look) * (1 if top == stages else 2)
        yield RatedPolicy(
            f"{FINE_TUNING}:{top}" if top < stages else FINE_TUNING,
            _clip_fraction(1 - error + share * fixable),
            sqrt(frozen.sd**2 + gain_sd**2),
            False,
            trained,
            (evidence.widths[-1] + 1) * evidence.size.classes,
            epochs,
            seconds,
            gain_sd,
        )


def estimate_fixable_errors(images: float, error: float) -> float:
    """Return the part of a probe's `error` that fine-tuning on `images` can fix: half with ``HALF_FIXABLE_IMAGES``.

    The more errors a probe makes, the more of them no feature can fix: the share falls with its accuracy, squared.

    Examples
    --------
    >>> estimate_fixable_errors(300, 0.0), estimate_fixable_errors(300, 0.5)
    (0.0, 0.0625)
    >>> round(estimate_fixable_errors(10**9, 0.1), 3)
    0.081
    """
    return (1 - error) ** 2 * error / (1 + HALF_FIXABLE_IMAGES / images)


def measure_gain(correct: np.ndarray, baseline: np.ndarray) -> tuple[float, float]:
    """Return how much more often `correct` holds than `baseline` on the same images, and its standard deviation.

    One differing image is added: two sets of predictions that never differ are not thereby proved equally good.

    Examples
    --------
    >>> measure_gain(np.array([True, True, True, False]), np.array([True, False, True, False]))
    (0.25, 0.3535533905932738)
    """
    differing = int((correct != baseline).sum())
    return float(correct.mean() - baseline.mean()), sqrt(differing + 1) / len(correct)


def combine_normals(expected: float, expected_sd: float, measured: float, measured_sd: float) -> tuple[float, float]:
    """Return mean and standard deviation of the posterior of a normal prior and a normal measurement.

    Where chance does not explain their distance, the prior is doubted: its deviation is then at least the distance
    beyond ``MAX_CHANCE_SD`` deviations of the measurement.

    Examples
    --------
    >>> combine_normals(0.0, 1.0, 1.0, 1.0)[0], combine_normals(0.0, 1e-6, 1.0, 1.0)[0] < 1e-6
    (0.5, True)
    >>> round(combine_normals(0.0, 0.1, 1.0, 0.01)[0], 3)
    1.0
    """
    expected_sd = max(expected_sd, abs(measured - expected) - MAX_CHANCE_SD * measured_sd)
    weight = expected_sd**2 / (expected_sd**2 + measured_sd**2)
    return expected + weight * (measured - expected), sqrt(weight) * measured_sd


def _clip_fraction(value: float) -> float:
    return min(max(value, 0.0), 1.0)
