import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from transfer.errors import TransferError
from transfer.report.page import write_report

SECTIONS = ("what", "learning", "accuracy", "confusion", "calibration", "pictures", "gradcam", "features", "cost")
VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """What a browser would make of a page: elements, addresses, text, and whether elements are closed in order."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags, self.addresses, self.ids, self.words, self.open = [], [], [], [], []
        self.handlers, self.text = [], file.read_text(encoding="utf-8")
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            self.handlers += [name] if name.startswith("on") else []
            self.ids += [value] if name == "id" else []
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                self.addresses.append(value)
            if name == "style" and "url(" in (value or ""):
                self.addresses += re.findall(r"url\(([^)]*)\)", value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> in {self.open}"

    def handle_data(self, data):
        self.words.append(data)


def sound(page: Page) -> None:
    """A page needs nothing from anywhere, runs nothing, and nests as it should."""
    assert not page.open
    assert "script" not in page.tags
    assert not page.handlers
    assert not {"link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    for address in page.addresses:
        assert address.startswith(("#", "data:image/")) or not re.match(r"[a-z]+:|//|/", address), address
    css = "".join(re.findall(r"<style>(.*?)</style>", page.text, re.S))
    assert "@import" not in css
    assert "url(" not in css


def test_every_section_is_there_and_nothing_comes_from_elsewhere(made):
    folder = made()
    file = write_report(folder)
    assert file == folder / "report.html"
    page = Page(file)
    sound(page)
    assert set(SECTIONS) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("svg") >= 10
    assert page.tags.count("img") == 2 + 1 + 2 + 3
    assert {"#" + section for section in SECTIONS} <= set(page.addresses)
    text = " ".join("".join(page.words).split())
    for said in (
        "overfitting: <object>",
        "a <note>",
        "file <weights>",
        "transfer train",
        "after <training>",
        "rate 0.003",
    ):
        assert said in text
    assert file.stat().st_size < 5e6


def test_names_that_would_break_a_page_are_text(made, hostile):
    page = Page(write_report(made(classes=hostile)))
    sound(page)
    text = "".join(page.words)
    for name in hostile:
        assert name in text
    assert "<script" not in page.text
    assert "<img src=x" not in page.text


def test_a_page_built_again_is_the_same_to_the_byte(made):
    folder = made()
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_a_folder_of_an_older_run_gives_what_there_is(made):
    folder = made(bare=True)
    (folder / "predictions.csv").unlink()
    page = Page(write_report(folder))
    sound(page)
    assert {"accuracy", "confusion", "cost", "learning"} <= set(page.ids)
    assert not {"pictures", "gradcam", "features"} & set(page.ids)
    (folder / "metrics.jsonl").unlink()
    result = json.loads((folder / "result.json").read_text())
    for name in ("backbone", "monitor", "notes", "stopped", "per_domain", "images"):
        del result[name]
    result["config"]["learn"]["of_another_version"] = 1
    (folder / "result.json").write_text(json.dumps(result))
    older = Page(write_report(folder))
    sound(older)
    assert "learning" not in older.ids
    assert "The command that makes it again" not in older.text


def test_hundreds_of_classes_are_listed_not_drawn(made):
    many = tuple(f"class {i}" for i in range(200))
    page = Page(write_report(made(classes=many, n=600)))
    sound(page)
    assert "200 classes are too many to draw" in page.text
    assert "the 170 classes in between" in page.text
    assert len(page.text) < 1e6


def test_no_test_images_no_figures(made):
    folder = made(bare=True, test={}, per_domain={})
    (folder / "predictions.csv").write_text("path\n")
    page = Page(write_report(folder))
    sound(page)
    assert "no test images" in page.text


def test_a_regression_head_has_errors_not_accuracies(made):
    heads = {"angle": {"mae": 1.5, "rmse": 2.0, "r2": 0.75, "n": 9}}
    page = Page(write_report(made(bare=True, test=heads, per_domain={})))
    sound(page)
    assert "0.750" in page.text
    assert "mean absolute error" in page.text


def test_several_seeds_show_each(made):
    seeds = [json.loads((made(f"run/seed{s}", seed=s) / "result.json").read_text()) | {"seed": s} for s in (3, 4)]
    from transfer.runs.seeds import merge_seeds

    merged = merge_seeds([3, 4], [{k: v for k, v in one.items() if k != "seed"} for one in seeds])
    folder = made("whole", bare=True)
    (folder / "result.json").write_text(json.dumps(merged))
    for s in (3, 4):
        (folder.parent / "run" / f"seed{s}").rename(folder / f"seed{s}")
    page = Page(write_report(folder))
    sound(page)
    assert "seeds" in page.ids
    for one in seeds:
        assert f"{100 * one['test']['object']['accuracy']:.1f}" in page.text
    assert " ± " in page.text


def test_what_has_no_report_is_one_line(made, tmp_path):
    with pytest.raises(TransferError, match=r"no result\.json in .*nowhere"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(TransferError, match="name the folder of a run"):
        write_report()
    folder = made(command="search")
    with pytest.raises(TransferError, match="not of search"):
        write_report(folder)
    (folder / "result.json").write_text("{")
    with pytest.raises(TransferError, match="is damaged"):
        write_report(folder)


def test_a_page_needs_neither_torch_nor_matplotlib(made):
    code = "import sys; from transfer.report.page import write_report; write_report(sys.argv[1]); "
    code += "sys.exit(int(bool({'torch', 'matplotlib', 'sklearn'} & set(sys.modules))))"
    assert subprocess.run([sys.executable, "-c", code, str(made())], check=False).returncode == 0


def test_runs_side_by_side(made, tmp_path, monkeypatch, hostile):
    monkeypatch.chdir(tmp_path)
    good, bad = made("good <b>", wrong=0.0), made("bad", wrong=0.5)
    write_report(good)
    file = write_report(good, bad)
    assert file == Path("compare.html")
    page = Page(file)
    sound(page)
    assert "good%20%3Cb%3E/report.html" in page.addresses
    accuracy = json.loads((bad / "result.json").read_text())["test"]["object"]["accuracy"]
    assert f"{100 * (accuracy - 1):+.1f}" in page.text
    assert write_report(bad, good, out=tmp_path / "pages" / "x.html").is_file()
    assert "../good%20%3Cb%3E/report.html" in Page(tmp_path / "pages" / "x.html").addresses


def test_a_page_of_labels_has_no_section_that_is_empty_for_them(made):
    scores = {"ap": 0.5, "f1": 0.5, "precision": 0.5, "recall": 0.5, "threshold": 0.4, "n": 20}
    tags = {"map": 0.5, "micro_f1": 0.5, "macro_f1": 0.5, "n": 40, "per_label": {"red": scores, "round": scores}}
    folder = made(test={"tags": tags}, per_domain={})
    exhibits = json.loads((folder / "exhibits.json").read_text())
    exhibits["map"]["names"]["domains"] = ["all"]
    exhibits["map"]["states"] = [state | {"domains": [0] * 40} for state in exhibits["map"]["states"]]
    (folder / "exhibits.json").write_text(json.dumps(exhibits))
    page = Page(write_report(folder))
    assert not {"confusion", "calibration"} & set(page.ids)
    assert not {"#confusion", "#calibration"} & set(page.addresses)
    text = " ".join(page.words)
    assert "with the true class or labels, then each head's prediction." in text
    assert "most frequent to rarest label" in text
    assert "by labels" in page.words
    assert "by domain" not in page.words
