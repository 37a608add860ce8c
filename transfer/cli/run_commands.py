"""What the commands call and print that start runs: train, update, compare, adapt, advise, search and lr-find.

Nothing here imports torch before a command that needs it runs.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transfer.cli.messages import describe_saved, suggest_next
from transfer.cli.output import log_end, print_result, print_text
from transfer.config.adapt import AdaptConfig
from transfer.config.commands import AdviseConfig, LrFindConfig, SearchConfig, UpdateConfig
from transfer.config.train import CompareConfig, RunConfig, TrainConfig
from transfer.errors import EndedEarly
from transfer.runtime import distributed
from transfer.runtime.imports import import_quickly


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
    log_end(describe_saved(run, _write_page(run)), _predict_next(run, predict_from))


def _predict_next(run: RunConfig, folder: Path | None) -> str:
    return suggest_next(["predict", folder], "IMAGE...", run.plugin) if folder else ""


def _write_page(run: RunConfig) -> Path | None:
    from transfer.report.page import write_report

    return write_report(run.out) if run.out and run.report and distributed.is_rank_zero() else None


def train_command(config: TrainConfig, as_json: bool) -> None:
    """Train, and print the result and write its page."""
    from transfer.report.console.run_text import run_text

    with import_quickly():
        from transfer.training.train import train

    with _write_page_after(config.run, config.run.out):
        print_result(as_json, train(config).result, run_text)


def update_command(config: UpdateConfig, as_json: bool) -> None:
    """Update a run, and print the comparison and write the page of the new run."""
    from transfer.report.console.update_text import update_text

    with import_quickly():
        from transfer.updating.update import update

    with _write_page_after(RunConfig(out=config.out), config.out):
        print_result(as_json, update(config), update_text)


def compare_command(config: CompareConfig, as_json: bool) -> None:
    """Compare policies, and print the table and write the pages."""
    from transfer.report.console.run_text import comparison_text
    from transfer.report.page import write_report

    with import_quickly():
        from transfer.training.compare import compare

    run = config.train.run
    result = compare(config)
    print_result(as_json, result, comparison_text)
    for name in result["runs"] if run.out and run.report and distributed.is_rank_zero() else ():
        write_report(run.out / name.replace(":", "-"))
    best = run.out / result["best"].replace(":", "-") if run.out and result["best"] else None
    page = suggest_next(["report", run.out]) if run.out else ""
    log_end(describe_saved(run, _write_page(run)), _predict_next(run, best) or page)


def adapt_command(config: AdaptConfig, as_json: bool) -> None:
    """Adapt to a target domain, and print the result and write its page."""
    from transfer.report.console.adaptation_text import adaptation_text

    with import_quickly():
        from transfer.adaptation.adapt import adapt

    with _write_page_after(config.run, config.run.out):
        print_result(as_json, adapt(config).result, adaptation_text)


def advise_command(config: AdviseConfig, as_json: bool) -> None:
    """Advise a policy, and print the advice; with ``--run`` train as advised."""
    from transfer.report.command_line import recommended_command
    from transfer.report.console.advice_text import advice_text

    with import_quickly():
        from transfer.tuning.advise import advise

    run = config.train.run
    if config.run:
        inner = run.out / "run" if run.out else None
        with _write_page_after(dataclasses.replace(run, out=inner, tensorboard=False, resume=False), inner):
            print_result(as_json, advise(config), advice_text)
        return
    result = advise(config)
    print_result(as_json, result, advice_text)
    log_end(f"saved in {run.out}" if run.out else "", f"next: {recommended_command(result)}")


def search_command(config: SearchConfig) -> None:
    """Search hyperparameters, and print the best and draw the landscape."""
    from transfer.report.command_line import recommended_command
    from transfer.report.console.search_text import search_text
    from transfer.report.figures.search import draw_landscape

    with import_quickly():
        from transfer.tuning.search import search

    run, result = config.train.run, search(config)
    if run.out:
        draw_landscape(run.out / "landscape.png", result)
    print_text("\n" + search_text(result))
    final = run.out / "final" if run.out and config.final else None
    log_end(describe_saved(run), _predict_next(run, final) or f"next: {recommended_command(result)}")


def lr_find_command(config: LrFindConfig) -> None:
    """Run a learning-rate range test, and print and draw it."""
    from transfer.report.command_line import recommended_command
    from transfer.report.console.search_text import lr_find_text
    from transfer.report.figures.search import draw_range_test

    with import_quickly():
        from transfer.tuning.lr_find import lr_find

    run, result = config.train.run, lr_find(config)
    if run.out:
        draw_range_test(run.out / "rates.png", result)
    print_text("\n" + lr_find_text(result))
    log_end(describe_saved(run), f"next: {recommended_command(result)}")
