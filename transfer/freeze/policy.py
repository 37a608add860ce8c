"""FreezePolicy: what to train, as a user writes it; the registry of policies.

A policy is a class with a name, a one-line summary, facts about itself and a method that returns its phases. The rest
of the package reads facts of a policy or its plan, never its name, so that a new policy is a single class:

>>> @register_policy
... class EverySecondStage(FreezePolicy):
...     name = "doctest_every_second"
...     summary = "every second stage, from the top"
...
...     def phases(self, backbone, build):
...         return (build(self.name, range(len(backbone.stages) - 1, -1, -2)),)
>>> str(FreezePolicy.parse("doctest_every_second"))
'doctest_every_second'
>>> _ = POLICIES.pop("doctest_every_second")
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from transfer.errors import TransferError, UnknownName, did_you_mean
from transfer.runtime.plugins import check_methods, load_entry_points

if TYPE_CHECKING:
    from transfer.backbones.backbone import Backbone
    from transfer.freeze.phase import Phase, PhaseBuilder

PolicyClass = TypeVar("PolicyClass", bound=type["FreezePolicy"])

TRUNCATE = "truncate"
TRUNCATE_SUMMARY = "without the last N stages (default policy: linear_probe)"
POLICIES: dict[str, type["FreezePolicy"]] = {}
"""Every registered policy by its name, in the order of registration."""


@dataclass(frozen=True)
class FreezePolicy(ABC):
    """What to train, as a user writes it: ``NAME[:ARGUMENT]``, or ``truncate:N+NAME[:ARGUMENT]``.

    This is the base class of all policies. A subclass sets `name` and `summary`, overrides the facts that differ, and
    defines :meth:`phases`. A subclass with an argument is a frozen dataclass that also sets `usage` and defines
    :meth:`from_argument` and `argument`.

    Parameters
    ----------
    dropped : int
        Number of stages that are removed from the top of the backbone before training.

    Attributes
    ----------
    name : str
        How users write it.
    summary : str
        One line for help texts and README tables.
    usage : str
        `name` with its possible arguments; empty: `name` alone.
    trains_backbone : bool
        Whether any backbone parameter is trained. Otherwise only the heads are.
    all_stages : bool
        Whether the heads see the pooled features of all stages. Such heads are solved, never trained by epochs.
    single_phase : bool
        Whether training has only one phase, as adaptation requires.
    from_scratch : bool
        Whether the backbone starts from random weights.
    advised : bool
        Whether ``transfer advise`` replaces it by another policy before training.

    Examples
    --------
    >>> policy = FreezePolicy.parse("truncate:2+partial:3")
    >>> policy.name, policy.stages, policy.dropped
    ('partial', 3, 2)
    >>> str(policy), str(FreezePolicy.parse("truncate:1")), str(FreezePolicy.parse("head2toe:5"))
    ('truncate:2+partial:3', 'truncate:1', 'head2toe:5')
    """

    dropped: int = field(default=0, kw_only=True)

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    usage: ClassVar[str] = ""
    trains_backbone: ClassVar[bool] = True
    all_stages: ClassVar[bool] = False
    single_phase: ClassVar[bool] = True
    from_scratch: ClassVar[bool] = False
    advised: ClassVar[bool] = False

    @property
    def stages(self) -> int | None:
        """Number of stages to train, if the user gave it."""
        return None

    @property
    def argument(self) -> str:
        """The text after the colon; empty: no argument."""
        return ""

    @classmethod
    def from_argument(cls, argument: str | None) -> Self:
        """Return the policy for an argument, the text after the colon; None: no colon.

        Raises
        ------
        ValueError
            An invalid argument. The message says what to write; :meth:`parse` puts the policy in front.
        """
        if argument is not None:
            raise ValueError(f"{cls.name} takes no argument after the colon")
        return cls()

    @abstractmethod
    def phases(self, backbone: "Backbone", build: "PhaseBuilder") -> tuple["Phase", ...]:
        """Return the phases of training on `backbone`, in order; their shares of the epochs sum to 1.

        Parameters
        ----------
        backbone : Backbone
            Already without the dropped stages; its `stages` are in execution order.
        build : PhaseBuilder
            Call it with a phase's name and the indices of the stages to train.

        Raises
        ------
        TransferError
            The policy is impossible on this backbone.
        """

    @staticmethod
    def parse(text: str) -> "FreezePolicy":
        """Return the policy that `text` names.

        Raises
        ------
        TransferError
            An unknown policy, or an argument that it does not take.
        """
        first, plus, rest = map(str.strip, text.strip().partition("+"))
        if first.partition(":")[0] != TRUNCATE:
            if plus and first.partition(":")[0] in POLICIES:
                raise TransferError(f"policy {text!r}: only {TRUNCATE} can precede another policy")
            return _parse_one(first + plus + rest, text)
        policy = _parse_one(rest if plus else "linear_probe", text)
        if policy.all_stages or policy.advised:
            raise TransferError(f"policy {text!r}: {policy.name} chooses among all stages; leave {TRUNCATE} out")
        try:
            return replace(policy, dropped=parse_stage_count(first.partition(":")[2], f"{TRUNCATE}:2"))
        except ValueError as error:
            raise TransferError(f"policy {text!r}: {error}") from error

    def __str__(self) -> str:
        written = f"{self.name}:{self.argument}" if self.argument else self.name
        if not self.dropped:
            return written
        return f"{TRUNCATE}:{self.dropped}" + ("" if written == "linear_probe" else f"+{written}")


def register_policy(cls: PolicyClass) -> PolicyClass:
    """Register a policy class under its name; a class decorator.

    Raises
    ------
    TransferError
        The class has no valid name, another class has the name already, or `phases` is not defined.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", cls.name) or cls.name == TRUNCATE:
        raise TransferError(
            f"policy class {cls.__qualname__}: name {cls.name!r} must be lower-case letters, digits and underscores, "
            f"and not {TRUNCATE}"
        )
    known = POLICIES.get(cls.name)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise TransferError(f"policy {cls.name!r} is registered already, by {known.__module__}.{known.__qualname__}")
    check_methods(f"policy class {cls.__qualname__}", cls)
    POLICIES[cls.name] = cls
    return cls


def summarise_policies(*, adaptation: bool = False) -> dict[str, str]:
    """Return the summary of every registered policy, or of those for `adaptation`, by its usage.

    Examples
    --------
    >>> summarise_policies()["partial[:N]"]
    'the last N stages (default 2)'
    """
    rows = {
        policy.usage or policy.name: policy.summary
        for policy in POLICIES.values()
        if not adaptation or (policy.single_phase and not (policy.from_scratch or policy.all_stages or policy.advised))
    }
    return rows | {f"{TRUNCATE}:N[+POLICY]": TRUNCATE_SUMMARY}


def parse_stage_count(argument: str | None, *forms: str) -> int:
    """Return a number of stages, at least 1.

    Raises
    ------
    ValueError
        `argument` is not such a number; the message suggests `forms`.
    """
    if not argument or not argument.isascii() or not argument.isdigit() or int(argument) < 1:
        raise ValueError(f"write a number of stages after the colon, such as {' or '.join(forms)}")
    return int(argument)


def _parse_one(written: str, text: str) -> FreezePolicy:
    """Return the policy that `written`, one part of `text`, names."""
    name, colon, argument = written.partition(":")
    if name == TRUNCATE:
        raise TransferError(f"policy {text!r}: {TRUNCATE} occurs twice; add up the stages")
    if name not in POLICIES:
        load_entry_points()
    if name not in POLICIES:
        known = [*POLICIES, TRUNCATE]
        raise UnknownName(
            f"unknown policy {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}; for one of a plugin, give "
            "--plugin MODULE"
        )
    try:
        return POLICIES[name].from_argument(argument if colon else None)
    except ValueError as error:
        raise TransferError(f"policy {text!r}: {error}") from error
