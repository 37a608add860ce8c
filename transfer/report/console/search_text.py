"""Console text of `transfer search` and `transfer lr-find`: the best trials, and the suggested learning rates."""

from typing import Any

from transfer.report.console.run_text import run_text
from transfer.report.console.tables import note_paragraph, text_table

SHOWN_TRIALS = 10


def search_text(result: dict[str, Any]) -> str:
    """Return what `transfer search` prints: its best trials and the importance of settings."""
    best = result["best"]
    names, heads = list(best["settings"]), list(best["val"])
    rows = []
    for record in sorted(result["trials"], key=lambda r: -r["val_acc"])[:SHOWN_TRIALS]:
        scores = [f"{record['val'][head]:.3f}" if head in record["val"] else "-" for head in heads]
        settings = [_number(record["settings"][name]) for name in names]
        row = [str(record["trial"]), f"{record['val_acc']:.4f}", *scores, *settings]
        rows.append([*row, record["stage"], str(record["epochs"])])
    parts = [text_table(["trial", "val_acc", *heads, *names, "stage", "epochs"], rows)]
    early = sum(record["stopped"] == "halving" for record in result["trials"])
    count, seconds = len(result["trials"]), sum(record["seconds"] for record in result["trials"])
    trials = f"{count} trial{'s' * (count != 1)}"
    parts.append(f"{trials} in {seconds:.1f} s, {early} stopped early; best: trial {best['trial']}")
    parts.append(f"selection: {result['selection']['rule']}")
    if result["importance"]:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in result["importance"].items())
        parts.append(f"importance of each setting: {shares}")
    repeated = result["final"]["notes"] if result["final"] else []
    parts += note_paragraph(note for note in result["notes"] if note not in repeated)
    if result["final"]:
        parts += ["trained once with the best settings, then tested:", run_text(result["final"])]
    else:
        parts.append("no test image was used; --final trains with the best settings and tests once")
    parts += _solved_probe(result, f"; the best trial: {best['val_acc']:.3f}")
    return "\n\n".join(parts)


def lr_find_text(result: dict[str, Any]) -> str:
    """Return what `transfer lr-find` prints: the suggested learning rates."""
    rows = [[name.replace("_", " "), f"{result[name]:.3g}"] for name in ("steepest", "minimum_over_ten")]
    parts = [text_table(["rate", ""], rows)]
    parts += note_paragraph(result["notes"])
    parts += _solved_probe(result, "")
    return "\n\n".join([*parts, f"suggested: --lr {result['suggestion']:.2g}"])


def _solved_probe(result: dict[str, Any], beside: str) -> list[str]:
    """Return what a solved linear probe reaches, with text `beside` it; nothing where it was not measured."""
    probe = result["solved_probe"]
    if not probe:
        return []
    heads = ", ".join(f"{name} {score:.3f}" for name, score in probe["val"].items())
    return [
        f"a solved linear probe, which has no learning rate, reaches validation accuracy {probe['val_acc']:.3f} "
        f"({heads}) in {probe['seconds']:.1f} s{beside}"
    ]


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
