import subprocess
import sys
from pathlib import Path

import pytest
from commands import run_script
from PIL import Image

ROOT = Path(__file__).parents[2]
# Each has a test of its own.
OTHERS = (
    "advice_constants.py",
    "appearance_battery.py",
    "class_shares.py",
    "constants.py",
    "label_errors.py",
    "pretrain_bundled.py",
    "course_baseline.py",
    "review_questions.py",
    "labels_and_time.py",
    "four_cases.py",
    "several_labels.py",
    "unknown_images.py",
)
NAMES = sorted(p.name for p in (ROOT / "recipes").glob("*.py") if p.name not in OTHERS)


ADAPTING = ["--steps", "2", "--methods", "source_only,coral,mcc", "--policies", "linear_probe,partial:1"]
PAIR = ["--source", "plain", "--target", "striped"]
FEWER = {
    "accuracy_without_labels.py": ["--seeds", "0"],
    "adapt_all_pairs.py": ["--steps", "2", "--methods", "source_only,mcc", "--policies", "partial:1"],
    "few_labels.py": ["--seeds", "0"],  # it trains eight times for each
    "search.py": ["--trials", "4"],  # of each of four samplers
}
"""Options of the recipes that train dozens of times."""


def test_the_eight_recipes_are_there():
    assert len(NAMES) >= 8


@pytest.mark.parametrize("name", NAMES)
def test_recipe_is_short_and_runs_on_a_folder(name, images, tmp_path):
    """Each prints a table; run for one epoch."""
    source = ROOT / "recipes" / name
    assert len(source.read_text().splitlines()) <= 50
    folder = Path(str(images.paths[0])).parents[2]
    assert Image.open(folder / "plain" / "red" / "0.png").size == (32, 32)
    argv = ["--data", str(folder), "--backbone", "glyphnet", "--epochs", "1", "--device", "cpu"]
    argv += FEWER.get(name, [])
    argv += ADAPTING + PAIR if name.startswith("adapt_amazon") else []
    if name == "linear_probe.py":  # one of them truly as a user does
        command = [sys.executable, str(source), *argv]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    else:
        done = run_script(tmp_path, source, *argv)
    assert done.returncode == 0, done.stderr
    if name.startswith("adapt_"):
        assert done.stdout.count("partial:1 mcc") == 1
        assert "oracle" in done.stdout
        return
    assert "object" in done.stdout
    assert "epoch   1" in done.stdout or "solved" in done.stdout
