"""Stored evidence and test accuracies of the four-cases study, to advise again under any constants in milliseconds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from studies.advice_fit import FineTunedMean
from studies.four_cases_study import RECORD_KEY, REFERENCE, is_within_expectation
from studies.regret import find_best_by_other_seeds
from transfer.advice.costs import TrainingCosts
from transfer.advice.evidence import AdviceEvidence, TransferabilityScores
from transfer.advice.requirements import NetworkLayout, RatedPolicy, RunRequirements
from transfer.advice.rule import rank_policies, rate_policies
from transfer.advice.similarity import Similarity, compare_stages, rate_similarity
from transfer.advice.transferability.crossval import CrossValidation
from transfer.advice.transferability.noise import LabelNoise
from transfer.advice.transferability.size import SetSize
from transfer.backbones import load
from transfer.errors import TransferError
from transfer.evaluation.paired import paired_test
from transfer.heads.metrics import Z_95
from transfer.runtime.files import open_regular, parse_json
from transfer.training.auto_policy import AUTO

Record = dict[str, Any]


@dataclass(frozen=True)
class AdvisedCell:
    """One network, set and seed: what the advice rests on, and which test images each policy classifies correctly."""

    backbone: str
    case: str
    seed: int
    evidence: AdviceEvidence
    layout: NetworkLayout
    images: np.ndarray  # names of the test images
    correct: Mapping[str, np.ndarray]  # 0 or 1 for each test image, by policy
    gains: Mapping[str, float]  # mean accuracy above the probe's, of policies that were run under other seeds

    def rate(self) -> tuple[RatedPolicy, ...]:
        """Return the policies under the present constants, the advised one first."""
        known = self.evidence.similarity
        similarity = rate_similarity(known.distance, known.informed, known.pretraining)
        similarity = compare_stages(similarity, self.evidence.neighbours, len(self.evidence.labels))
        requirements = RunRequirements(0)
        costs = TrainingCosts(0.0, (0.0,) * len(self.layout.parameters))
        rated = rate_policies(replace(self.evidence, similarity=similarity), costs, self.layout, requirements)
        return rank_policies(rated, requirements)[0]

    def find_accuracy(self, policy: str) -> float | None:
        """Return the test accuracy of a policy; from the mean gain if it ran under other seeds alone, or None."""
        if policy in self.correct:
            return float(self.correct[policy].mean())
        return float(self.correct[REFERENCE].mean()) + self.gains[policy] if policy in self.gains else None


def read_cells(folders: Iterable[str], means: Sequence[FineTunedMean] = ()) -> list[AdvisedCell]:
    """Return a cell for each network, set and seed of the runs of the four-cases study in `folders`.

    Raises
    ------
    TransferError
        A folder holds no such run, or one whose records lack the evidence.
    """
    records: dict[tuple[Any, ...], Record] = {}
    for folder in folders:
        stored = {tuple(record[name] for name in RECORD_KEY): record for record in _read_records(Path(folder))}
        records = stored | records  # the first run of a policy counts
    correct: dict[tuple[Any, ...], dict[str, np.ndarray]] = {}
    for (*key, policy), record in records.items():
        if "right" in record:
            digits = np.array([int(digit) for digit in record["right"]])
            correct.setdefault(tuple(key), {})[policy] = digits
    gains: dict[tuple[str, str], dict[str, float]] = {}
    for mean in means:
        gains.setdefault((mean.backbone, mean.case), {})[mean.policy] = mean.gain
    for backbone, case in {key[:2] for key in correct}:
        gains.setdefault((backbone, case), {}).update(_average_gains(correct, backbone, case))
    return [
        AdvisedCell(
            *key,
            restore_evidence(record),
            read_layout(key[0]),
            np.array(record["images"]),
            correct[key],
            gains[key[:2]],
        )
        for (*start, policy), record in records.items()
        if policy == AUTO and REFERENCE in correct.get(key := tuple(start), {})
    ]


def _read_records(folder: Path) -> list[Record]:
    try:
        with open_regular(folder / "metrics.jsonl") as file:
            records = [parse_json(text) for text in file if text.endswith(b"\n")]
    except (OSError, ValueError) as error:
        raise TransferError(f"{folder} holds no run of the four-cases study: give folders of its --out") from error
    if any(record["policy"] == AUTO and "held_out" not in record for record in records):
        raise TransferError(f"the run in {folder} is of a version that kept no evidence: run it again")
    return records


def _average_gains(correct: Mapping[tuple[Any, ...], Mapping[str, np.ndarray]], *cell: str) -> dict[str, float]:
    """Return each policy's mean accuracy above the probe's, over the seeds of a cell under which it ran."""
    seeds = [found for key, found in correct.items() if key[:2] == cell and REFERENCE in found]
    names = dict.fromkeys(name for found in seeds for name in found)
    return {
        name: fmean(float(found[name].mean() - found[REFERENCE].mean()) for found in seeds if name in found)
        for name in names
    }


@cache
def read_layout(backbone: str) -> NetworkLayout:
    """Return the layout of a network, by name."""
    return NetworkLayout.from_backbone(load(backbone))


def restore_evidence(record: Record) -> AdviceEvidence:
    """Return the evidence of a record of the study, as far as ratings depend on it.

    Labels are all 0, and so are correct predictions: only which are correct matters.
    """
    none, probes = np.array([], np.int64), {}
    for policy, digits in record["held_out"].items():
        wrong = np.array([digit == "0" for digit in digits]).astype(np.int64)
        stored = record["probes"][policy]
        measured = {"accuracy": stored["accuracy"], "interval": tuple(stored["interval"]), "loss": stored["loss"]}
        probes[policy] = CrossValidation(wrong, np.empty((len(wrong), 0)), none, **measured, l2=stored["strength"])
    return AdviceEvidence(
        SetSize(**record["size"] | {"small_classes": tuple(record["size"]["small_classes"])}),
        Similarity(**record["similarity"]),
        probes,
        record["neighbours"],
        TransferabilityScores(0.0, None, None, None),
        LabelNoise(0, 0.0, none, none),
        np.zeros(len(next(iter(record["held_out"].values()))), np.int64),
        tuple(record["widths"]),
        record["slope"],
    )


@dataclass(frozen=True)
class CellResult:
    """How the advice of one network and set does, under all seeds."""

    backbone: str
    case: str
    advised: list[str]
    expected: list[float]
    half_width: list[float]  # of the 95 % interval around it
    accuracy: list[float | None]  # None where the advised policy was not run
    regret: list[float]  # by seed, against the best policy of the other seeds; of seeds with a known accuracy
    within: list[bool]  # whether the accuracy is in its interval, of seeds under which the advised policy ran
    fine_tuned_within: list[bool]  # the same of all policies that fine-tune and ran
    frozen_within: list[bool]  # the same of all others
    against_reference: Mapping[str, Any] | None  # paired test against the probe; None where a seed lacks a run


def evaluate_advice(cells: Sequence[AdvisedCell]) -> list[CellResult]:
    """Return a result for each network and set of `cells`, under the present constants of the advice."""
    names = dict.fromkeys((cell.backbone, cell.case) for cell in cells)
    return [_evaluate([cell for cell in cells if (cell.backbone, cell.case) == name]) for name in names]


def _evaluate(cells: Sequence[AdvisedCell]) -> CellResult:
    ranked = [cell.rate() for cell in cells]
    best = [rated[0] for rated in ranked]
    policies = {**cells[0].gains, **cells[0].correct}
    table = {policy: [cell.find_accuracy(policy) for cell in cells] for policy in policies}
    known = {policy: found for policy, found in table.items() if None not in found}
    accuracy = [cell.find_accuracy(rated.policy) for cell, rated in zip(cells, best, strict=True)]
    others = find_best_by_other_seeds(known)  # type: ignore[arg-type]
    reached = [known[name][seed] for seed, name in enumerate(others)]
    ran = [rated.policy in cell.correct for cell, rated in zip(cells, best, strict=True)]
    held = {measured: _check_intervals(cells, ranked, measured) for measured in (False, True)}
    return CellResult(
        cells[0].backbone,
        cells[0].case,
        [rated.policy for rated in best],
        [rated.accuracy for rated in best],
        [Z_95 * rated.sd for rated in best],
        accuracy,
        [b - a for a, b in zip(accuracy, reached, strict=False) if a is not None and b is not None],
        [_is_within(cell, rated) for cell, rated, one in zip(cells, best, ran, strict=True) if one],
        held[False],
        held[True],
        _compare_with_reference(cells, best) if all(ran) else None,
    )


def _is_within(cell: AdvisedCell, rated: RatedPolicy) -> bool:
    correct = cell.correct[rated.policy]
    return is_within_expectation({"accuracy": rated.accuracy, "sd": rated.sd}, float(correct.mean()), len(correct))


def _check_intervals(
    cells: Sequence[AdvisedCell], ranked: Sequence[Sequence[RatedPolicy]], measured: bool
) -> list[bool]:
    pairs = ((cell, rated) for cell, every in zip(cells, ranked, strict=True) for rated in every)
    return [_is_within(cell, one) for cell, one in pairs if one.measured == measured and one.policy in cell.correct]


def _compare_with_reference(cells: Sequence[AdvisedCell], best: Sequence[RatedPolicy]) -> dict[str, Any]:
    advised = np.concatenate([cell.correct[rated.policy] for cell, rated in zip(cells, best, strict=True)])
    reference = np.concatenate([cell.correct[REFERENCE] for cell in cells])
    test = paired_test(advised, reference, np.concatenate([cell.images for cell in cells]))
    return test | {"worse": test["interval"][1] < 0}


def average_regret(results: Iterable[CellResult]) -> float:
    """Return the mean regret in points, each network and set counting once; NaN without any."""
    regrets = [100 * fmean(result.regret) for result in results if result.regret]
    return fmean(regrets) if regrets else float("nan")
