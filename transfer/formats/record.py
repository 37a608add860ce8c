"""What a reader of an exported model has to know, as plain JSON: heads, classes, preprocessing. No paths of ours."""

from importlib import metadata
from typing import Any

from transfer.data.images.preprocessing import Preprocessing
from transfer.heads import HeadSpec
from transfer.runs.checkpoint import Models

HOW = {
    "center": "resize the short side to {short} pixels ({interpolation}, antialiased), crop the centre",
    "squash": "resize to {height} x {width} pixels ({interpolation}, antialiased), crop the centre",
    "border": "resize the long side to {short} pixels ({interpolation}, antialiased), pad with the mean",
}


def record(models: Models) -> dict[str, Any]:
    """Return what a reader of the exported `models` has to know."""
    backbone = next(iter(models.values())).backbone
    return {
        "made_by": f"transfer {metadata.version('transfer')}",
        "backbone": backbone.name,
        "input": {
            "dtype": "uint8",
            "shape": ["batch", *backbone.preprocessing.input_size],
            "colours": "RGB, 0 to 255; normalisation is inside the model",
        },
        "preprocessing": backbone.preprocessing.to_dict(),
        "how": in_words(backbone.preprocessing),
        "heads": {name: _head(spec) for model in models.values() for name, spec in model.heads.specs.items()},
    }


def in_words(preprocessing: Preprocessing) -> str:
    """Return what to do with a picture before the model sees it.

    Examples
    --------
    >>> in_words(Preprocessing((3, 224, 224), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", 0.875))
    'resize the short side to 256 pixels (bilinear, antialiased), crop the centre to 224 x 224'
    """
    height, width = preprocessing.resized
    text = HOW[preprocessing.crop_mode].format(
        short=min(height, width), height=height, width=width, interpolation=preprocessing.interpolation
    )
    return f"{text} to {preprocessing.input_size[1]} x {preprocessing.input_size[2]}"


def _head(spec: HeadSpec) -> dict[str, Any]:
    note = spec.head_kind.output_note
    return {"kind": spec.kind, "classes": list(spec.classes)} | ({"output": note} if note else {})
