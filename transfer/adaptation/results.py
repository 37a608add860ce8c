"""What an adaptation returns, and the content of its result.json: of one seed, and merged over several."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from transfer.adaptation import diagnostics
from transfer.adaptation.domains import Domains
from transfer.adaptation.hidden_labels import HiddenLabels
from transfer.adaptation.registry import REFERENCE
from transfer.adaptation.selection.best_candidate import BestCandidate
from transfer.adaptation.task import AdaptationTask
from transfer.config.adapt import AdaptConfig
from transfer.config.serialise import to_dict
from transfer.data.conflicts import count_conflicts
from transfer.data.splits import Splits
from transfer.data.table import ImageTable, Target
from transfer.evaluation.finished_run import FinishedRun
from transfer.evaluation.int8_trunk import compare_trunks
from transfer.evaluation.predictions import Predictions, evaluate_predictions, note_absent_classes
from transfer.freeze import FreezePlan, Phase
from transfer.heads import metrics
from transfer.runs.image_list import ListedImage, list_images
from transfer.runs.seeds import merge_seeds
from transfer.runs.session import RunSession
from transfer.training.setup import Images

log = logging.getLogger(__name__)


@dataclass(repr=False)
class AdaptRun(FinishedRun):
    """What :func:`adapt` returns; ``models[""]`` is the adapted model of the first seed.

    Parameters
    ----------
    tests : list of (ImageTable, Predictions)
        For each seed the target's test images with their true labels, and their predictions. Like `before`, empty for
        a run that was already finished.
    before : list of ndarray
        For each seed the classes that source_only predicted for these images, int64.
    """

    tests: list[tuple[ImageTable, Predictions]]
    before: list[np.ndarray]


@dataclass(frozen=True)
class PreparedAdaptation:
    """One seed's split domains, with the target labels masked, and the untrained model on them."""

    images: Images
    task: AdaptationTask
    hidden: HiddenLabels
    plan: FreezePlan
    phases: tuple[Phase, ...]  # those in which tensors may change, including BatchNorm statistics that a method moves
    frozen: dict[str, Any]  # hashes of the frozen tensors before anything is fitted


@dataclass(frozen=True)
class FittedMethods:
    """The best candidate of each method of one seed."""

    untouched: AdaptationTask  # the pretrained features
    reference: BestCandidate  # of source_only on these
    methods: dict[str, BestCandidate]
    scores: dict[str, float]  # the rule's score of each method that did not diverge
    chosen: BestCandidate  # of the method with the best score

    @property
    def sound(self) -> list[BestCandidate]:
        """Those of the methods in `scores`."""
        return [self.methods[name] for name in self.scores]

    @property
    def notes(self) -> list[str]:
        """Notes of the chosen method, and of those that diverged."""
        return [note for each in self.methods.values() if each is self.chosen or not each.best for note in each.notes]


@dataclass(frozen=True)
class TargetEvaluation:
    """Predictions on the test images, with their revealed labels, and how far the domains are apart."""

    test: ImageTable
    predictions: Predictions
    temperatures: dict[str, float]  # by head, folded into the model
    shift: dict[str, Any]
    remarks: list[str]
    moved: tuple[str, ...]


def build_result(
    session: RunSession[AdaptConfig], prepared: PreparedAdaptation, fitted: FittedMethods, evaluation: TargetEvaluation
) -> dict[str, Any]:
    """Return the content of result.json."""
    test, predictions, domains = evaluation.test, evaluation.predictions, prepared.task.domains
    before, model = fitted.reference.test_classes[REFERENCE], prepared.task.model
    heads = sum(p.numel() for p in model.heads.parameters())
    hidden_notes = prepared.hidden.notes(domains.test)
    known = test.object >= 0
    oracle = {  # accuracies, a second column in the result: they choose nothing
        name: float((classes == test.object)[known].mean())
        for each in fitted.sound
        for name, classes in each.test_classes.items()
        if known.any()
    }
    best = max(oracle, key=lambda name: oracle[name]) if oracle else None
    rows, digests = domains.val if len(domains.val) else domains.test, prepared.images.inspection.sha256
    int8 = compare_trunks(model, session.cache, domains.table, digests, rows, session.config.steps.workers)
    if int8:
        log.info("%s\n%s", int8.describe(), int8.describe_speed())
    return {
        **session.result_header(model.backbone, [prepared.plan], heads_parameters=heads, moved=evaluation.moved),
        "images": {
            "source": len(domains.train),
            "val": len(domains.val),
            "target": len(domains.unlabelled),
            "target_labelled": len(domains.labelled),
            "test": len(domains.test),
            **count_conflicts(prepared.images.table),
        },
        "target": evaluate_predictions(test, predictions),
        "source_only": {"object": metrics.classification_metrics(test.object, before, test.objects)},
        **diagnostics.compare_with_source_only([(test, predictions)], [before]),
        "shift": evaluation.shift,
        "shift_by_labels": diagnostics.measure_shift_by_labels(domains.table.take(domains.train), test),
        "temperatures": {head: round(temperature, 4) for head, temperature in evaluation.temperatures.items()},
        "selection": {
            "rule": session.config.method.rule,
            "chosen": fitted.chosen.candidate.name,
            "methods": fitted.scores,
            "candidates": {name: score for each in fitted.sound for name, score in each.scores.items()},
            "oracle_chosen": best,
            "oracle_accuracy": oracle[best] if best else None,
        },
        **({"int8": int8.to_dict()} if int8 else {}),
        "notes": [
            *prepared.images.table.notes,
            *domains.notes,
            *prepared.images.describe_levels(domains.seen)[1],
            *hidden_notes,
            *note_absent_classes(test, predictions),
            *fitted.notes,
            *([int8.describe()] if int8 else []),
            *evaluation.remarks,
        ],
    }


def merge_runs(config: AdaptConfig, runs: Sequence[AdaptRun]) -> dict[str, Any]:
    """Return the result over several seeds: means, standard deviations, and each seed's."""
    results = [run.result for run in runs]
    merged = merge_seeds(config.run.seeds, results, ("target", "source_only", "shift")) | {"config": to_dict(config)}
    merged["shift"] |= diagnostics.merge_shift_flags([result["shift"] for result in results])
    merged |= diagnostics.compare_with_source_only([run.tests[0] for run in runs], [run.before[0] for run in runs])
    selections = [result["selection"] for result in results]
    oracle = [selection["oracle_accuracy"] for selection in selections]
    merged["selection"] = {
        "rule": config.method.rule,
        "chosen": [selection["chosen"] for selection in selections],
        "oracle_accuracy": fmean(oracle) if None not in oracle else None,
    }
    return merged


def reveal_test(domains: Domains, hidden: HiddenLabels) -> ImageTable:
    """Return the table of the test rows with their true objects."""
    table = domains.table.take(domains.test)
    true = Target(hidden.reveal(domains.test), classes=hidden.classes)
    return replace(table, targets={"object": true, "domain": table.targets["domain"]})


def list_adapted_images(domains: Domains, test: ImageTable, digests: np.ndarray) -> list[ListedImage]:
    """Return the lines of images.csv: the images that were trained on, adapted to, validated and tested on.

    Target images that are tested on are of the test split, even where the model was adapted to them without labels, and
    have their true object. Others that the model was adapted to are of the train split, without an object.

    Parameters
    ----------
    test : ImageTable
        From :func:`reveal_test`.
    digests : ndarray of str, shape (N,)
        The sha256 of all images of the table of `domains`.
    """
    train = np.setdiff1d(domains.seen, domains.test)
    values = domains.table.object.copy()
    values[domains.test] = test.object
    targets = {"object": Target(values, classes=test.objects), "domain": domains.table.targets["domain"]}
    return list_images(replace(domains.table, targets=targets), Splits(train, domains.val, domains.test), digests)
