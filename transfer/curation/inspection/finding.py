"""Finding: images that need a look, with the reason and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class FoundItem:
    """One image, or a group such as duplicates: row numbers, what is odd, and the class that it rather is, if any."""

    rows: tuple[int, ...]
    note: str = ""
    suggested: str = ""


@dataclass(frozen=True)
class Finding:
    """Images of one kind of fault, the worst first.

    Parameters
    ----------
    kind : str
        A key that scripts can depend on, such as ``label_suspects``.
    title, explanation, advice : str
        What it is, why it matters, and what to do.
    items : sequence of FoundItem
    """

    kind: str
    title: str
    explanation: str
    advice: str
    items: Sequence[FoundItem] = field(default=())

    @property
    def rows(self) -> list[int]:
        """Row numbers of all its images, each once, the worst first."""
        return list(dict.fromkeys(row for item in self.items for row in item.rows))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values; ``count`` is the number of images."""
        items = [
            {"rows": [*map(int, item.rows)], "note": item.note, "suggested": item.suggested} for item in self.items
        ]
        return {
            "kind": self.kind,
            "title": self.title,
            "count": len(self.rows),
            "explanation": self.explanation,
            "advice": self.advice,
            "items": items,
        }
