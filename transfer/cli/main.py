"""The `transfer` command: parse a command line into a typed config, and call the command (commands.py).

Nothing here imports torch before a command that needs it runs.
"""

import dataclasses
import logging
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

from transfer.cli import help
from transfer.cli.arguments import WithJsonFlag, parse, parse_options, record_plugins, split_plugins
from transfer.cli.commands import COMMANDS
from transfer.cli.messages import PRINTS_OUTPUT, describe_start
from transfer.cli.run_folders import SAVES, choose_run_folder
from transfer.config.adapt import AdaptConfig
from transfer.config.commands import AdviseConfig
from transfer.config.serialise import iter_paths
from transfer.config.train import CompareConfig, TrainConfig
from transfer.errors import TransferError
from transfer.runtime import distributed
from transfer.runtime.escape import escape_unprintable
from transfer.runtime.plugins import load_plugin, name_recorded_plugins
from transfer.runtime.process_exit import exit_at_once
from transfer.runtime.signals import StoppedBySignal
from transfer.runtime.streams import check_output, protect_streams
from transfer.runtime.version import VERSION

log = logging.getLogger(__name__)


DISTRIBUTED_COMMANDS = (TrainConfig, CompareConfig, AdaptConfig, AdviseConfig)
"""Configs of the commands that can run in several processes, started by torchrun."""

OWN_NETWORKS = {"--backbone", "--backbones", "--cases"}  # options of recipes that name networks, or other data


def _run(call: Callable[[Any], None], config: Any) -> None:
    launched = distributed.is_launched()
    if launched and not isinstance(config, DISTRIBUTED_COMMANDS):
        raise TransferError(
            "train, compare, adapt and advise alone run in several processes: start this without torchrun"
        )
    with distributed.join_process_group() if launched else nullcontext(), name_recorded_plugins(*iter_paths(config)):
        call(config)


class _ProgressHandler(logging.Handler):
    """Print log lines above any progress bar, to standard output, or to standard error if the result is data."""

    to_stderr = False

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(
            escape_unprintable(record.getMessage(), keep="\n"), file=sys.stderr if self.to_stderr else sys.stdout
        )


# OpenMP threads that wait actively make a shared machine several times slower. The library reads this once, when torch
# loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _name_backbone_for_digits(config: Any, words: list[str], backbone: str) -> Any:
    """Return a recipe's config with this backbone, if its data are the embedded digits and `words` name no other."""
    nested = hasattr(config, "train")
    train = config.train if nested else config
    if train.data.data != "digits" or OWN_NETWORKS & {word.partition("=")[0] for word in words}:
        return config
    train = dataclasses.replace(train, backbone=dataclasses.replace(train.backbone, backbone=backbone))
    return dataclasses.replace(config, train=train) if nested else train


def _load_plugins(argv: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Load the plugins that a command line names, and return what :func:`split_plugins` does."""
    words, plugins = split_plugins(argv)
    for name in plugins:
        load_plugin(name)
    return words, plugins


def _guarded(call: Callable[[_ProgressHandler], None]) -> int:
    """Run `call` as :func:`_exit_code` does, with standard streams that cannot end it."""
    with protect_streams():
        return _exit_code(call)


def _exit_code(call: Callable[[_ProgressHandler], None]) -> int:
    """Run `call`; print its log lines, and a user's mistake as one line; return the exit code.

    In a distributed run rank 0 prints; of several failing processes the first one to fail does.
    """
    logger = logging.getLogger("transfer")
    handler = _ProgressHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    propagate, logger.propagate = logger.propagate, False  # else a line comes twice once a package configures logging
    try:
        with distributed.silence_other_ranks():
            call(handler)
            check_output(sys.stdout)
    except TransferError as error:
        line = " ".join(str(error).split())
        distributed.print_once(f"transfer: {escape_unprintable(line if len(line) < 1500 else line[:1500] + ' ...')}")
        return 2
    except StoppedBySignal as stop:
        distributed.print_once(f"transfer: {stop}")
        return 128 + stop.number
    except KeyboardInterrupt:
        distributed.print_once("transfer: interrupted")
        return 130
    except Exception as error:
        if isinstance(error, PermissionError) and error.filename:
            distributed.print_once(f"transfer: {escape_unprintable(str(error.filename))}: {error.strerror}")
            return 2
        # A bug: only one process prints its traceback.
        if not distributed.print_once(""):
            return 1
        raise
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 bug, 2 bad arguments or input, 130 or 143 stopped."""

    def call(handler: _ProgressHandler) -> None:
        words = sys.argv[1:] if argv is None else argv
        if "--version" in words[:1]:
            print(f"transfer {VERSION}")
            return
        _load_plugins(words)
        config = parse(words)
        flags = []
        if isinstance(config, WithJsonFlag):
            flags, handler.to_stderr, config = [config.json], config.json, config.config
        handler.to_stderr = handler.to_stderr or isinstance(config, PRINTS_OUTPUT)
        run = next(run for kind, run in COMMANDS.values() if isinstance(config, kind))

        def start(config: Any) -> None:
            if isinstance(config, (*SAVES, AdviseConfig)):
                config = choose_run_folder(config)
            log.info("%s", describe_start(config))  # before torch is imported
            run(config, *flags)

        _run(start, config)

    return _guarded(call)


def run() -> NoReturn:
    """Run the command of this process and exit."""
    if distributed.is_launched():  # several processes end together: each as Python does
        raise SystemExit(main())
    exit_at_once(main)


def script(run: Callable[[Any], None], default: Any, argv: list[str] | None = None, *, digits: str = "") -> int:
    """Run a recipe: every field of the config `default` is an option, with its value as the default.

    Parameters
    ----------
    run : callable
        Called with the config; its module's docstring is the help text.
    digits : str
        The backbone on the embedded digits if the words name none: a small one, to train in minutes.
    """

    def call(handler: _ProgressHandler) -> None:
        words, plugins = _load_plugins(sys.argv[1:] if argv is None else argv)
        prog = Path(sys.argv[0]).name
        description = sys.modules[run.__module__].__doc__ or ""
        if help_flags := [word for word in words if word in help.FLAGS]:
            show_all = "--help-all" in help_flags
            help.print_help(type(default), prog, default=default, show_all=show_all, description=description)
        config = record_plugins(parse_options(type(default), type(default), words, prog, default), plugins)
        _run(run, _name_backbone_for_digits(config, words, digits) if digits else config)

    return _guarded(call)
