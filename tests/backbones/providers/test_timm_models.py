import timm

from transfer.backbones.providers import timm_models as provider


def test_names_are_timms_and_the_default_tag_comes_first():
    names = provider.names()
    assert set(names) <= set(timm.list_models(pretrained=True))
    first = {}
    for name in names:
        first.setdefault(name.partition(".")[0], name)
    for architecture in ("resnet50", "mobilenetv2_100", "convnext_tiny"):
        default = timm.get_pretrained_cfg(architecture).tag
        assert first[architecture] == f"{architecture}.{default}"


def test_known():
    assert provider.known("resnet50")
    assert provider.known("resnet50.a1_in1k")
    assert not provider.known("resnet50.nothing")
    assert not provider.known("vit_base_patch16_224")


def test_what_a_weights_file_has_beyond_the_network():
    network = provider.build("mobilenetv2_050")
    assert provider.spare("mobilenetv2_050", network) == ({"classifier.weight", "classifier.bias"}, "classifier", True)


def test_preprocessing_is_that_of_the_tag():
    a1, tv = (provider.preprocessing(f"resnet50.{tag}") for tag in ("a1_in1k", "tv_in1k"))
    assert (a1.interpolation, tv.interpolation) == ("bicubic", "bilinear")
    assert provider.preprocessing("inception_v3").input_size == (3, 299, 299)


def test_sources():
    assert provider.source("resnet50.a1_in1k") == "hf:timm/resnet50.a1_in1k"
    assert provider.source("legacy_xception.tf_in1k").startswith("https://github.com/")


def test_published_keys_are_rewritten_as_timm_does():
    network = provider.build("convnext_atto")
    published = {f"module.{key}": tensor for key, tensor in network.state_dict().items()}
    assert provider.renamed("convnext_atto", network, dict(network.state_dict())).keys() == network.state_dict().keys()
    assert provider.renamed("resnet18", provider.build("resnet18"), published).keys() == published.keys()


def test_a_classifier_of_several_layers_is_dropped_whole_and_not_taken_for_a_linear_one():
    keys, path, _ = provider.spare("repvit_m0_9", provider.build("repvit_m0_9"))
    assert "head.head.bn.weight" in keys
    assert path == ""
