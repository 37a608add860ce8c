import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import replace

import pytest

from transfer.config.commands import PredictConfig
from transfer.data.image_paths import find_images
from transfer.data.images import batches as batches_module
from transfer.data.images.batches import StreamedBatch
from transfer.errors import TransferError
from transfer.evaluation.predict import group_paths, predict, predict_batches, predict_command
from transfer.evaluation.uncertainty.caution import choose_caution
from transfer.evaluation.uncertainty.record import find_uncertainty
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


def test_any_device_repeats_the_predictions_of_a_run(run, device):
    """Devices round differently."""
    with (run / "predictions.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    models = checkpoint.load_models(run, device)
    caution = choose_caution(find_uncertainty(run), 0.9, 0.0)
    got = list(predict(models, [row["path"] for row in expected], caution=caution))
    for row, want in zip(got, expected, strict=True):
        share = dict(row["object_top"])[want["object_predicted"]]
        assert share == pytest.approx(float(want["object_probability"]), abs=1e-4 if device == "cpu" else 0.02)
        assert 0 <= row["object_unknown"] <= 1


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
    for form, name in (("csv", "answers.CSV"), ("json", "answers.jsonl")):
        assert predict_command(PredictConfig(run, images, out=tmp_path / name)) == (8, 0)
        assert (tmp_path / name).read_bytes() == (tmp_path / form).read_bytes()


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


def test_batches_are_full_unless_the_next_path_is_waited_for(monkeypatch):
    monkeypatch.setattr("transfer.evaluation.predict.PREDICTED_AT_ONCE", 3)
    paths = ["a", "b", None, "c", "d", None, None, "e"]

    def group(**how):
        return [batch and batch.paths for batch in group_paths(paths, **how)]

    assert group() == [None, ["a", "b", "c"], None, None, ["d", "e"]]
    assert group(prompt=True) == [["a", "b"], None, ["c", "d"], None, None, ["e"]]


def test_images_before_the_first_wanted_are_not_read_and_change_no_bit(run, folder, monkeypatch):
    models, paths = checkpoint.load_models(run), find_images([str(folder)])[:9]
    how = {"top": 3, "skip_bad": False, "caution": None}
    (whole,) = predict_batches(models, [StreamedBatch(paths)], **how)
    decoded, read_pixels = [], batches_module.read_pixels
    monkeypatch.setattr(batches_module, "read_pixels", lambda path, **k: decoded.append(path) or read_pixels(path, **k))
    (rest,) = predict_batches(models, [None, StreamedBatch(paths, start=5), None], **how)
    assert rest.rows == whole.rows[5:]
    assert sorted(decoded) == sorted(paths[5:])


def odd_images(folder, root):
    """Copies of images under names with line breaks, quotes and bytes that are not text, and a file that is bad."""
    root.mkdir()
    names = [b"two\nlines.png", b'"quoted, name".png', b"not\xff\xfetext.png", b"-dash.png", b"plain.png"]
    if sys.platform != "linux":
        names = names[3:]
    for name, file in zip(names, sorted(folder.rglob("*.png")), strict=False):
        shutil.copyfile(file, os.fsencode(root) + b"/" + name)
    for i, file in enumerate(sorted(folder.rglob("*.png"))[:40]):
        shutil.copyfile(file, root / f"{i:02d}.png")
    (root / "07.png").write_bytes(b"nothing")
    return root


@pytest.mark.parametrize("form", ["json", "csv"])
def test_an_interrupted_file_is_resumed_to_the_same_bytes(config, folder, tmp_path, monkeypatch, form):
    """Cautious answers, a bad image, odd names; batches of 8; stopped at every batch."""
    monkeypatch.setattr("transfer.evaluation.predict.PREDICTED_AT_ONCE", 8)
    train(config(out=tmp_path / "run", test=0.25))
    images = str(odd_images(folder, tmp_path / "odd"))
    how = {"format": form, "on_bad_image": "skip", "coverage": 0.9, "min_confidence": 0.6, "max_unknown": 0.9}
    asked = PredictConfig(tmp_path / "run", (images,), out=tmp_path / "whole", resume=True, **how)
    counts = predict_command(asked)
    assert counts == (len(find_images([images])) - 1, 1)
    rows, record = (tmp_path / "whole").read_bytes(), (tmp_path / "whole.resume").read_bytes()
    decoded, read_pixels = Counter(), batches_module.read_pixels
    monkeypatch.setattr(
        batches_module, "read_pixels", lambda path, **k: decoded.update([path]) or read_pixels(path, **k)
    )
    for kept in range(0, len(rows), len(rows) // 6):
        (tmp_path / "out.part").write_bytes(rows[:kept])
        (tmp_path / "out.resume").write_bytes(record)
        decoded.clear()
        assert predict_command(replace(asked, out=tmp_path / "out")) == counts
        assert (tmp_path / "out").read_bytes() == rows
        text = rows[:kept].decode(errors="surrogateescape")
        answered = text.count("\n")
        if form == "csv":
            whole_rows = text[: text.rfind("\n") + 1] if text.count('"') % 2 == 0 else text[: text.rfind('"')]
            answered = max(len(list(csv.reader(io.StringIO(whole_rows, newline="")))) - 1, 0)
        assert len(images and decoded) <= sum(counts) - answered + 1
        assert not decoded or max(decoded.values()) == 1
    predict_command(replace(asked, resume=False))
    assert (tmp_path / "whole").read_bytes() == rows
    if form == "json":
        assert [json.loads(line)["path"] for line in rows.splitlines()] == find_images([images])
    else:
        with (tmp_path / "whole").open(newline="", errors="surrogateescape") as file:
            assert [row["path"] for row in csv.DictReader(file)] == find_images([images])


def test_another_run_or_a_bad_image_that_was_skipped_is_refused(run, folder, tmp_path, config):
    shutil.copytree(folder / "plain", tmp_path / "images")
    (tmp_path / "images" / "bad.png").write_bytes(b"nothing")
    asked = PredictConfig(run, (str(tmp_path / "images"),), on_bad_image="skip", out=tmp_path / "out", resume=True)
    assert predict_command(asked) == (24, 1)
    with pytest.raises(TransferError, match=r"out\.part was made with --on-bad-image skip and names 1 bad image"):
        predict_command(replace(asked, on_bad_image="refuse"))
    with pytest.raises(TransferError, match="was made with another format, top: use what it was started with"):
        predict_command(replace(asked, format="csv", top=1))
    train(config(out=tmp_path / "other", seed=1, policy="partial:2", epochs=1))
    with pytest.raises(TransferError, match="was made with another run: use what it was started with"):
        predict_command(replace(asked, run=tmp_path / "other"))
    moved = shutil.copytree(run, tmp_path / "moved")
    assert predict_command(replace(asked, run=moved)) == (24, 1)


def test_images_refused_in_the_middle_are_continued_once_they_are_mended(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("transfer.evaluation.predict.PREDICTED_AT_ONCE", 4)
    shutil.copytree(folder / "plain", tmp_path / "images")
    bad = tmp_path / "images" / "red" / "4.png"
    sound = bad.read_bytes()
    asked = PredictConfig(run, (str(tmp_path / "images"),), out=tmp_path / "out", resume=True)
    bad.write_bytes(b"nothing")
    with pytest.raises(TransferError, match=r"bad image .*red/4\.png.*--on-bad-image skip\)"):
        predict_command(asked)
    assert len((tmp_path / "out.part").read_text().splitlines()) == 20
    bad.write_bytes(sound)
    assert predict_command(asked) == (24, 0)
    predict_command(replace(asked, out=tmp_path / "fresh", resume=False))
    assert (tmp_path / "out").read_bytes() == (tmp_path / "fresh").read_bytes()


def test_members_of_shards_that_are_left_out_are_named(run, folder, tmp_path, caplog):
    caplog.set_level("INFO", "transfer")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in ("red/0.png", "red/1.png"):
            tar.add(folder / "plain" / name, name)
        for name in ("notes.md", "red/._0.png", "movie.mp4"):
            tar.addfile(tarfile.TarInfo(name))
    out = tmp_path / "out"
    assert predict_command(PredictConfig(run, (str(tmp_path / "s.tar"),), out=out, resume=True)) == (2, 0)
    assert sorted(caplog.messages) == [
        f"left out: 1 file, a video: save its frames as images: movie.mp4 ({tmp_path / 's.tar'})",
        f"left out: 1 file, hidden: red/._0.png ({tmp_path / 's.tar'})",
        f"left out: 1 file, not an image: notes.md ({tmp_path / 's.tar'})",
    ]
    os.utime(tmp_path / "s.tar", (0, 0))
    with pytest.raises(TransferError, match=r"--resume: .*red/0\.png@\d+\+\d+ was changed since row 1"):
        predict_command(PredictConfig(run, (str(tmp_path / "s.tar"),), out=out, resume=True))


def test_names_of_a_list_that_are_missing_are_rows_if_bad_images_are_skipped(run, folder, tmp_path, monkeypatch):
    names = [
        str(folder / "plain" / "red" / "0.png"),
        str(tmp_path / "gone.png"),
        str(folder / "plain" / "red" / "1.png"),
    ]
    for options, outcome in (({"on_bad_image": "skip"}, (2, 1)), ({}, TransferError)):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(names)))
        asked = PredictConfig(run, ("-",), out=tmp_path / "out", **options)
        if outcome is TransferError:
            with pytest.raises(TransferError, match=r"no image at .*gone\.png"):
                predict_command(asked)
        else:
            assert predict_command(asked) == outcome
            rows = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
            assert [row["path"] for row in rows] == names
            assert "gone.png: No such file" in rows[1]["error"]
    with pytest.raises(TransferError, match=r"no image at .*gone\.png"):
        predict_command(PredictConfig(run, tuple(names), on_bad_image="skip"))


KILLED = """
import os, signal, sys
from pathlib import Path
from transfer.config.commands import PredictConfig
from transfer.evaluation import predict as module
from transfer.runs import checkpoint

module.PREDICTED_AT_ONCE = 4
run, images, folder, form = sys.argv[1:]
asked = {"format": form, "device": "cpu", "resume": True}

def predict(out, kill_at=None):
    if kill_at is not None:
        count = [0]
        def die(frame, event, arg):
            if not frame.f_code.co_filename.endswith("prediction_file.py"):
                return None
            count[0] += event == "line"
            if count[0] > kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return die
        sys.settrace(die)
    module.predict_command(PredictConfig(Path(run), (images,), out=Path(folder, out), **asked))
    sys.settrace(None)

def child(*args):
    if not (pid := os.fork()):
        predict(*args)
        os._exit(0)
    return os.waitpid(pid, 0)[1]

checkpoint.load_models(Path(run))  # imports what all need
assert child("whole") == 0
whole = Path(folder, "whole").read_bytes()
for kill_at in (90, 200, 333, 500):
    out = f"out{kill_at}"
    killed = child(out, kill_at)
    again = child(out, kill_at + 41) if killed else 0
    assert child(out) == 0
    print(kill_at, killed, again, Path(folder, out).read_bytes() == whole, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to fork here")
def test_a_process_that_is_killed_at_any_line_resumes_to_the_same_bytes(run, folder, tmp_path):
    words = [sys.executable, "-c", KILLED, str(run), str(folder / "plain"), str(tmp_path), "csv"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {same for *_, same in lines} == {"True"}
    assert sum(killed == "9" for _, killed, *_ in lines) >= 3, lines


def test_lines_come_while_the_list_is_still_written(run, folder, tmp_path):
    """Of a pipe; each line is there before the next image is named."""
    images = sorted(map(str, (folder / "plain").rglob("*.png")))[:3]
    words = [sys.executable, "-m", "transfer", "predict", str(run), "-", "--device", "cpu"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for image in images:
            process.stdin.write(os.fsencode(image) + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["path"] == image
        process.stdin.close()
        assert process.wait() == 0
        assert b"3 images predicted" in process.stderr.read()
