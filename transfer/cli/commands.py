"""What each command calls and prints: its result as a text table, or as JSON.

Nothing here imports torch before a command that needs it runs.
"""

import dataclasses
import itertools
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transfer.cli.messages import describe_saved, suggest_next, suggest_python
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
)
from transfer.config.train import CompareConfig, RunConfig, TrainConfig
from transfer.errors import EndedEarly, TransferError, did_you_mean
from transfer.runtime import distributed
from transfer.runtime.compiler import defer_compiler
from transfer.runtime.escape import escape_unprintable
from transfer.runtime.streams import is_unicode, is_writable

log = logging.getLogger(__name__)


def _print(text: str, **how: Any) -> None:
    """Print text that may contain file names, escaped."""
    print(escape_unprintable(text, keep="\n"), **how)


def _print_result(as_json: bool, result: dict[str, Any], text: Callable[[dict[str, Any]], str]) -> None:
    """Print a result as JSON or as text."""
    _print(json.dumps(result, ensure_ascii=not is_unicode(sys.stdout)) if as_json else "\n" + text(result))


@contextmanager
def _write_page_after(run: RunConfig, predict_from: Path | None = None) -> Iterator[None]:
    """Run the block, write the page of its run, also if it ended early; log what was saved and the next command.

    The next command predicts with the model in the folder `predict_from`.
    """
    try:
        yield
    except EndedEarly:
        if run.out and (run.out / "result.json").is_file():
            _write_page(run)
        raise
    _log_end(describe_saved(run, _write_page(run)), _predict_next(run, predict_from))


def _log_end(*lines: str) -> None:
    """Log the last lines of a command."""
    for line in filter(None, lines):
        log.info("%s", line)


def _predict_next(run: RunConfig, folder: Path | None) -> str:
    return suggest_next(["predict", folder], "IMAGE...", run.plugin) if folder else ""


def _write_page(run: RunConfig) -> Path | None:
    from transfer.report.page import write_report

    return write_report(run.out) if run.out and run.report and distributed.is_rank_zero() else None


def _demo(config: DemoConfig) -> None:
    from transfer.cli.demo import demo

    _print(demo(config))


def _backbones(config: BackbonesConfig) -> None:
    from transfer.backbones.catalogue import list_backbones
    from transfer.report.text import backbone_lines

    if not config.pattern:
        _shortlist()
        return
    rows = list_backbones(config.pattern)
    first = next(rows, None)
    if first is None:
        near = did_you_mean(config.pattern, (row.name for row in list_backbones()))
        raise TransferError(f"no backbone matches {config.pattern!r}{near}: `transfer backbones '*'` lists all")
    for line in backbone_lines(itertools.chain([first], rows)):
        _print(line, flush=True)
    _log_end(suggest_next(["train"], f"FOLDER --backbone {first.name}"))


def _shortlist() -> None:
    from transfer.backbones.shortlist import list_shortlist
    from transfer.report.text import shortlist_lines

    for line in shortlist_lines(list_shortlist()):
        _print(line, flush=True)
    _log_end(suggest_next(["train"], "FOLDER --backbone NAME"))


def _data(config: FetchConfig) -> None:
    from transfer.data.sets.load import NAMED, fetch_or_verify, load_table

    options = ["--data-root", config.data_root] if config.data_root and config.name != "digits" else []
    if config.name in NAMED:
        _print(fetch_or_verify(config.name, config.data_root, verify=config.verify))
    elif config.verify:
        raise TransferError(f"--verify needs published checksums: only {', '.join(NAMED)} have them")
    else:
        from transfer.runs.facts import describe_reading  # imports torch

        _print("\n".join(describe_reading(load_table(config.name, config.data_root, labels=config.labels))))
        options += ["--labels", config.labels] if config.labels else []
    _log_end(suggest_next(["train", config.name, *options]))


def _train(config: TrainConfig, as_json: bool) -> None:
    from transfer.report.text import run_text

    with defer_compiler():
        from transfer.training.train import train

    with _write_page_after(config.run, config.run.out):
        _print_result(as_json, train(config).result, run_text)


def _compare(config: CompareConfig, as_json: bool) -> None:
    from transfer.report.page import write_report
    from transfer.report.text import comparison_text

    with defer_compiler():
        from transfer.training.compare import compare

    run = config.train.run
    result = compare(config)
    _print_result(as_json, result, comparison_text)
    for name in result["runs"] if run.out and run.report and distributed.is_rank_zero() else ():
        write_report(run.out / name.replace(":", "-"))
    best = run.out / result["best"].replace(":", "-") if run.out and result["best"] else None
    page = suggest_next(["report", run.out]) if run.out else ""
    _log_end(describe_saved(run, _write_page(run)), _predict_next(run, best) or page)


def _adapt(config: AdaptConfig, as_json: bool) -> None:
    from transfer.report.text import adaptation_text

    with defer_compiler():
        from transfer.adaptation.adapt import adapt

    with _write_page_after(config.run, config.run.out):
        _print_result(as_json, adapt(config).result, adaptation_text)


def _advise(config: AdviseConfig, as_json: bool) -> None:
    from transfer.report.advice_text import advice_text
    from transfer.report.command_line import recommended_command

    with defer_compiler():
        from transfer.tuning.advise import advise

    run = config.train.run
    if config.run:
        inner = run.out / "run" if run.out else None
        with _write_page_after(dataclasses.replace(run, out=inner, tensorboard=False, resume=False), inner):
            _print_result(as_json, advise(config), advice_text)
        return
    result = advise(config)
    _print_result(as_json, result, advice_text)
    _log_end(f"saved in {run.out}" if run.out else "", f"next: {recommended_command(result)}")


def _search(config: SearchConfig) -> None:
    from transfer.report.command_line import recommended_command
    from transfer.report.figures.search import draw_landscape
    from transfer.report.search_text import search_text

    with defer_compiler():
        from transfer.tuning.search import search

    run, result = config.train.run, search(config)
    if run.out:
        draw_landscape(run.out / "landscape.png", result)
    _print("\n" + search_text(result))
    final = run.out / "final" if run.out and config.final else None
    _log_end(describe_saved(run), _predict_next(run, final) or f"next: {recommended_command(result)}")


def _lr_find(config: LrFindConfig) -> None:
    from transfer.report.command_line import recommended_command
    from transfer.report.figures.search import draw_range_test
    from transfer.report.search_text import lr_find_text

    with defer_compiler():
        from transfer.tuning.lr_find import lr_find

    run, result = config.train.run, lr_find(config)
    if run.out:
        draw_range_test(run.out / "rates.png", result)
    _print("\n" + lr_find_text(result))
    _log_end(describe_saved(run), f"next: {recommended_command(result)}")


def _evaluate(config: EvaluateConfig, as_json: bool) -> None:
    from transfer.report.text import run_text

    with defer_compiler():
        from transfer.evaluation.evaluate import evaluate

    _print_result(as_json, evaluate(config), run_text)
    runs = [run if run.is_dir() else run.parent for run in (config.run, *config.more)]
    _log_end(
        f"saved in {config.out}" if config.out else "nothing is saved; --out FILE.json saves these figures",
        suggest_next(["report", *dict.fromkeys(runs)]),
    )


def _report(config: ReportConfig) -> None:
    from transfer.report.page import write_report

    page = write_report(*config.runs, out=config.out)
    _print(str(page))
    _log_end(suggest_next(["-m", "webbrowser", page], program="python"))


def _predict(config: PredictConfig) -> None:
    with defer_compiler():
        from transfer.evaluation.evaluate import predict_command

    predicted, skipped = predict_command(config)
    if not config.out and not is_writable(sys.stdout):
        return  # its reader, such as `head`, has all that it wants
    counts = f"{predicted:,} image{'s' * (predicted != 1)} predicted"
    counts += f", {skipped:,} skipped as unreadable" if skipped else ""
    _log_end(
        f"{counts}; saved in {config.out}" if config.out else f"{counts}; --out FILE saves the predictions",
        suggest_next(["export", config.run, "--format", "onnx"]),
    )


def _export(config: ExportConfig) -> None:
    from transfer.formats import export

    exported = export(config)
    for line in exported.lines():
        _print(line)
    _log_end(suggest_python(exported.loading))


def _cache(config: CacheCommandConfig) -> None:
    from transfer.disk_cache import DiskCache
    from transfer.report.text import cache_text

    store = DiskCache()
    if config.action == "clear":
        segments, size = store.clear()
        _print(f"removed {segments} files, {size / 1e6:.1f} MB, from {store.root}")
    elif config.action == "verify":
        problems = store.verify()
        for path, reason in problems:
            _print(f"{path}: {reason}")
        _print(f"{len(problems)} damaged" if problems else f"{store.root}: all sound")
    else:
        _print(f"{store.root}\n{cache_text(store.list_entries())}")
        _log_end(suggest_next(["cache", "verify"], "(or clear, which removes all of it)"))


JSON_COMMANDS = ("train", "compare", "adapt", "advise", "evaluate")  # have the option --json
COMMANDS: dict[str, tuple[type, Any]] = {
    "demo": (DemoConfig, _demo),
    "backbones": (BackbonesConfig, _backbones),
    "data": (FetchConfig, _data),
    "train": (TrainConfig, _train),
    "compare": (CompareConfig, _compare),
    "adapt": (AdaptConfig, _adapt),
    "advise": (AdviseConfig, _advise),
    "search": (SearchConfig, _search),
    "lr-find": (LrFindConfig, _lr_find),
    "evaluate": (EvaluateConfig, _evaluate),
    "predict": (PredictConfig, _predict),
    "export": (ExportConfig, _export),
    "report": (ReportConfig, _report),
    "cache": (CacheCommandConfig, _cache),
}
