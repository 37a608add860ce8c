"""Adaptation methods by name: their summaries, their facts, and the functions that run them."""

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer.errors import TransferError, UnknownName, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from transfer.adaptation.losses.base import AdaptationLoss
    from transfer.adaptation.selection.evidence import CandidateEvidence
    from transfer.heads.heads import Heads

BuildLosses = Callable[[int, int, "nn.Module"], "list[tuple[float, AdaptationLoss]]"]
"""(features' width, number of classes, classifier) -> losses with their weights."""
Refine = Callable[["CandidateEvidence"], "np.ndarray"]
"""A classifier's evidence -> refined class probabilities (target rows, classes)."""
FitMethod = Callable[..., "tuple[Heads, CandidateEvidence, list[str], float | None]"]
"""(task, phase, steps config, seed, bottleneck width) -> heads for target features, their evidence, notes, and their
accuracy on the target as estimated without its labels, if it is."""

FUNCTIONS = ("losses", "refine", "pseudo_labels", "fit")  # the fields of Method that are functions
REFERENCE = "source_only"  # the method that every result is compared with


@dataclass(frozen=True)
class Method:
    """How a method adapts.

    Without `losses` and `fit`, a linear classifier is solved on frozen features.

    Parameters
    ----------
    name : str
        As given to ``--method``.
    summary : str
        One line, with the paper.
    align : str
        Closed form on the features, see :func:`transfer.adaptation.closed_form.alignment.fit_alignment`.
    losses : callable, optional
        Builds the losses that a network minimises beside the cross-entropy of labelled rows.
    refine : callable, optional
        Refines the solved classifier's target probabilities; a new classifier learns them.
    pseudo_labels : callable, optional
        The same before each epoch, for `losses` that use pseudo-labels.
    fit : callable, optional
        Does all of the fitting, in place of the above.
    warmup : float
        Fraction of the epochs, in [0, 1), that learn the source's labels alone, before `losses` are added.
    source_free : bool
        After the warm-up, source images are not used and the classifier is frozen.
    uses_source : bool
        False: only the target's few labels are learned, so the method needs ``--target-labels``.
    moves_batch_norm : bool
        Takes the tail's BatchNorm statistics from the target's images, so it needs a tail.
    """

    name: str
    summary: str
    align: str = "standardise"
    losses: BuildLosses | None = None
    refine: Refine | None = None
    pseudo_labels: Refine | None = None
    fit: FitMethod | None = None
    warmup: float = 0.0
    source_free: bool = False
    uses_source: bool = True
    moves_batch_norm: bool = False

    @property
    def estimates_accuracy(self) -> bool:
        """Whether its accuracy on the target can be estimated: it is a source classifier, or `fit` may do so."""
        return bool(self.fit) or (self.uses_source and not self.losses and not self.refine)

    def __post_init__(self) -> None:
        """Raise TransferError if the facts contradict each other."""
        if not re.fullmatch(r"\w[\w.+-]*", self.name):
            raise TransferError(f"method {self.name!r}: a name is letters, digits, '_', '.', '+' and '-'")
        if sum(map(bool, (self.losses, self.refine, self.fit))) > 1:
            raise TransferError(f"method {self.name}: give one of losses, refine and fit")
        if not 0 <= self.warmup < 1:
            raise TransferError(f"method {self.name}: warmup is {self.warmup}, it must be from 0 to below 1")
        if (self.pseudo_labels or self.warmup or self.source_free) and not self.losses:
            raise TransferError(f"method {self.name}: pseudo_labels, warmup and source_free need losses")
        if self.source_free and not self.warmup:
            raise TransferError(f"method {self.name}: a source-free method learns the source first, so it needs warmup")


def register_method(name: str, summary: str, **facts: Any) -> None:
    """Make a method available to ``transfer adapt --method``.

    Parameters
    ----------
    name, summary, **facts
        The fields of :class:`Method`. In this package, `name`, `summary` and every fact but functions are literals,
        since they are read from the source without importing it.

    Raises
    ------
    TransferError
        The name belongs to a built-in method, or the facts contradict each other.

    Notes
    -----
    A module of one's own, given as ``--plugin my_module``::

        class MeanGap(AdaptationLoss):
            def forward(self, batch):
                source, target = batch.split(batch.features)
                return (source.mean(0) - target.mean(0)).square().sum()

        register_method("mean_gap", "distance of domain means", losses=lambda width, classes, head: [(1.0, MeanGap())])
    """
    method = Method(name, summary, **facts)
    if name not in _BUILT_IN:
        METHODS[name] = method
    elif summary == METHODS[name].summary:  # the method's own module, imported by a _LazyFunction
        _IMPORTED[name] = method
    else:
        raise TransferError(f"method {name!r} is built in: register yours under another name")


def find_method(name: str) -> Method:
    """Return the method called `name`, from an installed plugin if need be.

    Raises
    ------
    TransferError
        There is none.
    """
    if name not in METHODS:
        from transfer.runtime.plugins import load_entry_points

        load_entry_points()
    if name not in METHODS:
        known = ", ".join(METHODS)
        raise UnknownName(
            f"unknown method {name!r}{did_you_mean(name, METHODS)}; known: {known} (others: --plugin MODULE)"
        )
    return METHODS[name]


def method_summaries() -> dict[str, str]:
    """Return the one-line summary of every registered method, by name."""
    return {name: method.summary for name, method in METHODS.items()}


@dataclass(frozen=True)
class _LazyFunction:
    """A function of a built-in method; its module, which imports torch, is imported when it is first called."""

    module: str
    method: str
    field: str

    def __call__(self, *args: Any) -> Any:
        importlib.import_module(self.module)
        return getattr(_IMPORTED[self.method], self.field)(*args)


def _read_built_in() -> Iterator[Method]:
    """Yield the methods that files of this package register, read from their source: importing them imports torch."""
    folder = Path(__file__).parent
    for file in sorted(folder.rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        if "\nregister_method(" not in source:
            continue
        module = ".".join((__package__, *file.relative_to(folder).with_suffix("").parts))
        for node in ast.parse(source).body:
            match node:
                case ast.Expr(ast.Call(ast.Name("register_method")) as call):
                    yield _read_call(call, module)


def _read_call(call: ast.Call, module: str) -> Method:
    """Return the method that a call of :func:`register_method` in `module` registers, its functions lazy."""
    name, summary = (ast.literal_eval(argument) for argument in call.args)
    facts: dict[str, Any] = {
        str(fact.arg): _LazyFunction(module, name, str(fact.arg))
        if fact.arg in FUNCTIONS
        else ast.literal_eval(fact.value)
        for fact in call.keywords
    }
    return Method(name, summary, **facts)


METHODS = {method.name: method for method in _read_built_in()}
_BUILT_IN = frozenset(METHODS)
_IMPORTED: dict[str, Method] = {}  # built-in methods whose modules are imported
