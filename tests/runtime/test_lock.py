import subprocess
import sys
from pathlib import Path

import pytest

from transfer.errors import TransferError
from transfer.runtime.lock import FolderLock

HOLD = """
import sys, time
from pathlib import Path
from transfer.runtime.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_another_process_is_refused_until_the_first_one_dies(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(TransferError, match="another process is writing") as refused:
            FolderLock(tmp_path)
        assert "\n" not in str(refused.value)
        other.kill()
    lock = FolderLock(tmp_path)
    lock.release()
    assert not list(tmp_path.iterdir())


def test_this_process_may_hold_it_twice(tmp_path: Path) -> None:
    one, other = FolderLock(tmp_path), FolderLock(tmp_path)
    one.release()
    one.release()
    assert list(tmp_path.iterdir())
    del other
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TransferError, match="cannot write the run folder"):
        FolderLock(tmp_path / "file")
