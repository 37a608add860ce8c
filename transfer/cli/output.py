"""How commands print: text with file names in it, results as text or JSON, and the last lines."""

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from transfer.runtime.escape import escape_unprintable
from transfer.runtime.streams import is_unicode

log = logging.getLogger(__name__)


def print_text(text: str, **how: Any) -> None:
    """Print text that may contain file names, escaped."""
    print(escape_unprintable(text, keep="\n"), **how)


def print_result(as_json: bool, result: dict[str, Any], text: Callable[[dict[str, Any]], str]) -> None:
    """Print a result as JSON or as text."""
    print_text(json.dumps(result, ensure_ascii=not is_unicode(sys.stdout)) if as_json else "\n" + text(result))


def log_end(*lines: str) -> None:
    """Log the last lines of a command."""
    for line in filter(None, lines):
        log.info("%s", line)
