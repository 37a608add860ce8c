import pytest
from torch import nn

from transfer.backbones.providers.base import ClassifierLayout, Provider
from transfer.errors import TransferError


class Minimal(Provider):
    label = "minimal"


def test_a_provider_without_published_weights_needs_five_methods_only() -> None:
    provider, network = Minimal(), nn.Linear(2, 2)
    state = network.state_dict()
    assert provider.rename_keys("net", network, state) is state
    assert provider.local_file("net") is None
    assert (provider.source("net"), provider.code_digest("net", network)) == ("", "")
    with pytest.raises(TransferError, match="net has no published weights: give --weights FILE, or --random-init"):
        provider.download("net")


@pytest.mark.parametrize("call", ["names", "knows", "build", "preprocessing"])
def test_the_others_must_be_defined(call) -> None:
    with pytest.raises(NotImplementedError):
        getattr(Minimal(), call)(*([] if call == "names" else ["net"]))


def test_a_layout_reads_pooled_features_by_default() -> None:
    assert ClassifierLayout(frozenset({"fc.weight", "fc.bias"}), "fc").pooled
