import subprocess
import sys

from transfer.data.left_out import LeftOut


def test_a_file_needs_no_place_and_a_row_names_its_line():
    assert LeftOut("a/notes.txt", "not an image") == ("a/notes.txt", "not an image", "")
    assert LeftOut("a.png", "no file", "labels.csv line 3").where == "labels.csv line 3"


def test_it_is_imported_without_numpy():
    code = "import sys, transfer.data.left_out; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
