"""The laws of the house: rooms, imports, names, lengths and words, checked on the source itself."""

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "transfer"

# Top floor first: a room imports only rooms after it in this list.
ROOMS = (
    "__main__",
    "cli",
    "__init__",
    "server",
    "report",
    "estimator",
    "curation",
    "updating",
    "tuning",
    "adaptation",
    "training",
    "semi_supervised",
    "advice",
    "probes",
    "formats",
    "evaluation",
    "runs",
    "feature_cache",
    "model",
    "freeze",
    "heads",
    "backbones",
    "data",
    "disk_cache",
    "config",
    "runtime",
    "errors",
)
FILES_PER_ROOM = 15
LINES_PER_FUNCTION = 60  # of its body, without the docstring
PARAMETERS_PER_FUNCTION = 7
README_LINES = 250


@cache
def sources() -> dict[str, ast.Module]:
    """Every module of the package by its path below transfer/."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def room_of(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def module_of(path: str) -> str:
    return ".".join(["transfer", *path.removesuffix(".py").split("/")]).removesuffix(".__init__")


def imported_modules(path: str, known: set[str]) -> set[str]:
    """Modules of the package that a file imports, also within functions; imports for type checkers do not count."""
    found = set()
    typing_only = {
        inner
        for node in ast.walk(sources()[path])
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(sources()[path]):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found |= {full} if full in known else {node.module} & known
    return found


def test_no_import_points_upwards() -> None:
    known = {module_of(path) for path in sources()}
    floor = {room: i for i, room in enumerate(ROOMS)}
    upwards = []
    for path in sources():
        if path == "__init__.py":  # its names are loaded when first used
            continue
        for module in imported_modules(path, known):
            room = module.split(".")[1] if "." in module else "__init__"
            if room != room_of(path) and floor[room] < floor[room_of(path)]:
                upwards.append(f"{path} imports {module}")
    assert not upwards


def test_no_circle_of_modules() -> None:
    known = {module_of(path) for path in sources()}
    graph = {module_of(path): imported_modules(path, known) - {module_of(path)} for path in sources()}
    del graph["transfer"]
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"circle: {' -> '.join([*path[path.index(module) :], module])}"
        if module in done or module not in graph:
            return
        for other in graph[module]:
            # A package's __init__ gathers names of its own modules, which may import each other.
            if not module.startswith(f"{other}.") and not other.startswith(f"{module}."):
                visit(other, (*path, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_every_room_is_known_and_small() -> None:
    assert {room_of(path) for path in sources()} <= set(ROOMS)
    folders = Counter(str(Path(path).parent) for path in sources() if not path.endswith("__init__.py"))
    assert {folder: n for folder, n in folders.items() if n > FILES_PER_ROOM} == {}


def test_only_these_files_lie_loose_at_the_top() -> None:
    assert {path for path in sources() if "/" not in path} == {"__init__.py", "__main__.py", "errors.py", "model.py"}


def test_class_names_are_unique() -> None:
    places = defaultdict(list)
    for path, tree in sources().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path)
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_public_names_of_functions_and_constants_are_unique() -> None:
    places = defaultdict(list)
    for path, tree in sources().items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                names = [node.name]
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [target.id for target in targets if isinstance(target, ast.Name) and target.id.isupper()]
            else:
                names = []
            for name in names:
                if not name.startswith("_") and len(name) > 1:  # T is a type variable
                    places[name].append(path)
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_functions_are_read_on_one_screen() -> None:
    long = []
    for path, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body and (lines := body[-1].end_lineno - body[0].lineno + 1) > LINES_PER_FUNCTION:  # type: ignore[operator]
                    long.append(f"{path}:{node.lineno} {node.name}: {lines} lines")
    assert not long


def test_functions_have_few_parameters_or_say_why() -> None:
    many = []
    for path, tree in sources().items():
        lines = (PACKAGE / path).read_text(encoding="utf-8").splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = sum(argument.arg not in ("self", "cls") for argument in arguments)
                head = lines[max(node.lineno - 2, 0) : node.body[0].lineno]
                if count > PARAMETERS_PER_FUNCTION and not any("#" in line for line in head):
                    many.append(f"{path}:{node.lineno} {node.name}: {count} parameters")
    assert not many


def test_help_needs_no_torch() -> None:
    code = "import sys, transfer.cli.main as m\ntry: m.main(['train', '--help'])\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules, 'torch is imported'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_readme_is_a_front_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


# Words of the old dialect, each used in place of a plain term of the field (train, advice, test set, cached ...).
OLD_NAMES = "told asked taught lesson exam spoken shelf kept some these those again answers exhibits worth anew"
FORBIDDEN_NAMES = frozenset(OLD_NAMES.split())
FORBIDDEN_PHRASES = (
    r"by heart",
    r"\banew\b",
    r"such as is\b",
    r"of that:",
    r"puts? out\b",
    r"what (?:is|was) kept",
    r"so many\b(?! as)",
    r"\bto go on with\b",
    r"\bgoes on\b",
    r"\bat hand\b",
    r"\bnear copies\b",
    r"\blooked at\b",
    r"\bto be had\b",
    r"\bare told\b|\bis told\b",
    r"\btaught\b|\bteach(?:es)?\b",
    r"\blessons?\b|\bexams?\b",
)


def test_identifiers_are_not_of_the_old_dialect() -> None:
    found = []
    for path, tree in sources().items():
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.arg):
                names = [node.arg]
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names = [node.id]
            for name in names:
                if name.lower().strip("_") in FORBIDDEN_NAMES:
                    found.append(f"{path}:{node.lineno} {name}")  # type: ignore[attr-defined]
    assert not found


def texts() -> dict[str, str]:
    """Texts that users read: docstrings, messages and comments of the package, and every README."""
    found = {}
    for folder in ("transfer", "recipes"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in (".py", ".md", ".html"):
                found[file.relative_to(ROOT).as_posix()] = file.read_text(encoding="utf-8")
    found["README.md"] = (ROOT / "README.md").read_text(encoding="utf-8")
    return found


@pytest.mark.parametrize("phrase", FORBIDDEN_PHRASES)
def test_texts_are_not_of_the_old_dialect(phrase: str) -> None:
    found = [
        f"{path}:{number} {line.strip()}"
        for path, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(phrase, line, re.IGNORECASE)
    ]
    assert not found
