import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from commands import run_script
from matplotlib.image import imread

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "recipes" / "labels_and_time.py"


def run(folder: Path, place: Path, *more: str) -> CompletedProcess[str]:
    argv = ["--epochs", "1", "--scratch-epochs", "1", "--device", "cpu", "--backbone", "glyphnet"]
    return run_script(place, SOURCE, *argv, "--data", str(folder), *more)


def test_recipe_is_short_and_runs_on_a_folder(images, tmp_path) -> None:
    assert len(SOURCE.read_text().splitlines()) <= 50
    folder = Path(str(images.paths[0])).parents[2]
    policies = ["linear_probe", "full", "lp_ft", "gradual:bottom_up"]
    finished = run(folder, tmp_path, "--label-counts", "0,1", "--policies", ",".join(policies), "--out", "run")
    assert finished.returncode == 0, finished.stderr
    scores, starts = finished.stdout.split("object, ")[-2:]
    head = scores.splitlines()[0].split()
    assert head == ["labels", "per", "class", "and", "domain", "1", "all", "seconds", "as", "scratch", "times"]
    named = [line.split()[0] for line in scores.splitlines()[1:] if line]
    assert named == ["scratch", *policies, "scratch"]
    assert "scratch equals the probe at" in scores
    assert [line.split("  ")[0] for line in starts.splitlines()[1:]] == [
        "heads first, then all layers (lp_ft)",
        "random heads (full)",
        "lowest layers first (gradual:bottom_up)",
    ]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "result.json",
    }
    assert imread(tmp_path / "run" / "curves.png").shape[1] == pytest.approx(1430, abs=2)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result["runs"]
    assert len(lines) == 2 * 5
    second = run(folder, tmp_path, "--label-counts", "1", "--policies", "full", "--out", "run")
    assert second.returncode == 2
    assert "already holds a run" in second.stderr
