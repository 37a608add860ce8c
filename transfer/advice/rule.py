"""From evidence to advice: pure functions, as the HyperRule of BiT is one of size (Kolesnikov et al. 2020).

What stays frozen is measured, by cross-validation; what learns is expected, from how many images there are, how similar
they are and what a probe gets right. The classical four cases are where expectations start: small and similar, train
the last linear layer; small and different, train from features of earlier stages too; large and similar, fine-tune the
last stages; large and different, fine-tune all. Each measurement is then worth as much as it is sure: with thirty
images next to nothing, with thousands nearly all (the mean of a normal prior and a normal likelihood). What is then not
well ahead of the mean of several probes gives way to it: the best of many estimates is in part the luckiest.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np

from transfer.advice.candidate import AHEAD, WORTH, Candidate
from transfer.advice.costs import Costs, third
from transfer.advice.estimate import gained, mendable, posterior
from transfer.advice.evidence import Evidence
from transfer.advice.network import Network
from transfer.advice.reasons import reasons
from transfer.advice.requirements import Asked
from transfer.advice.similarity import Kind
from transfer.advice.transferability.size import scale
from transfer.freeze import FreezePolicy
from transfer.heads.metrics import Z_95, wilson_interval

EXPECTED: dict[str, dict[Kind, float]] = {
    # Share of the linear probe's errors that a policy is expected to mend.
    "head2toe": {"similar": 0.0, "between": 0.08, "different": 0.20},
    "stage_probes": {"similar": 0.0, "between": 0.05, "different": 0.05},
    # If all layers were dropped; of fewer, their share.
    "truncate": {"similar": -0.40, "between": -0.40, "different": -0.40},
    # The same with very many images, if the probe is nearly always right (see `mendable`) and the network has norms.
    "lp_ft": {"similar": 0.20, "between": 0.50, "different": 0.50},
}
OF_TOP, UNNORMED = 0.6, 0.5  # of that: what a last third that learns mends, and what a network without norms does
UNMEASURED, UNSURE = 0.30, 0.25  # standard deviations of these shares: of what is then measured, and of what is not
OF_LOSS = 0.75  # of what is measured: errors are counted in whole images, the loss is not
FLOOR = 0.003  # of an expectation of accuracy: what chance does to the best estimate
STEPS, BATCH = 400, 32


@dataclass(frozen=True)
class Advice:
    """What to do, and why.

    Parameters
    ----------
    size : {"small", "large"}
    known : bool
        Whether the network tells how similar the images are.
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
    known: bool
    kind: Kind
    best: Candidate
    runner_up: Candidate
    settings: dict[str, object]
    ranked: tuple[Candidate, ...]
    reasons: tuple[str, ...]

    @property
    def case(self) -> str:
        """Which of the four cases it is, in words."""
        return f"{self.size} and {self.kind if self.known else 'of unknown similarity'}"


def advise(evidence: Evidence, costs: Costs, network: Network, asked: Asked) -> Advice:
    """Return the advice that follows from `evidence` for a run as it is `asked` for."""
    every = candidates(evidence, costs, network, asked)
    possible = (c for c in every if asked.solved or not FreezePolicy.parse(c.policy).every_stage)
    ranked = sorted(possible, key=lambda c: c.accuracy, reverse=True)
    frozen = steady(next(c for c in ranked if c.measured), ranked)
    learnt = next(c for c in ranked if not c.measured)
    if asked.learns:
        best = learnt
    else:
        best = learnt if learnt is ranked[0] and learnt.accuracy - frozen.accuracy > WORTH else frozen
    ranked.remove(best)
    size = scale(evidence.size.labelled, evidence.size.median)
    return Advice(
        size,
        evidence.similarity.known,
        evidence.similarity.kind,
        best,
        ranked[0],
        settings(best),
        (best, *ranked),
        tuple(reasons(evidence, size, (best, *ranked), frozen, asked)),
    )


def steady(best: Candidate, others: Iterable[Candidate]) -> Candidate:
    """Return the best of what was measured, or the mean of several probes where that is about as good."""
    mean = next((c for c in others if c.policy == "stage_probes"), best)
    return best if best.accuracy - mean.accuracy > AHEAD else mean


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


def candidates(evidence: Evidence, costs: Costs, network: Network, asked: Asked) -> list[Candidate]:
    """Return every policy with what is to be expected of it."""
    n, kind, stages = evidence.size.labelled, evidence.similarity.kind, len(network.parameters)
    probe = evidence.probes["linear_probe"]
    judged = len(evidence.labels)
    error, left, widths = 1 - probe.accuracy, evidence.left, evidence.widths
    found = []
    look, again = asked.looks * costs.look, n * costs.look
    for policy, measured in evidence.probes.items():
        name, _, dropped = policy.partition(":")
        share = EXPECTED.get(name, {}).get(kind, 0.0)
        share *= sum(network.layers[stages - int(dropped) :]) / sum(network.layers) if dropped else 1.0
        right, before = (some.predictions == evidence.labels for some in (measured, probe))
        counted, sd = gained(right, before)
        told = (1 - OF_LOSS) * counted + OF_LOSS * error * (1 - measured.loss / probe.loss)
        gain, sd = posterior(share * error, UNMEASURED * error + FLOOR, told, sd)
        # Of the probe's own accuracy: not nothing where none of a few images was wrong.
        own = max(abs(probe.accuracy - end) for end in wilson_interval(probe.accuracy, judged)) / Z_95
        accuracy, extrapolated = 1 - left * (1 - _share(probe.accuracy + gain)), (1 - left) * error / 2
        sd = sqrt(own**2 + sd**2 + extrapolated**2)
        width = sum(widths) if FreezePolicy.parse(policy).every_stage else widths[stages - 1 - int(dropped or 0)]
        heads, seconds = (width + 1) * evidence.size.classes, look + asked.fresh * again
        found.append(Candidate(policy, accuracy, sd, True, 0, heads, 0, seconds))
    frozen, reach = max(found, key=lambda c: c.accuracy), mendable(n, left * error)
    whole = EXPECTED["lp_ft"][kind] * (1.0 if network.normed else UNNORMED)
    for top, share in {third(stages): OF_TOP * whole, stages: whole}.items():
        epochs = epochs_for(n)
        trained = asked.networks * sum(network.parameters[stages - top :])
        # Half of the epochs fine-tune, twice, to refit; fresh views of the first half, too, are looked at.
        seconds = look + epochs * n * costs.learn[top - 1] * asked.networks
        if asked.fresh:
            seconds += epochs * again * (1 if top == stages else 2)
        policy = f"lp_ft:{top}" if top < stages else "lp_ft"
        sd = sqrt(frozen.sd**2 + (UNSURE * reach + FLOOR) ** 2)
        accuracy = _share(1 - left * error + share * reach)
        heads = (widths[-1] + 1) * evidence.size.classes
        found.append(Candidate(policy, accuracy, sd, False, trained, heads, epochs, seconds))
    return found


def _share(value: float) -> float:
    return min(max(value, 0.0), 1.0)
