import json
import shutil
from pathlib import Path

from transfer.cli.main import main


def test_json_is_alone_on_standard_output(capsys, images, tmp_path):
    out = tmp_path / "run"
    data = ["--data", str(images.paths[0].rsplit("/", 3)[0]), "--backbone", "glyphnet", "--device", "cpu"]
    data += ["--out", str(out)]
    assert main(["train", *data, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((out / "result.json").read_text())
    assert "saved in" in printed.err


def test_a_page_is_written_unless_no_report_is_given(capsys, images, tmp_path):
    data = ["--data", str(images.paths[0].rsplit("/", 3)[0]), "--backbone", "glyphnet", "--device", "cpu"]
    for more, there in (([], True), (["--no-report"], False)):
        out = tmp_path / f"run{len(more)}"
        assert main(["train", *data, "--out", str(out), *more]) == 0
        assert (out / "report.html").is_file() == there
        assert ("report.html" in capsys.readouterr().out) == there


def test_an_update_prints_the_comparison_and_writes_a_run_with_its_page(capsys, folder, tmp_path):
    more = tmp_path / "more" / "plain" / "white"
    more.mkdir(parents=True)
    few = tmp_path / "few"
    for file in sorted(folder.rglob("*.png")):
        if file.parent.name == "red":
            shutil.copyfile(file, more / f"{file.parents[1].name}{file.name}")
        else:
            copy = few / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    assert main(["train", str(few), "--backbone", "glyphnet", "--device", "cpu", "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["update", "run", "--add", str(tmp_path / "more")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"updating run with {tmp_path / 'more'}; run folder run-updated"
    assert any(line.startswith("object, old test images") for line in lines)
    assert any(line.startswith("white") and "0.000" in line for line in lines)
    assert "new classes: white" in lines
    assert lines[-2:] == [
        "saved in run-updated; page: run-updated/report.html",
        "next: transfer predict run-updated IMAGE...",
    ]
    assert "Before and after the update" in Path("run-updated/report.html").read_text()
    assert main(["update", "run", "--add", str(tmp_path / "more"), "--out", "none", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["changes"]["new_classes"] == ["white"]
    assert printed["run"]["test"].keys() == {"object", "domain"}
    assert not Path("run-updated-2").exists()
