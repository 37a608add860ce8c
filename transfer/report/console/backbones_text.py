"""What `transfer backbones` prints."""

from collections.abc import Iterable, Iterator
from typing import Any


def backbone_lines(rows: Iterable[Any]) -> Iterator[str]:
    """Yield a line per backbone for `transfer backbones PATTERN`, each as soon as it is known."""
    yield f"{'backbone':<48} {'parameters':>12} {'width':>6} {'stages':>6}  {'licence':<12}  weights"
    for row in rows:
        licence = row.licence or "not stated"
        yield f"{row.name:<48} {row.parameters:>12,} {row.width:>6} {row.stages:>6}  {licence:<12}  {row.where}"


def shortlist_lines(rows: Iterable[Any]) -> Iterator[str]:
    """Yield what `transfer backbones` prints: a line per :class:`transfer.backbones.shortlist.ShortlistRow`."""
    form = "{:<40} {:>10} {:>11} {:>8} {:>5}  {:<14}  {}"
    yield form.format("backbone", "ImageNet %", "parameters", "images/s", "size", "licence", "weights")
    for row in rows:
        top1 = f"{row.top1:.1f}" if row.top1 is not None else "-"
        other_size = row.top1_size not in (None, row.size)
        rate = ("" if row.measured else "~") + (f"{row.rate:.1f}" if row.rate < 10 else f"{row.rate:,.0f}")
        shown = row.backbone
        yield form.format(
            shown.name,
            f"{top1} ({row.top1_size})" if other_size else top1,
            f"{shown.parameters:,}",
            rate,
            row.size,
            shown.licence or "not stated",
            shown.where,
        ).rstrip()
    yield "ImageNet %: top-1 accuracy in the provider's results (image size, if another); -: not trained on its labels"
    yield "images/s: of the frozen network on this machine, measured; ~: modelled from its multiply-adds"
    yield "weights: store: in $TRANSFER_WEIGHTS; bundle: in this package; hub: downloaded when first used"
    yield "all backbones: transfer backbones '*'"
