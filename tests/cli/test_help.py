import re
import subprocess
import sys
from dataclasses import dataclass

import pytest

from transfer.adaptation.registry import METHODS
from transfer.cli.commands import COMMANDS
from transfer.cli.help import _groups, print_help
from transfer.cli.main import main, script
from transfer.config.commands import DemoConfig, SearchConfig
from transfer.config.shared import Advanced, OptimConfig
from transfer.freeze.policy import POLICIES


def shown(capsys, *argv):
    with pytest.raises(SystemExit) as end:
        main(list(argv))
    assert end.value.code == 0
    return capsys.readouterr().out


def options(text):
    return set(re.findall(r"^[ │]{1,3}(?:-h, )?(--[a-z][a-z0-9-]*)", text, re.MULTILINE))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_both_helps(capsys, name):
    short, whole = options(shown(capsys, name, "--help")), options(shown(capsys, name, "--help-all"))
    assert {"--help", "--help-all", "--plugin"} <= short <= whole


def test_the_help_of_train_is_short_and_grouped(capsys):
    text = shown(capsys, "train", "--help")
    assert 25 <= len(options(text)) <= 35
    for title in ("Data", "Backbone", "Head", "Freezing", "Training", "Output", "Cache"):
        assert f" {title} options " in text
    assert "--ema-decay" not in text
    assert "more options: --help-all" in text
    whole = shown(capsys, "train", "--help-all")
    assert {"--ema-decay", "--l2-sp", "--test-crops", "--split-seed"} <= options(whole)
    assert "more options" not in whole


def test_names_come_from_the_registries(capsys):
    assert set(POLICIES) <= set(re.findall(r"\w+", shown(capsys, "train", "--help")))
    assert set(METHODS) <= set(re.findall(r"\w+", shown(capsys, "adapt", "--help")))
    assert "(Li et al." in shown(capsys, "adapt", "--help-all")


@pytest.mark.parametrize("kind", dict.fromkeys(kind for kind, _ in COMMANDS.values()), ids=lambda kind: kind.__name__)
def test_every_option_has_a_text(kind):
    for _, about, found in _groups(kind, None, ""):
        assert about
        assert all(option.help.endswith((".", ")")) for option in found), [option.name for option in found]


def test_a_subclass_changes_a_default_and_inherits_the_text(capsys):
    @dataclass(frozen=True)
    class Slow(OptimConfig):
        """Train slowly."""

        lr: float = 1e-5
        mine: Advanced[int] = 3
        """An option of this class."""

    with pytest.raises(SystemExit):
        print_help(Slow, "prog", show_all=False)
    text = capsys.readouterr().out
    assert re.search(r"--lr FLOAT\s+Learning rate of the heads. \(default: 1e-05\)", text)
    assert "--mine" not in text


def test_defaults_are_those_of_the_command_and_of_the_recipe(capsys):
    assert re.search(r"--epochs INT[^(]*\(default: 9\)", shown(capsys, "search", "--help"))
    assert SearchConfig().train.learn.epochs == 9
    with pytest.raises(SystemExit) as end:
        script(lambda config: None, DemoConfig(seed=7), ["--help"])
    assert end.value.code == 0
    assert "(default: 7)" in capsys.readouterr().out


def test_help_is_fast_to_load():
    code = "import sys\nfrom transfer.cli.main import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'sklearn'} & set(sys.modules)"
    for words in (["--help"], ["train", "--help-all"], ["adapt", "--help"]):
        subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)
