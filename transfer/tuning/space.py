"""What a search may choose: settings of a run by name, each a range of numbers or a few options."""

import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from itertools import product
from typing import Any, Literal, TypeVar

from transfer.config.train import TrainConfig
from transfer.errors import TransferError, did_you_mean

T = TypeVar("T")
Value = float | int | str
Settings = dict[str, Value]

USUAL = {
    "lr": "1e-5:1",
    "weight_decay": "1e-5:10",
    "batch_size": "32,64,128,256",
    "optimizer": "adamw,nesterov,adagrad",
    "policy": "linear_probe,partial:1,lp_ft:1",
    "heads": "dual,joint",
    "hidden": "0,256",
    "dropout": "0:0.8",
    "label_smoothing": "0:0.3",
    "augment": "none,flip,crop,colour",
    "mixup": "0:1",
}
"""Searched where a setting is only named."""
FIXED = ("epochs", "patience", "refit", "precision", "device", "workers", "cycles", "probe")  # of no trial alone
MARGIN = 0.05  # of the whole range, on either side of the good ones


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, evenly spread, or their logarithms."""

    low: float
    high: float
    log: bool = True
    whole: bool = False

    def at(self, quantile: float) -> float | int:
        """Return the value below which a draw lies with the probability `quantile`.

        Examples
        --------
        >>> Range(1e-4, 1).at(0.5), Range(0, 0.8, log=False).at(0.5)
        (0.01, 0.4)
        """
        span = self.high / self.low if self.log else self.high - self.low
        value = self.low * span**quantile if self.log else self.low + span * quantile
        value = min(max(value, self.low), self.high)
        return round(value) if self.whole else value

    def quantile(self, value: float) -> float:
        """Return where `value` lies between the ends, as a fraction: the inverse of :meth:`at`."""
        if self.low == self.high:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def around(self, values: Iterable[float]) -> "Range":
        """Return the part that holds `values`, with a margin."""
        places = [self.quantile(value) for value in values]
        low, high = self.at(max(min(places) - MARGIN, 0.0)), self.at(min(max(places) + MARGIN, 1.0))
        return Range(low, high, self.log, self.whole)

    def levels(self, count: int) -> list[Value]:
        """Return `count` evenly spaced values, ends included."""
        return list(dict.fromkeys(self.at(i / (count - 1)) for i in range(count)))


@dataclass(frozen=True)
class Choice:
    """One of `options`, each as likely."""

    options: tuple[Value, ...]

    def at(self, quantile: float) -> Value:
        """Return the option that a draw uniform in [0, 1) stands for."""
        return self.options[min(int(quantile * len(self.options)), len(self.options) - 1)]

    def around(self, values: Iterable[Value]) -> "Choice":
        """Return a choice of those options that are among `values`."""
        values = set(values)
        return Choice(tuple(option for option in self.options if option in values))

    def levels(self, count: int) -> list[Value]:
        """Return every option, however many `count` asks for."""
        return list(self.options)


Space = dict[str, Range | Choice]
Path = tuple[str, ...]
"""Names of parts within parts of a config, and of a setting."""
PARTS = ("heads", "policy", "learn")


def settings_there_are(kind: type = TrainConfig, parts: tuple[str, ...] = PARTS) -> dict[str, tuple[Path, Any]]:
    """Return for each setting that can be searched where it is in a config of `kind`, and its type."""
    found: dict[str, tuple[Path, Any]] = {}
    for name, hint in typing.get_type_hints(kind).items():
        options = [option for option in _options(hint) if option is not type(None)]
        if is_dataclass(hint) and (name in parts or not parts):
            inner = settings_there_are(typing.cast(type, hint), ())
            found |= {key: ((name, *path), how) for key, (path, how) in inner.items()}
        elif not parts and name not in FIXED:
            plain = all(option in (int, float, str) or typing.get_origin(option) is Literal for option in options)
            if plain or name == "hidden":
                found[name] = (name,), options[0]
    return found


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def parse(texts: Iterable[str]) -> Space:
    """Return the space that `texts` write: ``NAME=LOW:HIGH`` (log-uniform, or uniform from 0), ``NAME=A,B,C``,
    or ``NAME`` for its usual values.

    Raises
    ------
    TransferError
        No such setting, no values, or values of another kind.

    Examples
    --------
    >>> parse(["lr=1e-4:1e-1", "batch-size=32,64", "optimizer=sgd,adamw"])["lr"]
    Range(low=0.0001, high=0.1, log=True, whole=False)
    """
    known, space = settings_there_are(), Space()
    for text in texts:
        name, given, values = (part.strip() for part in text.partition("="))
        name = name.replace("-", "_")
        if name not in known:
            raise TransferError(
                f"--space: no setting {name!r} to search over{did_you_mean(name, known)}; there are: {', '.join(known)}"
            )
        if not given and name not in USUAL:
            raise TransferError(f"--space {name}: say which values, as {name}=LOW:HIGH or {name}=A,B,C")
        space[name] = _parameter(name, values if given else USUAL[name], known[name][1])
    if not space:
        raise TransferError("--space is empty: name what to search over, such as --space lr weight_decay")
    return space


def _parameter(name: str, text: str, kind: Any) -> Range | Choice:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if kind not in (int, float):
        named = typing.get_args(kind) if typing.get_origin(kind) is Literal else words
        for word in words:
            if word not in named:
                raise TransferError(f"--space {name}: no {word!r}{did_you_mean(word, named)}; {', '.join(named)}")
        if words:
            return Choice(tuple(words))
    try:
        numbers = [float(word) for word in (text.split(":") if ":" in text else words)]
    except ValueError as error:
        raise TransferError(f"--space {name}={text}: write LOW:HIGH or A,B,C in numbers") from error
    if kind is int and any(n != int(n) for n in numbers if math.isfinite(n)):
        raise TransferError(f"--space {name}={text}: whole numbers only")
    if ":" not in text and numbers:
        return Choice(tuple(int(n) if kind is int else n for n in numbers))
    if len(numbers) != 2 or not 0 <= numbers[0] < numbers[1] < math.inf:
        raise TransferError(f"--space {name}={text}: write LOW:HIGH with 0 <= LOW < HIGH, or A,B,C")
    low, high = numbers
    return Range(low, high, log=low > 0, whole=kind is int)


def settle(config: TrainConfig, settings: Mapping[str, Value]) -> TrainConfig:
    """Return `config` with `settings` put in.

    Raises
    ------
    TransferError
        A value outside what its config takes.
    """
    known = settings_there_are()
    for name, value in settings.items():
        if name == "augment" and value == "none":  # whose views there are none of
            config = replace(config, cache=replace(config.cache, views=0))
        config = _put(config, known[name][0], _sizes(str(value)) if name == "hidden" else value)
    return config


def _put(config: T, path: Path, value: Any) -> T:
    inner = _put(getattr(config, path[0]), path[1:], value) if len(path) > 1 else value
    return replace(config, **{path[0]: inner})  # type: ignore[type-var]


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split("-") if size != "0")
    except ValueError as error:
        raise TransferError(f"--space hidden: {text!r} is no size: write 0, 256 or 256-128") from error


def grid(space: Space, trials: int) -> list[Settings]:
    """Return the product of evenly spaced levels, as many for each range as `trials` allow.

    Raises
    ------
    TransferError
        Not even two levels a range fit.
    """
    ranges = [p for p in space.values() if isinstance(p, Range)]
    options = math.prod(len(p.options) for p in space.values() if isinstance(p, Choice))
    count = 2
    if trials < options * count ** len(ranges):
        raise TransferError(
            f"a grid over {', '.join(space)} has {options * count ** len(ranges)} points at least: say --trials "
            f"{options * count ** len(ranges)}, search over less, or take --sampler random"
        )
    while ranges and options * (count + 1) ** len(ranges) <= trials:
        count += 1
    each = [p.levels(count) for p in space.values()]
    return [dict(zip(space, values, strict=True)) for values in product(*each)]


def narrowed(space: Space, good: Sequence[Settings]) -> Space:
    """Return the part of `space` that holds the `good` settings."""
    return {name: p.around([settings[name] for settings in good]) for name, p in space.items()}  # type: ignore[misc]


def at_an_end(space: Space, settings: Settings) -> list[str]:
    """Return the names of ranges at an end of which `settings` lie: their best may lie beyond."""
    ranges = {name: p for name, p in space.items() if isinstance(p, Range)}
    return [name for name, p in ranges.items() if not MARGIN <= p.quantile(float(settings[name])) <= 1 - MARGIN]
