"""Console text of `transfer advise`."""

from pathlib import Path
from typing import Any

from transfer.advice.requirements import format_duration
from transfer.report.command_line import recommended_command
from transfer.report.console.tables import note_paragraph, text_table
from transfer.runs.folder import ADVICE_FILE

MAX_SUSPECTS = 5  # suspected label errors that are listed; advice.json has all
SCORE_NAMES_OF_FEATURES = {"logme": "LogME", "hscore": "H-score", "leep": "LEEP", "nce": "NCE"}


def advice_text(result: dict[str, Any]) -> str:
    """Return what `transfer advise` prints."""
    advice = result["advice"]
    best, second = advice["best"], advice["runner_up"]
    measured = result["transferability"]
    scores = [
        f"{name} not measurable" if measured.get(key) is None else f"{name} {measured[key]:.2f}"
        for key, name in SCORE_NAMES_OF_FEATURES.items()
    ]
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in advice["settings"].items())
    if len(result["backbones"]) > 1:
        options = f"--backbone {result['backbones'][0]['name']} {options}"
    parts = [
        *_better_backbone(result),
        "\n".join(advice["reasons"]),
        _policy_table(advice["ranked"], result["probes"]),
        _stage_table(result),
        "transferability of the last features (LogME, H-score) and the original classes (LEEP, NCE): "
        + ", ".join(scores),
        f"the set is {advice['case']}; advised: {options}\n{_plan_sentence(advice['how'])}\n"
        f"expected object accuracy {best['accuracy']:.3f} ({best['interval'][0]:.3f} to {best['interval'][1]:.3f}); "
        f"second choice: {second['policy']}, {second['accuracy']:.3f}",
    ]
    if len(result["backbones"]) > 1:
        parts.append(_backbone_table(result["backbones"]))
    suspects, better = result["noise"]["suspects"], _better_backbone(result)
    if suspects and better:
        parts.append(f"labels to check: not listed, because {result['others'][0]['name']} predicts them better")
    elif suspects:
        lines = [f"  {s['path']}: {s['label']}, more likely {s['called']}" for s in suspects[:MAX_SUSPECTS]]
        out = result["config"]["train"]["run"]["out"]
        where = f"in {Path(out) / ADVICE_FILE}" if out else f"({ADVICE_FILE} has all of them with --out DIR)"
        lines += [f"  and {len(suspects) - MAX_SUSPECTS} more {where}"] if len(suspects) > MAX_SUSPECTS else []
        parts.append("labels to check:\n" + "\n".join(lines))
    parts += note_paragraph(result["notes"])
    if result.get("run"):
        metrics = result["run"]["test"].get("object")
        parts.append(
            f"trained as advised: object accuracy {metrics['accuracy']:.3f} on {int(metrics['n'])} test images"
            if metrics
            else "trained as advised; no labelled test images to evaluate on"
        )
    elif better:
        parts.append(f"with {result['backbone']['name']}: {recommended_command(result, 'as_requested')}")
    return "\n\n".join(parts)


def _better_backbone(result: dict[str, Any]) -> list[str]:
    """Return that another backbone is better, where one is; it is the first of the others."""
    for row in result["others"]:
        if row["better"]:
            return [
                f"another backbone on this machine is better: a linear probe on {row['name']} ({row['weights']}) has "
                f"{row['accuracy']:.1%} of {row['images']} images correct, {result['backbone']['name']} at its best "
                f"{row['against']:.1%} (the difference is known to {100 * row['error']:.1f} points, 95 %)"
            ]
    return []


def _probe_text(probes: dict[str, Any], policy: str) -> str:
    return f"{probes[policy]['accuracy']:.3f}" if policy in probes else "-"


def _policy_table(ranked: list[dict[str, Any]], probes: dict[str, Any]) -> str:
    """Return a row per policy that was considered: expected accuracy, how it is known, and cost."""
    rows = [
        [
            c["policy"],
            f"{c['accuracy']:.3f}",
            "{:.3f} to {:.3f}".format(*c["interval"]),
            _probe_text(probes, c["policy"]) if c["measured"] else "no",
            f"{c['trained']:,}",
            f"{c['head']:,}",
            format_duration(c["seconds"]),
        ]
        for c in ranked
    ]
    head = ["policy", "expected", "95 %", "cross-validated", "trainable params", "head params", "time"]
    return text_table(head, rows)


def _stage_table(result: dict[str, Any]) -> str:
    """Return a row per stage: shift of its normalisation statistics, and accuracy of its features."""
    distance, stages = result["similarity"]["distance"], list(result["neighbours"])
    rows = [
        [
            stage,
            f"{distance[stage]:.2f}" if stage in distance else "-",
            f"{result['neighbours'][stage]:.3f}",
            _probe_text(result["probes"], f"truncate:{above}" if above else "linear_probe"),
        ]
        for above, stage in zip(range(len(stages) - 1, -1, -1), stages, strict=True)
    ]
    return text_table(["stage", "norm distance (nats)", "nearest neighbours", "linear probe"], rows)


def _backbone_table(backbones: list[dict[str, Any]]) -> str:
    rows = [
        [
            b["name"],
            f"{b['linear_probe']:.3f}",
            "{:.3f} to {:.3f}".format(*b["interval"]),
            f"{100 * b['behind']:.1f} ± {100 * b['error']:.1f}" if b["error"] else "-",
            f"{b['loss']:.3f}",
            f"{b['logme']:.3f}",
        ]
        for b in backbones
    ]
    return text_table(["backbone", "linear probe", "95 %", "points behind", "loss (nats)", "LogME"], rows)


def _plan_sentence(how: dict[str, Any]) -> str:
    """Return which layers are trained, how fast and on which features, in a sentence."""
    hidden = ", ".join(map(str, how["heads"]["hidden"]))
    heads = f"{how['heads']['kind']} {f'MLP heads ({hidden})' if hidden else 'linear heads'}"
    features = "all stages" if len(how["features"]) > 1 else how["features"][0]
    parts = [f"{heads} on features of {features}"]
    if how["learning"]:
        rates = f"rate {how['backbone_lr']:g} at the top stage, {how['lr']:g} for the heads"
        parts.append(f"trained: {', '.join(how['learning'])}, {rates}")
    parts.append(f"frozen: {', '.join(how['frozen'])}" if how["frozen"] else "nothing frozen")
    parts += [f"dropped: {', '.join(how['dropped'])}"] if how["dropped"] else []
    return "; ".join([*parts, f"augmentation: {how['augment']}"])
