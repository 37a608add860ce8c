"""Which faults are planted, and that each is one fault."""

import ast
import tomllib
from pathlib import Path

import pytest

from .mutants import find_mutants

ROOT = Path(__file__).parents[2]
TABLE = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text(encoding="utf-8"))


def changes(source: str) -> set[str]:
    return {mutant.change for mutant in find_mutants(ast.parse(source), source)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", "a < b -> a <= b"),
        ("x = a is not b", "a is not b -> a is b"),
        ("x = a + b * c", "a + b * c -> a + b / c"),
        ("x = a and b", "a and b -> a or b"),
        ("if a:\n    b()", "a -> not a"),
        ("x = [a for a in b if a.c]", "a.c -> not a.c"),
        ("x = not a", "not a -> a"),
        ("x = f(1)", "f(1) -> f(2)"),
        ("x = f(0.0)", "f(0.0) -> f(1.0)"),
        ("x = f(True)", "f(True) -> f(False)"),
        ("x = max(a, b)", "max(a, b) -> min(a, b)"),
        ("x = np.argmin(a)", "np.argmin(a) -> np.argmax(a)"),
        ("x = f(a, b=c)", "f: without b=c"),
        ("x = a[b:c]", "a[b:c] -> a[b:]"),
        ("x = sorted(a)", "sorted(a) -> a"),
        ("x = a.copy()", "a.copy() -> a"),
        ("f(a)", "f(a) -> pass"),
        ("a.b = c", "a.b = c -> pass"),
        ("x += a", "x += a -> x -= a"),
        ("raise E", "raise E -> pass"),
        ("def f():\n    return a", "return a -> return None"),
        ("with a:\n    b()", "with a -> no context"),
        ("def f(a=1):\n    pass", "1 -> 2"),
    ],
)
def test_a_fault_is_planted(source: str, expected: str) -> None:
    assert expected in changes(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""A text of 1 line."""',
        "import a",
        "assert a < 1",
        "x: tuple[int, 2]",
        "def f(a: g(1)) -> h(2):\n    pass",
        'raise E(f"{a < b}", 1)',
        "log.warning('a', 1 + 2)",
        "for a in tqdm(b, total=1):\n    pass",
        "if TYPE_CHECKING:\n    a = 1 + 2",
        "x = zip(a, b, strict=True)",
    ],
)
def test_types_texts_and_checks_have_no_fault(source: str) -> None:
    assert {change for change in changes(source) if not change.startswith("raise")} == set()


def test_each_mutant_is_one_change_and_the_tree_is_as_before_after_it() -> None:
    source = (ROOT / "transfer" / "errors.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    before = ast.dump(tree)
    mutants = find_mutants(tree, source)
    assert len(mutants) > 10
    planted = set()
    for mutant in mutants:
        with mutant.planted():
            planted.add(ast.dump(tree))
            compile(ast.fix_missing_locations(tree), "m", "exec")
        assert mutant.number in mutant.lines
        assert ast.dump(tree) == before
    assert len(planted) == len(mutants)
    assert before not in planted


def test_modules_and_tests_of_the_table_are_there() -> None:
    files = [*TABLE["modules"], *(test for tests in TABLE["modules"].values() for test in tests)]
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_what_is_argued_to_be_equivalent_can_still_be_planted() -> None:
    for module in {entry["module"] for entry in TABLE.get("equivalent", [])}:
        source = (ROOT / module).read_text(encoding="utf-8")
        found = {(mutant.line, mutant.change) for mutant in find_mutants(ast.parse(source), source)}
        entries = [entry for entry in TABLE["equivalent"] if entry["module"] == module]
        assert [entry for entry in entries if (entry["line"], entry["change"]) not in found] == []
        assert all(len(entry["reason"]) > 10 for entry in entries)
