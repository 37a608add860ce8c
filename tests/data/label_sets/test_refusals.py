from dataclasses import replace

import numpy as np
import pytest

from transfer.config.train import DataConfig, HeadConfig, LearnConfig, RegulariseConfig, TrainConfig
from transfer.data.label_sets.cells import read_label_sets
from transfer.data.label_sets.combinations import use_label_sets
from transfer.data.label_sets.refusals import refuse_options_of_objects
from transfer.data.table import ImageTable, make_softmax_target
from transfer.errors import TransferError


@pytest.fixture
def table():
    blank = np.full(3, "")
    targets = {"object": make_softmax_target(blank), "domain": make_softmax_target(["all"] * 3)}
    targets["tags"] = read_label_sets("tags", ["red|round", "none", "red"], str)
    return use_label_sets(ImageTable(np.array(["/a", "/b", "/c"]), targets, blank, blank, "things"))


@pytest.mark.parametrize(
    ("config", "option"),
    [
        (TrainConfig(learn=LearnConfig(balance="loss")), "--balance loss"),
        (TrainConfig(learn=LearnConfig(regularise=RegulariseConfig(co_tuning=1.0))), "--co-tuning"),
        (TrainConfig(heads=HeadConfig("joint")), "--heads joint"),
        (TrainConfig(DataConfig("x", unlabelled="rest")), "--unlabelled"),
        (TrainConfig(DataConfig("x", unlabelled="rest"), heads=HeadConfig("joint")), "--heads joint, --unlabelled"),
    ],
)
def test_options_that_go_by_objects_are_refused(table, config, option) -> None:
    with pytest.raises(
        TransferError, match=f"^{option} goes by the object of each image, and the images of things have"
    ):
        refuse_options_of_objects(config, table)
    refuse_options_of_objects(TrainConfig(), table)
    objects = replace(table, targets=table.targets | {"object": make_softmax_target(["cup", "pen", "pen"])})
    refuse_options_of_objects(config, objects)
