"""The catalogue of backbones: names, parameters, width, stages, licence, and where their weights are.

It is read from the table beside this file, without importing torch. ``python -m transfer.backbones.catalogue`` rebuilds
the table for the installed versions of timm and torchvision: it builds every network on the meta device.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path

from transfer.backbones import registry, weight_paths
from transfer.backbones.registry import BACKBONES
from transfer.backbones.weight_packages import find_weight_package
from transfer.runtime.files import write_text

TABLE = Path(__file__).with_name("catalogue.csv")
REGISTERED_FILE = "file"  # `where` of weights that were registered with their backbone


@dataclass(frozen=True)
class CatalogueRow:
    """One line of the catalogue.

    `licence` is that of the weights, as the provider states it; empty where it does not. The weights are in the
    ``store``, ``bundle`` (and its pretraining), ``file`` (registered with the backbone), ``package NAME``,
    ``hub (cached)``, ``hub`` or ``none``.
    """

    name: str  # as `transfer.backbones.load` takes it
    provider: str  # ``timm``, ``torchvision``, ``bundled`` or ``registered``
    parameters: int  # without the classifier
    width: int  # number of pooled features
    stages: int
    licence: str
    where: str


def list_backbones(pattern: str = "*") -> Iterator[CatalogueRow]:
    """Yield the backbones whose name matches `pattern`; an architecture without a tag comes before its tags.

    `pattern` is a name with ``*``, ``?`` and ``[...]``; a provider's prefix may be left out.

    Examples
    --------
    >>> next(list_backbones("mobilenetv2_100")).stages
    9
    """
    folder = weight_paths.find_store()
    pattern = pattern.removeprefix("timm:")
    listed = set()
    for row in _list_rows(pattern):
        for name in (row.name.partition(".")[0], row.name):
            if name not in listed and _matches(name, pattern):
                yield _find_weights_of(replace(row, name=name), folder)
            listed.add(name)


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(weight_paths.strip_provider(name), pattern)


def _find_weights_of(row: CatalogueRow, folder: Path | None) -> CatalogueRow:
    """Return `row` with the place of its weights, and with the licence of a package that brings them."""
    if weight_paths.find_store_file(row.name, folder):
        return replace(row, where="store")
    if weight_paths.find_bundled_file(row.name):
        return replace(row, where=f"bundle ({weight_paths.BUNDLE_PRETRAINING})")
    if (package := find_weight_package(row.name)) and package.installed:
        return replace(row, where=f"package {package.distribution}", licence=package.licence)
    if row.where in ("", REGISTERED_FILE):
        return replace(row, where=row.where or "none")
    return replace(row, where="hub (cached)" if weight_paths.is_in_hub_cache(row.where) else "hub")


def _list_rows(pattern: str) -> Iterator[CatalogueRow]:
    """Yield the rows of the table, then measure other matching backbones; `where` is the hub's source."""
    installed: dict[str, None] | None = None  # all names, if the table was made for other versions
    with TABLE.open(encoding="utf-8", newline="") as file:
        if file.readline().removeprefix("#").strip() != format_provider_versions():
            installed = dict.fromkeys(registry.list_names())
        listed = set()
        for name, provider, parameters, width, stages, licence, source in csv.reader(file):
            listed.add(name)
            source = source.replace("=", f"hf:timm/{name}")
            if installed is None or name in installed:
                yield CatalogueRow(name, provider, int(parameters), int(width), int(stages), licence, source)
    for name in installed or BACKBONES:
        if name not in listed and (_matches(name, pattern) or _matches(name.partition(".")[0], pattern)):
            yield measure_backbone(name)


def format_provider_versions() -> str:
    """Return the installed versions of the providers, as in the table's first line."""
    return " ".join(f"{package} {version(package).partition('+')[0]}" for package in ("timm", "torchvision"))


def measure_backbone(name: str) -> CatalogueRow:
    """Return the row of `name`, built on the meta device; `where` is the hub's source."""
    from transfer.backbones import stages

    provider, name = registry.resolve(name)
    with stages.BuildOnMeta():
        network = provider.build(name)
    found, width = stages.read_stages(network, provider.preprocessing(name).input_size)
    source = provider.source(name) or (REGISTERED_FILE if provider.local_file(name) else "")
    parameters = sum(p.numel() for p in network.parameters())
    return CatalogueRow(name, provider.label, parameters, width, len(found), provider.licence(name), source)


def write_table() -> None:
    """Write the table for the installed versions, in a few minutes."""
    from tqdm.auto import tqdm

    text = io.StringIO()
    text.write(f"# {format_provider_versions()}\n")
    table = csv.writer(text, lineterminator="\n")
    measured: dict[str, CatalogueRow] = {}
    names = [name for name in registry.list_names() if name not in BACKBONES]
    for name in tqdm(names, disable=None):
        architecture = name.partition(".")[0]  # tags differ only in weights and image size
        if architecture not in measured:
            measured[architecture] = measure_backbone(name)
        row = measured[architecture]
        provider = registry.resolve(name)[0]
        source = "=" if (source := provider.source(name)) == f"hf:timm/{name}" else source
        table.writerow([name, row.provider, row.parameters, row.width, row.stages, provider.licence(name), source])
    write_text(TABLE, text.getvalue())


if __name__ == "__main__":
    write_table()
