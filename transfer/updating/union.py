"""Old and new images in one list: each old image in its old part of the split, with corrected labels."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from transfer.config.train import DataConfig
from transfer.data.duplicates import Inspection, group_duplicates, group_near_duplicates, merge_groups
from transfer.data.label_sets.cells import MULTILABEL, list_labels, spell_label_set
from transfer.data.label_sets.combinations import use_label_sets
from transfer.data.label_sets.stratification import draw_by_labels
from transfer.data.manifests.manifest import make_table
from transfer.data.sampling import draw_stratified
from transfer.errors import list_examples
from transfer.runs.image_list import DIGEST, ListedImage
from transfer.updating.sources import Source

PARTS = ("test", "train", "val")  # the part that a new image joins which is alike to old ones of several
_LABELS = ("path", "split", DIGEST, "group")  # columns that are no labels


@dataclass
class Union:
    """The images of the new run, and what became of the new ones.

    Parameters
    ----------
    images : list of dict
        Lines of its images.csv: the old ones in their order, then the new ones.
    hashes : ndarray of uint64, shape (old,)
        Perceptual hashes of the old ones.
    old : int
        Number of old ones.
    label_columns : dict of str to str
        The kind of each further column with classes, by its name. Without objects, images are split by these.
    """

    images: list[ListedImage]
    hashes: np.ndarray
    old: int
    label_columns: Mapping[str, str] = field(default_factory=dict)
    corrected: list[dict[str, str]] = field(default_factory=list)  # path, column, before, after
    confirmed: int = 0  # corrections that say what the run's images say
    labelled: int = 0  # images that lacked a label and have one now
    known: int = 0  # new images that are not added, since they are there already
    conflicting: int = 0  # new images that are there under another label
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places: defaultdict[str, list[int]] = defaultdict(list)  # of images by sha256
        for place, image in enumerate(self.images):
            self._places[image[DIGEST]].append(place)
        self._new_hashes: list[np.uint64] = []
        self._unlike: Counter[str] = Counter()  # of images that are there already, by column
        self._names = {name: self._list_names(name) for name in ("object", "domain", *self.label_columns)}
        self._has_objects = any(image["object"] for image in self.images)

    @classmethod
    def of(
        cls,
        old: Source,
        added: Source | None,
        corrections: Source | None,
        config: DataConfig,
        seed: int,
        label_columns: Mapping[str, str] | None = None,
    ) -> "Union":
        """Return the union of the images of a run and new ones; `config` and `seed` split the new ones.

        A correction has precedence over the label of the same image in both others.
        """
        images = list(map(dict, old.images))
        union = cls(images, old.hashes, len(images), label_columns or {}, notes=[*old.notes])
        for source in (added, corrections):
            union.notes += source.notes if source else ()
        if corrections:
            union._correct(corrections)
        if added:
            union._add(added, {image[DIGEST] for image in corrections.images} if corrections else set())
        union._split(config, seed)
        return union

    def count_new(self) -> dict[str, int]:
        """Return the number of new images in each part of the split."""
        counts = Counter(image["split"] for image in self.images[self.old :])
        return {name: counts[name] for name in ("train", "val", "test")}

    def find_new_names(self, column: str) -> list[str]:
        """Return the names in `column`, object, domain or one of labels, that no old image had."""
        return sorted(self._list_names(column) - self._names[column])

    def find_new_labels(self) -> dict[str, list[str]]:
        """Return the labels that no old image had, by column; no column without any."""
        several = [column for column, kind in self.label_columns.items() if kind == MULTILABEL]
        return {column: names for column in several if (names := self.find_new_names(column))}

    def describe(self) -> dict[str, Any]:
        """Return what became of the new images, for update.json."""
        return {
            "images": {"old": self.old, "new": self.count_new()},
            "known": self.known,
            "labelled": self.labelled,
            "conflicting": self.conflicting,
            "corrected": self.corrected,
            "new_classes": self.find_new_names("object"),
            "new_domains": self.find_new_names("domain"),
            "new_labels": self.find_new_labels(),
        }

    def _list_names(self, column: str) -> set[str]:
        cells = {image.get(column, "") for image in self.images}
        return {*list_labels(cells)} if self.label_columns.get(column) == MULTILABEL else cells - {""}

    def _name(self, image: ListedImage) -> str:
        """Return the object of an image, or in a run without objects its labels; "" if unknown."""
        if self._has_objects:
            return image["object"]
        return ", ".join(filter(None, (spell_label_set(image.get(column, ""), {}) for column in self.label_columns)))

    def _append(self, image: ListedImage, phash: np.uint64) -> None:
        self._places[image[DIGEST]].append(len(self.images))
        self.images.append(dict(image))
        self._new_hashes.append(phash)

    def _correct(self, source: Source) -> None:
        """Correct the labels of old images by their bytes, and add the others to train; the last of several counts."""
        for image, phash in zip(source.images, source.hashes, strict=True):
            labels = {column: label for column, label in image.items() if column not in _LABELS and label}
            places = self._places[image[DIGEST]]
            if not places:
                self._append(image | {"split": image["split"] or "train"}, phash)
                continue
            changed = False
            for old in (self.images[place] for place in places):
                other = {k: label for k, label in labels.items() if not self._is_same(k, old.get(k, ""), label)}
                self.corrected += [
                    {"path": old["path"], "column": column, "before": old[column], "after": label}
                    for column, label in other.items()
                    if old.get(column)
                ]
                self.labelled += any(not old.get(column) for column in other)
                old |= other
                changed = changed or bool(other)
            self.confirmed += not changed

    def _is_same(self, column: str, one: str, other: str) -> bool:
        """Return whether two cells of `column` say the same; the order of several labels does not matter."""
        if self.label_columns.get(column) == MULTILABEL:
            return spell_label_set(one, {}) == spell_label_set(other, {})
        return one == other

    def _add(self, source: Source, corrected: set[str]) -> None:
        """Add those of the images that are not there; one with another label goes beside the other, as a conflict.

        `corrected` are the sha256 of images whose label is decided.
        """
        there = len(self.images)
        for image, phash in zip(source.images, source.hashes, strict=True):
            places = [place for place in self._places[image[DIGEST]] if place < there]
            name = self._name(image)
            others = [place for place in places if self._name(self.images[place]) not in ("", name)]
            if not places:
                self._append(image, phash)
            elif name and others and image[DIGEST] not in corrected:
                self.conflicting += 1
                self._append(image | {"split": self.images[others[0]]["split"]}, phash)
            else:
                self.known += 1
                self._fill(places, image, corrected)

    def _fill(self, places: list[int], image: ListedImage, corrected: set[str]) -> None:
        """Give the images at `places` labels that they lack; count those that differ, and stay as they are."""
        for old in (self.images[place] for place in places):
            given = {k: v for k, v in image.items() if k not in (*_LABELS, "object") and v}
            lacking = {k: v for k, v in image.items() if k not in _LABELS and v and not old.get(k)}
            if image[DIGEST] not in corrected:
                self._unlike.update(k for k, v in given.items() if old.get(k) and not self._is_same(k, old[k], v))
            self.labelled += bool(lacking)
            old |= lacking

    def _split(self, config: DataConfig, seed: int) -> None:
        """Give each new image its part of the split: that of old images alike, its own, or one that is drawn."""
        component = self._group()
        parts: defaultdict[int, set[str]] = defaultdict(set)
        for place, image in enumerate(self.images[: self.old]):
            parts[int(component[place])].add(image["split"])
        joined = dict.fromkeys(PARTS, 0)
        free = []
        for place in range(self.old, len(self.images)):
            image, alike = self.images[place], parts[int(component[place])]
            if alike:
                image["split"] = next(name for name in PARTS if name in alike)
                joined[image["split"]] += 1
            elif not image["split"]:
                image["split"] = "train"
                free += [place] if self._name(image) else []
        if any(joined.values()):
            counts = ", ".join(f"{name} {count}" for name, count in joined.items() if count)
            self.notes.append(f"new images that are near-duplicates of old ones, or of a group with them: {counts}")
        self._draw(np.array(free, np.int64), component, config, seed)

    def _group(self) -> np.ndarray:
        """Return the component of each image: duplicates, near-duplicates and groups, int64 (N,)."""
        digests = np.array([image[DIGEST] for image in self.images])
        hashes = np.concatenate([self.hashes, np.array(self._new_hashes, np.uint64)])
        inspection = Inspection(digests, hashes, np.full(len(digests), ""))
        names = [image.get("group") or f"row {place}" for place, image in enumerate(self.images)]
        groups = np.unique(names, return_inverse=True)[1]
        return merge_groups([group_duplicates(inspection), group_near_duplicates(inspection), groups])

    def _draw(self, rows: np.ndarray, component: np.ndarray, config: DataConfig, seed: int) -> None:
        """Draw test and validation images from the new images `rows`, by the run's fractions; train has the others."""
        targets = [f"{column}:{kind}" for column, kind in self.label_columns.items()]
        keys = ("path", "object", "domain", *self.label_columns)
        columns = {key: [image.get(key, "") for image in self.images] for key in keys}
        table = use_label_sets(make_table(columns, targets, name="", source="", place=str))
        draw = draw_by_labels if MULTILABEL in self.label_columns.values() else draw_stratified
        rng = np.random.default_rng(seed)
        for name, fraction in (("test", config.test), ("val", config.val)):
            if not any(image["split"] == name for image in self.images[: self.old]):
                continue  # the run has no such part
            drawn = draw(rows, table, component, fraction, rng, self.notes, name)
            for place in drawn.tolist():
                self.images[place]["split"] = name
            rows = np.setdiff1d(rows, drawn)

    def describe_changes(self) -> list[str]:
        """Return notes that count and name corrected, newly labelled and known images."""
        agreed = _count(self.confirmed, "correction") + " agreed with the run's labels already"
        shown = [f"{c['path']}: {c['column']} {c['before']} is {c['after']}" for c in self.corrected]
        new = [f"{column} {name}" for column, names in self.find_new_labels().items() for name in names]
        return [
            *([f"new labels, which no old image shows unless corrected: {list_examples(new)}"] if new else []),
            *([f"{_count(len(shown), 'label')} corrected: {list_examples(shown, 3)}"] if shown else []),
            *([agreed] if self.confirmed else []),
            *([f"{_count(self.labelled, 'image')} labelled that had no label before"] if self.labelled else []),
            *([f"{_count(self.known, 'new image')} not added: the run has the same files"] if self.known else []),
            *(
                f"{count} of them differ{'s' * (count == 1)} in {column}: the run's stays, and --corrections changes it"
                for column, count in self._unlike.items()
            ),
        ]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
