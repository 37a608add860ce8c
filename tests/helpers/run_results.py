"""Results of runs, as result.json has them, made up."""

from typing import Any


def report(accuracy: float) -> dict[str, Any]:
    """Return what a result says of one head."""
    return {
        "accuracy": accuracy,
        "balanced_accuracy": accuracy - 0.1,
        "macro_f1": accuracy - 0.2,
        "calibration_error": 0.025,
        "n": 40,
        "interval": {"accuracy": [accuracy - 0.05, accuracy + 0.05]},
    }


def result(object_accuracy: float = 0.9, **more: Any) -> dict[str, Any]:
    """Return the result of a run with two heads."""
    return {
        "test": {"object": report(object_accuracy), "domain": report(0.95)},
        "per_domain": {
            "amazon": {"object": {"accuracy": 0.8, "n": 25}, "domain": {"accuracy": 1.0, "n": 25}},
            "dslr": {"object": {"n": 0}, "domain": {"accuracy": 0.5, "n": 15}},
        },
        "policy": {"trained_parameters": 12345, "frozen_parameters": 6789000, "frozen_unchanged": True, "moved": []},
        "seconds": {"total": 12.34, "trunk": 5.67, "train": 6.67},
        "notes": ["one domain only: no domain head"],
        "stopped": "",
        **more,
    }
