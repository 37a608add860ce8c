"""FreezePolicy: what to train, as a user writes it."""

import re
from dataclasses import dataclass, replace

from transfer.errors import TransferError, did_you_mean

# What may follow the colon: a number of stages with its default (None: all of them), a percentage, or words; words
# alone must.
POLICIES: dict[str, dict] = {
    "linear_probe": {},
    "partial": {"stages": 2},
    "full": {},
    "lp_ft": {"stages": None},
    "gradual": {"stages": None, "words": ("bottom_up",)},
    "norm_only": {},
    "surgical": {"words": ("first", "middle", "last")},
    "head2toe": {"percent": True},
    "stage_probes": {},
    "scratch": {},
    "auto": {},
}
TRUNCATE = "truncate"


@dataclass(frozen=True)
class FreezePolicy:
    """What to train, as a user writes it.

    Parameters
    ----------
    stages : int, optional
        Of those that remain, how many learn (default: all).
    part : str
        Which ones, or from where on.
    dropped : int
        Stages that are taken off the top before.
    percent : float, optional
        Of the features of all stages, how many are kept (default: what validation images choose).

    Examples
    --------
    >>> policy = FreezePolicy.parse("truncate:2+partial:3")
    >>> policy.kind, policy.stages, policy.dropped
    ('partial', 3, 2)
    >>> str(policy), str(FreezePolicy.parse("truncate:1")), str(FreezePolicy.parse("head2toe:5"))
    ('truncate:2+partial:3', 'truncate:1', 'head2toe:5')
    """

    kind: str
    stages: int | None = None
    part: str = ""
    dropped: int = 0
    percent: float | None = None

    @property
    def every_stage(self) -> bool:
        """Whether heads see the features of all stages."""
        return self.kind in ("head2toe", "stage_probes")

    @classmethod
    def parse(cls, text: str) -> "FreezePolicy":
        """Return the policy that `text` names.

        Raises
        ------
        TransferError
            An unknown policy, or an argument that it does not take.
        """
        first, plus, rest = map(str.strip, text.strip().partition("+"))
        if first.partition(":")[0] != TRUNCATE:
            if plus and first.partition(":")[0] in POLICIES:
                raise TransferError(f"policy {text!r}: only {TRUNCATE} can stand before another one")
            return _parsed(first + plus + rest, text)
        policy = _parsed(rest, text) if plus else cls("linear_probe")
        if policy.every_stage or policy.kind == "auto":
            raise TransferError(f"policy {text!r}: {policy.kind} chooses among all stages; leave {TRUNCATE} out")
        return replace(policy, dropped=_count(first.partition(":")[2], f"{TRUNCATE}:2", text))

    def __str__(self) -> str:
        argument = self.part or self.stages or (None if self.percent is None else f"{self.percent:.15g}")
        own = f"{self.kind}:{argument}" if argument else self.kind
        if not self.dropped:
            return own
        return f"{TRUNCATE}:{self.dropped}" + ("" if own == "linear_probe" else f"+{own}")


def _parsed(own: str, text: str) -> FreezePolicy:
    """Return the policy that `own` names, a part of what a user wrote, `text`."""
    kind, colon, argument = own.partition(":")
    if kind == TRUNCATE:
        raise TransferError(f"policy {text!r}: {TRUNCATE} is there twice; add up the stages")
    if kind not in POLICIES:
        known = [*POLICIES, TRUNCATE]
        raise TransferError(f"unknown policy {kind!r}{did_you_mean(kind, known)}; known: {', '.join(known)}")
    takes = POLICIES[kind]
    forms = [f"{kind}:{word}" for word in takes.get("words", ())]
    if own in forms:
        return FreezePolicy(kind, part=argument)
    if forms and "stages" not in takes:
        raise TransferError(f"policy {text!r} is incomplete: write one of {', '.join(forms)}")
    if not colon:
        return FreezePolicy(kind, takes.get("stages"))
    if "percent" in takes:
        return FreezePolicy(kind, percent=_percent(argument, text))
    if "stages" not in takes:
        raise TransferError(f"policy {text!r}: {kind} takes nothing after the colon")
    return FreezePolicy(kind, _count(argument, " or ".join([f"{kind}:2", *forms]), text))


def _count(argument: str, such: str, text: str) -> int:
    if not argument.isascii() or not argument.isdigit() or int(argument) < 1:
        raise TransferError(f"policy {text!r}: after the colon comes a number of stages, such as {such}")
    return int(argument)


def _percent(argument: str, text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,4})?", argument) or not 0 < float(argument) <= 100:
        raise TransferError(
            f"policy {text!r}: after the colon comes the percentage of features to keep, above 0 and up to 100, such "
            "as head2toe:10"
        )
    return float(argument)
