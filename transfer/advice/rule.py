"""From evidence to advice: pure functions, as the HyperRule of BiT is one of size (Kolesnikov et al. 2020).

What stays frozen is measured, by cross-validation; what learns is expected, from how many images there are, how similar
they are and what a probe gets right. The classical four cases are where expectations start: small and similar, train
the last linear layer; small and different, train from features of earlier stages too; large and similar, fine-tune the
last stages; large and different, fine-tune all. Each measurement is then worth as much as it is sure: with thirty
images next to nothing, with thousands nearly all (the mean of a normal prior and a normal likelihood). What is then not
well ahead of the mean of several probes gives way to it: the best of many estimates is in part the luckiest.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np

from transfer.advice.costs import Costs, third
from transfer.advice.estimate import gained, mendable, posterior
from transfer.advice.evidence import Evidence
from transfer.advice.similarity import Kind
from transfer.freeze import FreezePolicy
from transfer.measure.share import NORMAL, wilson

LARGE, EACH = 1000, 20  # images in all, and of a class in the median, from which on a set is large
EXPECTED: dict[str, dict[Kind, float]] = {
    # Share of the linear probe's errors that a policy is expected to mend.
    "head2toe": {"similar": 0.0, "between": 0.08, "different": 0.20},
    "stage_probes": {"similar": 0.0, "between": 0.05, "different": 0.05},
    # If all layers were dropped; of fewer, their share.
    "truncate": {"similar": -0.40, "between": -0.40, "different": -0.40},
    # The same with very many images, if the probe is nearly always right; see `mendable`.
    "lp_ft:top": {"similar": 0.10, "between": 0.25, "different": 0.35},
    "lp_ft": {"similar": 0.10, "between": 0.45, "different": 0.45},
}
UNMEASURED, UNSURE = 0.30, 0.25  # standard deviations of these shares: of what is then measured, and of what is not
OF_LOSS = 0.75  # of what is measured: errors are counted in whole images, the loss is not
FLOOR = 0.003  # of an expectation of accuracy: what chance does to the best estimate
WORTH = 0.005  # what fine-tuning must be expected to add to be worth its time
AHEAD = 0.005  # what a policy must be expected to be better by than the mean of several, not to give way to it
STEPS, BATCH = 400, 32
IMBALANCED, NOISY, SAID = 5.0, 0.03, 0.0005  # from which on imbalance, noise and a difference are worth a word
WORDS = {
    "similar": "similar to",
    "between": "neither similar to nor wholly different from",
    "different": "different from",
}


@dataclass(frozen=True)
class Candidate:
    """A policy, and what is to be expected of it.

    Parameters
    ----------
    accuracy, sd : float
        Of the objects of new images, as a fraction, and its standard deviation.
    measured : bool
        By cross-validation, rather than expected from other sets.
    trained : int
        Parameters of the backbone that learn.
    epochs : int
        0 where all is solved.
    seconds : float
        Here, with one seed.
    """

    policy: str
    accuracy: float
    sd: float
    measured: bool
    trained: int
    epochs: int
    seconds: float

    @property
    def interval(self) -> tuple[float, float]:
        """The middle 95 %."""
        return max(self.accuracy - NORMAL * self.sd, 0.0), min(self.accuracy + NORMAL * self.sd, 1.0)


@dataclass(frozen=True)
class Advice:
    """What to do, and why.

    Parameters
    ----------
    size : {"small", "large"}
    kind : {"similar", "between", "different"}
    best, runner_up : Candidate
    settings : dict
        Of the advised run, by their names on the command line.
    ranked : tuple of Candidate
        All, best first.
    reasons : tuple of str
        In plain words.
    """

    size: Literal["small", "large"]
    kind: Kind
    best: Candidate
    runner_up: Candidate
    settings: dict[str, object]
    ranked: tuple[Candidate, ...]
    reasons: tuple[str, ...]


def advise(
    evidence: Evidence,
    costs: Costs,
    parameters: tuple[int, ...],
    layers: tuple[int, ...],
    looks: int,
    solved: bool = True,
) -> Advice:
    """Return the advice that follows from `evidence`.

    Parameters
    ----------
    parameters, layers : tuple of int
        Of each stage of the backbone, lowest first; layers with weights are meant.
    looks : int
        Images that the frozen network has not been run over yet.
    solved : bool
        Whether heads can be solved, which those on the features of all stages must be.
    """
    every = candidates(evidence, costs, parameters, layers, looks)
    ranked = sorted(
        (c for c in every if solved or not FreezePolicy.parse(c.policy).every_stage),
        key=lambda c: c.accuracy,
        reverse=True,
    )
    frozen = next(c for c in ranked if c.measured)
    best = ranked[0] if ranked[0].accuracy - frozen.accuracy > WORTH else steady(frozen, ranked)
    ranked.remove(best)
    size = scale(evidence.size.labelled, evidence.size.median)
    return Advice(
        size,
        evidence.similarity.kind,
        best,
        ranked[0],
        settings(best),
        (best, *ranked),
        tuple(reasons(evidence, size, best, ranked)),
    )


def steady(best: Candidate, others: Iterable[Candidate]) -> Candidate:
    """Return the best of what was measured, or the mean of several probes where that is about as good."""
    mean = next((c for c in others if c.policy == "stage_probes"), best)
    return best if best.accuracy - mean.accuracy > AHEAD else mean


def scale(images: int, each: float) -> Literal["small", "large"]:
    """Return whether a set of so many labelled images, and so many of the median class, is small or large.

    Examples
    --------
    >>> scale(30, 5), scale(2254, 73), scale(5000, 10)
    ('small', 'large', 'small')
    """
    return "large" if images >= LARGE and each >= EACH else "small"


def settings(candidate: Candidate) -> dict[str, object]:
    """Return how to carry a candidate out: options of `transfer train`."""
    return {"policy": candidate.policy} | (learning(candidate.epochs) if candidate.epochs else {})


def learning(epochs: int) -> dict[str, object]:
    """Return settings under which any policy with a backbone that learns does well, by their names in the config."""
    return {"epochs": epochs, "batch_size": BATCH, "refit": True}


def epochs_for(images: int) -> int:
    """Return how many epochs to learn from so many images: about ``STEPS`` batches, within bounds.

    Examples
    --------
    >>> epochs_for(30), epochs_for(720), epochs_for(100_000)
    (60, 18, 6)
    """
    return int(np.clip(round(STEPS * BATCH / images), 6, 60))


def candidates(
    evidence: Evidence, costs: Costs, parameters: tuple[int, ...], layers: tuple[int, ...], looks: int
) -> list[Candidate]:
    """Return every policy with what is to be expected of it."""
    n, kind, stages = evidence.size.labelled, evidence.similarity.kind, len(parameters)
    probe = evidence.probes["linear_probe"]
    judged = len(evidence.labels)
    error = 1 - probe.accuracy
    found = []
    look = looks * costs.look
    for policy, measured in evidence.probes.items():
        name, _, dropped = policy.partition(":")
        share = EXPECTED.get(name, {}).get(kind, 0.0)
        share *= sum(layers[stages - int(dropped) :]) / sum(layers) if dropped else 1.0
        right, before = (some.predictions == evidence.labels for some in (measured, probe))
        counted, sd = gained(right, before)
        told = (1 - OF_LOSS) * counted + OF_LOSS * error * (1 - measured.loss / probe.loss)
        gain, sd = posterior(share * error, UNMEASURED * error + FLOOR, told, sd)
        # Of the probe's own accuracy: not nothing where none of a few images was wrong.
        own = max(abs(probe.accuracy - end) for end in wilson(probe.accuracy, judged)) / NORMAL
        found.append(Candidate(policy, _share(probe.accuracy + gain), sqrt(own**2 + sd**2), True, 0, 0, look))
    frozen, reach = max(found, key=lambda c: c.accuracy), mendable(n, error)
    for top, name in {third(stages): "lp_ft:top", stages: "lp_ft"}.items():
        epochs = epochs_for(n)
        trained = sum(parameters[stages - top :])
        seconds = look + epochs * n * costs.learn[top - 1]  # half of the epochs fine-tune; twice, to refit
        policy = f"lp_ft:{top}" if top < stages else "lp_ft"
        sd = sqrt(frozen.sd**2 + (UNSURE * reach + FLOOR) ** 2)
        accuracy = _share(probe.accuracy + EXPECTED[name][kind] * reach)
        found.append(Candidate(policy, accuracy, sd, False, trained, epochs, seconds))
    return found


def reasons(evidence: Evidence, size: str, best: Candidate, others: list[Candidate]) -> Iterator[str]:
    """Yield why, in sentences."""
    facts, alike = evidence.size, evidence.similarity
    yield (
        f"{size}: {facts.labelled} labelled images of {facts.classes} classes, {facts.median:g} of the median class "
        f"(large: from {LARGE} and {EACH} on)"
    )
    said = []
    if alike.distance:
        said.append(f"its last norm sees them {list(alike.distance.values())[-1]:.2f} nats from what it was given then")
    if alike.informed is not None:
        said.append(f"an image tells {alike.informed:.0%} of which of the original classes are answered")
    yield f"{WORDS[alike.kind]} what the network was pretrained on: {'; '.join(said) or 'it keeps nothing to tell by'}"
    probes = evidence.probes
    top, every, mean = (probes[policy].accuracy for policy in ("linear_probe", "head2toe", "stage_probes"))
    short = max((p for p in probes if p.startswith("truncate")), key=lambda p: probes[p].accuracy, default="")
    yield (
        f"right on images that it has not seen: a linear probe {top:.1%}, on features of all stages {every:.1%}"
        + (f", of an earlier stage {probes[short].accuracy:.1%} ({short})" if short else "")
        + f", the mean of the best of these {mean:.1%}"
    )
    ahead = next((c for c in others if c.measured and c.accuracy - best.accuracy > SAID), None)
    if best.measured and ahead:
        yield (
            f"{ahead.policy} seems better by {ahead.accuracy - best.accuracy:.1%}, which may well be chance: "
            "the mean of several is never far from the best of them"
        )
    learnt = next(c for c in (best, *others) if not c.measured)
    frozen = next(c for c in (best, *others) if c.measured)
    yield (
        f"fine-tuning ({learnt.policy}) is expected to change that by {learnt.accuracy - frozen.accuracy:+.1%}, with "
        f"{learnt.trained:,} parameters to learn from {facts.labelled} images, and to take {learnt.seconds:.0f} s"
    )
    if facts.copies or facts.near_copies:
        yield f"copies of other images: {facts.copies}, near copies: {facts.near_copies}; there is less than it seems"
    if facts.imbalance >= IMBALANCED:
        yield f"the commonest class has {facts.imbalance:.0f} times the images of the rarest: consider --balance loss"
    if evidence.noise.share >= NOISY:
        yield f"{evidence.noise.count} of {len(evidence.labels)} labels look wrong or ambiguous: see the suspects"
    if facts.small_classes:
        yield f"classes with fewer than 5 images: {len(facts.small_classes)}; more of these would help most"


def _share(value: float) -> float:
    return min(max(value, 0.0), 1.0)
