import json

from transfer.cli.main import main


def test_inspect_prints_the_findings_and_writes_the_page(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", str(folder), "--backbone", "glyphnet", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert f"inspecting {folder}; backbone glyphnet" in out
    assert "48 images, 48 labelled, 3 classes" in out
    page = tmp_path / "runs" / f"{folder.name}-inspected" / "inspection.html"
    assert str(page.relative_to(tmp_path)) in out
    assert "<h1>" in page.read_text()
    assert page.with_name("findings.json").is_file()


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
    assert "0 labels changed, 1 images excluded" in log
    assert f"next: transfer train {folder} --corrections {file}" in log
