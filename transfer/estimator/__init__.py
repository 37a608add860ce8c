"""scikit-learn's contracts: a classifier and a transformer that take images."""

from transfer.estimator.classifier import TransferClassifier
from transfer.estimator.features import BackboneFeatures

__all__ = ["BackboneFeatures", "TransferClassifier"]
