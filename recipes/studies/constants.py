"""How much the accuracy of `auto` depends on each of its constants: at half and at double the value."""

import importlib
import itertools
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any
from unittest.mock import patch

from studies.class_shares import draw_classes
from transfer.adaptation import auto
from transfer.adaptation.adapt import complete_config, read_domains
from transfer.adaptation.domains import split_domains
from transfer.adaptation.method_run import fit_method
from transfer.adaptation.resume import ResumeLog
from transfer.adaptation.selection.best_candidate import BestCandidate
from transfer.adaptation.task import AdaptationTask, prepare_task
from transfer.config.adapt import AdaptConfig, StepsConfig
from transfer.config.checked import Config
from transfer.config.lists import CommaNames
from transfer.feature_cache import TrunkCache
from transfer.freeze import Phase
from transfer.report.console.tables import text_table
from transfer.training.setup import Images

log = logging.getLogger(f"transfer.{__name__}")  # printed as the command's own log lines are

# The slow parts of `auto`. Their results are reused for constants that do not change them.
NETWORKS, SOURCE_CLASSIFIER, COMPARED = "_train_networks", "source_only_evidence", "solve_classifier"


@dataclass(frozen=True)
class Constant:
    """A constant of `auto`.

    `place` is ``module:NAME`` below ``transfer``, ``module:NAME[key]`` for an entry of a mapping, or
    ``module:function(argument)`` for the default of an argument.
    """

    place: str
    unit: str  # "share" if it is at most 1
    origin: str
    changes: tuple[str, ...] = ()  # slow parts whose results it changes
    trained_tail: bool = False  # whether it has an effect only where stages are trained

    @property
    def name(self) -> str:
        """The name without its module."""
        return self.place.partition(":")[2]


_EXPERTS = "adaptation.refinement.product_of_experts:combine_experts"
_COMPARISON, _SHIFT = "adaptation.selection.source_comparison", "adaptation.label_shift"
CONSTANTS = (
    Constant("adaptation.auto:NETWORKS", "networks", "set with Office-31 in view", (NETWORKS,)),
    Constant("adaptation.losses.mcc:MCC.__init__(temperature)", "factor", "Jin et al. 2020", (NETWORKS,)),
    Constant("adaptation.auto:EXPERT", "weight", "set with Office-31 in view"),
    Constant("adaptation.auto:SOURCE_EXPERT", "weight", "the mean of two classifiers"),
    Constant(f"{_EXPERTS}(temperature)", "factor", "set with Office-31 in view"),
    Constant(f"{_EXPERTS}(balance)", "share", "set with Office-31 in view"),
    Constant(f"{_EXPERTS}(alpha)", "share", "set with Office-31 in view"),
    Constant(f"{_EXPERTS}(neighbours)", "images", "set with Office-31 in view"),
    Constant(f"{_EXPERTS}(rounds)", "rounds", "set with Office-31 in view"),
    Constant(
        "adaptation.refinement.label_propagation:smooth_over_graph(rounds)", "rounds", "set with Office-31 in view"
    ),
    Constant("semi_supervised.knn_graph:COSINE_POWER", "exponent", "Iscen et al. 2019"),
    Constant("adaptation.refinement.optimal_transport:MAX_LOGIT_DROP", "nats", "range of floating-point numbers"),
    Constant("adaptation.auto:UNBALANCED[neighbours]", "images", "draws of Office-31 and of digits"),
    Constant("adaptation.auto:UNBALANCED[rounds]", "rounds", "draws of Office-31 and of digits"),
    Constant("adaptation.auto:UNEVEN", "share", "draws of Office-31"),
    Constant(f"{_SHIFT}:STRONG_SHIFT", "share", "draws of Office-31"),
    Constant(f"{_SHIFT}:MAX_DISAGREEMENT", "share", "battery of appearances"),
    Constant(f"{_SHIFT}:MIN_CLASS_SHARE", "share", "floor of a logarithm"),
    Constant(f"{_SHIFT}:estimate_target_prior(rounds)", "rounds", "bound: EM ends where it converges"),
    Constant(f"{_COMPARISON}:NEAR", "share", "battery of appearances"),
    Constant(f"{_COMPARISON}:MIN_CIRCULAR", "standard errors", "battery of appearances"),
    Constant(f"{_COMPARISON}:MIN_VOTES", "standard errors", "battery of appearances"),
    Constant(f"{_COMPARISON}:MIN_ABOVE_CHANCE", "standard errors", "battery of appearances"),
    Constant(
        "adaptation.closed_form.classifier:DEFAULT_CLASSIFIER_L2",
        "L2",
        "set with Office-31 in view",
        (SOURCE_CLASSIFIER,),
    ),
    Constant("adaptation.closed_form.classifier:DISTIL_L2", "L2", "set with Office-31 in view"),
    Constant("adaptation.auto:TAIL_EPOCHS", "share", "set with Office-31 in view", trained_tail=True),
    Constant("adaptation.auto:TAIL_RATE", "share", "set with Office-31 in view", trained_tail=True),
)


@dataclass(frozen=True)
class SensitivityConfig(Config):
    """Adapt by auto with each of its constants at half and at double its value."""

    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    cases: CommaNames = ("equal", "half", "third_only")
    """Class shares of source and target, as in the study of class shares."""
    pairs: CommaNames = ()
    """Pairs of domains as source:target (default: all)."""
    constants: CommaNames = tuple(constant.name for constant in CONSTANTS if not constant.trained_tail)
    """Constants, by name."""


def vary(value: float, unit: str) -> tuple[float, float]:
    """Return half and double a value. Whole numbers are rounded up; a share that cannot double moves halfway to 1.

    Examples
    --------
    >>> vary(3, "networks"), vary(0.25, "weight"), vary(0.8, "share")
    ((2, 6), (0.125, 0.5), (0.4, 0.9))
    """
    if isinstance(value, int):
        return math.ceil(value / 2), 2 * value
    return value / 2, (1 + value) / 2 if unit == "share" and 2 * value > 1 else 2 * value


def _locate(place: str) -> tuple[Any, Any, Mapping[Any, Any]]:
    """Return what :func:`unittest.mock.patch.dict` changes: the owner, the key, and the present values."""
    module, path, key, argument = re.fullmatch(r"(.+):([\w.]+)(?:\[(\w+)\]|\((\w+)\))?", place).groups()  # type: ignore[union-attr]
    owner: Any = importlib.import_module(f"transfer.{module}")
    *parents, last = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    if not key and not argument:
        return owner.__dict__, last, vars(owner)
    found = getattr(owner, last)
    return (found, key, found) if key else (found, argument, _read_defaults(found))


def _read_defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the default of each argument that has one."""
    code, positional = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(positional) : code.co_argcount]
    return dict(zip(names, positional, strict=True)) | (function.__kwdefaults__ or {})


def read_value(place: str) -> float:
    """Return the value of a constant, by its place.

    Examples
    --------
    >>> read_value("adaptation.losses.mcc:MCC.__init__(temperature)")
    2.5
    """
    _, key, values = _locate(place)
    return values[key]


@contextmanager
def set_constant(place: str, value: float) -> Iterator[None]:
    """Give a constant another value within the context."""
    owner, key, values = _locate(place)
    if not callable(owner):
        with patch.dict(owner, {key: value}):
            yield
        return
    changed, code = {**values, key: value}, owner.__code__
    positional = [changed[name] for name in code.co_varnames[: code.co_argcount] if name in changed]
    with (
        patch.object(owner, "__defaults__", tuple(positional) or None),
        patch.object(owner, "__kwdefaults__", {name: changed[name] for name in owner.__kwdefaults__ or ()} or None),
    ):
        yield


@dataclass(frozen=True)
class Adaptation:
    """`auto` on one task; what its slow parts return is cached in `results`."""

    task: AdaptationTask
    phase: Phase
    config: StepsConfig
    bottleneck: int
    seed: int
    labels: Any  # of the target's unlabelled rows, which only measure
    results: dict[tuple[str, ...], Any] = field(default_factory=dict)

    def measure_accuracy(self, changes: Sequence[str] = ()) -> float:
        """Return the accuracy on the target in percent; the slow parts named `changes` are computed again."""
        best = BestCandidate(self.task.for_method(ResumeLog()), lambda _: 0.0, lambda _: None)
        with ExitStack() as stack:
            for name in {NETWORKS, SOURCE_CLASSIFIER, COMPARED} - set(changes):
                stack.enter_context(patch.object(auto, name, self._reuse(name, getattr(auto, name))))
            fit_method("auto", best, self.phase, self.config, bottleneck=self.bottleneck, seed=self.seed)
        return 100 * float((best.candidate.evidence.target_logits.argmax(1) == self.labels).mean())

    def _reuse(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            key = (name, *(arg for arg in args if isinstance(arg, str)))
            if key not in self.results:
                self.results[key] = function(*args, **options)
            return self.results[key]

        return call


def run_sensitivity(config: SensitivityConfig) -> list[dict[str, Any]]:
    """Return a row for each case, pair of domains, seed and constant.

    Returns
    -------
    list of dict
        ``case``, ``pair``, ``seed``, ``constant``, the ``accuracy`` in percent, and its change in points at ``half``
        and at ``double`` the value.
    """
    base, rows = config.adapt, []
    cache = TrunkCache(base.cache)
    images = read_domains(base.shift, cache)
    pairs = [tuple(pair.split(":")) for pair in config.pairs] or itertools.permutations(images.table.domains, 2)
    constants = [constant for constant in CONSTANTS if constant.name in config.constants]
    for pair, case, seed in itertools.product(pairs, config.cases, base.run.seeds or (base.run.seed,)):
        adaptation = _prepare(base, draw_classes(images, *pair, case, seed), pair, seed, cache)
        accuracy = adaptation.measure_accuracy()
        for constant in constants:
            row = {"case": case, "pair": " -> ".join(pair), "seed": seed, "constant": constant.name}
            row |= {"accuracy": accuracy}
            values = vary(read_value(constant.place), constant.unit)
            for name, value in zip(("half", "double"), values, strict=True):
                with set_constant(constant.place, value):
                    row[name] = adaptation.measure_accuracy(constant.changes) - accuracy
            log.info("%s", row)
            rows.append(row)
    return rows


def _prepare(base: AdaptConfig, images: Images, pair: Sequence[str], seed: int, cache: TrunkCache) -> Adaptation:
    shift = replace(base.shift, source=(pair[0],), target=pair[1])
    run = replace(base.run, seeds=(), seed=seed, out=None)
    config = complete_config(replace(base, shift=shift, run=run))
    how = {"sources": shift.source, "target": shift.target, "val": shift.val, "seed": seed}
    domains, hidden = split_domains(images.table, images.inspection, **how)  # type: ignore[arg-type]
    task, plan = prepare_task(config, domains, images, cache, seed)
    labels = hidden.reveal(domains.unlabelled)
    return Adaptation(task, plan.phases[-1], config.steps, config.method.bottleneck, seed, labels)


def sensitivity_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of constants: value, unit, and the mean change [least, most] at half and double, by case."""
    known, cells = {constant.name: constant for constant in CONSTANTS}, []
    cases = list(dict.fromkeys(row["case"] for row in rows))
    for name in dict.fromkeys(row["constant"] for row in rows):
        constant = known[name]
        value = read_value(constant.place)
        half, double = vary(value, constant.unit)
        cells.append([name, f"{value:g}", constant.unit, constant.origin, f"{half:g}, {double:g}"])
        for case, factor in itertools.product(cases, ("half", "double")):
            changes = [row[factor] for row in rows if (row["constant"], row["case"]) == (name, case)]
            cells[-1].append(f"{fmean(changes):+.1f} [{min(changes):+.1f}, {max(changes):+.1f}]")
    titles = [f"{case}, {factor}" for case, factor in itertools.product(cases, ("half", "double"))]
    return text_table(["constant", "value", "unit", "origin", "half, double", *titles], cells)
