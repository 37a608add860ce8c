"""The baseline of a course: an MLP trained from scratch on pixels, as reported, as measured here, and against transfer.

The course used raw pixels (0 to 255), on which the network collapses; standardised pixels are the first thing to try.
Each of `--rows` is a network with its learning rate, optimizer and epochs; `--epochs 2 --seeds 0` is a quick run.
"""

from course.baseline import course_text, run_course
from course.config import CourseConfig

from transfer.cli.main import script


def main(config: CourseConfig) -> None:
    print("\n" + course_text(run_course(config)))


if __name__ == "__main__":
    raise SystemExit(script(main, CourseConfig()))
