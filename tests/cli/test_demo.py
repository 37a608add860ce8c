import logging
import shlex

import pytest

from transfer.cli.arguments import parse
from transfer.cli.demo import OWN_IMAGES, REPORT, RUNS, demo
from transfer.cli.run_folders import choose_run_folder
from transfer.config.commands import DemoConfig


@pytest.fixture(scope="module")
def accuracy():
    """The demo's table: accuracy of object and domain by backbone and policy. It gives no option without effect."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    log = logging.getLogger("transfer")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    text = demo(DemoConfig())
    log.removeHandler(handler)
    assert lines
    assert not [line for line in lines if "no effect" in line]
    rows = {tuple(words[:2]): words for line in text.splitlines() if len(words := line.split()) > 10}
    return {run: (float(rows[run][2]), float(rows[run][5])) for run in RUNS}


@pytest.mark.slow
def test_transfer_is_clearly_ahead_of_scratch_with_few_labels(accuracy):
    objects = {policy: accuracy["glyphnet", policy][0] for policy in ("linear_probe", "partial:2", "full", "scratch")}
    assert min(objects["linear_probe"], objects["partial:2"], objects["full"]) > objects["scratch"] + 0.1


@pytest.mark.slow
def test_what_the_text_says_of_the_table_is_so(accuracy):
    """Letters help with digits more than photographs do, and photographs with domains more than letters."""
    letters, photographs = accuracy["glyphnet", "linear_probe"], accuracy["tf_efficientnet_lite0", "linear_probe"]
    scratch = accuracy["glyphnet", "scratch"]
    assert letters[0] - 0.1 > photographs[0] > scratch[0] + 0.1
    assert photographs[1] > scratch[1] > accuracy["glyphnet", "full"][1] > letters[1] + 0.05


def test_the_next_commands_parse_and_name_the_folder_that_training_makes():
    config = choose_run_folder(parse(["train", OWN_IMAGES]).config)
    text = REPORT.replace("{folder}", OWN_IMAGES).replace("{run}", str(config.run.out))
    lines = [line.strip().partition("   ")[0] for line in text.partition("Next:")[2].splitlines()]
    configs = {words[1]: parse(words[1:]) for line in lines if (words := shlex.split(line)[:4])[:1] == ["transfer"]}
    assert set(configs) == {"train", "predict", "backbones", "data"}
    assert configs["train"].config.data.data == OWN_IMAGES
    assert configs["predict"].run == config.run.out
