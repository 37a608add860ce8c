"""Console text of each command: result dictionaries as plain-text tables."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from statistics import fmean, stdev
from typing import Any

from transfer.config.adapt import format_shift
from transfer.evaluation.label_free.describe import describe_expected
from transfer.report.label_scores import list_label_tables
from transfer.runs.seeds import score_text as score_text
from transfer.runtime.escape import escape_unprintable
from transfer.runtime.time_limit import FIT_INTO_LIMIT

UNMEASURED = "no target labels: accuracy is not measured"
RUN_TABLE_SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "calibration_error")  # in the table of a run


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[str] = ()) -> str:
    """Return a table whose first column, and those named in `words`, are aligned left and the others right.

    Examples
    --------
    >>> print(text_table(["policy", "object"], [["full", "0.9"], ["scratch", "0.25"]]))
    policy   object
    full        0.9
    scratch    0.25
    """
    cells_by_row = [[escape_unprintable(str(cell)) for cell in row] for row in [head, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells_by_row, strict=True)]
    lefts = [i == 0 or name in words for i, name in enumerate(head)]
    lines = []
    for row in cells_by_row:
        cells = [cell.ljust(w) if left else cell.rjust(w) for cell, w, left in zip(row, widths, lefts, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def mean_sd_text(values: Sequence[float], form: str = ".3f") -> str:
    """Return the mean and standard deviation of `values`; a single value alone, ``-`` if there is none.

    Examples
    --------
    >>> mean_sd_text([0.75, 0.25]), mean_sd_text([0.5], "+.1f"), mean_sd_text([])
    ('0.500 ± 0.354', '+0.5', '-')
    """
    if not values:
        return "-"
    return f"{fmean(values):{form}}" + (f" ± {stdev(values):{form.lstrip('+')}}" if len(values) > 1 else "")


def run_text(result: dict[str, Any]) -> str:
    """Return what `transfer train` and `transfer evaluate` print."""
    heads = result.get("test", {})
    rows = []
    for name, report in heads.items():
        if "map" in report:
            continue
        if "r2" in report:
            rows.append([name, f"R2 {report['r2']:.3f}", f"MAE {report['mae']:.4g}", "-", "-", str(int(report["n"]))])
        elif report.get("n") and "accuracy" not in report:  # a head kind with scores of its own
            values = [f"{key} {value:.4g}" for key, value in report.items() if isinstance(value, float) and key != "n"]
            rows.append([name, *(*values, "-", "-", "-", "-")[:4], str(int(report["n"]))])
        else:
            scores = [score_text(result, name, score) for score in RUN_TABLE_SCORES]
            rows.append([name, *scores, str(int(report.get("n", 0)))])
    columns = ["test", "accuracy", "balanced", "macro-F1", "calibration error", "n"]
    parts = [text_table(columns, rows)] if rows else []
    parts += [text_table(*table) for table in list_label_tables(result)]
    expected = _expected_accuracy(result)
    if expected and not any(report.get("n") for report in heads.values()):
        parts = []
    parts = [*parts, *expected] or ["no test images"]
    if len(result.get("per_domain", {})) > 1:
        names = list(heads)
        by_domain = [
            [
                domain,
                *(next((f"{r[n][s]:.3f}" for s in ("accuracy", "map") if s in r.get(n, {})), "-") for n in names),
                str(int(r[names[0]]["n"])),
            ]
            for domain, r in result["per_domain"].items()
        ]
        parts.append(text_table(["domain", *names, "n"], by_domain))
    if "snapshots" in result:
        ensemble = ", ".join(f"{name} {score_text(result['snapshots'], name)}" for name in heads)
        parts.append(f"ensemble of {result['snapshots']['n']} snapshots: {ensemble}")
    parts += _uncertainty(result)
    if "policy" in result:
        parts.append(_policy(result))
    return "\n\n".join([*parts, *note_paragraph(result.get("notes", []))])


def _expected_accuracy(result: dict[str, Any]) -> list[str]:
    """Return a paragraph on the accuracy that is expected of each head without labels."""
    records = result.get("expected_accuracy", {}).items()
    lines = [line for name, record in records for line in describe_expected(name, record, result["test"].get(name, {}))]
    return ["\n".join(lines)] if lines else []


def _uncertainty(result: dict[str, Any], coverage: str = "0.9") -> list[str]:
    """Return a line on prediction sets of this `coverage` for each head that is wrong more often than that."""
    lines = []
    for name, report in result.get("uncertainty", {}).get("heads", {}).items():
        measured, alone = report["sets"][coverage], result["test"].get(name, {}).get("accuracy", 1.0)
        if alone < float(coverage):
            lines.append(
                f"{name}: sets of {measured['size']:.1f} classes on average contain the true one in "
                f"{measured['coverage']:.1%} of the test images (predict --coverage {coverage})"
            )
    unknown = result.get("uncertainty", {}).get("unknown", {})
    if unknown.get("auroc"):
        lines.append(
            f"images of no known class: score {unknown['score']}, AUROC {unknown['auroc'][unknown['score']]:.3f} on "
            "classes left out of training (predict: object_unknown)"
        )
    return ["\n".join(lines)] if lines else []


def note_paragraph(notes: Iterable[str]) -> list[str]:
    """Return the notes as one paragraph, a line each; no paragraph if there is none."""
    lines = "\n".join(f"note: {escape_unprintable(note)}" for note in notes)
    return [lines] if lines else []


def _policy(result: dict[str, Any]) -> str:
    policy = result["policy"]
    frozen = "bit-identical" if policy["frozen_unchanged"] else f"CHANGED: {', '.join(policy['moved'][:3])}"
    lines = [
        f"{policy['trained_parameters']:,} parameters trained, {policy['frozen_parameters']:,} frozen ({frozen}); "
        f"{result['seconds']['total']:.1f} s, of which {result['seconds']['trunk']:.1f} s in the frozen trunk"
    ]
    if policy.get("dropped"):
        lines.append(f"stages dropped: {', '.join(policy['dropped'])}")
    if any(phase.get("by_stage") for phase in policy.get("phases", [])):
        for fitted in result["epochs"].values():
            lines += [f"{head}: mean of the probes on {', '.join(members)}" for head, members in fitted[0].items()]
        return "\n".join(lines)
    for head, selected in policy.get("kept", {}).items():
        stages = ", ".join(f"{stage} {count}" for stage, count in selected["features"].items() if count)
        lines.append(f"{head}: uses {selected['percent']:g} % of the features: {stages}")
    return "\n".join(lines)


def adaptation_text(result: dict[str, Any]) -> str:
    """Return what `transfer adapt` prints."""
    rows = [
        [name, *(score_text(result, "object", score, part) for score in ("accuracy", "macro_f1", "calibration_error"))]
        for name, part in (("source only", "source_only"), ("adapted", "target"))
    ]
    chosen, shift = result["selection"], result["config"]["shift"]
    names = chosen["chosen"] if isinstance(chosen["chosen"], list) else [chosen["chosen"]]
    selection = f"chosen without target labels (--rule {chosen['rule']}): method {', '.join(dict.fromkeys(names))}"
    if chosen["oracle_accuracy"] is not None:
        selection += f"; best candidate by target labels (oracle, unknown in practice): {chosen['oracle_accuracy']:.3f}"
    images, domains = result["images"], f"{' -> '.join(format_shift(shift))} ({shift['protocol']})"
    target = f"{images['target']} unlabelled and {images['target_labelled']} labelled target images"
    parts = [
        f"{domains}: {images['source']} labelled source images, {target}, {images['test']} test images",
        text_table(["target", "accuracy", "macro-F1", "calibration error"], rows)
        if result["target"]["object"].get("n")
        else UNMEASURED,
        *_changes(result),
        selection,
        "\n  ".join(["shift, estimated without target labels:", *shift_lines(result)]),
        _policy(result),
    ]
    return "\n\n".join([*parts, *note_paragraph(result.get("notes", []))])


def _changes(result: dict[str, Any], most: int = 3) -> list[str]:
    """Return the difference in accuracy, and the objects with the largest gains and losses."""
    if not result["paired"]:
        return []
    against = result["paired"]["object"]
    low, high = against["interval"]
    overall = f"adapted - source only: {against['difference']:+.3f} [{low:+.3f}, {high:+.3f}], p {against['p']:.2g}"
    changes = list(result["per_class_change"].items())
    gained = [item for item in changes[:most] if item[1]["change"] > 0]
    lost = [item for item in changes[-most:] if item[1]["change"] < 0]
    rows = [
        [name, f"{c['source_only']:.3f}", f"{c['adapted']:.3f}", f"{c['change']:+.3f}", str(c["n"])]
        for name, c in gained + lost
    ]
    head = ["largest gains and losses", "source only", "adapted", "change", "n"]
    return [overall, *([text_table(head, rows)] if rows else [])]


def shift_lines(result: dict[str, Any]) -> list[str]:
    """Return what is estimated of the domain shift, for the console and the page: a line for each estimate.

    Beside an estimate stands what the target's labels say, where they are known.
    """
    lines, shift, labels = [], result["shift"], result.get("shift_by_labels", {})
    before, after = (shift["a_distance"].get(when) for when in ("before", "after"))
    if before is not None:
        change = "" if after is None else f", {after:.2f} after"
        scale = "0: indistinguishable, 2: perfectly separable; it says nothing about classes"
        lines.append(f"proxy A-distance of the domains {before:.2f} before{change} ({scale})")
    verdict = "a strong label shift" if shift["strong"] else "no more than errors of the estimate explain"
    if not shift.get("reliable", True):
        verdict = "not believed, since the source classifier knows too little about the target"
    true = f" (by its labels {labels['total_variation']:.2f})" if "total_variation" in labels else ""
    estimate = shift["total_variation"]["em"]
    lines.append(f"class proportions differ by about {estimate:.2f}{true}, {verdict}")
    if shift.get("estimated_accuracy") is not None:
        lines.append(f"estimated accuracy of a standardised source classifier: {shift['estimated_accuracy']:.0%}")
    if shift.get("absent"):
        lines.append(f"probably absent from the target: {', '.join(shift['absent'])}")
    if shift.get("open_set"):
        share = labels.get("new_objects")
        true = f"{share:.0%} of its images do" if share else "none do"
        by_labels = "" if share is None else f" (by its labels {true})"
        lines.append(f"images of the target may show objects that the source lacks{by_labels}")
    return lines


def backbone_lines(rows: Iterable[Any]) -> Iterator[str]:
    """Yield a line per backbone for `transfer backbones PATTERN`, each as soon as it is known."""
    yield f"{'backbone':<48} {'parameters':>12} {'width':>6} {'stages':>6}  {'licence':<12}  weights"
    for row in rows:
        licence = row.licence or "not stated"
        yield f"{row.name:<48} {row.parameters:>12,} {row.width:>6} {row.stages:>6}  {licence:<12}  {row.where}"


def shortlist_lines(rows: Iterable[Any]) -> Iterator[str]:
    """Yield what `transfer backbones` prints: a line per :class:`transfer.backbones.shortlist.ShortlistRow`."""
    form = "{:<40} {:>10} {:>11} {:>8} {:>5}  {:<14}  {}"
    yield form.format("backbone", "ImageNet %", "parameters", "images/s", "size", "licence", "weights")
    for row in rows:
        top1 = f"{row.top1:.1f}" if row.top1 is not None else "-"
        other_size = row.top1_size not in (None, row.size)
        rate = ("" if row.measured else "~") + (f"{row.rate:.1f}" if row.rate < 10 else f"{row.rate:,.0f}")
        shown = row.backbone
        yield form.format(
            shown.name,
            f"{top1} ({row.top1_size})" if other_size else top1,
            f"{shown.parameters:,}",
            rate,
            row.size,
            shown.licence or "not stated",
            shown.where,
        ).rstrip()
    yield "ImageNet %: top-1 accuracy in the provider's results (image size, if another); -: not trained on its labels"
    yield "images/s: of the frozen network on this machine, measured; ~: modelled from its multiply-adds"
    yield "weights: store: in $TRANSFER_WEIGHTS; bundle: in this package; hub: downloaded when first used"
    yield "all backbones: transfer backbones '*'"


def comparison_text(result: dict[str, Any]) -> str:
    """Return what `transfer compare` prints: a row per policy, with a paired test against the first.

    A note follows for each policy that a time limit shortened.
    """
    rows = []
    labels = [h for run in result["runs"].values() for h, report in run["test"].items() if "map" in report]
    tests = [run["test"] for run in result["runs"].values()]
    heads = [h for h in dict.fromkeys(["object", "domain", *labels]) if any(h in test for test in tests)]
    tested = next(
        (head for test in result["paired"].values() for head in ("object", *labels) if head in test), "object"
    )
    for name, run in result["runs"].items():
        verdict = paired_test_text(result["paired"].get(name, {}).get(tested))
        trained, seconds = run["policy"]["trained_parameters"], run["seconds"]["total"]
        scores = [score_text(run, head, "map" if "map" in run["test"].get(head, {}) else "accuracy") for head in heads]
        rows.append([name, *scores, f"{trained:,}", f"{seconds:.1f}", verdict])
    against = f"{tested} - {result['against']}"
    table = text_table(["policy", *heads, "trainable params", "seconds", against], rows)
    notes = [(name, note) for name, run in result["runs"].items() for note in run["notes"]]
    shortened = [f"{name}: {note}" for name, note in notes if note.endswith(FIT_INTO_LIMIT)]
    return "\n\n".join([table, *note_paragraph(shortened)])


def paired_test_text(test: dict[str, Any] | None) -> str:
    """Return a paired test (:func:`transfer.evaluation.paired.paired_test`) in short; ``-`` if there is none.

    A test without a p-value is its difference and interval.

    Examples
    --------
    >>> paired_test_text({"difference": 0.012, "interval": [-0.001, 0.025], "p": 0.0731})
    '+0.012 [-0.001, +0.025] p 0.073'
    """
    if not test:
        return "-"
    low, high = test["interval"]
    p = f" p {test['p']:.2g}" if "p" in test else ""
    return f"{test['difference']:+.3f} [{low:+.3f}, {high:+.3f}]{p}"


def cache_text(entries: Sequence[Any]) -> str:
    """Return what `transfer cache` prints: a row per :class:`transfer.disk_cache.CacheEntry`."""
    rows = []
    for entry in entries:
        about = entry.about
        view = f", view {about['view']['number']}" if about.get("view") else ""
        name = f"{about['backbone']} to {about['stage']}{view}" if "backbone" in about else entry.kind
        used = datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
        rows.append([name, about.get("precision", ""), f"{entry.rows:,}", f"{entry.bytes / 1e6:,.1f}", used])
    total = f"{sum(entry.bytes for entry in entries) / 1e6:,.1f}"
    return text_table(["cached", "precision", "images", "MB", "last used"], [*rows, ["total", "", "", total, ""]])
