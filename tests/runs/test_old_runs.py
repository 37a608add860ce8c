"""Run folders written by version 0.1.0, before its rooms were renamed, still load, predict, report and export."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfer import load_table
from transfer.cli.main import main

RUNS = Path(__file__).parents[1] / "fixtures" / "old_runs"
NAMES = ("dual_seeds", "joint", "separate_lp_ft", "further_targets", "adapted")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw 48 rings and bars from arithmetic alone, with a manifest of object, domain and two further targets."""
    folder = tmp_path_factory.mktemp("old") / "pictures"
    folder.mkdir()
    y, x = np.mgrid[:32, :32] - 16
    rows = []
    for i in range(48):
        shape, size = ("ring", "bar")[i % 2], 4 + i % 7
        mask = abs(np.hypot(x, y) - size) < 2 if shape == "ring" else (abs(x) < 2) & (abs(y) < size)
        pixels = np.full((32, 32, 3), (60 + 3 * i, 90, 200 - 3 * i), dtype=np.uint8)
        pixels[mask] = 255 - pixels[mask]
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
        domain = "light" if i > 23 else "dark"
        rows.append({"path": f"{i:02}.png", "object": shape, "domain": domain, "large": int(size > 7), "size": size})
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def copy_run(name: str, folder: Path) -> Path:
    """Return a copy of an old run whose predictions name the digits as they lie on this machine."""
    run = Path(shutil.copytree(RUNS / name, folder / name))
    digits = Path(load_table("digits").paths[0]).parents[2]
    for path in run.rglob("predictions.csv"):
        path.write_text(re.sub(r"^digits/\w+", digits.as_posix(), path.read_text(), flags=re.MULTILINE))
    return run


@pytest.fixture(params=NAMES)
def run(request: pytest.FixtureRequest, tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(pictures.parent)  # the run of further targets was trained on pictures/manifest.csv
    return copy_run(request.param, tmp_path)


def test_evaluate_gives_the_metrics_of_then(run, capsys) -> None:
    assert main(["evaluate", str(run), "--json"]) == 0
    found, expected = json.loads(capsys.readouterr().out), json.loads((run / "expected_evaluate.json").read_text())
    assert found.keys() == expected.keys()
    assert found["test"].keys() == expected["test"].keys()
    for head, then in expected["test"].items():
        now = found["test"][head]
        assert now.keys() - then.keys() <= {"calibration_error"}  # which came later
        assert now["n"] == then["n"]
        for name in {"accuracy", "mae"} & then.keys():  # the digits depend a little on the versions that draw them
            assert now[name] == pytest.approx(then[name], abs=0.02)


def test_predict_gives_the_predictions_of_then(run, capsys) -> None:
    assert main(["predict", str(run), "pictures/00.png", "pictures/07.png"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = [json.loads(line) for line in (run / "expected_predict.jsonl").read_text().splitlines()]
    for now, then in zip(found, expected, strict=True):
        assert now.keys() == then.keys()
        for name, value in then.items():
            if isinstance(value, float):
                assert now[name] == pytest.approx(value, abs=1e-3)
            elif name.endswith("_top"):
                assert [k for k, _ in now[name]] == [k for k, _ in value]
            else:
                assert now[name] == value


def test_report_and_export_work(run, tmp_path, capsys) -> None:
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").stat().st_size > 10_000
    assert main(["export", str(run), "--format", "safetensors", "--out", str(tmp_path / "model.safetensors")]) == 0


def test_resuming_a_finished_run_changes_nothing(tmp_path, capsys) -> None:
    run = copy_run("dual_seeds", tmp_path)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.suffix in (".safetensors", ".csv", ".jsonl")}
    words = ["--data", "digits", "--backbone", "glyphnet", "--policy", "truncate:3", "--shots", "5"]
    words += ["--seeds", "0,1", "--out", str(run), "--engine", "torch"]  # as runs of that version had
    assert main(["train", *words, "--resume"]) == 0
    assert {path: path.read_bytes() for path in before} == before
