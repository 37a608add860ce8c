import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from transfer import freeze
from transfer.config.train import HeadConfig
from transfer.errors import TransferError
from transfer.heads import HeadSpec
from transfer.model import TransferModel
from transfer.runs import checkpoint

SPECS = [
    HeadSpec("object", classes=("back pack", "bike", "mug")),
    HeadSpec("domain", classes=("amazon", "größe"), weight=0.5),
    HeadSpec("height.cm", "regression", centre=1 / 3, spread=2 / 7),
    HeadSpec("glossy", "binary", ("no", "yes")),
]


def pixels() -> Tensor:
    return torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def trained(small: Callable[..., Any]) -> Callable[..., checkpoint.Models]:
    """Build models in which nothing has its first value any more, as after training."""

    def build(config: HeadConfig, name: str = "test_resnet", policy: str = "partial:1") -> checkpoint.Models:
        groups = {spec.name: [spec] for spec in SPECS} if config.heads == "separate" else {"": SPECS}
        models = {}
        for seed, (part, specs) in enumerate(groups.items()):
            backbone = freeze.reshape_backbone(small(name, seed=seed), freeze.FreezePolicy.parse(policy))
            torch.manual_seed(seed)
            model = TransferModel(backbone, checkpoint.build_heads(specs, backbone.width, config))
            model.freeze(freeze.plan(policy, backbone).phases[0])
            with torch.no_grad():
                for tensor in model.state_dict().values():
                    if tensor.is_floating_point():
                        tensor.add_(0.1 * torch.rand(tensor.shape))
                    else:
                        tensor.add_(3)
            models[part] = model.eval()
        return models

    return build


CONFIGS = {
    "dual": HeadConfig(),
    "joint": HeadConfig(heads="joint"),
    "separate": HeadConfig(heads="separate"),
    "mlp": HeadConfig(hidden=(8, 6), activation="gelu", dropout=0.3, head_init="he"),
    "vanilla": HeadConfig(dropout=0.3, dropout_kind="vanilla", drop_connect=0.2),
    "joint mlp": HeadConfig(heads="joint", hidden=(8,), activation="tanh"),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "full"])
def test_predictions_are_bit_equal_after_a_round_trip(
    trained: Callable[..., checkpoint.Models], tmp_path: Path, config: HeadConfig, policy: str
) -> None:
    models = trained(config, policy=policy)
    file = tmp_path / "model.safetensors"
    checkpoint.save_models(file, models, config)
    loaded = checkpoint.load_models(file)
    assert list(loaded) == list(models)
    for part, model in models.items():
        assert not loaded[part].training
        before, after = model.predict(pixels()), loaded[part].predict(pixels())
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert all(torch.equal(t, loaded[part].state_dict()[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "torchvision:squeezenet1_1", "test_convnext"])
def test_other_backbones(trained: Callable[..., checkpoint.Models], tmp_path: Path, name: str) -> None:
    models = trained(HeadConfig(), name)
    checkpoint.save_models(tmp_path / "model.safetensors", models, HeadConfig())
    loaded = checkpoint.load_models(tmp_path)[""]  # the run folder will do
    before, after = models[""].predict(pixels()), loaded.predict(pixels())
    assert all(torch.equal(before[head], after[head]) for head in before)


@pytest.mark.parametrize(
    "policy", ["truncate:2", "truncate:1+partial:1", "truncate:3+full", "head2toe", "stage_probes"]
)
@pytest.mark.parametrize("name", ["test_resnet", "torchvision:squeezenet1_1", "test_convnext"])
def test_shorter_networks_and_features_of_all_stages(
    trained: Callable[..., checkpoint.Models], tmp_path: Path, name: str, policy: str
) -> None:
    models = trained(HeadConfig(), name, policy)
    backbone = models[""].backbone
    checkpoint.save_models(tmp_path / "model.safetensors", models, HeadConfig())
    loaded = checkpoint.load_models(tmp_path)[""]
    assert (loaded.backbone.stages, loaded.backbone.dropped) == (backbone.stages, backbone.dropped)
    before, after = models[""].predict(pixels()), loaded.predict(pixels())
    assert all(torch.equal(before[head], after[head]) for head in before)
    saved = load_file(tmp_path / "model.safetensors")
    assert not any(stage in key for key in saved for stage in backbone.dropped)


def test_a_file_from_before_networks_could_be_shorter(
    trained: Callable[..., checkpoint.Models], tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    models = trained(HeadConfig())
    checkpoint.save_models(file, models, HeadConfig())
    with safe_open(file, "pt") as opened:
        header = json.loads(opened.metadata()["transfer"])
    assert header.pop("dropped") == 0
    assert header.pop("every_stage") is False
    save_file(load_file(file), file, metadata={"transfer": json.dumps(header)})
    before, after = models[""].predict(pixels()), checkpoint.load_models(file)[""].predict(pixels())
    assert all(torch.equal(before[head], after[head]) for head in before)


def test_all_that_is_needed_comes_back(trained: Callable[..., checkpoint.Models], tmp_path: Path) -> None:
    models = trained(HeadConfig())
    backbone = models[""].backbone
    backbone.preprocessing = replace(backbone.preprocessing, mean=(0.1, 0.2, 1 / 3), interpolation="bilinear")
    backbone.weights = "store somewhere/test_resnet.safetensors"
    checkpoint.save_models(tmp_path / "model.safetensors", models, HeadConfig())
    loaded = checkpoint.load_models(tmp_path)[""]
    assert loaded.backbone.preprocessing == backbone.preprocessing
    assert loaded.backbone.weights == "store test_resnet.safetensors"  # no folder of the machine it was made on
    assert loaded.backbone.name == "test_resnet"
    assert loaded.cut == models[""].cut == 4
    assert list(loaded.heads.specs.values()) == SPECS


def test_the_same_models_make_the_same_file(trained: Callable[..., checkpoint.Models], tmp_path: Path) -> None:
    for name in ("a", "b"):
        checkpoint.save_models(tmp_path / name, trained(HeadConfig()), HeadConfig())
    assert load_file(tmp_path / "a").keys() == load_file(tmp_path / "b").keys()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_loading_twice_gives_the_same_bits(trained: Callable[..., checkpoint.Models], tmp_path: Path) -> None:
    checkpoint.save_models(tmp_path / "model.safetensors", trained(HeadConfig()), HeadConfig())
    first, second = (checkpoint.load_models(tmp_path)[""].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "run",)

    for name, write in (
        ("torch", lambda file: torch.save({"x": Malicious()}, file)),
        ("pickle", lambda file: file.write_bytes(pickle.dumps(Malicious()))),
    ):
        file = tmp_path / name / "model.safetensors"
        file.parent.mkdir()
        write(file)
        with pytest.raises(TransferError, match="is not a readable safetensors file") as caught:
            checkpoint.load_models(file)
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt"}, {"transfer": "{}"}, {"transfer": '{"format": "transfer 99"}'}]
)
def test_a_foreign_safetensors_file(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"conv1.weight": torch.zeros(2)}, file, metadata=metadata)
    with pytest.raises(TransferError, match="is no model of this tool: expected the output of `transfer train`"):
        checkpoint.load_models(file)


def test_a_header_that_is_no_json(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(2)}, file, metadata={"transfer": "{half"})
    with pytest.raises(TransferError, match=r"model\.safetensors"):
        checkpoint.load_models(file)


@pytest.mark.parametrize("part", [0, 5, 0.5, 0.999])
def test_a_damaged_file(trained: Callable[..., checkpoint.Models], tmp_path: Path, part: float) -> None:
    file = tmp_path / "model.safetensors"
    checkpoint.save_models(file, trained(HeadConfig()), HeadConfig())
    whole = file.read_bytes()
    file.write_bytes(whole[: int(part * len(whole)) if part < 1 else int(part)])
    with pytest.raises(TransferError, match="train the run again"):
        checkpoint.load_models(file)


def test_nothing_there(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "model.safetensors", tmp_path / "nowhere"):
        with pytest.raises(TransferError, match="no run at") as caught:
            checkpoint.load_models(place)
        assert str(place) in str(caught.value)


@pytest.mark.parametrize("how", ["lacks one", "has one more", "another shape"])
def test_tensors_that_do_not_fit(trained: Callable[..., checkpoint.Models], tmp_path: Path, how: str) -> None:
    file = tmp_path / "model.safetensors"
    checkpoint.save_models(file, trained(HeadConfig()), HeadConfig())
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    tensors = load_file(file)
    name = next(key for key in tensors if key.endswith("head_object.0.weight"))
    if how == "lacks one":
        del tensors[name]
    elif how == "has one more":
        tensors["/heads.more"] = torch.zeros(1)
    else:
        tensors[name] = torch.zeros(1, 2)
    save_file(tensors, file, metadata=header)
    with pytest.raises(TransferError, match="does not fit test_resnet") as caught:
        checkpoint.load_models(file)
    assert "\n" not in str(caught.value)
    assert "head" in str(caught.value)


def test_the_header_is_plain_json_without_code(trained: Callable[..., checkpoint.Models], tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    checkpoint.save_models(file, trained(HeadConfig()), HeadConfig())
    with safe_open(file, "pt") as opened:
        header = json.loads(opened.metadata()["transfer"])
    assert header["format"] == checkpoint.MODEL_FORMAT
    assert header["backbone"] == "test_resnet"


def test_a_file_that_cannot_be_written(trained: Callable[..., checkpoint.Models], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TransferError, match="cannot write"):
        checkpoint.save_models(tmp_path / "file" / "model.safetensors", trained(HeadConfig()), HeadConfig())


def rewritten(path: Path, **changes: Any) -> Path:
    """Write a run's model again, with another header."""
    with safe_open(path, "pt") as opened:
        header = json.loads(opened.metadata()["transfer"])
    text = changes.pop("text", None) or json.dumps(header | changes)
    save_file(load_file(path), path, metadata={"transfer": text})
    return path


HEADERS = {
    "a backbone on the hub": ({"backbone": "hf-hub:stranger/model"}, "unknown backbone"),
    "a backbone that is a path": ({"backbone": "../../etc/passwd"}, "unknown backbone"),
    "a backbone that is a list": (
        {"backbone": ["test_resnet"]},
        r"backbone \['test_resnet'\]: it must be text",
    ),
    "another backbone, far larger": ({"backbone": "convnext_xxlarge"}, "does not fit convnext_xxlarge"),
    "one of which little is left": ({"backbone": "convnext_xxlarge", "dropped": 3}, "does not fit convnext_xxlarge"),
    "no parts": ({"parts": {}}, "holds 0 networks"),
    "a part that is none": ({"parts": {"": 1}}, "parts 1: it must be a NetworkHeader"),
    "a hidden layer of 10^12": ({"heads": {"hidden": [10**12]}}, "does not fit test_resnet"),
    "a hidden layer of 10^30": ({"heads": {"hidden": [10**30]}}, "no network is as it says"),
    "100,000 hidden layers": ({"heads": {"hidden": [1] * 10**5}}, "is damaged"),
    "no object": ({"text": "[]"}, "is no model of this tool"),
    "no JSON": ({"text": "{"}, "is not a readable safetensors file"),
    "no end": ({"text": "[" * 100_000}, "it is nested too deeply"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_from_a_stranger_is_one_line(tmp_path: Path, trained: Any, case: str) -> None:
    changes, says = HEADERS[case]
    config = HeadConfig()
    checkpoint.save_models(tmp_path / "model.safetensors", trained(config), config)
    with pytest.raises(TransferError, match=says) as caught:
        checkpoint.load_models(rewritten(tmp_path / "model.safetensors", **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [-1, 99])
def test_a_cut_outside_the_network_is_one_line(tmp_path: Path, trained: Any, cut: int) -> None:
    config = HeadConfig()
    file = tmp_path / "model.safetensors"
    checkpoint.save_models(file, trained(config), config)
    with safe_open(file, "pt") as opened:
        parts = json.loads(opened.metadata()["transfer"])["parts"]
    parts[""]["cut"] = cut
    with pytest.raises(TransferError, match=rf"is damaged: test_resnet cannot be cut at {cut}"):
        checkpoint.load_models(rewritten(file, parts=parts))
