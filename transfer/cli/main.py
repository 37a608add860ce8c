"""The `transfer` command: parse a command line into a typed config, and call the command (commands.py).

Nothing here imports torch before a command that needs it runs.
"""

import dataclasses
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from transfer.cli import help
from transfer.cli.commands import COMMANDS, JSON_COMMANDS
from transfer.config.adapt import AdaptConfig
from transfer.config.commands import AdviseConfig
from transfer.config.train import CompareConfig, TrainConfig
from transfer.errors import TransferError
from transfer.runtime import distributed
from transfer.runtime.escape import escape_unprintable
from transfer.runtime.plugins import load_plugin
from transfer.runtime.signals import StoppedBySignal

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class WithJsonFlag(Generic[T]):
    """The config of a command that can print its result as JSON."""

    config: Annotated[T, tyro.conf.arg(name="")]
    json: Annotated[bool, tyro.conf.arg(help=help.JSON_HELP)] = False


DISTRIBUTED_COMMANDS = (TrainConfig, CompareConfig, AdaptConfig, AdviseConfig)
"""Configs of the commands that can run in several processes, started by torchrun."""


def _run(call: Callable[[Any], None], config: Any) -> None:
    if not distributed.is_launched():
        call(config)
    elif isinstance(config, DISTRIBUTED_COMMANDS):
        with distributed.join_process_group():
            call(config)
    else:
        raise TransferError(
            "train, compare, adapt and advise alone run in several processes: start this without torchrun"
        )


class _ProgressHandler(logging.Handler):
    """Print log lines above any progress bar, to standard output, or to standard error if the result is JSON."""

    to_stderr = False

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(
            escape_unprintable(record.getMessage(), keep="\n"), file=sys.stderr if self.to_stderr else sys.stdout
        )


# OpenMP threads that wait actively make a shared machine several times slower. The library reads this once, when torch
# loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# --refit has a third state, the policy's default, but is written without a value as any other switch.
BARE_FLAGS = {"--refit": ["--refit", "True"], "--no-refit": ["--refit", "False"]}


def _parse(form: Any, argv: list[str], **options: Any) -> Any:
    words = []
    for i, word in enumerate(argv):
        bare = word in BARE_FLAGS and argv[i + 1 : i + 2] not in (["True"], ["False"], ["None"])
        words += BARE_FLAGS[word] if bare else [word]
    return tyro.cli(form, args=words, config=(tyro.conf.OmitArgPrefixes,), **options)


def load_plugins(argv: list[str]) -> list[str]:
    """Load what ``--plugin NAME`` names, anywhere on a command line, and return the other words.

    Raises
    ------
    TransferError
        A plugin is not found, its import fails, or the name is missing.
    """
    words = []
    rest = iter(argv)
    for word in rest:
        option, equals, name = word.partition("=")
        if option != "--plugin":
            words.append(word)
            continue
        name = name if equals else next(rest, "")
        if not name or name.startswith("--"):
            raise TransferError("--plugin: give the name of a module or the path of a .py file")
        load_plugin(name)
    return words


def _guarded(call: Callable[[_ProgressHandler], None]) -> int:
    """Run `call`; print its log lines, and a user's mistake as one line; return the exit code.

    In a distributed run rank 0 prints; of several failing processes the first one to fail does.
    """
    logger = logging.getLogger("transfer")
    handler = _ProgressHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with distributed.silence_other_ranks():
            call(handler)
            sys.stdout.flush()
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
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
    return 0


def parse(argv: list[str]) -> Any:
    """Return the config of a command line, as a :class:`WithJsonFlag` if the command can print JSON."""
    help_flags = [word for word in argv if word in help.FLAGS]
    name = next((word for word in argv if word in COMMANDS), None)
    if help_flags and name:
        show_all, has_json = "--help-all" in help_flags, name in JSON_COMMANDS
        help.print_help(COMMANDS[name][0], f"transfer {name}", show_all=show_all, has_json=has_json)
    forms: Any = None
    for name, (kind, _) in COMMANDS.items():
        about = tyro.conf.subcommand(name, description=kind.__doc__)
        form: Any = Annotated[WithJsonFlag[kind] if name in JSON_COMMANDS else kind, about]  # type: ignore[valid-type]
        forms = form if forms is None else forms | form
    return _parse(
        forms, argv, prog="transfer", description=f"Transfer learning for images.\n\n--plugin NAME: {help.PLUGIN_HELP}"
    )


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 bug, 2 bad arguments or input, 130 or 143 stopped."""

    def call(handler: _ProgressHandler) -> None:
        config = parse(load_plugins(sys.argv[1:] if argv is None else argv))
        flags = []
        if isinstance(config, WithJsonFlag):
            flags, handler.to_stderr, config = [config.json], config.json, config.config
        run = next(run for kind, run in COMMANDS.values() if isinstance(config, kind))
        _run(lambda config: run(config, *flags), config)

    return _guarded(call)


def script(run: Callable[[Any], None], default: Any, argv: list[str] | None = None) -> int:
    """Run a recipe: every field of the config `default` is an option, with its value as the default.

    Parameters
    ----------
    run : callable
        Called with the config; its module's docstring is the help text.
    """

    def call(handler: _ProgressHandler) -> None:
        words = load_plugins(sys.argv[1:] if argv is None else argv)
        prog = Path(sys.argv[0]).name
        description = sys.modules[run.__module__].__doc__ or ""
        if help_flags := [word for word in words if word in help.FLAGS]:
            show_all = "--help-all" in help_flags
            help.print_help(type(default), prog, default=default, show_all=show_all, description=description)
        _run(run, _parse(type(default), words, default=default, description=description))

    return _guarded(call)
