"""Class shares that differ: how often they are recognised without target labels, and what `auto` makes of them.

On every pair of domains, classes of the target are thinned out, left out, or unknown to the source. With --auto the
accuracies before and after adapting are measured too.
"""

from studies.class_shares import ShareConfig, cases_text, run_cases

from transfer.adaptation import AdaptConfig, ShiftConfig
from transfer.cli.main import script


def main(config: ShareConfig) -> None:
    print("\n" + cases_text(run_cases(config)))


if __name__ == "__main__":
    raise SystemExit(script(main, ShareConfig(AdaptConfig(ShiftConfig("office31")))))
