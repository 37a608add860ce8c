import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from transfer.cli.arguments import parse
from transfer.cli.commands import COMMANDS
from transfer.cli.main import main
from transfer.cli.messages import describe_start, suggest_next
from transfer.config.commands import FetchConfig

ARGUMENTS = {
    "demo": [],
    "backbones": ["glyphnet"],
    "data": ["digits"],
    "update": ["runs/a", "--add", "DATA"],
    "evaluate": ["runs/a"],
    "predict": ["runs/a", "x.png"],
    "export": ["runs/a"],
    "report": ["runs/a", "runs/b"],
    "cache": [],
    "adapt": ["DATA", "--target", "x"],
}
"""Words that a command needs; the others take data."""


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """The folder of a finished run."""
    out = tmp_path_factory.mktemp("saved") / "my run"
    assert main(["train", str(folder), "--backbone", "glyphnet", "--device", "cpu", "--out", str(out)]) == 0
    return out


def test_a_folder_is_read_and_a_name_is_looked_for(tmp_path):
    assert describe_start(FetchConfig(str(tmp_path))) == f"reading {tmp_path}"
    assert describe_start(FetchConfig("digits")) == "looking for digits"
    assert describe_start(FetchConfig("office31", verify=True)) == "verifying office31"


def test_each_command_says_what_it_is_about_to_do_before_torch_is_imported(folder, tmp_path):
    lines = {name: [folder if word == "DATA" else word for word in ARGUMENTS.get(name, ["DATA"])] for name in COMMANDS}
    code = (
        "import sys\nclass NoTorch:\n    def find_spec(self, name, *rest):\n"
        "        if name == 'torch':\n            raise SystemExit('torch is next')\n"
        "sys.meta_path.insert(0, NoTorch())\nfrom transfer.cli.main import main\n"
        "for words in eval(sys.argv[1]):\n    print('>>', words[0], file=sys.stderr)\n    try:\n        main(words)\n"
        "    except SystemExit:\n        pass\n    sys.stdout.flush()\n"
    )
    words = [[name, *map(str, more)] for name, more in lines.items()]
    how = {"cwd": tmp_path, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    said = subprocess.run([sys.executable, "-u", "-c", code, repr(words)], **how).stdout
    first = {part.split("\n")[0]: part.split("\n")[1] for part in said.split(">> ")[1:]}
    assert set(first) == set(COMMANDS)
    assert all(line and not line.startswith("transfer:") for line in first.values()), first
    assert first["report"] == "writing the page of runs/a, runs/b"
    assert first["predict"] == "predicting with runs/a"


@pytest.mark.parametrize("words", [["--format", "json"], ["--format", "csv"], ["--out", "p q.jsonl"]])
def test_predictions_are_alone_on_standard_output(run, folder, capsys, words):
    images = sorted(Path(folder).rglob("*.png"))[:3]
    assert main(["predict", str(run), *map(str, images), *words]) == 0
    said = capsys.readouterr()
    rows = (Path(words[1]).read_text() if words[0] == "--out" else said.out).splitlines()
    assert len(rows) == 3 + ("csv" in words)
    if "csv" not in words:
        assert [json.loads(row)["path"] for row in rows] == [str(path) for path in images]
    where = "saved in p q.jsonl" if words[0] == "--out" else "--out FILE saves the predictions"
    assert said.err.splitlines()[-2:] == [
        f"3 images predicted; {where}",
        f"next: transfer export {shlex.quote(str(run))} --format onnx",
    ]


def test_bad_images_and_other_files_are_told_on_standard_error(run, tmp_path, capsys):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"nothing")
    (tmp_path / "c.txt").touch()
    assert main(["predict", str(run), str(tmp_path), "--on-bad-image", "skip"]) == 0
    said = capsys.readouterr()
    assert len([json.loads(line) for line in said.out.splitlines()]) == 2
    assert "left out: 1 file, not an image: " in said.err
    assert "1 image predicted, 1 skipped as unreadable; " in said.err


def test_a_report_prints_its_file_and_how_to_open_it(run, capsys):
    assert main(["report", str(run)]) == 0
    said = capsys.readouterr()
    page = run / "report.html"
    assert said.out == f"{page}\n"
    assert said.err.splitlines()[-1] == f"next: python -m webbrowser {shlex.quote(str(page))}"


def test_an_evaluation_says_what_is_saved_and_points_to_the_page(run, capsys):
    assert main(["evaluate", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "nothing is saved; --out FILE.json saves these figures",
        f"next: transfer report {shlex.quote(str(run))}",
    ]
    assert main(["evaluate", str(run), str(run), "--out", "e.json", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == json.loads(Path("e.json").read_text())
    assert "saved in e.json\n" in said.err
    assert main(["evaluate", str(run), str(run), "--soup", "soup.safetensors"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "saved in soup.safetensors",
        "next: transfer predict soup.safetensors IMAGE...",
    ]


def test_the_command_after_an_export_loads_it(run, capsys):
    for form in ("safetensors", "torch_export"):
        assert main(["export", str(run), "--format", form, "--out", f"my model.{form}"]) == 0
        words = shlex.split(capsys.readouterr().err.splitlines()[-1])
        assert words[:3] == ["next:", "python", "-c"]
        exec(words[3])
        assert capsys.readouterr().out.strip()


def test_a_comparison_ends_with_the_policy_that_validation_prefers(folder, capsys):
    words = ["compare", str(folder), "--backbone", "glyphnet", "--device", "cpu", "--no-report", "--out", "c"]
    assert main([*words, "--policies", "linear_probe,stage_probes"]) == 0
    said = capsys.readouterr().out.splitlines()
    result = json.loads(Path("c/result.json").read_text())
    scores = {name: sum(run["validation"].values()) for name, run in result["runs"].items()}
    assert said[-2:] == ["saved in c", f"next: transfer predict c/{max(scores, key=scores.get)} IMAGE..."]
    assert main([*words, "--policies", "linear_probe", "--val", "0", "--overwrite"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["saved in c", "next: transfer report c"]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["search", "--trials", "2", "--epochs", "2"], "val_acc"),
        (["search", "--trials", "2", "--epochs", "2", "--final"], "predict"),
        (["lr-find", "--steps", "12"], "suggested"),
        (["advise"], "expected"),
    ],
)
def test_one_command_is_next_and_it_is_the_last_line(folder, capsys, words, key):
    assert main([words[0], str(folder), "--backbone", "glyphnet", "--device", "cpu", "--out", "o", *words[1:]]) == 0
    said = capsys.readouterr().out.splitlines()
    assert any(key in line for line in said)
    assert [line.startswith("next:") for line in said].count(True) == 1
    assert said[-2] == "saved in o"
    command = shlex.split(said[-1])[1:]
    if "--final" in words:
        assert command == ["transfer", "predict", "o/final", "IMAGE..."]
    else:
        assert parse(command[1:]).config.data.data == str(folder)


def test_the_words_of_a_next_command_are_quoted_and_placeholders_are_not():
    assert suggest_next(["predict", Path("a b")], "IMAGE...", ["p q.py"]) == (
        "next: transfer predict 'a b' IMAGE... --plugin 'p q.py'"
    )
