import re
import subprocess
import sys
from dataclasses import asdict

import pytest

from transfer.adaptation.registry import METHODS
from transfer.adaptation.selection.validators import VALIDATORS
from transfer.config.adapt import AdaptConfig, MethodConfig, ShiftConfig, StepsConfig
from transfer.config.checked import from_dict
from transfer.config.serialise import to_dict
from transfer.errors import TransferError


@pytest.mark.parametrize(
    ("part", "wrong", "words"),
    [
        (ShiftConfig, {"target_labels": -1}, "--target-labels -1"),
        (ShiftConfig, {"val": 1.0}, "--val 1.0"),
        (ShiftConfig, {"test": 0.0}, "--test 0.0"),
        (ShiftConfig, {"test": 1.0}, "--test 1.0"),
        (StepsConfig, {"lr": 0.0}, "--lr 0.0"),
        (StepsConfig, {"lr": float("nan")}, "--lr nan"),
        (StepsConfig, {"epochs": 0}, "--epochs 0"),
        (StepsConfig, {"steps": 0}, "--steps 0"),
        (StepsConfig, {"batch_size": 1}, "--batch-size 1"),
        (StepsConfig, {"momentum": 1.0}, "--momentum 1.0"),
        (StepsConfig, {"clip": -1.0}, "--clip -1.0"),
        (StepsConfig, {"workers": 0}, "--workers 0"),
        (MethodConfig, {"bottleneck": 0}, "--bottleneck 0"),
        (MethodConfig, {"bottleneck": -4}, "--bottleneck -4"),
        (MethodConfig, {"weight": (1.0, -1.0)}, "--weight"),
        (MethodConfig, {"weight": (float("nan"),)}, "--weight"),
        (MethodConfig, {"method": ()}, "--method"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(part, wrong, words):
    with pytest.raises(TransferError, match=words):
        part(**wrong)


def test_a_saved_config_comes_back():
    config = AdaptConfig(
        ShiftConfig("office31", ("amazon", "dslr"), "webcam", target_labels=3),
        MethodConfig(("mcc", "shot"), weight=(0.5, 1.0), policy="partial:2"),
        steps=StepsConfig(lr=0.01),
    )
    assert from_dict(AdaptConfig, to_dict(config)) == config
    assert asdict(config)["method"]["weight"] == (0.5, 1.0)


def test_the_help_names_every_method_and_rule_and_imports_no_torch():
    code = (
        "import sys\nfrom transfer.cli.main import main\n"
        "try:\n    main(['adapt', '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    words = set(re.findall(r"\w+", done.stdout))
    assert set(METHODS) <= words
    assert {"auto", *VALIDATORS} <= words
