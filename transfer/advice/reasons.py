"""Why a policy is advised, in sentences."""

from collections.abc import Iterator

from transfer.advice.candidate import WORTH, Candidate, lasting
from transfer.advice.evidence import Evidence
from transfer.advice.requirements import Asked
from transfer.advice.transferability.size import EACH, LARGE

IMBALANCED, SHARE, SAID = 5.0, 0.03, 0.0005  # from which on imbalance, noise and copies, a difference are worth a word
WORDS = {
    "similar": "similar to",
    "between": "neither similar to nor wholly different from",
    "different": "different from",
}


def reasons(
    evidence: Evidence, size: str, ranked: tuple[Candidate, ...], frozen: Candidate, asked: Asked
) -> Iterator[str]:
    """Yield why the first of `ranked` is advised.

    Parameters
    ----------
    frozen : Candidate
        What is advised if nothing is to be fine-tuned.
    """
    yield from _size(evidence, size, asked)
    yield from _similarity(evidence)
    yield from _measured(evidence, asked.solved)
    yield from _choice(ranked, frozen, evidence.size.labelled)
    if asked.learns:
        yield f"a backbone that stays frozen is no choice, as it knows nothing of {', '.join(asked.learns)}"
    yield from _labels(evidence, asked.balanced)


def _size(evidence: Evidence, size: str, asked: Asked) -> Iterator[str]:
    facts = evidence.size
    yield (
        f"{size}: of {asked.total} images {asked.tested} are kept for testing, {facts.labelled} are labelled to learn "
        f"from, of {facts.classes} classes, {facts.median:g} of the median class (large: from {LARGE} and {EACH} on)"
    )
    judged = len(evidence.labels)
    if judged < facts.labelled:
        yield (
            f"cross-validated on {judged} of these, to save time; by its learning curve a probe of all "
            f"{facts.labelled} makes {evidence.left:.0%} of the errors, and what is expected allows for that"
        )


def _similarity(evidence: Evidence) -> Iterator[str]:
    alike, near = evidence.similarity, evidence.neighbours
    said = []
    if alike.distance:
        said.append(f"its last norm sees them {list(alike.distance.values())[-1]:.2f} nats from what it was given then")
    if alike.informed is not None:
        said.append(f"an image tells {alike.informed:.0%} of which of the original classes are answered")
    if alike.outdone:
        last = list(near)[-1]
        said.append(
            f"features of {alike.outdone} tell them apart better than the last ones (nearest neighbours right: "
            f"{near[alike.outdone]:.1%}, {near[last]:.1%}), as they would not if they were similar"
        )
    if alike.known:
        yield f"{WORDS[alike.kind]} what the network was pretrained on: {'; '.join(said)}"
    else:
        yield "; ".join(["nothing in the network tells how similar they are to what it was pretrained on", *said])


def _measured(evidence: Evidence, solved: bool) -> Iterator[str]:
    probes = evidence.probes
    top, every, mean = (probes[policy].accuracy for policy in ("linear_probe", "head2toe", "stage_probes"))
    short = max((p for p in probes if p.startswith("truncate")), key=lambda p: probes[p].accuracy, default="")
    yield (
        f"right on images that it has not seen: a linear probe {top:.1%}, on features of all stages {every:.1%}"
        + (f", of an earlier stage {probes[short].accuracy:.1%} ({short})" if short else "")
        + f", the mean of the best of these {mean:.1%}; always the commonest class {evidence.commonest:.1%}"
    )
    if not evidence.told:
        yield (
            "not surely better than always the commonest class: frozen features of this network hardly tell these "
            "labels, or the images are too few to say; nor can be said which labels look wrong"
        )
    if not solved:
        yield "all measured with linear heads that are solved; yours are trained otherwise, and may be better or worse"


def _choice(ranked: tuple[Candidate, ...], frozen: Candidate, images: int) -> Iterator[str]:
    best = ranked[0]
    ahead = max((c for c in ranked if c.measured), key=lambda c: c.accuracy)
    if best.measured and ahead.accuracy - best.accuracy > SAID:
        yield (
            f"{ahead.policy} seems better than {best.policy} by {100 * (ahead.accuracy - best.accuracy):.1f} points, "
            "which may well be chance: the mean of several is never far from the best of them"
        )
    learnt = max((c for c in ranked if not c.measured), key=lambda c: c.accuracy)
    gain = learnt.accuracy - frozen.accuracy
    yield (
        f"fine-tuning ({learnt.policy}) is expected to have {100 * gain:+.1f} points beside {frozen.policy}, with "
        f"{learnt.trained:,} parameters to learn from {images} images, and to take {lasting(learnt.seconds)}"
        + (f"; fewer than {100 * WORTH:g} are not worth that" if best.measured and gain > SAID else "")
    )


def _labels(evidence: Evidence, balanced: bool) -> Iterator[str]:
    facts, noise = evidence.size, evidence.noise
    if facts.copies or facts.near_copies:
        flatters = facts.near_copies >= SHARE * facts.images and not evidence.near_together
        yield (
            f"copies of other images: {facts.copies}, near copies: {facts.near_copies}; there is less than it seems"
            + (", and it flatters what is measured: see --keep-near-duplicates-together" if flatters else "")
        )
    if facts.imbalance >= IMBALANCED and not balanced:
        yield f"the commonest class has {facts.imbalance:.0f} times the images of the rarest: consider --balance loss"
    if noise.share >= SHARE:
        yield f"{noise.count} of {len(evidence.labels)} labels look wrong or ambiguous: see the suspects"
    if facts.small_classes:
        yield f"classes with fewer than 5 images: {len(facts.small_classes)}; more of these would help most"
