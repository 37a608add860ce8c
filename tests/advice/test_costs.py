import numpy as np
import pytest
from model_states import changed_names, copy_state

from transfer.advice.costs import TIMED_IMAGES, count_last_third, measure_costs
from transfer.backbones import load
from transfer.data.images.batches import ImageBatches


def test_costs_are_positive_and_the_backbone_is_unchanged(images):
    backbone = load("resnet10t", random_init=True, image_size=64)
    before = copy_state(backbone)
    found = measure_costs(backbone, images.paths)
    assert found.look > 0
    assert len(found.learn) == len(backbone.stages)
    assert min(found.learn) > 0
    assert not changed_names(before, backbone.state_dict())
    assert all(p.grad is None for p in backbone.parameters())


def test_costs_are_interpolated(images):
    found = measure_costs(load("mobilenetv2_050", random_init=True, image_size=64), images.paths)
    steps = np.diff(found.learn)
    assert steps[0] == pytest.approx(steps[1])
    assert steps[2:7] == pytest.approx(steps[2])
    assert steps[7] > steps[2]  # without frozen stages images are read in every epoch


def test_images_spread_over_the_set_are_timed(images, monkeypatch):
    seen = []

    class Noted(ImageBatches):
        def __init__(self, paths, *arguments, **named):
            seen.append(list(paths))
            super().__init__(paths, *arguments, **named)

    monkeypatch.setattr("transfer.advice.costs.ImageBatches", Noted)
    backbone, every = load("resnet10t", random_init=True, image_size=64), list(images.paths)
    measure_costs(backbone, images.paths)
    places = [every.index(path) for path in seen[0]]
    assert (places[0], places[-1], len(places)) == (0, len(every) - 1, TIMED_IMAGES)
    assert places == sorted(places)
    seen.clear()
    measure_costs(backbone, images.paths[:3])
    assert seen[0] == every[:3]


@pytest.mark.parametrize(("stages", "wanted"), [(1, 1), (2, 1), (4, 1), (5, 2), (6, 2), (9, 3)])
def test_a_third_is_at_least_one(stages, wanted):
    assert count_last_third(stages) == wanted
