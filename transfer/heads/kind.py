"""The interface of head kinds. A new kind is a subclass of one of the two classes here.

No other room compares names of kinds: it calls these methods and reads these attributes. Nothing here imports torch;
methods that compute with tensors import it themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from transfer.data.class_names import match_names
from transfer.data.table import Target, make_softmax_target, sort_classes
from transfer.data.target_columns import read_classes, read_numbers
from transfer.heads.metrics import classification_metrics, regression_metrics

if TYPE_CHECKING:
    from torch import Tensor

    from transfer.heads.spec import HeadSpec


class HeadKind(ABC):
    """A kind of head that predicts one number for each image; the base of all kinds.

    A subclass sets :attr:`name` and :attr:`summary` and defines :meth:`losses` and :meth:`predictions`; the rest has
    defaults for numbers without classes. For kinds with classes, see :class:`ClassHeadKind`.

    Attributes
    ----------
    name : str
        As in ``--targets COLUMN:NAME``, model headers and exports.
    summary : str
        One line for help texts and tables.
    has_classes : bool
        Whether targets are class indices (-1 unknown) and predictions are probabilities; else both are numbers (NaN
        unknown).
    droppable_classes : bool
        Whether a class without a labelled row can be removed, since the classes are those that occur.
    convex : bool
        Whether the mean loss of a linear head is convex and smooth, so that the linear probe may solve it by L-BFGS.
        Otherwise the head is trained by the optimizer.
    logits : bool
        Whether outputs are logits, so that dividing them by a temperature changes confidence but no decision.
    main_score : str
        Key, in the report of :meth:`metrics`, of the score that chooses epochs and L2 regularisation: larger is better.
    score_labels : mapping of str to str
        The scores of :meth:`metrics` that reports show, in order, with their names in words.
    output_note : str
        For readers of exported weights: how the last layer's output becomes the prediction. Empty where it is the
        prediction, or logits.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    has_classes: ClassVar[bool] = False
    droppable_classes: ClassVar[bool] = False
    convex: ClassVar[bool] = False
    logits: ClassVar[bool] = False
    main_score: ClassVar[str] = "r2"
    score_labels: ClassVar[Mapping[str, str]] = {
        "mae": "mean absolute error",
        "rmse": "root mean squared error",
        "r2": "R²",
    }
    output_note: ClassVar[str] = ""

    # Data

    def read_column(self, column: str, cells: list[str], place: Callable[[int], str]) -> Target:
        """Return the target of a text column; see :data:`transfer.data.target_columns.ColumnReader`."""
        return Target(read_numbers(column, cells, place).values, self.name)

    def align(self, given: Target, spec: HeadSpec) -> tuple[Target, list[str]]:
        """Return another data set's target in terms of `spec`, and the names of classes that the head does not know."""
        return Target(given.values, self.name), []

    def unknown_target(self, spec: HeadSpec, rows: int) -> Target:
        """Return the target of `rows` images without labels."""
        return Target(np.full(rows, -1) if self.has_classes else np.full(rows, np.nan), self.name, spec.classes)

    def read_truths(self, cells: list[str]) -> Target:
        """Return the target of the column of true values in predictions.csv."""
        return Target(np.array([float(cell) for cell in cells]), self.name)

    def describe_training(self, column: str, target: Target, rows: np.ndarray) -> list[str]:
        """Return notes on what is odd about the labels of the training `rows`, indices into `target`."""
        return []

    def choose_thresholds(self, target: Target, predictions: np.ndarray) -> tuple[float, ...]:
        """Return the probability from which on each class is predicted, by images that were not trained on.

        None where predictions are decided by comparison with each other, or not at all.
        """
        return ()

    def centre_and_spread(self, values: np.ndarray) -> tuple[float, float]:
        """Return mean and scale that standardise targets, from known training `values`; (0, 1) changes nothing."""
        return 0.0, 1.0

    # Computation, on tensors

    def outputs(self, spec: HeadSpec) -> int:
        """Return how many numbers the last layer computes for each image."""
        return 1

    def shaped(self, output: Tensor) -> Tensor:
        """Return the last layer's output (N, outputs) in the shape that the other methods take: here (N,)."""
        return output.squeeze(1)

    @abstractmethod
    def losses(self, spec: HeadSpec, output: Tensor, target: Tensor, *, smoothing: float, loss: str) -> Tensor:
        """Return the loss of each row, (N,), all of known target.

        Parameters
        ----------
        output : Tensor of float32
            As :meth:`shaped` returns it.
        target : Tensor, shape (N,)
        smoothing : float
            Label smoothing; a kind without it ignores it.
        loss : {"cross_entropy", "hinge", "asymmetric"}
            The value of ``--loss``; a kind with one loss ignores it.
        """

    @abstractmethod
    def predictions(self, spec: HeadSpec, output: Tensor) -> Tensor:
        """Return values (N,) in their own unit, or probabilities, of raw `output`."""

    def correct_rows(self, output: Tensor, target: Tensor) -> Tensor | None:
        """Return for which rows raw `output` is correct, bool (N,); None: no training accuracy is logged."""
        return None

    def fold_unit(self, spec: HeadSpec, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last layer's weight and bias with standardisation undone, for exported weights."""
        return weight, bias

    # Predictions, as arrays

    def decide(self, predictions: Any) -> Any:
        """Return class indices (N,), or values as they are, of `predictions` (an array or a tensor)."""
        return predictions

    def metrics(self, target: Target, predictions: np.ndarray, *, intervals: bool = True) -> dict[str, Any]:
        """Return the head's report for result.json on the rows whose target is known; ``n`` is their number.

        Without `intervals`, slow parts such as bootstrap intervals are left out.
        """
        return regression_metrics(target.values, predictions)

    def main_value(self, report: Mapping[str, Any]) -> float:
        """Return the main score of a report of :meth:`metrics`; 0 where no target is known."""
        return report.get(self.main_score, 0.0)

    def find_correct_rows(self, target: Target, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return whether each prediction is correct, bool (N,), and its confidence (N,); None of numbers."""
        return None

    def csv_columns(self, name: str, target: Target, predictions: np.ndarray) -> list[dict[str, Any]]:
        """Return for each image the cells of the head `name` in predictions.csv: the truth and ``NAME_predicted``."""
        return [
            {name: true, f"{name}_predicted": float(value)}
            for true, value in zip(target.values, predictions, strict=True)
        ]

    def describe(self, spec: HeadSpec, prediction: Any, top: int) -> dict[str, Any]:
        """Return what `transfer predict` writes of one image's `prediction`."""
        return {spec.name: float(prediction)}


class ClassHeadKind(HeadKind):
    """Base of head kinds with classes: predictions are probabilities (N, classes)."""

    has_classes = True
    main_score = "accuracy"
    score_labels: ClassVar[Mapping[str, str]] = {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "macro_f1": "macro-F1",
    }

    def read_column(self, column: str, cells: list[str], place: Callable[[int], str]) -> Target:
        """Return class indices; the classes are the names that occur, in natural order."""
        found = read_classes(column, cells, place)
        return Target(found.values, self.name, found.classes)

    def read_truths(self, cells: list[str]) -> Target:
        """Return class indices of the names in `cells`."""
        return make_softmax_target(cells)

    def align(self, given: Target, spec: HeadSpec) -> tuple[Target, list[str]]:
        """Return `given` as indices of the classes of `spec`, -1 for other classes, and the names of those.

        A class may be spelled otherwise: see `transfer.data.class_names`.
        """
        index = {label: i for i, label in enumerate(spec.classes)}
        if not given.classes:  # all labels were numbers, and were read as such
            numbers = {_number(label): i for label, i in index.items()}
            values = [numbers.get(value, -1) for value in given.values.tolist()]
            unknown = {f"{value:g}" for value in given.values.tolist() if value == value and value not in numbers}
            return Target(np.array(values, dtype=np.int64), self.name, spec.classes), list(sort_classes(unknown))
        found = match_names(given.classes, spec.classes)
        place = np.array([*found, -1])
        foreign = [label for label, i in zip(given.classes, found, strict=True) if i < 0]
        return Target(place[given.values], self.name, spec.classes), foreign

    def outputs(self, spec: HeadSpec) -> int:
        """Return the number of classes."""
        return len(spec.classes)

    def shaped(self, output: Tensor) -> Tensor:
        """Return the output as it is, (N, outputs)."""
        return output

    def class_probabilities(self, predictions: Any) -> np.ndarray:
        """Return probabilities (N, classes), or (classes,) of a single image's prediction."""
        return predictions

    def confidence(self, predictions: np.ndarray) -> np.ndarray:
        """Return the probability (N,) of the predicted class."""
        return self.class_probabilities(predictions).max(1)

    def decide(self, predictions: Any) -> Any:
        """Return the most likely class (N,)."""
        return predictions.argmax(1)

    def find_correct_rows(self, target: Target, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return whether the predicted class is the true one, bool (N,), and its probability (N,)."""
        return self.decide(predictions) == target.values, self.confidence(predictions)

    def metrics(self, target: Target, predictions: np.ndarray, *, intervals: bool = True) -> dict[str, Any]:
        """Return accuracy, balanced accuracy, macro-F1 and per-class scores; without `intervals` only accuracy."""
        decided = self.decide(predictions) if len(predictions) else predictions
        if intervals:
            return classification_metrics(target.values, decided, target.classes)
        rows = target.known
        correct = decided[rows] == target.values[rows]
        return {"n": int(rows.sum())} | ({"accuracy": float(correct.mean())} if rows.any() else {})

    def csv_columns(self, name: str, target: Target, predictions: np.ndarray) -> list[dict[str, Any]]:
        """Return for each image the true class ("" where unknown), the predicted one and its probability."""
        if not len(predictions):
            return []
        decided, confidence = self.decide(predictions), self.confidence(predictions)
        return [
            {
                name: target.classes[true] if true >= 0 else "",
                f"{name}_predicted": target.classes[predicted],
                f"{name}_probability": round(float(p), 6),
            }
            for true, predicted, p in zip(target.values, decided, confidence, strict=True)
        ]

    def describe(self, spec: HeadSpec, prediction: Any, top: int) -> dict[str, Any]:
        """Return the most likely class, its probability, and the `top` classes with theirs."""
        p = self.class_probabilities(np.asarray(prediction, dtype=float))
        listed = [[spec.classes[i], round(float(p[i]), 6)] for i in np.argsort(-p, kind="stable")[: max(top, 1)]]
        return {spec.name: listed[0][0], f"{spec.name}_probability": listed[0][1], f"{spec.name}_top": listed}


def _number(label: str) -> float | None:
    try:
        return float(label)
    except ValueError:
        return None
