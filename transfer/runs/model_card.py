"""The model card of a run, README.md in its folder: what people who meet the model elsewhere have to know of it.

Markdown with the header of Hugging Face's hub. It names no place on the machine that it was written on, and class names
can hold nothing that Markdown or YAML would take for more than a name.
"""

import html
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import PurePath, PureWindowsPath
from typing import Any

FEW = 10  # test images of a class, below which its recall says little
LISTED = 100  # class names in full
MARKER = "library_name: transfer"


def render_model_card(result: Mapping[str, Any], rows: Sequence[Mapping[str, str]] = ()) -> str:
    """Return the card of a run.

    Parameters
    ----------
    result : mapping
        As in result.json, of `transfer train` or `transfer adapt`.
    rows : sequence of mapping
        As in predictions.csv: what probability was stated, and whether the answer was right.
    """
    name = f"{result['backbone']['name']} on {_data(result)}"
    parts = [
        _header(result, name),
        f"# {words(name)}",
        f"Says which object a picture shows. Made by `transfer {result['command']}`, version "
        f"{result['versions']['transfer']}.",
        "## Data\n\n" + _images(result),
        "## How it learned\n\n" + _policy(result),
        "## How good it is\n\n" + _figures(result),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in _limits(result, rows)),
        "## Use\n\n" + USE,
    ]
    return "\n\n".join(parts) + "\n"


USE = """```
transfer predict RUN IMAGE...                       # RUN is this folder, or its model.safetensors alone
transfer export RUN --format onnx                   # or torch_export, safetensors, timm
```

`transfer.runs.checkpoint.load(path)` returns the networks; `model.safetensors` has preprocessing and class names."""


def words(text: str, most: int = 80) -> str:
    r"""Return `text` as one line of Markdown that shows just these characters.

    Examples
    --------
    >>> words("bike_helmet <b>"), words("[a](http://b)")
    ('bike\\_helmet &lt;b&gt;', '\\[a\\]\\(http\\://b\\)')
    """
    flat = " ".join(plain(text).split())
    flat = flat if len(flat) <= most else flat[: most - 1] + "…"
    return re.sub(r"([\\`*_{}\[\]()#+!|~$^:@=-])", r"\\\1", html.escape(flat, quote=False))


def plain(text: str) -> str:
    """Return `text` without control, format and other invisible characters."""
    spaced = "".join(" " if letter.isspace() else letter for letter in text)
    return "".join(letter for letter in spaced if unicodedata.category(letter) not in HIDDEN)


HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn")


def _data(result: Mapping[str, Any]) -> str:
    """Return the name of the set of images, without the folder that it lies in."""
    config = result["config"]
    given = (config.get("data") or config.get("shift"))["data"]
    return PureWindowsPath(PurePath(given).name).name or "images"


def _measured(result: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    part = "target" if result["command"] == "adapt" else "test"
    return part, result.get(part) or {}


def _header(result: Mapping[str, Any], name: str) -> str:
    heads = _measured(result)[1]
    scores = [
        f"    - type: {score}\n      name: {json.dumps(f'{plain(head)} {score}', ensure_ascii=False)}\n"
        f"      value: {report[score]:.4f}"
        for head, report in heads.items()
        for score in ("accuracy", "macro_f1")
        if score in report
    ]
    lines = [
        "---",
        "# license: yours to choose, such as mit; the pretrained weights and the pictures have theirs",
        MARKER,
        "pipeline_tag: image-classification",
        "tags:\n- image-classification\n- transfer-learning",
    ]
    if scores:
        quoted = [json.dumps(plain(text), ensure_ascii=False) for text in (name, _data(result))]
        lines += [
            f"metrics:\n- accuracy\nmodel-index:\n- name: {quoted[0]}\n  results:\n  - task:\n"
            f"      type: image-classification\n    dataset:\n      name: {quoted[1]}\n      type: {quoted[1]}\n"
            "    metrics:",
            *scores,
        ]
    return "\n".join([*lines, "---"])


def _images(result: Mapping[str, Any]) -> str:
    images = result["images"]
    counts = ", ".join(f"{n} {part.replace('_', ' ')}" for part, n in images.items() if isinstance(n, int))
    lines = [f"{words(_data(result))}: {counts} images."]
    if "shift" in result["config"]:
        shift = result["config"]["shift"]
        lines.append(f"Labelled: {', '.join(map(words, shift['source']))}; without labels: {words(shift['target'])}.")
    for head, report in _measured(result)[1].items():
        names = list(report.get("per_class", ()))
        if names:
            listed = ", ".join(map(words, names[:LISTED])) + (", …" if len(names) > LISTED else "")
            lines.append(f"{words(head).capitalize()}, {len(names)} classes in test: {listed}.")
    return "\n\n".join(lines)


def _policy(result: Mapping[str, Any]) -> str:
    policy = result["policy"]
    frozen = "bit-identical to the pretrained ones" if policy["frozen_unchanged"] else "MOVED, which is a fault"
    lines = [
        f"Backbone `{result['backbone']['name']}`, policy `{policy['name']}`: {policy['trained_parameters']:,} "
        f"parameters learned, {policy['frozen_parameters']:,} frozen ({frozen})."
    ]
    if "selection" in result:
        chosen = result["selection"]["chosen"]
        taken = ", ".join(dict.fromkeys(chosen)) if isinstance(chosen, list) else chosen
        rule = words(result["selection"]["rule"])
        lines.append(f"Adapted by {words(taken)}, which the rule {rule} chose without target labels.")
    seeds = [run["seed"] for run in result.get("seeds", ())] or [result["config"]["run"]["seed"]]
    lines.append(
        f"Seeds: {', '.join(map(str, seeds))}" + ("; the model is the first one's." if len(seeds) > 1 else ".")
    )
    return " ".join(lines)


def _figures(result: Mapping[str, Any]) -> str:
    part, heads = _measured(result)
    if not any("n" in report and len(report) > 1 for report in heads.values()):
        return "Not measured: there were no labelled test images."
    lines = ["| head | accuracy | macro-F1 | images |", "|---|---|---|---|"]
    for head, report in heads.items():
        figures = [_figure(result, part, head, score) for score in ("accuracy", "macro_f1")]
        figures = [f"R2 {report['r2']:.3f}", "-"] if "r2" in report else figures
        lines.append(f"| {words(head)} | {' | '.join(figures)} | {int(report.get('n', 0))} |")
    if "source_only" in result:
        before = [_figure(result, "source_only", "object", score) for score in ("accuracy", "macro_f1")]
        lines.append(f"| object, without adapting | {' | '.join(before)} | |")
    where = "pictures held out" if part == "test" else "pictures of the target, whose labels it did not learn from"
    spread = "mean ± standard deviation over seeds" if "sd" in result else "95 % bootstrap intervals in brackets"
    lines.append(f"\nOn {where}; {spread}.")
    if len(result.get("per_domain", {})) > 1:
        each = [
            f"{words(domain)} {report['object']['accuracy']:.3f} of {int(report['object']['n'])}"
            for domain, report in result["per_domain"].items()
            if "accuracy" in report.get("object", {})
        ]
        lines.append(f"\nObjects by domain: {', '.join(each)}.")
    return "\n".join(lines)


def _figure(result: Mapping[str, Any], part: str, head: str, score: str) -> str:
    report = result[part].get(head, {})
    if score not in report:
        return "-"
    if "sd" in result:
        return f"{report[score]:.3f} ± {result['sd'][part][head][score]:.3f}"
    low, high = report.get("interval", {}).get(score, (None, None))
    return f"{report[score]:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def _limits(result: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> list[str]:
    said = ["It gives every picture one of its classes, also one that shows none of them."]
    domains = list(result.get("per_domain", ()))
    if len(domains) > 1:
        said.append(
            f"It was measured on {', '.join(map(words, domains))}; of pictures from elsewhere nothing is known."
        )
    elif result["command"] == "adapt":
        target = words(result["config"]["shift"]["target"])
        said.append(f"It is for pictures of {target}; of others nothing is known.")
    else:
        said.append("It was measured on pictures like those it learned from; of others nothing is known.")
    for name, count in result["images"].get("rarest", {}).items():
        said.append(f"Fewest pictures to learn from: {words(name)}, {count}.")
    said += _classes(_measured(result)[1].get("object", {}).get("per_class", {}))
    sure = [float(row["object_probability"]) for row in rows if row.get("object")]
    if sure:
        right = [row["object"] == row["object_predicted"] for row in rows if row.get("object")]
        said.append(
            f"Its probabilities: on {len(sure)} test pictures it claims {sum(sure) / len(sure):.0%} on average, and is "
            f"right in {sum(right) / len(right):.0%}."
        )
    return said + [words(_without_paths(note), 300) for note in result.get("notes", ())]


def _classes(per_class: Mapping[str, Mapping[str, Any]]) -> list[str]:
    few = [name for name, report in per_class.items() if 0 < report.get("n", 0) < FEW]
    recall = {name: r["recall"] for name, r in per_class.items() if r.get("recall") is not None and name not in few}
    said = []
    if few:
        some = ", ".join(map(words, few[:LISTED])) + (", …" if len(few) > LISTED else "")
        said.append(f"Fewer than {FEW} test pictures, so that little is known of them: {some}.")
    if len(recall) > 3:
        worst = sorted(recall, key=lambda name: recall[name])[:3]
        said.append("Least often recognised: " + ", ".join(f"{words(name)} {recall[name]:.0%}" for name in worst) + ".")
    return said


def _without_paths(note: str) -> str:
    """Return a note, cut where it begins to name files."""
    return note.partition(":")[0] if re.search(r"[/\\]", note) else note
