from pathlib import Path

from commands import run_script

from transfer.evaluation.uncertainty.unknown import UNKNOWN_SCORES

RECIPE = Path(__file__).parents[2] / "recipes" / "unknown_images.py"


def test_each_score_and_the_chosen_one_have_an_auroc_for_each_kind_of_unknown_image(images, tmp_path):
    """On the tiny set, of which a class is left out, with itself as the other set."""
    folder = str(Path(str(images.paths[0])).parents[2])
    argv = ["--data", folder, "--others", folder, "--backbone", "glyphnet", "--seeds", "0,1", "--device", "cpu"]
    done = run_script(tmp_path, RECIPE, *argv)
    assert done.returncode == 0, done.stderr
    table, last = done.stdout.rsplit("\n\n", 2)[-2:]
    head, *lines = table.splitlines()
    assert head.split() == ["score", "left-out", "classes", folder]
    assert len(lines) == len(UNKNOWN_SCORES) + 1
    for line, name in zip(lines, (*UNKNOWN_SCORES, "as chosen"), strict=True):
        assert line.startswith(name)
        assert 0 <= float(line.removeprefix(name).split()[0]) <= 1
    chosen = last.removeprefix("chosen: ").split(";")[0]
    assert sum(int(part.split()[-1]) for part in chosen.split(",")) == 2
