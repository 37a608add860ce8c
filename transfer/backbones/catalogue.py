"""What backbones there are: names, parameters, width, stages, and where their weights lie.

The table beside this file says it without importing torch. ``python -m transfer.backbones.catalogue`` makes it anew for
the installed versions of timm and torchvision, building every network on the meta device.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path

from transfer.backbones import weight_files
from transfer.runtime.files import write_text

TABLE = Path(__file__).with_name("catalogue.csv")


@dataclass(frozen=True)
class Row:
    """One line of the catalogue.

    Parameters
    ----------
    name : str
        As :func:`transfer.backbones.load` takes it.
    provider : str
        ``timm``, ``torchvision`` or ``bundled``.
    parameters : int
        Without the classifier.
    width : int
        Of the pooled features.
    stages : int
    where : str
        The weights: ``store``, ``bundle``, ``hub (cached)``, ``hub`` or ``none``.
    """

    name: str
    provider: str
    parameters: int
    width: int
    stages: int
    where: str


def catalogue(pattern: str = "*", store: Path | None = None) -> Iterator[Row]:
    """Yield the backbones whose name matches `pattern`, an architecture's bare name before its tags.

    Parameters
    ----------
    pattern : str
        With ``*``, ``?`` and ``[...]``; a provider's prefix may be left out.
    store : Path, optional
        Folder of weights; by default what ``TRANSFER_WEIGHTS`` says.

    Examples
    --------
    >>> next(catalogue("mobilenetv2_100")).stages
    9
    """
    folder = weight_files.store_folder(store)
    pattern = pattern.removeprefix("timm:")
    said = set()
    for row in _rows(pattern):
        for name in (row.name.partition(".")[0], row.name):
            if name not in said and _matches(name, pattern):
                yield replace(row, name=name, where=_where(name, row.where, folder))
            said.add(name)


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(weight_files.bare(name), pattern)


def _where(name: str, source: str, folder: Path | None) -> str:
    if weight_files.store_file(name, folder):
        return "store"
    if weight_files.bundle_file(name):
        return "bundle"
    if not source:
        return "none"
    return "hub (cached)" if weight_files.hub_cached(source) else "hub"


def _rows(pattern: str) -> Iterator[Row]:
    """Yield what is tabulated, and measure what else matches; `where` is the hub's source."""
    there: dict[str, None] | None = None  # where other versions are installed: what they have
    with TABLE.open(encoding="utf-8", newline="") as file:
        if file.readline().removeprefix("#").strip() != versions():
            from transfer.backbones import registry

            there = dict.fromkeys(registry.names())
        listed = set()
        for name, provider, parameters, width, stages, source in csv.reader(file):
            listed.add(name)
            source = source.replace("=", f"hf:timm/{name}")
            if there is None or name in there:
                yield Row(name, provider, int(parameters), int(width), int(stages), source)
    for name in there or ():
        if name not in listed and (_matches(name, pattern) or _matches(name.partition(".")[0], pattern)):
            yield measure(name)


def versions() -> str:
    """Return the installed versions of the providers, as the table's first line has them."""
    return " ".join(f"{package} {version(package).partition('+')[0]}" for package in ("timm", "torchvision"))


def measure(name: str) -> Row:
    """Return the row of `name`, from building it on the meta device; `where` is the hub's source."""
    from transfer.backbones import registry, stages

    provider, name = registry.resolve(name)
    with stages.OnMeta():
        network = provider.build(name)
    found, width = stages.read(network, provider.preprocessing(name).input_size)
    parameters = sum(p.numel() for p in network.parameters())
    return Row(name, provider.NAME, parameters, width, len(found), provider.source(name))


def main() -> None:
    """Write the table for the installed versions; takes some minutes."""
    from tqdm import tqdm

    from transfer.backbones import registry

    text = io.StringIO()
    text.write(f"# {versions()}\n")
    table = csv.writer(text, lineterminator="\n")
    measured: dict[str, Row] = {}
    for name in tqdm(registry.names(), disable=None):
        architecture = name.partition(".")[0]  # tags differ in weights, and in the size of image they were trained on
        if architecture not in measured:
            measured[architecture] = measure(name)
        row = measured[architecture]
        source = registry.resolve(name)[0].source(name)
        source = "=" if source == f"hf:timm/{name}" else source
        table.writerow([name, row.provider, row.parameters, row.width, row.stages, source])
    write_text(TABLE, text.getvalue())


if __name__ == "__main__":
    main()
