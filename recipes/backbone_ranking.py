"""Which backbone: does advice order backbones as the test accuracy of a linear probe does?

Kendall's tau-b and the regret of the first choice, for the order that `transfer advise --backbones` gives, for single
measurements that it makes, and for two orders that need no images: number of parameters, and accuracy on ImageNet (a
network without one comes last). Advice sees no test image.
"""

from studies.backbone_ranking import RankingConfig, ranking_text, run_backbone_ranking

from transfer.cli.main import script


def main(config: RankingConfig) -> None:
    records = run_backbone_ranking(config)
    for names in filter(None, (config.backbones, config.among)):
        print("\n" + ranking_text(records, names))


if __name__ == "__main__":
    raise SystemExit(script(main, RankingConfig()))
