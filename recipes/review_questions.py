"""The review questions: activation, initialisation, input and batch normalisation, one varied at a time.

For each: how widely activations and gradients spread in the first and the last hidden layer before training, dead units
after it, accuracy, and what the monitor says of the training. `--out FOLDER` keeps it and draws the spread by layer.
"""

from transfer.cli import script
from transfer.scratch.config import QuestionsConfig
from transfer.scratch.questions import answered, questions


def main(config: QuestionsConfig) -> None:
    print("\n" + answered(questions(config)))


if __name__ == "__main__":
    raise SystemExit(script(main, QuestionsConfig()))
