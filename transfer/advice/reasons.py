"""Explain in sentences why a policy is advised."""

from collections.abc import Iterator

from transfer.advice.evidence import MIN_CHECKING_ACCURACY, AdviceEvidence
from transfer.advice.requirements import (
    HEAD2TOE,
    LINEAR_PROBE,
    MIN_FINE_TUNING_GAIN,
    STAGE_PROBES,
    RatedPolicy,
    RunRequirements,
    compute_required_lead,
    format_duration,
)
from transfer.advice.transferability.size import MIN_CLASS_IMAGES, MIN_LARGE_IMAGES, MIN_LARGE_IMAGES_PER_CLASS
from transfer.freeze import FreezePolicy

# Reporting thresholds:
MIN_IMBALANCE = 5.0  # images of the commonest class over those of the rarest
MIN_SUSPECT_SHARE = 0.03  # wrong labels, and near-duplicates, as a share of the images
MIN_REPORTED_GAIN = 0.0005  # 0.05 percentage points of accuracy
KIND_TEXTS = {
    "similar": "similar to the pretraining data",
    "between": "neither similar to the pretraining data nor very different from it",
    "different": "different from the pretraining data",
}


def explain_advice(
    evidence: AdviceEvidence,
    size: str,
    ranked: tuple[RatedPolicy, ...],
    frozen: RatedPolicy,
    requirements: RunRequirements,
) -> Iterator[str]:
    """Yield the reasons for advising the first of `ranked`.

    Parameters
    ----------
    frozen : RatedPolicy
        The best policy without fine-tuning.
    """
    yield from _explain_size(evidence, size, requirements)
    yield from _explain_similarity(evidence)
    yield from _explain_measurements(evidence, requirements.solves_heads)
    yield from _explain_loss(evidence, ranked[0])
    yield from _explain_choice(ranked, frozen, evidence.size.labelled)
    if options := requirements.fine_tuning_options:
        yield f"only fine-tuning is advised, because {', '.join(options)} would have no effect on a frozen backbone"
    yield from _explain_labels(evidence, requirements.balanced)


def _explain_size(evidence: AdviceEvidence, size: str, requirements: RunRequirements) -> Iterator[str]:
    facts = evidence.size
    yield (
        f"{size}: {facts.labelled} labelled training images of {facts.classes} classes, {facts.median:g} in the median "
        f"class; {requirements.test_images} of {requirements.images} images are reserved for testing (a set is large "
        f"from {MIN_LARGE_IMAGES} images and {MIN_LARGE_IMAGES_PER_CLASS} per class on)"
    )
    sampled = len(evidence.labels)
    if sampled < facts.labelled:
        yield (
            f"cross-validated on a sample of {sampled} images to save time; by its learning curve, a probe of all "
            f"{facts.labelled} makes {evidence.remaining_errors:.0%} of the errors (included in expected accuracies)"
        )


def _explain_similarity(evidence: AdviceEvidence) -> Iterator[str]:
    similarity, neighbours = evidence.similarity, evidence.neighbours
    facts = []
    if similarity.distance:
        distance = list(similarity.distance.values())[-1]
        facts.append(f"last-layer statistics differ from pretraining by {distance:.2f} nats (KL divergence)")
    if similarity.informed is not None:
        facts.append(
            f"mutual information between image and predicted original class is {similarity.informed:.0%} of the maximum"
        )
    if similarity.outdone:
        last = list(neighbours)[-1]
        facts.append(
            f"features of {similarity.outdone} separate the classes better than the last ones (nearest neighbours: "
            f"{neighbours[similarity.outdone]:.1%} and {neighbours[last]:.1%} correct), unlike on similar images"
        )
    if similarity.pretraining:
        claim = f"similarity is not measured: the network was {similarity.pretraining}, and the scale is of networks "
        yield "; ".join([claim + "pretrained on photographs", *facts])
    elif similarity.known:
        yield f"{KIND_TEXTS[similarity.kind]}: {'; '.join(facts)}"
    else:
        yield "; ".join(["similarity to the pretraining data is unknown: the network has no measure of it", *facts])


def _explain_measurements(evidence: AdviceEvidence, solves_heads: bool) -> Iterator[str]:
    probes = evidence.probes
    linear, stacked, mean = (probes[policy].accuracy for policy in (LINEAR_PROBE, HEAD2TOE, STAGE_PROBES))
    truncated = max(
        (policy for policy in probes if FreezePolicy.parse(policy).dropped),
        key=lambda policy: probes[policy].accuracy,
        default="",
    )
    yield (
        f"cross-validated accuracy: linear probe {linear:.1%}, features of all stages {stacked:.1%}"
        + (f", an earlier stage {probes[truncated].accuracy:.1%} ({truncated})" if truncated else "")
        + f", the mean of the best of these {mean:.1%}; always predicting the commonest class gives "
        f"{evidence.majority_share:.1%}"
    )
    if not evidence.predicts_labels:
        yield (
            "no probe is significantly better than always predicting the commonest class: this network's frozen "
            "features hardly predict the labels, or the images are too few to tell; wrong labels cannot be found"
        )
    elif not evidence.can_check_labels:
        least = f"{MIN_CHECKING_ACCURACY:.0%}"
        yield f"the probes are wrong too often to check labels (below {least} correct): none is suspected"
    if not solves_heads:
        yield "all were measured with solved linear heads; yours are trained, and may be better or worse"


def _explain_loss(evidence: AdviceEvidence, best: RatedPolicy) -> Iterator[str]:
    probe, chosen = evidence.probes[LINEAR_PROBE], evidence.probes.get(best.policy)
    if chosen and probe.accuracy - chosen.accuracy > MIN_REPORTED_GAIN and chosen.loss < probe.loss:
        yield (
            f"{best.policy} is correct less often than the linear probe on held-out images, but has the lower loss "
            f"({chosen.loss:.2f} against {probe.loss:.2f} nats), which counts for more: the accuracies of similar "
            "policies differ by few images"
        )


def _explain_choice(ranked: tuple[RatedPolicy, ...], frozen: RatedPolicy, images: int) -> Iterator[str]:
    best = ranked[0]
    leader = max((c for c in ranked if c.measured), key=lambda c: c.accuracy)
    if best.measured and leader.accuracy - best.accuracy > MIN_REPORTED_GAIN:
        yield (
            f"{leader.policy} seems better than {best.policy} by {100 * (leader.accuracy - best.accuracy):.1f} points, "
            "which is within chance: the mean of several probes is never far from the best of them"
        )
    fine_tuned = max((c for c in ranked if not c.measured), key=lambda c: c.accuracy)
    gain = fine_tuned.accuracy - frozen.accuracy
    verb, than = ("gain", "over") if gain >= 0 else ("lose", "against")
    text = (
        f"fine-tuning ({fine_tuned.policy}) is expected to {verb} {100 * abs(gain):.1f} points {than} "
        f"{frozen.policy}, with {fine_tuned.trained:,} parameters trained on {images} images in "
        f"{format_duration(fine_tuned.seconds)}"
    )
    required = compute_required_lead(fine_tuned, frozen)
    if best.measured and gain > MIN_FINE_TUNING_GAIN:
        text += f"; that is less than {100 * required:.1f} points, the uncertainty of this expectation"
    elif best.measured and gain > MIN_REPORTED_GAIN:
        text += f"; less than {100 * MIN_FINE_TUNING_GAIN:g} points are not worth the time"
    yield text


def _explain_labels(evidence: AdviceEvidence, balanced: bool) -> Iterator[str]:
    facts, noise = evidence.size, evidence.noise
    if facts.copies or facts.near_copies:
        inflates = facts.near_copies >= MIN_SUSPECT_SHARE * facts.images and not evidence.near_together
        yield f"duplicates: {facts.copies}, near-duplicates: {facts.near_copies}" + (
            "; they inflate the cross-validated accuracy: see --keep-near-duplicates-together" if inflates else ""
        )
    if facts.imbalance >= MIN_IMBALANCE and not balanced:
        yield f"the commonest class has {facts.imbalance:.0f} times the images of the rarest: consider --balance loss"
    if noise.share >= MIN_SUSPECT_SHARE:
        text = f"{noise.count} of {len(evidence.labels)} labels look wrong or ambiguous to this network's probes"
        yield text + ("" if len(noise.suspects) else ", none of them clearly enough to name it")
    if facts.small_classes:
        yield (
            f"classes with fewer than {MIN_CLASS_IMAGES} images: {len(facts.small_classes)}; more images of them would "
            "help most"
        )
