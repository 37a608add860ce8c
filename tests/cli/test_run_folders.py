import json
import subprocess
import sys
from pathlib import Path

import pytest

from transfer.cli.arguments import parse
from transfer.cli.main import main
from transfer.cli.run_folders import choose_run_folder, name_run
from transfer.config.commands import AdviseConfig, LrFindConfig, SearchConfig
from transfer.config.serialise import to_dict
from transfer.config.train import CompareConfig, DataConfig, RunConfig, TrainConfig

NAME = "tiny-glyphnet-linear_probe"


def config_of(*words):
    parsed = parse(list(words))
    return getattr(parsed, "config", parsed)


def choose(*words):
    config = choose_run_folder(config_of(*words))
    return (config.run if hasattr(config, "run") and isinstance(config.run, RunConfig) else config.train.run).out


def start_run(folder, *words, finished=False):
    """Write the files of a run of a command line."""
    folder.mkdir(parents=True)
    config = config_of(*words, "--out", str(folder))
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    if finished:
        (folder / "result.json").write_text("{}")


def test_names_say_data_backbone_and_policy_and_are_safe_for_files():
    adapt = ["adapt", "--data", "office31", "--source", "amazon,dslr", "--target", "web cam"]
    assert choose(*adapt) == Path("runs/office31-amazon-dslr-to-web-cam")
    assert choose("train", "a/b c.csv", "--backbone", "torchvision:resnet18") == Path(
        "runs/b-c-torchvision-resnet18-linear_probe"
    )
    tars = DataConfig("https://host/set/train-{000..009}.tar?key=1")
    assert name_run(TrainConfig(tars)) == "train-000..009-tf_efficientnet_lite0-linear_probe"
    for kind, last in ((CompareConfig, "compare"), (SearchConfig, "search"), (LrFindConfig, "lr-find")):
        assert name_run(kind()) == f"digits-tf_efficientnet_lite0-{last}"
    assert name_run(AdviseConfig(backbones=("a", "b"))) == "digits-advised"


def test_an_update_lies_beside_its_run_with_a_number_of_its_own(working_directory):
    def chosen(run, *more):
        return choose_run_folder(config_of("update", run, "--add", "x", *more)).out

    assert chosen("runs/a") == Path("runs/a-updated")
    (working_directory / "runs" / "a-updated").mkdir(parents=True)
    assert chosen("runs/a") == chosen("runs/a-updated") == chosen("runs/a-updated-7") == Path("runs/a-updated-2")
    assert chosen("runs/a", "--overwrite") == Path("runs/a-updated")
    assert chosen("runs/a", "--out", "b") == Path("b")
    assert chosen("runs/a", "--out", "none") is None
    assert chosen("runs/./a/") == Path("runs/a-updated-2")


def test_a_second_run_lies_beside_the_first():
    words = ["train", "tiny", "--backbone", "glyphnet"]
    assert choose(*words) == Path("runs", NAME)
    Path("runs", NAME).mkdir(parents=True)
    assert choose(*words) == Path("runs", f"{NAME}-2")
    Path("runs", f"{NAME}-2").mkdir()
    assert choose(*words) == Path("runs", f"{NAME}-3")
    assert choose(*words, "--overwrite") == Path("runs", NAME)
    assert choose(*words, "--out", "mine") == Path("mine")
    assert choose(*words, "--out=none") is None
    assert choose("advise", "tiny") is None
    assert choose("advise", "tiny", "--backbone", "glyphnet", "--run") == Path("runs/tiny-glyphnet-advised")
    assert RunConfig().out is None


def test_resume_finds_the_newest_unfinished_run_of_the_same_options(capsys):
    words = ["train", "tiny", "--backbone", "glyphnet"]
    start_run(Path("runs", NAME), *words)
    start_run(Path("runs", f"{NAME}-2"), *words, "--lr", "0.5")
    start_run(Path("runs", f"{NAME}-3"), *words, finished=True)
    assert choose(*words, "--resume") == Path("runs", NAME)
    assert choose(*words, "--resume", "--lr", "0.5") == Path("runs", f"{NAME}-2")
    assert main([*words, "--resume", "--lr", "0.7"]) == 2
    error = capsys.readouterr().err
    assert "--resume: no unfinished run of these options" in error
    assert "has another lr: name its folder with --out" in error


def test_two_runs_and_none(capsys, folder, working_directory):
    words = ["train", str(folder), "--backbone", "glyphnet", "--device", "cpu", "--no-report"]
    for _ in range(2):
        assert main(words) == 0
    name = f"{folder.name}-glyphnet-linear_probe"
    assert sorted(path.name for path in Path("runs").iterdir()) == [name, f"{name}-2"]
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == [f"saved in runs/{name}-2", f"next: transfer predict runs/{name}-2 IMAGE..."]
    assert main([*words, "--out", "none"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("nothing is saved (--out none)")
    assert len(list(Path("runs").iterdir())) == 2
    assert not Path("none").exists()


def test_the_next_command_is_quoted_and_names_the_plugin(capsys, folder):
    Path("my plugin.py").touch()
    words = ["train", str(folder), "--backbone", "glyphnet", "--device", "cpu", "--no-report", "--out", "a b"]
    assert main([*words, "--plugin", "my plugin.py"]) == 0
    assert capsys.readouterr().out.endswith("next: transfer predict 'a b' IMAGE... --plugin 'my plugin.py'\n")


@pytest.mark.parametrize("words", [["train", "tiny"], ["train", "--policy", "full", "tiny"], ["train", "--data=tiny"]])
def test_data_is_positional_too(words):
    assert config_of(*words).data.data == "tiny"


def test_positional_data_beside_data_is_refused(capsys):
    assert main(["train", "tiny", "--data", "other"]) == 2
    assert "unexpected argument tiny" in capsys.readouterr().err
    assert main(["train", "tiny", "other"]) == 2
    assert "unexpected argument other" in capsys.readouterr().err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("transfer 0.")


def test_the_first_line_comes_before_torch_is_imported(folder, tmp_path):
    code = (
        "import sys\nclass NoTorch:\n    def find_spec(self, name, *rest):\n"
        "        if name == 'torch':\n            raise SystemExit('torch is next')\n"
        "sys.meta_path.insert(0, NoTorch())\nfrom transfer.cli.main import main\n"
        f"main(['train', {str(folder)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr.strip() == "torch is next"
    assert done.stdout.startswith(f"reading {folder}; backbone tf_efficientnet_lite0; policy linear_probe; run folder ")
