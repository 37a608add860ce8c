"""Result files -> text tables."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from math import nan
from statistics import fmean, stdev
from typing import Any

from transfer.runtime.escape import escape_unprintable


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with the first column left, the others right aligned.

    Examples
    --------
    >>> print(table(["policy", "object"], [["full", "0.9"], ["scratch", "0.25"]]))
    policy   object
    full        0.9
    scratch    0.25
    """
    every = [[escape_unprintable(str(cell)) for cell in row] for row in [head, *rows]]
    wide = [max(map(len, column)) for column in zip(*every, strict=True)]
    lines = []
    for row in every:
        cells = [f"{row[0]:<{wide[0]}}", *(f"{cell:>{w}}" for cell, w in zip(row[1:], wide[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def figure(result: dict[str, Any], head: str, score: str = "accuracy", part: str = "test") -> str:
    """Return one score of one head: ``0.894 ± 0.007`` over seeds, ``0.894 [0.87, 0.91]`` for one; ``-`` if missing."""
    report = result.get(part, {}).get(head, {})
    if score not in report:
        return "-"
    if "sd" in result:
        return f"{report[score]:.3f} ± {result['sd'][part][head][score]:.3f}"
    if score in report.get("interval", {}):
        low, high = report["interval"][score]
        return f"{report[score]:.3f} [{low:.3f}, {high:.3f}]"
    return f"{report[score]:.3f}"


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """Return mean and standard deviation of `values`, the only one as it is, ``-`` where there is none.

    Examples
    --------
    >>> spread([0.75, 0.25]), spread([0.5], "+.1f"), spread([])
    ('0.500 ± 0.354', '+0.5', '-')
    """
    if not values:
        return "-"
    return f"{fmean(values):{form}}" + (f" ± {stdev(values):{form.lstrip('+')}}" if len(values) > 1 else "")


def one_run(result: dict[str, Any]) -> str:
    """Return what `transfer train` and `transfer evaluate` print at the end."""
    heads = result.get("test", {})
    rows = []
    for name, report in heads.items():
        if "r2" in report:
            rows.append([name, f"R2 {report['r2']:.3f}", f"MAE {report['mae']:.4g}", "-", str(int(report["n"]))])
        else:
            scores = [figure(result, name, score) for score in ("accuracy", "balanced_accuracy", "macro_f1")]
            rows.append([name, *scores, str(int(report.get("n", 0)))])
    parts = [table(["test", "accuracy", "balanced", "macro-F1", "n"], rows)] if rows else ["no test images"]
    if len(result.get("per_domain", {})) > 1:
        names = list(heads)
        each = [
            [
                domain,
                *(f"{r[n]['accuracy']:.3f}" if "accuracy" in r.get(n, {}) else "-" for n in names),
                str(int(r[names[0]]["n"])),
            ]
            for domain, r in result["per_domain"].items()
        ]
        parts.append(table(["domain", *names, "n"], each))
    if "snapshots" in result:
        said = ", ".join(f"{name} {figure(result['snapshots'], name)}" for name in heads)
        parts.append(f"{result['snapshots']['n']} snapshots together: {said}")
    if "policy" in result:
        parts.append(_policy(result))
    return "\n\n".join([*parts, *_notes(result)])


def _notes(result: dict[str, Any]) -> list[str]:
    notes = "\n".join(f"note: {escape_unprintable(note)}" for note in result.get("notes", []))
    return [notes] if notes else []


def _policy(result: dict[str, Any]) -> str:
    policy = result["policy"]
    frozen = "bit-identical" if policy["frozen_unchanged"] else f"CHANGED: {', '.join(policy['moved'][:3])}"
    lines = [
        f"{policy['trained_parameters']:,} parameters trained, {policy['frozen_parameters']:,} frozen ({frozen}); "
        f"{result['seconds']['total']:.1f} s, of these {result['seconds']['trunk']:.1f} s through the frozen trunk"
    ]
    if policy.get("dropped"):
        lines.append(f"stages dropped: {', '.join(policy['dropped'])}")
    if any(phase.get("by_stage") for phase in policy.get("phases", [])):
        for fitted in result["epochs"].values():
            lines += [f"{head}: the mean of probes on {', '.join(members)}" for head, members in fitted[0].items()]
        return "\n".join(lines)
    for head, kept in policy.get("kept", {}).items():
        stages = ", ".join(f"{stage} {count}" for stage, count in kept["features"].items() if count)
        lines.append(f"{head} on {kept['percent']:g} % of the features: {stages}")
    return "\n".join(lines)


def adapted(result: dict[str, Any]) -> str:
    """Return what `transfer adapt` prints at the end."""
    rows = [
        [name, *(figure(result, "object", score, part) for score in ("accuracy", "macro_f1"))]
        for name, part in (("source only", "source_only"), ("adapted", "target"))
    ]
    chosen, shift = result["selection"], result["config"]["shift"]
    names = chosen["chosen"] if isinstance(chosen["chosen"], list) else [chosen["chosen"]]
    said = f"chosen by {chosen['rule']}: {', '.join(dict.fromkeys(names))}"
    if chosen["oracle_accuracy"] is not None:
        said += f"; oracle (best candidate by target labels, not to be had in use): {chosen['oracle_accuracy']:.3f}"
    images, way = result["images"], f"{', '.join(shift['source'])} -> {shift['target']} ({shift['protocol']})"
    target = f"{images['target']} without, {images['target_labelled']} of the target with, {images['test']} to test on"
    parts = [
        f"{way}: {images['source']} images with labels, {target}",
        table(["target", "accuracy", "macro-F1"], rows),
        *_changes(result),
        said,
        _shift(result["shift"]),
        _policy(result),
    ]
    return "\n\n".join([*parts, *_notes(result)])


def _changes(result: dict[str, Any], most: int = 3) -> list[str]:
    """Return what adapting changed: the difference in accuracy, and the objects that gained and lost most."""
    if not result["paired"]:
        return []
    against = result["paired"]["object"]
    low, high = against["interval"]
    whole = f"adapted - source only: {against['difference']:+.3f} [{low:+.3f}, {high:+.3f}], p {against['p']:.2g}"
    changes = list(result["per_class_change"].items())
    gained = [item for item in changes[:most] if item[1]["change"] > 0]
    lost = [item for item in changes[-most:] if item[1]["change"] < 0]
    rows = [
        [name, f"{c['source_only']:.3f}", f"{c['adapted']:.3f}", f"{c['change']:+.3f}", str(c["n"])]
        for name, c in gained + lost
    ]
    head = ["largest gains and losses", "source only", "adapted", "change", "n"]
    return [whole, *([table(head, rows)] if rows else [])]


def _shift(shift: dict[str, Any]) -> str:
    """Return what is estimated of the shift without target labels, in a line."""
    said = []
    before, after = (shift["a_distance"].get(when) for when in ("before", "after"))
    if before is not None and after is not None:
        said.append(f"proxy A-distance {before:.2f} before, {after:.2f} after")
    verdict = "a strong label shift" if shift["strong"] else "no more than misread images explain"
    said.append(f"class shares seem to differ by {shift['total_variation']['em']:.2f}, {verdict}")
    if shift.get("estimated_accuracy") is not None:
        said.append(f"a standardised source classifier is right on about {shift['estimated_accuracy']:.0%}")
    return f"shift, estimated without target labels: {'; '.join(said)}"


def crossed(result: dict[str, Any]) -> str:
    """Return the table of :func:`studies.cross.cross`: a row per policy and method, a column per pair."""
    rows = []
    pairs: list[str] = []
    for policy, methods in result["runs"].items():
        for method, runs in methods.items():
            pairs = list(runs)
            mean = fmean(run["target"]["object"].get("accuracy", nan) for run in runs.values())
            oracle = [run["selection"]["oracle_accuracy"] for run in runs.values()]
            rows.append(
                [
                    f"{policy} {method}",
                    *(figure(run, "object", part="target").partition(" [")[0] for run in runs.values()),
                    f"{mean:.3f}",
                    "-" if None in oracle else f"{fmean(oracle):.3f}",
                    f"{sum(run['seconds']['total'] for run in runs.values()):.0f}",
                ]
            )
    return table(["object accuracy on the target", *pairs, "mean", "oracle", "seconds"], rows)


def backbone_lines(rows: Iterable[Any]) -> Iterator[str]:
    """Yield a line per backbone, as `transfer backbones` prints them, each as soon as it is known."""
    yield f"{'backbone':<48} {'parameters':>12} {'width':>6} {'stages':>6}  weights"
    for row in rows:
        yield f"{row.name:<48} {row.parameters:>12,} {row.width:>6} {row.stages:>6}  {row.where}"


def compared(result: dict[str, Any]) -> str:
    """Return what `transfer compare` prints: a row per policy, and what separates each from the first."""
    rows = []
    for name, run in result["runs"].items():
        verdict = separated(result["paired"].get(name, {}).get("object"))
        trained, seconds = run["policy"]["trained_parameters"], run["seconds"]["total"]
        plain = [figure(run, head) for head in ("object", "domain")]
        rows.append([name, *plain, f"{trained:,}", f"{seconds:.1f}", verdict])
    return table(
        [
            "policy",
            "object",
            "domain",
            "trained parameters",
            "seconds",
            f"object against {result['against']}",
        ],
        rows,
    )


def separated(test: dict[str, Any] | None) -> str:
    """Return a paired test (:func:`transfer.evaluation.paired.paired_test`) in short; ``-`` where there is none.

    Examples
    --------
    >>> separated({"difference": 0.012, "interval": [-0.001, 0.025], "p": 0.0731})
    '+0.012 [-0.001, +0.025] p 0.073'
    """
    if not test:
        return "-"
    low, high = test["interval"]
    return f"{test['difference']:+.3f} [{low:+.3f}, {high:+.3f}] p {test['p']:.2g}"


def kept(shelves: Sequence[Any]) -> str:
    """Return what `transfer cache` prints of each :class:`transfer.disk_cache.ShelfInfo`."""
    rows = []
    for shelf in shelves:
        about = shelf.about
        view = f", view {about['view']['number']}" if about.get("view") else ""
        what = f"{about['backbone']} to {about['stage']}{view}" if "backbone" in about else shelf.kind
        used = datetime.fromtimestamp(shelf.last_used).strftime("%Y-%m-%d %H:%M")
        rows.append([what, about.get("precision", ""), f"{shelf.rows:,}", f"{shelf.bytes / 1e6:,.1f}", used])
    total = f"{sum(shelf.bytes for shelf in shelves) / 1e6:,.1f}"
    return table(["kept", "precision", "images", "MB", "last used"], [*rows, ["in all", "", "", total, ""]])
