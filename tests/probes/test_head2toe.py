"""A probe on selected features is a linear probe on them, and its heads are ordinary heads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from transfer.config.train import BackboneConfig, DataConfig, LearnConfig, PolicyConfig, RunConfig, TrainConfig
from transfer.errors import TransferError
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.probes import head2toe, lbfgs, linear
from transfer.probes.head2toe import solve_head2toe
from transfer.probes.head_problem import HeadProblem
from transfer.probes.lbfgs import DEFAULT_PROBE_L2
from transfer.report.console.run_text import run_text
from transfer.runs import checkpoint
from transfer.training.train import train

SHARED = Path(__file__).parents[3] / "shared"
WIDTH, MATTER = 60, (3, 20, 41)
OBJECT = HeadSpec("object", classes=("a", "b", "c", "d"))
SHARP = HeadSpec("sharp", "binary", ("no", "yes"))
SIZE = HeadSpec("size", "regression", centre=1.0, spread=2.0)
DOMAIN = HeadSpec("domain", classes=("x", "y"))
PERCENTS = (100.0, 50.0, 20.0, 10.0, 5.0)
Rows = tuple[Tensor, dict[str, Tensor]]


def draw(n: int = 80, seed: int = 0) -> Rows:
    """Return features, three of which decide the object and three others all other targets."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, WIDTH, generator=g)
    weight = torch.tensor([[3.0, -3, 0, 0], [0, 3, -3, 1], [1, 0, 3, -3]])
    other = x[:, [5, 6, 7]].sum(1)
    targets = {"object": (x[:, list(MATTER)] @ weight).argmax(1), "sharp": (other > 0).long()}
    return x * torch.linspace(0.5, 2, WIDTH) + 3, targets | {"size": 1 + 2 * other, "domain": (other > 0.5).long()}


def used(heads: Heads, name: str) -> list[int]:
    return (linear.linear_layers(heads)[name].weight != 0).any(0).nonzero().squeeze(1).tolist()


def test_relevant_features_are_selected() -> None:
    lines: list[dict[str, Any]] = []
    heads = Heads([OBJECT, SHARP], WIDTH)
    chosen = solve_head2toe(heads, draw(), draw(200, 5), percents=PERCENTS, on_line=lines.append)
    for name, matter in (("object", MATTER), ("sharp", (5, 6, 7))):  # each head by itself
        assert chosen[name]["percent"] == 5.0
        assert used(heads, name) == sorted(matter)
        losses = {}
        for line in lines:
            if line["head"] == name:
                losses[line["percent"]] = min(line["val_loss"], losses.get(line["percent"], np.inf))
        assert list(losses) == list(PERCENTS)
        assert list(losses.values()) == sorted(losses.values(), reverse=True)


def test_the_search_stops_where_fewer_features_are_no_better() -> None:
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(WIDTH, 4, generator=g)  # every feature matters

    def rows(n: int) -> Rows:
        x = torch.randn(n, WIDTH, generator=g)
        return x, {"object": (x @ weight).argmax(1)}

    lines: list[dict[str, Any]] = []
    chosen = solve_head2toe(Heads([OBJECT], WIDTH), rows(300), rows(300), percents=PERCENTS, on_line=lines.append)
    assert chosen["object"]["percent"] == 100.0
    assert {line["percent"] for line in lines} == {100.0, 50.0}


@pytest.mark.parametrize("spec", [OBJECT, SHARP, SIZE])
def test_it_is_the_probe_on_the_selected_features_alone(spec: HeadSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = draw()
    heads, fewer = Heads([spec], WIDTH), Heads([spec], WIDTH)
    solve_head2toe(heads, rows, percents=(10.0,), fixed_l2={spec.name: {"percent": 10.0, "strength": 0.05}})
    columns = used(heads, spec.name)
    assert len(columns) == 6
    (layer,) = linear.layer_problems(fewer, rows)
    identity = torch.eye(WIDTH)
    reference = HeadProblem(layer.part, layer.linear.out_features, layer.train, None, lambda l2: identity, 0.0)
    reference.train.x[:, [i for i in range(WIDTH) if i not in columns]] = 0.0
    monkeypatch.setattr(lbfgs, "FINE_TOLERANCE", 1e-4)
    reference.solve_at(0.05, fine=True)
    layer.set_weights(*layer.unscale(reference))
    with torch.no_grad():
        got, wanted = heads(rows[0])[spec.name], fewer(rows[0])[spec.name]
    np.testing.assert_allclose(got.numpy(), wanted.numpy(), atol=0.03)


def test_a_joint_head_selects_for_pairs() -> None:
    heads = Heads([OBJECT, DOMAIN], WIDTH, compose="joint")
    chosen = solve_head2toe(heads, draw(300), draw(200, 5), percents=(10.0,))
    assert chosen.keys() == {"joint"}
    assert {*MATTER, 5, 6, 7} == set(used(heads, "joint"))


def test_fixed_l2_repeats_a_choice() -> None:
    first, again = Heads([OBJECT, SHARP], WIDTH), Heads([OBJECT, SHARP], WIDTH)
    chosen = solve_head2toe(first, draw(), draw(200, 5), percents=PERCENTS)
    assert solve_head2toe(again, draw(), draw(200, 5), percents=PERCENTS, fixed_l2=chosen) == chosen
    for name in chosen:
        assert used(first, name) == used(again, name)


def test_without_validation_rows_first_percentage_and_default_l2() -> None:
    chosen = solve_head2toe(Heads([OBJECT], WIDTH), draw(), percents=PERCENTS)
    assert chosen == {"object": {"percent": 100.0, "strength": DEFAULT_PROBE_L2}}


def test_features_are_ranked_once_a_head_and_only_where_some_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    ranked: list[int] = []
    rank = head2toe.rank_features
    monkeypatch.setattr(head2toe, "rank_features", lambda x, *how: (ranked.append(len(x)), rank(x, *how))[1])
    solve_head2toe(Heads([OBJECT], WIDTH), draw(), percents=(100.0,))
    assert ranked == []
    solve_head2toe(Heads([OBJECT, SHARP], WIDTH), draw(), draw(200, 5), percents=PERCENTS)
    assert ranked == [80, 80]


def test_a_head_without_a_label_is_left_at_zero() -> None:
    x, targets = draw()
    targets["object"][:] = -1
    heads = Heads([OBJECT, SHARP], WIDTH)
    assert solve_head2toe(heads, (x, targets), percents=(10.0,)).keys() == {"sharp"}
    assert used(heads, "object") == []


@pytest.mark.parametrize("heads", ["dual", "joint", "separate"])
def test_a_run_reports_its_features_and_its_folder_predicts(config, tmp_path, heads):
    out = tmp_path / "run"
    run = train(config(policy="head2toe:10", heads=heads, out=out))
    result = json.loads((out / "result.json").read_text())
    kept = result["policy"]["kept"]
    assert kept.keys() == ({"joint"} if heads == "joint" else {"object", "domain"})
    width = result["backbone"]["width"]
    for some in kept.values():
        assert list(some["features"]) == ["stem", "layer1", "layer2", "layer3", "layer4"]
        assert sum(some["features"].values()) == round(width / 10)
        assert some["percent"] == pytest.approx(10, abs=0.5)
    weights = sum(int((p != 0).sum()) for model in run.models.values() for p in model.heads.parameters())
    assert result["policy"]["trained_parameters"] == weights
    assert "10" in run_text(result)
    assert "layer4" in run_text(result)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    for part, model in checkpoint.load_models(out).items():
        assert {type(layer) for layer in linear.linear_layers(model.heads).values()} == {nn.Linear}
        before, after = run.models[part].predict(images), model.predict(images)
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_refitting_uses_the_chosen_percentage(config):
    lines: list[dict[str, Any]] = []
    result = train(config(policy="head2toe"), on_epoch=lines.append).result
    (chosen,) = result["epochs"]["model"]
    assert chosen == lines[-1]["solved"]
    for head, found in chosen.items():
        best = min((line for line in lines if line.get("head") == head), key=lambda line: line["val_loss"])
        assert found == {"percent": best["percent"], "strength": best["strength"]}
        assert 0 < result["policy"]["kept"][head]["percent"] <= found["percent"] + 0.5  # less what is constant
    assert not train(config(policy="linear_probe")).result["policy"].keys() & {"kept", "dropped"}


@pytest.mark.parametrize("settings", [{"probe": "trained"}, {"hidden": (8,)}, {"augment": "flip"}])
def test_trained_heads_are_refused(config, settings):
    with pytest.raises(TransferError, match="policy head2toe is solved, never trained") as caught:
        train(config(policy="head2toe", **settings))
    assert "\n" not in str(caught.value)


def test_cached_views_are_rows(config):
    run = train(config(policy="head2toe:20", augment="crop", views=1))
    assert run.result["policy"]["kept"]["object"]["percent"] == pytest.approx(20, abs=0.5)


@pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason="no shared/weights beside the checkout")
@pytest.mark.parametrize("name", ["mobilenetv2_100", "torchvision:squeezenet1_1"])
@pytest.mark.parametrize("policy", ["head2toe:5", "truncate:2"])
def test_real_weights(images, tmp_path, monkeypatch, name, policy):
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(SHARED / "weights"))
    folder = Path(str(images.paths[0])).parents[2]
    run = train(
        TrainConfig(
            DataConfig(str(folder)),
            BackboneConfig(name),
            policy=PolicyConfig(policy),
            learn=LearnConfig(device="cpu"),
            run=RunConfig(out=tmp_path / "run"),
        )
    )
    assert run.result["policy"]["frozen_unchanged"]
    assert run.result["test"]["object"]["accuracy"] == 1.0  # colours are told apart low down
    saved = {key.removeprefix("/") for key in load_file(tmp_path / "run" / "model.safetensors")}
    assert saved == set(run.models[""].state_dict())
