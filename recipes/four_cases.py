"""The four cases: small or large, similar or different. Is the policy that `transfer advise` chooses the best one?

For each case and seed, the advice is computed from the training and validation images alone. Then every policy is
trained, and so is the advised one; those that train the backbone all use the settings of the advice. The first table
has the test accuracies. In the second, "best" is for each seed the policy that is best on the other seeds, and regret
is the accuracy that the advised policy loses against it. Differences have a paired 95 % interval over the test images
of all seeds.

The bundled set has two of the cases. For the classical four, put folders of these names in TRANSFER_DATA (small ones
first; some hours on a laptop; --resume continues an interrupted run):
--cases flowers12,office31/dslr,neu_cls@5,office31/amazon,neu_cls --backbones mobilenetv2_100,torchvision:squeezenet1_1
--policies head2toe,truncate:1,truncate:2,partial:1,partial:2,norm_only,surgical:middle,lp_ft:2,lp_ft,full,gradual
--out runs/four_cases --resume
"""

from studies.four_cases_study import FourCasesConfig, run_four_cases
from studies.four_cases_text import cells_text, policies_text

from transfer import RunConfig, TrainConfig
from transfer.cli.main import script

QUICK = ("linear_probe", "head2toe", "truncate:1", "partial:1", "lp_ft:2")


def main(config: FourCasesConfig) -> None:
    result = run_four_cases(config)
    print(f"\n{policies_text(result)}\n\n{cells_text(result)}")


if __name__ == "__main__":
    raise SystemExit(
        script(main, FourCasesConfig(TrainConfig(run=RunConfig(seeds=(0, 1, 2))), policies=QUICK), digits="glyphnet")
    )
