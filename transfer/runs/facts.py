"""The facts that a run logs before it trains: images, classes, domains, split, files left out, backbone and policy."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from transfer.backbones.backbone import Backbone
from transfer.backbones.weight_paths import BUNDLE_PRETRAINING
from transfer.data.images.file_kinds import describe_left_out
from transfer.data.label_sets.combinations import count_labels
from transfer.data.left_out import SHOWN_FILES, LeftOut
from transfer.data.splits import Splits
from transfer.data.table import DEFAULT_DOMAIN, ImageTable, Target
from transfer.runs.folder import LEFT_OUT_FILE

SHOWN_DOMAINS = 8

log = logging.getLogger(__name__)


class FactLog:
    """Logs the facts of runs on the same images, each as a line; of a later run only those that differ."""

    def __init__(self) -> None:
        self._logged: dict[str, str] = {}

    def log(self, facts: Mapping[str, str]) -> None:
        """Log those of `facts`, texts by name, that differ from the last ones logged."""
        new = {name: text for name, text in facts.items() if self._logged.get(name) != text}
        if new:
            log.info("%s", "\n".join(f"{name:<10}{text}" for name, text in new.items()))
        self._logged |= new


def describe_images(table: ImageTable, parts: Mapping[str, int], saved: bool) -> dict[str, str]:
    """Return the facts of a set and its split, by name.

    `parts` has the number of images of each part of the split; with `saved`, the run folder has the names of all files
    that are left out.
    """
    counts = count_labels(table, np.arange(len(table))) or _count(table.targets["object"])
    least, most = (pick(counts, key=lambda name: counts[name]) for pick in (min, max))
    domains = _count(table.targets["domain"])
    unknown = int((table.object < 0).sum())
    sizes = f"{counts[least]:,} in each"
    if counts[least] < counts[most]:
        sizes = f"least {least} ({counts[least]:,}), most {most} ({counts[most]:,})"
    several = f"; {len(domains) - SHOWN_DOMAINS} more" if len(domains) > SHOWN_DOMAINS else ""
    shown = [f"{name} {count:,}" for name, count in list(domains.items())[:SHOWN_DOMAINS]]
    nowhere = len(table) - sum(domains.values())
    several += f"; {nowhere:,} of an unknown domain" if nowhere else ""
    facts = {
        "images": f"{len(table):,} {'in' if table.has_objects else 'with'} {len(counts)} "
        f"{'classes' if table.has_objects else 'labels'}: {sizes}" + (f"; {unknown:,} unlabelled" if unknown else ""),
        "domains": "one" if table.domains == (DEFAULT_DOMAIN,) else ", ".join(shown) + several,
        "split": ", ".join(f"{name} {count:,}" for name, count in parts.items()),
    }
    left_out = _format_left_out(list_left_out(table), saved)
    return facts | ({"left out": left_out} if left_out else {})


def describe_reading(table: ImageTable) -> list[str]:
    """Return how a set was read, a line each: images, domains, given split, files left out, and further notes."""
    given = {name: int((table.split == name).sum()) for name in ("train", "val", "test")}
    facts = {"images": f"{len(table):,}, without labels"}
    if table.objects:
        facts = describe_images(table, {name: count for name, count in given.items() if count}, saved=False)
    if not any(given.values()):
        facts["split"] = "none given: drawn at random, by class and domain"
        if table.objects and not table.has_objects:
            facts["split"] = "none given: drawn at random, with a share of each label"
    known = {*table.choices, *(f"left out: {line}" for line in describe_left_out(table.left_out))}
    notes = [note for note in table.notes if note not in known and not note.startswith("left out: ")]
    return [f"{name:<10}{text}" for name, text in [*facts.items(), *(("note", note) for note in notes)]]


def list_left_out(table: ImageTable) -> list[LeftOut]:
    """Return what is not used of a set: ignored files, bad rows and images, and images whose object is unknown."""
    return [*table.left_out, *table.unlabelled]


def count_split(splits: Splits) -> dict[str, int]:
    """Return the number of images of each part of a split, by name."""
    return {"train": len(splits.train), "val": len(splits.val), "test": len(splits.test)}


def describe_network(backbone: Backbone, policy: str) -> dict[str, str]:
    """Return the facts of a backbone, with the source and licence of its weights, and of a policy, by name."""
    licence = f", licence {backbone.licence}" if backbone.licence and backbone.weights != "random" else ""
    letters = f"; {BUNDLE_PRETRAINING}" if backbone.weights == "bundle" else ""
    return {"backbone": f"{backbone.name}, weights: {backbone.weights}{licence}{letters}", "policy": policy}


def _count(target: Target) -> dict[str, int]:
    counts = np.bincount(target.values[target.known], minlength=len(target.classes))
    return dict(zip(target.classes, counts.tolist(), strict=True))


def _format_left_out(left_out: Sequence[LeftOut], saved: bool) -> str:
    lines = describe_left_out(left_out)
    hidden = any(count > SHOWN_FILES for count in Counter(each.reason for each in left_out).values())
    lines += [f"all names are in {LEFT_OUT_FILE} of the run folder"] if saved and hidden else []
    return f"\n{'':<10}".join(lines)
