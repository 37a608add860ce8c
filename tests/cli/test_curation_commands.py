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
