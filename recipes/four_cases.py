"""Small or large, similar or different: every policy in every case, and what `transfer advise` says beside the best.

For each case and seed the advice is asked for, from the images that may be learnt from alone; then every policy is
trained, also the advised one, those with a backbone that learns all under the settings of the advice. The first table
has the test accuracies. In the second "best" is, for each seed, the policy that is best on the other seeds, and regret
what advice lost on it; differences have a paired 95 % interval over the test images of all seeds.

The embedded set has two of the cases. The classical four, with folders of these names in TRANSFER_DATA (the small ones
first; some hours on a laptop, and with --resume it goes on where it was stopped):
--cases flowers12,office31/dslr,neu_cls@5,office31/amazon,neu_cls --backbones mobilenetv2_100,torchvision:squeezenet1_1
--policies head2toe,truncate:1,truncate:2,partial:1,partial:2,norm_only,surgical:middle,lp_ft:2,lp_ft,full,gradual
--out runs/four_cases --resume
"""

from studies.cases import cases
from studies.cases_text import by_cell, by_policy

from transfer import RunConfig, TrainConfig
from transfer.cli.main import script
from transfer.config.commands import CasesConfig

QUICK = ("linear_probe", "head2toe", "truncate:1", "partial:1", "lp_ft:2")


def main(config: CasesConfig) -> None:
    result = cases(config)
    print(f"\n{by_policy(result)}\n\n{by_cell(result)}")


if __name__ == "__main__":
    raise SystemExit(script(main, CasesConfig(TrainConfig(run=RunConfig(seeds=(0, 1, 2))), policies=QUICK)))
