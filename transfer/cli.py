"""The `transfer` command: every subcommand is a typed config and one call.

Nothing here imports torch before a command that needs it runs.
"""

import dataclasses
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from transfer import parallel
from transfer.adapt.config import AdaptConfig
from transfer.commands import (
    AdviseConfig,
    BackbonesConfig,
    CacheCommandConfig,
    DemoConfig,
    EvaluateConfig,
    ExportConfig,
    FetchConfig,
    LrFindConfig,
    PredictConfig,
    ReportConfig,
    SearchConfig,
)
from transfer.config import CompareConfig, RunConfig, TrainConfig
from transfer.errors import EndedEarly, TransferError, did_you_mean
from transfer.printable import printable
from transfer.stopping import Stopped

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Spoken(Generic[T]):
    """A command whose result can be had as JSON."""

    config: Annotated[T, tyro.conf.arg(name="")]
    json: bool = False
    """Print the result alone, as JSON, for programs; all else goes to standard error."""


def _say(text: str, **how: Any) -> None:
    """Print text in which names from elsewhere may stand."""
    print(printable(text, keep="\n"), **how)


def _tell(as_json: bool, result: dict[str, Any], text: Callable[[dict[str, Any]], str]) -> None:
    """Print a result, for programs or for people."""
    _say(json.dumps(result, ensure_ascii=False) if as_json else "\n" + text(result))


@contextmanager
def _reported(run: RunConfig, as_json: bool) -> Iterator[None]:
    """Write the page of what is run within, also where it was stopped, and say where it lies."""
    try:
        yield
    except EndedEarly:
        if run.out and (run.out / "result.json").is_file():
            _page(run)
        raise
    if run.out:
        page = f"; the page to look at: {_page(run)}" if run.report else ""
        _say(f"saved in {run.out}{page}", file=sys.stderr if as_json else sys.stdout)


def _page(run: RunConfig) -> Path | None:
    from transfer.report.page import write_report

    return write_report(run.out) if run.out and run.report and parallel.first() else None


def _demo(config: DemoConfig) -> None:
    from transfer.demo import demo

    _say(demo(config))


def _backbones(config: BackbonesConfig) -> None:
    from transfer.backbones.catalogue import catalogue
    from transfer.report.tables import backbone_lines

    rows = catalogue(config.pattern)
    first = next(rows, None)
    if first is None:
        near = did_you_mean(config.pattern, (row.name for row in catalogue()))
        raise TransferError(f"no backbone matches {config.pattern!r}{near}: `transfer backbones` lists all")
    for line in backbone_lines(itertools.chain([first], rows)):
        _say(line, flush=True)


def _data(config: FetchConfig) -> None:
    from transfer.data.sets import fetch_or_verify

    _say(fetch_or_verify(config.name, config.data_root, verify=config.verify))


def _train(config: TrainConfig, as_json: bool) -> None:
    from transfer.learn.train import train
    from transfer.report.tables import one_run

    with _reported(config.run, as_json):
        _tell(as_json, train(config).result, one_run)
    if config.run.out and not as_json:
        _say(f"next: transfer predict {config.run.out} IMAGE...")


def _compare(config: CompareConfig, as_json: bool) -> None:
    from transfer.learn.compare import compare
    from transfer.report.page import write_report
    from transfer.report.tables import compared

    with _reported(config.train.run, as_json):
        result = compare(config)
        _tell(as_json, result, compared)
        run = config.train.run
        for name in result["runs"] if run.out and run.report and parallel.first() else ():
            write_report(run.out / name.replace(":", "-"))


def _adapt(config: AdaptConfig, as_json: bool) -> None:
    from transfer.adapt.run import adapt
    from transfer.report.tables import adapted

    with _reported(config.run, as_json):
        _tell(as_json, adapt(config).result, adapted)
    if config.run.out and not as_json:
        _say(f"next: transfer predict {config.run.out} IMAGE...")


def _advise(config: AdviseConfig, as_json: bool) -> None:
    from transfer.learn.advise import advise
    from transfer.report.advice import advised

    inner = config.train.run.out / "run" if config.run and config.train.run.out else None
    with _reported(dataclasses.replace(config.train.run, out=inner, tensorboard=False, resume=False), as_json):
        _tell(as_json, advise(config), advised)


def _search(config: SearchConfig) -> None:
    from transfer.learn.search import search
    from transfer.report.search import searched

    _say("\n" + searched(search(config)))


def _lr_find(config: LrFindConfig) -> None:
    from transfer.learn.lr_find import lr_find
    from transfer.report.search import found

    _say(found(lr_find(config)))


def _evaluate(config: EvaluateConfig, as_json: bool) -> None:
    from transfer.learn.predict import evaluate
    from transfer.report.tables import one_run

    _tell(as_json, evaluate(config), one_run)


def _report(config: ReportConfig) -> None:
    from transfer.report.page import write_report

    _say(str(write_report(*config.runs, out=config.out)))


def _predict(config: PredictConfig) -> None:
    from transfer.learn.predict import predict_command

    skipped = predict_command(config)
    if skipped:
        print(f"{skipped} images skipped as unreadable", file=sys.stderr)


def _export(config: ExportConfig) -> None:
    from transfer.formats import export

    for line in export(config).lines():
        print(line)


def _cache(config: CacheCommandConfig) -> None:
    from transfer.report.tables import kept
    from transfer.store import Store

    store = Store()
    if config.action == "clear":
        segments, size = store.clear()
        _say(f"removed {segments} files, {size / 1e6:.1f} MB, from {store.root}")
    elif config.action == "verify":
        problems = store.verify()
        for path, reason in problems:
            _say(f"{path}: {reason}")
        _say(f"{len(problems)} damaged" if problems else f"{store.root}: all sound")
    else:
        _say(f"{store.root}\n{kept(store.shelves())}")


SPOKEN = ("train", "compare", "adapt", "advise", "evaluate")
COMMANDS: dict[str, tuple[type, Any]] = {
    "demo": (DemoConfig, _demo),
    "backbones": (BackbonesConfig, _backbones),
    "data": (FetchConfig, _data),
    "train": (TrainConfig, _train),
    "compare": (CompareConfig, _compare),
    "adapt": (AdaptConfig, _adapt),
    "advise": (AdviseConfig, _advise),
    "search": (SearchConfig, _search),
    "lr-find": (LrFindConfig, _lr_find),
    "evaluate": (EvaluateConfig, _evaluate),
    "predict": (PredictConfig, _predict),
    "export": (ExportConfig, _export),
    "report": (ReportConfig, _report),
    "cache": (CacheCommandConfig, _cache),
}


TOGETHER = (TrainConfig, CompareConfig, AdaptConfig, AdviseConfig)
"""What several processes can do together, started by torchrun."""


def _run(call: Callable[[Any], None], config: Any) -> None:
    if not parallel.launched():
        call(config)
    elif isinstance(config, TOGETHER):
        with parallel.together():
            call(config)
    else:
        raise TransferError("train, compare, adapt and advise run in several processes: start this without torchrun")


class _Lines(logging.Handler):
    """Progress lines on standard output (or error, where that is for the result alone), clear of any progress bar."""

    aside = False

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(printable(record.getMessage(), keep="\n"), file=sys.stderr if self.aside else sys.stdout)


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


def _guarded(call: Callable[[_Lines], None]) -> int:
    """Run `call`; print its log lines, and a user's mistake as one line; return the exit code.

    Of several processes the first prints, and of those that fail the first to.
    """
    logger = logging.getLogger("transfer")
    handler = _Lines()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with parallel.quiet():
            call(handler)
            sys.stdout.flush()
    except TransferError as error:
        line = " ".join(str(error).split())
        parallel.say(f"transfer: {printable(line if len(line) < 1500 else line[:1500] + ' ...')}")
        return 2
    except Stopped as stop:
        parallel.say(f"transfer: {stop}")
        return 128 + stop.number
    except KeyboardInterrupt:
        parallel.say("transfer: interrupted")
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception:  # a fault of ours: one traceback is enough
        if not parallel.say(""):
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
    return _parse(forms, argv, prog="transfer")


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 2 bad arguments or input, 130 or 143 stopped."""

    def call(lines: _Lines) -> None:
        config = parse(sys.argv[1:] if argv is None else argv)
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
    words = sys.argv[1:] if argv is None else argv
    description = sys.modules[run.__module__].__doc__
    return _guarded(lambda lines: _run(run, _parse(type(default), words, default=default, description=description)))
