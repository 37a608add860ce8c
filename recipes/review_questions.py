"""The review questions: activation, initialisation, input and batch normalisation, one varied at a time.

For each: how widely activations and gradients spread in the first and the last hidden layer before training, dead units
after it, accuracy, and what the monitor says of the training. `--out FOLDER` keeps it and draws the spread by layer.
"""

from course.config import QuestionsConfig
from course.review_study import answered, questions

from transfer.cli.main import script


def main(config: QuestionsConfig) -> None:
    print("\n" + answered(questions(config)))


if __name__ == "__main__":
    raise SystemExit(script(main, QuestionsConfig()))
