"""Hyperparameter search: a grid, random search, coarse to fine, and Optuna's TPE, with the same number of trials.

With two settings, a grid of 36 trials tries six values of each; random search tries 36. If one setting matters most, as
the learning rate does, the grid depends on one of its six values being good. The best settings of all are trained once
and evaluated on the test images.
"""

from dataclasses import replace
from statistics import fmean

from transfer import SearchConfig, search, train
from transfer.cli.main import script
from transfer.report.console.run_text import run_text
from transfer.report.console.tables import text_table
from transfer.tuning.space import apply_settings

SAMPLERS = {"grid": ("grid", 0.0), "random": ("random", 0.0), "coarse, then fine": ("random", 0.4), "tpe": ("tpe", 0.0)}


def main(config: SearchConfig) -> None:
    results, out = {}, config.train.run.out
    for name, (sampler, fine) in SAMPLERS.items():
        run_out = out / name.replace(", ", "_").replace(" ", "_") if out else None
        train_config = replace(config.train, run=replace(config.train.run, out=run_out))
        results[name] = search(replace(config, sampler=sampler, fine=fine, train=train_config))
    rows = []
    for name, result in results.items():
        values = sorted((trial["val_acc"] for trial in result["trials"]), reverse=True)
        rates = {trial["settings"].get("lr") for trial in result["trials"]}
        seconds = sum(trial["seconds"] for trial in result["trials"])
        best = [f"{values[0]:.4f}", f"{fmean(values[:5]):.4f}"]
        rows.append([name, str(len(values)), str(len(rates)), *best, f"{seconds:.1f}"])
    print("\n" + text_table(["", "trials", "rates", "best val_acc", "mean of the best 5", "seconds"], rows))
    first = max(results, key=lambda name: results[name]["best"]["val_acc"])
    settings = results[first]["best"]["settings"]
    print(f"\nbest settings, trained once and evaluated on the test images: {first}, {settings}")
    final = replace(config.train, run=replace(config.train.run, out=out / "final" if out else None))
    print(run_text(train(apply_settings(final, settings)).result))


if __name__ == "__main__":
    raise SystemExit(script(main, SearchConfig(trials=36)))
