"""The description inside every export, as plain JSON: heads, classes, preprocessing. It contains no local paths."""

import json
from typing import Any

from transfer.data.images.preprocessing import Preprocessing
from transfer.heads import HeadSpec
from transfer.runs.checkpoint import Models
from transfer.runtime.escape import escape_unprintable
from transfer.runtime.version import VERSION

CROP_TEXTS = {
    "center": "resize the short side to {short} pixels ({interpolation}, antialiased), crop the centre",
    "squash": "resize to {height} x {width} pixels ({interpolation}, antialiased), crop the centre",
    "border": "resize the long side to {short} pixels ({interpolation}, antialiased), pad with the mean",
}


def dump_description(value: Any, indent: int | None = None) -> str:
    r"""Return a description, or a part of it, as JSON that is UTF-8 whatever the names of classes hold.

    Examples
    --------
    >>> print(dump_description({"classes": ["Bär", "b\udcff"]}))
    {"classes": ["Bär", "b\udcff"]}
    """
    return escape_unprintable(json.dumps(value, ensure_ascii=False, indent=indent), keep="\n")


def describe_models(models: Models) -> dict[str, Any]:
    """Return the description of the exported `models`."""
    backbone = next(iter(models.values())).backbone
    return {
        "made_by": f"transfer {VERSION}",
        "backbone": backbone.name,
        "input": {
            "dtype": "uint8",
            "shape": ["batch", *backbone.preprocessing.input_size],
            "colours": "RGB, 0 to 255; normalisation is inside the model",
        },
        "preprocessing": backbone.preprocessing.to_dict(),
        "how": describe_preprocessing(backbone.preprocessing),
        "heads": {name: _head(spec) for model in models.values() for name, spec in model.heads.specs.items()},
    }


def describe_preprocessing(preprocessing: Preprocessing) -> str:
    """Return in words how to resize and crop an image for the model.

    Examples
    --------
    >>> describe_preprocessing(Preprocessing((3, 224, 224), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", 0.875))
    'resize the short side to 256 pixels (bilinear, antialiased), crop the centre to 224 x 224'
    """
    height, width = preprocessing.resized
    text = CROP_TEXTS[preprocessing.crop_mode].format(
        short=min(height, width), height=height, width=width, interpolation=preprocessing.interpolation
    )
    levels = "".join(f"; read {kind} from {low:g} to {high:g} as 0 to 255" for kind, low, high in preprocessing.levels)
    return f"{text} to {preprocessing.input_size[1]} x {preprocessing.input_size[2]}{levels}"


def _head(spec: HeadSpec) -> dict[str, Any]:
    note = spec.head_kind.output_note
    about = {"kind": spec.kind, "classes": list(spec.classes)} | ({"output": note} if note else {})
    return about | ({"thresholds": list(spec.thresholds)} if spec.thresholds else {})
