import pytest

from transfer.advice.network import Network
from transfer.backbones import load


@pytest.mark.parametrize(("name", "normed"), [("resnet10t", True), ("torchvision:squeezenet1_1", False)])
def test_stages_are_counted_as_they_are(name, normed):
    backbone = load(name, random_init=True, image_size=64)
    found = Network.of(backbone)
    assert found.normed is normed
    assert len(found.parameters) == len(found.layers) == len(backbone.stages)
    held = [
        [p for path in stage.modules for p in backbone.network.get_submodule(path).parameters()]
        for stage in backbone.stages
    ]
    assert found.parameters == tuple(sum(p.numel() for p in stage) for stage in held)
    assert found.layers == tuple(sum(p.ndim > 1 for p in stage) for stage in held)
