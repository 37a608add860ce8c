"""Run tests in a forked process in which one module has a fault, or count which tests run which lines."""

import ast
import gc
import importlib
import json
import math
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
from hypothesis import Phase, settings

from tests.mutation.mutants import Mutant

NOT_PLANTED = 99  # exit code of a trial whose functions cannot be replaced one by one
WAITS = 10  # times the limit of processor time that a process may last: others need the processor too
EVERY_TEST = ""  # stands for the lines that run outside of tests: imports and shared fixtures
# Plain assertions: pytest compiles what it rewrites itself, from the file.
QUIET = [
    "-q",
    "-x",
    "-n0",
    "--assert=plain",
    "--doctest-modules",
    "-p",
    "no:cacheprovider",
    "--hypothesis-seed=0",
    "--hypothesis-profile=mutation",
]


# The first example that fails kills a mutant; a smaller one is not looked for.
settings.register_profile("mutation", deadline=None, phases=(Phase.explicit, Phase.generate))


@dataclass(frozen=True)
class Baseline:
    """How the tests of a module run without a fault."""

    lines: dict[str, set[int]]  # by test, the lines of the module that it runs
    seconds: dict[str, float]

    def choose(self, lines: range) -> list[str]:
        """Return the tests that run one of `lines`, the fastest first."""
        every = not self.lines.get(EVERY_TEST, set()).isdisjoint(lines)
        chosen = [test for test in self.seconds if every or not self.lines[test].isdisjoint(lines)]
        return sorted(chosen, key=lambda test: self.seconds[test])


class LineWatch:
    """A pytest plugin that notes which lines of `file` each test runs, and how long it takes."""

    def __init__(self, file: str) -> None:
        self.file, self.test = file, EVERY_TEST
        self.lines: dict[str, set[int]] = defaultdict(set)
        self.seconds: dict[str, float] = {}

    def trace(self, frame: Any, event: str, argument: Any) -> Any:
        """Follow the frames of the file."""
        return self.note if frame.f_code.co_filename == self.file else None

    def note(self, frame: Any, event: str, argument: Any) -> Any:
        """Note a line."""
        self.lines[self.test].add(frame.f_lineno)
        return self.note

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
        """Time a test."""
        self.test, start = item.nodeid, time.process_time()
        result = yield
        self.lines[self.test] |= set()
        self.seconds[self.test], self.test = time.process_time() - start, EVERY_TEST
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[Any]:
        """Count the lines of a shared fixture for every test."""
        before = self.test
        if fixturedef.scope != "function":
            self.test = EVERY_TEST
        result = yield
        self.test = before
        return result


@dataclass(frozen=True)
class Trial:
    """A mutant and the tests that it meets, each with its limit in seconds of processor time."""

    mutant: Mutant
    tests: dict[str, float]

    @property
    def limit(self) -> float:
        """The limit of all tests together."""
        return sum(self.tests.values())


class Trials:
    """A pytest plugin that runs no test itself, but the tests of each trial in a fork of the collected session."""

    def __init__(self, file: Path, tree: ast.Module, trials: Sequence[Trial], pipe: int) -> None:
        self.file, self.tree, self.trials, self.pipe = file, tree, trials, pipe

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Write the exit code of each trial to the pipe."""
        for trial in self.trials:
            code = run_apart(partial(self.run, session, trial), trial.limit)[0]
            os.write(self.pipe, f"{json.dumps(code)}\n".encode())
        return True

    def run(self, session: pytest.Session, trial: Trial, folder: Path) -> int:
        """Run the tests of a trial up to the first that fails; return 1 if one does."""
        with trial.mutant.planted():
            if not swap_functions(str(self.file), compile(ast.fix_missing_locations(self.tree), self.file, "exec")):
                return NOT_PLANTED
        rank = {test: i for i, test in enumerate(trial.tests)}
        items = sorted((item for item in session.items if item.nodeid in rank), key=lambda item: rank[item.nodeid])
        for item, following in zip(items, [*items[1:], None], strict=True):
            limit_processor_time(trial.tests[item.nodeid])
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                return 1
        return 0


def limit_processor_time(seconds: float) -> None:
    """End this process when it has run for `seconds` more, or at its present hard limit."""
    used, (_, hard) = resource.getrusage(resource.RUSAGE_SELF), resource.getrlimit(resource.RLIMIT_CPU)
    soon = math.ceil(used.ru_utime + used.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (min(soon, hard), hard))


def swap_functions(file: str, module: CodeType) -> bool:
    """Give the functions of `file` in this process the code that they have in `module`; return whether that works."""
    codes: dict[tuple[str, int], CodeType | None] = {}
    waiting = [module]
    while waiting:
        for code in waiting.pop().co_consts:
            if isinstance(code, CodeType):
                key = code.co_qualname, code.co_firstlineno
                codes[key] = None if key in codes else code  # two lambdas in a line: they are not told apart
                waiting.append(code)
    swapped = False
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and function.__code__.co_filename == file:
            new = codes.get((function.__code__.co_qualname, function.__code__.co_firstlineno))
            if new is not None and new != function.__code__:
                try:
                    function.__code__ = new
                except ValueError:  # it has other variables of an outer scope
                    return False
                swapped = True
    return swapped


def replace_code(file: Path, tree: ast.Module) -> None:
    """Let every import of `file` compile `tree` instead, in this process."""
    get_code = SourceFileLoader.get_code

    def get_planted(self: SourceFileLoader, fullname: str) -> CodeType | None:
        if os.path.realpath(self.path) == str(file):
            return compile(ast.fix_missing_locations(tree), str(file), "exec")
        return get_code(self, fullname)

    SourceFileLoader.get_code = get_planted  # type: ignore[method-assign,assignment]


def import_first(root: Path, file: Path) -> None:
    """Import `file` under its name in the package below `root`: pytest, which collects its doctests, takes that then.

    Else it makes a second module of the file, whose classes are not those of the first, and cannot be pickled.
    """
    importlib.import_module(".".join(file.relative_to(root.resolve()).with_suffix("").parts))


def run_apart(work: Callable[[Path], int], limit: float) -> tuple[int | None, str, dict[str, Any]]:
    """Call `work` in a forked process; return its exit code, its output and what it wrote as ``result.json``.

    The code is None after `limit` seconds of processor time, when it is ended with its children; negative for a signal.
    """
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    pid = os.fork()
    if not pid:
        code = 3
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), math.ceil(limit)))
            output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
            for stream in (1, 2):
                os.dup2(output, stream)
            code = work(folder)
        finally:
            sys.stdout.flush()
            os._exit(code)
    try:
        code_or_none = _wait(pid, limit)
        output_text = (folder / "output").read_text(errors="replace") if (folder / "output").exists() else ""
        result = folder / "result.json"
        return code_or_none, output_text, json.loads(result.read_text()) if result.exists() else {}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(pid: int, limit: float) -> int | None:
    end, done, status = time.monotonic() + WAITS * limit, 0, 0
    try:
        while not done and time.monotonic() < end:
            time.sleep(0.02)
            done, status = os.waitpid(pid, os.WNOHANG)
    finally:  # what it started ends too, also at Ctrl-C
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        if not done:
            os.kill(pid, signal.SIGKILL)  # it may not lead its group yet
            os.waitpid(pid, 0)
    if not done:
        return None
    code = os.waitstatus_to_exitcode(status)
    return None if code in (-signal.SIGXCPU, -signal.SIGKILL) else code


def measure_baseline(root: Path, file: Path, tree: ast.Module, tests: Sequence[str], limit: float) -> Baseline:
    """Run `tests` (files below `root`) without a fault; raise a RuntimeError with their output if one fails."""

    def work(folder: Path) -> int:
        replace_code(file, tree)
        watch = LineWatch(str(file))
        sys.settrace(watch.trace)
        threading.settrace(watch.trace)
        import_first(root, file)
        code = pytest.main([*QUIET, f"--rootdir={root}", f"--basetemp={folder / 'tmp'}", *tests], plugins=[watch])
        sys.settrace(None)
        found = {"lines": {test: sorted(lines) for test, lines in watch.lines.items()}, "seconds": watch.seconds}
        (folder / "result.json").write_text(json.dumps(found))
        return int(code)

    code, output, found = run_apart(work, limit)
    if code != 0:
        raise RuntimeError(f"the tests fail without a fault (exit code {code}):\n{output[-4000:]}")
    return Baseline({test: set(lines) for test, lines in found["lines"].items()}, found["seconds"])


def run_trials(root: Path, file: Path, tree: ast.Module, trials: Sequence[Trial]) -> Iterator[int | None]:
    """Yield for each trial 0 if its tests pass, None if they take too long, else another code.

    The module is imported and the tests are collected once, so mutants must be within functions. Others, and those that
    cannot be planted so, are ``NOT_PLANTED``.
    """
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(read)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(nowhere, stream)
            replace_code(file, tree)
            import_first(root, file)
            files = sorted({test.split("::")[0] for trial in trials for test in trial.tests})
            with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
                arguments = [*QUIET, f"--rootdir={root}", f"--basetemp={folder}/tmp", *files]
                pytest.main(arguments, plugins=[Trials(file, tree, trials, write)])
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as lines:
        yield from map(json.loads, lines)
    os.waitpid(pid, 0)


def run_imported(root: Path, file: Path, tree: ast.Module, trial: Trial) -> int | None:
    """Run a trial in a process that imports the module with its fault; return as `run_trials`."""

    def work(folder: Path) -> int:
        replace_code(file, tree)
        with suppress(Exception):  # it may fail with the fault, which its tests then notice
            import_first(root, file)
        files = sorted({test.split("::")[0] for test in trial.tests})
        arguments = [*QUIET, f"--rootdir={root}", f"--basetemp={folder / 'tmp'}", *files]
        return int(pytest.main(arguments, plugins=[ChosenTests(list(trial.tests))]))

    with trial.mutant.planted():
        return run_apart(work, trial.limit)[0]


class ChosenTests:
    """A pytest plugin that runs these tests only, in this order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.rank = {test: i for i, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave the other tests out."""
        items[:] = sorted((item for item in items if item.nodeid in self.rank), key=lambda i: self.rank[i.nodeid])
