"""Test images with their predictions, and Grad-CAM heat maps over them."""

import base64
import io
import math
from typing import Any

import numpy as np
from PIL import Image

from transfer.report.load import SavedRun

# Matplotlib's colour map at equal distances, from 0 to 1; between them colours are interpolated.
INFERNO = """
000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754
d24644 e45a31 f1731d f98e09 fcac11 f9cb35 f2ea69 fcffa4
"""
INFERNO_RGB = np.array([list(bytes.fromhex(colour)) for colour in INFERNO.split()]) / 255


def image_cards(run: SavedRun, rows: list[int]) -> list[dict[str, Any]]:
    """Return a card for each of the test `rows` that has a picture.

    A card has ``picture`` (data URI), ``path``, and a list over the heads of ``true`` classes, ``predicted`` classes
    with their integer percentages (None of several labels), and ``marks`` (O correct, X wrong); ``top`` holds the top
    classes of each head.
    """
    return [_card(run, row) for row in rows if str(row) in run.report_data["pictures"] and row < len(run.predictions)]


def _card(run: SavedRun, row: int) -> dict[str, Any]:
    picture, prediction = run.report_data["pictures"][str(row)], run.predictions[row]
    heads = [name for name in ("domain", "object") if name in picture["top"]]
    heads += [name for name in picture["top"] if name not in heads]
    return {
        "row": row,
        "picture": f"data:image/jpeg;base64,{picture['jpeg']}",
        "path": prediction["path"],
        "true": [prediction[name] or "?" for name in heads],
        "predicted": [(prediction[f"{name}_predicted"], _percent(prediction, name)) for name in heads],
        "marks": [_mark(prediction[name], prediction[f"{name}_predicted"]) for name in heads],
        "top": {name: [(label, round_percent(p)) for label, p in top] for name, top in picture["top"].items()},
    }


def _percent(prediction: dict[str, str], head: str) -> int | str | None:
    probability = prediction.get(f"{head}_probability")
    return round_percent(float(probability)) if probability else None


def round_percent(share: float) -> int | str:
    """Return a share as an integer percentage; a dash for NaN (the network diverged).

    Examples
    --------
    >>> round_percent(0.9949), round_percent(0.005)
    (99, 0)
    """
    return round(100 * share) if math.isfinite(share) else "–"


def _mark(true: str, predicted: str) -> str:
    unsure = [part for part in true.split("|") if part.startswith("?")]  # labels of which the truth is unknown
    for part in unsure:
        true, predicted = _without(true, part), _without(predicted, part[1:])
    return "O" if true == predicted else "X" if true else ""


def _without(labels: str, label: str) -> str:
    return "|".join(part for part in labels.split("|") if part != label) or "none"


def gradcam_cards(run: SavedRun) -> list[dict[str, Any]]:
    """Return the cards of the images that have Grad-CAM heat maps, with ``maps``: (kind, class, data URI) of each."""
    explained = []
    for row, heat_maps in run.report_data.get("explained", {}).items():
        for card in image_cards(run, [int(row)]):
            prediction = run.predictions[int(row)]
            names = {"answer": prediction["object_predicted"], "truth": prediction["object"]}
            jpeg = run.report_data["pictures"][row]["jpeg"]
            maps = [(kind, names[kind], _overlay(jpeg, heat)) for kind, heat in heat_maps.items()]
            explained.append(card | {"maps": maps})
    return explained


def _overlay(jpeg: str, heat: list[list[float]]) -> str:
    """Return a picture overlaid with a heat map, as a data URI."""
    image = Image.open(io.BytesIO(base64.b64decode(jpeg))).convert("RGB")
    small = Image.fromarray((255 * np.clip(np.array(heat, dtype=float), 0, 1)).astype(np.uint8))
    strength = np.asarray(small.resize(image.size, Image.Resampling.BICUBIC), dtype=float)[..., None] / 255
    grey = np.asarray(image.convert("L").convert("RGB"), dtype=float) / 255
    hot = np.concatenate(
        [np.interp(strength, np.linspace(0, 1, len(INFERNO_RGB)), band) for band in INFERNO_RGB.T], axis=-1
    )
    mixed = Image.fromarray(
        (255 * (grey * (1 - 0.65 * strength) + hot * 0.65 * strength)).clip(0, 255).astype(np.uint8)
    )
    file = io.BytesIO()
    mixed.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
