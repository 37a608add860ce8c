"""The evidence on which candidates are chosen: features and predictions, without labels of the unlabelled target."""

from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class CandidateEvidence:
    """Features and predictions of a candidate (an epoch of a method), the input of a label-free rule.

    Features are the input of the candidate's linear classifier.

    Parameters
    ----------
    source_features : ndarray of float32, shape (Ns, F)
        Of the labelled source rows that it was trained on.
    source_labels : ndarray of int64, shape (Ns,)
        In [0, K).
    val_features, val_logits : ndarray of float32, shape (Nv, F) and (Nv, K)
        Of source rows that it was not trained on, possibly none.
    val_labels : ndarray of int64, shape (Nv,)
    target_features, target_logits : ndarray of float32, shape (Nt, F) and (Nt, K)
    labelled_features : ndarray of float32, shape (Nl, F), optional
        Of target rows whose label may be used (default: none).
    labelled_labels : ndarray of int64, shape (Nl,), optional

    Raises
    ------
    ValueError
        The shapes are inconsistent, or a domain has no rows.
    """

    source_features: np.ndarray
    source_labels: np.ndarray
    val_features: np.ndarray
    val_logits: np.ndarray
    val_labels: np.ndarray
    target_features: np.ndarray
    target_logits: np.ndarray
    labelled_features: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    labelled_labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        if not len(self.labelled_labels):
            object.__setattr__(self, "labelled_features", self.target_features[:0])
        shapes = {field.name: getattr(self, field.name).shape for field in fields(self)}
        widths = {"features": self.target_features.shape[-1:], "logits": self.target_logits.shape[-1:], "labels": ()}
        rows = {side: len(getattr(self, f"{side}_features")) for side in ("source", "val", "target", "labelled")}
        parts = {name: name.split("_") for name in shapes}
        expected = {name: (rows[side], *widths[kind]) for name, (side, kind) in parts.items()}
        if shapes != expected or not rows["source"] or not rows["target"]:
            raise ValueError(f"evidence with inconsistent shapes, or without rows: {shapes}")

    @property
    def classes(self) -> int:
        """Number of the candidate's classes."""
        return self.target_logits.shape[1]

    def target_with_labelled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return features, class probabilities and known classes (else -1) of target rows, the labelled ones last."""
        unknown, labels = np.full(len(self.target_logits), -1), self.labelled_labels
        q = np.concatenate([softmax(self.target_logits), np.eye(self.classes)[labels]])
        features = np.concatenate([self.target_features, self.labelled_features])
        return features, q, np.concatenate([unknown, labels])

    @cached_property
    def finite(self) -> bool:
        """Whether every feature and logit is finite; after divergence they are not."""
        return all(bool(np.isfinite(getattr(self, field.name)).all()) for field in fields(self))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of :func:`softmax`, float64, shape (N, K).

    Examples
    --------
    >>> log_softmax(np.array([[1000.0, 0.0]])).tolist()
    [[0.0, -1000.0]]
    """
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return class probabilities, float64, shape (N, K), each row summing to 1."""
    return np.exp(log_softmax(logits))


def entropy(logits: np.ndarray) -> np.ndarray:
    """Return the entropy in nats, shape (N,), of each row's softmax.

    Examples
    --------
    >>> entropy(np.zeros((1, 8))).round(6).tolist() == [round(float(np.log(8)), 6)]
    True
    """
    log_p = log_softmax(logits)
    return -(np.exp(log_p) * log_p).sum(1)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Return `rows` (N, F) scaled to length 1; a row of zeros stays zero."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
