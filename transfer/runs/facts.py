"""The facts that a run logs before it trains: images, classes, domains, split, backbone, policy and files left out."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from transfer.backbones.backbone import Backbone
from transfer.data.table import ImageTable, Target
from transfer.errors import list_examples
from transfer.runs.folder import LEFT_OUT_FILE

SHOWN_FILES = 3  # per reason, in the log
SHOWN_DOMAINS = 8


def format_facts(table: ImageTable, parts: Mapping[str, int], backbone: Backbone, policy: str, saved: bool) -> str:
    """Return the facts of a run, a line each.

    `parts` has the number of images of each part of the split; with `saved`, the run folder has the names of all files
    that are left out.
    """
    counts = _count(table.targets["object"])
    least, most = (pick(counts, key=lambda name: counts[name]) for pick in (min, max))
    domains = _count(table.targets["domain"])
    unknown = len(table) - sum(counts.values())
    sizes = f"{counts[least]:,} in each"
    if counts[least] < counts[most]:
        sizes = f"least {least} ({counts[least]:,}), most {most} ({counts[most]:,})"
    several = f"; {len(domains) - SHOWN_DOMAINS} more" if len(domains) > SHOWN_DOMAINS else ""
    shown = [f"{name} {count:,}" for name, count in list(domains.items())[:SHOWN_DOMAINS]]
    licence = f", licence {backbone.licence}" if backbone.licence and backbone.weights != "random" else ""
    lines = [
        f"images    {len(table):,} in {len(counts)} classes: {sizes}"
        + (f"; {unknown:,} unlabelled" if unknown else ""),
        f"domains   {', '.join(shown)}{several}",
        f"split     {', '.join(f'{name} {count:,}' for name, count in parts.items())}",
        f"backbone  {backbone.name}, weights: {backbone.weights}{licence}",
        f"policy    {policy}",
    ]
    return "\n".join([*lines, *_format_left_out(table, saved)])


def _count(target: Target) -> dict[str, int]:
    counts = np.bincount(target.values[target.known], minlength=len(target.classes))
    return dict(zip(target.classes, counts.tolist(), strict=True))


def _format_left_out(table: ImageTable, saved: bool) -> list[str]:
    files = defaultdict(list)
    for path, reason in table.left_out:
        files[reason].append(path)
    lines = [
        f"left out  {len(paths):,} file{'s' * (len(paths) > 1)}, {reason}: {list_examples(paths, SHOWN_FILES)}"
        for reason, paths in files.items()
    ]
    return [*lines, *([f"          all names are in {LEFT_OUT_FILE} of the run folder"] if lines and saved else [])]
