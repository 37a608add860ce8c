import re
import subprocess
import sys
from pathlib import Path

import transfer
from transfer.runtime.device import get_versions
from transfer.runtime.version import VERSION

ROOT = Path(__file__).parents[2]


def test_it_is_a_version_and_the_same_everywhere(capsys):
    from transfer.cli.main import main

    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert transfer.__version__ == VERSION
    assert get_versions()["transfer"] == VERSION
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"transfer {VERSION}\n"


def test_it_stands_in_one_file_of_the_package():
    pattern = rf'= "{re.escape(VERSION)}"'
    places = [
        path for path in (ROOT / "transfer").rglob("*.py") if re.search(pattern, path.read_text(encoding="utf-8"))
    ]
    assert places == [ROOT / "transfer" / "runtime" / "version.py"]


def test_reading_it_imports_nothing_heavy():
    code = "import sys, transfer; transfer.__version__; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).strip() == "False"
