"""``--help`` shows the options that most people need, in named groups; ``--help-all`` shows every option.

Option texts are the docstrings of the config classes. Names of policies, methods, rules and head kinds come from
registries.
"""

import dataclasses
import pkgutil
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

from transfer.config.shared import ADVANCED

FLAGS = ("-h", "--help", "--help-all")
JSON_HELP = "Print only the result, as JSON; log lines go to standard error."
PLUGIN_HELP = "Import a module or .py file that registers your own policies, heads, methods or backbones; repeatable."
GROUP_TITLES = {
    "shift": "Domain",
    "heads": "Head",
    "policy": "Freezing",
    "method": "Method",
    "learn": "Training",
    "steps": "Training",
    "run": "Output",
    "images": "Data",
    "view": "Test-time augmentation",
    "regularise": "Regularisation",
}
"""Titles of the option groups, by field name; other groups are titled by their field."""


REGISTRIES: dict[str, tuple[str, dict[str, bool]]] = {
    "policy.policy": ("transfer.freeze.policy:summarise_policies", {}),
    "method.policy": ("transfer.freeze.policy:summarise_policies", {"adaptation": True}),
    "method.method": ("transfer.adaptation.registry:method_summaries", {}),
    "method.rule": ("transfer.adaptation.selection.validators:rule_summaries", {}),
    ".strategy": ("transfer.curation.picking.registry:summarise_strategies", {}),
    "data.targets": ("transfer.heads.registry:head_summaries", {}),
}
"""Options whose values are registered names, as GROUP.NAME: what to call for these names with their summaries."""


@dataclasses.dataclass(frozen=True)
class _Option:
    """A field of a config as the help shows it."""

    name: str
    group: str
    hint: Any
    default: Any
    help: str

    @property
    def advanced(self) -> bool:
        return ADVANCED in get_args(self.hint)

    @property
    def takes_several(self) -> bool:
        """Whether its value is several, separated by commas."""
        return get_origin(self.hint.__origin__ if get_origin(self.hint) is Annotated else self.hint) is tuple

    def field(self) -> tuple[str, Any, Any]:
        """Return name, type with help text, and default, as `dataclasses.make_dataclass` takes them."""
        hint, default, metavar, text = self.hint, self.default, None, self.help
        if call := REGISTRIES.get(f"{self.group}.{self.name}"):
            summaries = pkgutil.resolve_name(call[0])(**call[1])
            if default:
                text += f" (default: {','.join(default) if isinstance(default, tuple) else default})"
            text += "".join(f"\n- {name}: {summary}" for name, summary in summaries.items())
        kinds = get_args(hint.__origin__ if get_origin(hint) is Annotated else hint)
        if types.NoneType in kinds:  # `int | None` is shown as INT
            (kind,) = set(kinds) - {types.NoneType}
            hint, default, metavar = (bool, False, None) if kind is bool else (hint, default, kind.__name__.upper())
        explained = "default:" in text or self.default is None
        about = tyro.conf.arg(help=text, metavar=metavar, help_behavior_hint="" if explained else None)
        return self.name, Annotated[hint, about], dataclasses.field(default=default)


def print_help(
    kind: type, prog: str, *, default: Any = None, show_all: bool, has_json: bool = False, description: str = ""
) -> None:
    """Print the options of the config class `kind` and exit with code 0.

    Parameters
    ----------
    kind : type
        A dataclass, whose dataclass fields are groups of options.
    default : object, optional
        A config whose values are shown as defaults (default: those of the class).
    show_all : bool
        Include advanced options.
    has_json : bool
        Whether the command has the option ``--json``.
    description : str, optional
        Text above the options (default: the class's docstring).
    """
    groups = list(_groups(kind, default, ""))
    fields: list[Any] = []
    hidden = 0
    for title, about, options in groups:
        shown = [option for option in options if show_all or not option.advanced]
        hidden += len(options) - len(shown)
        if title and shown:
            fields.append(_group_field(title, about, shown))
        elif shown:
            fields = [option.field() for option in shown] + fields
    description = description or " ".join((kind.__doc__ or "").split())
    if hidden:
        description += f"\n\n{hidden} more options: --help-all"
    top = dataclasses.make_dataclass("Options", [*fields, *_common_fields(has_json)], kw_only=True)
    tyro.cli(top, args=["--help"], prog=prog, description=description, config=(tyro.conf.OmitArgPrefixes,))
    sys.exit(0)


def print_commands(commands: Mapping[str, type]) -> None:
    """Print the commands and their configs' docstrings, and exit with code 0."""
    print("usage: transfer COMMAND [OPTIONS]\n       transfer --version\n\nTransfer learning for images.\n\ncommands:")
    for name, kind in commands.items():
        print(f"  {name:<11}{' '.join((kind.__doc__ or '').split())}")
    print(
        f"\noptions of every command:\n  --help, --help-all\n  --plugin NAME\n{textwrap.indent(PLUGIN_HELP, ' ' * 13)}"
    )
    sys.exit(0)


def list_options(kind: type, *, has_json: bool = False, several: bool = False) -> list[str]:
    """Return the options of a command with the config class `kind` as they are written, such as ``--lr``.

    With `several`, only those that take several values, separated by commas.
    """
    found = [option for _, _, options in _groups(kind, None, "") for option in options]
    names = [option.name.replace("_", "-") for option in found]
    if several:
        return [f"--{name}" for name, option in zip(names, found, strict=True) if option.takes_several]
    return [f"--{name}" for name in (*names, "plugin", *(["json"] if has_json else []), "help", "help-all")]


def _groups(kind: type, default: Any, group: str) -> Iterator[tuple[str, str, list[_Option]]]:
    """Yield title, description and options of a config class, then those of its nested classes."""
    hints, texts = get_type_hints(kind, include_extras=True), _read_docstrings(kind)
    options, nested = [], []
    for field in dataclasses.fields(kind):
        if field.name == "plugin":  # among the options of every command
            continue
        value = getattr(default, field.name) if default is not None else _default(field)
        if isinstance(hints[field.name], type) and dataclasses.is_dataclass(hints[field.name]):
            nested.append((hints[field.name], value, field.name))
        else:
            options.append(_Option(field.name, group, hints[field.name], value, texts.get(field.name, "")))
    options.sort(key=lambda option: option.name != group)  # --policy before --backbone-lr
    yield _title(group), " ".join((kind.__doc__ or "").split()), options
    for inner, value, name in nested:
        yield from _groups(inner, value, name)


def _title(name: str) -> str:
    return GROUP_TITLES.get(name, name.capitalize()) if name not in ("train", "adapt") else ""


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _group_field(title: str, about: str, options: list[_Option]) -> tuple[str, Any, Any]:
    group: Any = dataclasses.make_dataclass(title.replace(" ", ""), [option.field() for option in options])
    group.__doc__ = about
    name = title.lower().replace(" ", "_").replace("-", "_")
    annotated = Annotated[group, tyro.conf.arg(name=title, help=about)]
    return name, annotated, dataclasses.field(default_factory=group)


def _common_fields(has_json: bool) -> list[tuple[str, Any, Any]]:
    """Return the options that no config holds."""
    plugin = tyro.conf.arg(help=PLUGIN_HELP, metavar="NAME", help_behavior_hint="")
    json = Annotated[bool, tyro.conf.arg(help=JSON_HELP)]
    show_all = tyro.conf.arg(help="Show every option and exit.", help_behavior_hint="")
    return [
        *([("json", json, dataclasses.field(default=False))] if has_json else []),
        ("plugin", Annotated[str, plugin], dataclasses.field(default="")),
        ("help_all", Annotated[bool, show_all, tyro.conf.FlagCreatePairsOff], dataclasses.field(default=False)),
    ]


def _read_docstrings(kind: type) -> dict[str, str]:
    """Return the docstring of each field, those of base classes included."""
    import docstring_parser

    texts: dict[str, str] = {}
    for cls in reversed(kind.__mro__[:-1]):
        for param in docstring_parser.parse_from_object(cls).params:
            if param.description:
                texts[param.arg_name] = " ".join(param.description.split())
    return texts
