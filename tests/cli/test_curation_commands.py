import csv
import json
import shlex
import shutil
from pathlib import Path

from transfer.cli.arguments import parse
from transfer.cli.main import main
from transfer.config.train import TrainConfig


def test_inspect_prints_the_findings_and_writes_the_page(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", str(folder), "--backbone", "glyphnet", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert f"inspecting {folder}; backbone glyphnet" in out
    assert "48 images, 48 labelled, 3 classes" in out
    page = tmp_path / "runs" / f"{folder.name}-inspected" / "inspection.html"
    assert str(page.relative_to(tmp_path)) in out
    assert "<h1>" in page.read_text()
    findings = json.loads(page.with_name("findings.json").read_text())["findings"]
    doubted = any(finding["kind"] == "label_suspects" for finding in findings)
    assert f"next: transfer {'review' if doubted else 'train'} {folder}" in out


def test_inspect_prints_json_alone_and_saves_nothing_if_told(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", str(folder), "--backbone", "glyphnet", "--out", "none", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["overview"]["images"] == 48
    assert list(tmp_path.iterdir()) == []


def test_inspect_names_a_folder_that_is_missing_in_one_line(capsys, tmp_path):
    assert main(["inspect", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_review_needs_its_packages(capsys, folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    assert main(["review", str(folder), "--backbone", "glyphnet"]) == 2
    assert "pip install 'transfer-toolkit[server]'" in capsys.readouterr().err


def test_review_says_how_to_train_with_the_decisions(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transfer.server.serve.check_server", lambda: None)

    def serve(review, port):
        assert port == 8123
        review.decide(0, "exclude", seen=0)

    monkeypatch.setattr("transfer.server.serve.serve_review", serve)
    words = ["--backbone", "glyphnet", "--device", "cpu", "--class-name", "red", "--port", "8123"]
    assert main(["review", str(folder), *words]) == 0
    out = capsys.readouterr().out
    file = f"runs/{folder.name}-review/labels.csv"
    assert f"16 of 48 images to look at; decisions are appended to {file}" in out
    assert f"next: transfer train {folder} --corrections {file}" in out
    assert main(["data", str(folder), "--corrections", file]) == 0
    log = capsys.readouterr().err
    assert "0 labels changed, 1 image excluded" in log
    assert f"next: transfer train {folder} --corrections {file}" in log
    monkeypatch.setattr("transfer.server.serve.serve_review", lambda review, port: review.decide(0, "undo", seen=1))
    assert main(["review", str(folder), *words]) == 0
    assert capsys.readouterr().out.endswith("nothing is decided\n")


def test_pick_writes_a_file_and_names_the_next_command(capsys, images, working_directory):
    folder = working_directory / "photos"
    folder.mkdir()
    for i, path in enumerate(images.paths):
        (folder / f"{i}.png").write_bytes(Path(path).read_bytes())
    assert main(["pick", "photos", "--n", "4", "--backbone", "glyphnet", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "reading photos; backbone glyphnet; choosing 4 images to label"
    with (working_directory / "photos-picks.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4
    assert (working_directory / "photos-picks.html").read_text().count("<figure") == 4
    assert [row["path"] for row in rows] == [line.split()[0] for line in lines if line.startswith("photos/")]
    words = shlex.split(next(line for line in lines if line.startswith("next: ")))[2:]
    config = parse(words).config
    assert isinstance(config, TrainConfig)
    assert (config.data.data, config.data.unlabelled) == ("photos-picks.csv", "photos")
    assert config.backbone.backbone == "glyphnet"


def test_mistakes_are_one_line(capsys, images):
    folder = str(Path(images.paths[0]).parents[2])
    for words, message in (
        (["--strategy", "typiclus"], "unknown strategy 'typiclus' (did you mean 'typiclust'?)"),
        (["--n", "0"], "--n 0: it must be 1 or more"),
        (["--out", "picks"], "--out picks: it must be a CSV file, such as picks.csv"),
        ([], "--n 20: no image without a label is left"),
    ):
        assert main(["pick", folder, "--backbone", "glyphnet", "--device", "cpu", *words]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_simulated_picks_are_printed_and_saved(capsys, folder, working_directory):
    words = ["--simulate", "--n", "3", "--rounds", "2", "--seeds", "0", "--backbone", "glyphnet", "--device", "cpu"]
    assert main(["pick", str(folder), *words]) == 0
    assert "reaches" in capsys.readouterr().out
    result = json.loads((working_directory / f"{folder.name}-simulated.json").read_text())
    assert result["labels"] == [3, 6]
    assert (working_directory / f"{folder.name}-simulated.html").read_text().count("<svg") == 3
    assert main(["pick", str(folder), *words, "--out", "a.csv"]) == 2
    assert "it must be a JSON file, such as a.json" in capsys.readouterr().err


def test_inspect_of_a_single_class_does_not_lead_to_a_training_that_is_refused(capsys, folder, tmp_path):
    one = tmp_path / "one"
    shutil.copytree(folder / "plain" / "red", one / "red")
    assert main(["inspect", str(one), "--backbone", "glyphnet", "--device", "cpu", "--out", "none"]) == 0
    out = capsys.readouterr().out
    assert "1 class" in out
    assert "next:" not in out
    flat = one / "red"
    assert main(["inspect", str(flat), "--backbone", "glyphnet", "--device", "cpu", "--out", "none"]) == 0
    assert f"next: transfer pick {flat}" in capsys.readouterr().out
