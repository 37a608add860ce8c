"""A review of labels: which images to look at next, what was decided, and what is likely; no web in it."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from transfer.curation.features import DataSetFeatures
from transfer.curation.inspection.label_suspects import LabelRanking, rank_labels
from transfer.data.corrections import ACTIONS, Correction, CorrectionFile, settle
from transfer.data.duplicates import group_near_duplicates
from transfer.errors import TransferError

LIKELY_SHOWN = 9  # classes, one for each digit key
LEAST_SHOWN, MIN_SHOWN = 3, 0.005  # classes that are shown anyway; the least probability of others


class Review:
    """The images of a data set with decisions on their labels, which `file` holds; rows are those of the table.

    Every method can be called from several threads. Decisions are read from the file each time, so that several
    reviews of the same file agree.

    Parameters
    ----------
    data : DataSetFeatures
    file : CorrectionFile
    rows : sequence of int, optional
        The images to look at, in this order (default: those whose labels are most likely wrong).
    seed : int
        Random seed of the folds.
    """

    def __init__(
        self, data: DataSetFeatures, file: CorrectionFile, rows: Sequence[int] | None = None, seed: int = 0
    ) -> None:
        self.data, self.file, self.seed = data, file, seed
        self.paths = [str(path) for path in data.table.paths]
        self.given = [data.table.objects[k] if k >= 0 else "" for k in data.table.object.tolist()]
        self.chosen = None if rows is None else list(dict.fromkeys(rows))
        self.round = 0
        self.queue: list[int] = []
        self._groups = group_near_duplicates(data.inspection)
        self._ranking: LabelRanking | None = None
        self._ranked_names: list[str] = []
        self._lock = threading.Lock()
        self.rank()

    def rank(self) -> None:
        """Start a round: predict all images from the labels as they are now, and choose the images to look at.

        Without chosen rows these are the most doubtful labels that nobody decided on yet.
        """
        with self._lock:
            decided = self._decisions()
            names = [
                "" if row in decided and decided[row].action == "exclude" else name
                for row, name in enumerate(self._labels(decided))
            ]
            classes = sorted({*names} - {""})
            index = {name: k for k, name in enumerate(classes)}
            labels = np.array([index.get(name, -1) for name in names])
            self._ranking = rank_labels(self.data.features, labels, self._groups, self.seed)
            self._ranked_names = classes
            self.round += 1
            if self.chosen is not None:
                self.queue = self.chosen
                return
            self.queue = []
            if self._ranking:
                self.queue = [row for row in self._ranking.doubtful.tolist() if row not in decided]

    def state(self) -> dict[str, Any]:
        """Return what the page shows, as plain JSON values: ``classes``, ``round``, ``items`` and the counts."""
        with self._lock:
            decisions = self.file.read()
            decided, counts = self._decisions(decisions), self._count(decisions)
            labels = self._labels(decided)
            names = {*self.given, *labels, *(each.new for each in decided.values())} - {""}
            return {
                "round": self.round,
                "images": len(self.paths),
                "classes": sorted(names),
                "decided": len(decided),
                "items": [self._item(row, decided, counts, labels) for row in self.queue],
            }

    def decide(self, row: int, action: str, new: str = "", *, seen: int) -> bool:
        """Append a decision on an image; return False if others than the `seen` ones were made on it before.

        Parameters
        ----------
        action : str
            ``accept``, ``relabel`` to the class `new`, ``exclude``, or ``undo`` the image's last decision.

        Raises
        ------
        TransferError
            There is no such row or action, a class is missing, nothing is to be undone, or the file cannot be written.
        """
        new = " ".join(new.split())
        if not 0 <= row < len(self.paths):
            raise TransferError(f"there is no image {row}")
        if action not in ACTIONS:
            raise TransferError(f"there is no action {action!r}: {', '.join(ACTIONS)}")
        if action == "relabel" and not new:
            raise TransferError("relabel needs the name of a class")
        with self._lock:
            decided = self._decisions()
            before = decided[row].new if row in decided else self.given[row]
            if action == "undo" and row not in decided:
                raise TransferError("there is no decision to undo on this image")
            if action == "accept" and not (before or self.given[row]):
                raise TransferError("this image has no label to accept: give it one")
            after = {"accept": self.given[row], "relabel": new, "exclude": "", "undo": ""}[action]
            when = datetime.now(UTC).isoformat(timespec="seconds")
            correction = Correction(
                self.paths[row], str(self.data.inspection.sha256[row]), self.given[row], after, when, action
            )
            return self.file.append(correction, seen)

    def item(self, row: int) -> dict[str, Any]:
        """Return one image as it is in ``items`` of :meth:`state`."""
        with self._lock:
            decisions = self.file.read()
            decided = self._decisions(decisions)
            return self._item(row, decided, self._count(decisions), self._labels(decided))

    def _decisions(self, decisions: list[Correction] | None = None) -> dict[int, Correction]:
        """Return the decision that holds for each row that has one."""
        settled = settle(self.file.read() if decisions is None else decisions)
        return {row: settled[path] for row, path in enumerate(self.paths) if path in settled}

    @staticmethod
    def _count(decisions: list[Correction]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for each in decisions:
            counts[each.path] = counts.get(each.path, 0) + 1
        return counts

    def _labels(self, decided: dict[int, Correction]) -> list[str]:
        return [
            decided[row].new if row in decided and decided[row].action == "relabel" else name
            for row, name in enumerate(self.given)
        ]

    def _item(
        self, row: int, decided: dict[int, Correction], counts: dict[str, int], labels: list[str]
    ) -> dict[str, Any]:
        decision = decided.get(row)
        return {
            "row": row,
            "path": self.paths[row],
            "given": self.given[row],
            "label": labels[row],
            "likely": self._likely(row),
            "decision": decision.action if decision else "",
            "seen": counts.get(self.paths[row], 0),
        }

    def _likely(self, row: int) -> list[list[Any]]:
        """Return the likeliest classes of an image with their probabilities, without the given one."""
        if not self._ranking:
            return []
        p = self._ranking.probabilities[row]
        order = [k for k in np.argsort(-p, kind="stable").tolist() if self._ranked_names[k] != self.given[row]]
        shown = [k for place, k in enumerate(order[:LIKELY_SHOWN]) if place < LEAST_SHOWN or p[k] >= MIN_SHOWN]
        return [[self._ranked_names[k], round(float(p[k]), 3)] for k in shown]
