"""Range checks of a config's numbers, made when the config is created."""

import math
from collections.abc import Iterable
from typing import Any

from transfer.errors import TransferError

ABOVE_ZERO = math.ulp(0.0)
BELOW_ONE = math.nextafter(1.0, 0.0)


def check_range(config: Any, least: float, most: float, *names: str) -> None:
    """Check that fields of `config`, and the items of tuples, lie in [`least`, `most`].

    Raises
    ------
    TransferError
        A value is outside, or is NaN. None is not checked.

    Examples
    --------
    >>> import types
    >>> check_range(types.SimpleNamespace(batch_size=0), 1, math.inf, "batch_size")
    Traceback (most recent call last):
    transfer.errors.TransferError: --batch-size 0: it must be 1 or more
    """
    for name in names:
        value = getattr(config, name)
        for item in value if isinstance(value, Iterable) else [value]:
            if item is not None and not (least <= item <= most and item < math.inf):
                raise TransferError(f"--{name.replace('_', '-')} {item}: it must be {_describe_range(least, most)}")


def _describe_range(least: float, most: float) -> str:
    low = "above 0" if least == ABOVE_ZERO else f"{least:g} or more"
    if most == math.inf:
        return low
    return f"from {least:g} to " + ("below 1" if most == BELOW_ONE else f"{most:g}")
