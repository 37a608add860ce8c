"""What a saved run holds, in a form in which two runs can be compared bit by bit."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

VARYING = ("seconds", "out", "resume", "overwrite", "checkpoint_minutes")  # keys of times, places and resuming


def read_run(folder: Path, *differing: str) -> dict[str, Any]:
    """Return the content of each file by its path, without the values that may differ between two equal runs.

    These are `VARYING` and the settings named in `differing`. A folder's content is None. The page is left out, for it
    shows times and places.
    """

    def drop(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return without(pairs, (*VARYING, *differing))

    def read(file: Path) -> Any:
        if file.is_dir():
            return None
        if file.suffix not in (".json", ".jsonl"):
            return file.read_bytes()
        texts = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
        return [json.dumps(json.loads(text, object_pairs_hook=drop)) for text in texts]

    return {str(file.relative_to(folder)): read(file) for file in folder.rglob("*") if file.name != "report.html"}


def without(pairs: Iterable[tuple[str, Any]], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in pairs if key not in keys}


def epoch_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without their seconds."""
    return [without(line.items(), ("seconds",)) for line in lines]
