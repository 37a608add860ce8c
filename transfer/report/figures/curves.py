"""Lines of metrics -> learning curves."""

import itertools
from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from transfer.report.figures.svg import BAD, GOOD, INK, sheet

Lines = list[dict[str, Any]]
Courses = dict[str, tuple[list[float], list[float]]]
"""Epochs and values by the name of the course."""
LINES = ("#3b8fd1", "#e08a00", "#1fa37a", "#c95fa0", "#b3a11a", "#8a8a8a")


def curves(lines: Lines) -> list[Markup]:
    """Return the figures that tell how learning went: over epochs, over strengths where it was solved."""
    trained = [line for line in lines if "epoch" in line and "strength" not in line and "solved" not in line]
    trained = [line for line in trained if "candidate" not in line]
    drawn = []
    if trained:
        drawn.append(_epochs("loss", "loss", _courses(trained, ("loss",), ("val_loss",)), trained))
        for i, head in enumerate(_heads(trained)):
            sides = _courses(trained, ("train", head), ("val", head))
            drawn.append(_epochs(f"accuracy-{i}", f"{head}: accuracy", sides, trained))
    solved = [some for line in lines for some in line.get("solved", {}).values() if isinstance(some, dict)]
    members = (None, *(name for some in solved for name in some))
    strengths = [line for line in lines if "strength" in line and "val_loss" in line and line.get("on") in members]
    heads = dict.fromkeys(line["head"] for line in strengths)
    drawn += [_strengths(f"strength-{i}", head, strengths) for i, head in enumerate(heads)]
    candidates = [line for line in lines if "candidate" in line and "epoch" in line["candidate"]]
    return [*drawn, *([_candidates(candidates)] if candidates else [])]


def _heads(lines: Lines) -> Iterable[str]:
    return dict.fromkeys(head for line in lines for side in ("train", "val") for head in line.get(side, {}))


def _course(line: dict[str, Any]) -> str:
    return " ".join(str(line[key]) for key in ("run", "network") if key in line)


def _courses(lines: Lines, *paths: tuple[str, ...]) -> list[Courses]:
    """Return for each of `paths` (training's, validation's) epochs and values by course."""
    found = []
    for path in paths:
        courses: Courses = {}
        for line in lines:
            value: Any = line
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                x, y = courses.setdefault(_course(line), ([], []))
                x.append(line["epoch"])
                y.append(value)
        found.append(courses)
    return found


def _epochs(name: str, title: str, sides: list[Courses], lines: Lines) -> Markup:
    with sheet(name, f"{title} over epochs") as (figure, drawn):
        place = figure.subplots()
        for said, courses, colour in zip(("training", "validation"), sides, (BAD, GOOD), strict=True):
            for i, (x, y) in enumerate(courses.values()):
                label = said if i == 0 else None
                place.plot(x, y, color=colour, linewidth=1.4, marker="." if len(x) < 15 else None, label=label)
        for epoch in _borders(lines):
            place.axvline(epoch, color=INK, linewidth=0.6, alpha=0.4, linestyle=":")
        place.set_title(title)
        place.set_xlabel("epoch")
        place.xaxis.get_major_locator().set_params(integer=True)
        place.grid(color=INK, alpha=0.12, linewidth=0.5)
        place.legend()
    return drawn.svg


def _borders(lines: Lines) -> set[float]:
    """Return where one phase gives way to the next."""
    pairs = itertools.pairwise(lines)
    return {now["epoch"] - 0.5 for old, now in pairs if old.get("phase") != now.get("phase") and now["epoch"] > 1}


def _strengths(name: str, head: str, lines: Lines) -> Markup:
    from matplotlib.ticker import NullFormatter

    label = f"{head}: validation accuracy and loss over the strength of regularisation"
    with sheet(name, label, height=3.4) as (figure, drawn):
        places = figure.subplots(2, 1, sharex=True)
        courses: dict[str, Lines] = {}
        for line in lines:
            if line["head"] == head:
                share = f"{line['percent']:g} %" if "percent" in line else line.get("on", "")
                courses.setdefault(f"{_course(line)} {share}".strip(), []).append(line)
        for i, (title, course) in enumerate(courses.items()):
            course = sorted(course, key=lambda line: line["strength"])
            x, colour = [line["strength"] for line in course], LINES[i % 6] if len(courses) > 1 else GOOD
            best = min(range(len(course)), key=lambda k: course[k]["val_loss"])
            for place, y in zip(
                places, ([_accuracy(line, head) for line in course], [line["val_loss"] for line in course]), strict=True
            ):
                place.plot(x, y, color=colour, marker=".", linewidth=1.4, label=title or None)
                place.plot(x[best], y[best], "o", color=colour, markersize=7)
        places[0].set_title(f"{head}: solved at several strengths, the best marked")
        places[0].set_ylabel("accuracy")
        places[1].set_ylabel("loss")
        places[1].set(xscale="log", xlabel="strength of regularisation")
        places[1].xaxis.set_major_formatter("{x:g}")
        places[1].xaxis.set_minor_formatter(NullFormatter())
        for place in places:
            place.grid(color=INK, alpha=0.12, linewidth=0.5)
        if 1 < len(courses) <= 8:
            places[0].legend()
    return drawn.svg


def _accuracy(line: dict[str, Any], head: str) -> float:
    return next(iter(line["val"].values()), float("nan")) if head not in line["val"] else line["val"][head]


def _candidates(lines: Lines) -> Markup:
    courses: dict[str, list[float]] = {}
    for line in lines:
        courses.setdefault(f"{line.get('run', '')} {line['candidate'].partition(', epoch')[0]}".strip(), []).append(
            line["score"]
        )
    with sheet("candidates", "score of each candidate, without target labels, over epochs") as (figure, drawn):
        place = figure.subplots()
        for i, (name, scores) in enumerate(courses.items()):
            place.plot(range(1, len(scores) + 1), scores, color=LINES[i % 6], marker=".", linewidth=1.4, label=name)
        place.set_title("score without target labels (higher is better)")
        place.set_xlabel("epoch")
        place.xaxis.get_major_locator().set_params(integer=True)
        place.grid(color=INK, alpha=0.12, linewidth=0.5)
        if len(courses) <= 10:
            place.legend()
    return drawn.svg
