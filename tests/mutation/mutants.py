"""Mutants of a module: each is its syntax tree with one small fault, such as ``<`` for ``<=``."""

import ast
import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

Change = tuple[ast.AST, str]  # the new node, and the change in words where the code itself does not show it

COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
NAMES = {"any": "all", "floor": "ceil", "min": "max", "minimum": "maximum", "argmin": "argmax", "zeros": "ones"}
NAMES |= {new: old for old, new in NAMES.items()}
UNWRAPPED = {"abs", "reversed", "sorted"}  # f(x) becomes x
OMITTED_METHODS = {"clone", "copy"}  # x.copy() becomes x
# What only people read: messages, progress bars and checks of our own that hold for correct code.
SKIPPED_CALLS = {"tqdm", "bar", "log", "warnings", "cast"}
SKIPPED_KEYWORDS = {"strict", "desc", "unit", "disable", "leave", "non_blocking"}
SKIPPED_STATEMENTS = (ast.Import, ast.ImportFrom, ast.Assert, ast.Global, ast.Nonlocal)


@dataclass(frozen=True)
class Mutant:
    """A fault: `new` in the `field` of `parent` (at `index`, if that is a list)."""

    number: int  # line in the file
    lines: range  # all lines of its statement, or of the head of a compound one
    line: str  # text of the line
    change: str  # "before -> after"
    in_function: bool  # in its body; elsewhere the fault shows when the module is imported
    parent: ast.AST
    field: str
    index: int | None
    new: ast.AST

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Have the fault in the tree within the context."""
        values = getattr(self.parent, self.field)
        new = self.new if self.index is None else [*values[: self.index], self.new, *values[self.index + 1 :]]
        setattr(self.parent, self.field, new)
        try:
            yield
        finally:
            setattr(self.parent, self.field, values)


def find_mutants(tree: ast.Module, source: str) -> list[Mutant]:
    """Return the mutants of `tree`, which is parsed from `source`, in the order of their lines."""
    lines, found = source.splitlines(), []
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for statement in function.body
        for node in ast.walk(statement)
    }
    for owner, field, index, statement in _statements(tree):
        head = _head_lines(statement)
        places = [(owner, field, index, statement), *_expressions(statement)]
        for parent, name, at, node in places:
            for new, words in _changes(node, parent):
                number = getattr(node, "lineno", None) or getattr(parent, "lineno", statement.lineno)
                mutant = Mutant(
                    number, head, lines[number - 1].strip(), words, id(statement) in inside, parent, name, at, new
                )
                found.append(mutant if words else _with_words(mutant, parent, node))
    return sorted(found, key=lambda mutant: mutant.number)


def _with_words(mutant: Mutant, parent: ast.AST, node: ast.AST) -> Mutant:
    """Return `mutant` with its change as code: of the expression that it is part of, or of itself."""
    shown = isinstance(parent, ast.expr | ast.keyword) and isinstance(node, ast.expr | ast.slice)
    before = ast.unparse(parent if shown else node)
    with mutant.planted():
        after = ast.unparse(parent if shown else mutant.new)
    return replace(mutant, change=f"{before} -> {after}")


def _statements(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int, ast.stmt]]:
    """Yield (parent, field, index, statement), nested ones too, without imports, checks and imports for types."""
    for parent in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            values = getattr(parent, field, None)
            for index, node in enumerate(values if isinstance(values, list) else ()):
                typing_only = any(
                    isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test) for n in (parent, node)
                )
                if isinstance(node, ast.stmt) and not isinstance(node, SKIPPED_STATEMENTS) and not typing_only:
                    yield parent, field, index, node


def _head_lines(statement: ast.stmt) -> range:
    body = getattr(statement, "body", None)
    end = max(body[0].lineno - 1, statement.lineno) if body else statement.end_lineno or statement.lineno
    return range(statement.lineno, end + 1)


def _expressions(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Yield (parent, field, index, node) below a statement, without nested statements, types and texts."""
    if isinstance(node, ast.Raise | ast.JoinedStr) or _is_skipped_call(node):
        return
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            skipped = isinstance(child, ast.keyword) and child.arg in SKIPPED_KEYWORDS
            if isinstance(child, ast.AST) and not isinstance(child, ast.stmt) and not skipped:
                yield node, field, index, child
                yield from _expressions(child)


def _name(function: ast.AST) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_skipped_call(node: ast.AST) -> bool:
    function = node.func if isinstance(node, ast.Call) else None
    names = (
        {_name(function), _name(function.value) if isinstance(function, ast.Attribute) else ""} if function else set()
    )
    return bool(names & SKIPPED_CALLS)


def _changes(node: ast.AST, parent: ast.AST) -> Iterator[Change]:
    """Yield what can stand in place of `node`."""
    if isinstance(node, ast.stmt):
        yield from _statement_changes(node)
    elif isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            ops = [*node.ops[:i], COMPARISONS[type(op)](), *node.ops[i + 1 :]]
            yield ast.Compare(node.left, ops, node.comparators), ""
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right), ""
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values), ""
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.UAdd):
        yield node.operand, ""
    elif isinstance(node, ast.Slice):
        for bound in ("lower", "upper", "step"):
            if getattr(node, bound):
                yield ast.Slice(**{b: getattr(node, b) for b in ("lower", "upper", "step") if b != bound}), ""
    elif isinstance(node, ast.Constant):
        yield from _constant_changes(node.value)
    elif isinstance(node, ast.Call):
        yield from _call_changes(node)
    elif isinstance(node, ast.withitem) and not node.optional_vars:
        empty = ast.parse("__import__('contextlib').nullcontext()", mode="eval").body
        yield ast.withitem(empty), f"with {ast.unparse(node)} -> no context"
    test = getattr(parent, "test", None) is node or node in getattr(parent, "ifs", ())
    swapped = isinstance(node, ast.Compare) and not isinstance(node.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)
    if test and not swapped and not isinstance(node, ast.UnaryOp | ast.Constant):
        yield ast.UnaryOp(ast.Not(), node), ""  # type: ignore[arg-type]


def _statement_changes(node: ast.stmt) -> Iterator[Change]:
    if isinstance(node, ast.Expr):
        if isinstance(node.value, ast.Call) and not _is_skipped_call(node.value):
            yield ast.Pass(), ""
    elif isinstance(node, ast.Return):
        if node.value and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield ast.Return(ast.Constant(None)), ""
    elif isinstance(node, ast.Assign):
        if not isinstance(node.targets[0], ast.Name | ast.Tuple):  # an attribute or an entry
            yield ast.Pass(), ""
    elif isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        yield ast.AugAssign(node.target, ARITHMETIC[type(node.op)](), node.value), ""
    elif isinstance(node, ast.Raise | ast.Break | ast.Continue | ast.Delete):
        yield ast.Pass(), ""


def _constant_changes(value: object) -> Iterator[Change]:
    if isinstance(value, bool):
        yield ast.Constant(not value), ""
    elif isinstance(value, int):
        yield ast.Constant(value + 1), ""
    elif isinstance(value, float):
        yield ast.Constant(2 * value or 1.0), ""


def _call_changes(node: ast.Call) -> Iterator[Change]:
    if _is_skipped_call(node):
        return
    name = _name(node.func)
    if name in NAMES:
        function = copy.copy(node.func)
        setattr(function, "attr" if isinstance(function, ast.Attribute) else "id", NAMES[name])
        yield ast.Call(function, node.args, node.keywords), ""
    if name in UNWRAPPED and node.args:
        yield node.args[0], ""
    if name in OMITTED_METHODS and isinstance(node.func, ast.Attribute) and not node.args:
        yield node.func.value, ""
    for keyword in node.keywords:
        if keyword.arg not in SKIPPED_KEYWORDS:
            rest = [other for other in node.keywords if other is not keyword]
            yield ast.Call(node.func, node.args, rest), f"{ast.unparse(node.func)}: without {ast.unparse(keyword)}"
