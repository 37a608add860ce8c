"""The model card of a run: README.md in its folder, for people who find the model elsewhere.

Markdown with the header of the Hugging Face hub. It names no local paths, and class names are escaped for Markdown and
YAML.
"""

import html
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import PurePath, PureWindowsPath
from typing import Any

from transfer.config.adapt import format_shift
from transfer.errors import list_examples
from transfer.runs.seeds import score_text

MIN_IMAGES_FOR_RECALL = 10  # test images of a class, for its recall to be meaningful
MAX_LISTED_CLASSES = 100
MARKER = "library_name: transfer"


def render_model_card(result: Mapping[str, Any], rows: Sequence[Mapping[str, str]] = ()) -> str:
    """Return the card of a run from its `result`, as in result.json, of `transfer train` or `transfer adapt`.

    `rows`, as in predictions.csv, give probabilities and accuracy.
    """
    name = f"{result['backbone']['name']} on {_data(result)}"
    parts = [
        _header(result, name),
        f"# {escape_markdown(name)}",
        f"Predicts which {_what(result)} an image shows. Trained with `transfer {result['command']}`, version "
        f"{result['versions']['transfer']}.",
        "## Data\n\n" + _images(result),
        "## Training\n\n" + _policy(result),
        "## Evaluation\n\n" + _figures(result),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in _limits(result, rows)),
        "## Use\n\n" + USE,
    ]
    return "\n\n".join(parts) + "\n"


USE = """```
transfer predict RUN IMAGE...                       # RUN is this folder, or its model.safetensors alone
transfer export RUN --format onnx                   # or torch_export, safetensors, timm
```

`transfer.runs.checkpoint.load_models(path)` returns the networks; `model.safetensors` has preprocessing and classes."""


def escape_markdown(text: str, max_length: int = 80) -> str:
    r"""Return `text` as one line of escaped Markdown.

    Examples
    --------
    >>> escape_markdown("bike_helmet <b>"), escape_markdown("[a](http://b)")
    ('bike\\_helmet &lt;b&gt;', '\\[a\\]\\(http\\://b\\)')
    """
    flat = " ".join(remove_invisible(text).split())
    flat = flat if len(flat) <= max_length else flat[: max_length - 1] + "…"
    return re.sub(r"([\\`*_{}\[\]()#+!|~$^:@=-])", r"\\\1", html.escape(flat, quote=False))


def remove_invisible(text: str) -> str:
    """Return `text` without control, format and other invisible characters."""
    spaced = "".join(" " if letter.isspace() else letter for letter in text)
    return "".join(letter for letter in spaced if unicodedata.category(letter) not in INVISIBLE_CATEGORIES)


INVISIBLE_CATEGORIES = ("Cc", "Cf", "Cs", "Co", "Cn")


def _what(result: Mapping[str, Any]) -> str:
    heads = _measured(result)[1]
    return "object" if "object" in heads or not any("map" in report for report in heads.values()) else "labels"


def _data(result: Mapping[str, Any]) -> str:
    """Return the name of the data set, without its folder."""
    config = result["config"]
    given = (config.get("data") or config.get("shift"))["data"]
    return PureWindowsPath(PurePath(given).name).name or "images"


def _measured(result: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    part = "target" if result["command"] == "adapt" else "test"
    return part, result.get(part) or {}


def _header(result: Mapping[str, Any], name: str) -> str:
    heads = _measured(result)[1]
    scores = [
        f"    - type: {score}\n      name: {json.dumps(f'{remove_invisible(head)} {score}', ensure_ascii=False)}\n"
        f"      value: {report[score]:.4f}"
        for head, report in heads.items()
        for score in ("accuracy", "map", "macro_f1")
        if score in report
    ]
    lines = [
        "---",
        "# license: choose one, such as mit; the pretrained weights and the images have their own",
        MARKER,
        "pipeline_tag: image-classification",
        "tags:\n- image-classification\n- transfer-learning",
    ]
    if scores:
        listed = "\n".join(f"- {s}" for s in ("accuracy", "map") if any(s in report for report in heads.values()))
        quoted = [json.dumps(remove_invisible(text), ensure_ascii=False) for text in (name, _data(result))]
        lines += [
            f"metrics:\n{listed}\nmodel-index:\n- name: {quoted[0]}\n  results:\n  - task:\n"
            f"      type: image-classification\n    dataset:\n      name: {quoted[1]}\n      type: {quoted[1]}\n"
            "    metrics:",
            *scores,
        ]
    return "\n".join([*lines, "---"])


def _images(result: Mapping[str, Any]) -> str:
    images = result["images"]
    counts = ", ".join(f"{n} {part.replace('_', ' ')}" for part, n in images.items() if isinstance(n, int))
    lines = [f"{escape_markdown(_data(result))}: {counts} images."]
    if "shift" in result["config"]:
        shift = result["config"]["shift"]
        sources, target = (escape_markdown(names, max_length=400) for names in format_shift(shift))
        lines.append(f"Labelled: {sources}; unlabelled: {target}.")
    for head, report in _measured(result)[1].items():
        for what, key in (("classes", "per_class"), ("labels", "per_label")):
            if names := list(report.get(key, ())):
                counted = f"{escape_markdown(head).capitalize()}, {len(names)} {what} in test"
                lines.append(f"{counted}: {_list_classes(names)}.")
    return "\n\n".join(lines)


def _policy(result: Mapping[str, Any]) -> str:
    policy = result["policy"]
    frozen = "bit-identical to the pretrained weights" if policy["frozen_unchanged"] else "CHANGED, which is a bug"
    lines = [
        f"Backbone `{result['backbone']['name']}`, policy `{policy['name']}`: {policy['trained_parameters']:,} "
        f"parameters trained, {policy['frozen_parameters']:,} frozen ({frozen})."
    ]
    if licence := result["backbone"].get("licence"):
        lines.append(f"Licence of the pretrained weights: {escape_markdown(licence)}.")
    if "selection" in result:
        chosen = result["selection"]["chosen"]
        method = ", ".join(dict.fromkeys(chosen)) if isinstance(chosen, list) else chosen
        rule = escape_markdown(result["selection"]["rule"])
        lines.append(f"Adapted with {escape_markdown(method)}, chosen by the rule {rule} without target labels.")
    seeds = [run["seed"] for run in result.get("seeds", ())] or [result["config"]["run"]["seed"]]
    first = "; the model is that of the first seed" if len(seeds) > 1 else ""
    lines.append(f"Seeds: {', '.join(map(str, seeds))}{first}.")
    return " ".join(lines)


def _figures(result: Mapping[str, Any]) -> str:
    part, heads = _measured(result)
    if not any("n" in report and len(report) > 1 for report in heads.values()):
        return "Not measured: there were no labelled test images."
    column = "score" if any({"map", "r2"} & report.keys() for report in heads.values()) else "accuracy"
    lines = [f"| head | {column} | macro-F1 | images |", "|---|---|---|---|"]
    for head, report in heads.items():
        figures = [score_text(result, head, score, part) for score in ("accuracy", "macro_f1")]
        figures = [f"R2 {report['r2']:.3f}", "-"] if "r2" in report else figures
        figures = [f"mAP {score_text(result, head, 'map', part)}", figures[1]] if "map" in report else figures
        figures[0] = f"accuracy {figures[0]}" if column == "score" and "accuracy" in report else figures[0]
        lines.append(f"| {escape_markdown(head)} | {' | '.join(figures)} | {int(report.get('n', 0))} |")
    if "source_only" in result:
        before = [score_text(result, "object", score, "source_only") for score in ("accuracy", "macro_f1")]
        lines.append(f"| object, source only | {' | '.join(before)} | |")
    where = "held-out images" if part == "test" else "target images whose labels were not used in training"
    spread = "mean ± standard deviation over seeds" if "sd" in result else "95 % bootstrap intervals in brackets"
    lines.append(f"\nOn {where}; {spread}.")
    if len(result.get("per_domain", {})) > 1:
        by_domain = [
            f"{escape_markdown(domain)} {report['object']['accuracy']:.3f} of {int(report['object']['n'])}"
            for domain, report in result["per_domain"].items()
            if "accuracy" in report.get("object", {})
        ]
        lines.append(f"\nObject accuracy by domain: {', '.join(by_domain)}.")
    return "\n".join(lines)


def _limits(result: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> list[str]:
    limits = ["It assigns one of its classes to every image, even if the image shows none of them."]
    if _what(result) == "labels":
        limits = ["It knows its labels alone, each with a threshold that was chosen on images like those of training."]
    domains = list(result.get("per_domain", ()))
    if len(domains) > 1:
        measured = ", ".join(map(escape_markdown, domains))
        limits.append(f"It was measured on {measured}; accuracy on images from other sources is unknown.")
    elif result["command"] == "adapt":
        target = escape_markdown(result["config"]["shift"]["target"])
        limits.append(f"It is meant for images of {target}; accuracy on others is unknown.")
    else:
        limits.append("It was measured on images like those of training; accuracy on others is unknown.")
    for name, count in result["images"].get("rarest", {}).items():
        limits.append(f"Fewest training images: {escape_markdown(name)}, {count}.")
    limits += _classes(_measured(result)[1].get("object", {}).get("per_class", {}))
    confidence = [float(row["object_probability"]) for row in rows if row.get("object")]
    if confidence:
        correct = [row["object"] == row["object_predicted"] for row in rows if row.get("object")]
        limits.append(
            f"Calibration: on {len(confidence)} test images the mean confidence is "
            f"{sum(confidence) / len(confidence):.0%} and the accuracy {sum(correct) / len(correct):.0%}."
        )
    return limits + [escape_markdown(_without_paths(note), 300) for note in result.get("notes", ())]


def _classes(per_class: Mapping[str, Mapping[str, Any]]) -> list[str]:
    few = [name for name, report in per_class.items() if 0 < report.get("n", 0) < MIN_IMAGES_FOR_RECALL]
    recall = {name: r["recall"] for name, r in per_class.items() if r.get("recall") is not None and name not in few}
    limits = []
    if few:
        rare = f"Fewer than {MIN_IMAGES_FOR_RECALL} test images, so that their recall is uncertain"
        limits.append(f"{rare}: {_list_classes(few)}.")
    if len(recall) > 3:
        worst = sorted(recall, key=lambda name: recall[name])[:3]
        limits.append(f"Lowest recall: {', '.join(f'{escape_markdown(name)} {recall[name]:.0%}' for name in worst)}.")
    return limits


def _list_classes(names: Sequence[str]) -> str:
    return list_examples([*map(escape_markdown, names)], MAX_LISTED_CLASSES)


def _without_paths(note: str) -> str:
    """Return a note up to where it names files."""
    return note.partition(":")[0] if re.search(r"[/\\]", note) else note
