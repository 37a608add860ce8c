import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from transfer.config import commands, train
from transfer.config.checked import Config, from_dict
from transfer.config.commands import EvaluateConfig, UpdateConfig
from transfer.config.serialise import iter_paths, to_dict
from transfer.config.train import CompareConfig, LearnConfig, RunConfig, TrainConfig

FOUND = [v for v in (*vars(train).values(), *vars(commands).values()) if isinstance(v, type)]
CONFIGS = [kind for kind in dict.fromkeys(FOUND) if issubclass(kind, Config) and kind is not Config]


EXCLUDED = ("overwrite",)  # cannot be together with resume


def other(hint: Any, default: Any) -> Any:
    """Return a value of the type `hint` that is not `default`."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return changed(hint)
    if origin is typing.Literal:
        return next(option for option in reversed(options) if option != default)
    if origin in (types.UnionType, typing.Union):
        return other(next(option for option in options if option is not type(None)), default)
    if origin is tuple:
        return {int: (3, 1), Path: (Path("b:2"), Path("a"))}.get(options[0], ("b:2", "a"))
    if hint is bool:
        return not default
    return {int: 17, float: 0.123, str: "some/name", Path: Path("some/folder")}[hint]


def changed(kind: type) -> Any:
    """Return a config in which no field has its default."""
    hints = typing.get_type_hints(kind)
    values = {f.name: other(hints[f.name], f.default) for f in dataclasses.fields(kind)}
    return kind(**values | {name: False for name in EXCLUDED if name in values})


def through_json(value: Any) -> Any:
    return from_dict(type(value), json.loads(json.dumps(to_dict(value))))


def test_all_configs_are_found() -> None:
    assert {TrainConfig, CompareConfig, EvaluateConfig, LearnConfig, RunConfig} <= set(CONFIGS)
    assert len(CONFIGS) >= 12


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_round_trip_with_every_field_changed(kind: type) -> None:
    value = changed(kind)
    assert all(getattr(value, f.name) != f.default for f in dataclasses.fields(kind) if f.name not in EXCLUDED)
    assert through_json(value) == value


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_round_trip_of_defaults(kind: type) -> None:
    needed = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
    given = {"run": Path("run"), "runs": (Path("run"),)}
    values = {name: given.get(name, "office31") for name in needed}
    value = kind(**values | ({"add": "more"} if kind is UpdateConfig else {}))
    assert through_json(value) == value


def test_types_come_back(tmp_path: Path) -> None:
    value = TrainConfig(run=RunConfig(out=tmp_path, seeds=(0, 1)))
    back = through_json(value)
    assert isinstance(back.run.out, Path)
    assert isinstance(back.run.seeds, tuple)
    assert isinstance(to_dict(value)["run"]["out"], str)
    assert isinstance(back.data.data, str)


def test_every_path_of_a_nested_config_is_found() -> None:
    config = EvaluateConfig(Path("a"), more=(Path("b"), Path("c")), out=Path("d"))
    assert set(iter_paths(config)) == {Path("a"), Path("b"), Path("c"), Path("d")}
    assert list(iter_paths(TrainConfig(run=RunConfig(out=Path("e"))))) == [Path("e")]
    assert not list(iter_paths(TrainConfig()))
