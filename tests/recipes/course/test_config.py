import subprocess
import sys
from pathlib import Path

import course
import pytest
from course.config import COURSE_DATA, CourseConfig, NetworkConfig, QuestionsConfig, ScratchConfig

from transfer.errors import TransferError


def test_the_course_s_split_of_4110_images() -> None:
    test = round(COURSE_DATA.test * 4110)
    val = round(COURSE_DATA.val * (4110 - test))
    assert (4110 - test - val, val, test) == (3280, 205, 625)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CourseConfig(rows=(0,)), "--rows 0: it must be from 1 to 6"),
        (lambda: CourseConfig(rows=(7,)), "--rows 7"),
        (lambda: CourseConfig(rows=()), "--rows is empty"),
        (lambda: CourseConfig(inputs=("standardized",)), "--inputs 'standardized' .*did you mean 'standardised'"),
        (lambda: QuestionsConfig(networks=("rnn",)), "--networks 'rnn' .*: it must be one of mlp, cnn"),
        (lambda: QuestionsConfig(seeds=()), "--seeds is empty"),
        (lambda: ScratchConfig(lr=0), "--lr 0: it must be above 0"),
        (lambda: ScratchConfig(batch_size=0), "--batch-size 0"),
        (lambda: NetworkConfig(hidden=(8, 0)), "--hidden 0"),
    ],
)
def test_bad_values_are_refused(make, message: str) -> None:
    with pytest.raises(TransferError, match=message):
        make()


def test_it_needs_no_torch() -> None:
    code = "import sys, course.config; sys.exit('torch' in sys.modules)"
    recipes = Path(course.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=recipes).returncode == 0
