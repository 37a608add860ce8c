"""A command line -> the typed config of a command. Imports no torch."""

import dataclasses
import io
import itertools
from contextlib import redirect_stderr
from typing import Annotated, Any, Generic, TypeVar

import tyro

from transfer.cli import help
from transfer.cli.commands import COMMANDS, JSON_COMMANDS
from transfer.cli.run_folders import DEFAULT_OUT, SAVES
from transfer.config.commands import AdviseConfig, EvaluateConfig
from transfer.config.lists import READERS
from transfer.config.train import RunConfig
from transfer.errors import TransferError, did_you_mean

T = TypeVar("T")

# --refit has a third state, the policy's default, but is written without a value as any other switch.
BARE_FLAGS = {"--refit": ["--refit", "True"], "--no-refit": ["--refit", "False"]}


@dataclasses.dataclass(frozen=True)
class WithJsonFlag(Generic[T]):
    """The config of a command that can print its result as JSON."""

    config: Annotated[T, tyro.conf.arg(name="")]
    json: Annotated[bool, tyro.conf.arg(help=help.JSON_HELP)] = False


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
    return record_plugins(parse_options(kind, form, words[1:], prog), plugins)


def parse_options(kind: type, form: Any, argv: list[str], prog: str, default: Any = None) -> Any:
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
        return parse_options(kind, form, [*words, "--data", unknown[0]], prog, default)
    further = 1 if takes_data and kind is not EvaluateConfig else 0  # the first word is that of --data
    name = next((word for word in unknown if word.startswith("-")), unknown[min(further, len(unknown) - 1)])
    name = name.partition("=")[0]
    if not name.startswith("-"):
        raise TransferError(f"unexpected argument {name}{_suggest_commas(kind, words, name)}; see {prog} --help")
    known = [option.removeprefix("--") for option in help.list_options(kind, has_json=form is not kind)]
    near = did_you_mean(name.lstrip("-"), known, limit=1).replace("'", "'--", 1)  # dashes make short names alike
    raise TransferError(f"unknown option {name}{near}; see {prog} --help")


def _suggest_commas(kind: type, words: list[str], name: str) -> str:
    """Return how to write the word `name`, if it follows the value of an option that takes several, or nothing."""
    option, value = ["", "", *words[: words.index(name)]][-2:]
    if option not in help.list_options(kind, several=True):
        return ""
    return f": separate the values of an option by commas, {option} {value},{name}"


def _unbox(text: str) -> str:
    """Return as one line the first paragraph, below the title, of a box that tyro draws."""
    lines = [line.strip(" │╭╮╰╯") for line in text.splitlines()]
    paragraphs = itertools.groupby(lines[1:], lambda line: set(line) <= {"─", "-"})  # a rule is between two of them
    return next((" ".join(" ".join(part).split()) for rule, part in paragraphs if not rule), "bad arguments")


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


def record_plugins(config: Any, plugins: tuple[str, ...]) -> Any:
    """Return `config` with the plugins in its RunConfig, if it has one."""
    if isinstance(config, RunConfig):
        return dataclasses.replace(config, plugin=plugins)
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    nested = {name: value for name, value in values.items() if dataclasses.is_dataclass(value)}
    return dataclasses.replace(config, **{name: record_plugins(value, plugins) for name, value in nested.items()})
