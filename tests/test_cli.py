import json
import subprocess
import sys
from pathlib import Path

import pytest

from transfer.cli import COMMANDS, main


def said(capsys, argv, code):
    assert main(argv) == code
    return capsys.readouterr()


@pytest.fixture
def folder(images):
    return Path(str(images.paths[0])).parents[2]


def test_help_names_every_command_and_imports_no_torch():
    code = (
        "import sys\nfrom transfer.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'torch', 'numpy', 'timm'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in COMMANDS)


def test_train_evaluate_and_predict(capsys, folder, tmp_path):
    out = tmp_path / "run"
    small = ["--data", str(folder), "--epochs", "2", "--device", "cpu"]
    text = said(capsys, ["train", *small, "--out", str(out), "--no-refit", "--seed", "1"], 0).out
    assert "bit-identical" in text
    assert "solved: strength object" in text
    assert json.loads((out / "config.json").read_text())["learn"]["refit"] is False
    assert "accuracy" in said(capsys, ["evaluate", str(out)], 0).out
    image = str(folder / "plain" / "red" / "0.png")
    (line,) = said(capsys, ["predict", str(out), image], 0).out.splitlines()
    assert json.loads(line)["path"] == image


def test_the_cache_is_listed_checked_and_cleared(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path))
    argv = ["train", "--data", str(folder), "--device", "cpu"]
    said(capsys, [*argv, "--no-cache"], 0)
    assert not list(tmp_path.rglob("*.rows"))
    said(capsys, argv, 0)
    listed = said(capsys, ["cache"], 0).out
    assert "glyphnet to pooled features" in listed
    assert "inspection" in listed
    assert "all sound" in said(capsys, ["cache", "verify"], 0).out
    segment = max(tmp_path.rglob("*.rows"), key=lambda path: path.stat().st_size)
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    spoilt = said(capsys, ["cache", "verify"], 0).out
    assert str(segment) in spoilt
    assert "1 damaged" in spoilt
    assert "removed" in said(capsys, ["cache", "clear"], 0).out
    assert not list(tmp_path.rglob("*.rows"))


def test_refit_is_a_bare_flag_too(capsys, folder, tmp_path):
    argv = [
        "train",
        "--data",
        str(folder),
        "--epochs",
        "1",
        "--policy",
        "partial:1",
        "--refit",
        "--out",
        str(tmp_path / "run"),
    ]
    assert "refit on train + val" in said(capsys, argv, 0).out


MISTAKES = {
    "unknown set": (["train", "--data", "digit"], "did you mean 'digits'"),
    "unknown policy": (["train", "--policy", "linear_prob"], "did you mean 'linear_probe'"),
    "incomplete policy": (["train", "--policy", "surgical"], "surgical:first"),
    "too many stages": (["train", "--policy", "partial:99"], "glyphnet has 5 stages"),
    "unknown backbone": (["train", "--backbone", "mobilenetv2_10"], "did you mean"),
    "no such weights": (["train", "--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    "no such backbone": (["backbones", "resnet5O"], "did you mean"),
    "no run": (["evaluate", "nowhere"], "no run at nowhere"),
    "no image": (["predict", "nowhere", "x.png"], "no run at nowhere"),
    "bad fraction": (["train", "--test", "1.5"], "--test 1.5: it must be from 0 to below 1"),
    "missing device": (["train", "--device", "mps"], "--device mps"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_and_code_2(capsys, folder, case):
    argv, says = MISTAKES[case]
    if argv[0] == "train" and "--data" not in argv:
        argv = [*argv, "--data", str(folder)]
    captured = said(capsys, argv, 2)
    (line,) = [line for line in captured.err.splitlines() if line.startswith("transfer:")]
    assert says in line
    assert "Traceback" not in captured.err


def test_a_folder_without_images_and_one_where_nothing_can_be_written(capsys, tmp_path, folder):
    assert "no image in" in said(capsys, ["train", "--data", str(tmp_path)], 2).err
    (tmp_path / "file").touch()
    assert (
        "cannot write" in said(capsys, ["train", "--data", str(folder), "--out", str(tmp_path / "file" / "run")], 2).err
    )


def test_bad_arguments_are_code_2():
    with pytest.raises(SystemExit) as end:
        main(["train", "--polici", "full"])
    assert end.value.code == 2


def test_backbones_lists_the_bundled_one(capsys):
    lines = said(capsys, ["backbones", "glyph*"], 0).out.splitlines()
    assert len(lines) == 2
    assert lines[1].split()[0] == "glyphnet"
    assert "bundle" in lines[1]
