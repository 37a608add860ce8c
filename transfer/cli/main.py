"""The `transfer` command: every subcommand is a typed config and one call (calls.py).

Nothing here imports torch before a command that needs it runs.
"""

import dataclasses
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

import tyro

from transfer.cli.commands import COMMANDS, SPOKEN
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
class Spoken(Generic[T]):
    """A command whose result can be had as JSON."""

    config: Annotated[T, tyro.conf.arg(name="")]
    json: bool = False
    """Print the result alone, as JSON, for programs; all else goes to standard error."""


TOGETHER = (TrainConfig, CompareConfig, AdaptConfig, AdviseConfig)
"""What several processes can do together, started by torchrun."""


def _run(call: Callable[[Any], None], config: Any) -> None:
    if not distributed.is_launched():
        call(config)
    elif isinstance(config, TOGETHER):
        with distributed.join_process_group():
            call(config)
    else:
        raise TransferError("train, compare, adapt and advise run in several processes: start this without torchrun")


class _Lines(logging.Handler):
    """Progress lines on standard output (or error, where that is for the result alone), clear of any progress bar."""

    aside = False

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(escape_unprintable(record.getMessage(), keep="\n"), file=sys.stderr if self.aside else sys.stdout)


# Threads that wait for each other by spinning make a machine that others use too several times slower. Read by the
# OpenMP library once, when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A bare flag, as for any other switch, though this one has a third state: what the policy makes of it.
SPELLED = {"--refit": ["--refit", "True"], "--no-refit": ["--refit", "False"]}


def _parse(form: Any, argv: list[str], **options: Any) -> Any:
    words = []
    for i, word in enumerate(argv):
        bare = word in SPELLED and argv[i + 1 : i + 2] not in (["True"], ["False"], ["None"])
        words += SPELLED[word] if bare else [word]
    return tyro.cli(form, args=words, config=(tyro.conf.OmitArgPrefixes,), **options)


PLUGIN_HELP = "--plugin NAME (repeatable, any command): import a module or .py file that registers your own classes."


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


def _guarded(call: Callable[[_Lines], None]) -> int:
    """Run `call`; print its log lines, and a user's mistake as one line; return the exit code.

    Of several processes the first prints, and of those that fail the first to.
    """
    logger = logging.getLogger("transfer")
    handler = _Lines()
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
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if isinstance(error, PermissionError) and error.filename:
            distributed.print_once(f"transfer: {escape_unprintable(str(error.filename))}: {error.strerror}")
            return 2
        # A fault of ours: one traceback is enough.
        if not distributed.print_once(""):
            return 1
        raise
    finally:
        logger.removeHandler(handler)
    return 0


def parse(argv: list[str]) -> Any:
    """Return the config of a command line, as a :class:`Spoken` one of a command whose result can be had as JSON."""
    forms: Any = None
    for name, (kind, _) in COMMANDS.items():
        about = tyro.conf.subcommand(name, description=kind.__doc__)
        form: Any = Annotated[Spoken[kind] if name in SPOKEN else kind, about]  # type: ignore[valid-type]
        forms = form if forms is None else forms | form
    return _parse(forms, argv, prog="transfer", description=f"Transfer learning for images. {PLUGIN_HELP}")


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 2 bad arguments or input, 130 or 143 stopped."""

    def call(lines: _Lines) -> None:
        config = parse(load_plugins(sys.argv[1:] if argv is None else argv))
        more = []
        if isinstance(config, Spoken):
            more, lines.aside, config = [config.json], config.json, config.config
        run = next(run for kind, run in COMMANDS.values() if isinstance(config, kind))
        _run(lambda config: run(config, *more), config)

    return _guarded(call)


def script(run: Callable[[Any], None], default: Any, argv: list[str] | None = None) -> int:
    """Run a recipe: every setting of the config `default` is an option, with its value as the default.

    Parameters
    ----------
    run : callable
        Gets the config; its module's docstring is the help text.
    """

    def call(lines: _Lines) -> None:
        words = load_plugins(sys.argv[1:] if argv is None else argv)
        description = f"{sys.modules[run.__module__].__doc__}\n{PLUGIN_HELP}"
        _run(run, _parse(type(default), words, default=default, description=description))

    return _guarded(call)
