"""Search: a grid, random draws, coarse then fine, and Optuna's TPE, each with as many trials.

Of two settings a grid of 36 trials tries six values each. Where one of the two matters most, as the learning rate
does, it is luck whether a good one is among six; random draws try 36. The best of all is trained once and tested.
"""

from dataclasses import replace
from statistics import fmean

from transfer import SearchConfig, search, train
from transfer.cli.main import script
from transfer.report.text import run_text, text_table
from transfer.tuning.space import apply_settings

WAYS = {"grid": ("grid", 0.0), "random": ("random", 0.0), "coarse, then fine": ("random", 0.4), "tpe": ("tpe", 0.0)}


def main(config: SearchConfig) -> None:
    found, out = {}, config.train.run.out
    for name, (sampler, fine) in WAYS.items():
        place = out / name.replace(", ", "_").replace(" ", "_") if out else None
        inner = replace(config.train, run=replace(config.train.run, out=place))
        found[name] = search(replace(config, sampler=sampler, fine=fine, train=inner))
    rows = []
    for name, result in found.items():
        values = sorted((trial["val_acc"] for trial in result["trials"]), reverse=True)
        rates = {trial["settings"].get("lr") for trial in result["trials"]}
        seconds = sum(trial["seconds"] for trial in result["trials"])
        best = [f"{values[0]:.4f}", f"{fmean(values[:5]):.4f}"]
        rows.append([name, str(len(values)), str(len(rates)), *best, f"{seconds:.1f}"])
    print("\n" + text_table(["", "trials", "rates", "best val_acc", "mean of the best 5", "seconds"], rows))
    first = max(found, key=lambda name: found[name]["best"]["val_acc"])
    settings = found[first]["best"]["settings"]
    print(f"\nbest of all, trained once and tested: {first}, {settings}")
    last = replace(config.train, run=replace(config.train.run, out=out / "final" if out else None))
    print(run_text(train(apply_settings(last, settings)).result))


if __name__ == "__main__":
    raise SystemExit(script(main, SearchConfig(trials=36)))
