"""What `transfer train`, `evaluate` and `compare` print."""

from typing import Any

from transfer.evaluation.label_free.describe import describe_expected
from transfer.report.console.tables import explain_intervals, note_paragraph, paired_test_text, text_table
from transfer.report.label_scores import list_label_tables
from transfer.runs.seeds import score_text
from transfer.runtime.time_limit import FIT_INTO_LIMIT

RUN_TABLE_SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "calibration_error")  # in the table of a run


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
    parts = [explain_intervals(text_table(columns, rows))] if rows else []
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
        parts.append(policy_text(result))
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


def policy_text(result: dict[str, Any]) -> str:
    """Return how many parameters a run trained and froze, its seconds, and what its policy chose."""
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
    table = explain_intervals(text_table(["policy", *heads, "trainable params", "seconds", against], rows))
    notes = [(name, note) for name, run in result["runs"].items() for note in run["notes"]]
    shortened = [f"{name}: {note}" for name, note in notes if note.endswith(FIT_INTO_LIMIT)]
    return "\n\n".join([table, *note_paragraph(shortened)])
