"""Review questions: activation, initialisation, input scaling and batch normalisation, varied one at a time.

The table has the standard deviation of activations and gradients in the first and the last hidden layer before
training, the dead units after it, and the accuracy. Warnings of the training monitor follow. `--out FOLDER` saves the
result and plots the standard deviation by layer.
"""

from course.config import QuestionsConfig
from course.review_study import review_text, run_review_study

from transfer.cli.main import script


def main(config: QuestionsConfig) -> None:
    print("\n" + review_text(run_review_study(config)))


if __name__ == "__main__":
    raise SystemExit(script(main, QuestionsConfig()))
