from pathlib import Path

import pytest
import tyro

from transfer.config import commands
from transfer.config.checked import from_dict
from transfer.config.serialise import to_dict
from transfer.errors import TransferError

CONFIGS = [
    kind for name, kind in vars(commands).items() if name.endswith("Config") and kind.__module__ == commands.__name__
]


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_the_command_line_and_the_saved_config_are_one_definition(kind):
    words = {"EvaluateConfig": ["runs/a"], "PredictConfig": ["runs/a", "x.png"], "FetchConfig": ["digits"]}
    words |= {"ReportConfig": ["runs/a"], "UpdateConfig": ["runs/a", "--add", "more"]}
    words["ExportConfig"] = ["runs/a", "--format", "timm"]
    made = tyro.cli(kind, args=words.get(kind.__name__, []))
    assert from_dict(kind, to_dict(made)) == made


def test_several_runs_and_images_are_taken_in_order():
    made = tyro.cli(commands.EvaluateConfig, args=["a", "b", "c"])
    assert (made.run, made.more) == (Path("a"), (Path("b"), Path("c")))
    assert tyro.cli(commands.PredictConfig, args=["a", "x.png", "-"]).images == ("x.png", "-")


def test_labels_need_the_images_that_they_are_of():
    assert commands.EvaluateConfig(Path("a"), data="mine", labels="folders").labels == "folders"
    with pytest.raises(TransferError, match="--labels needs --data"):
        commands.EvaluateConfig(Path("a"), labels="folders")
