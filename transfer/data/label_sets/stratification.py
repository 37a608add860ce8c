"""Iterative stratification of several labels an image (Sechidis, Tsoumakas and Vlahavas 2011, algorithm 1)."""

import numpy as np

from transfer.data.table import ImageTable


def draw_by_labels(
    rows: np.ndarray,
    table: ImageTable,
    component: np.ndarray,
    fraction: float,
    rng: np.random.Generator,
    notes: list[str],
    name: str,
) -> np.ndarray:
    """Draw about a `fraction` of the labelled `rows`, and of those that show each label; a component is not divided.

    The label with the fewest images left is shared out first, each image to the side that lacks most of it. Domains
    and objects of their own are shared out like labels.

    Parameters and result are those of :func:`transfer.data.sampling.draw_stratified`.
    """
    if fraction == 0 or not len(rows):
        return np.array([], np.int64)
    marks = _collect_marks(rows, table)
    _, member = np.unique(component[rows], return_inverse=True)
    sizes = np.bincount(member)
    shown = np.zeros((len(sizes), marks.shape[1]), np.int64)  # of each component, its images with each label
    np.add.at(shown, member, marks)
    wanted = np.array([fraction, 1 - fraction])  # of the drawn side, and of the other
    lacking, lacking_images = np.outer(wanted, shown.sum(0)), wanted * sizes.sum()
    drawn, waiting = np.zeros(len(sizes), bool), np.ones(len(sizes), bool)
    staying = shown.sum(0)  # the last image of a label stays
    order = rng.permutation(len(sizes))
    while waiting.any():
        left = shown[waiting].sum(0)
        label = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max))) if left.any() else -1
        for i in order[waiting[order] & ((shown[order, label] > 0) if label >= 0 else True)]:
            of_label = lacking[:, label] if label >= 0 else lacking_images
            side = int(np.lexsort((-lacking_images, -np.round(of_label, 9)))[0])
            if side == 0 and (shown[i] >= np.maximum(staying, 1)).any():
                side = 1
            drawn[i], waiting[i] = side == 0, False
            staying -= shown[i] * drawn[i]
            lacking[side] -= shown[i]
            lacking_images[side] -= sizes[i]
    found = np.sort(rows[drawn[member]])
    exact = int(np.floor(fraction * len(rows) + 0.5))
    if abs(len(found) - exact) > max(2, 0.02 * len(rows)):
        notes.append(f"{name} has {len(found)} images instead of {exact}: labels and groups are shared out first")
    return found


def _collect_marks(rows: np.ndarray, table: ImageTable) -> np.ndarray:
    """Return which labels, domains and objects each of `rows` shows, bool (N, all of them)."""
    marks = [target.values[rows] == 1 for target in table.targets.values() if target.values.ndim == 2]
    for name, target in table.targets.items():
        if name == "domain" or (name == "object" and table.has_objects):
            marks.append(target.values[rows][:, None] == np.arange(len(target.classes)))
    return np.concatenate(marks, axis=1)
