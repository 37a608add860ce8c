import csv
import json
import shutil
from dataclasses import replace

import pytest

from transfer.config.commands import PredictConfig
from transfer.data.image_paths import find_images
from transfer.errors import TransferError
from transfer.evaluation.predict import predict, predict_command
from transfer.runs import checkpoint
from transfer.runs.folder import UNCERTAINTY_FILE
from transfer.training.train import train


def test_a_saved_run_repeats_its_test_predictions(run):
    """A model rebuilt from its file predicts for image files what predictions.csv lists."""
    with (run / "predictions.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    got = list(predict(checkpoint.load_models(run), [row["path"] for row in expected], top=2))
    for row, want in zip(got, expected, strict=True):
        assert row["object"] == want["object_predicted"]
        assert row["domain"] == want["domain_predicted"]
        assert row["object_probability"] == pytest.approx(float(want["object_probability"]), abs=1e-4)
        assert len(row["object_top"]) == 2
        assert row["object_top"][0] == [row["object"], row["object_probability"]]


def test_probabilities_of_all_classes_sum_to_one(run, folder):
    (row,) = predict(checkpoint.load_models(run), [str(folder / "plain" / "red" / "0.png")], top=99)
    assert sum(p for _, p in row["object_top"]) == pytest.approx(1, abs=1e-5)


def test_a_model_file_alone_predicts_elsewhere_without_store_or_hub(run, folder, tmp_path, monkeypatch):
    monkeypatch.delenv("TRANSFER_WEIGHTS")
    shutil.copy(run / "model.safetensors", tmp_path / "elsewhere.safetensors")
    paths = find_images([str(folder / "plain")])
    assert list(predict(checkpoint.load_models(tmp_path / "elsewhere.safetensors"), paths)) == list(
        predict(checkpoint.load_models(run), paths)
    )


def test_a_bad_image_is_refused_or_skipped_and_named(run, folder, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    paths = [str(folder / "plain" / "red" / "0.png"), str(bad), str(folder / "plain" / "red" / "1.png")]
    models = checkpoint.load_models(run)
    with pytest.raises(TransferError, match=r"bad\.png"):
        list(predict(models, paths))
    rows = list(predict(models, paths, skip_bad=True))
    assert [row["path"] for row in rows] == paths
    assert "bad.png" in rows[1]["error"]
    assert "object" not in rows[1]
    clean = list(predict(models, [paths[0], paths[2]]))
    assert [row["object"] for row in (rows[0], rows[2])] == [row["object"] for row in clean]
    assert not list(tmp_path.glob("out*"))
    assert predict_command(PredictConfig(run, tuple(paths), on_bad_image="skip", out=tmp_path / "out.jsonl")) == (2, 1)


def test_json_lines_and_csv_have_the_same_content(run, folder, tmp_path):
    for form in ("json", "csv"):
        images = (str(folder / "plain" / "red"),)
        assert predict_command(PredictConfig(run, images, format=form, out=tmp_path / form)) == (8, 0)
    lines = [json.loads(line) for line in (tmp_path / "json").read_text().splitlines()]
    with (tmp_path / "csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["path"], r["object"], float(r["object_probability"])) for r in rows] == [
        (line["path"], line["object"], line["object_probability"]) for line in lines
    ]


def test_a_bad_first_image_takes_no_column_from_the_others(run, folder, tmp_path):
    bad, good = tmp_path / "0.png", folder / "plain" / "red" / "0.png"
    bad.write_bytes(b"no image")
    for names, skipped in (((bad, good, bad), 2), ((good, bad), 1), ((bad,), 1)):
        config = PredictConfig(run, tuple(map(str, names)), format="csv", on_bad_image="skip", out=tmp_path / "csv")
        assert predict_command(config) == (len(names) - skipped, skipped)
        with (tmp_path / "csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["path"] for row in rows] == list(map(str, names))
        for row in rows:
            if row["path"] == str(bad):
                assert "bad image" in row["error"]
            else:
                assert row["object"] in ("blue", "green", "red")
                assert row["domain_probability"]
                assert not row["error"]


def test_a_flat_folder_with_other_files_is_predicted(run, folder, tmp_path, caplog):
    caplog.set_level("INFO", "transfer")
    flat = tmp_path / "flat"
    shutil.copytree(folder / "plain" / "red", flat)
    (flat / "notes.txt").touch()
    (flat / "._0.png").touch()
    assert predict_command(PredictConfig(run, (str(flat),), out=tmp_path / "out")) == (8, 0)
    assert len((tmp_path / "out").read_text().splitlines()) == 8
    lines = [f"left out: 1 file, hidden: {flat / '._0.png'}", f"left out: 1 file, not an image: {flat / 'notes.txt'}"]
    assert sorted(caplog.messages) == lines


def test_images_are_decoded_in_one_pass_and_rows_are_yielded_early(run, folder, monkeypatch):
    """Later images are decoded while rows are yielded, at most a few batches ahead."""
    from transfer.data.images import batches as module
    from transfer.evaluation import predict as ours

    monkeypatch.setattr(ours, "PREDICTED_AT_ONCE", 2)
    begun, decoded = [], []
    read_pixels, start = module.read_pixels, module.open_single_threads
    monkeypatch.setattr(module, "read_pixels", lambda path, **how: decoded.append(path) or read_pixels(path, **how))
    monkeypatch.setattr(module, "open_single_threads", lambda count: begun.append(count) or start(count))
    rows = predict(checkpoint.load_models(run), find_images([str(folder)]))
    next(rows)
    assert len(decoded) <= 2 + 2 * (1 + module.math.ceil(begun[0] / 2)) + 2
    assert len(list(rows)) == 47
    assert len(begun) == 1


def test_sets_and_withheld_answers_as_json_and_csv(config, folder, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    train(config(out=run, test=0.25))
    images = (str(folder / "plain"),)
    asked = PredictConfig(run, images, coverage=0.9, min_confidence=0.99, out=out)
    predict_command(asked)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 24
    for row in rows:
        likeliest, probability = row["object_top"][0]
        assert row["object"] == (likeliest if probability >= 0.99 else None)
        assert row["object_set"][0] == likeliest
        assert row["object_and_domain_set"][0] == [likeliest, row["domain_top"][0][0]]
        assert 0 <= row["object_unknown"] <= 1
    predict_command(replace(asked, format="csv"))
    with out.open(newline="") as file:
        cells = list(csv.DictReader(file))
    for row, cell in zip(rows, cells, strict=True):
        assert cell["object"] == (row["object"] or "")
        assert cell["object_set"] == "|".join(row["object_set"])
        assert float(cell["object_unknown"]) == row["object_unknown"]
        assert cell["object_and_domain_set"] == "|".join(" in ".join(pair) for pair in row["object_and_domain_set"])
    predict_command(replace(asked, min_confidence=0.0, max_unknown=0.5))
    bounded = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["object"] is None for row in bounded] == [row["object_unknown"] > 0.5 for row in rows]
    assert len({row["object"] is None for row in bounded}) == 2
    (run / UNCERTAINTY_FILE).unlink()
    with pytest.raises(TransferError, match="coverage: the run has no prediction sets"):
        predict_command(asked)
    predict_command(replace(asked, coverage=None))
    assert "object_unknown" not in json.loads(out.read_text().splitlines()[0])
