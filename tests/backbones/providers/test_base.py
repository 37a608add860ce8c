import pytest
from torch import nn

from transfer.backbones.providers.base import ClassifierLayout, Provider
from transfer.errors import TransferError

REQUIRED = ("names", "knows", "build", "classifier_layout", "preprocessing")


def provider_with(*methods: str) -> Provider:
    return type("Minimal", (Provider,), dict.fromkeys(methods, lambda self, *arguments: None))()


def test_a_provider_without_published_weights_needs_five_methods_only() -> None:
    provider, network = provider_with(*REQUIRED), nn.Linear(2, 2)
    state = network.state_dict()
    assert provider.rename_keys("net", network, state) is state
    assert provider.local_file("net") is None
    assert (provider.source("net"), provider.code_digest("net", network)) == ("", "")
    with pytest.raises(TransferError, match="net has no published weights: give --weights FILE, or --random-init"):
        provider.download("net")


@pytest.mark.parametrize("missing", REQUIRED)
def test_each_of_the_five_must_be_defined(missing: str) -> None:
    with pytest.raises(TypeError, match=f"abstract method '?{missing}'?"):
        provider_with(*(name for name in REQUIRED if name != missing))


def test_a_layout_reads_pooled_features_by_default() -> None:
    assert ClassifierLayout(frozenset({"fc.weight", "fc.bias"}), "fc").pooled
