"""The run folder of a command that names none: ``runs/<data>-<backbone>-<policy>``, or the unfinished one to resume.

The Python API writes nothing without `out`; only the command line has this default.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from transfer.config.adapt import AdaptConfig
from transfer.config.commands import AdviseConfig, LrFindConfig, SearchConfig, UpdateConfig
from transfer.config.serialise import to_dict
from transfer.config.train import CompareConfig, RunConfig, TrainConfig
from transfer.errors import TransferError
from transfer.runs.folder import find_differing_options
from transfer.runtime import distributed

RUNS_FOLDER = Path("runs")
DEFAULT_OUT = "runs/<data>-<backbone>-<policy>"  # stands in a parsed command line that has no --out
NOTHING = "none"
SAVES = (TrainConfig, UpdateConfig, CompareConfig, AdaptConfig, SearchConfig, LrFindConfig)
"""Configs of the commands that save their results by default; advise does with --run."""

log = logging.getLogger(__name__)


def get_run_config(config: Any) -> RunConfig:
    """Return the RunConfig of a command's config."""
    return config.run if isinstance(config, (TrainConfig, AdaptConfig)) else config.train.run


def choose_run_folder(config: Any) -> Any:
    """Return the config of a command with its run folder in place of the default, or of ``none``.

    Raises
    ------
    TransferError
        ``--resume`` without ``--out``, and there is no unfinished run of these options.
    """
    if isinstance(config, UpdateConfig):
        return _choose_updated_folder(config)
    run = get_run_config(config)
    if run.out is None or str(run.out) not in (str(Path(DEFAULT_OUT)), NOTHING):
        return config
    saves = isinstance(config, SAVES) or (isinstance(config, AdviseConfig) and config.run)
    if str(run.out) == NOTHING or not saves:
        return _with_out(config, None)
    base = RUNS_FOLDER / name_run(config)
    if run.resume:
        return _with_out(config, Path(distributed.broadcast(str(_find_unfinished(config, base)))))
    free = base if run.overwrite else next(path for path in _number(base) if not path.exists())
    return _with_out(config, Path(distributed.broadcast(str(free))))


def _choose_updated_folder(config: UpdateConfig) -> UpdateConfig:
    if config.out is None or str(config.out) == NOTHING:
        return replace(config, out=None)
    if config.out != Path(DEFAULT_OUT):
        return config
    run = config.run.absolute() if config.run.name in ("", "..") else config.run
    base = run.with_name(re.sub(r"-updated(-\d+)?$", "", run.name) + "-updated")
    free = base if config.overwrite else next(path for path in _number(base) if not path.exists())
    return replace(config, out=free)


def name_run(config: Any) -> str:
    """Return the name of a run's folder, safe on every file system.

    Examples
    --------
    >>> from transfer.config.train import DataConfig, PolicyConfig
    >>> name_run(TrainConfig(DataConfig("photos/My flowers"), policy=PolicyConfig("truncate:1+partial:2")))
    'My-flowers-tf_efficientnet_lite0-truncate-1-partial-2'
    """
    if isinstance(config, AdaptConfig):
        images = config.shift.target_images
        target = config.shift.target or (images.name if images else "")
        sides = f"{'-'.join(config.shift.source) or 'all'}-to-{target}"
        return _make_safe(f"{name_data_set(config.shift.data)}-{sides}")
    train = config if isinstance(config, TrainConfig) else config.train
    last = {CompareConfig: "compare", SearchConfig: "search", LrFindConfig: "lr-find", AdviseConfig: "advised"}
    several = isinstance(config, AdviseConfig) and config.backbones
    backbone = "" if several else f"-{train.backbone.backbone}"
    return _make_safe(f"{name_data_set(train.data.data)}{backbone}-{last.get(type(config), train.policy.policy)}")


def name_data_set(data: str) -> str:
    """Return the name of a data set for a folder: the last part of its path or URL, without a suffix."""
    last = data.partition("?")[0].rstrip("/\\")
    name = last.rpartition("/")[2] if "://" in last else Path(last).expanduser().absolute().name
    return _make_safe(re.sub(r"\.(csv|tsv|tar)$", "", name, flags=re.IGNORECASE))


def _make_safe(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name).strip("-.")[:120] or "run"


def _number(base: Path) -> Iterator[Path]:
    yield base
    yield from (base.with_name(f"{base.name}-{number}") for number in count(2))


def _with_out(config: Any, out: Path | None) -> Any:
    run = replace(get_run_config(config), out=out)
    if isinstance(config, (TrainConfig, AdaptConfig)):
        return replace(config, run=run)
    return replace(config, train=replace(config.train, run=run))


def _find_unfinished(config: Any, base: Path) -> Path:
    """Return the newest unfinished run of the same options among `base`, `base`-2, ..."""
    names = re.compile(rf"{re.escape(base.name)}(-\d+)?")
    folders = [
        path for path in RUNS_FOLDER.glob("*") if names.fullmatch(path.name) and (path / "config.json").is_file()
    ]
    unfinished = [path for path in folders if not (path / "result.json").is_file()]
    other = ""
    for path in sorted(unfinished, key=lambda path: (path / "config.json").stat().st_mtime, reverse=True):
        differing = find_differing_options(path, to_dict(config))
        # adapt sets --views itself where it is not given; the run folder compares it again.
        if not set(differing) - ({"views"} if isinstance(config, AdaptConfig) and not config.cache.views else set()):
            log.info("resuming the unfinished run in %s", path)
            return path
        other = other or f"; the one in {path} has another {', '.join(differing[:5])}"
    raise TransferError(
        f"--resume: no unfinished run of these options as {base}, {base.name}-2, …{other}: name its folder with "
        "--out, or leave out --resume to start one"
    )
