from dataclasses import dataclass

import pytest
import tyro

from transfer.config.lists import CommaFloats, CommaInts, CommaNames


@dataclass
class Three:
    ints: CommaInts = ()
    names: CommaNames = ("a",)
    floats: CommaFloats = ()


def test_values_are_split_at_commas_and_may_be_none():
    found = tyro.cli(Three, args=["--ints", "0,1, 2", "--names", "mug,pen", "--floats", "0.5,2"])
    assert found == Three((0, 1, 2), ("mug", "pen"), (0.5, 2.0))
    assert tyro.cli(Three, args=["--names", ""]) == Three(names=())


def test_what_is_no_number_is_refused(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(Three, args=["--ints", "1,x"])
    assert "--ints" in capsys.readouterr().err
