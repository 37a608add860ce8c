import dataclasses
import shlex
import types
import typing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transfer.cli.arguments import parse
from transfer.config.adapt import AdaptConfig
from transfer.config.serialise import to_dict
from transfer.config.train import (
    BackboneConfig,
    CompareConfig,
    DataConfig,
    LearnConfig,
    PolicyConfig,
    RunConfig,
    TrainConfig,
)
from transfer.errors import TransferError
from transfer.report.command_line import command_line, recommended_command

names = st.text(st.characters(exclude_characters=",", exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=12)
names |= st.sampled_from(["my pictures", "it's", '"', "$HOME", "two\nlines", "-dash", "--lr", "*", "猫", "a;b", "`x`"])
words = names.filter(lambda text: text.strip() == text)


def values(hint):
    """Draw a value of a setting's type."""
    if typing.get_origin(hint) is tuple:
        kind = typing.get_args(hint)[0]
        numbers = {int: st.integers(1, 9), float: st.floats(0.001, 9), str: words}
        return st.lists(numbers[kind], max_size=3).map(tuple)
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return st.one_of(*(st.none() if part is type(None) else values(part) for part in typing.get_args(hint)))
    known = {bool: st.booleans(), int: st.integers(0, 9), float: st.floats(0, 0.9), str: words, Path: words.map(Path)}
    return known[hint]


@st.composite
def configs(draw, kind):
    """Draw a config in which a few settings are not the default."""
    hints = typing.get_type_hints(kind)
    given = {}
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            given[field.name] = draw(configs(hints[field.name]))
        elif draw(st.integers(0, 3)) == 0:
            given[field.name] = draw(values(hints[field.name]))
    try:
        return kind(**given)
    except TransferError:
        return kind()


@pytest.mark.parametrize("kind", [TrainConfig, CompareConfig, AdaptConfig])
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_parsed_again_it_is_the_same_config(kind, data):
    config = data.draw(configs(kind))
    _, *argv = shlex.split(command_line(config))
    parsed = parse(argv).config
    run, wanted = (each.train.run if kind is CompareConfig else each.run for each in (parsed, config))
    if wanted.out is None:  # the command line saves every run
        unsaved = dataclasses.replace(run, out=None)
        inner = {"train": dataclasses.replace(parsed.train, run=unsaved)} if kind is CompareConfig else {"run": unsaved}
        parsed = dataclasses.replace(parsed, **inner)
    assert parsed == config


def test_it_names_only_what_is_not_the_default():
    assert command_line(TrainConfig()) == "transfer train"
    config = TrainConfig(
        DataConfig("-odd name", targets=("a", "b:binary")),
        policy=PolicyConfig("partial:2"),
        learn=LearnConfig(lr=1e-5, refit=True),
        run=RunConfig(out=Path("runs/a b"), seeds=(0, 1), report=False, plugin=("mine", "my file.py")),
    )
    said = "transfer train '--data=-odd name' --targets a,b:binary --policy partial:2 --lr 1e-05 --refit"
    assert (
        command_line(config) == said + " --out 'runs/a b' --seeds 0,1 --no-report --plugin mine --plugin 'my file.py'"
    )
    assert command_line(CompareConfig(policies=("full",))) == "transfer compare --policies full"


def test_a_recommended_command_names_what_was_looked_for_even_where_it_is_the_default():
    config = TrainConfig(DataConfig("my flowers"), learn=LearnConfig(probe="trained"))
    given = {"recommended": to_dict(config), "as_requested": to_dict(TrainConfig(DataConfig("a")))}
    shared = f"--backbone {BackboneConfig().backbone} --policy linear_probe"
    assert recommended_command({"command": "advise"} | given, "as_requested") == f"transfer train a {shared}"
    for command in ("search", "lr-find"):
        assert recommended_command({"command": command} | given) == (
            f"transfer train 'my flowers' {shared} --lr 0.003 --batch-size 64 --optimizer adamw --probe trained"
        )
