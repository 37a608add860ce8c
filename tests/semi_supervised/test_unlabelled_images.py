"""Which rows are unlabelled, what they are labelled from, and runs of `transfer train --unlabelled` as a whole."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_states import copy_state
from PIL import Image
from saved_runs import read_run

from transfer.cli.main import main
from transfer.config.train import BackboneConfig, DataConfig, RunConfig, TrainConfig
from transfer.data.table import ImageTable, Target
from transfer.errors import TransferError
from transfer.semi_supervised import choose, unlabelled_images
from transfer.semi_supervised.choose import CANDIDATES, PROTOTYPES
from transfer.semi_supervised.unlabelled_images import UnlabelledImages, describe_record, find_unlabelled
from transfer.training.setup import TrainingData, read_images
from transfer.training.train import train

SHARED = Path(__file__).parents[3] / "shared"
CLASSES = ("a", "b", "c")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let labels be propagated whatever cross-validation says."""
    monkeypatch.setattr(choose, "count_required_errors", lambda agreement: -np.inf)


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the plain probe be chosen whatever cross-validation says, also with one label of each class."""
    monkeypatch.setattr(choose, "count_required_errors", lambda agreement: np.inf)


def draw(known: np.ndarray, **targets: Target) -> tuple[ImageTable, torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = np.arange(len(known)) % 3
    features = torch.from_numpy(rng.standard_normal((len(known), 12)) + 3 * np.eye(3, 12)[truth]).float()
    empty = np.full(len(known), "")
    objects = Target(np.where(known, truth, -1), classes=CLASSES)
    domains = Target(np.zeros(len(known), np.int64), classes=("one",))
    paths = np.array([str(i) for i in range(len(known))])
    return ImageTable(paths, {"object": objects, "domain": domains} | targets, empty, empty), features, truth


def test_rows_of_a_given_test_or_val_split_are_never_unlabelled_training_images() -> None:
    table, _, _ = draw(np.array([True, False, False, False]))
    table = replace(table, split=np.array(["", "test", "val", "train"]))
    assert find_unlabelled(table, np.arange(4)).tolist() == [3]
    assert find_unlabelled(table, np.arange(3)).tolist() == []


def test_each_head_is_labelled_where_its_own_label_is_unknown(always: None) -> None:
    known = np.arange(60) < 12
    colour = Target(np.where(np.arange(60) % 2 == 0, np.arange(60) % 3, -1), classes=CLASSES)
    table, features, truth = draw(known, colour=colour)
    rows = np.arange(60)
    found = UnlabelledImages(table, rows, rows, rows[:0], features, ["object", "colour"])
    labelled, weights = found.label(rows)
    for name, target in (("object", table.targets["object"]), ("colour", colour)):
        given = target.known
        assert labelled.targets[name].values[given].tolist() == target.values[given].tolist()
        assert weights[name][given].tolist() == [1.0] * int(given.sum())
        assert (labelled.targets[name].values[~given] == truth[~given]).mean() > 0.8
        assert ((weights[name][~given] >= 0) & (weights[name][~given] <= 1)).all()
        record = found.records[name]
        assert (record["labelled"], record["unlabelled"]) == (given.sum(), (~given).sum())
        assert record["pseudo_labelled"] == (labelled.targets[name].known & ~given).sum()
    assert labelled.targets["domain"] is table.targets["domain"]


def test_rows_that_are_not_trained_on_have_no_part(always: None) -> None:
    table, features, _ = draw(np.arange(60) < 12)
    rows, train_rows = np.arange(60), np.setdiff1d(np.arange(60), [3, 4, 5, 50])
    found = UnlabelledImages(table, rows, rows, rows[:0], features, ["object"])
    labelled, weights = found.label(train_rows)
    assert labelled.object[[3, 4, 5, 50]].tolist() == table.object[[3, 4, 5, 50]].tolist()
    changed = features.clone()
    changed[[3, 4, 5, 50]] = 99.0  # validation images, after the settings are chosen
    other = replace(found, features=features)
    other.features = changed
    again, weights_again = other.label(train_rows)
    assert again.object.tolist() == labelled.object.tolist()
    np.testing.assert_array_equal(weights_again["object"], weights["object"])


def test_rows_of_a_run_with_unlabelled_images_alone_are_left_out_where_no_head_takes_them(never: None) -> None:
    table, features, _ = draw(np.arange(30) < 12)
    values = table.domain.copy()
    values[28:] = -1  # images without any label: one of the set, and one of a folder
    table = replace(table, targets=table.targets | {"domain": replace(table.targets["domain"], values=values)})
    rows = np.arange(30)
    found = UnlabelledImages(table, rows, rows, rows[:0], features, ["object"])
    data = TrainingData(table, np.array([f"{i}" for i in rows]), rows, rows[:0], extra=np.array([20, 21, 29]))
    assert not found.is_used
    assert data.with_pseudo_labels(found).train.tolist() == [*range(20), *range(22, 29)]
    assert data.with_pseudo_labels(None) is data


def test_labels_of_one_group_are_held_out_together() -> None:
    """Two labels of each class: of one group they are as one, of which nothing can be held out."""
    table, features, _ = draw(np.arange(60) < 6)
    rows = np.arange(60)
    groups = np.where(rows < 6, rows % 3, rows)
    apart, together = (
        UnlabelledImages(table, each, rows, rows[:0], features, ["object"]).records["object"] for each in (rows, groups)
    )
    assert (apart["held_out"], together["held_out"]) == (6, 0)


def test_validation_images_are_not_among_the_unlabelled_ones_of_a_further_head(always: None) -> None:
    colour = Target(np.where(np.arange(60) < 12, np.arange(60) % 3, -1), classes=CLASSES)
    table, features, _ = draw(np.ones(60, bool), colour=colour)
    train_rows, val = np.setdiff1d(np.arange(60), np.arange(5, 60, 6)), np.arange(5, 60, 6)
    found = UnlabelledImages(table, np.arange(60), train_rows, val, features, ["colour"])
    changed = features.clone()
    changed[val[val >= 12]] = 99.0
    other = UnlabelledImages(table, np.arange(60), train_rows, val, changed, ["colour"])
    assert found.choices["colour"].held_out == 12  # validation labels have a part
    assert other.choices == found.choices
    assert found.records["colour"]["unlabelled"] == len(train_rows) - 10


def test_neighbours_are_searched_once_for_each_set_of_rows(always: None, monkeypatch: pytest.MonkeyPatch) -> None:
    colour = Target(np.where(np.arange(60) < 12, np.arange(60) % 2, -1), classes=CLASSES[:2])
    table, features, _ = draw(np.arange(60) < 12, colour=colour)
    sizes, find = [], unlabelled_images.find_neighbours
    monkeypatch.setattr(unlabelled_images, "find_neighbours", lambda x, k: sizes.append(len(x)) or find(x, k))
    train_rows, val = np.setdiff1d(np.arange(60), [5, 8]), np.array([5, 8])
    found = UnlabelledImages(table, np.arange(60), train_rows, val, features, ["object", "colour"])
    first = found.label(train_rows)
    for _ in range(3):  # trials of a search
        again = found.label(train_rows)
        assert again[0].object.tolist() == first[0].object.tolist()
        np.testing.assert_array_equal(again[1]["object"], first[1]["object"])
    found.label(np.arange(60))  # a refit
    assert sizes == [60, 58]


@pytest.mark.parametrize("settings", [{}, {"heads": "joint"}, {"policy": "partial:1", "refit": True}, {"shots": 1}])
@pytest.mark.parametrize("unlabelled", ["rest", "folder"])
def test_a_step_back_is_the_run_without_unlabelled_images_to_the_bit(
    config: Callable[..., TrainConfig],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    unlabelled: str,
) -> None:
    monkeypatch.setattr(UnlabelledImages, "is_used", False)
    settings = {"shots": 3, "seed": 1} | settings
    plain = train(config(**settings)).models[""]
    where = "rest" if unlabelled == "rest" else str(folder / "plain" / "red")
    run = train(config(**settings, unlabelled=where))
    same(copy_state(plain), copy_state(run.models[""]))
    assert run.result["unlabelled"]["object"]["pseudo_labelled"] == 0


@pytest.mark.parametrize("unlabelled", ["rest", "folder"])
@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
def test_a_step_back_has_the_images_without_any_label_that_a_plain_run_has(
    config: Callable[..., TrainConfig], folder: Path, never: None, tmp_path: Path, policy: str, unlabelled: str
) -> None:
    lines = ["path,object,domain"]
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        labels = f"{path.parent.name},{path.parent.parent.name}" if number % 4 else ","
        lines.append(f"{path},{labels}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    more = tmp_path / "more"
    more.mkdir()
    for path in folder.glob("plain/red/*.png"):
        (more / path.name).write_bytes(path.read_bytes() + b"another")
    settings = {"data": str(tmp_path / "list.csv"), "policy": policy, "epochs": 2}
    plain = train(config(**settings))
    run = train(config(**settings, unlabelled="rest" if unlabelled == "rest" else str(more)))
    assert run.result["unlabelled"]["object"]["weight"] == 0
    assert plain.result["images"]["train"] > run.result["unlabelled"]["object"]["labelled"]
    same(copy_state(plain.models[""]), copy_state(run.models[""]))


def test_a_folder_of_another_range_does_not_change_how_images_are_read(
    config: Callable[..., TrainConfig], never: None, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for place, white in (("set/a", 0.9), ("set/b", 0.9), ("more", 200.0)):
        (tmp_path / place).mkdir(parents=True)
        for number in range(8):
            pixels = rng.random((32, 32)) * white * (1 if place != "set/b" else np.linspace(0, 1, 32))
            Image.fromarray(pixels.astype(np.float32)).save(tmp_path / place / f"{number}.tif")
    data = str(tmp_path / "set")
    plain, run = train(config(data=data)), train(config(data=data, unlabelled=str(tmp_path / "more")))
    same(copy_state(plain.models[""]), copy_state(run.models[""]))
    levels = [each.models[""].backbone.preprocessing.levels for each in (plain, run)]
    assert levels[0] == levels[1]
    (note,) = [note for note in run.result["notes"] if "images of --unlabelled" in note]
    assert "8 of 8 float images have values far above 1 (up to " in note


@pytest.mark.parametrize("settings", [{"random_init": True}, {"policy": "scratch"}])
def test_random_weights_give_no_features_to_propagate_on(
    config: Callable[..., TrainConfig], always: None, settings: dict[str, Any]
) -> None:
    plain, run = (train(config(shots=3, unlabelled=each, **settings)) for each in (None, "rest"))
    same(copy_state(plain.models[""]), copy_state(run.models[""]))
    assert not run.result.get("unlabelled")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


POLICIES = ["linear_probe", "partial:1", "lp_ft:1", "full", "head2toe", "stage_probes", "truncate:1"]


@pytest.mark.parametrize("policy", POLICIES)
def test_unlabelled_images_count_under_every_policy(
    config: Callable[..., TrainConfig], always: None, policy: str
) -> None:
    settings = {"shots": 3, "policy": policy, "epochs": 2}
    plain, run = train(config(**settings)), train(config(**settings, unlabelled="rest"))
    first, second = copy_state(plain.models[""]), copy_state(run.models[""])
    assert not all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert run.result["policy"]["frozen_unchanged"]
    record = run.result["unlabelled"]["object"]
    assert record["unlabelled"] == 48 - 10 - 18
    assert 0 < record["pseudo_labelled"] <= record["unlabelled"]
    used = {name: record[name] for name in ("neighbours", "alpha", "prior", "refined")}
    assert used in [vars(each) for each in (PROTOTYPES, *CANDIDATES)]
    assert describe_record("object", record) in run.result["notes"]
    assert "unlabelled" not in plain.result


@pytest.mark.parametrize("heads", ["dual", "joint", "separate"])
def test_unlabelled_images_of_known_domain_count_for_the_domain(
    config: Callable[..., TrainConfig], always: None, monkeypatch: pytest.MonkeyPatch, heads: str
) -> None:
    from transfer.training import fit_networks as module

    seen, fit = [], module.fit

    def watch(model: Any, plan: Any, data: TrainingData, *arguments: Any, **options: Any) -> Any:
        seen.append((set(model.heads.specs), data))
        return fit(model, plan, data, *arguments, **options)

    monkeypatch.setattr(module, "fit", watch)
    run = train(config(shots=3, heads=heads, unlabelled="rest"))
    assert list(run.result["unlabelled"]) == ["object"]
    for names, data in seen:
        assert set(data.extra) <= set(data.train)
        assert (data.table.domain[data.extra] >= 0).all()
        assert "domain" not in data.weights
        if "object" in names:
            assert (data.table.object[data.extra] >= 0).any()
            assert data.weights["object"][data.extra].max() <= 1


def test_the_same_run_again_and_with_other_workers_is_the_same(
    config: Callable[..., TrainConfig], always: None, tmp_path: Path
) -> None:
    settings = {"shots": 2, "unlabelled": "rest", "policy": "partial:1", "epochs": 2}
    for place, workers in (("a", 1), ("b", 2)):
        train(config(out=tmp_path / place, **settings, workers=workers))
    assert read_run(tmp_path / "a", "workers") == read_run(tmp_path / "b", "workers")


@pytest.mark.parametrize("settings", [{"policy": "partial:1", "refit": True}, {"heads": "separate"}])
def test_an_interrupted_run_resumes_to_the_same_bits(
    config: Callable[..., TrainConfig], always: None, tmp_path: Path, settings: dict[str, Any]
) -> None:
    settings = {"shots": 3, "unlabelled": "rest", "epochs": 3} | settings
    train(config(out=tmp_path / "whole", **settings))

    def stop(line: dict[str, Any]) -> None:
        if line["epoch"] == 2:
            raise RuntimeError("stopped here")

    with pytest.raises(RuntimeError, match="stopped here"):
        train(config(out=tmp_path / "run", **settings), on_epoch=stop)
    train(config(out=tmp_path / "run", resume=True, **settings))
    assert read_run(tmp_path / "run") == read_run(tmp_path / "whole")


@pytest.fixture
def listed(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copy the images, and list them with a given split; two of three training labels are missing."""

    def write(name: str) -> Path:
        root = tmp_path / name
        shutil.copytree(folder, root)
        with (root / "list.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "object", "domain", "split", "age"])
            for number, path in enumerate(sorted(root.rglob("*.png"))):
                split = "test" if number % 4 == 0 else "train"
                known = split == "test" or number % 8 in (1, 3)
                row = [path.relative_to(root), path.parent.name if known else "", path.parent.parent.name, split]
                writer.writerow([*row, number if known else ""])
        return root / "list.csv"

    return write


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
def test_test_images_and_their_labels_change_no_byte_of_the_weights(
    config: Callable[..., TrainConfig], listed: Callable[..., Path], always: None, policy: str
) -> None:
    first, second = listed("first"), listed("second")
    with second.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["split"] == "test":
            row["object"] = {"red": "blue", "blue": "green", "green": "red"}[row["object"]]
            image = second.parent / row["path"]
            image.write_bytes(next(second.parent.rglob("plain/red/1.png")).read_bytes() + row["path"].encode())
    with second.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    settings = {"policy": policy, "unlabelled": "rest", "epochs": 2}
    runs = [train(config(data=str(path), **settings)) for path in (first, second)]
    assert runs[0].result["test"] != runs[1].result["test"]
    assert runs[0].result["unlabelled"]["object"]["pseudo_labelled"] > 0
    same(copy_state(runs[0].models[""]), copy_state(runs[1].models[""]))


def test_labels_that_are_not_drawn_are_not_in_the_table(config: Callable[..., TrainConfig], folder: Path) -> None:
    images = read_images(DataConfig(str(folder)))
    rest = np.array([1, 5, 30])
    hidden = images.hide(rest)
    assert hidden.table.object[rest].tolist() == [-1, -1, -1]
    assert hidden.table.domain.tolist() == images.table.domain.tolist()
    assert images.hide(rest[:0]) is images


def test_numbers_are_not_propagated_and_that_is_said(
    config: Callable[..., TrainConfig], listed: Callable[..., Path], always: None
) -> None:
    run = train(config(data=str(listed("set")), targets=("age:regression",), unlabelled="rest"))
    assert list(run.result["unlabelled"]) == ["object"]
    assert "age is not trained on unlabelled images: only classes are propagated" in run.result["notes"]


def test_a_search_and_a_comparison_take_unlabelled_images(
    config: Callable[..., TrainConfig], always: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transfer.config.train import CompareConfig
    from transfer.feature_cache import TrunkCache
    from transfer.training.compare import compare
    from transfer.tuning.trial import TrialRunner

    result = compare(CompareConfig(config(shots=3, unlabelled="rest", epochs=1), ("linear_probe", "partial:1")))
    assert all(run["unlabelled"]["object"]["pseudo_labelled"] for run in result["runs"].values())
    requested = config(shots=3, unlabelled="rest")
    runner = TrialRunner(requested, read_images(requested.data), TrunkCache())
    (specs,) = runner.networks(requested.heads).values()
    data = runner.training_data(requested, *runner._new_model(requested, specs))
    assert (data.table.object[runner.parts.rest] >= 0).any()
    assert (runner.data.table.object[runner.parts.rest] == -1).all()
    assert runner.training_data(requested, *runner._new_model(requested, specs)).table.object.tolist() == (
        data.table.object.tolist()
    )


def test_the_command_line(
    config: Callable[..., TrainConfig], folder: Path, always: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config()  # sets the folder of weights
    argv = ["train", str(folder), "--backbone", "test_resnet", "--shots", "2", "--out", "none", "--device", "cpu"]
    assert main([*argv, "--unlabelled", "rst"]) == 2
    assert "--unlabelled rst: write rest, or name a folder of images" in capsys.readouterr().err
    assert main([*argv, "--unlabelled", "rest", "--json"]) == 0
    said = capsys.readouterr()
    record = json.loads(said.out)["unlabelled"]["object"]
    assert f"no label  {record['unlabelled']} training images" in said.err
    assert describe_record("object", record).partition(": ")[0] in said.err
    assert main([*argv, "--unlabelled", str(folder / "plain"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unlabelled"]["object"]["unlabelled"] > 0


def test_images_of_a_folder_that_duplicate_others_are_not_used(
    config: Callable[..., TrainConfig], folder: Path, always: None
) -> None:
    """Each image of the set is in the folder as well."""
    run = train(config(unlabelled=str(folder), test=0.25))
    sizes, plain = run.result["images"], train(config(test=0.25)).result["images"]
    assert (sizes["test"], sizes["val"]) == (plain["test"], plain["val"]) == (12, 7)
    assert sizes["train"] == plain["train"]
    assert "unlabelled" not in run.result
    assert "48 images without a label dropped: duplicates of images with one" in run.result["notes"]
    few = train(config(unlabelled=str(folder), test=0.25, shots=2))
    labelled = 6 * 2  # cells
    assert few.result["unlabelled"]["object"]["unlabelled"] == 48 - 12 - labelled


def test_an_empty_folder_is_an_error(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="no image at"):
        train(config(unlabelled=str(tmp_path)))


@pytest.mark.skipif(
    not (SHARED / "weights").is_dir(), reason="needs shared/ with Office-31 and ImageNet weights beside the checkout"
)
def test_one_label_of_each_object_goes_further_on_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(SHARED / "weights"))
    data = str(SHARED / "data/office31/webcam")
    images, gains = read_images(DataConfig(data)), []
    for seed in range(3):
        scores = []
        for unlabelled in (None, "rest"):
            settings = TrainConfig(
                DataConfig(data, shots=1, unlabelled=unlabelled),
                BackboneConfig("mobilenetv2_100"),
                run=RunConfig(seed=seed),
            )
            scores.append(train(settings, images=images).result["test"]["object"]["accuracy"])
        gains.append(scores[1] - scores[0])
    assert np.mean(gains) > 0.05  # 0.120 measured
