"""What is in a data set: counts by class, domain and split, sizes, shapes, formats, and files that are not used."""

from collections import Counter
from typing import Any

import numpy as np

from transfer.curation.inspection.measures import FILE_FORMATS, PIXEL_MODES, ImageMeasures
from transfer.data.table import ImageTable

QUANTILES = (0, 0.05, 0.5, 0.95, 1)


def summarise_table(table: ImageTable, measures: ImageMeasures) -> dict[str, Any]:
    """Return the summary of a set, as plain JSON values.

    Returns
    -------
    dict
        ``images``, ``labelled``; ``counts`` by object (``""``: unlabelled), a list over ``domains``; ``splits``; the
        least, 5 %, median, 95 % and greatest ``width``, ``height`` and ``aspect``; ``formats`` and ``modes`` with
        counts; ``left_out``: path, reason and place of each file that is not used; ``notes`` on how the set was read.
    """
    names = np.array([*table.objects, ""])[table.object] if table.objects else np.full(len(table), "")
    domains = [*table.domains] or [""]
    counts = {name: [0] * len(domains) for name in table.objects} | ({"": [0] * len(domains)} if "" in names else {})
    for name, domain in zip(names.tolist(), table.domain.tolist(), strict=True):
        counts[name][max(domain, 0)] += 1
    aspect = measures.width / measures.height
    return {
        "images": len(table),
        "labelled": int((table.object >= 0).sum()),
        "domains": domains,
        "counts": counts,
        "splits": dict(Counter(name for name in table.split.tolist() if name)),
        "width": _quantiles(measures.width),
        "height": _quantiles(measures.height),
        "aspect": _quantiles(aspect, 2),
        "formats": _count(measures.format, FILE_FORMATS),
        "modes": _count(measures.mode, PIXEL_MODES),
        "left_out": [each._asdict() for each in (*table.left_out, *table.unlabelled)],
        "notes": [*table.notes],
    }


def _quantiles(values: np.ndarray, digits: int = 0) -> list[float]:
    known = values[np.isfinite(values)]
    return np.quantile(known, QUANTILES).astype(float).round(digits).tolist() if len(known) else []


def _count(codes: np.ndarray, names: tuple[str, ...]) -> dict[str, int]:
    found = Counter(names[int(code)] or "other" for code in codes[np.isfinite(codes)])
    return dict(found.most_common())
