"""The sdist and the wheel built from it: every module and data file of the package is in them, and nothing else."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from transfer import __version__

ROOT = Path(__file__).parents[1]
PARTS = ("pyproject.toml", "README.md", "LICENSE")
# Descriptions for readers of the repository stay there; this one has the origin and licence of the weights beside it.
WITH_WEIGHTS = "transfer/backbones/providers/glyphnet/README.md"


def package_files() -> dict[str, bytes]:
    """The package's files that an installation needs, by path below the repository."""
    found = {}
    for path in (ROOT / "transfer").rglob("*"):
        name = path.relative_to(ROOT).as_posix()
        if path.is_file() and "__pycache__" not in name and (path.suffix != ".md" or name == WITH_WEIGHTS):
            found[name] = path.read_bytes()
    return found


def read_extras() -> dict[str, list[str]]:
    """Return the requirements of each extra, as pyproject.toml declares them."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist of a copy of the package, and the wheel built from the sdist."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "transfer", copy / "transfer", ignore=shutil.ignore_patterns("__pycache__"))
    for part in PARTS:
        shutil.copy(ROOT / part, copy)
    (copy / "tests").mkdir()  # tests are not distributed
    (copy / "tests" / "test_nothing.py").touch()
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=copy)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return copy / "dist"


def test_wheel_has_the_package_and_its_data(built):
    expected = package_files()
    assert {".csv", ".sha256", ".html", ".css", ".safetensors", ".json"} < {Path(name).suffix for name in expected}
    with zipfile.ZipFile(built / f"transfer_toolkit-{__version__}-py3-none-any.whl") as wheel:
        inside = {name: wheel.read(name) for name in wheel.namelist() if ".dist-info/" not in name}
    assert sorted(inside) == sorted(expected)
    assert inside == expected


def test_wheel_describes_itself(built):
    folder = f"transfer_toolkit-{__version__}.dist-info"
    with zipfile.ZipFile(built / f"transfer_toolkit-{__version__}-py3-none-any.whl") as wheel:
        about = Parser().parsestr(wheel.read(f"{folder}/METADATA").decode())
        scripts = wheel.read(f"{folder}/entry_points.txt").decode()
        assert wheel.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert (about["Name"], about["Version"], about["License-Expression"]) == ("transfer-toolkit", __version__, "MIT")
    assert "transfer = transfer.cli.main:run" in scripts
    required = about.get_all("Requires-Dist")
    assert not [line for line in required if re.match(r"transfer\b(?!-toolkit\[)", line)]
    # The dev extra names other extras of this distribution, which a wheel may list resolved.
    declared = [line for lines in read_extras().values() for line in lines if line.startswith("transfer")]
    assert declared
    assert all(line.startswith("transfer-toolkit[") for line in declared)
    assert [line for line in required if line.startswith(("onnx", "transfer-toolkit[")) and "dev" in line]


def test_sdist_has_no_tests(built):
    with tarfile.open(built / f"transfer_toolkit-{__version__}.tar.gz") as sdist:
        names = [name.partition("/")[2] for name in sdist.getnames()]
    assert set(PARTS) | set(package_files()) <= set(names)
    assert not [name for name in names if name.startswith("tests")]


def test_texts_name_the_distribution_and_its_extras():
    """PyPI's ``transfer`` is somebody else's program, so no text may send a reader there."""
    extras = read_extras()
    sources = [path for room in ("transfer", "recipes") for path in (ROOT / room).rglob("*.py")]
    files = [*sources, *ROOT.rglob("*.md"), *ROOT.glob("notebooks/*.ipynb"), *(ROOT / ".ci").iterdir()]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files if path.is_file())
    assert not re.findall(r"pip install [^\n`&]*\btransfer(?:\[| |$)", text, re.MULTILINE)
    named = set(re.findall(r"transfer-toolkit\[(\w+)\]", text))
    assert named
    assert named <= set(extras)
