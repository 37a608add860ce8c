import numpy as np
import pytest
import torch

from transfer.config.train import HeadConfig
from transfer.formats.portable import PortableModel, find_rounded_module, select_predictions
from transfer.runs import checkpoint


@pytest.mark.parametrize(
    "form",
    [{"policy": "partial:2"}, {"policy": "truncate:2+partial:1"}, {"separate": True}, {"heads": HeadConfig("joint")}],
)
def test_one_module_predicts_as_all_networks_do(form, saved, noise, own):
    run = saved(**form)
    outputs = PortableModel(checkpoint.load_models(run))(noise)
    with torch.no_grad():
        predictions = {name: p.numpy() for name, p in outputs.items() if name.endswith("_probabilities")}
    wanted = own(run, noise)
    assert list(predictions) == [f"{name}_probabilities" for name in wanted]
    for name, values in wanted.items():
        np.testing.assert_allclose(predictions[f"{name}_probabilities"], values, atol=1e-4)


def test_activations_are_rounded_where_the_run_rounds_them(saved):
    (model,) = checkpoint.load_models(saved("partial:2")).values()
    path = find_rounded_module(model)
    assert path == model.backbone.stages[model.cut - 1].modules[-1]
    portable, seen = PortableModel({"": model}), []
    portable.models[0].backbone.network.get_submodule(path).register_forward_hook(lambda *call: seen.append(call[-1]))
    portable(torch.randint(0, 256, (1, 3, 32, 32)).to(torch.uint8))
    assert torch.equal(seen[0], seen[0].half().float())
    model.cut_precision = "float32"
    assert find_rounded_module(model) == ""
    (probe,) = checkpoint.load_models(saved("linear_probe")).values()
    assert find_rounded_module(probe) == ""


def test_select_predictions():
    one = torch.ones(1)
    assert list(select_predictions({"a_logits": one, "a_probabilities": one, "age_value": one})) == ["a", "age"]
