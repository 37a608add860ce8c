"""Log lines and notes: the progress of training, and which options a run cannot use."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from transfer.config.train import TrainConfig
from transfer.config.unused import RunFacts
from transfer.data.label_sets.cells import MULTILABEL
from transfer.data.splits import Splits
from transfer.data.table import ImageTable
from transfer.freeze import FreezePlan
from transfer.heads.dropout import VanillaDropout
from transfer.model import TransferModel
from transfer.probes.choose import is_phase_solved
from transfer.semi_supervised.unlabelled_images import find_unlabelled, propagates
from transfer.training.optimizers import takes_momentum
from transfer.training.resume import PhaseChoice

UNSMOOTHED_KINDS = ("binary", "regression", "multilabel")  # of heads, whose losses have no label smoothing


def collect_run_facts(
    config: TrainConfig, models: Mapping[str, TransferModel], plan: FreezePlan, table: ImageTable, splits: Splits
) -> RunFacts:
    """Return what decides which options a run of `config` can use; separate heads are one model each."""
    model, learn, views = next(iter(models.values())), config.learn, config.cache.views
    specs = [spec for each in models.values() for spec in each.heads.specs.values()]
    solvable = replace(learn, probe="solved")
    trained = {model.backbone.stages[i].name for p in plan.phases for i, s in enumerate(p.stages) if s.trained}
    known = table.object >= 0
    return RunFacts(
        phases=tuple(phase.name for phase in plan.phases),
        solved=tuple(is_phase_solved(model, phase, learn, views) for phase in plan.phases),
        solvable=any(is_phase_solved(model, phase, solvable, views) for phase in plan.phases),
        trained_stages=max(sum(bool(stage.trained) for stage in phase.stages) for phase in plan.phases),
        batch_norms=sum(
            isinstance(module, nn.modules.batchnorm._BatchNorm)
            and model.backbone.stages[model.backbone.stage_of(path)].name in trained
            for path, module in model.backbone.network.named_modules()
        ),
        frozen_below=any(0 < phase.cut < len(phase.stages) for phase in plan.phases),
        from_scratch=plan.policy.from_scratch,
        pretrained=model.backbone.weights != "random",
        heads=len(specs),
        smoothed=any(spec.kind not in UNSMOOTHED_KINDS for spec in specs),
        labels=any(spec.kind == MULTILABEL for spec in specs),
        has_momentum=takes_momentum(learn.optimizer),
        dropout=max((m.p for m in model.heads.modules() if isinstance(m, nn.Dropout | VanillaDropout)), default=0.0),
        val=len(splits.val),
        test=len(splits.test),
        unlabelled=sum(len(find_unlabelled(table, splits.train, spec.name)) for spec in specs if propagates(spec)),
        given_splits=tuple(name for name in ("test", "val") if ((table.split == name) & known).any()),
    )


def format_epoch(line: dict[str, Any]) -> str:
    """Return an epoch's line as text: loss, then training and validation accuracy of every head."""
    words = [f"{line['network']} " if "network" in line else "", f"{line['phase']:<10} "]
    if "solved" in line:
        # Not the validation accuracy in the line of the same L2 value: that was solved to a coarser tolerance.
        words.append(f"solved to the final tolerance: {describe_choice(line['solved'])}")
    elif "strength" in line:
        share = f"{line['percent']:>3g} % " if "percent" in line else f"{line['on']:<12} " if "on" in line else ""
        words.append(f"{line['head']:<8} {share}L2 {line['strength']:<8.2g}")
    else:
        words.append(f"epoch {line['epoch']:>3}" + (f"/{line['of']}" if "of" in line else ""))
    if "loss" in line:
        words.append(f"  loss {line['loss']:.4f}")
    shown = line | {"cosine": line.get("interference", {}).get("cosine", {})}
    for side in ("train", "val", "cosine"):
        if shown.get(side):
            words.append(f"  {side} " + " ".join(f"{name} {value:.3f}" for name, value in shown[side].items()))
    return "".join([*words, f"  {line['seconds']:.1f} s"])


def describe_choice(chosen: PhaseChoice) -> str:
    """Return a phase's best number of epochs, or its L2 regularisation, as text."""
    if isinstance(chosen, int):
        return f"{chosen} epochs"
    return "L2 " + ", ".join(f"{name} {_format_l2(solved)}" for name, solved in chosen.items())


def _format_l2(solved: Any) -> str:
    if not isinstance(solved, dict):
        return f"{solved:.2g}"
    if "percent" in solved:
        return f"{solved['strength']:.2g} on {solved['percent']:g} %"
    return " and ".join(f"{l2:.2g} on {member}" for member, l2 in solved.items())


def note_interpolation(network: str, interpolated: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a note for each phase whose weights `wise_ft` interpolated, by its name.

    Examples
    --------
    >>> note_interpolation("", {"fine-tune": {"share": 0.4, "val": {"object": 0.912}}})
    ['fine-tune: weights 40 % of the way from those before it to those of its best epoch (WiSE-FT), val object 0.912']
    """
    return [
        f"{f'{network}, ' if network else ''}{phase}: weights {chosen['share']:.0%} of the way from those before it to "
        "those of its best epoch (WiSE-FT)".replace("%", " %")
        + "".join(f", val {name} {score:.3f}" for name, score in chosen["val"].items())
        for phase, chosen in interpolated.items()
    ]


def note_divided_batches(parts: Iterable[int], batch: int) -> list[str]:
    """Return a note on batches that did not fit into memory; `parts` has each network's number of parts."""
    most = max(parts)
    if most == 1:
        return []
    return [
        f"out of memory: batches of {batch} were divided into {most} parts and their gradients added up (equal but for "
        "rounding, BatchNorm statistics, and dropout masks)"
    ]
