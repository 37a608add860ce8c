"""The `transfer` command: every subcommand is a typed config and one call.

Nothing here imports torch before a command that needs it runs.
"""

import itertools
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import tyro

from transfer import parallel
from transfer.adapt.config import AdaptConfig
from transfer.commands import (
    AdviseConfig,
    BackbonesConfig,
    CacheCommandConfig,
    DemoConfig,
    EvaluateConfig,
    FetchConfig,
    LrFindConfig,
    PredictConfig,
    SearchConfig,
)
from transfer.config import CompareConfig, TrainConfig
from transfer.errors import TransferError, did_you_mean
from transfer.stopping import Stopped


def _demo(config: DemoConfig) -> None:
    from transfer.demo import demo

    print(demo(config))


def _backbones(config: BackbonesConfig) -> None:
    from transfer.backbones.catalogue import catalogue
    from transfer.report.tables import backbone_lines

    rows = catalogue(config.pattern)
    first = next(rows, None)
    if first is None:
        near = did_you_mean(config.pattern, (row.name for row in catalogue()))
        raise TransferError(f"no backbone matches {config.pattern!r}{near}: `transfer backbones` lists all")
    for line in backbone_lines(itertools.chain([first], rows)):
        print(line, flush=True)


def _data(config: FetchConfig) -> None:
    from transfer.data.sets import fetch_or_verify

    print(fetch_or_verify(config.name, config.data_root, verify=config.verify))


def _train(config: TrainConfig) -> None:
    from transfer.learn.train import train
    from transfer.report.tables import one_run

    print("\n" + one_run(train(config).result))
    if config.run.out:
        print(f"saved in {config.run.out}; next: transfer predict {config.run.out} IMAGE...")


def _compare(config: CompareConfig) -> None:
    from transfer.learn.compare import compare
    from transfer.report.tables import compared

    print("\n" + compared(compare(config)))


def _adapt(config: AdaptConfig) -> None:
    from transfer.adapt.run import adapt
    from transfer.report.tables import adapted

    print("\n" + adapted(adapt(config).result))
    if config.run.out:
        print(f"saved in {config.run.out}; next: transfer predict {config.run.out} IMAGE...")


def _advise(config: AdviseConfig) -> None:
    from transfer.learn.advise import advise
    from transfer.report.advice import advised

    print("\n" + advised(advise(config)))


def _search(config: SearchConfig) -> None:
    from transfer.learn.search import search
    from transfer.report.search import searched

    print("\n" + searched(search(config)))


def _lr_find(config: LrFindConfig) -> None:
    from transfer.learn.lr_find import lr_find
    from transfer.report.search import found

    print(found(lr_find(config)))


def _evaluate(config: EvaluateConfig) -> None:
    from transfer.learn.predict import evaluate
    from transfer.report.tables import one_run

    print(one_run(evaluate(config)))


def _predict(config: PredictConfig) -> None:
    from transfer.learn.predict import predict_command

    skipped = predict_command(config)
    if skipped:
        print(f"{skipped} images skipped as unreadable", file=sys.stderr)


def _cache(config: CacheCommandConfig) -> None:
    from transfer.report.tables import kept
    from transfer.store import Store

    store = Store()
    if config.action == "clear":
        segments, size = store.clear()
        print(f"removed {segments} files, {size / 1e6:.1f} MB, from {store.root}")
    elif config.action == "verify":
        problems = store.verify()
        for path, reason in problems:
            print(f"{path}: {reason}")
        print(f"{len(problems)} damaged" if problems else f"{store.root}: all sound")
    else:
        print(f"{store.root}\n{kept(store.shelves())}")


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
    """Progress lines on standard output, clear of any progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(record.getMessage(), file=sys.stdout)


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


def _guarded(call: Callable[[], None]) -> int:
    """Run `call`; print its log lines, and a user's mistake as one line; return the exit code.

    Of several processes the first prints, and of those that fail the first to.
    """
    logger = logging.getLogger("transfer")
    handler = _Lines()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with parallel.quiet():
            call()
            sys.stdout.flush()
    except TransferError as error:
        parallel.say(f"transfer: {' '.join(str(error).split())}")
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


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0 done, 2 bad arguments or input, 130 or 143 stopped."""
    forms: Any = None
    for name, (kind, _) in COMMANDS.items():
        form: Any = Annotated[kind, tyro.conf.subcommand(name)]
        forms = form if forms is None else forms | form

    def call() -> None:
        config = _parse(forms, sys.argv[1:] if argv is None else argv, prog="transfer")
        _run(next(run for kind, run in COMMANDS.values() if isinstance(config, kind)), config)

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
    return _guarded(lambda: _run(run, _parse(type(default), words, default=default, description=description)))
