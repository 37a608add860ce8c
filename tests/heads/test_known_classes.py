import itertools

import pytest
import torch

from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.heads.known_classes import copy_known_classes

WIDTH = 6


def make(objects: tuple[str, ...], domains: tuple[str, ...], seed: int, **options: object) -> Heads:
    torch.manual_seed(seed)
    specs = [HeadSpec("object", classes=objects)]
    specs += [HeadSpec("domain", classes=domains)] if domains else []
    heads = Heads(specs, WIDTH, **options)
    for parameter in heads.parameters():
        parameter.data.normal_()
    heads.scale_to(torch.randn(20, WIDTH))
    return heads


def decide(heads: Heads, features: torch.Tensor) -> dict[str, list[str]]:
    out = heads(features)
    return {name: [spec.classes[i] for i in out[name].argmax(1)] for name, spec in heads.specs.items()}


@pytest.mark.parametrize("compose", ["dual", "joint"])
@pytest.mark.parametrize("hidden", [(), (5,)])
def test_no_prediction_changes(compose: str, hidden: tuple[int, ...]) -> None:
    old = make(("b", "d"), ("x", "z"), 0, compose=compose, hidden=hidden)
    new = make(("a", "b", "c", "d"), ("x", "y", "z"), 1, compose=compose, hidden=hidden)
    features = torch.randn(300, WIDTH)
    before = decide(old, features)
    assert len(set(before["object"])) == 2
    assert not copy_known_classes(new, old)
    assert decide(new, features) == before


def test_rows_of_known_classes_are_those_before_and_new_ones_their_mean() -> None:
    old, new = make(("b", "d"), (), 0), make(("a", "b", "d"), (), 1)
    copy_known_classes(new, old)
    before, after = old.layer("object")[0], new.layer("object")[0]
    assert torch.equal(after.weight[1:], before.weight)
    assert torch.equal(after.bias[1:], before.bias)
    assert torch.equal(after.weight[0], before.weight.mean(0))
    assert torch.equal(after.bias[0], before.bias.mean())
    assert torch.equal(new.centre, old.centre)
    assert torch.equal(new.spread, old.spread)


def test_pairs_of_a_joint_head_stay_with_their_pair() -> None:
    old = make(("b", "d"), ("x", "z"), 0, compose="joint")
    new = make(("a", "b", "d"), ("w", "x", "z"), 1, compose="joint")
    copy_known_classes(new, old)
    before, after = old.layer("joint")[0].weight, new.layer("joint")[0].weight
    for d, o in itertools.product(range(3), range(3)):
        known = before[2 * (d - 1) + o - 1] if d and o else before.mean(0)
        assert torch.equal(after[3 * d + o], known)


def test_a_class_that_is_gone_is_dropped() -> None:
    old, new = make(("a", "b", "c"), (), 0), make(("a", "c"), (), 1)
    assert copy_known_classes(new, old)
    assert torch.equal(new.layer("object")[0].weight, old.layer("object")[0].weight[[0, 2]])


def test_a_head_that_is_new_stays_as_it_is() -> None:
    old, new = make(("a", "b"), (), 0), make(("a", "b"), ("x", "y"), 1)
    fresh = new.layer("domain")[0].weight.clone()
    assert not copy_known_classes(new, old)
    assert torch.equal(new.layer("domain")[0].weight, fresh)
    assert torch.equal(new.layer("object")[0].weight, old.layer("object")[0].weight)


def test_a_head_of_another_kind_or_with_other_values_stays_as_it_is() -> None:
    torch.manual_seed(0)
    for old_spec, new_spec in (
        (HeadSpec("t", "binary", ("no", "yes")), HeadSpec("t", "softmax", ("no", "yes"))),
        (HeadSpec("t", "binary", ("no", "yes")), HeadSpec("t", "binary", ("false", "true"))),
    ):
        old, new = Heads([old_spec], WIDTH), Heads([new_spec], WIDTH)
        fresh = new.layer("t")[0].weight.clone()
        copy_known_classes(new, old)
        assert torch.equal(new.layer("t")[0].weight, fresh)


def test_a_head_of_numbers_is_copied() -> None:
    torch.manual_seed(0)
    old, new = (Heads([HeadSpec("t", "regression")], WIDTH) for _ in range(2))
    copy_known_classes(new, old)
    assert torch.equal(new.layer("t")[0].weight, old.layer("t")[0].weight)


def test_a_new_label_is_improbable_for_each_image_and_others_stay() -> None:
    old, new = (Heads([HeadSpec("tags", "multilabel", classes)], WIDTH) for classes in (("b", "d"), ("a", "b", "d")))
    for parameter in old.parameters():
        parameter.data.normal_()
    features = torch.randn(300, WIDTH)
    assert not copy_known_classes(new, old)
    before, after = (heads.predictions(heads(features))["tags"] for heads in (old, new))
    torch.testing.assert_close(after[:, 1:], before)
    torch.testing.assert_close(after[:, 0], torch.full((300,), 0.01))
