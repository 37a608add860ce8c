"""Damaged caches."""

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transfer.cli.main import main

from .cases import CASES, NESTED, Workspace, case, train_argv


def cache_case(name: str, build: Callable[[Path], Any], message: str, *action: str, code: int = 0) -> None:
    """Add a case: a damaged cache."""

    def build_argv(workspace: Workspace) -> list[str]:
        cache = workspace.root.parent / "cache"
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(train_argv(workspace.data())) == 0
        for segment in cache.rglob("*.rows"):
            build(segment)
        return ["cache", *action] if action else train_argv(workspace.root / "data")

    CASES[name] = build_argv, code, message


def pipe(segment: Path) -> None:
    os.mkfifo(segment.with_name(f"{segment.stem}x.rows"))


for action in (("ls",), ("verify",), ()):
    end = {"ls": "kept", "verify": "damaged"}.get("".join(action), "accuracy")
    how = " ".join(action) or "train"
    cache_case(f"a cache of zero bytes: {how}", lambda p: p.write_bytes(b""), end, *action)
    cache_case(f"a cache of other bytes: {how}", lambda p: p.write_bytes(os.urandom(p.stat().st_size)), end, *action)
    cache_case(f"a cache cut short: {how}", lambda p: p.write_bytes(p.read_bytes()[:-7]), end, *action)
    cache_case(
        f"a cache that says it nests: {how}",
        lambda p: (p.parent / "about.json").write_text(NESTED),
        "sound" if action == ("verify",) else end,
        *action,
    )
    cache_case(f"a pipe in the cache: {how}", pipe, "sound" if action == ("verify",) else end, *action)


@case("a cache that is a file", 0, "accuracy")
def _cache_file(workspace: Workspace) -> list[str]:
    (workspace.root.parent / "cache").write_text("")
    return train_argv(workspace.data())
