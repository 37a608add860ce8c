"""The mean of probes, each on its own stage's features."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from transfer.backbones.variants import split_variance
from transfer.errors import TransferError
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.probes import lbfgs, linear, stage_probes
from transfer.probes.lbfgs import DEFAULT_PROBE_L2
from transfer.report.console.run_text import run_text
from transfer.runs import checkpoint
from transfer.training.train import train

STAGES, WIDTHS = ("low", "middle", "top"), (6, 10, 24)
BLOCKS = [(slice(sum(WIDTHS[:i]), sum(WIDTHS[: i + 1])), share) for i, share in enumerate(split_variance(3))]
OBJECT = HeadSpec("object", classes=("a", "b", "c"))
SHARP = HeadSpec("sharp", "binary", ("no", "yes"))
SIZE = HeadSpec("size", "regression", centre=1.0, spread=2.0)
DOMAIN = HeadSpec("domain", classes=("x", "y"))
Rows = tuple[Tensor, dict[str, Tensor]]


def draw(n: int = 120, seed: int = 0) -> Rows:
    """Return features of three stages: each shows the object, the middle one best, and the lowest alone the rest."""
    g = torch.Generator().manual_seed(seed)
    truth, other = torch.randint(0, 3, (n,), generator=g), torch.randn(n, generator=g)
    means = [torch.randn(3, w, generator=torch.Generator().manual_seed(9)) for w in WIDTHS]
    far = (0.3, 1, 0.6)
    parts = [m[truth] * f + torch.randn(n, m.shape[1], generator=g) for m, f in zip(means, far, strict=True)]
    parts[0][:, 0] += 5 * other
    targets = {"object": truth, "sharp": (other > 0).long(), "domain": (other > 0.5).long(), "size": 1 + 2 * other}
    return torch.cat([part * scale for part, scale in zip(parts, (1, 20, 3), strict=True)], 1), targets


def solve(heads: Heads, *rows: Rows, **how: Any) -> dict[str, stage_probes.MemberSolution]:
    return stage_probes.solve_stage_probes(heads, *rows, stages=STAGES, blocks=BLOCKS, **how)


@pytest.mark.parametrize("spec", [OBJECT, SHARP, SIZE])
def test_it_is_the_mean_of_probes_each_on_its_own_features(spec: HeadSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    x, targets = draw()
    requested = {"middle": 0.05, "low": 0.2, stage_probes.ALL_STAGES: 0.1}
    heads = Heads([spec], sum(WIDTHS))
    assert solve(heads, (x, targets), fixed_l2={spec.name: requested}) == {spec.name: requested}
    parts = []
    for name, l2 in requested.items():
        if name == stage_probes.ALL_STAGES:
            alone = Heads([spec], sum(WIDTHS))
            (layer,) = linear.layer_problems(alone, (x, targets), blocks=BLOCKS)
            problem = layer.problem()
            with monkeypatch.context() as patch:
                patch.setattr(lbfgs, "FINE_TOLERANCE", 1e-4)
                problem.solve_at(l2, fine=True)
            layer.set_weights(*layer.unscale(problem))
            own = x
        else:
            columns, _ = BLOCKS[STAGES.index(name)]
            own = x[:, columns].clone()
            alone = Heads([spec], own.shape[1])
            linear.solve_linear_probe(alone, (own, targets), fixed_l2={spec.name: l2})
        with torch.no_grad():
            parts.append(alone(own)[spec.name] / 3)
    with torch.no_grad():
        np.testing.assert_allclose(heads(x)[spec.name].numpy(), sum(parts).numpy(), atol=0.03)


def test_validation_rows_choose_the_members() -> None:
    lines: list[dict[str, Any]] = []
    heads = Heads([OBJECT, SHARP], sum(WIDTHS))
    chosen = solve(heads, draw(), draw(300, 5), on_line=lines.append)
    assert next(iter(chosen["object"])) in ("middle", stage_probes.ALL_STAGES)
    assert "middle" in chosen["object"]
    for name, members in chosen.items():
        losses = {}
        for member in {line["on"] for line in lines if line["head"] == name}:
            own = [line for line in lines if (line["head"], line["on"]) == (name, member)]
            best = min(own, key=lambda line: line["val_loss"])
            losses[member] = best["val_loss"]
            assert member not in members or members[member] == best["strength"]
        assert list(members) == [n for n in sorted(losses, key=losses.get) if losses[n] <= 1.3 * min(losses.values())]
    assert {line["on"] for line in lines if line["head"] == "object"} == {*STAGES, stage_probes.ALL_STAGES}
    # Only the lowest stage knows: those above are tried, as they come first, and left out.
    assert chosen["sharp"].keys() <= {"low", stage_probes.ALL_STAGES}
    assert {line["on"] for line in lines if line["head"] == "sharp"} == {*STAGES, stage_probes.ALL_STAGES}


def test_no_stage_below_clearly_worse_ones_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    x, targets = draw()
    x[:, BLOCKS[1][0]] = torch.randn(len(x), WIDTHS[1], generator=torch.Generator().manual_seed(3))
    for patience, tried in ((1, {stage_probes.ALL_STAGES, "top", "middle"}), (2, {stage_probes.ALL_STAGES, *STAGES})):
        monkeypatch.setattr(stage_probes, "NEAR_BEST", 1.0)
        monkeypatch.setattr(stage_probes, "PATIENCE", patience)
        lines: list[dict[str, Any]] = []
        chosen = solve(Heads([OBJECT], sum(WIDTHS)), (x, targets), draw(300, 5), on_line=lines.append)
        assert {line["on"] for line in lines} == tried
        assert len(chosen["object"]) == 1  # the best


def test_fixed_l2_repeats_a_choice() -> None:
    first, again = Heads([OBJECT, SHARP], sum(WIDTHS)), Heads([OBJECT, SHARP], sum(WIDTHS))
    chosen = solve(first, draw(), draw(200, 5))
    lines: list[dict[str, Any]] = []
    assert solve(again, draw(), draw(200, 5), fixed_l2=chosen, on_line=lines.append) == chosen
    assert len(lines) == sum(map(len, chosen.values()))
    with torch.no_grad():
        for name in chosen:
            one, other = (heads(draw(500, 8)[0])[name] for heads in (first, again))
            assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.99


def test_without_validation_rows_last_stage_and_all_stages() -> None:
    x, targets = draw()
    targets["sharp"][:] = -1
    heads = Heads([OBJECT, SHARP], sum(WIDTHS))
    default = dict.fromkeys(("top", stage_probes.ALL_STAGES), DEFAULT_PROBE_L2)
    assert solve(heads, (x, targets)) == {"object": default}
    assert not linear.linear_layers(heads)["sharp"].weight.any()


def test_a_joint_head_averages_for_pairs() -> None:
    heads = Heads([OBJECT, DOMAIN], sum(WIDTHS), compose="joint")
    assert solve(heads, draw(300), draw(200, 5)).keys() == {"joint"}
    x, targets = draw(300, 7)
    answers = heads.predictions(heads(x))
    assert (answers["object"].argmax(1) == targets["object"]).float().mean() > 0.8
    assert (answers["domain"].argmax(1) == targets["domain"]).float().mean() > 0.8


@pytest.mark.parametrize("heads", ["dual", "separate"])
def test_a_run_reports_its_members_and_its_folder_predicts(config, tmp_path, heads):
    out, lines = tmp_path / "run", []
    run = train(config(policy="stage_probes", heads=heads, out=out), on_epoch=lines.append)
    result = json.loads((out / "result.json").read_text())
    chosen = {name: some for fitted in result["epochs"].values() for name, some in fitted[0].items()}
    assert chosen.keys() == {"object", "domain"}
    for name, members in chosen.items():
        assert f"{name}: mean of the probes on {', '.join(members)}" in run_text(result)
    assert result["policy"]["frozen_unchanged"]
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    for part, model in checkpoint.load_models(out).items():
        before, after = run.models[part].predict(images), model.predict(images)
        assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("settings", [{"probe": "trained"}, {"hidden": (8,)}, {"augment": "flip"}])
def test_trained_heads_are_refused(config, settings):
    with pytest.raises(TransferError, match="policy stage_probes is solved, never trained"):
        train(config(policy="stage_probes", **settings))
