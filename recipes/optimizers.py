"""Optimizers: speed, memory and final accuracy of each, on the heads alone and on the heads with the last stage.

Each optimizer has its own learning rate, chosen on validation images of Office-31. L-BFGS needs full batches; sgd and
adam are run with them, too. --out also draws the losses (curves.png) and paths on four toy surfaces (surfaces.png).
"""

from dataclasses import replace
from statistics import fmean

from studies.plots import draw_curves, draw_descents
from studies.toy_surfaces import SETTINGS, SURFACES, trace_path

from transfer import LearnConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.report.text import score_text, text_table

RATES = {"sgd": 1.0, "momentum": 0.1, "nesterov": 0.1, "adagrad": 0.1, "rmsprop": 3e-3, "adam": 3e-3, "adamw": 3e-3}
RATES |= {"lion": 1e-3, "lbfgs": 1.0}


def main(config: TrainConfig) -> None:
    rows, losses, out, size = [], {}, config.run.out, config.learn.batch_size
    sizes = [(name, size) for name in RATES] + [(name, 0) for name in ("sgd", "adam", "lbfgs")]
    for policy in ("linear_probe", "partial:1"):
        for name, size in sizes:
            learn = replace(config.learn, optimizer=name, lr=RATES[name], batch_size=size)
            learn = replace(learn, momentum=0.0) if name == "sgd" else learn
            one = replace(config, learn=learn, policy=replace(config.policy, policy=policy))
            title = name if size else f"{name} at once"
            place = out / f"{policy} {title}".replace(":", "-").replace(" ", "_") if out else None
            lines: list[dict] = []
            result = train(replace(one, run=replace(config.run, out=place)), on_epoch=lines.append).result
            epochs = [[e for e in lines if e["epoch"] == n] for n in range(1, lines[-1]["epoch"] + 1)]
            losses.setdefault(policy, {})[title] = [fmean(e["loss"] for e in each) for each in epochs]
            reached = [fmean(e.get("val", {}).get("object", 0.0) for e in each) for each in epochs]
            soon = next(n for n, value in enumerate(reached, 1) if value >= max(reached) - 0.01)
            state = 1 + result["policy"]["optimizer_bytes"] / 4 / result["policy"]["trained_parameters"]
            seconds = fmean(e["seconds"] for e in lines)
            scores = [f"{losses[policy][title][-1]:.3f}", str(soon), score_text(result, "object").partition(" [")[0]]
            rows.append([f"{policy} {title}", *scores, f"{seconds:.2f}", f"{state:.2f}"])
    head = ["last loss", "epochs to 0.01 below its best", "object", "seconds per epoch", "memory / parameters"]
    print("\n" + text_table(["", *head], rows))
    if out:
        draw_curves(out / "curves.png", losses, x="epoch", y="training loss")
        paths = {n: (s.grid(), {o: trace_path(s, c) for o, c in SETTINGS.items()}) for n, s in SURFACES.items()}
        draw_descents(out / "surfaces.png", paths)


if __name__ == "__main__":
    learn = LearnConfig(probe="trained", refit=False, patience=0, epochs=15)
    raise SystemExit(script(main, TrainConfig(learn=learn)))
