"""Head composition: two heads on one network, one joint head over their pairs, or a network for each?

Object and domain of Office-31, from all labels and from three per object and domain. On a frozen backbone two heads
share no trained layer. With a trained last stage, the cosine between the two losses' gradients shows how far the tasks
agree, and the paired differences show the cost of sharing. --out also draws the cosines: interference.png.
"""

from dataclasses import replace
from statistics import fmean

from studies.plots import draw_curves

from transfer import BackboneConfig, DataConfig, LearnConfig, PolicyConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.feature_cache import TrunkCache
from transfer.report.text import paired_test_text, score_text, text_table
from transfer.training.compare import paired
from transfer.training.gradient_conflict import course
from transfer.training.setup import read_images

PANELS = {"cosine": "cosine", "conflict": "share of batches in conflict", "ratio": "domain's length / object's"}


def main(config: TrainConfig) -> None:
    cache, out, rows = TrunkCache(config.cache), config.run.out, []
    images, drawn = read_images(config.data, cache.disk_cache), {title: {} for title in PANELS.values()}
    for policy, shots in [(p, s) for p in ("linear_probe", config.policy.policy) for s in (None, config.data.shots)]:
        one, runs = replace(config, data=replace(config.data, shots=shots)), {}
        for heads in ("separate", "dual", "joint"):
            title, lines = f"{policy}, {shots or 'all'} labels, {heads}", []
            print(f"\n{title}")
            place = replace(config.run, out=out and out / title.replace(", ", "_").replace(":", "-").replace(" ", "_"))
            one = replace(one, heads=replace(config.heads, heads=heads), run=place)
            one = replace(one, policy=replace(config.policy, policy=policy))
            runs[heads] = train(one, images=images, cache=cache, on_epoch=lines.append)
            tests = paired(runs[heads], runs["separate"]) if len(runs) > 1 else {}
            scores = [score_text(runs[heads].result, name).partition(" [")[0] for name in ("object", "domain")]
            losses, measured = [paired_test_text(tests.get(name)) for name in ("object", "domain")], course(lines)
            cosine = f"{fmean(measured['cosine']):+.3f}" if measured["cosine"] else "-"
            rows.append([title, *scores, *losses, cosine])
            for name, values in measured.items():
                drawn[PANELS[name]] |= {title: values} if values else {}
    print("\n" + text_table(["", *("object", "domain", "object - separate", "domain - separate"), "cosine"], rows))
    if out:
        draw_curves(out / "interference.png", drawn, x="epoch", y="of the two heads' gradients")


if __name__ == "__main__":
    data, learn = DataConfig("office31", shots=3), LearnConfig(epochs=12, batch_size=32, interference=True)
    policy = PolicyConfig("partial:1")
    raise SystemExit(script(main, TrainConfig(data, BackboneConfig("mobilenetv2_100"), policy=policy, learn=learn)))
