"""scikit-learn estimators that take images: a classifier and a transformer."""

from transfer.estimator.classifier import TransferClassifier
from transfer.estimator.features import BackboneFeatures

__all__ = ["BackboneFeatures", "TransferClassifier"]
