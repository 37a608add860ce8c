"""What `transfer advise` found -> text."""

from typing import Any

from transfer.advice.requirements import format_duration
from transfer.report.text import table

SHOWN = 5  # suspects by name
SCORES = {"logme": "LogME", "hscore": "H-score", "leep": "LEEP", "nce": "NCE"}


def advised(result: dict[str, Any]) -> str:
    """Return what `transfer advise` prints."""
    told, probes = result["advice"], result["probes"]
    best, second = told["best"], told["runner_up"]
    distance, stages = result["similarity"]["distance"], list(result["neighbours"])
    fits = {name: score for name, score in result["transferability"].items() if score is not None}

    def probe(policy: str) -> str:
        return f"{probes[policy]['accuracy']:.3f}" if policy in probes else "-"

    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in told["settings"].items())
    if len(result["backbones"]) > 1:
        options = f"--backbone {result['backbones'][0]['name']} {options}"
    parts = [
        "\n".join(told["reasons"]),
        table(
            ["policy", "expected", "95 %", "cross-validated", "trainable params", "head params", "time"],
            [
                [
                    c["policy"],
                    f"{c['accuracy']:.3f}",
                    "{:.3f} to {:.3f}".format(*c["interval"]),
                    probe(c["policy"]) if c["measured"] else "no",
                    f"{c['trained']:,}",
                    f"{c['head']:,}",
                    format_duration(c["seconds"]),
                ]
                for c in told["ranked"]
            ],
        ),
        table(
            ["stage", "norm distance (nats)", "nearest neighbours", "linear probe"],
            [
                [
                    stage,
                    f"{distance[stage]:.2f}" if stage in distance else "-",
                    f"{result['neighbours'][stage]:.3f}",
                    probe(f"truncate:{above}" if above else "linear_probe"),
                ]
                for above, stage in zip(range(len(stages) - 1, -1, -1), stages, strict=True)
            ],
        ),
        "how the last features, and the original classes, fit the labels: "
        + ", ".join(f"{SCORES[name]} {score:.2f}" for name, score in fits.items()),
        f"{told['case']}: {options}\n{_how(told['how'])}\n"
        f"expect {best['accuracy']:.3f} of objects right ({best['interval'][0]:.3f} to {best['interval'][1]:.3f}); "
        f"considered next: {second['policy']}, {second['accuracy']:.3f}",
    ]
    if len(result["backbones"]) > 1:
        rows = [
            [
                b["name"],
                *(f"{b[score]:.3f}" for score in ("logme", "linear_probe", "accuracy")),
                b["policy"],
                f"{1 / b['look']:.0f}",
                format_duration(b["seconds"]),
            ]
            for b in result["backbones"]
        ]
        parts.append(table(["backbone", "LogME", "probe", "expected", "with", "images/s", "time"], rows))
    suspects = result["noise"]["suspects"]
    if suspects:
        said = [f"{s['path']}: {s['label']}, more likely {s['called']}" for s in suspects[:SHOWN]]
        more = f"\nand {len(suspects) - SHOWN} more in advice.json" if len(suspects) > SHOWN else ""
        parts.append("labels to look at again:\n" + "\n".join(said) + more)
    parts += [f"note: {note}" for note in result["notes"]]
    if result.get("run"):
        report = result["run"]["test"].get("object")
        parts.append(
            f"carried out: {report['accuracy']:.3f} of {int(report['n'])} test images right"
            if report
            else "carried out, with no labelled test images to judge it by"
        )
    return "\n\n".join(parts)


def _how(how: dict[str, Any]) -> str:
    """Return what learns, how fast and on what, in a sentence."""
    hidden = ", ".join(map(str, how["heads"]["hidden"]))
    heads = f"{how['heads']['kind']} heads{f' with layers of {hidden}' if hidden else ', linear'}"
    features = "all stages" if len(how["features"]) > 1 else how["features"][0]
    said = [f"{heads}, on features of {features}"]
    if how["learning"]:
        rates = f"at a rate of {how['backbone_lr']:g} at the top, heads at {how['lr']:g}"
        said.append(f"learning: {', '.join(how['learning'])}, {rates}")
    said.append(f"frozen: {', '.join(how['frozen'])}" if how["frozen"] else "nothing frozen")
    said += [f"dropped: {', '.join(how['dropped'])}"] if how["dropped"] else []
    return "; ".join([*said, f"augmentation: {how['augment']}"])
