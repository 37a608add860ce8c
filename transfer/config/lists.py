"""Options of the command line that take comma-separated values, such as ``0,1,2``."""

from typing import Annotated, Any

import tyro


def _comma_separated(kind: type) -> Any:
    """Return a tyro spec for comma-separated values: ``0,1,2``."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{kind.__name__.upper()},...",
        instance_from_str=lambda args: tuple(kind(part.strip()) for part in args[0].split(",") if part.strip()),
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(v, kind) for v in value),
        str_from_instance=lambda value: [",".join(map(str, value))],
    )


CommaInts = Annotated[tuple[int, ...], _comma_separated(int)]
CommaNames = Annotated[tuple[str, ...], _comma_separated(str)]
CommaFloats = Annotated[tuple[float, ...], _comma_separated(float)]
