"""What a user reads of an expected accuracy."""

from collections.abc import Mapping
from typing import Any


def describe_expected(head: str, record: Mapping[str, Any], measured: Mapping[str, Any]) -> list[str]:
    """Return a line on a head's expected accuracy, and one on what to do if the images differ from the training images.

    Parameters
    ----------
    head : str
    record : mapping
        The head's entry of ``result["expected_accuracy"]``.
    measured : mapping
        The head's entry of ``result["test"]``.

    Examples
    --------
    >>> record = {"accuracy": 0.83, "interval": [0.76, 0.9], "level": 0.9, "n": 50, "held_out_accuracy": 0.91}
    >>> describe_expected("object", record | {"of": "images without labels", "alarm": False}, {})
    ['object: 50 images without labels: expected accuracy 0.830 (90 % interval 0.760 to 0.900); 0.910 on held-out \
images of the run']
    """
    low, high = record["interval"]
    unlabelled = record["of"] != "all images"
    images = f"{record['n']:,} {record['of']}" if unlabelled else "all images, without their labels"
    members = record.get("members")
    of = f"the {members} members, in the mean" if members else "the run"
    known = f"{record['held_out_accuracy']:.3f} on held-out images of {of}"
    if not unlabelled and "accuracy" in measured:
        known = f"measured {measured['accuracy']:.3f}; {known}"
    lines = [
        f"{head}: {images}: expected accuracy {record['accuracy']:.3f} "
        f"({record['level']:.0%} interval {low:.3f} to {high:.3f}); {known}".replace("%", " %")
    ]
    if record["alarm"]:
        lines.append(
            f"{head}: these images differ from the training images, and the model is right less often on them: label "
            "some (`transfer pick`) and add them (`transfer update`), or adapt to them (`transfer adapt`)"
        )
    return lines
