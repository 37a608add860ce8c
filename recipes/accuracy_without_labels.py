"""Accuracy without labels: how far is the expected accuracy from the measured one, and does the interval hold?

A model of each domain is evaluated on the other domains and on its own test images: all of them, 20 and 50. Of several
backbones, such as --backbone mobilenetv2_100,tf_efficientnet_lite0, the ensemble is evaluated.
Errors are in points; the last table has those of single estimates, the mean over other domains.
"""

from collections import defaultdict
from dataclasses import replace
from statistics import fmean

from studies.accuracy_without_labels import METHODS, EvaluatedPair, evaluate_pairs, summarise

from transfer import RunConfig, TrainConfig
from transfer.cli.main import script
from transfer.config.train import DataConfig
from transfer.feature_cache import TrunkCache
from transfer.report.console.tables import text_table


def main(config: TrainConfig) -> None:
    """Print a line for each pair of domains, and the means."""
    seeds = config.run.seeds or (config.run.seed,)
    found: dict[str, list[EvaluatedPair]] = defaultdict(list)
    for each in evaluate_pairs(replace(config, run=RunConfig(out=None)), TrunkCache(config.cache), seeds):
        found[each.target if each.own else f"{each.source} -> {each.target}"].append(each)
    everything = [each for pairs in found.values() for each in pairs]
    pairs = [each for each in everything if not each.own]
    whole = [each for each in everything if each.own and each.target.endswith(" test")]
    rows = [summarise(name, pairs) for name, pairs in found.items()]
    rows += [summarise(name, group) for name, group in (("all pairs", pairs), ("all tests", whole)) if group]
    print("\n" + text_table(["object", "measured", "expected", "error", "±", "holds", "alarm", "n"], rows))
    if pairs:
        errors = [[name, f"{fmean(each.error(name) for each in pairs):.1f}"] for name in METHODS]
        print("\n" + text_table(["object, estimate", "error"], errors))
        dropped = [each for each in pairs if each.expected.held_out - each.measured > 0.05]
        raised = sum(each.expected.alarm for each in dropped)
        print(f"\nalarm in {raised} of {len(dropped)} pairs whose accuracy is more than 5 points lower")


if __name__ == "__main__":
    raise SystemExit(script(main, TrainConfig(DataConfig("digits"), run=RunConfig(seeds=(0, 1, 2, 3, 4)))))
