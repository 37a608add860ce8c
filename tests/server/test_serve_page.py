"""The page of a run in a real browser, on a phone and on a desk: drop, paste, choose, correct, undo, compare."""

import base64
import csv
import io
import itertools
import shutil
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'server'")

from upload_files import HOSTILE, encode
from web_pages import needs_chromium, open_chromium, serve_in_thread

from transfer.config.shared import BackboneConfig
from transfer.config.train import DataConfig, RunConfig, TrainConfig
from transfer.server.api import create_api
from transfer.server.correction_folder import CorrectionFolder
from transfer.training.train import train

SCRIPT = '<img src=x onerror="window.hacked=1">'

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser():
    with open_chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def serve_runs(make_service):
    """Start a server for runs, and return its address; all are stopped at the end."""
    with ExitStack() as stack:
        yield lambda *runs: stack.enter_context(serve_in_thread(create_api(make_service(*runs))))


@pytest.fixture(scope="module")
def shared(served_folder, tmp_path_factory, serve_runs):
    """A run folder and the address that serves it; each test leaves it without corrections."""
    folder = shutil.copytree(served_folder, tmp_path_factory.mktemp("page") / "run")
    return folder, serve_runs(folder)


class Tab:
    def __init__(self, browser, address, width):
        self.context = browser.new_context(viewport={"width": width, "height": 800}, accept_downloads=True)
        self.page = self.context.new_page()
        self.errors, self.hosts = [], set()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._note)
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.goto(address)
        self.wait("about !== null && busy === 0")

    def _note(self, line):
        refused = "status of 4" in line.text  # the browser's own line on an image that the server refuses
        if line.type == "error" and not refused:
            self.errors.append(line.text)

    def wait(self, expression):
        """Wait until JavaScript is true; the page's policy forbids playwright's own way."""
        for _ in range(3000):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(20)
        raise AssertionError(f"never true: {expression}; {self.page.evaluate('document.body.innerText')}")

    def wait_for_answers(self, count):
        self.wait(f"items.length === {count} && items.every((item) => item.state === 'done') && busy === 0")

    def choose(self, *files):
        self.page.set_input_files(
            "#files", [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in files]
        )

    def give(self, event, *files):
        """Drop or paste files, as a browser does."""
        self.page.evaluate(
            """([event, files]) => {
              const data = new DataTransfer();
              for (const [name, type, text] of files)
                data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, {type}));
              const kinds = {drop: () => new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}),
                paste: () => new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true})};
              document.body.dispatchEvent(kinds[event]());
            }""",
            [event, [(name, kind, base64.b64encode(content).decode()) for name, kind, content in files]],
        )

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)
            self.wait("busy === 0")

    def text(self, name):
        return self.page.locator(f"#{name}").inner_text()


@pytest.fixture(params=[390, 1280])
def tab(browser, shared, request):
    tab = Tab(browser, shared[1], request.param)
    yield tab
    tab.context.close()
    assert tab.errors == []
    assert tab.hosts <= {urlsplit(shared[1]).netloc, ""}  # "" of data: and blob:
    shutil.rmtree(shared[0] / "corrections", ignore_errors=True)


def test_an_image_is_dropped_explained_and_compared_with_training_images(tab):
    tab.give("drop", ("green.png", "image/png", encode("green")))
    tab.wait_for_answers(1)
    assert tab.text("answers").startswith("green")
    assert "green" in tab.text("message")
    tab.wait("document.querySelectorAll('#alike-groups .three').length === 2 && busy === 0")
    labels = tab.page.locator("#alike-groups .three >> nth=0").inner_text()
    assert labels.startswith("green")
    assert labels.count("similarity") == 3
    tab.wait("[...document.querySelectorAll('#alike-groups img')].every((image) => image.naturalWidth > 0)")
    assert not tab.page.locator("#heat").is_visible()
    tab.press("g")
    assert tab.page.locator("#why").get_attribute("aria-pressed") == "true"
    assert tab.page.locator("#heat").is_visible()
    box, over = (tab.page.locator(name).bounding_box() for name in ("#image", "#heat"))
    assert all(abs(box[key] - over[key]) < 2 for key in box)
    assert tab.page.evaluate(
        "[...$('heat').getContext('2d').getImageData(0, 0, $('heat').width, $('heat').height).data].some((v) => v > 0)"
    )
    tab.press("g")
    assert not tab.page.locator("#heat").is_visible()


def test_an_image_is_pasted(tab):
    tab.give("paste", ("image.png", "image/png", encode("blue")))
    tab.wait_for_answers(1)
    assert tab.text("answers").startswith("blue")
    tab.give("paste")
    assert "no image to paste" in tab.text("problem")
    tab.give("drop", ("a.txt", "text/plain", b"text"))
    assert "no image files" in tab.text("problem")


def test_corrections_by_keys_are_stored_listed_and_undone(tab, shared):
    corrections = CorrectionFolder(shared[0])
    tab.choose(("red.png", encode("red")))
    tab.wait_for_answers(1)
    second = tab.page.evaluate("shownLabels[1]")
    tab.press("2")
    assert [each["label"] for each in corrections.list_corrections()] == [second]
    assert f"Stored as {second}" in tab.text("message")
    assert second in tab.text("corrections")
    assert "transfer update" in tab.text("command")
    tab.press("u")
    assert corrections.list_corrections() == []
    assert not tab.page.locator("#stored").is_visible()
    tab.press("c")
    tab.page.keyboard.type("gre")
    tab.press("Enter")
    tab.press("c")
    tab.page.keyboard.type("Something new")
    tab.press("Enter")
    assert "Shift+Enter" in tab.text("problem")
    tab.press("Shift+Enter")
    (held,) = corrections.list_corrections()
    assert (held["label"], held["seen"]) == ("Something new", 4)
    tab.press("Control+z")
    assert [each["label"] for each in corrections.list_corrections()] == ["green"]
    tab.page.click("#corrections button")
    tab.wait("busy === 0 && listed.length === 0")
    assert corrections.list_corrections() == []
    tab.page.reload()  # the page knows of decisions that were undone
    tab.wait("about !== null && busy === 0")
    tab.choose(("red.png", encode("red")))
    tab.wait_for_answers(1)
    tab.press("1")
    assert tab.text("problem") == ""
    assert len(corrections.list_corrections()) == 1


def test_a_correction_has_the_domain_that_is_stated_and_no_guess(tab, shared):
    corrections = CorrectionFolder(shared[0])
    tab.choose(("red.png", encode("red")), ("blue.png", encode("blue")))
    tab.wait_for_answers(2)
    assert tab.page.evaluate("[...$('domains').children].map((each) => each.value)") == ["plain", "striped"]
    assert tab.page.input_value("#domain") == ""
    tab.press("1")
    assert [each["domain"] for each in corrections.list_corrections()] == [""]
    tab.page.click("#domain")
    tab.page.keyboard.type("u1 attic")  # no key of the page
    tab.press("Enter")
    (held,) = corrections.list_corrections()
    assert (held["domain"], held["seen"]) == ("u1 attic", 2)
    assert f"{held['label']} in u1 attic" in tab.text("corrections")
    tab.page.evaluate("$('domain').blur()")
    tab.press("ArrowRight") if tab.page.locator("#next").is_enabled() else tab.press("ArrowLeft")
    assert tab.page.input_value("#domain") == ""
    tab.page.fill("#domain", "striped")
    tab.press("Enter")
    assert "choose it now" in tab.text("message")
    tab.press("1")
    assert [each["domain"] for each in corrections.list_corrections()] == ["striped", "u1 attic"]
    tab.press("ArrowRight") if tab.page.locator("#next").is_enabled() else tab.press("ArrowLeft")
    assert tab.page.input_value("#domain") == "u1 attic"


def test_the_list_says_what_was_predicted_before(tab):
    tab.choose(("red.png", encode("red")))
    tab.wait_for_answers(1)
    tab.press("1")
    assert "as predicted" in tab.text("corrections")
    first = tab.page.evaluate("listed[0].label")
    tab.press("2")
    assert f"predicted: {first}" in tab.text("corrections")
    tab.page.evaluate("listed[0].predicted = ''; drawCorrections(listed, () => {})")  # it was "I don't know"
    assert "not known before" in tab.text("corrections")
    tab.press("u", "u")


def test_long_names_break_after_underscores_alone(tab):
    for name in ("desk_top__computer", "_a", "a_", "plain", ""):
        parts = tab.page.evaluate("(name) => breakable(name).map((part) => part.tagName || part)", name)
        assert "".join(part for part in parts if part != "WBR") == name
        assert all(before.endswith("_") for before, part in itertools.pairwise(parts) if part == "WBR")


def test_a_class_whose_name_is_no_text_is_predicted_explained_and_stored(browser, serve_runs, folder, tmp_path):
    names = {"red": "red", "green": "gr\udcfcn", "blue": '<b>"=1+1"'}
    for old, new in names.items():
        shutil.copytree(folder / "plain" / old, tmp_path / "data" / new)
    run = RunConfig(out=tmp_path / "run")
    train(TrainConfig(DataConfig(str(tmp_path / "data")), BackboneConfig("glyphnet"), run=run))
    tab = Tab(browser, serve_runs(tmp_path / "run"), 390)
    tab.choose(("green.png", encode("green")))
    tab.wait_for_answers(1)
    tab.wait("document.querySelectorAll('#alike-groups .three').length === 2 && busy === 0")
    shown = [name.replace("\udcfc", "\ufffd") for name in names.values()]
    assert sorted(tab.page.evaluate("shownLabels.map((label) => label.toWellFormed())")) == sorted(shown)
    tab.press("g", str(1 + tab.page.evaluate("shownLabels.findIndex((label) => !label.isWellFormed())")))
    assert tab.text("problem") == ""
    assert [each["label"] for each in CorrectionFolder(tmp_path / "run").list_corrections()] == ["gr\udcfcn"]
    assert tab.errors == []
    tab.context.close()


def test_a_run_without_domains_asks_for_none(browser, serve_runs, folder, tmp_path):
    run = RunConfig(out=tmp_path / "run")
    train(TrainConfig(DataConfig(str(folder / "plain")), BackboneConfig("glyphnet"), run=run))
    tab = Tab(browser, serve_runs(tmp_path / "run"), 390)
    tab.choose(("red.png", encode("red")))
    tab.wait_for_answers(1)
    assert not tab.page.locator("#domain").is_visible()
    tab.press("1")
    assert len(CorrectionFolder(tmp_path / "run").list_corrections()) == 1
    assert tab.errors == []
    tab.context.close()


def test_a_gallery_sorts_by_doubt_and_is_walked_by_keys(tab):
    files = [(f"{i}-{colour}.png", encode(colour, seed=i)) for i, colour in enumerate(("red", "green", "blue"))]
    mixed = encode("red", size=(32, 32), seed=5)
    tab.choose(*files, ("mixed.png", mixed), ("bad.png", HOSTILE["cut PNG"]))
    tab.wait_for_answers(5)
    tab.wait("document.querySelectorAll('#cards img').length >= 4")
    doubts = tab.page.evaluate("ordered().map((item) => item.error ? 2 : item.found[0].prediction.doubt)")
    assert doubts == sorted(doubts, reverse=True)
    assert "not read" in tab.page.locator("#cards li >> nth=0").inner_text()
    tab.press("d")
    names = tab.page.evaluate("ordered().map((item) => item.name)")
    assert names == [*(name for name, _ in files), "mixed.png", "bad.png"]
    assert tab.text("name") == names[0]
    tab.press("ArrowRight", "ArrowRight")
    assert tab.text("name") == names[2]
    assert tab.page.locator("#cards [aria-current=true]").get_attribute("aria-label").startswith(names[2])
    tab.press("ArrowLeft")
    assert tab.text("name") == names[1]
    tab.page.click("#cards button >> nth=4")
    assert tab.text("name") == "bad.png"
    assert "cannot be read" in tab.text("answers")
    tab.page.click("#clear")
    assert not tab.page.locator("#gallery").is_visible()
    assert not tab.page.locator("#detail").is_visible()


def test_predictions_are_saved_as_csv_that_no_spreadsheet_runs(tab):
    tab.choose(("=cmd()|'a',\"b\".png", encode("red")), ("plain.png", encode("blue")), ("bad.png", b"text"))
    tab.wait_for_answers(3)
    with tab.page.expect_download() as download:
        tab.page.keyboard.press("e")
    with open(download.value.path(), encoding="utf-8-sig", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert download.value.suggested_filename == "predictions.csv"
    assert rows["plain.png"]["object"] == "blue"
    assert float(rows["plain.png"]["object_probability"]) > 0.3
    assert "blue" in rows["plain.png"]["object_set"]
    assert rows["bad.png"]["error"]
    assert "'=cmd()|'a',\"b\".png" in rows
    assert csv.DictReader(io.StringIO("")).fieldnames is None


def test_everything_can_be_done_by_touch_within_the_width(tab):
    tab.choose(("red.png", encode("red")), ("blue.png", encode("blue")))
    tab.wait_for_answers(2)
    tab.page.click("#likely button >> nth=1")
    tab.wait("busy === 0 && listed.length === 1")
    width = tab.page.viewport_size["width"]
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    for element in tab.page.locator("button:visible, .button:visible, select:visible, #label, #domain").all():
        box = element.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["height"] >= 40
    assert tab.page.locator("#camera").get_attribute("capture") == "environment"


def test_everything_has_a_name_for_a_screen_reader(tab):
    tab.choose(("red.png", encode("red")), ("blue.png", encode("blue")))
    tab.wait_for_answers(2)
    tab.press("1")
    unnamed = tab.page.evaluate(
        """[...document.querySelectorAll("button, input, select, canvas, img, section, dialog")].filter((element) =>
          !(element.getAttribute("aria-label") || element.labels?.length || element.textContent.trim()
            || element.alt || element.hidden || element.getAttribute("aria-hidden")
            || (element.tagName === "IMG" && element.closest("button")))).map((element) => element.outerHTML)"""
    )
    assert unnamed == []
    labelled = tab.page.evaluate(
        "[...document.querySelectorAll('[aria-labelledby]')].every((each) => $(each.getAttribute('aria-labelledby')))"
    )
    assert labelled
    tab.page.keyboard.press("?")
    assert tab.page.locator("#keys").is_visible()
    tab.page.keyboard.press("Escape")
    assert not tab.page.locator("#keys").is_visible()
    tab.press("u")


def test_all_is_reached_by_the_tab_key(tab):
    tab.choose(("red.png", encode("red")))
    tab.wait_for_answers(1)
    reached = set()
    for _ in range(40):
        tab.page.keyboard.press("Tab")
        reached.add(tab.page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"files", "camera", "why", "label", "domain", "help"} <= reached


def test_two_tabs_lose_no_correction(browser, shared):
    folder, address = shared
    one, two = Tab(browser, address, 1280), Tab(browser, address, 1280)
    for tab in (one, two):
        tab.choose(("red.png", encode("red")))
        tab.wait_for_answers(1)
    one.press("2")
    two.press("3")  # the other tab was first
    assert "another tab" in two.text("problem")
    first = CorrectionFolder(folder).list_corrections()
    assert [each["label"] for each in first] == [one.page.evaluate("shownLabels[1]")]
    two.press("3")
    assert [each["seen"] for each in CorrectionFolder(folder).list_corrections()] == [2]
    for tab in (one, two):
        tab.context.close()
    shutil.rmtree(folder / "corrections")


def test_two_runs_stand_side_by_side(browser, served_folder, tmp_path, serve_runs):
    copies = [shutil.copytree(served_folder, tmp_path / name) for name in ("first", "second")]
    tab = Tab(browser, serve_runs(*copies), 1280)
    tab.choose(("red.png", encode("red")))
    tab.wait_for_answers(1)
    boxes = [box.bounding_box() for box in tab.page.locator(".answer").all()]
    assert len(boxes) == 2
    assert boxes[0]["y"] == boxes[1]["y"]
    assert [box.inner_text().split("\n")[0] for box in tab.page.locator(".answer").all()] == ["first", "second"]
    assert "those of the first run, first" in tab.text("of-first")
    tab.press("2")
    assert CorrectionFolder(copies[0]).list_corrections()
    assert not CorrectionFolder(copies[1]).list_corrections()
    assert tab.errors == []
    tab.context.close()


def test_hostile_names_are_text(browser, shared):
    tab = Tab(browser, shared[1], 390)
    tab.choose((f"{SCRIPT}.png", encode("red")), ("b.png", encode("blue")))
    tab.wait_for_answers(2)
    tab.press("c")
    tab.page.keyboard.type(SCRIPT)
    tab.press("Shift+Enter")
    assert SCRIPT in tab.text("corrections")
    assert tab.page.evaluate("window.hacked") is None
    tab.press("u")
    assert tab.errors == []
    tab.context.close()
