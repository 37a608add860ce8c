import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from transfer.cli.main import COMMANDS, main, script
from transfer.config.commands import DemoConfig
from transfer.config.train import CompareConfig, TrainConfig

SMALL = ["--backbone", "glyphnet", "--device", "cpu"]
ADAPT = ["adapt", "--source", "plain", "--target", "striped"]


def said(capsys, argv, code):
    assert main(argv) == code
    return capsys.readouterr()


def test_help_names_every_command_and_imports_no_torch():
    code = (
        "import sys\nfrom transfer.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'torch', 'numpy', 'timm'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in (*COMMANDS, "--plugin"))


def test_train_evaluate_and_predict(capsys, folder, tmp_path):
    out = tmp_path / "run"
    small = ["--data", str(folder), "--epochs", "2", *SMALL]
    text = said(capsys, ["train", *small, "--out", str(out), "--no-refit", "--seed", "1"], 0).out
    assert "bit-identical" in text
    assert "solved to the final tolerance: L2 object" in text
    assert re.search(r"^heads +solved$", text, re.MULTILINE)
    assert "--epochs: no effect, because the heads are solved by L-BFGS, not trained\n" in text
    assert json.loads((out / "config.json").read_text())["learn"]["refit"] is False
    assert "accuracy" in said(capsys, ["evaluate", str(out)], 0).out
    image = str(folder / "plain" / "red" / "0.png")
    (line,) = said(capsys, ["predict", str(out), image], 0).out.splitlines()
    assert json.loads(line)["path"] == image


def test_lines_come_once_where_a_package_configures_logging(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "logging.root.handlers", [logging.StreamHandler(sys.stderr)]
    )  # as onnxruntime.quantization does
    done = said(capsys, ["data", "digits"], 0)
    assert (done.out + done.err).count("next: transfer train digits") == 1
    assert logging.getLogger("transfer").propagate


def test_search_goes_on_where_it_stopped_and_lr_find_suggests(capsys, folder, tmp_path):
    few = ["--data", str(folder), "--epochs", "2", *SMALL]
    argv = ["search", *few, "--trials", "3", "--space", "lr=1e-3:1e-1", "optimizer=sgd,adamw"]
    argv += ["--out", str(tmp_path / "search")]
    text = said(capsys, argv, 0).out
    assert text.count("(0 / 3)\n") == text.count("(2 / 3)\n") == 1
    assert "no test image was used" in text
    assert (tmp_path / "search" / "landscape.png").read_bytes().startswith(b"\x89PNG")
    again = said(capsys, [*argv, "--resume", "--final"], 0).out
    assert "/ 3)" not in again
    assert "balanced" in again
    assert "did you mean 'lr'" in said(capsys, ["search", *few, "--space", "lrr=1:2"], 2).err
    find = ["lr-find", *few, "--steps", "20", "--out", str(tmp_path / "rates")]
    assert "suggested: --lr " in said(capsys, find, 0).out
    assert (tmp_path / "rates" / "rates.png").read_bytes().startswith(b"\x89PNG")


def test_adapt_evaluate_and_predict(capsys, folder, tmp_path):
    out = tmp_path / "run"
    few = ["--data", str(folder), "--epochs", "2", "--steps", "4", *SMALL]
    text = said(capsys, [*ADAPT, *few, "--method", "source_only,mcc", "--weight", "0.5,1", "--out", str(out)], 0).out
    assert "plain -> striped (transductive)" in text
    assert "chosen without target labels (--rule auto): method " in text
    assert "mcc x 0.5, epoch 2" in text
    assert json.loads((out / "config.json").read_text())["method"]["weight"] == [0.5, 1.0]
    assert "accuracy" in said(capsys, ["evaluate", str(out)], 0).out
    (line,) = said(capsys, ["predict", str(out), str(folder / "striped" / "red" / "0.png")], 0).out.splitlines()
    assert json.loads(line)["object"] in ("blue", "green", "red")


def test_a_run_leaves_its_page_and_several_are_compared(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = ["--data", str(folder), *SMALL, "--epochs", "2"]
    told = said(capsys, ["train", *few, "--out", "a"], 0).out
    assert f"page: {Path('a') / 'report.html'}" in told
    said(capsys, ["train", *few, "--policy", "partial:1", "--no-report", "--out", "b"], 0)
    assert not any((tmp_path / "b" / name).exists() for name in ("report.html", "exhibits.json"))
    (tmp_path / "a" / "report.html").unlink()
    assert said(capsys, ["report", "a"], 0).out == f"{Path('a') / 'report.html'}\n"
    assert "Grad-CAM" in (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert said(capsys, ["report", "a", "b"], 0).out == "compare.html\n"
    assert "no result.json" in said(capsys, ["report", "nowhere"], 2).err
    said(capsys, ["train", *few, "--overwrite", "--out", "a"], 0)


def test_a_run_that_was_stopped_leaves_its_page_too(capsys, folder, tmp_path):
    out = tmp_path / "run"
    few = ["--data", str(folder), *SMALL, "--policy", "full", "--optimizer", "sgd", "--clip", "0"]
    assert "try a lower --lr" in said(capsys, ["train", *few, "--lr", "1e30", "--out", str(out)], 2).err
    assert "Stopped early:" in (out / "report.html").read_text(encoding="utf-8")


def test_json_is_the_result_alone(capsys, folder, tmp_path):
    few = ["--data", str(folder), "--epochs", "1", *SMALL, "--json"]
    out = tmp_path / "run"
    captured = said(capsys, ["train", *few, "--out", str(out)], 0)
    assert json.loads(captured.out) == json.loads((out / "result.json").read_text())
    assert "saved in" in captured.err
    found = json.loads(said(capsys, ["evaluate", str(out), "--json"], 0).out)
    assert found["command"] == "evaluate"
    argv = [*ADAPT, *few, "--steps", "2", "--method", "source_only"]
    assert json.loads(said(capsys, argv, 0).out)["selection"]["chosen"] == "source_only"
    both = json.loads(said(capsys, ["compare", *few, "--policies", "linear_probe,partial:1"], 0).out)
    assert list(both["runs"]) == ["linear_probe", "partial:1"]


def test_compare_writes_a_page_of_all_and_one_of_each(capsys, folder, tmp_path):
    out = tmp_path / "runs"
    few = ["--data", str(folder), "--epochs", "1", *SMALL, "--policies", "linear_probe,partial:1"]
    said(capsys, ["compare", *few, "--out", str(out)], 0)
    page = (out / "report.html").read_text(encoding="utf-8")
    for name in ("linear_probe", "partial-1"):
        assert f'href="{name}/report.html"' in page
        assert (out / name / "report.html").is_file()


def test_tensorboard_wants_a_folder(capsys, folder):
    argv = ["train", "--data", str(folder), "--tensorboard", "--out", "none"]
    assert "add --out" in said(capsys, argv, 2).err


def test_the_cache_is_listed_checked_and_cleared(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path))
    argv = ["train", "--data", str(folder), *SMALL]
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


MISTAKES = {
    "unknown set": (["train", "--data", "digit"], "did you mean 'digits'"),
    "an option of other commands": (["predict", "runs/x", "--json"], "unknown option --json; see"),
    "unknown policy": (["train", "--policy", "linear_prob"], "did you mean 'linear_probe'"),
    "incomplete policy": (["train", "--policy", "surgical"], "surgical:first"),
    "too many stages": (["train", *SMALL, "--policy", "partial:99"], "glyphnet has 5 stages"),
    "unknown backbone": (["train", "--backbone", "mobilenetv2_10"], "did you mean"),
    "no such weights": (["train", "--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    "no such backbone": (["backbones", "resnet5O"], "did you mean"),
    "no run": (["evaluate", "nowhere"], "no run at nowhere"),
    "no image": (["predict", "nowhere", "x.png"], "no run at nowhere"),
    "bad fraction": (["train", "--test", "1.5"], "--test 1.5: it must be from 0 to below 1"),
    "missing device": (["train", "--device", "mps"], "--device mps"),
    "unknown method": ([*ADAPT, "--method", "shott"], "did you mean 'shot'"),
    "one unknown of several methods": ([*ADAPT, "--method", "mcc,dan_n"], "unknown method 'dan_n'"),
    "no method": ([*ADAPT, "--method", ""], "--method is empty"),
    "unknown rule": ([*ADAPT, "--rule", "entropi"], "did you mean 'entropy'"),
    "unknown source": (["adapt", "--source", "plane", "--target", "striped"], "did you mean 'plain'"),
    "unknown target": (["adapt", "--source", "plain", "--target", "stripes"], "did you mean 'striped'"),
    "target is the source": (["adapt", "--source", "plain,striped", "--target", "striped"], "striped is a source too"),
    "no source": (["adapt", "--target", "striped"], "--source is missing: "),
    "no target": (["adapt", "--source", "plain"], "--target is missing: "),
    "policy of two phases": ([*ADAPT, "--policy", "lp_ft"], "one phase"),
    "nothing to judge by": ([*ADAPT, "--rule", "dev", "--val", "0"], "use --val 0.1"),
    "statistics without a tail": ([*ADAPT, "--method", "adabn"], "--policy partial:2"),
    "all of the target labelled": ([*ADAPT, "--target-labels", "8"], "none left to adapt to"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_and_code_2(capsys, folder, case):
    argv, says = MISTAKES[case]
    if argv[0] in ("train", "adapt"):
        argv = [*argv, *([] if "--data" in argv else ["--data", str(folder)])]
        argv = [*argv, *([] if "--backbone" in argv else ["--backbone", "glyphnet"])]
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


def test_a_recipe_refuses_an_unknown_option(capsys):
    assert script(lambda config: None, DemoConfig(), ["--sead", "3"]) == 2
    assert "unknown option --sead (did you mean '--seed'?)" in capsys.readouterr().err


def test_backbones_lists_the_bundled_one(capsys):
    lines = said(capsys, ["backbones", "glyph*"], 0).out.splitlines()
    assert len(lines) == 2
    assert lines[1].split()[0] == "glyphnet"
    assert "MIT           bundle (pretrained on rendered letters, not ImageNet)" in lines[1]


def test_backbones_lists_a_few_without_a_pattern_and_all_with_a_star(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path))
    monkeypatch.setattr("transfer.backbones.measured_rates.measure_rate", lambda name, device: 30.0)
    lines = said(capsys, ["backbones"], 0).out.splitlines()
    names = [line.split()[0] for line in lines]
    assert names[:2] == ["backbone", "tf_efficientnet_lite0"]
    assert {"glyphnet", "convnext_tiny.dinov3_lvd1689m", "convnext_base.clip_laion2b"} < set(names)
    assert 15 <= len(names) < 25
    assert len(said(capsys, ["backbones", "*"], 0).out.splitlines()) > 500


def test_a_plugin_is_loaded_before_the_command_is_parsed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("first_plugin", "second_plugin"):
        (tmp_path / f"{name}.py").write_text(f"print('loaded {name}')\n")
    argv = ["--plugin", "first_plugin", "backbones", "glyphnet", "--plugin=second_plugin.py"]
    lines = said(capsys, argv, 0).out.splitlines()
    assert lines[:2] == ["loaded first_plugin", "loaded second_plugin"]
    assert lines[-1].startswith("glyphnet")
    del sys.modules["first_plugin"], sys.modules["second_plugin"]


def test_a_recipe_loads_plugins_too(capsys, tmp_path, monkeypatch):
    (tmp_path / "third_plugin.py").write_text("print('loaded')\n")
    path = str(tmp_path / "third_plugin.py")
    assert script(lambda config: print(config.seed), DemoConfig(), ["--seed", "3", "--plugin", path]) == 0
    assert capsys.readouterr().out.splitlines() == ["loaded", "3"]
    assert script(lambda config: print(config.train.run.plugin), CompareConfig(), ["--plugin", path]) == 0
    assert capsys.readouterr().out == f"{(path,)}\n"
    del sys.modules["third_plugin"]


@pytest.mark.parametrize(
    ("words", "backbone"),
    [
        ([], "glyphnet"),
        (["--data", "digits", "--image-size", "48"], "glyphnet"),
        (["--backbone", "tf_efficientnet_lite0"], "tf_efficientnet_lite0"),
        (["--backbone=resnet18"], "resnet18"),
        (["--data", "my_images"], TrainConfig().backbone.backbone),
    ],
)
def test_a_recipe_names_a_small_backbone_for_the_digits(words, backbone):
    seen = []
    assert script(lambda config: seen.append(config.backbone), TrainConfig(), words, digits="glyphnet") == 0
    assert script(lambda config: seen.append(config.train.backbone), CompareConfig(), words, digits="glyphnet") == 0
    assert [found.backbone for found in seen] == [backbone, backbone]
    assert {found.image_size for found in seen} == {48 if "--image-size" in words else None}


@pytest.mark.parametrize("words", [["--plugin"], ["--plugin="], ["--plugin", "--data"], ["--plugin", "no_such_plugin"]])
def test_a_plugin_that_is_not_there_is_one_line(capsys, words):
    assert said(capsys, ["backbones", *words], 2).err.startswith("transfer: --plugin")
