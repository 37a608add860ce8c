import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from transfer.errors import TransferError
from transfer.report.figures import thumbnails
from transfer.report.page import write_inspection, write_report
from transfer.runtime.files import write_json

HOSTILE = '<script>alert("x")</script>&\u202e\n{{ 7 * 7 }}'


def a_result(paths, objects, domains=None, findings=(), mapped=None):
    n = len(paths)
    domains = domains or ["all"] * n
    mapped = list(range(n)) if mapped is None else mapped
    names = list(dict.fromkeys(domains))
    counts = {name: [0] * len(names) for name in dict.fromkeys(objects)}
    for name, domain in zip(objects, domains, strict=True):
        counts[name][names.index(domain)] += 1
    return {
        "data": "set",
        "backbone": "glyphnet",
        "levels": [],
        "seconds": 1.5,
        "overview": {
            "images": n,
            "labelled": n,
            "domains": names,
            "counts": counts,
            "splits": {},
            "width": [1] * 5,
            "height": [1] * 5,
            "aspect": [1.0] * 5,
            "formats": {"PNG": n},
            "modes": {"RGB": n},
            "left_out": [],
            "notes": [],
        },
        "findings": list(findings),
        "map": {"rows": mapped, "places": np.random.default_rng(0).normal(size=(len(mapped), 2)).tolist()},
        "images": {"path": paths, "object": objects, "domain": domains},
    }


def a_finding(groups, note="why", suggested=""):
    items = [{"rows": list(rows), "note": note, "suggested": suggested} for rows in groups]
    rows = {row for group in groups for row in group}
    texts = {"title": "Title", "explanation": "Because.", "advice": "Do it."}
    return {"kind": "kind", "count": len(rows), "items": items, **texts}


class Parsed(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.pictures = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.pictures += [value for name, value in attributes if tag in ("img", "image") and name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def page(result, tmp_path):
    return Parsed(write_inspection(result, tmp_path / "page.html").read_text())


def test_findings_counts_and_pictures_are_shown(images, tmp_path):
    names = np.array(images.objects)[images.object].tolist()
    domains = np.array(images.domains)[images.domain].tolist()
    findings = [a_finding([(0,), (9,)], "red 1%", "green"), a_finding([(1, 2)]) | {"kind": "pairs"}]
    shown = page(a_result(images.paths.tolist(), names, domains, findings), tmp_path)
    assert "red 1%" in shown.text
    assert "green" in shown.text
    assert "2 images" in " ".join(shown.text.split())
    cards, montage, on_map = 4, 6 * 6, len(images)
    assert len(shown.pictures) == cards + montage + on_map
    assert all(re.fullmatch(r"data:image/jpeg;base64,[\w+/=]+", picture) for picture in shown.pictures)
    assert {"script", "link", "iframe"}.isdisjoint(shown.tags)


def test_hostile_names_are_escaped(images, tmp_path):
    paths = images.paths[:4].tolist()
    result = a_result([*paths, f"/x/{HOSTILE}.png"], [HOSTILE] * 5, [HOSTILE] * 4 + ["b"])
    result["findings"] = [a_finding([(0,), (4,)], HOSTILE, HOSTILE), a_finding([(1, 4)], HOSTILE)]
    result["overview"]["left_out"] = [{"path": HOSTILE, "reason": HOSTILE, "where": ""}]
    result["overview"]["notes"], result["data"] = [HOSTILE], HOSTILE
    shown = page(result, tmp_path)
    assert "script" not in shown.tags
    assert "49" not in shown.text
    assert "\u202e" not in shown.text
    assert '<script>alert("x")</script>' in shown.text


def test_a_group_of_one_class_names_it_once_and_its_files(images, tmp_path):
    paths, names = images.paths.tolist(), ["red"] * 3 + ["blue"] * (len(images) - 3)
    shown = [
        page(a_result(paths, names, findings=[a_finding([rows])]), tmp_path).text.split("Because. Do it.")[1]
        for rows in ((0, 1, 2), (2, 3))
    ]
    same, mixed = (text.split("Counts, sizes and formats")[0].split() for text in shown)
    assert same == ["0.png1.png2.png", "redwhy"]
    assert mixed == ["redblue", "why"]


def test_a_set_without_labels_findings_or_readable_files_has_a_page(tmp_path):
    result = a_result([str(tmp_path / f"{i}.png") for i in range(2)], ["", ""])
    result["overview"]["labelled"] = 0
    shown = page(result, tmp_path)
    assert "Nothing odd was found" in shown.text
    assert "no label" in shown.text
    assert shown.pictures == []


def test_ten_thousand_images_make_a_page_below_ten_megabytes(tmp_path, monkeypatch):
    """Every picture is as large as pictures of noise are; 3,000 classes, 40 domains, and long names."""
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    drawn = {}

    def draw_once(self, contents, side, place):
        if side not in drawn:
            drawn[side] = real(self, contents, side, place)
        return drawn[side]

    real = thumbnails.Thumbnails._draw
    monkeypatch.setattr(thumbnails.Thumbnails, "_draw", draw_once)
    n = 10_000
    objects = [f"class {i % 3000} {'long ' * 30}" for i in range(n)]
    kinds = [a_finding([(i,) for i in range(n)]), a_finding([tuple(range(i, i + 20)) for i in range(0, n, 20)])] * 7
    findings = [finding | {"kind": f"kind{i}"} for i, finding in enumerate(kinds)]
    result = a_result([str(tmp_path / "noise.png")] * n, objects, [f"domain {i % 40}" for i in range(n)], findings)
    result["map"] = {"rows": list(range(600)), "places": np.zeros((600, 2)).tolist()}
    result["overview"]["left_out"] = [
        {"path": f"{i} {'long ' * 30}", "reason": f"r{i % 50}", "where": ""} for i in range(n)
    ]
    file = write_inspection(result, tmp_path / "page.html")
    assert len(drawn[max(drawn)]) > 5000
    assert file.stat().st_size < 10_000_000
    assert "and 9,976 more in findings.json" in file.read_text()


def test_report_draws_the_page_again_and_refuses_other_findings(images, tmp_path):
    names = np.array(images.objects)[images.object].tolist()
    write_json(tmp_path / "findings.json", a_result(images.paths.tolist(), names))
    assert write_report(tmp_path) == tmp_path / "inspection.html"
    assert (tmp_path / "inspection.html").is_file()
    write_json(tmp_path / "findings.json", {"findings": []})
    with pytest.raises(TransferError, match="run transfer inspect again"):
        write_report(tmp_path)
