"""Blocks skipped in training: how often, which, and none in use."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from transfer import freeze
from transfer.training.stochastic_depth import branches, skippable, stochastic_depth


def chances(network: nn.Module) -> dict[str, float]:
    return {path: m.drop_prob for path, m in network.named_modules() if isinstance(m, DropPath)}


def test_chances_rise_with_depth_over_the_blocks_that_learn(small: Callable[..., Any]) -> None:
    backbone = small("test_resnet")
    every = [path for path, _, _ in branches(backbone.network)]
    phase = freeze.plan("partial:2", backbone).phases[0]
    top = [path for path in every if phase.stages[backbone.stage_of(path)].trained]
    assert 0 < len(top) < len(every)
    with stochastic_depth(backbone, phase, 0.4):
        got = chances(backbone.network)
    assert got == pytest.approx({f"{p}.drop_path": 0.4 * (every.index(p) + 1) / len(every) for p in top})
    assert got[f"{every[-1]}.drop_path"] == pytest.approx(0.4)


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv2_035"])
def test_afterwards_all_is_as_before(small: Callable[..., Any], name: str) -> None:
    backbone = small(name)
    before, keys = repr(backbone.network), list(backbone.network.state_dict())
    phase = freeze.plan("full", backbone).phases[0]
    with suppress(KeyError), stochastic_depth(backbone, phase, 0.5):
        assert repr(backbone.network) != before
        assert list(backbone.network.state_dict()) == keys
        raise KeyError  # after an error, too
    assert repr(backbone.network) == before


def test_only_blocks_with_a_skip_count(small: Callable[..., Any]) -> None:
    blocks = [block for _, block, _ in branches(small("mobilenetv2_035").network)]
    assert len(blocks) == 10  # of MobileNetV2's 17 blocks
    assert all(block.has_skip for block in blocks)


def test_survival_is_as_often_as_asked_by_image_and_the_mean_is_what_comes_in_use(small: Callable[..., Any]) -> None:
    backbone = small("test_resnet")
    path, block, _ = branches(backbone.network)[-1]
    assert backbone.stage_of(path) == len(backbone.stages) - 1
    phase = freeze.plan("partial:1", backbone).phases[0]
    x = torch.randn(1, block.conv1.in_channels, 4, 4, generator=torch.Generator().manual_seed(0))
    backbone.eval()
    nn.init.ones_(block.bn2.weight)  # a random network's branches put out nothing
    with stochastic_depth(backbone, phase, 0.3), torch.no_grad():
        whole = block(x)
        assert torch.equal(block(x), whole)  # in use none is skipped
        block.drop_path.train()  # the block's norms stay as they are
        torch.manual_seed(0)
        branch: list[torch.Tensor] = []
        block.drop_path.register_forward_hook(lambda module, given, out: branch.append(out.clone()))
        block(x.expand(4000, -1, -1, -1))
        skipped = ~branch[0].flatten(1).any(1)
        assert float(skipped.float().mean()) == pytest.approx(0.3, abs=0.025)
        block.drop_path.eval()
        block(x)
        kept = branch[0][~skipped]
        assert torch.allclose(kept[:3], branch[1].expand_as(kept[:3]) / 0.7, atol=1e-4)
        assert torch.allclose(branch[0].mean(0), branch[1][0], rtol=0.1, atol=1e-3)


def test_without_a_chance_or_a_block_nothing_is_touched(small: Callable[..., Any]) -> None:
    for name, rate in (("test_resnet", 0.0), ("torchvision:squeezenet1_1", 0.1)):
        backbone = small(name, 64)
        phase = freeze.plan("partial:1", backbone).phases[0]
        assert bool(skippable(backbone, phase)) == (name == "test_resnet")
        with stochastic_depth(backbone, phase, rate):
            assert chances(backbone.network) == {}
