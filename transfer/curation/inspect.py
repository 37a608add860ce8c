"""`transfer.inspect`: what is in a data set and what is wrong with it, from cached features, without training."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from transfer.config.curation import InspectConfig
from transfer.curation.features import DataSetFeatures, load_data_set_features
from transfer.curation.inspection.duplicate_images import find_duplicates
from transfer.curation.inspection.finding import Finding
from transfer.curation.inspection.image_faults import find_image_faults
from transfer.curation.inspection.label_suspects import find_confused_classes, find_label_suspects, rank_labels
from transfer.curation.inspection.measures import measure_images
from transfer.curation.inspection.outliers import find_outliers
from transfer.curation.inspection.overview import summarise_table
from transfer.data.duplicates import group_near_duplicates
from transfer.evaluation.tsne import embed_tsne
from transfer.feature_cache import TrunkCache
from transfer.runs.folder import FINDINGS_FILE
from transfer.runtime.files import write_json

MAX_MAP_IMAGES = 600  # on the map: more hide each other, and exact t-SNE takes N² steps

log = logging.getLogger(__name__)


def inspect(config: InspectConfig) -> dict[str, Any]:
    """Find what is wrong with a data set, and write it to ``config.out``/findings.json if given.

    Returns
    -------
    dict
        ``data``, ``backbone``; ``levels`` of deep images; ``overview``, see `inspection.overview.summarise_table`;
        ``findings``, each as `inspection.finding.Finding.to_dict`; ``map``: ``rows`` and their ``places`` (n, 2);
        ``images``, by column: ``path``, ``object`` and ``domain`` (names), ``split``, ``sha256``, ``width``,
        ``height``; ``seconds``. Rows are indices into the columns of ``images``.

    Raises
    ------
    TransferError
        The data set or the weights cannot be read, no image can be used, or the folder cannot be written.
    """
    start = time.perf_counter()
    cache = TrunkCache(config.cache)
    data = load_data_set_features(config.images, config.backbone, cache, device=config.device, seed=config.seed)
    result = inspect_features(data, config, cache)
    result["seconds"] = round(time.perf_counter() - start, 1)
    if config.out:
        write_json(config.out / FINDINGS_FILE, result)
    return result


def inspect_features(data: DataSetFeatures, config: InspectConfig, cache: TrunkCache) -> dict[str, Any]:
    """Return the result of :func:`inspect`, without ``seconds``, for loaded images."""
    table, digests = data.table, data.inspection.sha256
    measures = measure_images(table.paths, digests, data.levels, cache.disk_cache)
    groups = group_near_duplicates(data.inspection)

    def findings() -> Iterator[Finding]:
        ranking = rank_labels(data.features, table.object, groups, config.seed)
        duplicates = list(find_duplicates(table, data.inspection, data.features))
        yield from (each for each in duplicates if each.kind not in ("duplicates", "near_duplicates"))
        if ranking:
            yield from find_label_suspects(table, ranking)
            yield from find_confused_classes(table, ranking)
        yield from find_outliers(data.features, groups)
        yield from find_image_faults(measures)
        yield from (each for each in duplicates if each.kind in ("duplicates", "near_duplicates"))

    found = list(tqdm(findings(), "findings", unit="kind", disable=None, leave=False))
    return {
        "data": config.images.data,
        "backbone": config.backbone.backbone,
        "levels": [list(level) for level in data.levels],
        "overview": summarise_table(table, measures),
        "findings": [finding.to_dict() for finding in found],
        "map": _map(data.features, config.seed),
        "images": {
            "path": table.paths.tolist(),
            "object": _names(table.object, table.objects),
            "domain": _names(table.domain, table.domains),
            "split": table.split.tolist(),
            "sha256": digests.tolist(),
            "width": measures.width.astype(int).tolist(),
            "height": measures.height.astype(int).tolist(),
        },
    }


def _names(values: np.ndarray, names: tuple[str, ...]) -> list[str]:
    return [names[value] if value >= 0 else "" for value in values.tolist()]


def _map(features: np.ndarray, seed: int) -> dict[str, Any]:
    rows = np.sort(np.random.default_rng(seed).permutation(len(features))[:MAX_MAP_IMAGES])
    places = embed_tsne(features[rows]).round(2).tolist() if len(rows) else []
    return {"rows": rows.tolist(), "places": places}
