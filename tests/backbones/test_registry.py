import pytest

from transfer.backbones import registry
from transfer.errors import TransferError


@pytest.mark.parametrize(
    ("name", "provider", "full"),
    [
        ("mobilenetv2_100", "timm", "mobilenetv2_100"),
        ("timm:mobilenetv2_100", "timm", "mobilenetv2_100"),
        ("timm/resnet18.a1_in1k", "timm", "resnet18.a1_in1k"),
        ("hf-hub:timm/resnet18.a1_in1k", "timm", "resnet18.a1_in1k"),
        ("resnet50.a1_in1k", "timm", "resnet50.a1_in1k"),
        ("torchvision:squeezenet1_1", "torchvision", "torchvision:squeezenet1_1"),
        ("torchvision:resnet50.IMAGENET1K_V1", "torchvision", "torchvision:resnet50.IMAGENET1K_V1"),
        (" glyphnet ", "bundled", "glyphnet"),
        ("vovnet57a", "timm", "vovnet57a"),  # has no pretrained weights; a file may
    ],
)
def test_names_as_the_providers_write_them(name, provider, full):
    found, known_as = registry.resolve(name)
    assert (found.label, known_as) == (provider, full)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("squeezenet1_1", "did you mean 'torchvision:squeezenet1_1'?"),
        ("torchvision:mobilenetv2_100", "did you mean 'mobilenetv2_100'?"),
        ("mobilenetv2_10", "did you mean 'mobilenetv2_100'"),
        ("torchvision:resnet5", "did you mean 'torchvision:resnet50'"),
        ("resnet50.a1", "'resnet50.a1_in1k'"),
        ("vit_base_patch16_224", "is not a convolutional network"),
        ("caformer_s18", "is not a convolutional network"),
        ("", "unknown backbone ''"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(TransferError) as error:
        registry.resolve(name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_every_listed_name_resolves_to_itself():
    names = registry.list_names()
    assert len(names) > 900
    assert len(set(names)) == len(names)
    assert all(registry.resolve(name)[1] == name for name in names)
