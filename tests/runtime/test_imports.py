import gc
import subprocess
import sys

import pytest

from transfer.runtime.imports import import_quickly


def test_no_garbage_is_collected_within_the_block_alone(monkeypatch):
    froze = []
    monkeypatch.setattr(gc, "freeze", lambda: froze.append(gc.isenabled()))
    with import_quickly():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert froze == [False]


def test_an_error_leaves_the_collector_as_it_was():
    with pytest.raises(ImportError), import_quickly():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with import_quickly():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_compiler_is_deferred():
    code = (
        "import sys\nfrom transfer.runtime.imports import import_quickly\n"
        "with import_quickly():\n    import torch\n    torch.compiler.disable(print)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
