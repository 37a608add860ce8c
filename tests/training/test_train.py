import csv
import json
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from model_states import changed_names, copy_state, move_a_frozen_tensor
from safetensors.torch import load_file

import transfer
from transfer.backbones import catalogue
from transfer.config.checked import from_dict
from transfer.config.train import DataConfig, TrainConfig, ViewConfig
from transfer.data.table import ImageTable
from transfer.errors import TransferError
from transfer.evaluation.predict import predict
from transfer.probes import held_out_images
from transfer.probes.held_out import cross_fit
from transfer.runs import checkpoint
from transfer.training.fit import fit
from transfer.training.setup import read_images
from transfer.training.train import train


def test_the_run_folder_holds_the_run(config, tmp_path):
    out = tmp_path / "run"
    run_config = config(out=out, test=0.25, epochs=2, probe="trained")
    run = train(run_config)
    result = json.loads((out / "result.json").read_text())
    assert result == json.loads(json.dumps(run.result))
    assert from_dict(TrainConfig, json.loads((out / "config.json").read_text())) == run_config
    assert set(result) >= {"command", "config", "versions", "seconds", "policy", "test", "per_domain"}
    assert set(result["seconds"]) == {"total", "trunk", "train"}
    assert result["policy"]["frozen_unchanged"] is True
    assert set(result["test"]) == {"object", "domain"}
    assert set(result["per_domain"]) == {"plain", "striped"}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all(set(line[side]) == {"object", "domain"} for line in lines for side in ("train", "val"))
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = np.mean([row["object"] == row["object_predicted"] for row in rows])
    assert len(rows) == result["test"]["object"]["n"] == 12
    assert right == pytest.approx(result["test"]["object"]["accuracy"])


@pytest.mark.parametrize(
    "policy",
    [
        "linear_probe",
        "partial:2",
        "full",
        "lp_ft:1",
        "gradual:2",
        "gradual:bottom_up",
        "norm_only",
        "surgical:middle",
        "scratch",
        "truncate:2",
        "truncate:1+partial:1",
        "truncate:2+lp_ft:1",
        "truncate:3+scratch",
        "head2toe",
        "head2toe:10",
        "stage_probes",
    ],
)
def test_every_policy_runs_and_leaves_what_is_frozen_alone(config, policy):
    run = train(config(policy=policy, epochs=3))
    assert run.result["policy"]["name"] == policy
    assert run.result["policy"]["frozen_unchanged"]
    assert run.result["policy"]["moved"] == []


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "full"])
def test_a_run_of_any_device_predicts_the_same_on_a_cpu(config, tmp_path, policy, device):
    """But for rounding: convolutions of a GPU round to TensorFloat-32."""
    run = train(config(policy=policy, device=device, out=tmp_path / "run"))
    assert run.result["policy"]["frozen_unchanged"]
    assert next(run.models[""].parameters()).device.type == device
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    found = list(predict(checkpoint.load_models(tmp_path / "run", "cpu"), [row["path"] for row in expected]))
    for row, want in zip(found, expected, strict=True):
        share = dict(row["object_top"])[want["object_predicted"]]
        assert share == pytest.approx(float(want["object_probability"]), abs=1e-4 if device == "cpu" else 0.02)


@pytest.mark.parametrize(
    ("options", "method", "rows"),
    [
        ({}, "cross-conformal, 5 folds", 36),
        ({"heads": "separate"}, "cross-conformal, 5 folds", 36),
        ({"heads": "joint"}, "cross-conformal, 5 folds", 36),
        ({"balance": "loss"}, "cross-conformal, 5 folds", 36),
        ({"policy": "partial:1", "epochs": 2}, "split-conformal, validation images", 7),
        ({"policy": "stage_probes"}, "split-conformal, validation images", 7),
    ],
)
def test_prediction_sets_are_made_from_images_that_were_not_trained_on(config, tmp_path, options, method, rows):
    run = train(config(test=0.25, out=tmp_path / "run", **options))
    found = run.result["uncertainty"]
    assert found["method"] == run.uncertainty.method == method
    assert list(found["heads"]) == ["object", "domain", "object_and_domain"]
    assert {len(sets.scores) for sets in run.uncertainty.sets.values()} == {rows}
    saved = transfer.load_run(tmp_path / "run").uncertainty
    for name, sets in run.uncertainty.sets.items():
        np.testing.assert_allclose(saved.sets[name].scores, sets.scores, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "name", "candidates", "rows"),
    [
        ({}, None, 5, 36),
        ({"heads": "separate"}, None, 5, 36),
        ({"heads": "joint"}, None, 5, 36),
        ({"policy": "partial:1", "epochs": 2}, "msp", 0, 7),
        ({"policy": "partial:1", "epochs": 2, "heads": "joint"}, "msp", 0, 7),
    ],
)
def test_an_unknown_score_is_chosen_where_classes_can_be_left_out(config, tmp_path, options, name, candidates, rows):
    run = train(config(test=0.25, out=tmp_path / "run", **options))
    report, unknown = run.result["uncertainty"]["unknown"], run.uncertainty.unknown
    assert unknown.name == report["score"] == (name or max(report["auroc"], key=report["auroc"].get))
    assert (len(report["auroc"]), report["n"]) == (candidates, rows)
    assert report["reason"].startswith("best" if candidates else "not chosen")
    assert 0 <= report["strange"]["share"] <= 1
    saved = transfer.load_run(tmp_path / "run").uncertainty.unknown
    assert saved.describe() == unknown.describe()
    assert saved.reference.tolist() == unknown.reference.tolist()
    assert {key: values.tolist() for key, values in saved.state.items()} == {
        key: values.tolist() for key, values in unknown.state.items()
    }


def test_two_classes_have_an_unknown_score_that_needs_no_choice(config, folder):
    images = read_images(DataConfig(str(folder))).of(("red", "blue"))
    run = train(config(test=0.25), images=images)
    assert run.uncertainty.unknown.name == "msp"
    assert run.result["uncertainty"]["unknown"]["reason"].startswith("not chosen")


def test_without_held_out_images_there_are_no_prediction_sets(config, tmp_path):
    run = train(config(val=0, policy="partial:1", epochs=1, out=tmp_path / "run"))
    assert run.uncertainty is None
    assert "uncertainty" not in run.result
    assert not (tmp_path / "run" / "uncertainty.safetensors").exists()


def test_groups_are_held_out_together_for_prediction_sets(config, folder, monkeypatch):
    images = read_images(DataConfig(str(folder)))
    group = np.array([f"{i // 4}" for i in range(len(images.table))])
    folds: list[np.ndarray] = []

    def spy(heads, rows, fold, temperatures, **options):
        folds.append(fold)
        return cross_fit(heads, rows, fold, temperatures, **options)

    monkeypatch.setattr(held_out_images, "cross_fit", spy)
    run = train(config(test=0.25), images=replace(images, table=replace(images.table, group=group)))
    tested = set(run.tests[0][0].group.tolist())
    trained = [name for name in group.tolist() if name not in tested]
    assert len(folds[0]) == len(trained) > 20
    for name in set(trained):
        assert len({fold for fold, other in zip(folds[0].tolist(), trained, strict=True) if other == name}) == 1


def test_the_measured_coverage_is_that_of_predict_which_sees_one_view(config):
    plain = config(test=0.25)
    plain, crops = (
        train(each).result["uncertainty"] for each in (plain, replace(plain, view=ViewConfig(test_crops=10)))
    )
    assert plain["heads"] == crops["heads"]


@pytest.mark.parametrize("backbone", ["test_resnet", "glyphnet"])
def test_a_truncated_network_is_saved_without_what_was_dropped(config, tmp_path, backbone):
    out = tmp_path / "run"
    run = train(config(policy="truncate:2+partial:1", backbone=backbone, out=out, epochs=2))
    assert run.result["policy"]["dropped"] == ("layer3", "layer4")
    model = run.models[""]
    last = sum(p.numel() for n, p in model.backbone.network.named_parameters() if model.backbone.stage_of(n) == 2)
    heads = sum(p.numel() for p in model.heads.parameters())
    assert run.result["policy"]["trained_parameters"] == last + heads
    saved = load_file(out / "model.safetensors")
    assert sum("layer" in name for name in saved) > 10
    assert not any("layer3" in name or "layer4" in name for name in saved)
    images = torch.randint(0, 256, (4, *model.backbone.preprocessing.input_size), dtype=torch.uint8)
    before, after = model.predict(images), checkpoint.load_models(out)[""].predict(images)
    assert not changed_names(before, after)


def test_another_runs_backbone_is_truncated_too(config):
    backbone = train(config(policy="full", epochs=1)).models[""].backbone
    run = train(config(policy="truncate:2", epochs=1), backbone=backbone)
    assert [stage.name for stage in run.models[""].backbone.stages] == ["stem", "layer1", "layer2"]
    assert len(backbone.stages) == 5  # a copy was


def test_a_frozen_tensor_moved_on_purpose_is_seen(config, monkeypatch):
    move_a_frozen_tensor(monkeypatch)
    run = train(config(epochs=1))
    assert run.result["policy"]["frozen_unchanged"] is False
    assert run.result["policy"]["moved"]


@pytest.mark.parametrize("augmented", [{}, {"augment": "crop"}, {"augment": "crop", "views": 2}])
@pytest.mark.parametrize("policy", ["linear_probe", "partial:2", "lp_ft:1"])
def test_same_seed_same_result_whatever_the_workers_and_the_cache(config, policy, augmented):
    """And whether the cache is empty or full."""
    first = train(config(policy=policy, workers=1, **augmented))
    for other in ({"workers": 2}, {"workers": 4, "cache": False}):
        other = train(config(policy=policy, **augmented, **other))
        a, b = first.models[""].state_dict(), other.models[""].state_dict()
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert first.result["test"] == other.result["test"]
        assert first.result["epochs"] == other.result["epochs"]


def test_a_probe_is_solved_and_says_how(config, tmp_path):
    out = tmp_path / "run"
    run = train(config(out=out))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {line["head"] for line in lines[:-1]} == {"object", "domain"}
    assert all({"strength", "loss", "val", "val_loss"} <= set(line) for line in lines[:-1])
    for head in ("object", "domain"):
        tried = [line for line in lines[:-1] if line["head"] == head]
        best = min(tried, key=lambda line: line["val_loss"])
        assert lines[-1]["solved"][head] == best["strength"]
    assert run.result["epochs"] == {"model": [lines[-1]["solved"]]}
    assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    kinds = {type(module) for module in run.models[""].heads.layers.modules()}
    assert kinds <= {torch.nn.ModuleDict, torch.nn.Sequential, torch.nn.Linear}


def test_on_request_and_with_a_hidden_layer_or_fresh_draws_a_probe_is_trained(config):
    for settings in ({"probe": "trained"}, {"hidden": (8,)}, {"augment": "flip"}):
        seen = []
        train(config(epochs=1, **settings), on_epoch=seen.append)
        assert "rate" in seen[0], settings


def test_views_make_a_probe_with_augmentation_solvable(config):
    seen = []
    train(config(augment="crop", views=2), on_epoch=seen.append)
    assert "solved" in seen[-1]


def test_lp_ft_solves_then_tunes(config):
    seen = []
    run = train(config(policy="lp_ft:1", epochs=4), on_epoch=seen.append)
    assert "solved" in next(line for line in seen if "val" in line and "head" not in line)
    assert "rate" in seen[-1]
    assert [line["of"] for line in seen if "rate" in line] == 2 * [
        next(line["epoch"] for line in seen if "rate" in line) + 1
    ]
    assert isinstance(run.result["epochs"]["model"][0], dict)


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_the_precision_of_the_cut_goes_with_the_model(config, tmp_path, precision):
    run = train(config(policy="partial:1", cut_precision=precision, epochs=1, out=tmp_path / "run"))
    (loaded,) = checkpoint.load_models(tmp_path / "run").values()
    assert loaded.cut_precision == precision
    assert torch.equal(
        loaded.trunk(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).float(),
        run.models[""].trunk(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).float(),
    )


def test_another_seed_draws_another_split(config):
    tests = [set(train(config(seed=seed, epochs=1)).tests[0][0].paths) for seed in (0, 1)]
    assert tests[0] != tests[1]


def test_several_seeds_give_mean_deviation_and_each(config, tmp_path):
    run = train(config(seeds=(0, 1, 2), probe="trained", epochs=1, out=tmp_path / "run"))
    each = [one["test"]["object"]["accuracy"] for one in run.result["seeds"]]
    assert run.result["test"]["object"]["accuracy"] == pytest.approx(np.mean(each))
    assert run.result["sd"]["test"]["object"]["accuracy"] == pytest.approx(np.std(each, ddof=1))
    alone = train(config(seed=1, probe="trained", epochs=1))
    assert alone.result["test"] == run.result["seeds"][1]["test"]
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {
        "seed0",
        "seed1",
        "seed2",
        "model.safetensors",
        "result.json",
    }
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["run"] for line in lines] == ["seed0", "seed1", "seed2"]


def test_refit_learns_from_validation_rows_too(config):
    """With refit the model differs from the one that only saw train, and is the default for the probe alone."""
    plain, refit, default = (train(config(refit=value)).models[""].state_dict() for value in (False, True, None))
    heads = [name for name in plain if name.startswith("heads.layers")]
    assert any(not torch.equal(plain[name], refit[name]) for name in heads)
    assert all(torch.equal(refit[name], default[name]) for name in refit)


def test_refit_goes_on_to_the_end_of_what_was_taught(config, monkeypatch, caplog):
    fits: list[tuple[Any, Any]] = []

    def spy(*args, repeat=None, **more):
        found = fit(*args, repeat=repeat, **more)
        fits.append((repeat, found))
        return found

    monkeypatch.setattr(import_module("transfer.training.fit_networks"), "fit", spy)
    with caplog.at_level("INFO"):
        run = train(config(policy="partial:1", epochs=6, patience=2, refit=True))
    (none, first), (repeat, second) = fits
    assert (none, repeat) == (None, [len(first.epochs)])
    assert len(second.epochs) == len(first.epochs)
    assert run.result["epochs"]["model"] == first.best
    assert f"refit on train + val: {len(first.epochs)} epochs" in caplog.text


def test_separate_heads_are_two_models(config, tmp_path):
    run = train(config(heads="separate", policy="partial:1", epochs=1, out=tmp_path / "run"))
    assert set(run.models) == {"object", "domain"}
    a, b = (run.models[name].backbone.network.state_dict() for name in ("object", "domain"))
    assert any(not torch.equal(a[name], b[name]) for name in a)
    assert set(run.result["test"]) == {"object", "domain"}
    assert set(checkpoint.load_models(tmp_path / "run")) == {"object", "domain"}


def test_a_loss_that_diverges_stops_with_one_line_after_saving(config, tmp_path):
    with pytest.raises(TransferError, match=r"loss became .* try a lower --lr .*saved in"):
        train(config(policy="full", lr=1e30, clip=0.0, warmup=0.0, optimizer="sgd", out=tmp_path / "run"))
    saved = checkpoint.load_models(tmp_path / "run")[""].state_dict()
    assert all(tensor.isfinite().all() for tensor in saved.values())
    assert "loss became" in json.loads((tmp_path / "run" / "result.json").read_text())["stopped"]


def test_a_run_folder_in_use_is_refused_before_anything_is_read(config, tmp_path):
    train(config(out=tmp_path / "run", epochs=1))
    with pytest.raises(TransferError, match=r"already holds a run.*--overwrite"):
        train(config(out=tmp_path / "run", data="nowhere"))
    train(config(out=tmp_path / "run", epochs=1, overwrite=True))


def test_compare_shares_what_was_read(config):
    images = read_images(config().data)
    assert train(config(epochs=1), images=images).result["test"] == train(config(epochs=1)).result["test"]


def test_with_no_test_rows_there_is_a_model_and_no_test(config):
    run = train(replace(config(epochs=1), data=replace(config().data, test=0.0)))
    assert run.result["test"] == {}
    assert run.result["images"]["test"] == 0


def test_a_run_can_start_from_the_backbone_of_another(config):
    """A probe on the backbone that learnt domains alone; what it starts from stays as it is."""
    before = train(config(heads="separate", policy="partial:2")).models["domain"].backbone
    state = copy_state(before.network)
    run = train(config(), backbone=before)
    pixels = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    plain = train(config())
    ours, theirs, other = (
        backbone(backbone.preprocessing.normalise(pixels))
        for backbone in (run.models[""].backbone.eval(), before.eval(), plain.models[""].backbone.eval())
    )
    assert torch.equal(ours, theirs)
    assert not torch.allclose(ours, other)
    assert run.result["notes"] == [*plain.result["notes"], "the backbone starts as another run left it"]
    tuned = train(config(policy="full", heads="separate"), backbone=before)
    assert not changed_names(state, before.network.state_dict())
    ends = [model.backbone.network.state_dict() for model in tuned.models.values()]
    assert all(any(not torch.equal(state[name], end[name]) for name in state) for end in ends)


def test_from_an_untouched_backbone_it_is_the_ordinary_run(config):
    fresh = train(config()).models[""].backbone
    a, b = (train(config(policy="partial:1"), backbone=start).models[""] for start in (None, fresh))
    assert all(torch.equal(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items())


def list_families() -> list[Any]:
    """Return the smallest listed backbone of each module of timm and torchvision."""
    smallest: dict[str, tuple[int, str]] = {}
    with catalogue.TABLE.open(encoding="utf-8", newline="") as file:
        file.readline()  # versions
        for name, provider, parameters, *_ in csv.reader(file):
            architecture = name.rpartition(":")[2].partition(".")[0]
            if provider == "torchvision":
                builder: Any = torchvision.models.get_model_builder(architecture)
            elif provider == "timm" and timm.is_model(architecture):
                builder = timm.model_entrypoint(architecture)
            else:
                continue
            smallest[builder.__module__] = min(smallest.get(builder.__module__, (10**12, "")), (int(parameters), name))
    return [pytest.param(name, id=module) for module, (_, name) in smallest.items()]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", list_families())
def test_every_family_is_trained_saved_and_loaded(
    config: Callable[..., TrainConfig], images: ImageTable, tmp_path: Path, backbone: str
) -> None:
    """With random weights, BatchNorm that learns, and a last batch of one image; loaded, it predicts the same."""
    network = {"backbone": backbone, "random_init": True, "image_size": 96, "policy": "full", "statistics": "learning"}
    split = {"test": 0.0, "val": 0.25, "batch_size": 7}  # 36 = 5 * 7 + 1 images
    settings = network | split | {"epochs": 2, "refit": False, "cache": False, "report": False}
    run = train(config(**settings, out=tmp_path / "run"))
    assert repr(transfer.load_run(tmp_path / "run").predict(images.paths[:3])) == repr(run.predict(images.paths[:3]))


@pytest.fixture
def one_more(folder, tmp_path):
    """Split folders; the class purple has images in test alone, and orange in val alone."""
    root = tmp_path / "split"

    def copy(file, part, name):
        (root / part / name).mkdir(parents=True, exist_ok=True)
        (root / part / name / file.name).write_bytes(file.read_bytes())

    for name in ("red", "green", "blue"):
        for i, file in enumerate(sorted((folder / "plain" / name).iterdir())):
            copy(file, ("train", "train", "val", "test")[i % 4], name)
    striped = sorted((folder / "striped" / "red").iterdir())
    copy(striped[0], "test", "purple")
    copy(striped[1], "test", "purple")
    copy(striped[2], "val", "orange")
    return root


@pytest.mark.parametrize("options", [{}, {"probe": "trained", "balance": "loss"}, {"policy": "stage_probes"}])
def test_a_class_without_a_training_image_is_no_answer(config, one_more, tmp_path, options, caplog):
    with caplog.at_level("INFO"):
        run = train(config(data=str(one_more), out=tmp_path / "run", **options))
    assert any("untrained object orange, purple: no training image, so never predicted" in m for m in caplog.messages)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["images"]["untrained"] == {"object": ["orange", "purple"]}
    assert result["images"]["rarest"].keys() <= {"blue", "green", "red"}
    (note,) = (note for note in result["notes"] if "no training image" in note)
    assert "2 of 8 test images show such a class, each counts as an error; 1 of 7 validation images" in note
    assert run.models[""].heads.specs["object"].classes == ("blue", "green", "red")
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["object"] == "purple" for row in rows) == 2
    assert {row["object_predicted"] for row in rows} <= {"blue", "green", "red"}
    correct = np.mean([row["object"] == row["object_predicted"] for row in rows])
    assert result["test"]["object"]["accuracy"] == pytest.approx(correct)
    assert result["test"]["object"]["per_class"]["purple"] == {"recall": 0.0, "precision": None, "n": 2}
    again = transfer.evaluate(transfer.EvaluateConfig(tmp_path / "run"))
    assert again["test"]["object"]["accuracy"] == pytest.approx(correct)
    assert any("no training image showed purple" in note for note in again["notes"])
    assert "no training image" in run.report().read_text()


def test_a_class_that_loses_all_its_images_is_no_answer(config, one_more):
    for file in (one_more / "train" / "red").iterdir():
        file.write_bytes(b"broken")
    for part in ("val", "test"):
        for file in (one_more / part / "red").iterdir():
            file.unlink()
    run = train(config(data=str(one_more), on_bad_image="skip"))
    assert run.models[""].heads.specs["object"].classes == ("blue", "green")
    assert run.result["images"]["untrained"]["object"] == ("orange", "purple", "red")
    assert "red" not in run.result["test"]["object"]["per_class"]
    for file in (one_more / "train" / "green").iterdir():
        file.write_bytes(b"broken")
    with pytest.raises(TransferError, match="at least two objects with training images, found only 'blue'"):
        train(config(data=str(one_more), on_bad_image="skip"))


def test_untrained_classes_do_not_change_what_is_trained(config, one_more):
    """Images of further classes in test and val leave the weights as they are without these."""
    with_them = train(config(data=str(one_more)))
    for name in ("test/purple", "val/orange"):
        for file in (one_more / name).iterdir():
            file.unlink()
        (one_more / name).rmdir()
    without = train(config(data=str(one_more)))
    assert not changed_names(copy_state(with_them.models[""]), copy_state(without.models[""]))
