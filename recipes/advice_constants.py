"""Advice on networks and sets it was not fitted to: its regret, its intervals, and how its constants matter.

What the advice expects of fine-tuning is fitted to measured means, each network and set left out in turn. With --runs,
the advice is given again from the evidence in those folders of the four-cases study, under each constant at half and
at double its value; nothing is trained:
python recipes/four_cases.py --cases flowers12,neu_cls@5 --backbones glyphnet --seeds 0,1,2 --out runs/glyphnet
python recipes/advice_constants.py --runs runs/glyphnet
"""

from studies.advice_constants import AdviceConstantsConfig, advice_constants_text

from transfer.cli.main import script


def main(config: AdviceConstantsConfig) -> None:
    print("\n" + advice_constants_text(config))


if __name__ == "__main__":
    raise SystemExit(script(main, AdviceConstantsConfig()))
