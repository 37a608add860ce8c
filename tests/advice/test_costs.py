import pytest
import torch

from transfer.advice.costs import measure, third
from transfer.backbones import load


def test_costs_are_above_nothing_and_rise_with_the_stages(images):
    backbone = load("resnet10t", random_init=True, image_size=64)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    found = measure(backbone, images.paths)
    assert found.look > 0
    assert len(found.learn) == len(backbone.stages)
    assert min(found.learn) > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert all(p.grad is None for p in backbone.parameters())


def test_between_what_is_measured_costs_lie_on_a_line(images):
    found = measure(load("mobilenetv2_050", random_init=True, image_size=64), images.paths)
    one, three, nine = found.learn[0], found.learn[2], found.learn[8]
    assert found.learn[1] == pytest.approx((one + three) / 2)
    assert found.learn[5] == pytest.approx((three + nine) / 2)


@pytest.mark.parametrize(("stages", "wanted"), [(1, 1), (2, 1), (4, 1), (5, 2), (6, 2), (9, 3)])
def test_a_third_is_at_least_one(stages, wanted):
    assert third(stages) == wanted
