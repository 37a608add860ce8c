from pathlib import Path

from commands import run_script

RECIPE = Path(__file__).parents[2] / "recipes" / "several_labels.py"


def test_every_kind_of_head_has_its_scores(images, tmp_path):
    """On the tiny set, whose labels are colours and domains."""
    folder = Path(str(images.paths[0])).parents[2]
    argv = ["--data", str(folder), "--backbone", "glyphnet", "--epochs", "2", "--seeds", "0,1", "--device", "cpu"]
    done = run_script(tmp_path, RECIPE, *argv)
    assert done.returncode == 0, done.stderr
    table = done.stdout.rsplit("\n\n", 1)[-1].splitlines()
    assert table[0].split() == ["linear", "heads", "mAP", "micro-F1", "macro-F1", "seconds"]
    assert [line.split("  ")[0] for line in table[1:]] == [
        "solved",
        "trained, binary cross-entropy",
        "trained, asymmetric",
        "scikit-learn, one per label",
    ]
    scores = [float(line.split("  ")[-4].split()[0]) for line in (table[1], table[4])]
    assert min(scores) > 0.5
