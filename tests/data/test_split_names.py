import pytest

from transfer.data.split_names import describe_splits, read_splits

FORMS = {
    "train": [
        "train",
        "Train",
        "TRAIN",
        "training",
        "Training",
        "train_set",
        "trainset",
        "train images",
        "images-train",
    ],
    "val": ["val", "Val", "valid", "VALIDATION", "dev", "Dev", "val_split"],
    "test": ["test", "Testing", "TEST", "eval", "Evaluation", "holdout", "hold-out", "held_out", "test data"],
    "": ["cat", "latest", "trains", "tester", "validity", "images", "set", "data", "device", "", "train2 cars"],
}


@pytest.mark.parametrize(("name", "split"), [(name, split) for split, names in FORMS.items() for name in names])
def test_usual_forms(name, split):
    assert read_splits([name]) == {name: split}


@pytest.mark.parametrize(
    ("names", "evaluation"),
    [
        (["eval"], "test"),
        (["eval", "train", "test"], "val"),
        (["eval", "val", "Test"], "test"),
        (["eval", "dev"], "test"),
    ],
)
def test_eval_beside_test_is_val(names, evaluation):
    assert read_splits(names)["eval"] == evaluation


def test_only_other_names_are_described():
    assert describe_splits({"Train": "train", "VALID": "val", "test": "test", "cat": ""}) == ""
    assert describe_splits({"Train": "train", "dev": "val", "cat": ""}) == "Train is train, dev is val"
