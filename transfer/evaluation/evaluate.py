"""`transfer evaluate`: a saved run, or an ensemble of several, on images with or without labels."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from transfer.config.commands import EvaluateConfig
from transfer.config.serialise import to_dict
from transfer.config.train import CacheConfig, ViewConfig
from transfer.data.conflicts import drop_conflicts
from transfer.data.duplicates import Inspection, drop_bad_images, inspect_files
from transfer.data.images.depths import measure_depths
from transfer.data.images.levels import DEFAULT_LEVELS, choose_levels
from transfer.data.sets.load import load_available, load_table
from transfer.data.table import DEFAULT_DOMAIN, ImageTable
from transfer.data.unlabelled import forget_placeholder_classes
from transfer.errors import TransferError
from transfer.evaluation.aligned_labels import align_labels, format_column_targets
from transfer.evaluation.averages.ensemble import TestSet, average_predictions, check_same_heads
from transfer.evaluation.averages.greedy_soup import cook_greedily
from transfer.evaluation.averages.soup import average_weights, check_soup_file, save_soup
from transfer.evaluation.label_free.expected_accuracy import MIN_IMAGES, average_expected
from transfer.evaluation.label_free.images import NO_REFERENCE, NO_REFERENCE_ADAPTED
from transfer.evaluation.predict import PREDICTED_AT_ONCE
from transfer.evaluation.predictions import (
    Predictions,
    evaluate_domains,
    evaluate_predictions,
    note_absent_classes,
)
from transfer.evaluation.uncertainty.record import Uncertainty, find_uncertainty
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec
from transfer.heads.multilabel.head import average_thresholds
from transfer.runs import checkpoint
from transfer.runs.tested_images import note_training_images, read_tested_images
from transfer.runtime.device import get_versions, pick_device
from transfer.runtime.files import read_json, write_json


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a saved run on its test images or on other data; return the result, and write it to ``config.out``.

    With other data, the test split is used, or all images if there is none. A note says if some of the images, but not
    all, are test images of the run: it may have been trained on the others. Several runs are evaluated as an ensemble,
    or with ``config.soup`` as one model with the mean weights of all or some. The accuracy on images without labels is
    estimated (``expected_accuracy``). A TransferError says that there is no such run or data, no label that the model
    knows and no such estimate, or that the heads differ.
    """
    started = time.perf_counter()
    runs = (config.run, *config.more)
    if config.soup_kind != "uniform" and not config.soup:
        raise TransferError("--soup-kind needs --soup FILE.safetensors, where the soup is saved")
    members = [checkpoint.load_models(run, pick_device(config.device), config.engine) for run in runs]
    check_same_heads(runs, members)
    cache = TrunkCache(CacheConfig(cache=config.cache))
    members, soup = _make_soup(config, runs, members, cache) if config.soup else (members, {})
    specs = _merge_specs(members)
    given = _read_images(config, runs, specs)
    table, inspection = drop_bad_images(given, inspect_files(given, disk_cache=cache.disk_cache), config.on_bad_image)
    table, inspection = drop_conflicts(table, inspection)
    table = replace(table, notes=(*table.notes, *_set_missing_levels(members, table, inspection, cache)))
    unlabelled = {spec.name: _find_unlabelled(table, spec) for spec in specs}
    table = align_labels(table, specs, own=config.data is None)
    # What a run measured on held-out images is not true of a soup.
    uncertainties = [None if config.soup else find_uncertainty(run) for run in runs]
    uncertainty = uncertainties[0] if len(runs) == 1 else None  # sets and unknown scores are those of one run
    if not any(t.known.any() for t in table.targets.values()):
        _check_expected(runs, table, unlabelled, uncertainties)
    test_set = TestSet(table, inspection.sha256, np.arange(len(table)), cache, config.view, PREDICTED_AT_ONCE)
    predictions = average_predictions([test_set.predict(member) for member in members])
    result: dict[str, Any] = {
        "command": "evaluate",
        "config": to_dict(config),
        "versions": get_versions(),
        "seconds": {"total": round(time.perf_counter() - started, 3)},
        "test": evaluate_predictions(table, predictions),
        "per_domain": evaluate_domains(table, predictions),
        "notes": [*table.notes, *note_absent_classes(table, predictions)],
    }
    if all(uncertainties):
        together = predictions if len(runs) > 1 else None
        result["expected_accuracy"] = _expect_accuracy(test_set, members, uncertainties, unlabelled, together)
    if uncertainty:
        strangeness = test_set.score_unknown(members[0], uncertainty.unknown) if uncertainty.unknown else None
        plain = replace(test_set, view=ViewConfig()).predict(members[0]) if config.view.several else predictions
        result["uncertainty"] = uncertainty.measure(table, plain, strangeness)
    if config.soup:
        save_soup(config.soup, runs, members[0])
        result["soup"] = soup
        result["notes"].append(soup["note"])
    if config.out:
        write_json(config.out, result)
    return result


def _read_images(config: EvaluateConfig, runs: Sequence[Path], specs: Sequence[HeadSpec]) -> ImageTable:
    """Return the images to evaluate on: the test images of the runs, or those of ``config.data``."""
    if config.data is None:
        return read_tested_images([run if run.is_dir() else run.parent for run in runs], specs)
    load = load_available if _list_objects(specs) else load_table
    given = load(
        config.data,
        config.data_root,
        format_column_targets(specs),
        labels=config.labels,
        skip_bad=config.on_bad_image == "skip",
        flat_domain=DEFAULT_DOMAIN,
        corrections=config.corrections,
    )
    given = forget_placeholder_classes(given, _list_objects(specs))
    in_test = given.split == "test"
    given = given.take(in_test) if in_test.any() else given
    return replace(given, notes=(*given.notes, *note_training_images(runs, given)))


def _make_soup(
    config: EvaluateConfig, runs: Sequence[Path], members: Sequence[checkpoint.Models], cache: TrunkCache
) -> tuple[list[checkpoint.Models], dict[str, Any]]:
    """Return the soup of `runs` as the only member, and its record."""
    if config.soup:
        check_soup_file(config.soup)
    if config.soup_kind == "greedy":
        load = partial(checkpoint.load_models, device=pick_device(config.device), engine=config.engine)
        soup, choice = cook_greedily(runs, members, load, cache)
        return [soup], choice.record(runs)
    return [average_weights(runs, members)], {"note": f"the weights of {len(runs)} runs are averaged"}


def _list_objects(specs: Sequence[HeadSpec]) -> tuple[str, ...]:
    """Return the classes of the object head."""
    return next((spec.classes for spec in specs if spec.name == "object"), ())


def _find_unlabelled(table: ImageTable, spec: HeadSpec) -> np.ndarray:
    """Return the rows of `table` without any label of the head, not even of an unknown class."""
    target = table.targets.get(spec.name)
    return np.arange(len(table)) if target is None else np.flatnonzero(~target.known)


def _check_expected(
    runs: Sequence[Path],
    table: ImageTable,
    unlabelled: Mapping[str, np.ndarray],
    uncertainties: Sequence[Uncertainty | None],
) -> None:
    """Raise a TransferError that says why nothing can be said of `table`, which has no label that the model knows."""
    missing = f"{table.name}: not one image has a label that {runs[0]} knows"
    if not len(unlabelled.get("object", ())):
        raise TransferError(missing)
    for run, uncertainty in zip(runs, uncertainties, strict=True):
        if uncertainty is None or not uncertainty.accuracy:
            which = f"{run} has " if len(runs) > 1 else "there is "
            raise TransferError(f"{missing}, and {which}{NO_REFERENCE_ADAPTED if _is_adapted(run) else NO_REFERENCE}")
    if max(len(unlabelled.get(name, ())) for name in _list_expected(uncertainties)) < MIN_IMAGES:
        raise TransferError(f"{missing}, and an expected accuracy needs {MIN_IMAGES} images or more")


def _is_adapted(run: Path) -> bool:
    """Return whether `transfer adapt` made the run of this folder or weights file."""
    with contextlib.suppress(OSError, TransferError):
        return bool(read_json((run if run.is_dir() else run.parent) / "result.json").get("command") == "adapt")
    return False


def _list_expected(uncertainties: Sequence[Uncertainty | None]) -> list[str]:
    """Return the heads whose accuracy all members can expect."""
    first, *others = [uncertainty.accuracy if uncertainty else {} for uncertainty in uncertainties]
    return [name for name in first if all(name in other for other in others)]


def _expect_accuracy(
    test_set: TestSet,
    members: Sequence[checkpoint.Models],
    uncertainties: Sequence[Uncertainty | None],
    unlabelled: Mapping[str, np.ndarray],
    ensemble: Predictions | None,
) -> dict[str, dict[str, Any]]:
    """Return the record of each head's expected accuracy on the images without labels, or on all if all have some."""
    everything = np.arange(len(test_set.table))
    names = _list_expected(uncertainties)
    rows = {name: unlabelled[name] if len(unlabelled[name]) else everything for name in names}
    found = [
        test_set.expect_accuracy(models, {name: uncertainty.accuracy[name] for name in names}, rows, ensemble)
        for models, uncertainty in zip(members, uncertainties, strict=True)
        if uncertainty
    ]
    return {
        name: (average_expected([each[name] for each in found]) if len(found) > 1 else found[0][name]).record()
        | {"of": "images without labels" if len(unlabelled[name]) else "all images"}
        | ({"members": len(found)} if len(found) > 1 else {})
        for name in names
        if all(name in each for each in found)
    }


def _set_missing_levels(
    members: Sequence[checkpoint.Models], table: ImageTable, inspection: Inspection, cache: TrunkCache
) -> list[str]:
    """Let models that were trained without deep images read those of `table` by their type; return a note on it.

    The levels are part of the key of cached features.
    """
    lacking = [
        model.backbone for models in members for model in models.values() if not model.backbone.preprocessing.levels
    ]
    if not lacking or not choose_levels(measure_depths(table.paths, inspection.sha256, cache.disk_cache)):
        return []
    for backbone in lacking:
        backbone.preprocessing = replace(backbone.preprocessing, levels=DEFAULT_LEVELS)
    read = ", ".join(f"{kind} as {black:g} to {white:g}" for kind, black, white in DEFAULT_LEVELS)
    return [f"the run was trained without 16-bit, integer or float images: they are read by their type ({read})"]


def _merge_specs(members: Sequence[checkpoint.Models]) -> list[HeadSpec]:
    """Return the specifications of the heads; of several models with the mean of their thresholds."""
    first, *others = ({n: s for model in m.values() for n, s in model.heads.specs.items()} for m in members)
    return [average_thresholds(spec, [other[name] for other in others]) for name, spec in first.items()]
