"""Optimizers: speed, memory and final accuracy of each, on the heads alone and on the heads with the last stage.

The learning rate of each was chosen on validation images of Office-31. L-BFGS needs full batches; sgd and adam are also
run with them. --out plots the losses (curves.png) and the paths on four toy surfaces (surfaces.png).
"""

from dataclasses import replace
from statistics import fmean

from studies.plots import draw_curves, draw_descents
from studies.toy_surfaces import SETTINGS, SURFACES, trace_path

from transfer import LearnConfig, TrainConfig, train
from transfer.cli.main import script
from transfer.report.console.tables import text_table
from transfer.runs.seeds import score_text

RATES = {"sgd": 1.0, "momentum": 0.1, "nesterov": 0.1, "adagrad": 0.1, "rmsprop": 3e-3, "adam": 3e-3, "adamw": 3e-3}
RATES |= {"lion": 1e-3, "lbfgs": 1.0}


def main(config: TrainConfig) -> None:
    rows, losses, out = [], {policy: {} for policy in ("linear_probe", "partial:1")}, config.run.out
    for policy in losses:
        for name, size in [*((n, config.learn.batch_size) for n in RATES), ("sgd", 0), ("adam", 0), ("lbfgs", 0)]:
            momentum = 0.0 if name == "sgd" else config.learn.momentum
            learn = replace(config.learn, optimizer=name, lr=RATES[name], batch_size=size, momentum=momentum)
            title, lines = name if size else f"{name} full batch", []
            run = replace(config.run, out=out and out / f"{policy} {title}".replace(":", "-").replace(" ", "_"))
            run_config = replace(config, learn=learn, policy=replace(config.policy, policy=policy), run=run)
            result = train(run_config, on_epoch=lines.append).result
            epochs = [[line for line in lines if line["epoch"] == n] for n in range(1, lines[-1]["epoch"] + 1)]
            losses[policy][title] = [fmean(line["loss"] for line in epoch) for epoch in epochs]
            values = [fmean(line.get("val", {}).get("object", 0.0) for line in epoch) for epoch in epochs]
            first = next(n for n, value in enumerate(values, 1) if value >= max(values) - 0.01)
            state = 1 + result["policy"]["optimizer_bytes"] / 4 / result["policy"]["trained_parameters"]
            scores = [f"{losses[policy][title][-1]:.3f}", str(first), score_text(result, "object").partition(" [")[0]]
            costs = [f"{fmean(line['seconds'] for line in lines):.2f}", f"{state:.2f}"]
            rows.append([f"{policy} {title}", *scores, *costs])
    head = ["", "last loss", "epochs to 0.01 below its best", "object", "seconds per epoch", "memory / parameters"]
    print("\n" + text_table(head, rows))
    if out:
        draw_curves(out / "curves.png", losses, x="epoch", y="training loss")
        paths = {n: (s.grid(), {o: trace_path(s, c) for o, c in SETTINGS.items()}) for n, s in SURFACES.items()}
        draw_descents(out / "surfaces.png", paths)


if __name__ == "__main__":
    config = TrainConfig(learn=LearnConfig(probe="trained", refit=False, patience=0, epochs=15))
    raise SystemExit(script(main, config, digits="glyphnet"))
