"""Caches."""

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transfer.cli.main import main

from .given import CASES, NESTED, Given, case, sees


def cache_case(name: str, build: Callable[[Path], Any], says: str, *action: str, code: int = 0) -> None:
    """Add a case: what lies in the cache."""

    def laid(given: Given) -> list[str]:
        cache = given.root.parent / "cache"
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(sees(given.data())) == 0
        for segment in cache.rglob("*.rows"):
            build(segment)
        return ["cache", *action] if action else sees(given.root / "data")

    CASES[name] = laid, code, says


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
def _cache_file(given: Given) -> list[str]:
    (given.root.parent / "cache").write_text("")
    return sees(given.data())
