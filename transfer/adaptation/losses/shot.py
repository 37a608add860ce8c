"""SHOT: source-free adaptation by information maximisation and pseudo-labels of class centroids (Liang et al. 2020)."""

from transfer.adaptation.losses.entropy import InformationMaximisation
from transfer.adaptation.losses.pseudo_labels import PseudoLabels
from transfer.adaptation.refinement.centroids import refine_by_centroids
from transfer.adaptation.registry import register_method

register_method(
    "shot",
    "source-free: information maximisation and centroids' pseudo-labels (Liang et al. 2020)",
    losses=lambda *_: [(1.0, InformationMaximisation()), (0.3, PseudoLabels(hard=True))],
    pseudo_labels=refine_by_centroids,
    warmup=0.4,
    source_free=True,
)
