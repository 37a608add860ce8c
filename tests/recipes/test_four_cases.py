import json
from pathlib import Path
from subprocess import CompletedProcess

from commands import run_script

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "recipes" / "four_cases.py"


def run(place: Path, *more: str) -> CompletedProcess[str]:
    argv = ["--device", "cpu", "--out", "run", "--policies", "truncate:2,head2toe", *more]
    return run_script(place, SOURCE, *argv)


def test_recipe_is_short_and_runs_on_a_folder(images, tmp_path) -> None:
    assert len(SOURCE.read_text().splitlines()) <= 50
    folder = Path(str(images.paths[0])).parents[2]
    options = ["--seeds", "0,1", "--data", str(folder), "--backbone", "glyphnet"]
    finished = run(tmp_path, *options)
    assert finished.returncode == 0, finished.stderr
    head, *rows = finished.stdout.partition("\n\nglyphnet")[2].split("\n\n")[0].splitlines()
    assert head.split() == [f"{folder}@5", str(folder)]
    assert [row.split()[0] for row in rows] == ["linear_probe", "truncate:2", "head2toe", "advised"]
    for words in ("best by other seeds", "mean regret over 2 of 2 cells: ", "significantly worse than linear_probe: "):
        assert words in finished.stdout
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "metrics.jsonl", "result.json"}
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result["records"]
    second = run(tmp_path, *options)
    assert second.returncode == 2
    assert "already holds a run" in second.stderr
    resumed = run(tmp_path, *options, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "solved" not in resumed.stdout  # nothing was trained
    assert resumed.stdout.strip() in finished.stdout
