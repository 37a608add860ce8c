"""Test images with what was said of them, and where the network looked."""

import base64
import io
import math
from typing import Any

import numpy as np
from PIL import Image

from transfer.report.load import Saved


def cards(run: Saved, rows: list[int]) -> list[dict[str, Any]]:
    """Return for each of `rows` its ``picture``, ``path``, what is ``true`` and ``said`` of it, its ``marks`` and
    ``top``.

    ``said`` joins the heads as ``amazon / monitor``, each with an integer percentage; a mark is O where a head is right
    and X where it is wrong.
    """
    return [_card(run, row) for row in rows if str(row) in run.exhibits["pictures"] and row < len(run.predictions)]


def _card(run: Saved, row: int) -> dict[str, Any]:
    kept, told = run.exhibits["pictures"][str(row)], run.predictions[row]
    heads = [name for name in ("domain", "object") if name in kept["top"]]
    heads += [name for name in kept["top"] if name not in heads]
    return {
        "row": row,
        "picture": f"data:image/jpeg;base64,{kept['jpeg']}",
        "path": told["path"],
        "true": [told[name] or "?" for name in heads],
        "said": [(told[f"{name}_predicted"], percent(float(told[f"{name}_probability"]))) for name in heads],
        "marks": [_mark(told[name], told[f"{name}_predicted"]) for name in heads],
        "top": {name: [(label, percent(p)) for label, p in some] for name, some in kept["top"].items()},
    }


def percent(share: float) -> int | str:
    """Return a share as an integer percentage; a dash for NaN, as a network says that diverged.

    Examples
    --------
    >>> percent(0.9949), percent(0.005)
    (99, 0)
    """
    return round(100 * share) if math.isfinite(share) else "–"


def _mark(true: str, said: str) -> str:
    return "O" if true == said else "X" if true else ""


def explained(run: Saved) -> list[dict[str, Any]]:
    """Return for each image that was explained its card and ``maps``: (class, picture with its heat) by what."""
    found = []
    for row, heats in run.exhibits.get("explained", {}).items():
        for card in cards(run, [int(row)]):
            told = run.predictions[int(row)]
            names = {"answer": told["object_predicted"], "truth": told["object"]}
            base = run.exhibits["pictures"][row]["jpeg"]
            maps = [(what, names[what], _over(base, heat)) for what, heat in heats.items()]
            found.append(card | {"maps": maps})
    return found


def _over(jpeg: str, heat: list[list[float]]) -> str:
    """Return a picture under a map of heat, as a data URI."""
    from matplotlib import colormaps

    image = Image.open(io.BytesIO(base64.b64decode(jpeg))).convert("RGB")
    small = Image.fromarray((255 * np.clip(np.array(heat, dtype=float), 0, 1)).astype(np.uint8))
    strength = np.asarray(small.resize(image.size, Image.Resampling.BICUBIC), dtype=float)[..., None] / 255
    grey = np.asarray(image.convert("L").convert("RGB"), dtype=float) / 255
    hot = colormaps["inferno"](strength[..., 0])[..., :3]
    mixed = Image.fromarray(
        (255 * (grey * (1 - 0.65 * strength) + hot * 0.65 * strength)).clip(0, 255).astype(np.uint8)
    )
    file = io.BytesIO()
    mixed.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
