import numpy as np
import pytest

from transfer.config.train import HeadConfig
from transfer.data.splits import Splits
from transfer.data.table import ImageTable, Target, make_softmax_target
from transfer.errors import TransferError
from transfer.heads.table_heads import head_specs

EMPTY = np.array([], dtype=np.int64)


def table_of(objects, domains, **more):
    blank = np.full(len(objects), "")
    paths = np.array([f"{i}.png" for i in range(len(objects))])
    targets = {"object": make_softmax_target(objects), "domain": make_softmax_target(domains), **more}
    return ImageTable(paths, targets, blank, blank, "set")


def test_heads_follow_the_table():
    table = table_of(list("aabb"), list("xyxy"), age=Target(np.array([1.0, 3.0, np.nan, 5.0]), "regression"))
    specs, notes = head_specs(table, Splits(np.arange(4), EMPTY, EMPTY), HeadConfig(loss_weights=("domain:0.5",)))
    by_name = {spec.name: spec for spec in specs[""]}
    assert list(by_name) == ["object", "domain", "age"]
    assert by_name["domain"].weight == 0.5
    assert by_name["age"].centre == pytest.approx(3.0)
    assert by_name["age"].spread == pytest.approx(np.std([1.0, 3.0, 5.0]))
    assert notes == []


def test_separate_heads_have_a_network_each():
    specs, _ = head_specs(
        table_of(list("aabb"), list("xyxy")), Splits(np.arange(4), EMPTY, EMPTY), HeadConfig("separate")
    )
    assert {part: [spec.name for spec in some] for part, some in specs.items()} == {
        "object": ["object"],
        "domain": ["domain"],
    }


def test_domains_with_different_objects_are_said():
    _, notes = head_specs(table_of(list("aab"), list("xyx")), Splits(np.arange(3), EMPTY, EMPTY), HeadConfig())
    assert notes == ["object sets differ between domains: y has no image of b"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("objekt:1", "did you mean 'object'"),
        ("object:much", "NAME:NUMBER"),
        ("object:-1", "'object:-1': the weight must be 0 or more"),
        ("object:nan", "the weight must be 0 or more"),
        ("object:inf", "the weight must be 0 or more"),
    ],
)
def test_bad_loss_weights(text, says):
    with pytest.raises(TransferError, match=says):
        head_specs(
            table_of(list("ab"), list("xy")), Splits(np.arange(2), EMPTY, EMPTY), HeadConfig(loss_weights=(text,))
        )
