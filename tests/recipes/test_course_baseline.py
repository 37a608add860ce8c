from pathlib import Path

import pytest
from commands import run_script

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "more", "messages"),
    [
        (
            "course_baseline",
            ["--rows", "1,6", "--inputs", "raw", "--seeds", "0,1", "--backbone", "glyphnet"],
            [
                "Model [10] sgd 0.001 raw train started:",
                "    Epoch 1: cost=",
                "Model [10] sgd 0.001 raw test report: accuracy = ",
                "] => estimated ",
                "domain, reported",
                "glyphnet linear_probe",
            ],
        ),
        (
            "review_questions",
            ["--networks", "mlp", "--side", "8"],
            ["activation: maxout", "initialisation: too_small", "inputs: raw", "batch norm: on, sigmoid", "most dead"],
        ),
    ],
)
def test_recipe_is_short_and_runs_on_a_folder(name, more, messages, images, tmp_path) -> None:
    source = ROOT / "recipes" / f"{name}.py"
    assert len(source.read_text().splitlines()) <= 50
    folder = Path(str(images.paths[0])).parents[2]
    argv = ["--data", str(folder), "--epochs", "1", "--device", "cpu", *more, "--out", "run"]
    finished = run_script(tmp_path, source, *argv)
    assert finished.returncode == 0, finished.stderr
    for words in messages:
        assert words in finished.stdout
    saved = {path.name for path in (tmp_path / "run").iterdir()}
    assert saved >= {"config.json", "result.json"}
    assert ("layers.png" in saved) == (name == "review_questions")


def test_a_row_that_is_not_there_is_refused_in_a_line(tmp_path) -> None:
    source = ROOT / "recipes" / "course_baseline.py"
    finished = run_script(tmp_path, source, "--rows", "9")
    assert finished.returncode == 2
    assert "--rows 9: it must be from 1 to 6" in finished.stderr
