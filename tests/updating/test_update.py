import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from saved_runs import read_run
from update_sets import copy_images, read_files

import transfer
from transfer.config.commands import EvaluateConfig, ExportConfig, UpdateConfig
from transfer.config.train import TrainConfig
from transfer.data.corrections import Correction, CorrectionFile
from transfer.data.sets.office31 import has_domains
from transfer.errors import TransferError
from transfer.runs.checkpoint import load_models
from transfer.runs.folder import IMAGES_FILE
from transfer.runs.image_list import read_image_list
from transfer.training.train import train
from transfer.updating.update import update

Make = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def few(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 5 of 8 images of each cell, without red ones."""
    return copy_images(
        folder, tmp_path_factory.mktemp("images") / "few", lambda domain, name, i: name != "red" and i < 5
    )


@pytest.fixture
def rest(folder: Path, tmp_path: Path) -> Path:
    """The other images."""
    return copy_images(folder, tmp_path / "rest", lambda domain, name, i: name == "red" or i >= 5)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that needs a run trains it."""
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture
def run(config: Make, few: Path, trained_once: Path, tmp_path: Path) -> Path:
    """A copy of a solved run on the few images."""
    made = config(data=str(few), out=trained_once)
    if not trained_once.exists():
        train(made)
    return Path(shutil.copytree(trained_once, tmp_path / "run"))


def fresh(config: Make, out: Path, data: Path, **settings: Any) -> dict[str, Any]:
    """Train on the images.csv of a run with the options of the old one, in a folder of its own; return its files."""
    train(config(data=str(data), out=out, **settings))
    return read_run(out, "data")


@pytest.mark.parametrize("policy", ["linear_probe", "head2toe", "stage_probes"])
@pytest.mark.parametrize("heads", ["dual", "joint", "separate"])
def test_a_solved_update_is_bit_identical_to_a_fresh_run_on_the_union(
    policy: str, heads: str, config: Make, few: Path, rest: Path, tmp_path: Path
) -> None:
    if policy != "linear_probe" and heads != "dual":
        pytest.skip("one policy is enough")
    settings = {"policy": policy, "heads": heads}
    out, old = tmp_path / "new", tmp_path / "run"
    train(config(data=str(few), out=old, **settings))
    update(UpdateConfig(old, add=str(rest), out=out))
    updated = read_run(out, "data")
    del updated["update.json"]
    assert updated == fresh(config, tmp_path / "fresh", out / IMAGES_FILE, **settings)


def test_the_list_of_a_run_gives_its_bits(config: Make, run: Path, tmp_path: Path) -> None:
    first, second = read_run(run, "data"), fresh(config, tmp_path / "again", run / IMAGES_FILE)
    for name in ("model.safetensors", "predictions.csv", "images.csv", "metrics.jsonl"):
        assert first[name] == second[name]


def test_the_old_run_and_its_split_stay(run: Path, rest: Path, tmp_path: Path) -> None:
    before = read_files(run)
    update(UpdateConfig(run, add=str(rest), out=tmp_path / "new"))
    assert read_files(run) == before
    old, new = read_image_list(run), read_image_list(tmp_path / "new")
    assert new[: len(old)] == old
    assert {image["object"] for image in new} == {"blue", "green", "red"}


def test_before_and_after_are_those_of_both_models_on_the_same_images(run: Path, rest: Path, tmp_path: Path) -> None:
    result = update(UpdateConfig(run, add=str(rest), out=tmp_path / "new"))
    saved = json.loads((tmp_path / "new" / "update.json").read_text())
    assert saved == json.loads(json.dumps({key: value for key, value in result.items() if key != "run"}))
    old = json.loads((run / "result.json").read_text())
    assert result["old_test"]["object"]["before"] == old["test"]["object"]["accuracy"]
    assert result["old_test"]["object"]["n"] == old["test"]["object"]["n"] == 4
    new = transfer.load_run(tmp_path / "new")
    for part, listed in (("old_test", run), ("new_test", None)):
        tested = [image for image in read_image_list(tmp_path / "new") if image["split"] == "test"]
        known = {image["path"] for image in read_image_list(run)}
        tested = [image for image in tested if (image["path"] in known) == bool(listed)]
        for model, key in ((transfer.load_run(run), "before"), (new, "after")):
            rows = model.predict([image["path"] for image in tested])
            right = [row["object"] == image["object"] for row, image in zip(rows, tested, strict=True)]
            assert result[part]["object"][key] == pytest.approx(sum(right) / len(right))
    assert result["per_class"]["object"]["red"]["before"] == 0.0
    assert result["changes"]["new_classes"] == ["red"]
    assert result["changes"]["images"] == {"old": 20, "new": result["changes"]["images"]["new"]}
    assert sum(result["changes"]["images"]["new"].values()) == 28


def test_a_new_domain(config: Make, folder: Path, tmp_path: Path) -> None:
    one = copy_images(folder, tmp_path / "one", lambda domain, name, i: domain == "plain", "{1}/{2}")
    other = copy_images(folder, tmp_path / "other", lambda domain, name, i: domain == "striped", "{1}/{2}")
    train(config(data=str(one), out=tmp_path / "run"))
    result = update(UpdateConfig(tmp_path / "run", add=str(other), domain="striped", out=tmp_path / "new"))
    assert result["changes"]["new_domains"] == ["striped"]
    assert set(result["run"]["per_domain"]) == {"all", "striped"}
    assert "domain" in result["run"]["test"]  # a head of its own, now that there are two


def test_images_that_name_no_domain_are_of_an_unknown_one(run: Path, folder: Path, tmp_path: Path) -> None:
    flat = copy_images(folder, tmp_path / "flat", lambda domain, name, i: domain == "plain" and i > 5, "{1}/{2}")
    update(UpdateConfig(run, add=str(flat), out=tmp_path / "new"))
    new = read_image_list(tmp_path / "new")[20:]
    assert len(new) == 6
    assert {image["domain"] for image in new} == {""}


def test_names_are_spelled_as_in_the_run(run: Path, folder: Path, tmp_path: Path) -> None:
    loud = tmp_path / "loud"
    copy_images(folder, loud, lambda domain, name, i: name == "blue" and i > 5, "PLAIN/Blue/{0}{2}")
    copy_images(folder, loud, lambda domain, name, i: name == "green" and i > 5, "PLAIN/green /{0}{2}")
    result = update(UpdateConfig(run, add=str(loud), out=tmp_path / "new"))
    assert result["changes"]["new_classes"] == result["changes"]["new_domains"] == []
    assert any("'Blue' is read as 'blue'" in note for note in result["notes"])
    assert {image["domain"] for image in read_image_list(tmp_path / "new")} == {"plain", "striped"}


def write_table(file: Path, rows: list[tuple[str, ...]]) -> Path:
    with file.open("w", newline="") as opened:
        csv.writer(opened, delimiter=";").writerows(rows)
    return file


def test_corrections_change_labels_by_the_bytes_and_add_images(run: Path, folder: Path, tmp_path: Path) -> None:
    tested = next(image for image in read_image_list(run) if image["split"] == "test")
    wrong = "green" if tested["object"] == "blue" else "blue"
    shutil.copyfile(tested["path"], tmp_path / "anywhere.png")
    red = folder / "plain" / "red" / "0.png"
    table = write_table(
        tmp_path / "c.csv", [("path", "object", "domain"), ("anywhere.png", wrong, ""), (str(red), "red", "plain")]
    )
    result = update(UpdateConfig(run, corrections=table, out=tmp_path / "new"))
    assert result["changes"]["corrected"] == [
        {"path": tested["path"], "column": "object", "before": tested["object"], "after": wrong}
    ]
    listed = read_image_list(tmp_path / "new")
    assert len(listed) == 21
    assert listed[20] | {"sha256": ""} == {
        "path": str(red), "split": "train", "sha256": "", "object": "red", "domain": "plain"
    }  # fmt: skip
    assert [image["object"] for image in listed if image["path"] == tested["path"]] == [wrong]
    assert any("1 label corrected" in note for note in result["notes"])


@pytest.mark.parametrize("engines", [("auto", "int8"), ("int8", None), ("int8", "torch")])
def test_an_update_takes_another_engine(
    engines: tuple[str, Any], config: Make, few: Path, rest: Path, tmp_path: Path
) -> None:
    before, asked = engines
    train(config(data=str(few), engine=before, out=tmp_path / "run"))
    result = update(UpdateConfig(tmp_path / "run", add=str(rest), engine=asked, out=tmp_path / "new"))
    assert result["old_test"]["object"]["n"] > 0
    (model,) = load_models(tmp_path / "new").values()
    assert model.engine == (asked or "int8")


def test_the_decisions_of_a_review_are_taken(run: Path, folder: Path, tmp_path: Path) -> None:
    listed, red = read_image_list(run), folder / "plain" / "red" / "0.png"
    file = CorrectionFile(tmp_path / "review.csv")
    digest = hashlib.sha256(red.read_bytes()).hexdigest()

    def decide(path: str, sha256: str, old: str, new: str, action: str) -> None:
        file.append(Correction(path, sha256, old, new, "2026-11-30T00:00:00Z", action))

    decide("/moved/away.png", listed[0]["sha256"], listed[0]["object"], "violet", "relabel")
    decide(listed[1]["path"], listed[1]["sha256"], listed[1]["object"], "", "exclude")
    decide(listed[2]["path"], listed[2]["sha256"], listed[2]["object"], "violet", "relabel")
    decide(listed[2]["path"], listed[2]["sha256"], "violet", "", "undo")
    decide(listed[3]["path"], listed[3]["sha256"], listed[3]["object"], listed[3]["object"], "accept")
    decide(str(red), digest, "", "red", "relabel")
    decide(str(red.with_name("1.png")), "0" * 64, "", "red", "relabel")  # the file was changed since
    result = update(UpdateConfig(run, corrections=file.path, out=tmp_path / "new"))
    new = {image["path"]: image["object"] for image in read_image_list(tmp_path / "new")}
    expected = {image["path"]: image["object"] for image in listed} | {listed[0]["path"]: "violet", str(red): "red"}
    del expected[listed[1]["path"]]
    assert new == expected
    assert [change["path"] for change in result["changes"]["corrected"]] == [listed[0]["path"]]
    assert "1 image excluded by --corrections" in result["notes"]
    assert any("1 correction not applied" in note for note in result["notes"])


def test_a_conflict_is_left_out_and_named(run: Path, tmp_path: Path) -> None:
    tested = next(image for image in read_image_list(run) if image["split"] == "train")
    other = "green" if tested["object"] == "blue" else "blue"
    copy = tmp_path / "more" / tested["domain"] / other / "copy.png"
    copy.parent.mkdir(parents=True)
    shutil.copyfile(tested["path"], copy)
    (tmp_path / "more" / tested["domain"] / tested["object"]).mkdir()
    table = write_table(tmp_path / "t.csv", [("path", "object", "domain"), (str(copy), other, tested["domain"])])
    result = update(UpdateConfig(run, add=str(table), out=tmp_path / "new"))
    assert result["changes"]["conflicting"] == 1
    assert result["run"]["images"]["conflicting"] == 2
    assert any("conflicting labels" in note for note in result["run"]["notes"])
    assert len(read_image_list(tmp_path / "new")) == 19


@pytest.mark.parametrize("fault", ["missing", "changed"])
def test_old_images_that_are_gone_are_one_line_or_left_out(
    fault: str, run: Path, rest: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lost = Path(read_image_list(run)[3]["path"])
    content = lost.read_bytes()
    request.addfinalizer(lambda: lost.write_bytes(content))  # other tests need it
    if fault == "missing":
        lost.unlink()
    else:
        shutil.copyfile(rest / "plain" / "red" / "0.png", lost)
    message = rf"1 of 20 images of .*run are missing or have changed \({lost}\): restore them, or leave them out"
    with pytest.raises(TransferError, match=message):
        update(UpdateConfig(run, add=str(rest), out=tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    result = update(UpdateConfig(run, add=str(rest), on_bad_image="skip", out=tmp_path / "new"))
    assert result["changes"]["images"]["old"] == 19
    assert any("are left out" in note for note in result["notes"])
    assert str(lost) not in {image["path"] for image in read_image_list(tmp_path / "new")}


def test_nothing_new_is_refused(run: Path, few: Path, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"nothing to update: .* under the same label"):
        update(UpdateConfig(run, add=str(few), out=tmp_path / "new"))


def test_runs_that_cannot_be_updated_are_refused(config: Make, run: Path, rest: Path, tmp_path: Path) -> None:
    def refused(folder: Path, match: str) -> None:
        with pytest.raises(TransferError, match=match):
            update(UpdateConfig(folder, add=str(rest)))

    refused(tmp_path / "nowhere", "has no result.json: give the folder of a finished run of transfer train")
    with pytest.raises(TransferError, match="is the run itself, which stays as it is: name another folder"):
        update(UpdateConfig(run, add=str(rest), out=run / ".." / run.name, overwrite=True))
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"command": "adapt"}))
    refused(run, "is a run of transfer adapt: update takes a run of transfer train")
    (run / "result.json").write_text(json.dumps(result))
    (run / IMAGES_FILE).unlink()
    refused(run, r"has no images\.csv, .*: train it again")
    train(config(data=str(rest), out=tmp_path / "seeds", seeds=(3, 5)))
    refused(tmp_path / "seeds", r"several seeds, each with its own split: update one, such as .*seeds/seed3$")
    with pytest.raises(TransferError, match="--add DATA or --corrections FILE"):
        UpdateConfig(run)


def test_one_of_several_seeds_is_updated(config: Make, few: Path, rest: Path, tmp_path: Path) -> None:
    train(config(data=str(few), out=tmp_path / "seeds", seeds=(3, 5)))
    result = update(UpdateConfig(tmp_path / "seeds" / "seed5", add=str(rest), out=tmp_path / "new"))
    assert result["run"]["config"]["run"]["seed"] == 5


def test_labels_that_shots_left_over_stay_left_over(config: Make, folder: Path, rest: Path, tmp_path: Path) -> None:
    few = copy_images(folder, tmp_path / "few", lambda domain, name, i: name != "red" and i < 7)
    train(config(data=str(few), out=tmp_path / "run", shots=2))
    red = copy_images(folder, tmp_path / "red", lambda domain, name, i: name == "red")
    result = update(UpdateConfig(tmp_path / "run", add=str(red), out=tmp_path / "new"))
    old, new = read_image_list(tmp_path / "run"), read_image_list(tmp_path / "new")
    assert new[: len(old)] == old
    assert len(new) == len(old) + 16
    assert result["run"]["config"]["data"]["shots"] is None


def test_unlabelled_images_stay_unlabelled(config: Make, few: Path, folder: Path, tmp_path: Path) -> None:
    blank = copy_images(folder, tmp_path / "blank", lambda domain, name, i: i == 6, "{0}{1}{2}")
    train(config(data=str(few), out=tmp_path / "run", unlabelled=str(blank)))
    red = copy_images(folder, tmp_path / "red", lambda domain, name, i: name == "red" and i < 5)
    result = update(UpdateConfig(tmp_path / "run", add=str(red), out=tmp_path / "new"))
    listed = read_image_list(tmp_path / "new")
    assert sum(not image["object"] for image in listed) == 6
    assert result["run"]["unlabelled"]["object"]["unlabelled"] == 6
    assert result["changes"]["labelled"] == 0


def test_further_targets_stay(config: Make, folder: Path, tmp_path: Path) -> None:
    def rows(wanted: Callable[[str, int], bool], *more: str) -> list[tuple[str, ...]]:
        files = sorted(folder.rglob("*.png"))
        named = [
            (str(f), f.parent.name, f.parents[1].name, f.stem, "odd" if int(f.stem) % 2 else "even") for f in files
        ]
        columns = ("path", "object", "domain", "number", "parity")
        return [columns, *(row for row in named if wanted(row[1], int(row[3])))]

    old = write_table(tmp_path / "old.csv", rows(lambda name, i: name != "red"))
    add = write_table(tmp_path / "add.csv", rows(lambda name, i: name == "red"))
    settings = {"targets": ("number", "parity"), "data": str(old)}
    train(config(out=tmp_path / "run", **settings))
    result = update(UpdateConfig(tmp_path / "run", add=str(add), out=tmp_path / "new"))
    assert set(result["run"]["test"]) == {"object", "domain", "number", "parity"}
    assert result["run"]["config"]["data"]["targets"] == ["number:regression", "parity:softmax"]
    assert set(result["old_test"]) == {"object", "domain", "parity"}
    red = copy_images(folder, tmp_path / "red", lambda domain, name, i: name == "red")
    result = update(UpdateConfig(tmp_path / "run", add=str(red), out=tmp_path / "other"))
    assert any("does not name number:regression, parity:softmax" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("policy", "settings"),
    [
        ("partial:2", {}),
        ("lp_ft:1", {"heads": "joint"}),
        ("gradual:1", {"heads": "separate"}),
        ("full", {"hidden": (8,)}),
        ("linear_probe", {"probe": "trained"}),
        ("scratch", {}),
    ],
)
def test_a_trained_run_starts_from_the_old_weights(
    policy: str, settings: dict[str, Any], config: Make, few: Path, rest: Path, tmp_path: Path
) -> None:
    train(config(data=str(few), out=tmp_path / "run", policy=policy, epochs=9, **settings))
    result = update(UpdateConfig(tmp_path / "run", add=str(rest), out=tmp_path / "new", max_loss=0.9))
    run = result["run"]
    assert run["config"]["learn"]["epochs"] == 3
    assert [phase["name"] for phase in run["policy"]["phases"]][:1] == ["probe"]
    assert run["policy"]["frozen_unchanged"]
    assert all(of["before"] - of["allowed"] <= of["after"] + 1e-6 for of in run["warm_start"].values())
    assert not any(of["old_weights"] for of in run["warm_start"].values())
    lines = [json.loads(line) for line in (tmp_path / "new" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= line["old_val"] <= 1 for line in lines if "head" not in line)


def test_the_guard_keeps_the_old_weights(
    config: Make, few: Path, rest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "run"
    train(config(data=str(few), out=old, policy="partial:1", epochs=6))
    monkeypatch.setattr("transfer.training.warm_start.guard.Guard.accepts", lambda guard, score: False)
    result = update(UpdateConfig(old, add=str(rest), out=tmp_path / "new"))
    assert result["run"]["warm_start"]["model"]["old_weights"] is True
    assert any("the old weights are used" in note for note in result["run"]["notes"])
    assert result["old_test"]["object"]["paired"]["difference"] == 0.0
    before, after = (load_models(folder)[""] for folder in (old, tmp_path / "new"))
    for name, tensor in before.backbone.network.state_dict().items():
        assert torch.equal(tensor, after.backbone.network.state_dict()[name])
    rows = transfer.load_run(tmp_path / "new").predict(str(rest))
    assert {row["object"] for row in rows} <= {"blue", "green"}


def test_a_warm_start_without_validation_images_says_so(config: Make, few: Path, rest: Path, tmp_path: Path) -> None:
    train(config(data=str(few), out=tmp_path / "run", policy="partial:1", val=0.0))
    result = update(UpdateConfig(tmp_path / "run", add=str(rest), out=tmp_path / "new"))
    assert result["run"]["images"]["val"] == 0
    assert "warm_start" not in result["run"]
    assert any("no validation image of the old run" in note for note in result["run"]["notes"])


def test_a_new_run_is_used_as_any_other(run: Path, few: Path, rest: Path, folder: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    update(UpdateConfig(run, add=str(rest), out=new))
    again = tmp_path / "more" / "plain" / "blue" / "dark.png"
    again.parent.mkdir(parents=True)
    Image.open(folder / "plain" / "blue" / "0.png").point(lambda value: value // 2).save(again)
    second = write_table(tmp_path / "m.csv", [("path", "object", "domain"), (str(again), "blue", "plain")])
    result = update(UpdateConfig(new, add=str(second), out=tmp_path / "newer"))
    assert result["changes"]["images"]["old"] == 48
    page = transfer.write_report(new).read_text()
    assert "Before and after the update" in page
    assert "new classes: red" in page
    assert "Before and after the update" not in transfer.write_report(run).read_text()
    measured = transfer.evaluate(EvaluateConfig(new))
    saved = json.loads((new / "result.json").read_text())
    assert measured["test"]["object"]["accuracy"] == saved["test"]["object"]["accuracy"]
    assert transfer.export(ExportConfig(new, format="safetensors", out=tmp_path / "m.safetensors"))
    assert len(transfer.load_run(new).predict(str(rest))) == 28


def test_nothing_is_saved_without_out(run: Path, rest: Path) -> None:
    before = {path.name for path in run.parent.iterdir()}
    result = update(UpdateConfig(run, add=str(rest)))
    assert {path.name for path in run.parent.iterdir()} == before
    assert result["run"]["test"]["object"]["n"] > 4


REAL = Path(__file__).parents[3] / "shared" / "data" / "office31"


@pytest.mark.skipif(not has_domains(REAL), reason="needs Office-31 in shared/data")
def test_photographs_are_added(tmp_path: Path) -> None:
    names = ("mug", "scissors", "keyboard")
    base, more = tmp_path / "base", tmp_path / "more"
    for domain in ("dslr", "webcam"):
        for name in (*names, "phone"):
            files = sorted((REAL / domain / "images" / name).glob("*.jpg"))[:10]
            for i, file in enumerate(files):
                to = (more if i >= 8 or name == "phone" else base) / domain / name / file.name
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, to)
    config = TrainConfig(data=transfer.DataConfig(str(base)))
    config = replace(config, run=transfer.RunConfig(out=tmp_path / "run", report=False))
    train(config)
    result = update(UpdateConfig(tmp_path / "run", add=str(more), out=tmp_path / "new"))
    assert result["changes"]["new_classes"] == ["phone"]
    assert result["old_test"]["object"]["after"] >= 0.8
    assert result["per_class"]["object"]["phone"]["after"] >= 0.5
    data = replace(config.data, data=str(tmp_path / "new" / IMAGES_FILE))
    train(replace(config, data=data, run=replace(config.run, out=tmp_path / "fresh")))
    for name in ("model.safetensors", "predictions.csv", "uncertainty.safetensors"):
        assert (tmp_path / "new" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
