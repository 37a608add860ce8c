"""Head composition: two heads on one network, one joint head over their pairs, or a network for each?

Object and domain of Office-31, with all labels and with three. On a frozen backbone the heads share no trained layer.
With a trained last stage, the cosine between the losses' gradients shows how far the tasks agree (--out plots it).
"""

from dataclasses import replace
from statistics import fmean

from studies.plots import draw_curves

from transfer import DataConfig, LearnConfig, PolicyConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.feature_cache import TrunkCache
from transfer.report.console.tables import paired_test_text, text_table
from transfer.runs.seeds import score_text
from transfer.training.compare import compare_runs
from transfer.training.diagnosis.gradient_conflict import conflict_by_epoch
from transfer.training.setup import read_images

HEADS = ("object", "domain")
PANELS = {"cosine": "cosine", "conflict": "share of batches in conflict", "ratio": "domain's length / object's"}


def main(config: TrainConfig) -> None:
    cache, out, rows, curves = TrunkCache(config.cache), config.run.out, [], {panel: {} for panel in PANELS.values()}
    images = read_images(config.data, cache.disk_cache)
    for policy, shots in [(p, s) for p in ("linear_probe", config.policy.policy) for s in (None, config.data.shots)]:
        data, runs = replace(config.data, shots=shots), {}
        base = replace(config, data=data, policy=replace(config.policy, policy=policy))
        for heads in ("separate", "dual", "joint"):
            print("\n" + (title := f"{policy}, {shots or 'all'} labels, {heads}"))
            lines = []
            run = replace(config.run, out=out and out / title.replace(", ", "_").replace(":", "-").replace(" ", "_"))
            run_config = replace(base, heads=replace(config.heads, heads=heads), run=run)
            runs[heads] = train(run_config, images=images, cache=cache, on_epoch=lines.append)
            tests = compare_runs(runs[heads], runs["separate"]) if len(runs) > 1 else {}
            scores = [score_text(runs[heads].result, name).partition(" [")[0] for name in HEADS]
            differences, measured = [paired_test_text(tests.get(name)) for name in HEADS], conflict_by_epoch(lines)
            rows.append([title, *scores, *differences, f"{fmean(c):+.3f}" if (c := measured["cosine"]) else "-"])
            for name, panel in PANELS.items():
                curves[panel] |= {title: measured[name]} if measured[name] else {}
    print("\n" + text_table(["", *HEADS, "object - separate", "domain - separate", "cosine"], rows))
    if out:
        draw_curves(out / "interference.png", curves, x="epoch", y="of the two heads' gradients")


if __name__ == "__main__":
    data, learn = DataConfig("office31", shots=3), LearnConfig(epochs=12, batch_size=32, interference=True)
    raise SystemExit(script(main, TrainConfig(data, policy=PolicyConfig("partial:1"), learn=learn)))
