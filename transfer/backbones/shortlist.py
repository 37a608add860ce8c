"""The shortlist of backbones: some from small to large, with ImageNet accuracy, speed on this machine and licence.

Names and accuracies are in the table beside this file: top-1 in percent at ``top1_size`` pixels, from timm's
``results/results-imagenet.csv`` and torchvision's metadata of its weights; without one, the network was not trained on
ImageNet's labels. ``python -m transfer.backbones.shortlist`` counts size, multiply-adds and activations again.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transfer.backbones.catalogue import CatalogueRow, list_backbones
from transfer.runtime.files import write_text

if TYPE_CHECKING:
    from transfer.backbones.speed import NetworkWork

SHORTLIST = Path(__file__).with_name("shortlist.csv")
COLUMNS = ("name", "top1", "top1_size", "size", "multiply_adds", "activations")  # the last two in millions
# Images per second below which a network is not measured: building and timing it would take seconds.
MIN_RATE_TO_MEASURE = 20.0


@dataclass(frozen=True)
class ShortlistRow:
    """A backbone of the shortlist."""

    backbone: CatalogueRow
    top1: float | None  # of ImageNet, in percent; None: the provider's results have none
    top1_size: int | None  # side in pixels of the images that it was measured on
    size: int  # side in pixels of the images in pretraining, and by default here
    rate: float  # images per second of the frozen network on this machine
    measured: bool  # else modelled


def list_shortlist(device: str = "auto") -> Iterator[ShortlistRow]:
    """Yield the shortlist; the speed of networks whose weights are on this machine is measured, unless they are slow.

    Measuring takes seconds, once on each machine; names that the installed providers do not have are left out.
    """
    from transfer.backbones.measured_rates import MeasuredRates
    from transfer.backbones.speed import CALIBRATION, calibrate_speed
    from transfer.runtime.device import pick_device

    rates, table = MeasuredRates(pick_device(device)), list(read_shortlist())
    speed = calibrate_speed(rates.measure(CALIBRATION), {name: work for name, *_, work in table})
    modelled = {name: speed.predict(work) for name, *_, work in table}
    found = {name: backbone for name in modelled if (backbone := next(list_backbones(name), None))}
    here = [n for n, b in found.items() if b.where not in ("hub", "none") and modelled[n] >= MIN_RATE_TO_MEASURE]
    measured = rates.measure((*CALIBRATION, *here))
    for name, top1, top1_size, size, _ in table:
        if name in found:
            rate = measured.get(name, modelled[name])
            yield ShortlistRow(found[name], top1, top1_size, size, rate, name in measured)


def read_shortlist() -> "Iterator[tuple[str, float | None, int | None, int, NetworkWork]]":
    """Yield name, top-1, its image size, image size and work per image of each row of the table."""
    from transfer.backbones.speed import NetworkWork

    with SHORTLIST.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            top1 = float(row["top1"]) if row["top1"] else None
            top1_size = int(row["top1_size"]) if row["top1_size"] else None
            work = NetworkWork(float(row["multiply_adds"]), float(row["activations"]))
            yield row["name"], top1, top1_size, int(row["size"]), work


def write_shortlist() -> None:
    """Count size and work of each network of the table again, for the installed versions."""
    from transfer.backbones import registry
    from transfer.backbones.speed import count_work

    with SHORTLIST.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in rows:
        provider, name = registry.resolve(row["name"])
        work = count_work(name)
        counted = {"multiply_adds": f"{work.multiply_adds:.2f}", "activations": f"{work.activations:.2f}"}
        table.writerow(row | counted | {"size": provider.preprocessing(name).input_size[1]})
    write_text(SHORTLIST, text.getvalue())


if __name__ == "__main__":
    write_shortlist()
