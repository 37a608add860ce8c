"""What a model predicts for images that it was not trained on, how strange they are to it, and a second opinion."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transfer.evaluation.label_free.second_opinion import SecondOpinion
from transfer.evaluation.predictions import predict_rows
from transfer.evaluation.uncertainty.record import HeldOut
from transfer.evaluation.uncertainty.unknown import HEAD, UnknownScore
from transfer.feature_cache import Feed
from transfer.heads.heads import Heads
from transfer.heads.kind import ClassHeadKind
from transfer.probes.held_out import cross_fit
from transfer.probes.left_out_classes import MIN_CLASSES, measure_left_out
from transfer.probes.second_opinions import fit_second_opinions
from transfer.probes.side_by_side import run_beside

# Rows, and rows x classes, to predict by probes of their own: up to these, solving all folds takes a few seconds. Of
# more rows, a fifth to validate by is enough.
MAX_CROSS_FITTED, MAX_CROSS_FITTED_OUTPUTS = 2500, 250_000
CROSS_FITTED, VALIDATED = "cross-conformal, {folds} folds", "split-conformal, validation images"


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """The `train` and `val` rows that a model was trained on and chosen by.

    `labels` and `weights` are by head those of all rows of the model's `feed`; `weights` have the heads whose rows are
    weighted. `smoothing` is that of the labels. `folds` (N,) has the fold in which each row is held out.
    """

    feed: Feed
    labels: Mapping[str, Tensor]
    train: np.ndarray
    val: np.ndarray
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    smoothing: float = 0.0
    folds: np.ndarray = field(default_factory=lambda: np.array([], np.int64))

    def take(self, rows: np.ndarray) -> tuple[tuple[Tensor, dict[str, Tensor]], dict[str, Any]]:
        """Return features and targets of `rows`, and the options of a solver that is to fit them."""
        index = torch.from_numpy(rows)
        targets, weights = ({k: v[index] for k, v in by_head.items()} for by_head in (self.labels, self.weights))
        return (self.feed.load_all_views(rows)[1], targets), {
            "smoothing": self.smoothing,
            "row_weights": weights or None,
        }


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """Predictions by head for labelled `rows` (M,), each by a probe that was solved without its fold (M,)."""

    rows: np.ndarray
    folds: np.ndarray
    predictions: dict[str, np.ndarray]


def predict_held_out(
    data: LabelledRows,
    solution: Mapping[str, float] | None,
    temperatures: Mapping[str, float],
    seed: int,
    crossed: CrossFitted | None = None,
) -> HeldOut:
    """Return predictions for images that a model was not trained on, with an unknown score and second opinions.

    Few rows are predicted by linear probes of their own with the L2 values `solution`, see :func:`cross_fit`. Of many,
    and without a `solution` (:func:`find_solution`), the model predicts the validation rows. `crossed` has predictions
    by probes that were solved elsewhere.
    """

    def predict() -> HeldOut:
        return _take_crossed(data, crossed) if crossed else _predict(data, solution, temperatures, seed)

    def fit_opinions() -> dict[str, SecondOpinion]:
        return fit_second_opinions(data.feed, data.train, data.labels, solution or {}, seed)

    if not len(data.val) and not crossed:
        found = predict()
        return replace(found, opinions=fit_opinions()) if len(found.rows) else found
    data.feed.prepare(np.union1d(data.train, data.val))
    with run_beside(predict, beside=data.feed.has_features) as get_predictions:
        opinions = fit_opinions()
    return replace(get_predictions(), opinions=opinions)


def _predict(
    data: LabelledRows, solution: Mapping[str, float] | None, temperatures: Mapping[str, float], seed: int
) -> HeldOut:
    """Return :func:`predict_held_out` without second opinions."""
    heads, rows = data.feed.model.heads, np.union1d(data.train, data.val)
    most = MAX_CROSS_FITTED_OUTPUTS // max(len(spec.classes) or 1 for spec in heads.specs.values())
    if solution is None or len(np.unique(data.folds[rows])) < 2 or most < min(len(rows), MAX_CROSS_FITTED):
        return _predict_validation(data, _default_score(heads))
    crossed = len(rows) <= MAX_CROSS_FITTED
    if not crossed:
        rows = np.sort(np.random.default_rng(seed).permutation(data.train)[:MAX_CROSS_FITTED])
    (features, targets), options = data.take(rows)
    folds = data.folds[rows]
    options["fixed_l2"] = solution
    score = _default_score(heads)
    if score:
        aurocs = measure_left_out(copy.deepcopy(heads), (features, targets), folds, temperatures, seed, **options)
        score = _choose_score(score, aurocs, features, targets[HEAD])
    if not crossed:
        return _predict_validation(data, score)
    outputs = cross_fit(copy.deepcopy(heads), (features, targets), folds, temperatures, **options)
    predictions = {name: values.numpy() for name, values in heads.predictions(outputs).items()}
    if score:
        score = _refer(score, features, targets[HEAD], outputs[HEAD], torch.from_numpy(folds))
    return HeldOut(rows, predictions, CROSS_FITTED.format(folds=len(np.unique(folds))), score)


def _take_crossed(data: LabelledRows, crossed: CrossFitted) -> HeldOut:
    """Return what `crossed` predicts, with the default unknown score."""
    score = _default_score(data.feed.model.heads)
    if score:
        index = torch.from_numpy(crossed.rows)
        logits = torch.from_numpy(crossed.predictions[HEAD]).clamp_min(torch.finfo(torch.float32).tiny).log()
        features, labels = data.feed.load_all_views(crossed.rows)[1], data.labels[HEAD][index]
        score = _refer(score, features, labels, logits, torch.from_numpy(crossed.folds))
    method = CROSS_FITTED.format(folds=len(np.unique(crossed.folds)))
    return HeldOut(crossed.rows, crossed.predictions, method, score)


def _predict_validation(data: LabelledRows, score: UnknownScore | None) -> HeldOut:
    model, feed = data.feed.model, data.feed
    if not len(data.val):
        return HeldOut(data.val, {}, VALIDATED)
    found = HeldOut(data.val, predict_rows(model, feed, data.val, data.labels)[0], VALIDATED)
    if score is None or not len(known := data.val[data.labels[HEAD].cpu().numpy()[data.val] >= 0]):
        return found
    reference = torch.from_numpy(score.score_rows(model, feed, known, raw=True)).float()
    return replace(found, unknown=replace(score, reference=reference))


def _default_score(heads: Heads) -> UnknownScore | None:
    """Return the score that needs no choice; None without a head of one class of several.

    MSP needs nothing but the predictions, and was the best or close to it on all sets but webcam.
    """
    spec = heads.specs.get(HEAD)
    if spec is None or not isinstance(spec.head_kind, ClassHeadKind) or not spec.head_kind.logits:
        return None
    reason = f"not chosen: classes are left out of solved linear probes, of {MIN_CLASSES} classes to a few hundred"
    return UnknownScore("msp", {}, torch.empty(0), reason=reason)


def _choose_score(default: UnknownScore, aurocs: dict[str, float], features: Tensor, labels: Tensor) -> UnknownScore:
    """Return the score of largest AUROC, fitted to `features` (N, width) of `labels` (N,); `default` without AUROCs."""
    if not aurocs:
        return default
    known = labels >= 0
    best = UnknownScore.fitted(max(aurocs, key=lambda name: aurocs[name]), features[known], labels[known])
    return replace(best, aurocs=aurocs, reason="best at finding classes that were left out")


def _refer(score: UnknownScore, features: Tensor, labels: Tensor, outputs: Tensor, folds: Tensor) -> UnknownScore:
    """Return `score` with reference: each row's by the score fitted to the other folds, and by held-out `outputs`."""
    known, parts = labels.cpu() >= 0, []
    for fold in folds.unique().tolist():
        held_out, others = known & (folds == fold), known & (folds != fold)
        if bool(held_out.any()) and bool(others.any()):
            fitted = UnknownScore.fitted(score.name, features[others], labels[others])
            parts.append(fitted.compute(features[held_out], outputs[held_out].float()))
    return replace(score, reference=torch.cat(parts).float().cpu())
