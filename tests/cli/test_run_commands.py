import json

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
