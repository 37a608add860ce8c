"""The first line of each command, and its last ones: what was saved, where, and the next command to type."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transfer.cli.run_folders import NOTHING, RUNS_FOLDER, get_run_config
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
from transfer.config.train import CompareConfig, RunConfig, TrainConfig

PRINTS_OUTPUT = (PredictConfig, ExportConfig, ReportConfig, BackbonesConfig, FetchConfig, CacheCommandConfig)
"""Configs of the commands whose standard output other programs read: their log lines go to standard error."""


def describe_start(config: Any) -> str:
    """Return what a command is about to do: which data it reads, with which network, and where its results go."""
    match config:
        case DemoConfig():
            return "training two networks on embedded images, under four policies"
        case BackbonesConfig():
            return f"listing the backbones {config.pattern}" if config.pattern else "listing a choice of backbones"
        case FetchConfig():
            reading = "reading" if Path(config.name).exists() else "looking for"
            return f"{'verifying' if config.verify else reading} {config.name}"
        case EvaluateConfig():
            images = config.data or ("its test images" if not config.more else "their test images")
            return f"evaluating {_join(config.run, *config.more)} on {images}"
        case PredictConfig():
            return f"predicting with {config.run}" + (f"; output file {config.out}" if config.out else "")
        case ServeConfig():
            return f"serving {_join(*config.runs)}"
        case ExportConfig():
            return f"exporting {config.run} as {config.format}"
        case UpdateConfig():
            named = " and ".join(str(each) for each in (config.add, config.corrections) if each)
            return f"updating {config.run} with {named}" + (f"; run folder {config.out}" if config.out else "")
        case ReportConfig():
            return f"writing the page of {_join(*config.runs)}"
        case InspectConfig():
            return f"inspecting {config.images.data}; backbone {config.backbone.backbone}"
        case ReviewConfig():
            return f"reviewing {config.images.data}; backbone {config.backbone.backbone}"
        case PickConfig():
            chosen = f"choosing {config.n} images to label"
            return f"reading {config.images.data}; backbone {config.backbone.backbone}; {chosen}"
        case CacheCommandConfig():
            return {"ls": "listing", "clear": "clearing", "verify": "verifying"}[config.action] + " the cache"
    return _describe_run(config)


def _join(*paths: Path) -> str:
    return ", ".join(map(str, paths))


def _describe_run(config: Any) -> str:
    train: Any = config if isinstance(config, (TrainConfig, AdaptConfig)) else config.train
    if isinstance(config, AdaptConfig):
        words, data = f"adapt by {', '.join(config.method.method)}", config.shift.data
    else:
        words, data = f"policy {train.policy.policy}", train.data.data
        if isinstance(config, CompareConfig):
            words = f"policies {', '.join(config.policies)}"
        elif isinstance(config, AdviseConfig):
            words = "looking for a policy"
        elif isinstance(config, LrFindConfig):
            words = f"learning rates for policy {train.policy.policy}"
        elif isinstance(config, SearchConfig):
            words = f"searching {', '.join(text.partition('=')[0] for text in config.space)}"
    several = isinstance(config, AdviseConfig) and config.backbones
    backbone = ", ".join(config.backbones) if several else train.backbone.backbone
    out = get_run_config(config).out
    return f"reading {data}; backbone {backbone}; {words}" + (f"; run folder {out}" if out else "")


def describe_saved(run: RunConfig, page: Path | None = None) -> str:
    """Return where a run was saved."""
    if not run.out:
        return f"nothing is saved (--out {NOTHING}); without it the run is saved below {RUNS_FOLDER}/"
    return f"saved in {run.out}" + (f"; page: {page}" if page else "")


def suggest_next(
    words: Sequence[Any], placeholder: str = "", plugins: Sequence[str] = (), program: str = "transfer"
) -> str:
    """Return the next command to type: `words` are quoted, `placeholder` is what the reader replaces.

    Examples
    --------
    >>> suggest_next(["predict", Path("my runs")], "IMAGE...")
    "next: transfer predict 'my runs' IMAGE..."
    """
    named = [word for plugin in plugins for word in ("--plugin", plugin)]
    return " ".join(filter(None, ["next:", shlex.join([program, *map(str, words)]), placeholder, shlex.join(named)]))


def suggest_python(code: str) -> str:
    """Return the next command to type where it is not one of this package: Python `code`.

    Examples
    --------
    >>> print(suggest_python("print('hello')"))
    next: python -c "print('hello')"
    """
    plain = not set(code) & set('"$`\\!')
    return f'next: python -c "{code}"' if plain else f"next: python -c {shlex.quote(code)}"
