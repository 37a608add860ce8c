"""Log lines in the format of the course."""

from collections.abc import Mapping, Sequence

import numpy as np

MAX_CLASSES = 8  # whose probability a line shows


def started(name: str) -> str:
    """Return the line at the start of a training.

    Examples
    --------
    >>> started("mlp")
    'Model mlp train started:'
    """
    return f"Model {name} train started:"


def epoch(
    number: int, cost: float, train: Mapping[str, float], val: Mapping[str, float], stretch: float, total: float
) -> str:
    """Return the line of an epoch: mean loss, train and validation accuracy, seconds since the last line and in total.

    Examples
    --------
    >>> epoch(10, 3.4181, {"domain": 0.829, "object": 0.1251}, {"domain": 0.89, "object": 0.09}, 339.2, 339.2)
    '    Epoch 10: cost=3.418, accuracy=0.829+0.125/0.890+0.090 (339/339 secs)'
    """
    accuracies = "/".join(_sum(accuracy) for accuracy in (train, val) if accuracy)
    return f"    Epoch {number}: cost={cost:.3f}, accuracy={accuracies} ({stretch:.0f}/{total:.0f} secs)"


def ended(name: str, seconds: float) -> str:
    """Return the line at the end of a training.

    Examples
    --------
    >>> ended("mlp", 1757.1)
    'Model mlp train ended in 1757 secs:'
    """
    return f"Model {name} train ended in {seconds:.0f} secs:"


def report(name: str, test: Mapping[str, float], seconds: float) -> str:
    """Return the line with the test accuracy.

    Examples
    --------
    >>> report("mlp", {"domain": 0.867, "object": 0.2432}, 0.3)
    'Model mlp test report: accuracy = 0.867+0.243, (0 secs)'
    """
    return f"Model {name} test report: accuracy = {_sum(test)}, ({seconds:.0f} secs)"


def examples(probabilities: np.ndarray, true: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Return a line per image: percentages of the first 8 classes, prediction, label, and O if correct or X if not.

    Parameters
    ----------
    probabilities : ndarray, shape (N, C)
    true : ndarray of int, shape (N,)
    classes : sequence of str

    Examples
    --------
    >>> examples(np.array([[0.65, 0.15, 0.2]]), np.array([1]), ["amazon", "dslr", "webcam"])
    ['[65,15,20] => estimated amazon : true dslr => X']
    """
    lines = []
    for row, label in zip(probabilities, true.tolist(), strict=True):
        percents = ",".join(f"{100 * p:.0f}" for p in row[:MAX_CLASSES])
        predicted = int(row.argmax())
        verdict = "O" if predicted == label else "X"
        true_class = classes[label] if label >= 0 else "unknown"
        lines.append(f"[{percents}] => estimated {classes[predicted]} : true {true_class} => {verdict}")
    return lines


def _sum(accuracies: Mapping[str, float]) -> str:
    return "+".join(f"{value:.3f}" for value in accuracies.values())
