"""Methods by name: which closed form, which losses, which refinement of the target's class probabilities."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn

from transfer.adaptation.losses.adda import ADDA
from transfer.adaptation.losses.adversarial import CDAN, DANN
from transfer.adaptation.losses.afn_bsp import AFN, BSP
from transfer.adaptation.losses.base import AdaptationLoss
from transfer.adaptation.losses.entropy import InformationMaximisation, MinimaxEntropy
from transfer.adaptation.losses.fixmatch import FixMatch
from transfer.adaptation.losses.mcc import MCC
from transfer.adaptation.losses.mcd import MCD
from transfer.adaptation.losses.mdd import MDD
from transfer.adaptation.losses.mmd import DAN, JAN
from transfer.adaptation.losses.moments import DeepCORAL
from transfer.adaptation.losses.pseudo_labels import PseudoLabels
from transfer.adaptation.refinement import centroids, label_propagation, optimal_transport, self_training
from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.errors import TransferError, did_you_mean

Build = Callable[[int, int, nn.Module], list[tuple[float, AdaptationLoss]]]
"""From the width of the bottleneck, the number of classes and the classifier to weighted losses."""
Refine = Callable[[CandidateEvidence], np.ndarray]


@dataclass(frozen=True)
class Method:
    """How one method adapts.

    Parameters
    ----------
    about : str
        One line, with its source.
    align : str
        Closed form on features, see :func:`transfer.adaptation.closed_form.alignment.align`.
    build : callable, optional
        Losses beside the source's cross-entropy. Without, the classifier on frozen features is solved.
    refine : callable, optional
        Class probabilities of the target from a trained or solved classifier's; a classifier learns these at the end.
    pseudo : callable, optional
        The same, before each epoch, for losses that learn from them.
    warm : float
        Fraction of the epochs before which only source labels are learnt from: an epoch at least, if not 0.
    source_free : bool
        After the warm-up neither source images nor the classifier's weights are touched.
    statistics : bool
        BatchNorm statistics of the tail are taken from the target's images.
    source : bool
        Without, nothing is learnt but the target's few labels: what the source is worth shows beside it.
    """

    about: str
    align: str = "standardise"
    build: Build | None = None
    refine: Refine | None = None
    pseudo: Refine | None = None
    warm: float = 0.0
    source_free: bool = False
    statistics: bool = False
    source: bool = True


def _shot(evidence: CandidateEvidence) -> np.ndarray:
    features, q, known = evidence.all_target()
    return centroids.refine(features, q, known=known)[: len(evidence.target_logits)]


def _propagated(evidence: CandidateEvidence) -> np.ndarray:
    features, q, known = evidence.all_target()
    return label_propagation.propagate(features, q, known=known)[: len(evidence.target_logits)]


def _transported(evidence: CandidateEvidence) -> np.ndarray:
    rows = np.concatenate([evidence.source_features, evidence.labelled_features])
    labels = np.concatenate([evidence.source_labels, evidence.labelled_labels])
    return optimal_transport.propagate(rows, labels, evidence.target_features, evidence.classes)


def _grown(evidence: CandidateEvidence) -> np.ndarray:
    features, q, known = evidence.all_target()
    grown = self_training.grow(evidence.source_features, evidence.source_labels, features, q, known=known)
    return grown[: len(evidence.target_logits)]


METHODS = {
    "source_only": Method("the source's classifier as it is", align="none"),
    "target_only": Method("the target's few labels alone, without the source", source=False),
    "standardise": Method("each domain's features to mean 0 and deviation 1"),
    "coral": Method("second moments of the source brought to the target's (Sun et al. 2016)", align="coral"),
    "subspace": Method("principal subspaces aligned (Fernando et al. 2013)", align="subspace"),
    "adabn": Method("BatchNorm statistics of the target (Li et al. 2017)", align="none", statistics=True),
    "deep_coral": Method("loss between covariances (Sun and Saenko 2016)", build=lambda w, k, c: [(1.0, DeepCORAL())]),
    "dan": Method("multi-kernel mean discrepancy (Long et al. 2015)", build=lambda w, k, c: [(10.0, DAN())]),
    "jan": Method("joint mean discrepancy (Long et al. 2017)", build=lambda w, k, c: [(1.0, JAN())]),
    "dann": Method("domain-adversarial training (Ganin et al. 2016)", build=lambda w, k, c: [(1.0, DANN(w))]),
    "adda": Method("inverted labels (Tzeng et al. 2017)", build=lambda w, k, c: [(1.0, ADDA(w))], warm=0.3),
    "cdan": Method("conditional adversary (Long et al. 2018)", build=lambda w, k, c: [(1.0, CDAN(w, k))]),
    "cdan_e": Method(
        "the same, weighted by entropy (Long et al. 2018)", build=lambda w, k, c: [(1.0, CDAN(w, k, weighted=True))]
    ),
    "mcd": Method("classifier discrepancy (Saito et al. 2018)", build=lambda w, k, c: [(1.0, MCD(w, k))]),
    "mdd": Method("margin disparity (Zhang et al. 2019)", build=lambda w, k, c: [(1.0, MDD(w, k))]),
    "afn": Method("larger feature norms (Xu et al. 2019)", build=lambda w, k, c: [(0.05, AFN())]),
    "bsp": Method(
        "adversary with spectra penalised (Chen et al. 2019)", build=lambda w, k, c: [(1.0, DANN(w)), (0.0036, BSP())]
    ),
    "mcc": Method("minimum class confusion (Jin et al. 2020)", build=lambda w, k, c: [(1.0, MCC())]),
    "im": Method(
        "information maximisation (Liang et al. 2020)", build=lambda w, k, c: [(1.0, InformationMaximisation())]
    ),
    "mme": Method("minimax entropy (Saito et al. 2019)", build=lambda w, k, c: [(0.1, MinimaxEntropy(c))]),
    "shot": Method(
        "source-free: information maximisation and centroids' labels (Liang et al. 2020)",
        build=lambda w, k, c: [(1.0, InformationMaximisation()), (0.3, PseudoLabels(hard=True))],
        pseudo=_shot,
        warm=0.4,
        source_free=True,
    ),
    "fixmatch": Method(
        "sure labels of an image learnt from its features under dropout (after Sohn et al. 2020)",
        build=lambda w, k, c: [(1.0, FixMatch())],
        warm=0.3,
    ),
    "centroids": Method("cosine centroids refined on the target (Liang et al. 2020, eq. 4-6)", refine=_shot),
    "propagation": Method("labels smoothed over the target's neighbours (Zhou et al. 2004)", refine=_propagated),
    "transport": Method("labels carried by optimal transport (Courty et al. 2017)", refine=_transported),
    "growing": Method("self-training on a growing share of the target (Zou et al. 2018)", refine=_grown),
    "auto": Method("what this tool finds best: see transfer.adaptation.auto"),
}


def find(name: str) -> Method:
    """Return the method called `name`.

    Raises
    ------
    TransferError
        There is none.
    """
    if name not in METHODS:
        raise TransferError(f"unknown method {name!r}{did_you_mean(name, METHODS)}; known: {', '.join(METHODS)}")
    return METHODS[name]
