import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfer.adaptation.adapt import adapt
from transfer.config.commands import PredictConfig
from transfer.errors import TransferError
from transfer.evaluation.finished_run import load_run
from transfer.evaluation.predict import predict_command
from transfer.training.train import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a function that trains once and returns the run and its folder."""
    made = {}

    def run(config):
        if not made:
            out = tmp_path_factory.mktemp("finished") / "<b>&run"
            made["run"] = train(replace(config(), run=replace(config().run, out=out))), out
        return made["run"]

    return run


def test_predict_returns_what_the_command_prints(config, trained, folder, tmp_path):
    run, out = trained(config)
    assert predict_command(PredictConfig(out, (str(folder / "plain"),), top=2, out=tmp_path / "lines"))[1] == 0
    printed = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    returned = run.predict(folder / "plain", top=2)
    assert [row["path"] for row in returned] == [row["path"] for row in printed]
    for row, want in zip(returned, printed, strict=True):
        assert row.keys() == want.keys()
        assert row["object"] == want["object"]
        assert row["object_probability"] == pytest.approx(want["object_probability"], abs=1e-4)
    files = sorted((folder / "plain" / "red").glob("*.png"))
    assert run.predict(files, top=2) == run.predict([str(file) for file in files], top=2)
    with (out / "predictions.csv").open(newline="") as file:
        tested = list(csv.DictReader(file))
    assert [row["object"] for row in run.predict([row["path"] for row in tested])] == [
        row["object_predicted"] for row in tested
    ]


def test_the_expected_accuracy_of_files_and_arrays(config, trained, folder):
    run, out = trained(config)
    found = run.expected_accuracy(folder / "plain")
    assert found.n == 24
    assert 0 <= found.low <= found.accuracy <= found.high <= 1
    pixels = np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("plain/*/*.png"))])
    assert load_run(out, device="cpu").expected_accuracy(pixels).accuracy == pytest.approx(found.accuracy, abs=0.02)
    with pytest.raises(TransferError, match="2 images: an expected accuracy needs 10"):
        run.expected_accuracy(pixels[:2])


def test_what_is_left_out_of_a_folder_is_named(config, trained, folder, tmp_path, caplog):
    shutil.copytree(folder / "plain" / "red", tmp_path / "red")
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".Trash").mkdir()
    with caplog.at_level("INFO"):
        rows = trained(config)[0].predict(tmp_path)
    assert len(rows) == len(list((tmp_path / "red").iterdir()))
    assert f"left out: 1 folder, hidden: {tmp_path / '.Trash'}/" in caplog.messages
    assert f"left out: 1 file, not an image: {tmp_path / 'notes.txt'}" in caplog.messages


def test_images_in_memory_are_predicted_as_their_files(config, trained, folder):
    run, _ = trained(config)
    files = sorted((folder / "plain").rglob("*.png"))[:4]
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    want = [row | {"path": None} for row in run.predict(files)]
    for given in (pixels, list(pixels), [Image.fromarray(p) for p in pixels], (pixels / 255).astype(np.float32)):
        assert run.predict(given) == want
    assert run.predict(pixels[0]) == run.predict(Image.fromarray(pixels[0])) == [run.predict(pixels[:1])[0]]
    assert run.predict(str(file) for file in files) == run.predict(files)
    with pytest.raises(TransferError, match=r"X\[1\] is a path among pixels"):
        run.predict([pixels[0], files[0]])


def test_a_saved_run_is_loaded_wherever_it_lies(config, trained, folder, tmp_path, monkeypatch):
    run, out = trained(config)
    moved = tmp_path / "moved"
    shutil.copytree(out, moved)
    monkeypatch.chdir(tmp_path)
    loaded = load_run("moved")
    assert loaded.result == json.loads((out / "result.json").read_text())
    assert loaded.folder == Path("moved")
    assert "folder: moved" in repr(loaded)
    files = sorted((folder / "plain").rglob("*.png"))[:4]
    for row, want in zip(loaded.predict(files), run.predict(files), strict=True):
        assert row["object"] == want["object"]
        assert row["object_probability"] == pytest.approx(want["object_probability"], abs=1e-4)
    assert loaded.report() == Path("moved") / "report.html"
    with pytest.raises(TransferError, match="no run at nowhere"):
        load_run("nowhere")
    (moved / "result.json").unlink()
    with pytest.raises(TransferError, match=r"moved has no result\.json: give the folder of a finished run"):
        load_run(moved)


def test_predict_refuses_or_skips_a_bad_image(config, trained, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    run = trained(config)[0]
    with pytest.raises(TransferError, match=r"bad\.png"):
        run.predict(tmp_path / "bad.png")
    assert "bad.png" in run.predict(tmp_path / "bad.png", skip_bad=True)[0]["error"]


def test_report_returns_the_page(config, trained, tmp_path):
    run, out = trained(config)
    assert run.report() == out / "report.html"
    assert "Confusion" in (out / "report.html").read_text()
    assert run.report(tmp_path / "page.html") == tmp_path / "page.html"
    assert (tmp_path / "page.html").is_file()


def test_the_table_has_the_figures_of_the_result(config, trained):
    run, out = trained(config)
    table = run._repr_html_()
    rows = dict(re.findall(r"<th[^>]*>([^<]*)</th><td[^>]*>([^<]*)</td>", table))
    for head in ("object", "domain"):
        report = run.result["test"][head]
        low, high = report["interval"]["accuracy"]
        assert rows[f"test accuracy, {head}"] == f"{report['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
        assert rows[f"test calibration error, {head}"] == f"{report['calibration_error']:.3f}"
    assert rows["policy"].startswith("linear_probe, ")
    assert rows["seconds"] == f"{run.result['seconds']['total']:.1f}"
    assert rows["folder"].endswith("&lt;b&gt;&amp;run")
    assert str(out) in repr(run)
    assert len(repr(run)) < 1000


def test_a_run_over_seeds_that_was_not_saved(config):
    run = train(config(seeds=(0, 1)))
    rows = dict(run.summary())
    assert rows["folder"] == "not saved"
    assert "±" in rows["test accuracy, object"]
    with pytest.raises(TransferError, match=r"RunConfig\(out=\.\.\.\)"):
        run.report()


def test_a_run_without_test_images(config):
    assert dict(train(config(test=0.0)).summary())["test"] == "no test images"


def test_an_adaptation(adapt_config, folder, tmp_path):
    run = adapt(adapt_config(out=tmp_path / "run"))
    rows = dict(run.summary())
    assert rows["target accuracy, object"].startswith(f"{run.result['target']['object']['accuracy']:.3f} [")
    assert rows["target, source only accuracy, object"].startswith(
        f"{run.result['source_only']['object']['accuracy']:.3f}"
    )
    assert run.report().is_file()
    assert {row["object"] for row in run.predict(folder / "striped")} <= {"red", "green", "blue"}
    flat = {"source": (), "target": "", "target_images": folder / "striped" / "red", "data": str(folder / "plain")}
    unlabelled = adapt(adapt_config(**flat))
    assert dict(unlabelled.summary())["target, object"] == "not measured: no test image has a label"
