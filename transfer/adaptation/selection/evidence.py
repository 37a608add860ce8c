"""What may be looked at to choose between models of an unlabelled target: nothing of it holds a target label."""

from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class CandidateEvidence:
    """A candidate (an epoch of a method) as a label-free rule sees it.

    Features are the candidate's own representation, in which its classifier is linear.

    Parameters
    ----------
    source_features : ndarray of float32, shape (Ns, F)
        Of the labelled source rows that the candidate learned from.
    source_labels : ndarray of int64, shape (Ns,)
        In [0, K).
    val_features, val_logits : ndarray of float32, shape (Nv, F) and (Nv, K)
        Of source rows that it did not learn from; there may be none.
    val_labels : ndarray of int64, shape (Nv,)
    target_features, target_logits : ndarray of float32, shape (Nt, F) and (Nt, K)
    labelled_features : ndarray of float32, shape (Nl, F), optional
        Of target rows whose label may be used; without, there are none.
    labelled_labels : ndarray of int64, shape (Nl,), optional

    Raises
    ------
    ValueError
        The shapes do not fit together, or a domain has no row.
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
        width, classes = self.target_features.shape[-1], self.target_logits.shape[-1]
        source, val, target = len(self.source_features), len(self.val_features), len(self.target_features)
        fitting = {
            "source_features": (source, width),
            "source_labels": (source,),
            "val_features": (val, width),
            "val_logits": (val, classes),
            "val_labels": (val,),
            "target_features": (target, width),
            "target_logits": (target, classes),
            "labelled_features": (len(self.labelled_labels), width),
            "labelled_labels": (len(self.labelled_labels),),
        }
        if shapes != fitting or not source or not target:
            raise ValueError(f"evidence whose shapes do not fit together, or without rows: {shapes}")

    @property
    def classes(self) -> int:
        """How many classes the candidate knows."""
        return self.target_logits.shape[1]

    def target_with_labelled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return features, class probabilities and known classes (else -1) of the target, labelled rows last."""
        unknown, labels = np.full(len(self.target_logits), -1), self.labelled_labels
        q = np.concatenate([softmax(self.target_logits), np.eye(self.classes)[labels]])
        features = np.concatenate([self.target_features, self.labelled_features])
        return features, q, np.concatenate([unknown, labels])

    @cached_property
    def finite(self) -> bool:
        """Whether every feature and logit is a number; of a run that diverged they are not."""
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
    """Return `rows` (N, F) scaled to length 1; a row of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
