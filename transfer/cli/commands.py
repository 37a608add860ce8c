"""What each command calls and prints: its result as a text table, or as JSON.

Nothing here imports torch before a command that needs it runs.
"""

import itertools
import logging
import sys
from typing import Any

from transfer.cli.curation_commands import inspect_command, pick_command, review_command
from transfer.cli.messages import suggest_next, suggest_python
from transfer.cli.output import log_end, print_result, print_text
from transfer.cli.run_commands import (
    adapt_command,
    advise_command,
    compare_command,
    lr_find_command,
    search_command,
    train_command,
    update_command,
)
from transfer.config.adapt import AdaptConfig
from transfer.config.commands import (
    AdviseConfig,
    BackbonesConfig,
    CacheCommandConfig,
    DemoConfig,
    EvaluateConfig,
    ExportConfig,
    FetchConfig,
    LrFindConfig,
    PredictConfig,
    ReportConfig,
    SearchConfig,
    UpdateConfig,
)
from transfer.config.curation import InspectConfig, PickConfig, ReviewConfig
from transfer.config.serving import ServeConfig
from transfer.config.train import CompareConfig, TrainConfig
from transfer.errors import TransferError, did_you_mean
from transfer.runtime.imports import import_quickly
from transfer.runtime.streams import is_writable

log = logging.getLogger(__name__)


def _demo(config: DemoConfig) -> None:
    from transfer.cli.demo import demo

    print_text(demo(config))


def _backbones(config: BackbonesConfig) -> None:
    from transfer.backbones.catalogue import list_backbones
    from transfer.report.console.backbones_text import backbone_lines

    if not config.pattern:
        _shortlist()
        return
    rows = list_backbones(config.pattern)
    first = next(rows, None)
    if first is None:
        near = did_you_mean(config.pattern, (row.name for row in list_backbones()))
        raise TransferError(f"no backbone matches {config.pattern!r}{near}: `transfer backbones '*'` lists all")
    for line in backbone_lines(itertools.chain([first], rows)):
        print_text(line, flush=True)
    log_end(suggest_next(["train"], f"FOLDER --backbone {first.name}"))


def _shortlist() -> None:
    from transfer.backbones.shortlist import list_shortlist
    from transfer.report.console.backbones_text import shortlist_lines

    for line in shortlist_lines(list_shortlist()):
        print_text(line, flush=True)
    log_end(suggest_next(["train"], "FOLDER --backbone NAME"))


def _data(config: FetchConfig) -> None:
    from transfer.data.sets.load import NAMED, fetch_or_verify, load_table

    options = ["--data-root", config.data_root] if config.data_root and config.name != "digits" else []
    if config.name in NAMED:
        print_text(fetch_or_verify(config.name, config.data_root, verify=config.verify))
    elif config.verify:
        raise TransferError(f"--verify needs published checksums: only {', '.join(NAMED)} have them")
    else:
        from transfer.runs.facts import describe_reading  # imports torch

        how: Any = {"labels": config.labels, "corrections": config.corrections}
        print_text("\n".join(describe_reading(load_table(config.name, config.data_root, config.targets, **how))))
        options += ["--labels", config.labels] if config.labels else []
        options += ["--targets", ",".join(config.targets)] if config.targets else []
        options += ["--corrections", config.corrections] if config.corrections else []
    log_end(suggest_next(["train", config.name, *options]))


def _evaluate(config: EvaluateConfig, as_json: bool) -> None:
    from transfer.report.console.run_text import run_text

    with import_quickly():
        from transfer.evaluation.evaluate import evaluate

    print_result(as_json, evaluate(config), run_text)
    runs = [run if run.is_dir() else run.parent for run in (config.run, *config.more)]
    files = " and ".join(str(file) for file in (config.out, config.soup) if file)
    log_end(
        f"saved in {files}" if files else "nothing is saved; --out FILE.json saves these figures",
        suggest_next(["predict", config.soup], "IMAGE...")
        if config.soup
        else suggest_next(["report", *dict.fromkeys(runs)]),
    )


def _report(config: ReportConfig) -> None:
    from transfer.report.page import write_report

    page = write_report(*config.runs, out=config.out)
    print_text(str(page))
    log_end(suggest_next(["-m", "webbrowser", page], program="python"))


def _predict(config: PredictConfig) -> None:
    with import_quickly():
        from transfer.evaluation.predict import predict_command

    predicted, skipped = predict_command(config)
    if not config.out and not is_writable(sys.stdout):
        return  # its reader, such as `head`, has all that it wants
    counts = f"{predicted:,} image{'s' * (predicted != 1)} predicted"
    counts += f", {skipped:,} skipped as unreadable" if skipped else ""
    log_end(
        f"{counts}; saved in {config.out}" if config.out else f"{counts}; --out FILE saves the predictions",
        suggest_next(["export", config.run, "--format", "onnx"]),
    )


def _serve(config: ServeConfig) -> None:
    from transfer.server.serve import check_server

    check_server("serve")
    with import_quickly():
        from transfer.server.correction_folder import CorrectionFolder
        from transfer.server.serve_run import serve_run

    serve_run(config)
    folder = config.runs[0] if config.runs[0].is_dir() else config.runs[0].parent
    corrections = CorrectionFolder(folder)
    update = ["update", folder, "--corrections", corrections.file.path]
    log_end(suggest_next(update) if corrections.list_corrections() else "nothing is corrected")


def _export(config: ExportConfig) -> None:
    from transfer.formats import export

    exported = export(config)
    for line in exported.lines():
        print_text(line)
    log_end(suggest_python(exported.loading))


def _cache(config: CacheCommandConfig) -> None:
    from transfer.disk_cache import DiskCache
    from transfer.report.console.cache_text import cache_text

    store = DiskCache()
    if config.action == "clear":
        segments, size = store.clear()
        from transfer.backbones.engines.compiled import clear_graphs

        graphs, more = clear_graphs()
        print_text(f"removed {segments + graphs} files, {(size + more) / 1e6:.1f} MB, from {store.root.parent}")
    elif config.action == "verify":
        problems = store.verify()
        for path, reason in problems:
            print_text(f"{path}: {reason}")
        print_text(f"{len(problems)} damaged" if problems else f"{store.root}: all sound")
    else:
        print_text(f"{store.root}\n{cache_text(store.list_entries())}")
        log_end(suggest_next(["cache", "verify"], "(or clear, which removes all of it)"))


JSON_COMMANDS = ("train", "update", "compare", "adapt", "advise", "evaluate", "inspect")  # have the option --json
COMMANDS: dict[str, tuple[type, Any]] = {
    "demo": (DemoConfig, _demo),
    "backbones": (BackbonesConfig, _backbones),
    "data": (FetchConfig, _data),
    "train": (TrainConfig, train_command),
    "update": (UpdateConfig, update_command),
    "compare": (CompareConfig, compare_command),
    "adapt": (AdaptConfig, adapt_command),
    "advise": (AdviseConfig, advise_command),
    "inspect": (InspectConfig, inspect_command),
    "review": (ReviewConfig, review_command),
    "pick": (PickConfig, pick_command),
    "search": (SearchConfig, search_command),
    "lr-find": (LrFindConfig, lr_find_command),
    "evaluate": (EvaluateConfig, _evaluate),
    "predict": (PredictConfig, _predict),
    "serve": (ServeConfig, _serve),
    "export": (ExportConfig, _export),
    "report": (ReportConfig, _report),
    "cache": (CacheCommandConfig, _cache),
}
