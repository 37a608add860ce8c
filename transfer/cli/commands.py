"""What each command does and prints: a typed config, one call, and the call's result for people or for programs.

Nothing here imports torch before a command that needs it runs.
"""

import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
from transfer.runtime.escape import escape_unprintable


def _say(text: str, **how: Any) -> None:
    """Print text in which names from elsewhere may stand."""
    print(escape_unprintable(text, keep="\n"), **how)


def _tell(as_json: bool, result: dict[str, Any], text: Callable[[dict[str, Any]], str]) -> None:
    """Print a result, for programs or for people."""
    _say(json.dumps(result, ensure_ascii=False) if as_json else "\n" + text(result))


@contextmanager
def _reported(run: RunConfig, as_json: bool) -> Iterator[None]:
    """Write the page of what is run within, also where it was stopped, and say where it lies."""
    try:
        yield
    except EndedEarly:
        if run.out and (run.out / "result.json").is_file():
            _page(run)
        raise
    if run.out:
        page = f"; the page to look at: {_page(run)}" if run.report else ""
        _say(f"saved in {run.out}{page}", file=sys.stderr if as_json else sys.stdout)


def _page(run: RunConfig) -> Path | None:
    from transfer.report.page import write_report

    return write_report(run.out) if run.out and run.report and distributed.is_rank_zero() else None


def _demo(config: DemoConfig) -> None:
    from transfer.cli.demo import demo

    _say(demo(config))


def _backbones(config: BackbonesConfig) -> None:
    from transfer.backbones.catalogue import catalogue
    from transfer.report.text import backbone_lines

    rows = catalogue(config.pattern)
    first = next(rows, None)
    if first is None:
        near = did_you_mean(config.pattern, (row.name for row in catalogue()))
        raise TransferError(f"no backbone matches {config.pattern!r}{near}: `transfer backbones` lists all")
    for line in backbone_lines(itertools.chain([first], rows)):
        _say(line, flush=True)


def _data(config: FetchConfig) -> None:
    from transfer.data.sets.load import fetch_or_verify

    _say(fetch_or_verify(config.name, config.data_root, verify=config.verify))


def _train(config: TrainConfig, as_json: bool) -> None:
    from transfer.report.text import run_text
    from transfer.training.train import train

    with _reported(config.run, as_json):
        _tell(as_json, train(config).result, run_text)
    if config.run.out and not as_json:
        _say(f"next: transfer predict {config.run.out} IMAGE...")


def _compare(config: CompareConfig, as_json: bool) -> None:
    from transfer.report.page import write_report
    from transfer.report.text import comparison_text
    from transfer.training.compare import compare

    with _reported(config.train.run, as_json):
        result = compare(config)
        _tell(as_json, result, comparison_text)
        run = config.train.run
        for name in result["runs"] if run.out and run.report and distributed.is_rank_zero() else ():
            write_report(run.out / name.replace(":", "-"))


def _adapt(config: AdaptConfig, as_json: bool) -> None:
    from transfer.adaptation.adapt import adapt
    from transfer.report.text import adaptation_text

    with _reported(config.run, as_json):
        _tell(as_json, adapt(config).result, adaptation_text)
    if config.run.out and not as_json:
        _say(f"next: transfer predict {config.run.out} IMAGE...")


def _advise(config: AdviseConfig, as_json: bool) -> None:
    from transfer.report.advice_text import advice_text
    from transfer.tuning.advise import advise

    inner = config.train.run.out / "run" if config.run and config.train.run.out else None
    with _reported(dataclasses.replace(config.train.run, out=inner, tensorboard=False, resume=False), as_json):
        _tell(as_json, advise(config), advice_text)


def _search(config: SearchConfig) -> None:
    from transfer.report.figures.search import draw_landscape
    from transfer.report.search_text import search_text
    from transfer.tuning.search import search

    result, out = search(config), config.train.run.out
    if out:
        draw_landscape(out / "landscape.png", result)
    _say("\n" + search_text(result))


def _lr_find(config: LrFindConfig) -> None:
    from transfer.report.figures.search import draw_range_test
    from transfer.report.search_text import lr_find_text
    from transfer.tuning.lr_find import lr_find

    result, out = lr_find(config), config.train.run.out
    if out:
        draw_range_test(out / "rates.png", result)
    _say(lr_find_text(result))


def _evaluate(config: EvaluateConfig, as_json: bool) -> None:
    from transfer.evaluation.evaluate import evaluate
    from transfer.report.text import run_text

    _tell(as_json, evaluate(config), run_text)


def _report(config: ReportConfig) -> None:
    from transfer.report.page import write_report

    _say(str(write_report(*config.runs, out=config.out)))


def _predict(config: PredictConfig) -> None:
    from transfer.evaluation.evaluate import predict_command

    skipped = predict_command(config)
    if skipped:
        print(f"{skipped} images skipped as unreadable", file=sys.stderr)


def _export(config: ExportConfig) -> None:
    from transfer.formats import export

    for line in export(config).lines():
        print(line)


def _cache(config: CacheCommandConfig) -> None:
    from transfer.disk_cache import DiskCache
    from transfer.report.text import cache_text

    store = DiskCache()
    if config.action == "clear":
        segments, size = store.clear()
        _say(f"removed {segments} files, {size / 1e6:.1f} MB, from {store.root}")
    elif config.action == "verify":
        problems = store.verify()
        for path, reason in problems:
            _say(f"{path}: {reason}")
        _say(f"{len(problems)} damaged" if problems else f"{store.root}: all sound")
    else:
        _say(f"{store.root}\n{cache_text(store.list_entries())}")


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
