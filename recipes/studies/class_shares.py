"""Class shares that differ between source and target: how well they are estimated, and what `auto` makes of them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, pstdev
from typing import Any

import numpy as np

from transfer.adaptation.adapt import adapt, complete_config, read_domains
from transfer.adaptation.closed_form.classifier import SHIFT_FEATURES, source_only_evidence
from transfer.adaptation.domains import split_domains
from transfer.adaptation.label_shift import measure_label_shift
from transfer.adaptation.task import prepare_task
from transfer.config.adapt import AdaptConfig, ShiftConfig
from transfer.config.checked import Config
from transfer.config.lists import CommaNames
from transfer.feature_cache import TrunkCache
from transfer.report.console.tables import text_table
from transfer.training.setup import Images

log = logging.getLogger(f"transfer.{__name__}")  # printed as the command's own log lines are

# Of each case: the fraction of the classes that the source has; of these, the fraction that the target has whole; and
# the share of its images that it has of each of the others.
CASES: dict[str, tuple[float, float, float]] = {
    "equal": (1, 1, 1),
    "equal_fewer": (2 / 3, 1, 1),  # both lack the same third of the classes
    "half": (1, 1 / 2, 0.1),
    "third": (1, 1 / 3, 0.1),
    "third_only": (1, 1 / 3, 0),  # the others are absent from the target
    "unknown": (2 / 3, 1, 1),  # the target has all classes, a third of which the source lacks
}
FLAGS = ("reliable", "strong", "partial", "open_set")


@dataclass(frozen=True)
class ShareConfig(Config):
    """Estimate class shares on every pair of domains, with classes of the target thinned out."""

    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    cases: CommaNames = tuple(CASES)
    """How source and target differ."""
    auto: bool = False
    """Also adapt by --method, and measure the accuracy before and after."""


def run_cases(config: ShareConfig) -> list[dict[str, Any]]:
    """Return a row for each case, pair of domains and seed, which also draws the classes.

    Returns
    -------
    list of dict
        ``case``, ``pair``, ``seed``, the `FLAGS` that are raised, the true ``accuracy`` of the source's classifier less
        the estimated one as ``error``, and with ``auto`` the accuracies ``source_only`` and ``adapted``.
    """
    base, rows = config.adapt, []
    cache, shift = TrunkCache(base.cache), base.shift
    images = read_domains(shift, cache)
    sources, targets = shift.source or images.table.domains, (shift.target,) if shift.target else images.table.domains
    for pair in [(source, target) for source in sources for target in targets if source != target]:
        for case in config.cases:
            for seed in base.run.seeds or (base.run.seed,):
                drawn = draw_classes(images, *pair, case, seed)
                how = replace(shift, source=pair[:1], target=pair[1])
                how_run = replace(base.run, seeds=(), seed=seed, out=None)
                run_config = complete_config(replace(base, shift=how, run=how_run))
                row = {"case": case, "pair": " -> ".join(pair), "seed": seed} | _estimate(run_config, drawn, cache)
                if config.auto:
                    result = adapt(run_config, images=drawn, cache=cache).result
                    parts = {"source_only": result["source_only"], "adapted": result["target"]}
                    row |= {name: 100 * part["object"]["accuracy"] for name, part in parts.items()}
                log.info("%s", row)
                rows.append(row)
    return rows


def draw_classes(images: Images, source: str, target: str, case: str, seed: int) -> Images:
    """Return the images of the two domains, with the classes drawn as `case` says."""
    known, whole, rest = CASES[case]
    table, random = images.table, np.random.default_rng(seed)
    first, second = (np.flatnonzero(table.domain == table.domains.index(name)) for name in (source, target))
    classes = random.permutation(np.unique(table.object[np.concatenate([first, second])]))
    kept = classes[: round(known * len(classes))]
    first = first[np.isin(table.object[first], kept)]
    if case != "unknown":
        second = second[np.isin(table.object[second], kept)]
    for k in kept[round(whole * len(kept)) :]:
        of_class = random.permutation(second[table.object[second] == k])
        second = np.setdiff1d(second, of_class[round(rest * len(of_class)) :])
    rows = np.concatenate([first, second])
    return replace(images, table=table.take(rows), inspection=images.inspection.take(rows))


def _estimate(config: AdaptConfig, images: Images, cache: TrunkCache) -> dict[str, Any]:
    shift: ShiftConfig = config.shift
    seed = config.run.seed
    how = {"sources": shift.source, "target": shift.target, "val": shift.val, "seed": seed}
    domains, hidden = split_domains(images.table, images.inspection, **how)  # type: ignore[arg-type]
    task, _ = prepare_task(config, domains, images, cache, seed)
    evidence = [source_only_evidence(task, kind) for kind in SHIFT_FEATURES]
    estimate = measure_label_shift(*evidence, seed=seed)
    correct = evidence[0].target_logits.argmax(1) == hidden.reveal(domains.unlabelled)
    flags = {name: bool(getattr(estimate, name)) for name in FLAGS}
    return flags | {"error": float(correct.mean()) - estimate.estimated_accuracy}


def cases_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of cases and pairs: how often each flag is raised, errors, and accuracies if measured."""
    cells = []
    for case, pair in dict.fromkeys((row["case"], row["pair"]) for row in rows):
        group = [row for row in rows if (row["case"], row["pair"]) == (case, pair)]
        cells.append([case, pair, str(len(group)), *(str(sum(row[flag] for row in group)) for flag in FLAGS)])
        cells[-1].append(f"{fmean(abs(row['error']) for row in group):.2f}")
        for part in ("source_only", "adapted"):
            scores = [row[part] for row in group if part in row]
            cells[-1].append(f"{fmean(scores):.1f} ± {pstdev(scores):.1f}" if scores else "")
    return text_table(["case", "pair", "runs", *FLAGS, "accuracy's error", "source only", "adapted"], cells)
