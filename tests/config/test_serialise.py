import contextlib
import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.config import commands, train
from transfer.config.commands import EvaluateConfig
from transfer.config.serialise import from_dict, to_dict
from transfer.config.train import CacheConfig, CompareConfig, LearnConfig, RunConfig, TrainConfig
from transfer.errors import TransferError

FOUND = [*vars(train).values(), *vars(commands).values()]
CONFIGS = list(dict.fromkeys(v for v in FOUND if isinstance(v, type) and dataclasses.is_dataclass(v)))


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
    value = kind(**{name: given.get(name, "office31") for name in needed})
    assert through_json(value) == value


def test_types_come_back(tmp_path: Path) -> None:
    value = TrainConfig(run=RunConfig(out=tmp_path, seeds=(0, 1)))
    back = through_json(value)
    assert isinstance(back.run.out, Path)
    assert isinstance(back.run.seeds, tuple)
    assert isinstance(to_dict(value)["run"]["out"], str)
    assert isinstance(back.data.data, str)


def test_an_unknown_key_is_named_with_what_it_may_have_meant() -> None:
    with pytest.raises(TransferError, match=r"LearnConfig has no setting 'epoch' \(did you mean 'epochs'\?\)"):
        from_dict(TrainConfig, {"learn": {"epoch": 3}})
    with pytest.raises(TransferError, match=r"RunConfig has no setting 'zebra'$"):
        from_dict(RunConfig, {"zebra": 1})


def test_missing_keys_take_their_defaults() -> None:
    assert from_dict(TrainConfig, {"learn": {"epochs": 3}}) == TrainConfig(learn=LearnConfig(epochs=3))


def test_a_saved_config_is_checked_as_a_typed_one() -> None:
    with pytest.raises(TransferError, match="--epochs 0: it must be 1 or more"):
        from_dict(TrainConfig, {"learn": {"epochs": 0}})
    assert from_dict(CacheConfig, {"views": 0}) == CacheConfig()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"hidden": ["x"]}, "HeadConfig: hidden is 'x', not int"),
        ({"hidden": {"0": 1}}, "hidden is {'0': 1}, not tuple"),
        ({"hidden": 3}, r"HeadConfig: hidden is 3, not tuple\[int, \.\.\.\]"),
        ({"hidden": [True]}, "hidden is True, not int"),
        ({"activation": "__class__"}, "activation is '__class__', not Literal"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"dropout": 10**400}, r"dropout is 10+\.\.\., not float"),
        ({"head_init": "\ud83d"}, "head_init is"),
        ({"dropuot": 1}, r"no setting 'dropuot' \(did you mean 'dropout'"),
        ([], r"HeadConfig is \[\], not settings by name"),
        ({"x" * 10**6: 1}, r"no setting 'x+\.\.\."),
    ],
)
def test_a_value_of_another_type_is_named(values: Any, says: str) -> None:
    with pytest.raises(TransferError, match=says) as caught:
        from_dict(train.HeadConfig, values)
    assert len(str(caught.value)) < 200


def test_what_is_lacking_is_named() -> None:
    with pytest.raises(TransferError, match="PredictConfig lacks run"):
        from_dict(commands.PredictConfig, {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=30, deadline=None)
@given(st.data())
@pytest.mark.parametrize("kind", [TrainConfig, commands.SearchConfig, commands.PredictConfig], ids=lambda k: k.__name__)
def test_any_json_is_a_config_or_one_line(kind: type, data: st.DataObject) -> None:
    """Any value in the place of any setting: a config of the right types, or a TransferError."""
    names = list(typing.get_type_hints(kind))
    values = data.draw(st.dictionaries(st.sampled_from(names) | st.text(max_size=3), JSON, max_size=4) | JSON)
    with contextlib.suppress(TransferError):
        config = from_dict(kind, values)
        assert from_dict(kind, to_dict(train)) == config
