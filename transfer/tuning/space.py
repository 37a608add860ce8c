"""The space of a search: settings of a run by name, each a range of numbers or a list of options."""

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

DEFAULT_VALUES = {
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
"""Values of a setting that is named without any."""
# The same for all trials of a search:
NOT_SEARCHABLE = ("epochs", "patience", "refit", "precision", "device", "workers", "cycles", "probe")
RANGE_MARGIN = 0.05  # share of the whole range that is added on either side of the good values


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, uniform or log-uniform."""

    low: float
    high: float
    log: bool = True
    whole: bool = False

    def at(self, quantile: float) -> float | int:
        """Return the value at `quantile` of the distribution.

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
        """Return the quantile of `value`, in [0, 1]: the inverse of :meth:`at`."""
        if self.low == self.high:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def around(self, values: Iterable[float]) -> "Range":
        """Return the sub-range that holds `values`, with a margin."""
        quantiles = [self.quantile(value) for value in values]
        low = self.at(max(min(quantiles) - RANGE_MARGIN, 0.0))
        high = self.at(min(max(quantiles) + RANGE_MARGIN, 1.0))
        return Range(low, high, self.log, self.whole)

    def levels(self, count: int) -> list[Value]:
        """Return `count` evenly spaced values, ends included."""
        return list(dict.fromkeys(self.at(i / (count - 1)) for i in range(count)))


@dataclass(frozen=True)
class Options:
    """One of `options`, with equal probability."""

    options: tuple[Value, ...]

    def at(self, quantile: float) -> Value:
        """Return the option at `quantile` in [0, 1)."""
        return self.options[min(int(quantile * len(self.options)), len(self.options) - 1)]

    def around(self, values: Iterable[Value]) -> "Options":
        """Return the options that are among `values`."""
        values = set(values)
        return Options(tuple(option for option in self.options if option in values))

    def levels(self, count: int) -> list[Value]:
        """Return every option, whatever `count` is."""
        return list(self.options)


Space = dict[str, Range | Options]
FieldPath = tuple[str, ...]
"""Field names that lead from a config to a setting in it."""
SEARCHED_SECTIONS = ("heads", "policy", "learn")  # of TrainConfig


def searchable_settings(
    kind: type = TrainConfig, parts: tuple[str, ...] = SEARCHED_SECTIONS
) -> dict[str, tuple[FieldPath, Any]]:
    """Return the field path and type of each setting of a config of `kind` that can be searched."""
    found: dict[str, tuple[FieldPath, Any]] = {}
    for name, hint in typing.get_type_hints(kind).items():
        options = [option for option in _options(hint) if option is not type(None)]
        if is_dataclass(hint) and (name in parts or not parts):
            inner = searchable_settings(typing.cast(type, hint), ())
            found |= {key: ((name, *path), how) for key, (path, how) in inner.items()}
        elif not parts and name not in NOT_SEARCHABLE:
            plain = all(option in (int, float, str) or typing.get_origin(option) is Literal for option in options)
            if plain or name == "hidden":
                found[name] = (name,), options[0]
    return found


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def parse_space(texts: Iterable[str]) -> Space:
    """Return the space that `texts` describe.

    Each text is ``NAME=LOW:HIGH`` (log-uniform, or uniform if LOW is 0), ``NAME=A,B,C``, or ``NAME`` for its default
    values.

    Raises
    ------
    TransferError
        An unknown setting, no values, or values of the wrong type.

    Examples
    --------
    >>> parse_space(["lr=1e-4:1e-1", "batch-size=32,64", "optimizer=sgd,adamw"])["lr"]
    Range(low=0.0001, high=0.1, log=True, whole=False)
    """
    known, space = searchable_settings(), Space()
    for text in texts:
        name, equals, values = (part.strip() for part in text.partition("="))
        name = name.replace("-", "_")
        if name not in known:
            raise TransferError(
                f"--space: no setting {name!r} to search over{did_you_mean(name, known)}; settings: {', '.join(known)}"
            )
        if not equals and name not in DEFAULT_VALUES:
            raise TransferError(f"--space {name}: give its values as {name}=LOW:HIGH or {name}=A,B,C")
        space[name] = _parameter(name, values if equals else DEFAULT_VALUES[name], known[name][1])
    if not space:
        raise TransferError("--space is empty: name the settings to search over, such as --space lr weight_decay")
    return space


def _parameter(name: str, text: str, kind: Any) -> Range | Options:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if kind not in (int, float):
        named = typing.get_args(kind) if typing.get_origin(kind) is Literal else words
        for word in words:
            if word not in named:
                near = did_you_mean(word, named)
                raise TransferError(f"--space {name}: no value {word!r}{near}; values: {', '.join(named)}")
        if words:
            return Options(tuple(words))
    try:
        numbers = [float(word) for word in (text.split(":") if ":" in text else words)]
    except ValueError as error:
        raise TransferError(f"--space {name}={text}: write LOW:HIGH or A,B,C in numbers") from error
    if kind is int and any(n != int(n) for n in numbers if math.isfinite(n)):
        raise TransferError(f"--space {name}={text}: whole numbers only")
    if ":" not in text and numbers:
        return Options(tuple(int(n) if kind is int else n for n in numbers))
    if len(numbers) != 2 or not 0 <= numbers[0] < numbers[1] < math.inf:
        raise TransferError(f"--space {name}={text}: write LOW:HIGH with 0 <= LOW < HIGH, or A,B,C")
    low, high = numbers
    return Range(low, high, log=low > 0, whole=kind is int)


def apply_settings(config: TrainConfig, settings: Mapping[str, Value]) -> TrainConfig:
    """Return a copy of `config` with `settings` in place.

    Raises
    ------
    TransferError
        A value out of the range of its option.
    """
    known = searchable_settings()
    for name, value in settings.items():
        if name == "augment" and value == "none":  # no augmentation, hence no augmented views
            config = replace(config, cache=replace(config.cache, views=0))
        config = _with_field(config, known[name][0], _sizes(str(value)) if name == "hidden" else value)
    return config


def _with_field(config: T, path: FieldPath, value: Any) -> T:
    inner = _with_field(getattr(config, path[0]), path[1:], value) if len(path) > 1 else value
    return replace(config, **{path[0]: inner})  # type: ignore[type-var]


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split("-") if size != "0")
    except ValueError as error:
        raise TransferError(f"--space hidden: {text!r} is not a size: write 0, 256 or 256-128") from error


def grid(space: Space, trials: int) -> list[Settings]:
    """Return the product of evenly spaced levels, as many per range as `trials` allow.

    Raises
    ------
    TransferError
        `trials` do not allow two levels per range.
    """
    ranges = [p for p in space.values() if isinstance(p, Range)]
    options = math.prod(len(p.options) for p in space.values() if isinstance(p, Options))
    count = 2
    if trials < options * count ** len(ranges):
        raise TransferError(
            f"a grid over {', '.join(space)} has at least {options * count ** len(ranges)} points: set --trials "
            f"{options * count ** len(ranges)}, search over fewer settings, or use --sampler random"
        )
    while ranges and options * (count + 1) ** len(ranges) <= trials:
        count += 1
    each = [p.levels(count) for p in space.values()]
    return [dict(zip(space, values, strict=True)) for values in product(*each)]


def narrow_space(space: Space, good: Sequence[Settings]) -> Space:
    """Return the part of `space` that holds the `good` settings."""
    return {name: p.around([settings[name] for settings in good]) for name, p in space.items()}  # type: ignore[misc]


def settings_at_boundary(space: Space, settings: Settings) -> list[str]:
    """Return the names of the settings that lie at the boundary of their range, so that better ones may lie outside."""
    quantiles = {name: p.quantile(float(settings[name])) for name, p in space.items() if isinstance(p, Range)}
    return [name for name, quantile in quantiles.items() if not RANGE_MARGIN <= quantile <= 1 - RANGE_MARGIN]
