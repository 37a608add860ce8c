"""Words of the command line as values. What cannot be read stays text, which the config then refuses by name."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro

Spec = tyro.constructors.PrimitiveConstructorSpec

READERS = tyro.constructors.ConstructorRegistry()
"""How the command line reads whole numbers, numbers and choices."""


def _read(kind: Callable[[str], Any], word: str) -> Any:
    try:
        return kind(word)
    except ValueError:
        return word


def comma_separated(kind: Callable[[str], Any]) -> Any:
    """Return a tyro spec for comma-separated values: ``0,1,2``."""
    return Spec(
        nargs=1,
        metavar=f"{kind.__name__.upper()},...",
        instance_from_str=lambda args: tuple(_read(kind, part.strip()) for part in args[0].split(",") if part.strip()),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    )


@READERS.primitive_rule
def _read_words(info: tyro.constructors.PrimitiveTypeInfo) -> Spec | None:
    choices = {str(choice): choice for choice in get_args(info.type)} if get_origin(info.type) is Literal else {}
    if info.type not in (int, float) and not choices:
        return None
    return Spec(
        nargs=1,
        metavar="{" + ",".join(choices) + "}" if choices else info.type.__name__.upper(),
        instance_from_str=lambda args: choices.get(args[0], args[0]) if choices else _read(info.type, args[0]),
        is_instance=lambda value: value in choices.values() if choices else isinstance(value, info.type),
        str_from_instance=lambda value: [str(value)],
    )


CommaInts = Annotated[tuple[int, ...], comma_separated(int)]
CommaNames = Annotated[tuple[str, ...], comma_separated(str)]
CommaFloats = Annotated[tuple[float, ...], comma_separated(float)]
