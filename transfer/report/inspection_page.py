"""The page of a data set, from the findings of `transfer inspect`: values for the template inspection.html."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer.report.figures.image_map import draw_image_map
from transfer.report.figures.svg import shorten
from transfer.report.figures.thumbnails import Thumbnails
from transfer.runtime.escape import escape_unprintable

# Bounds of the page, whatever the set; thumbnails.PAGE_BUDGET bounds the characters of all pictures.
SINGLES_SHOWN, GROUPS_SHOWN, GROUP_IMAGES = 24, 12, 6  # of a finding; images of a group
MONTAGE_CELLS, MONTAGE_EACH = 240, 6  # cells of a class and a domain; pictures of a cell, fewer where cells are many
MONTAGE_IMAGES = 480
FILES_SHOWN, ROWS_SHOWN, DOMAINS_SHOWN = 10, 200, 8  # file names of a reason; classes and domains in a table
CARD_SIDE, MONTAGE_SIDE, MAP_SIDE = 128, 72, 40  # pixels
MAX_SHOWN_NAME = 120  # characters of a class or file


def inspection_page(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of inspection.html, from what :func:`transfer.curation.inspect.inspect` returns."""
    thumbnails = Thumbnails(result["images"]["path"], tuple(map(tuple, result["levels"])))
    cards = _Cards(result, thumbnails)
    findings = cards.findings(result["findings"])
    cells = _montage(result["images"], result["map"]["rows"], result["overview"])
    montage = thumbnails.draw([row for cell in cells for row in cell["rows"]], MONTAGE_SIDE)
    overview, name = result["overview"], Path(result["data"]).name or result["data"]
    return {
        "title": f"{shorten(name, MAX_SHOWN_NAME)}: what is in it, and what is wrong",
        "result": result,
        "data": escape_unprintable(result["data"]),
        "domains": [shorten(name, MAX_SHOWN_NAME) for name in overview["domains"][:DOMAINS_SHOWN]],
        "overview": overview,
        "counts": _count_rows(overview["counts"]),
        "formats": _join(overview["formats"]),
        "modes": _join(overview["modes"]),
        "splits": _join(overview["splits"]),
        "left_out": _group_left_out(overview["left_out"]),
        "notes": [escape_unprintable(note) for note in overview["notes"]],
        "findings": findings,
        "montage": [
            cell | {"pictures": [(montage.get(row, ""), cards.path(row)) for row in cell["rows"]]} for cell in cells
        ],
        "montage_each": max((len(cell["rows"]) for cell in cells), default=1),
        "more_cells": len(set(zip(result["images"]["object"], result["images"]["domain"], strict=True))) - len(cells),
        "map": _draw_map(result, thumbnails, cards),
    }


class _Cards:
    """Turns findings into cards with pictures."""

    def __init__(self, result: Mapping[str, Any], thumbnails: Thumbnails) -> None:
        self.images, self.thumbnails = result["images"], thumbnails
        self.several = len(set(self.images["domain"])) > 1
        self.base = _common_folder(self.images["path"])

    def path(self, row: int) -> str:
        path = escape_unprintable(self.images["path"][row].removeprefix(self.base))
        return path if len(path) <= MAX_SHOWN_NAME else f"…{path[1 - MAX_SHOWN_NAME :]}"

    def findings(self, findings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        shown = [
            finding["items"][: GROUPS_SHOWN if len(finding["items"][0]["rows"]) > 1 else SINGLES_SHOWN]
            for finding in findings
        ]
        rows = [row for items in shown for item in items for row in item["rows"][:GROUP_IMAGES]]
        pictures = self.thumbnails.draw(rows, CARD_SIDE)
        return [
            dict(finding)
            | {
                "grouped": any(len(item["rows"]) > 1 for item in items),
                "cards": [self._card(item, pictures) for item in items],
                "more": len(finding["items"]) - len(items),
            }
            for finding, items in zip(findings, shown, strict=True)
        ]

    def _card(self, item: Mapping[str, Any], pictures: Mapping[int, str]) -> dict[str, Any]:
        rows = item["rows"][:GROUP_IMAGES]
        images = [
            {"picture": pictures.get(row, ""), "path": path, "file": path.rpartition("/")[2], "label": self.label(row)}
            for row in rows
            for path in [self.path(row)]
        ]
        labels = {self.label(row) for row in item["rows"]}
        note, suggested = (escape_unprintable(item[key]) for key in ("note", "suggested"))
        label = labels.pop() if len(labels) == 1 else ""  # of a group, if all have the same
        return {
            "images": images,
            "label": label,
            "note": note,
            "suggested": suggested,
            "more": len(item["rows"]) - len(rows),
        }

    def label(self, row: int) -> str:
        """Return class and domain of a row, the domain where there are several."""
        name = shorten(self.images["object"][row], MAX_SHOWN_NAME) or "no label"
        return f"{name} · {shorten(self.images['domain'][row], MAX_SHOWN_NAME)}" if self.several else name


def _common_folder(paths: Sequence[str]) -> str:
    """Return what the paths of several images begin with, up to a slash."""
    if len(paths) < 2:
        return ""
    first, last = min(paths), max(paths)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rfind("/", 0, same) + 1]


def _montage(images: Mapping[str, Any], mapped: Sequence[int], overview: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return class, domain, number of images and the rows to show of each cell; images on the map come first."""
    cells: dict[tuple[str, str], list[int]] = {}
    on_map = set(mapped)
    names = {name: k for k, name in enumerate(overview["counts"])}
    order = sorted(range(len(images["path"])), key=lambda row: (row not in on_map, row))
    for row in order:
        cells.setdefault((images["object"][row], images["domain"][row]), []).append(row)
    each = max(1, min(MONTAGE_EACH, MONTAGE_IMAGES // len(cells)))
    chosen = sorted(cells, key=lambda cell: (names.get(cell[0], len(names)), cell[1]))[:MONTAGE_CELLS]
    return [
        {
            "name": shorten(name, MAX_SHOWN_NAME) or "no label",
            "domain": shorten(domain, MAX_SHOWN_NAME),
            "n": len(cells[name, domain]),
            "rows": cells[name, domain][:each],
        }
        for name, domain in chosen
    ]


def _count_rows(counts: Mapping[str, list[int]]) -> dict[str, Any]:
    """Return the classes with their counts, the smallest first, and how many are not listed."""
    rows = sorted(counts.items(), key=lambda item: (sum(item[1]), item[0]))
    if len(rows) > ROWS_SHOWN:
        rows = [*rows[: ROWS_SHOWN // 2], *rows[-ROWS_SHOWN // 2 :]]
    most = max((sum(of_domain) for of_domain in counts.values()), default=1)
    return {
        "rows": [
            {
                "name": shorten(name, MAX_SHOWN_NAME) or "no label",
                "counts": n[:DOMAINS_SHOWN],
                "n": sum(n),
                "share": sum(n) / max(most, 1),
            }
            for name, n in rows
        ],
        "more": len(counts) - len(rows),
    }


def _join(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{escape_unprintable(name)} {count:,}" for name, count in counts.items())


def _group_left_out(left_out: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return for each reason the number of files, and the first ones by name."""
    counts = Counter(each["reason"] for each in left_out)
    return [
        {
            "reason": escape_unprintable(reason),
            "n": n,
            "files": [escape_unprintable(each["path"]) for each in left_out if each["reason"] == reason][:FILES_SHOWN],
        }
        for reason, n in counts.most_common(ROWS_SHOWN)
    ]


def _draw_map(result: Mapping[str, Any], thumbnails: Thumbnails, cards: _Cards) -> Any:
    rows, places = result["map"]["rows"], result["map"]["places"]
    if len(rows) < 3:
        return None
    pictures = thumbnails.draw(rows, MAP_SIDE)
    titles = [f"{cards.label(row)} – {cards.path(row)}" for row in rows]
    domains = [result["images"]["domain"][row] for row in rows]
    return draw_image_map(np.array(places), [pictures.get(row, "") for row in rows], titles, domains)
