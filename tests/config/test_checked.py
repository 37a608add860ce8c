"""What is a value of an option, for the command line, Python, config.json and the estimator alike."""

import contextlib
import dataclasses
import math
import os
import types
import typing
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.cli.arguments import WithJsonFlag, parse
from transfer.config import adapt, commands, shared, train
from transfer.config.adapt import MethodConfig, ShiftConfig, StepsConfig
from transfer.config.checked import Config, convert, from_dict, get_hints
from transfer.config.commands import EvaluateConfig, PredictConfig, ReportConfig, UpdateConfig
from transfer.config.ranges import AtLeastOne, NotEmpty, Within
from transfer.config.serialise import to_dict
from transfer.config.shared import BackboneConfig, CacheConfig, RunConfig, ViewConfig
from transfer.config.train import CompareConfig, DataConfig, HeadConfig, LearnConfig, RegulariseConfig, TrainConfig
from transfer.errors import TransferError
from transfer.estimator import TransferClassifier

FOUND = [v for module in (shared, train, adapt, commands) for v in vars(module).values() if isinstance(v, type)]
CONFIGS = [kind for kind in dict.fromkeys(FOUND) if issubclass(kind, Config) and kind is not Config]

JUNK: list[Any] = [
    "",
    "cosin",
    "~/x",
    "a,b",
    b"x",
    "a\0b",
    "\ud83d",
    Path("x"),
    None,
    True,
    0,
    1,
    2,
    -1,
    10**400,
    1.5,
    -0.5,
]
JUNK += [math.nan, math.inf, 1j, Fraction(1, 2), [], (), ["a"], [1], [1.5], [None], [True], [[1]], {}, {"a": 1}, {"a"}]
JUNK += [range(2), object(), int, LearnConfig, np.float32(0.5), np.int64(3), np.bool_(True), np.arange(2), np.str_("x")]


def make(kind: type, name: str = "", value: Any = None) -> Any:
    """Return a config with its defaults, but for one field."""
    needed = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
    given = {"run": "runs/a", "runs": "runs/a", "name": "digits"}
    values = {field: given[field] for field in needed} | ({"add": "more"} if kind is UpdateConfig else {})
    if name in ("resume", "tensorboard", "map"):
        values["run" if name == "map" else "out"] = RunConfig(out=Path("runs/a")) if name == "map" else "runs/a"
    return kind(**values | ({name: value} if name else {}))


def strip(hint: Any) -> Any:
    while typing.get_origin(hint) is Annotated:
        hint = hint.__origin__
    return hint


def kinds(hint: Any) -> list[Any]:
    """Return the types of a hint, without annotations."""
    hint = strip(hint)
    return list(typing.get_args(hint)) if typing.get_origin(hint) in (types.UnionType, typing.Union) else [hint]


def is_value(hint: Any, value: Any) -> bool:
    """Return whether `value` is exactly of the type `hint`: the definition, written out."""
    if typing.get_origin(hint) is Annotated:
        items = value if isinstance(value, tuple) else (value,)
        bounds = [bound for bound in hint.__metadata__ if isinstance(bound, Within)]
        return is_value(hint.__origin__, value) and all(
            item is None or (bound.least <= item <= bound.most and item != math.inf)
            for bound in bounds
            for item in items
        )
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return any(is_value(option, value) for option in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return any(value == option and type(value) is type(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return type(value) is tuple and all(is_value(typing.get_args(hint)[0], item) for item in value)
    if hint is Path:
        return isinstance(value, Path)
    return type(value) is hint and (hint is not float or math.isfinite(value))


def fields_of(*wanted: Any) -> list[Any]:
    """Return each config and field that has one of the types `wanted`."""
    return [
        pytest.param(kind, name, id=f"{kind.__name__}.{name}")
        for kind in CONFIGS
        for name, hint in get_hints(kind).items()
        if any(option in wanted or typing.get_origin(option) in wanted for option in kinds(hint))
    ]


def test_every_config_is_found() -> None:
    assert {TrainConfig, CompareConfig, StepsConfig, EvaluateConfig, RunConfig} <= {*CONFIGS}
    assert len(CONFIGS) >= 24


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_every_field_of_every_config_has_its_type_or_is_refused_by_name(kind: type) -> None:
    """Junk in the place of any field, one by one: a value of the field's type, or one line that names it."""
    refused = 0
    for name, hint in get_hints(kind).items():
        for value in JUNK:
            message = None
            try:
                found = getattr(make(kind, name, value), name)
            except TransferError as error:
                message = str(error)
            if message is None:
                assert is_value(hint, found), (name, value, found)
                continue
            refused += 1
            labels = f"--{name.replace('_', '-')}", name, getattr(strip(hint), "__name__", name)
            assert message.startswith(tuple(f"{label} " for label in labels)), message
            assert len(message) < 400
            assert "\n" not in message
    assert refused > 10 * len(get_hints(kind))


@pytest.mark.parametrize(("kind", "name"), fields_of(Literal))
def test_a_choice_is_refused_with_all_choices_and_a_near_one(kind: type, name: str) -> None:
    choices = typing.get_args(next(option for option in kinds(get_hints(kind)[name])))
    for choice in choices:
        assert getattr(make(kind, name, choice), name) == choice
    wrong = f"{choices[-1]}x"
    near = rf"( \(did you mean .*'{choices[-1]}'.*\?\))?"
    with pytest.raises(TransferError, match=rf"{name.replace('_', '-')} '{wrong}'{near}: it must be one of") as refused:
        make(kind, name, wrong)
    assert str(refused.value).endswith(", ".join(map(str, choices)))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (lambda: LearnConfig(balance="weights"), "--balance 'weights': it must be one of none, loss, sampling"),
        (
            lambda: LearnConfig(schedule="cosin"),
            "--schedule 'cosin' (did you mean 'cosine'?): it must be one of",
        ),
        (lambda: HeadConfig(heads="duel"), "--heads 'duel' (did you mean 'dual'?): it must be one of dual, joint, sep"),
        (lambda: LearnConfig(precision="fp16"), "--precision 'fp16': it must be one of auto, float32, bfloat16"),
        (lambda: DataConfig(on_bad_image="ignore"), "--on-bad-image 'ignore': it must be one of refuse, skip"),
        (lambda: LearnConfig(epochs=True), "--epochs True: it must be a whole number, 1 or more"),
        (lambda: LearnConfig(epochs=2.5), "--epochs 2.5: it must be a whole number, 1 or more"),
        (lambda: LearnConfig(lr="0.1"), "--lr '0.1': it must be a finite number, above 0"),
        (lambda: HeadConfig(hidden=256), "--hidden 256: it must be a list or tuple, each item a whole number"),
        (lambda: RunConfig(seeds="3"), "--seeds '3': it must be a list or tuple, each item a whole number"),
        (lambda: RunConfig(seeds={0, 1}), "--seeds {0, 1}: it must be a list or tuple"),
        (lambda: HeadConfig(hidden=("a",)), "--hidden 'a': it must be a whole number, 1 or more"),
        (lambda: CacheConfig(cache="no"), "--cache 'no': it must be True or False"),
        (lambda: RunConfig(out=""), "--out '': it must be a path"),
        (lambda: BackboneConfig(weights=3), "--weights 3: it must be a path"),
        (lambda: DataConfig(data=None), "--data None: it must be text"),
        (lambda: MethodConfig(method=()), "--method is empty"),
        (lambda: CompareConfig(policies=()), "--policies is empty"),
        (lambda: ReportConfig(()), "runs is empty"),
        (lambda: PredictConfig("a", top=0), "--top 0: it must be 1 or more"),
        (lambda: PredictConfig(3), "run 3: it must be a path"),
        (lambda: TrainConfig(learn=LearnConfig), "learn <class"),
        (lambda: TrainConfig(learn=StepsConfig()), "learn StepsConfig("),
        (lambda: TrainConfig(learn={"epoch": 3}), "LearnConfig has no setting 'epoch' (did you mean 'epochs'?)"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(changed: Any, says: str) -> None:
    with pytest.raises(TransferError) as refused:
        changed()
    assert str(refused.value).startswith(says)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda: RunConfig(out="runs/a").out, Path("runs/a")),
        (lambda: RunConfig(out="~/a").out, Path.home() / "a"),
        (lambda: RunConfig(out="~nobody-of-this-name/a").out, Path("~nobody-of-this-name/a")),
        (lambda: DataConfig(Path("images")).data, "images"),
        (lambda: MethodConfig("mcc").method, ("mcc",)),
        (lambda: MethodConfig("mcc, shot").method, ("mcc", "shot")),
        (lambda: ShiftConfig(source="amazon").source, ("amazon",)),
        (lambda: PredictConfig("a", "b,c.png").images, ("b,c.png",)),
        (lambda: PredictConfig("a", Path("b,c.png")).images, ("b,c.png",)),
        (lambda: EvaluateConfig("a", "b").more, (Path("b"),)),
        (lambda: EvaluateConfig("a", ["b", Path("c")]).more, (Path("b"), Path("c"))),
        (lambda: RunConfig(seeds=range(3)).seeds, (0, 1, 2)),
        (lambda: RunConfig(seeds=np.arange(3)).seeds, (0, 1, 2)),
        (lambda: HeadConfig(hidden=[np.int64(8)]).hidden, (8,)),
        (lambda: LearnConfig(lr=np.float64(0.5)).lr, 0.5),
        (lambda: RegulariseConfig(l2=1).l2, 1.0),
        (lambda: ViewConfig(test_crops=np.int64(10)).test_crops, 10),
        (lambda: TrainConfig(learn={"epochs": 3}).learn.epochs, 3),
    ],
)
def test_values_become_those_of_the_command_line(found: Any, expected: Any) -> None:
    assert found() == expected
    assert type(found()) is type(expected) or isinstance(expected, Path)


def test_a_field_that_is_declared_again_has_no_wider_range() -> None:
    for kind in CONFIGS:
        for base in kind.__mro__[1:]:
            for name, hint in get_hints(base).items() if dataclasses.is_dataclass(base) else ():
                inherited = [bound for bound in getattr(hint, "__metadata__", ()) if isinstance(bound, Within)]
                own = [b for b in getattr(get_hints(kind)[name], "__metadata__", ()) if isinstance(b, Within)]
                for bound in inherited:
                    assert any(bound.least <= b.least and b.most <= bound.most for b in own), (kind, name)


WRONG = [("--balance", "weights"), ("--epochs", "2.5"), ("--lr", "much"), ("--hidden", "8,x"), ("--dropout", "1.5")]
WRONG += [("--test-crops", "3"), ("--heads", "duel"), ("--seed", "-1"), ("--augment", "crops"), ("--lr", "nan")]


@pytest.mark.parametrize(("option", "word"), WRONG)
def test_the_command_line_says_what_python_says(option: str, word: str) -> None:
    with pytest.raises(TransferError) as refused:
        parse(["train", option, word])
    name = option[2:].replace("-", "_")
    value: Any = {"nan": math.nan, "-1": -1, "1.5": 1.5, "8,x": (8, "x")}.get(word, word)
    kind = next(kind for kind in (LearnConfig, HeadConfig, ViewConfig, RunConfig) if name in get_hints(kind))
    with pytest.raises(TransferError) as in_python:
        kind(**{name: value})
    assert str(refused.value) == str(in_python.value)
    with pytest.raises(TransferError) as in_json:
        from_dict(kind, {name: list(value) if isinstance(value, tuple) else value})
    assert str(in_json.value) == str(in_python.value)
    parameters = TransferClassifier().get_params()
    if name in parameters:
        with pytest.raises(ValueError, match="it must be") as in_estimator:
            TransferClassifier("glyphnet", **{name: value}).fit(np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 0, 1])
        assert str(in_estimator.value) == str(in_python.value)


def test_the_command_line_still_reads_what_is_right() -> None:
    words = ["train", "--lr", "1e-2", "--hidden", "8,4", "--dropout", "0.5", "--heads", "joint", "--test-crops", "10"]
    parsed = parse(words)
    config = parsed.config if isinstance(parsed, WithJsonFlag) else parsed
    assert (config.learn.lr, config.heads.hidden, config.heads.dropout) == (0.01, (8, 4), 0.5)
    assert (config.heads.heads, config.view.test_crops) == ("joint", 10)


def test_a_dictionary_of_other_things_is_converted_item_by_item() -> None:
    assert convert(dict[str, tuple[Path, Path]], {"a": ["x", "y"]}, "x") == {"a": (Path("x"), Path("y"))}
    with pytest.raises(TransferError, match=r"^x \['x'\]: it must have 2 items$"):
        convert(tuple[Path, Path], ["x"], "x")
    with pytest.raises(TransferError, match=r"^x is empty"):
        convert(NotEmpty[str], "", "x")
    assert convert(AtLeastOne[int | None], None, "x") is None
    assert convert(int | str, "a", "x") == "a"


def test_a_name_with_bytes_that_are_no_text_is_a_path() -> None:
    name = os.fsdecode(b"caf\xe9")
    assert RunConfig(out=name).out == Path(name)


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
        ({"hidden": ["x"]}, "--hidden 'x': it must be a whole number"),
        ({"hidden": {"0": 1}}, "--hidden {'0': 1}: it must be a list"),
        ({"hidden": 3}, "--hidden 3: it must be a list or tuple, each item a whole number"),
        ({"hidden": [True]}, "--hidden True: it must be a whole number"),
        ({"activation": "__class__"}, "--activation '__class__': it must be one of relu, gelu, tanh, elu"),
        ({"dropout": float("nan")}, "--dropout nan"),
        ({"dropout": 10**400}, r"--dropout 10+\.\.\.: it must be from 0 to below 1"),
        ({"head_init": "\ud83d"}, "--head-init "),
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
