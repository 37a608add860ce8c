"""The multi-label head: any number of labels an image."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from transfer.data.class_names import match_names
from transfer.data.label_sets.cells import MULTILABEL, format_label_set, read_label_sets
from transfer.data.table import Target
from transfer.errors import list_examples
from transfer.heads.kind import HeadKind
from transfer.heads.multilabel.metrics import DEFAULT_THRESHOLD, choose_threshold, multilabel_metrics
from transfer.heads.registry import register_head

# Of the asymmetric loss: exponents of focusing and the margin by which a negative is easy (Ridnik et al. 2021, sec. 4).
FOCUS_POSITIVE, FOCUS_NEGATIVE, MARGIN = 0.0, 4.0, 0.05


@register_head
class MultilabelHead(HeadKind):
    """Any number of labels an image: a logit (N, labels) each, with binary cross-entropy or the asymmetric loss.

    The loss of an image is the sum over the labels that are known of it, so that a solved head is an independent
    logistic regression for each label, all with one L2 value.
    """

    name = MULTILABEL
    summary = "any number of labels an image, as red|round; the default for cells with a |"
    convex = True
    logits = True
    main_score = "map"
    score_labels: ClassVar[Mapping[str, str]] = {
        "map": "mean average precision",
        "micro_f1": "micro-F1",
        "macro_f1": "macro-F1",
    }
    output_note = "the sigmoid of each output is the probability of its label"

    def read_column(self, column: str, cells: list[str], place: Callable[[int], str]) -> Target:
        """Return 1, 0 or -1 for each label; see :func:`transfer.data.label_sets.cells.read_label_sets`."""
        return read_label_sets(column, cells, place)

    def read_truths(self, cells: list[str]) -> Target:
        """Return the target of a column of predictions.csv."""
        if any(cell.casefold() not in ("", "none") for cell in cells):
            return read_label_sets("truth", cells, str)
        return Target(np.empty((len(cells), 0), np.int8), MULTILABEL)

    def align(self, given: Target, spec: Any) -> tuple[Target, list[str]]:
        """Return `given` as the labels of `spec`, and the names of other labels, which do not count.

        A label of `spec` that `given` lacks is one that none of its images shows.
        """
        known = given.known
        values = np.where(known, 0, -1)[:, None].repeat(len(spec.classes), 1).astype(np.int8)
        places = match_names(given.classes, spec.classes)
        for place, column in zip(places, given.values.T, strict=True):
            if place >= 0:
                values[:, place] = column
        foreign = [label for label, place in zip(given.classes, places, strict=True) if place < 0]
        return Target(values, MULTILABEL, spec.classes, spec.thresholds), foreign

    def unknown_target(self, spec: Any, rows: int) -> Target:
        """Return -1 for each label."""
        return Target(np.full((rows, len(spec.classes)), -1, np.int8), MULTILABEL, spec.classes, spec.thresholds)

    def describe_training(self, column: str, target: Target, rows: np.ndarray) -> list[str]:
        """Return a note on labels that no training image shows, and one on those that all show."""
        of_rows = target.values[rows]
        shown, missing = (of_rows == 1).any(0), (of_rows == 0).any(0)
        notes = []
        for what, found in (("no training image shows", ~shown), ("every training image shows", ~missing & shown)):
            if found.any():
                named = list_examples([label for label, odd in zip(target.classes, found, strict=True) if odd])
                notes.append(f"{column}: {what} {int(found.sum())} of the {len(found)} labels ({named})")
        return notes

    def choose_thresholds(self, target: Target, predictions: np.ndarray) -> tuple[float, ...]:
        """Return for each label the threshold of highest F1 on images that the head was not trained on."""
        chosen = []
        for values, scores in zip(target.values.T, predictions.T, strict=True):
            seen = (values >= 0) & np.isfinite(scores)
            chosen.append(round(choose_threshold(values[seen] == 1, scores[seen]), 6))
        return tuple(chosen)

    def outputs(self, spec: Any) -> int:
        """Return the number of labels."""
        return len(spec.classes)

    def shaped(self, output: Any) -> Any:
        """Return logits (N, labels)."""
        return output

    def losses(self, spec: Any, output: Any, target: Any, *, smoothing: float, loss: str) -> Any:
        """Return the sum over known labels of binary cross-entropies, hinge or asymmetric losses."""
        from torch.nn import functional as F

        from transfer.heads.hinge import binary_hinge_losses

        known, shown = target >= 0, (target > 0).to(output)
        if loss == "asymmetric":
            each = asymmetric_losses(output, shown)
        elif loss == "hinge":
            each = binary_hinge_losses(output, shown)
        else:
            each = F.binary_cross_entropy_with_logits(output, shown, reduction="none")
        return (each * known).sum(1)

    def predictions(self, spec: Any, output: Any) -> Any:
        """Return the probability (N, labels) of each label."""
        return output.float().sigmoid()

    def decide(self, predictions: Any) -> Any:
        """Return which labels are more likely than not (N, labels)."""
        return (predictions >= DEFAULT_THRESHOLD) * 1

    def metrics(self, target: Target, predictions: np.ndarray, *, intervals: bool = True) -> dict[str, Any]:
        """Return mean average precision, and F1 at the target's thresholds; see :func:`multilabel_metrics`."""
        thresholds = find_thresholds(target)
        return multilabel_metrics(target.values, predictions, target.classes, thresholds, intervals=intervals)

    def find_correct_rows(self, target: Target, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return whether all known labels are predicted correctly, and the probability of the clearest wrong label.

        Where all are correct, it is that of the least certain label.
        """
        known, shown = target.values >= 0, target.values == 1
        wrong = known & ((predictions >= find_thresholds(target)) != shown)
        of_wrong = np.where(shown, 1 - predictions, predictions)
        least = np.where(known, np.maximum(predictions, 1 - predictions), 1.0).min(1)
        correct = ~wrong.any(1)
        return correct, np.where(correct, least, np.where(wrong, of_wrong, 0.0).max(1))

    def csv_columns(self, name: str, target: Target, predictions: np.ndarray) -> list[dict[str, Any]]:
        """Return for each image the true labels, those predicted, and the probability of each label."""
        if not len(predictions):
            return []
        cells = []
        for true, p, called in zip(target.values, predictions, predictions >= find_thresholds(target), strict=True):
            of_image = {
                name: format_label_set(target.classes, true),
                f"{name}_predicted": format_label_set(target.classes, called * 1),
            }
            listed = zip(target.classes, p.tolist(), strict=True)
            cells.append(of_image | {f"{name}:{label}": round(value, 6) for label, value in listed})
        return cells

    def describe(self, spec: Any, prediction: Any, top: int) -> dict[str, Any]:
        """Return the labels from their thresholds on, with their probabilities, and the `top` labels."""
        p = np.asarray(prediction, dtype=float)
        called = p >= find_thresholds(spec)
        order = np.argsort(-p, kind="stable").tolist()
        listed = [[spec.classes[i], round(float(p[i]), 6)] for i in order]
        return {
            spec.name: [spec.classes[i] for i in order if called[i]],
            f"{spec.name}_probability": [round(float(p[i]), 6) for i in order if called[i]],
            f"{spec.name}_top": listed[: max(top, 1)],
        }


def find_thresholds(labels: Any) -> np.ndarray:
    """Return the thresholds (labels,) of a target or a head's specification; 0.5 where none were chosen."""
    return np.array(labels.thresholds or [DEFAULT_THRESHOLD] * len(labels.classes))


def average_thresholds(spec: Any, others: list[Any]) -> Any:
    """Return `spec` with the mean of its thresholds and those of `others`, for the mean of their probabilities."""
    if not spec.thresholds:
        return spec
    mean = np.mean([find_thresholds(each) for each in (spec, *others)], axis=0)
    return replace(spec, thresholds=tuple(mean.tolist()))


def asymmetric_losses(output: Any, shown: Any) -> Any:
    """Return the asymmetric loss of each label (Ridnik et al. 2021, eq. 7).

    Easy negatives weigh less: by the power `FOCUS_NEGATIVE` of their probability, which is lowered by `MARGIN` first.

    Parameters
    ----------
    output : Tensor, shape (N, labels)
        Logits.
    shown : Tensor, shape (N, labels)
        1 where the image shows the label, else 0.
    """
    p = output.sigmoid()
    shifted = (p - MARGIN).clamp_min(0.0)
    positive = (1 - p) ** FOCUS_POSITIVE * p.clamp_min(1e-8).log()
    negative = shifted**FOCUS_NEGATIVE * (1 - shifted).clamp_min(1e-8).log()
    return -(shown * positive + (1 - shown) * negative)
