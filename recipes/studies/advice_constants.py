"""How the advice does on stored cells, and how much that depends on each of its constants: at half and at double."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from studies.advice_cells import AdvisedCell, CellResult, average_regret, evaluate_advice, read_cells
from studies.advice_fit import fit_text, leave_one_out, read_means, set_constants
from studies.constants import Constant, read_value, set_constant, vary
from transfer.config.checked import Config
from transfer.config.lists import CommaNames
from transfer.report.console.tables import mean_sd_text, text_table

_RULE, _REQUIREMENTS, _SIMILARITY = "advice.rule", "advice.requirements", "advice.similarity"
# Constants that the stored evidence can be rated under. Those that change what is measured or trained are not here.
CONSTANTS = (
    Constant(f"{_RULE}:EXPECTED_REDUCTION[head2toe]", "share", "278 samples"),
    Constant(f"{_RULE}:EXPECTED_REDUCTION[stage_probes]", "share", "278 samples"),
    Constant(f"{_RULE}:REDUCTION_WITHOUT_LAYERS", "share", "278 samples"),
    Constant(f"{_RULE}:PRIOR_SD_MEASURED", "share", "278 samples"),
    Constant(f"{_RULE}:LOSS_WEIGHT", "share", "278 samples"),
    Constant(f"{_RULE}:MIN_LEAD_OVER_STAGE_PROBES", "accuracy", "278 samples"),
    Constant(f"{_RULE}:FINE_TUNING_GAIN", "share", "fine_tuned.csv"),
    Constant(f"{_RULE}:LAST_THIRD_GAIN", "share", "fine_tuned.csv"),
    Constant(f"{_RULE}:UNNORMALISED_GAIN", "share", "fine_tuned.csv"),
    Constant(f"{_RULE}:HALF_FIXABLE_IMAGES", "images", "nine rows, amazon"),
    Constant(f"{_RULE}:PRIOR_SD_FINE_TUNING", "share", "fine_tuned.csv"),
    Constant(f"{_REQUIREMENTS}:MIN_FINE_TUNING_GAIN", "accuracy", "worth the time"),
    Constant(f"{_REQUIREMENTS}:MIN_LEAD_SDS", "standard deviations", "stored cells"),
    Constant(f"{_RULE}:MIN_PRIOR_SD", "accuracy", "chosen"),
    Constant(f"{_RULE}:MAX_CHANCE_SD", "standard deviations", "chosen"),
    Constant(f"{_SIMILARITY}:VARIETY_AT_SCORES", "share", "sets of known similarity"),
    Constant(f"{_SIMILARITY}:DISTANCE_AT_SCORES", "nats", "sets of known similarity"),
    Constant(f"{_SIMILARITY}:MIN_NEIGHBOUR_LEAD", "accuracy", "chosen"),
)


@dataclass(frozen=True)
class AdviceConstantsConfig(Config):
    """Fit what advice expects of fine-tuning; advise again on stored runs, with each constant at half and double."""

    runs: CommaNames = ()
    """Folders of runs of the four-cases study (its --out). Without any, only the fit of fine-tuning is shown."""
    constants: CommaNames = tuple(constant.name for constant in CONSTANTS)
    """Constants, by name."""


def advice_constants_text(config: AdviceConstantsConfig) -> str:
    """Return the fit of fine-tuning, and with runs the tables of regret, of sets left out, and of constants."""
    means = read_means()
    parts = [fit_text(means)]
    if config.runs:
        cells = read_cells(config.runs, means)
        results = evaluate_advice(cells)
        left = [leave_out_text(cells, leave_one_out(means, name), name) for name in ("backbone", "images")]
        chosen = [constant for constant in CONSTANTS if constant.name in config.constants]
        parts += [regret_text(results), coverage_text(cells, results), *left]
        parts.append(sensitivity_text(measure_sensitivity(cells, chosen)))
    return "\n\n".join(parts)


def vary_values(value: Any, unit: str) -> tuple[Any, Any]:
    """Return half and double a value, as :func:`studies.constants.vary`, of each number of a mapping or tuple.

    Examples
    --------
    >>> vary_values({"similar": 0.2}, "share"), vary_values((0.5, 0.8), "nats")
    (({'similar': 0.1}, {'similar': 0.4}), ((0.25, 0.4), (1.0, 1.6)))
    """
    if isinstance(value, Mapping):
        pairs = {key: vary(number, unit) for key, number in value.items()}
        return {key: half for key, (half, _) in pairs.items()}, {key: double for key, (_, double) in pairs.items()}
    if isinstance(value, tuple):
        halves, doubles = zip(*(vary(number, unit) for number in value), strict=True)
        return halves, doubles
    return vary(value, unit)


def measure_sensitivity(cells: Sequence[AdvisedCell], constants: Iterable[Constant]) -> list[dict[str, Any]]:
    """Return a row for each constant.

    Returns
    -------
    list of dict
        ``constant``, and at ``half`` and ``double`` its value: the ``value``; ``regret``, the change of the mean in
        points; ``networks``, the least and the greatest change among networks; ``advised``, the number of cells and
        seeds with another advised policy; ``within``, the share of advised policies in their interval.
    """
    before, rows = evaluate_advice(cells), []
    for constant in constants:
        row: dict[str, Any] = {"constant": constant}
        values = vary_values(read_value(constant.place), constant.unit)
        for name, value in zip(("half", "double"), values, strict=True):
            with set_constant(constant.place, value):
                row[name] = {"value": value} | _compare(before, evaluate_advice(cells))
        rows.append(row)
    return rows


def _compare(before: Sequence[CellResult], after: Sequence[CellResult]) -> dict[str, Any]:
    changes: dict[str, list[float]] = {}
    for old, new in zip(before, after, strict=True):
        if old.regret and new.regret:
            changes.setdefault(old.backbone, []).append(100 * (fmean(new.regret) - fmean(old.regret)))
    by_network = [fmean(found) for found in changes.values()] or [0.0]
    pairs = ((old.advised, new.advised) for old, new in zip(before, after, strict=True))
    return {
        "regret": fmean(itertools.chain(*changes.values())) if changes else 0.0,
        "networks": (min(by_network), max(by_network)),
        "advised": sum(a != b for old, new in pairs for a, b in zip(old, new, strict=True)),
        "within": _share(result.within for result in after),
    }


def _share(held: Iterable[Sequence[bool]]) -> float:
    every = list(itertools.chain(*held))
    return every.count(True) / len(every) if every else float("nan")


def sensitivity_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of constants, with the change of regret [least, most among networks] and the coverage."""
    cells = []
    for row in rows:
        constant = row["constant"]
        cells.append([constant.name, _value_text(read_value(constant.place)), constant.unit])
        for factor in ("half", "double"):
            found = row[factor]
            least, most = found["networks"]
            cells[-1] += [
                f"{_signed(found['regret'])} [{_signed(least)}, {_signed(most)}]",
                str(found["advised"]),
                f"{found['within']:.1%}",
            ]
    titles = [f"{factor}: {name}" for factor in ("half", "double") for name in ("regret", "changed", "within")]
    return text_table(["constant", "value", "unit", *titles], cells)


def _signed(points: float) -> str:
    """Return points with a sign, as +0.00 also where they round to zero from below."""
    return f"{round(points, 2) + 0.0:+.2f}"


def _value_text(value: Any) -> str:
    numbers = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else [value]
    return ", ".join(f"{number:g}" for number in numbers)


def regret_text(results: Sequence[CellResult]) -> str:
    """Return a row for each network and set: advised policies, accuracy expected and reached, and regret."""
    rows = []
    for result in results:
        reached = [value for value in result.accuracy if value is not None]
        test = result.against_reference
        rows.append(
            [
                result.backbone,
                result.case,
                " / ".join(dict.fromkeys(result.advised)),
                f"{fmean(result.expected):.3f}",
                mean_sd_text(reached),
                mean_sd_text([100 * points for points in result.regret], "+.1f"),
                "-" if test is None else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*_to_points(test)),
                "-" if test is None else "behind" if test["worse"] else "",
            ]
        )
    head = ["network", "set", "advised", "expected", "accuracy", "regret, points", "less the probe", ""]
    networks = dict.fromkeys(result.backbone for result in results)
    means = {name: average_regret([r for r in results if r.backbone == name]) for name in networks}
    lines = [f"mean regret: {average_regret(results):+.2f} points"]
    lines += [f"  {name}: {mean:+.2f}" for name, mean in means.items()]
    return text_table(head, rows) + "\n\n" + "\n".join(lines)


def _to_points(test: Mapping[str, Any]) -> list[float]:
    return [100 * value for value in (test["difference"], *test["interval"])]


def coverage_text(cells: Sequence[AdvisedCell], results: Sequence[CellResult]) -> str:
    """Return how often accuracies are in their interval: of advised, frozen and fine-tuned policies, by labels.

    The last column is the width of the intervals of advised policies, to either side.
    """
    rows = []
    labelled = {(cell.backbone, cell.case): cell.evidence.size.labelled for cell in cells}
    for name, low, high in (("all", 0, 10**9), ("under 200 labels", 0, 200), ("200 labels or more", 200, 10**9)):
        found = [r for r in results if low <= labelled[r.backbone, r.case] < high]
        kinds = ("within", "frozen_within", "fine_tuned_within")
        held = [list(itertools.chain(*(getattr(r, kind) for r in found))) for kind in kinds]
        widths = [100 * width for r in found for width in r.half_width]
        half_width = f"{median(widths):.1f}" if widths else "-"
        rows.append([name, *(f"{one.count(True)} of {len(one)}" for one in held), half_width])
    return text_table(["accuracy in its interval", "advised", "frozen", "fine-tuned", "± points, median"], rows)


def leave_out_text(cells: Sequence[AdvisedCell], fits: Mapping[str, Mapping[str, float]], name: str) -> str:
    """Return a row for each network or set: the advice there with expectations fitted to all others."""
    rows = []
    for group, fit in fits.items():
        left = [cell for cell in cells if group in (cell.backbone, name_images(cell.case))]
        if not left:
            continue
        now = evaluate_advice(left)
        with set_constants(fit):
            fitted = evaluate_advice(left)
        rows.append([group])
        for results in (now, fitted):
            rows[-1] += [f"{average_regret(results):+.2f}"]
            for kind in ("within", "fine_tuned_within"):
                held = list(itertools.chain(*(getattr(r, kind) for r in results)))
                rows[-1].append(f"{held.count(True)} of {len(held)}")
        rows[-1].append(str(_compare(now, fitted)["advised"]))
    titles = ("regret", "advised within", "fine-tuned within")
    head = [f"{name} left out", *(f"{title}, {which}" for which in ("as it is", "fitted") for title in titles)]
    return text_table([*head, "advised differs"], rows)


def name_images(case: str) -> str:
    """Return the name of the images of a case, however many.

    Examples
    --------
    >>> name_images("office31/amazon@10"), name_images("flowers12")
    ('amazon', 'flowers12')
    """
    return case.rpartition("/")[2].partition("@")[0]
