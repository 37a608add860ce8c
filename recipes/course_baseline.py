"""The baseline of the course: an MLP on pixels from scratch, as reported, as measured here, and beside transfer.

Raw pixels (0 to 255) are the course's and show its collapse; standardised ones are what it should have tried first.
Each row of `--rows` is a network with its rate, optimizer and epochs; `--epochs 2 --seeds 0` is a first look.
"""

from course.baseline import beside, course
from course.config import CourseConfig

from transfer.cli.main import script


def main(config: CourseConfig) -> None:
    print("\n" + beside(course(config)))


if __name__ == "__main__":
    raise SystemExit(script(main, CourseConfig()))
