import json

import pytest

from transfer.errors import TransferError
from transfer.report.load import read_saved_run


def test_what_a_folder_holds(made):
    run = read_saved_run(made(n=16))
    assert len(run.predictions) == 16
    assert (run.metrics_key, run.adapted) == ("test", False)
    right, paths = run.correct("object")
    assert right.mean() == pytest.approx(run.metrics_by_head["object"]["accuracy"])
    assert paths[3] == "/images/<3>.png"
    assert list(run.labelled_predictions("angle")) == []
    assert [line["epoch"] for line in run.metrics] == [1, 2, 3, 1, 2]


def test_unknown_truths_are_left_out(made):
    run = read_saved_run(made(n=8))
    run.predictions[0]["object"] = ""
    assert len(run.correct("object")[0]) == 7


@pytest.mark.parametrize("name", ["metrics.jsonl", "exhibits.json", "result.json"])
def test_a_damaged_file_is_one_line(made, name):
    folder = made()
    (folder / name).write_text('{"half')
    with pytest.raises(TransferError, match="is damaged") as caught:
        read_saved_run(folder)
    assert "\n" not in str(caught.value)


def test_advice_points_to_its_run(made, tmp_path):
    made("advice/run")
    with pytest.raises(TransferError, match="its run is in run/"):
        read_saved_run(tmp_path / "advice")


def test_predictions_of_all_seeds(made):
    folder = made(bare=True)
    result = json.loads((folder / "result.json").read_text()) | {"seeds": [{"seed": 0}, {"seed": 7}]}
    (folder / "result.json").write_text(json.dumps(result))
    for seed in (0, 7):
        (folder / f"seed{seed}").mkdir()
        (folder / f"seed{seed}" / "predictions.csv").write_text(f"path,object\n{seed}.png,a\n")
    assert [row["path"] for row in read_saved_run(folder).predictions] == ["0.png", "7.png"]
