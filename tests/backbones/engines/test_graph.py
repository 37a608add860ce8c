import onnx
import torch

from transfer.backbones import load
from transfer.backbones.engines.graph import export_stages
from transfer.backbones.variants import AllStagesBackbone, TruncatedBackbone


def test_the_graph_has_fixed_shapes_and_the_expected_output_is_torchs(small, with_statistics):
    backbone = with_statistics(small("resnet10t", 64))
    example = torch.randn(1, 3, 64, 64)
    for start, cut in ((0, 5), (0, 2), (2, 5)):
        with torch.no_grad():
            x = backbone.trunk(example, start)
            expected = backbone.trunk(x, cut, start)
        graph, output = export_stages(backbone, cut, start, x)
        assert torch.equal(output, expected)
        model = onnx.load_model_from_string(graph)
        for value, shape in ((model.graph.input[0], x.shape), (model.graph.output[0], expected.shape)):
            assert [axis.dim_value for axis in value.type.tensor_type.shape.dim] == list(shape)


def test_stages_above_the_cut_are_not_in_it(small):
    backbone = small("resnet10t", 64)
    sizes = [len(export_stages(backbone, cut, 0, torch.randn(1, 3, 64, 64))[0]) for cut in (1, 2, 3, 4, 5)]
    assert sizes == sorted(sizes)
    assert sizes[1] < sizes[-1] / 10


def test_the_network_stays_as_it_is(small):
    backbone = small().train()
    backbone.network.layer1.eval()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    modes = [module.training for module in backbone.modules()]
    with torch.inference_mode():
        export_stages(backbone, 3, 0, torch.randn(1, 3, 32, 32))
    assert [module.training for module in backbone.modules()] == modes
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_variants_are_exported_too(small):
    for backbone in (TruncatedBackbone(small(), 2), AllStagesBackbone(small()), AllStagesBackbone(small(), True)):
        example = torch.randn(1, 3, 32, 32)
        graph, output = export_stages(backbone, len(backbone.stages), 0, example)
        assert len(graph) > 1000
        assert output.shape == (1, backbone.width)


def test_the_original_classifier_is_exported_too_and_stays_as_it_is():
    backbone = load("glyphnet", classifier="any")
    every = AllStagesBackbone(backbone, with_statistics=True)
    assert "logits" in every.layout
    example = torch.randn(1, *backbone.preprocessing.input_size)
    graph, output = export_stages(every, len(every.stages), 0, example)
    (value,) = onnx.load_model_from_string(graph).graph.output
    assert [axis.dim_value for axis in value.type.tensor_type.shape.dim] == [1, every.width] == list(output.shape)
    assert all(parameter.requires_grad for parameter in backbone.original_classifier.parameters())


def test_it_is_silent(small, recwarn, capfd):
    export_stages(small(), 3, 0, torch.randn(1, 3, 32, 32))
    assert not [warning for warning in recwarn if "onnx" in str(warning.message).lower()]
    assert capfd.readouterr() == ("", "")
