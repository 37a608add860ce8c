"""The `transfer` command: parse a command line into a typed config, and call the command (commands.py).

Nothing here imports torch before a command that needs it runs.
"""

import dataclasses
import io
import itertools
import logging
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import Annotated, Any, Generic, NoReturn, TypeVar

import tyro

from transfer.cli import help
from transfer.cli.commands import COMMANDS, JSON_COMMANDS
from transfer.cli.messages import PRINTS_OUTPUT, describe_start
from transfer.cli.run_folders import DEFAULT_OUT, SAVES, choose_run_folder
from transfer.config.adapt import AdaptConfig
from transfer.config.commands import AdviseConfig, EvaluateConfig
from transfer.config.lists import READERS
from transfer.config.serialise import iter_paths
from transfer.config.train import CompareConfig, RunConfig, TrainConfig
from transfer.errors import TransferError, did_you_mean
from transfer.runtime import distributed
from transfer.runtime.escape import escape_unprintable
from transfer.runtime.plugins import load_plugin, name_recorded_plugins
from transfer.runtime.process_exit import exit_at_once
from transfer.runtime.signals import StoppedBySignal
from transfer.runtime.streams import check_output, protect_streams
from transfer.runtime.version import VERSION

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class WithJsonFlag(Generic[T]):
    """The config of a command that can print its result as JSON."""

    config: Annotated[T, tyro.conf.arg(name="")]
    json: Annotated[bool, tyro.conf.arg(help=help.JSON_HELP)] = False


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

# --refit has a third state, the policy's default, but is written without a value as any other switch.
BARE_FLAGS = {"--refit": ["--refit", "True"], "--no-refit": ["--refit", "False"]}


def _unbox(text: str) -> str:
    """Return as one line the first paragraph, below the title, of a box that tyro draws."""
    lines = [line.strip(" │╭╮╰╯") for line in text.splitlines()]
    paragraphs = itertools.groupby(lines[1:], lambda line: set(line) <= {"─", "-"})  # a rule is between two of them
    return next((" ".join(" ".join(part).split()) for rule, part in paragraphs if not rule), "bad arguments")


def _parse(kind: type, form: Any, argv: list[str], prog: str, default: Any = None) -> Any:
    """Return the config of the class `kind` that a command line gives, in the type `form`.

    A single word that is no option's value is that of ``--data``, if the command has this option.

    Raises
    ------
    TransferError
        An option is unknown or missing, or a value is of another type.
    """
    words = []
    for i, word in enumerate(argv):
        bare = word in BARE_FLAGS and argv[i + 1 : i + 2] not in (["True"], ["False"], ["None"])
        words += BARE_FLAGS[word] if bare else [word]
    options = {} if default is None else {"default": default}
    errors = io.StringIO()
    try:
        with redirect_stderr(errors):
            config, unknown = tyro.cli(
                form,
                args=words,
                prog=prog,
                return_unknown_args=True,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff),
                registry=READERS,
                **options,
            )
    except SystemExit as end:
        if not end.code:
            raise
        text = _unbox(errors.getvalue()).removeprefix("Error parsing ").rstrip(".")
        raise TransferError(f"{text}; see {prog} --help") from None
    if not unknown:
        return config
    takes_data = "--data" in help.list_options(kind) and not any(word.partition("=")[0] == "--data" for word in words)
    if len(unknown) == 1 and not unknown[0].startswith("-") and takes_data and kind is not EvaluateConfig:
        words.remove(unknown[0])
        return _parse(kind, form, [*words, "--data", unknown[0]], prog, default)
    further = 1 if takes_data and kind is not EvaluateConfig else 0  # the first word is that of --data
    name = next((word for word in unknown if word.startswith("-")), unknown[min(further, len(unknown) - 1)])
    name = name.partition("=")[0]
    what = "unknown option" if name.startswith("-") else "unexpected argument"
    known = [option.removeprefix("--") for option in help.list_options(kind, has_json=form is not kind)]
    near = did_you_mean(name.lstrip("-"), known, limit=1).replace("'", "'--", 1)  # dashes make short names alike
    raise TransferError(f"{what} {name}{near}; see {prog} --help")


def split_plugins(argv: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return a command line without its options ``--plugin NAME``, and what they name.

    Raises
    ------
    TransferError
        A name is missing.
    """
    words, plugins = [], []
    rest = iter(argv)
    for word in rest:
        option, equals, name = word.partition("=")
        if option != "--plugin":
            words.append(word)
            continue
        name = name if equals else next(rest, "")
        if not name or (not equals and name.startswith("--")):
            raise TransferError("--plugin: give the name of a module or the path of a .py file")
        plugins.append(name)
    return words, tuple(plugins)


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


def _record_plugins(config: Any, plugins: tuple[str, ...]) -> Any:
    """Return `config` with the plugins in its RunConfig, if it has one."""
    if isinstance(config, RunConfig):
        return dataclasses.replace(config, plugin=plugins)
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    nested = {name: value for name, value in values.items() if dataclasses.is_dataclass(value)}
    return dataclasses.replace(config, **{name: _record_plugins(value, plugins) for name, value in nested.items()})


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


def parse(argv: list[str]) -> Any:
    """Return the config of a command line, as a :class:`WithJsonFlag` if the command can print JSON.

    Raises
    ------
    TransferError
        The command is unknown or missing, or its options are wrong.
    """
    words, plugins = split_plugins(argv)
    help_flags = [word for word in words if word in help.FLAGS]
    name = next((word for word in words if word in COMMANDS), "") if help_flags else "".join(words[:1])
    if help_flags and not name:
        help.print_commands({name: kind for name, (kind, _) in COMMANDS.items()})
    if name not in COMMANDS:
        what = f"unknown command {name!r}{did_you_mean(name, COMMANDS)}" if name else "the command is missing"
        raise TransferError(f"{what}; known: {', '.join(COMMANDS)}; see transfer --help")
    kind, has_json, prog = COMMANDS[name][0], name in JSON_COMMANDS, f"transfer {name}"
    if help_flags:
        help.print_help(kind, prog, show_all="--help-all" in help_flags, has_json=has_json)
    form = WithJsonFlag[kind] if has_json else kind  # type: ignore[valid-type]
    if kind in (*SAVES, AdviseConfig) and not any(word.partition("=")[0] == "--out" for word in words):
        words = [*words, "--out", DEFAULT_OUT]
    return _record_plugins(_parse(kind, form, words[1:], prog), plugins)


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
        config = _record_plugins(_parse(type(default), type(default), words, prog, default), plugins)
        _run(run, _name_backbone_for_digits(config, words, digits) if digits else config)

    return _guarded(call)
