"""Regularisation: how much does each method add with few training images?

Three labels per object and domain of Office-31; the last three stages are trained. CutMix needs --policy full.
"""

from dataclasses import replace
from statistics import fmean

from transfer import DataConfig, LearnConfig, PolicyConfig, TrainConfig, TransferError, train
from transfer.cli.main import script
from transfer.feature_cache import TrunkCache
from transfer.report.console.tables import text_table
from transfer.training.setup import read_images

LEARN = {"no smoothing": {"label_smoothing": 0.0}, "decay 0.1": {"weight_decay": 0.1}, "hinge": {"loss": "hinge"}}
LEARN |= {f"augment {kind}": {"augment": kind} for kind in ("flip", "crop", "colour", "pca", "scale")}
HEADS = {"dropout": {"dropout": 0.5}, "vanilla dropout": {"dropout": 0.5, "dropout_kind": "vanilla"}}
HEADS["DropConnect"] = {"drop_connect": 0.5}
MORE = {"L1": {"l1": 1e-4}, "L2": {"l2": 1e-2}, "elastic net": {"l1": 1e-4, "l2": 1e-2}, "mixup": {"mixup": 0.2}}
MORE |= {"CutMix": {"cutmix": 1.0}, "stochastic depth": {"stochastic_depth": 0.2}, "L2-SP": {"l2_sp": 0.1}}
MORE |= {"DELTA": {"delta": 0.01}, "BSS": {"bss": 1e-3}, "Co-Tuning": {"co_tuning": 2.3}}


def main(config: TrainConfig) -> None:
    cache, learn, scores, rows = TrunkCache(config.cache), config.learn, {}, []
    images = read_images(config.data, cache.disk_cache)
    seeds = [replace(config.run, seed=seed, seeds=(), out=None) for seed in config.run.seeds or (config.run.seed,)]
    runs = {"plain": config, "equal rates": replace(config, policy=replace(config.policy, layer_decay=1.0))}
    runs |= {name: replace(config, learn=replace(learn, **new)) for name, new in LEARN.items()}
    runs |= {name: replace(config, heads=replace(config.heads, **new)) for name, new in HEADS.items()}
    for name, new in MORE.items():
        runs[name] = replace(config, learn=replace(learn, regularise=replace(learn.regularise, **new)))
    for name, run_config in runs.items():
        print(f"\n{name}")
        try:
            results = [train(replace(run_config, run=run), images=images, cache=cache).result for run in seeds]
        except TransferError as error:
            if not rows:
                raise
            rows.append([name, "", str(error).partition(";")[0]])
            continue
        scores[name] = [result["test"]["object"]["accuracy"] for result in results]
        gains = [a - b for a, b in zip(scores[name], scores["plain"], strict=True)]
        rows.append([name, f"{fmean(scores[name]):.3f}", " ".join(f"{gain:+.3f}" for gain in gains)])
    print("\n" + text_table(["", "object", "gain by seed"], rows))


if __name__ == "__main__":
    config = TrainConfig(DataConfig("office31", shots=3))
    raise SystemExit(script(main, replace(config, policy=PolicyConfig("partial:3"), learn=LearnConfig(batch_size=32))))
