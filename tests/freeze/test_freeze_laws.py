"""Laws 1 and 9: what is frozen stays bit-identical, in every kind of network, however hard `.train()` is called."""

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from timm.layers import convert_sync_batchnorm
from timm.layers.norm_act import FrozenBatchNormAct2d
from timm.utils.model import freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from transfer import freeze
from transfer.backbones.backbone import Backbone
from transfer.config.train import LearnConfig
from transfer.errors import TransferError
from transfer.freeze import FreezePlan, plan
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.training import optimizers

POLICIES = ["linear_probe", "partial:1", "partial:2", "norm_only", "full", "surgical:first"]


MORE_POLICIES = ["surgical:middle", "surgical:last", "lp_ft", "gradual:1", "gradual:bottom_up", "scratch"]


class Necked(nn.Module):
    """A plain CNN whose features pass a fully connected layer with a one-dimensional norm."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.InstanceNorm2d(8, affine=True, track_running_stats=True))
        self.layer1 = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), norm(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), norm(16))
        self.layer2 = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1), norm(16), nn.ReLU(), nn.Conv2d(16, 24, 3, 2, 1), norm(24)
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.neck = nn.Sequential(nn.Linear(24, 12), nn.BatchNorm1d(12), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.neck(self.pool(self.layer2(self.layer1(self.stem(x)))))


def without_affine(network: nn.Module) -> nn.Module:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, nn.BatchNorm2d(child.num_features, affine=False))
    return network


# Changes to the network of a backbone before it is wrapped again.
VARIANTS: dict[str, tuple[str, Callable[[nn.Module], nn.Module]]] = {
    "frozen BatchNorm": ("test_resnet", freeze_batch_norm_2d),
    "frozen BatchNormAct": ("test_efficientnet", freeze_batch_norm_2d),
    "SyncBatchNorm": ("test_resnet", nn.SyncBatchNorm.convert_sync_batchnorm),
    "SyncBatchNormAct": ("test_efficientnet", convert_sync_batchnorm),
    "not affine": ("test_resnet", without_affine),
    "BatchNorm1d": ("test_resnet", lambda _: Necked(nn.BatchNorm2d)),
    "GroupNorm and BatchNorm1d": ("test_resnet", lambda _: Necked(functools.partial(nn.GroupNorm, 4))),
}


NAMES = [
    "test_resnet",
    "test_efficientnet",
    "test_efficientnet_gn",
    "test_efficientnet_ln",
    "test_convnext",
    "test_byobnet",
    "test_nfnet",
    "mobilenetv3_small_050",
    "lcnet_035",
    "regnetx_002",
    "ghostnet_050",
    "dla46x_c",
    "torchvision:squeezenet1_1",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:mobilenet_v3_small",
    "torchvision:mnasnet0_5",
    *VARIANTS,
]


NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, FrozenBatchNorm2d, FrozenBatchNormAct2d)


@pytest.fixture(scope="module")
def built(small: Callable[..., Backbone]) -> Callable[[str], Backbone]:
    """Build each backbone once; hand out copies. Norms are made to differ from their neutral start."""

    @functools.cache
    def original(name: str) -> Backbone:
        provider, convert = VARIANTS.get(name, (name, lambda network: network))
        backbone = small(provider)
        torch.manual_seed(1)
        backbone = Backbone(name, convert(backbone.network), backbone.preprocessing).eval()
        with torch.no_grad():
            for module in backbone.network.modules():
                if isinstance(module, NORMS) and isinstance(getattr(module, "weight", None), Tensor):
                    module.weight += 0.1 + 0.1 * torch.rand_like(module.weight)
        return backbone

    return lambda name: copy.deepcopy(original(name))


def tensors(network: nn.Module) -> dict[str, Tensor]:
    both = [*network.named_parameters(), *network.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in both}


def same(a: Tensor, b: Tensor) -> bool:
    return a.numpy().tobytes() == b.numpy().tobytes()


def open_stages(policy: str, n: int) -> range:
    """Return the stages that a policy trains, by its name."""
    kind, _, argument = policy.partition(":")
    if kind == "linear_probe":
        return range(0)
    if kind == "partial":
        return range(n - int(argument), n)
    if kind == "surgical":
        third = ["first", "middle", "last"].index(argument)
        return range(third * n // 3, (third + 1) * n // 3)
    return range(n)


def step(model: TransferModel, the_plan: FreezePlan, phase: int = -1) -> None:
    """Take one step of gradient descent with every module in train mode."""
    torch.manual_seed(0)
    size = model.backbone.preprocessing.input_size
    pixels = torch.randint(0, 256, (6, *size), dtype=torch.uint8)
    optimizer = optimizers.build_optimizer(model, the_plan, LearnConfig(optimizer="sgd", weight_decay=0.1))
    model.freeze(the_plan.phases[phase])
    optimizers.set_rates(optimizer, the_plan.phases[phase], 0.5)
    model.train()
    model.backbone.network.train()
    for module in model.backbone.network.modules():
        module.train()
    targets = {"object": torch.arange(6) % 3}
    model.heads.loss(model(model.trunk(pixels)), targets).backward()
    nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
    optimizer.step()


def with_head(backbone: Backbone) -> TransferModel:
    torch.manual_seed(0)
    return TransferModel(backbone, Heads([HeadSpec("object", classes=("a", "b", "c"))], backbone.width))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", NAMES)
def test_frozen_parts_are_bit_identical_after_a_step(built: Callable[[str], Backbone], name: str, policy: str) -> None:
    backbone = built(name)
    network, n = backbone.network, len(backbone.stages)
    in_norm = {
        f"{path}.{own}"
        for path, module in network.named_modules()
        if isinstance(module, NORMS)
        for own in (*module._parameters, *module._buffers)
    }
    if policy == "norm_only" and not in_norm & {name for name, _ in network.named_parameters()}:
        with pytest.raises(TransferError, match="no trainable normalisation parameters"):
            plan(policy, backbone)
        return
    model, the_plan = with_head(backbone), plan(policy, backbone)
    before, proof = tensors(network), freeze.hash_frozen_tensors(backbone, the_plan.phases)
    step(model, the_plan)
    after = tensors(network)

    may_move = {t for t in before if backbone.stage_of(t) in open_stages(policy, n)}
    if policy == "norm_only":
        may_move &= in_norm
    buffers = {name for name, _ in network.named_buffers()}
    may_move -= buffers - in_norm
    assert [t for t in before if t not in may_move and not same(before[t], after[t])] == []
    assert set(proof) == set(before) - may_move
    assert freeze.find_changed_tensors(proof, freeze.hash_frozen_tensors(backbone, the_plan.phases)) == ()

    # What is open did move: the statistics of each norm, and something in each stage with parameters.
    moved = {t for t in may_move if not same(before[t], after[t])}
    for path, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and f"{path}.running_mean" in may_move:
            assert f"{path}.running_mean" in moved
            assert after[f"{path}.num_batches_tracked"] == before[f"{path}.num_batches_tracked"] + 1
    parameters = {name for name, _ in network.named_parameters()} & may_move
    assert {backbone.stage_of(t) for t in parameters & moved} == {backbone.stage_of(t) for t in parameters}
    assert len(parameters & moved) >= 0.5 * len(parameters)

    # What is frozen is in eval mode, what learns is not.
    for path, module in network.named_modules():
        if any(backbone.stage_of(f"{path}.{t}" if path else t) in open_stages(policy, n) for t in own(module)):
            assert module.training == (policy != "norm_only" or isinstance(module, NORMS)), path
        elif own(module):
            assert not module.training, path


def own(module: nn.Module) -> list[str]:
    return [*module._parameters, *module._buffers]


@pytest.mark.parametrize("policy", MORE_POLICIES)
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet_gn", "torchvision:squeezenet1_1"])
def test_the_other_policies(built: Callable[[str], Backbone], name: str, policy: str) -> None:
    backbone = built(name)
    n = len(backbone.stages)
    the_plan = plan(policy, backbone)
    trained = range(n - 1, n) if policy == "gradual:1" else open_stages(policy, n)
    before = tensors(backbone.network)
    step(with_head(backbone), the_plan)
    after = tensors(backbone.network)
    moved = {backbone.stage_of(t) for t in before if not same(before[t], after[t])}
    assert moved == set(trained)


@pytest.mark.parametrize("policy", ["truncate:2", "truncate:1+partial:1", "truncate:2+full"])
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet_gn", "torchvision:squeezenet1_1"])
def test_in_a_truncated_network(built: Callable[[str], Backbone], name: str, policy: str) -> None:
    backbone = freeze.reshape_backbone(built(name), freeze.FreezePolicy.parse(policy))
    the_plan, before = plan(policy, backbone), tensors(backbone.network)
    proof = freeze.hash_frozen_tensors(backbone, the_plan.phases)
    step(with_head(backbone), the_plan)
    after = tensors(backbone.network)
    moved = {backbone.stage_of(t) for t in before if not same(before[t], after[t])}
    assert moved == set(open_stages(policy.partition("+")[2] or "linear_probe", len(backbone.stages)))
    assert freeze.find_changed_tensors(proof, freeze.hash_frozen_tensors(backbone, the_plan.phases)) == ()


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet_gn", "BatchNorm1d"])
def test_bottom_up_leaves_the_stages_above_alone(built: Callable[[str], Backbone], name: str) -> None:
    backbone = built(name)
    the_plan = plan("gradual:bottom_up", backbone)
    for phase in (1, 2):
        before = tensors(backbone.network)
        step(with_head(backbone), the_plan, phase)
        after = tensors(backbone.network)
        assert {backbone.stage_of(t) for t in before if not same(before[t], after[t])} == set(range(phase))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "BatchNorm1d", "SyncBatchNorm"])
def test_trained_stages_may_keep_their_statistics(built: Callable[[str], Backbone], name: str) -> None:
    backbone = built(name)
    the_plan = plan("full", backbone, statistics="frozen")
    before = tensors(backbone.network)
    step(with_head(backbone), the_plan)
    after = tensors(backbone.network)
    buffers = {t for t, _ in backbone.network.named_buffers()}
    assert buffers <= set(freeze.hash_frozen_tensors(backbone, the_plan.phases))
    assert all(same(before[t], after[t]) for t in buffers)
    assert not all(same(before[t], after[t]) for t in before.keys() - buffers)
    assert "bn*" not in str(the_plan)
    assert "bn*: BatchNorm statistics are updated, too" in str(plan("full", backbone, statistics="learning"))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "BatchNorm1d", "torchvision:mobilenet_v3_small"])
def test_frozen_modules_are_in_eval_mode_whatever_is_called(built: Callable[[str], Backbone], name: str) -> None:
    backbone = built(name)
    model, the_plan = with_head(backbone), plan("partial:1", backbone)
    model.freeze(the_plan.phases[0])
    top = len(backbone.stages) - 1

    def frozen_modules() -> list[nn.Module]:
        found = []
        for path, module in backbone.network.named_modules():
            try:
                if backbone.stage_of(path) < top:
                    found.append(module)
            except KeyError:  # it holds several stages
                continue
        return found

    assert len(frozen_modules()) > 3
    model.train()
    assert not any(module.training for module in frozen_modules())
    assert model.heads.training
    pixels = torch.zeros(2, *backbone.preprocessing.input_size, dtype=torch.uint8)
    backbone.network.train()
    model.trunk(pixels)
    assert not any(module.training for module in frozen_modules())
    activation = model.trunk(pixels)
    for module in backbone.network.modules():
        module.train()
    model(activation)
    assert not any(module.training for module in frozen_modules())
    model.eval()
    assert not any(module.training for module in model.modules())
    model.train(True)
    assert not any(module.training for module in frozen_modules())
