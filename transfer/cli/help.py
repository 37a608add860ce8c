"""``--help`` shows the options that most people need, in named groups; ``--help-all`` shows every option.

Option texts are the docstrings of the config classes. Names of policies, methods, rules and head kinds come from
registries.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, get_args, get_type_hints

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
    "view": "Test-time augmentation",
    "regularise": "Regularisation",
}
"""Titles of the option groups, by field name; other groups are titled by their field."""


def _policies() -> dict[str, str]:
    from transfer.freeze.policy import summarise_policies

    return summarise_policies()


def _methods() -> dict[str, str]:
    from transfer.adaptation.registry import method_summaries

    return method_summaries()


def _rules() -> dict[str, str]:
    from transfer.adaptation.selection.validators import rule_summaries

    return rule_summaries()


def _head_kinds() -> dict[str, str]:
    from transfer.heads.registry import head_summaries

    return head_summaries()


REGISTRIES: dict[str, Callable[[], dict[str, str]]] = {
    "policy": _policies,
    "method": _methods,
    "rule": _rules,
    "targets": _head_kinds,
}
"""Options whose values are registered names: what lists these names with their summaries."""


@dataclasses.dataclass(frozen=True)
class _Option:
    """A field of a config as the help shows it."""

    name: str
    hint: Any
    default: Any
    help: str

    @property
    def advanced(self) -> bool:
        return ADVANCED in get_args(self.hint)

    def annotated(self, show_all: bool) -> Any:
        """Return the field's type with its help text for tyro."""
        text = self.help
        if self.name in REGISTRIES:
            summaries = REGISTRIES[self.name]()
            if show_all:
                text += "".join(f"\n- {name}: {summary}" for name, summary in summaries.items())
            else:
                text += f" Known: {', '.join(summaries)}."
        explained = "default:" in self.help or self.default is None
        return Annotated[self.hint, tyro.conf.arg(help=text, help_behavior_hint="" if explained else None)]


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
            fields.append(_group_field(title, about, shown, show_all))
        elif shown:
            fields = [_field(option, show_all) for option in shown] + fields
    description = description or " ".join((kind.__doc__ or "").split())
    if hidden:
        description += f"\n\n{hidden} more options: --help-all"
    top = dataclasses.make_dataclass("Options", [*fields, *_common_fields(has_json)], kw_only=True)
    tyro.cli(top, args=["--help"], prog=prog, description=description, config=(tyro.conf.OmitArgPrefixes,))
    sys.exit(0)


def _groups(kind: type, default: Any, group: str) -> Iterator[tuple[str, str, list[_Option]]]:
    """Yield title, description and options of a config class, then those of its nested classes."""
    hints, texts = get_type_hints(kind, include_extras=True), _read_docstrings(kind)
    options, nested = [], []
    for field in dataclasses.fields(kind):
        value = getattr(default, field.name) if default is not None else _default(field)
        if isinstance(hints[field.name], type) and dataclasses.is_dataclass(hints[field.name]):
            nested.append((hints[field.name], value, field.name))
        else:
            options.append(_Option(field.name, hints[field.name], value, texts.get(field.name, "")))
    options.sort(key=lambda option: option.name != group)  # --policy before --backbone-lr
    yield _title(group), " ".join((kind.__doc__ or "").split()), options
    for inner, value, name in nested:
        yield from _groups(inner, value, name)


def _title(name: str) -> str:
    return GROUP_TITLES.get(name, name.capitalize()) if name not in ("train", "adapt") else ""


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _group_field(title: str, about: str, options: list[_Option], show_all: bool) -> tuple[str, Any, Any]:
    group: Any = dataclasses.make_dataclass(title.replace(" ", ""), [_field(option, show_all) for option in options])
    group.__doc__ = about
    name = title.lower().replace(" ", "_").replace("-", "_")
    annotated = Annotated[group, tyro.conf.arg(name=title, help=about)]
    return name, annotated, dataclasses.field(default_factory=group)


def _field(option: _Option, show_all: bool) -> tuple[str, Any, Any]:
    field = dataclasses.field() if option.default is dataclasses.MISSING else dataclasses.field(default=option.default)
    return option.name, option.annotated(show_all), field


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
