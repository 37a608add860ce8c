from dataclasses import dataclass
from typing import Any, Literal

import pytest
import tyro

from transfer.config.lists import READERS, CommaFloats, CommaInts, CommaNames


@dataclass
class Three:
    ints: CommaInts = ()
    names: CommaNames = ("a",)
    floats: CommaFloats = ()


@dataclass
class Plain:
    count: int = 1
    rate: float | None = None
    choice: Literal[1, 10] = 1


def test_values_are_split_at_commas_and_may_be_none() -> None:
    found = tyro.cli(Three, args=["--ints", "0,1, 2", "--names", "mug,pen", "--floats", "0.5,2"])
    assert found == Three((0, 1, 2), ("mug", "pen"), (0.5, 2.0))
    assert tyro.cli(Three, args=["--names", ""]) == Three(names=())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--count", "3", "--rate", "0.5", "--choice", "10"], Plain(3, 0.5, 10)),
        (["--rate", "None"], Plain()),
        (["--rate", "nan"], None),
        (["--count", "-2"], Plain(-2)),
    ],
)
def test_words_become_numbers_and_choices(words: list[str], expected: Plain | None) -> None:
    found = tyro.cli(Plain, args=words, registry=READERS)
    assert found == expected or (expected is None and found.rate != found.rate)


@pytest.mark.parametrize(
    ("words", "name", "text"),
    [(["--count", "x"], "count", "x"), (["--rate", "1,5"], "rate", "1,5"), (["--choice", "3"], "choice", "3")],
)
def test_what_cannot_be_read_stays_text_for_the_config_to_refuse(words: list[str], name: str, text: Any) -> None:
    assert getattr(tyro.cli(Plain, args=words, registry=READERS), name) == text
    assert tyro.cli(Three, args=["--ints", "1,x"]).ints == (1, "x")
