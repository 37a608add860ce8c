"""An option that train and adapt share is declared once, in a class that both use."""

import dataclasses
import inspect
from collections.abc import Iterator
from typing import get_type_hints

import pytest

from transfer.config.adapt import AdaptConfig, StepsConfig
from transfer.config.shared import BackboneConfig, ImagesConfig, LayerwiseRatesConfig, OptimConfig, RunConfig
from transfer.config.train import DataConfig, LearnConfig, PolicyConfig, TrainConfig
from transfer.errors import TransferError

OTHER_MEANING = {"test", "val", "policy"}  # of other images; policies of one phase only


def owners(kind: type) -> Iterator[tuple[str, set[type]]]:
    """Yield each option of a nested config with the classes that declare it."""
    for field in dataclasses.fields(kind):
        hint = get_type_hints(kind)[field.name]
        if dataclasses.is_dataclass(hint):
            yield from owners(hint)  # type: ignore[arg-type]
        else:
            yield field.name, {cls for cls in kind.__mro__ if field.name in inspect.get_annotations(cls)}


def test_what_train_and_adapt_share_is_declared_once() -> None:
    train, adapt = dict(owners(TrainConfig)), dict(owners(AdaptConfig))
    shared = train.keys() & adapt.keys()
    assert {"data", "lr", "epochs", "augment", "device", "backbone_lr", "seed", "cache"} <= shared
    assert {name for name in shared if not train[name] & adapt[name]} == OTHER_MEANING


def test_a_subclass_keeps_the_checks_of_its_base() -> None:
    for kind in (OptimConfig, LearnConfig, StepsConfig):
        with pytest.raises(TransferError, match=r"^--lr 0: it must be above 0"):
            kind(lr=0)
    for kind in (LayerwiseRatesConfig, PolicyConfig, StepsConfig):
        with pytest.raises(TransferError, match=r"^--layer-decay -1: it must be 0 or more"):
            kind(layer_decay=-1)


def test_the_first_positional_field_is_the_one_that_names_the_config() -> None:
    assert ImagesConfig("office31").data == DataConfig("office31").data == "office31"
    assert PolicyConfig("full").policy == "full"
    assert BackboneConfig("resnet18").backbone == "resnet18"
    assert LearnConfig("sgd").optimizer == "sgd"


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(TransferError, match="--resume needs the folder"):
        RunConfig(resume=True)
