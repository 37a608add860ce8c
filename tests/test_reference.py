"""Reference pages: every public module and every public name, docstrings rendered, nothing private."""

import re
import sys
from pathlib import Path

import pytest
import reference

import transfer
from transfer.errors import TransferError


@pytest.fixture
def exported(monkeypatch):
    """What packages export, put back afterwards."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "transfer" and hasattr(module, "__all__"):
            monkeypatch.setattr(module, "__all__", module.__all__)


def test_all_public_modules(exported):
    root = Path(transfer.__file__).parent
    files = {path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py")}
    names = {".".join(path.parts).removesuffix(".__init__") for path in files}
    assert {module.__name__ for module in reference.modules()} == names - {"transfer.__main__"}
    assert {"train", "DataConfig", "adapt", "report"} <= set(transfer.__all__)


def test_pages(exported, tmp_path, monkeypatch):
    """Of one small package, for the time that all take: numpydoc's sections become headings."""
    pytest.importorskip("pdoc")
    assert reference.write(tmp_path, "transfer.runtime").is_file()
    page = (tmp_path / "transfer" / "runtime" / "lock.html").read_text(encoding="utf-8")
    assert re.search(r"<h6[^>]*>Parameters</h6>", page)
    assert "----------" not in page


def test_without_pdoc(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pdoc", None)
    with pytest.raises(TransferError, match=r"pip install .*transfer-toolkit\[dev\]"):
        reference.write(tmp_path)
